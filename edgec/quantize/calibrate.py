# SPDX-License-Identifier: Apache-2.0
"""Observe the range of every activation while the float model runs over calibration samples.

One sample at a time through ONNX Runtime on the CPU (one thread, no graph optimization: the same ranges every
time); state outputs are fed back as the next step's state inputs. Only running statistics are kept, so memory
does not grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgec.errors import UnsupportedError
from edgec.quantize.ranges import Method, entropy_range, mse_range, percentile_range

if TYPE_CHECKING:
    from edgec.model import Model

HISTOGRAM_BINS = 8192  # symmetric around zero: the resolution is at least |v|max / 2048


@dataclass
class ValueStatistics:
    """Running minimum, maximum and histogram of one value.

    Bin i of the histogram counts `i*width <= v - low_edge < (i+1)*width` with `low_edge =
    -width*HISTOGRAM_BINS/2`; the width is a power of two and doubles (neighbouring bins merge exactly) when a
    value falls outside, so the result does not depend on the order of the samples.
    """

    minimum: float = np.inf
    maximum: float = -np.inf
    width: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))

    def update(self, values: np.ndarray) -> None:
        """Add all elements of a finite float array."""
        if values.size == 0:
            return
        flat = values.astype(np.float64).ravel()
        low, high = float(flat.min()), float(flat.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._make_room(max(-low, high))
        if self.width == 0.0:  # only zeros so far: they belong to the bin that starts at zero, whatever the width
            self.counts[HISTOGRAM_BINS // 2] += flat.size
            return
        steps = flat / self.width
        bins = np.floor(steps).astype(np.int64) + HISTOGRAM_BINS // 2
        bins[(steps == 0) & (flat < 0)] -= 1  # so small that the quotient is 0, and still below it
        self.counts += np.bincount(bins, minlength=HISTOGRAM_BINS)

    def range(
        self, method: Method = "minmax", percentile: float = 99.99, *, symmetric: bool = False
    ) -> tuple[float, float]:
        """Low and high end of the value.

        Args:
            method: `minmax` = everything seen; `percentile` = without the outermost values; `mse`, `entropy` =
                see `ranges`.
            percentile: percent of all elements to cover; half of the rest may be cut at either end.
            symmetric: the range will be used with zero point 0.
        """
        if method == "minmax" or self.width == 0.0:
            return self.minimum, self.maximum
        edges = (np.arange(HISTOGRAM_BINS + 1, dtype=np.float64) - HISTOGRAM_BINS // 2) * self.width
        if method == "percentile":
            low, high = percentile_range(edges, self.counts, percentile)
        else:
            search = mse_range if method == "mse" else entropy_range
            low, high = search(edges, self.counts, self.minimum, self.maximum, symmetric)
        return max(self.minimum, low), min(self.maximum, high)

    def _make_room(self, magnitude: float) -> None:
        if magnitude == 0.0:
            return
        half = HISTOGRAM_BINS // 2
        if self.width == 0.0:
            # |v| < 2^exponent = half * width
            self.width = float(2.0 ** max(np.frexp(magnitude)[1] - np.log2(half), -1000))
        while magnitude >= half * self.width:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[half // 2 : half // 2 + half] = merged
            self.width *= 2


@dataclass(frozen=True)
class Ranges:
    """Statistics of every observed value and the number of samples behind them."""

    statistics: Mapping[str, ValueStatistics]
    samples: int

    def __getitem__(self, name: str) -> ValueStatistics:
        return self.statistics[name]


def calibrate(model: Model, samples: Mapping[str, np.ndarray], values: Iterable[str]) -> Ranges:
    """Run the float model over all samples and observe `values` (any of its inputs, activations, outputs).

    Args:
        model: canonical float model.
        samples: `[S, *onnx_shape]` per input, as `dataset.check_samples` returns; for a stateful model the
            steps of one stream, from reset.
        values: names of float values.

    Raises:
        UnsupportedError: a value is not finite; names it and the sample.
    """
    names = sorted(set(values))
    statistics = {name: ValueStatistics() for name in names}
    steps = 0
    for step, found in enumerate(run_stream(model, samples, names)):
        for name in names:
            if not np.isfinite(found[name]).all():
                raise UnsupportedError(
                    f"the float model computes values that are not finite: {name}, sample {step}",
                    hint="check the model on this sample in ONNX Runtime",
                )
            statistics[name].update(found[name])
        steps = step + 1
    return Ranges(statistics, steps)


def run_stream(
    model: Model,
    samples: Mapping[str, np.ndarray],
    fetch: Sequence[str] | None = None,
    *,
    optimize: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
    """Run a model sample by sample in ONNX Runtime, state fed back from its reset value; float or QDQ.

    Args:
        model: any model that ONNX Runtime runs.
        samples: `[S, *onnx_shape]` per input without the state inputs.
        fetch: names to return, default the model's outputs without the state ones; inputs and inner values
            too.
        optimize: let ONNX Runtime rewrite the graph; off, results are the operators' own.

    Yields:
        name -> array in ONNX shape, one dictionary a sample.

    Raises:
        UnsupportedError: ONNX Runtime does not take the model, or not these samples.
    """
    import onnxruntime

    graph = model.proto.graph
    if fetch is None:
        state_outputs = {pair.output for pair in model.states}
        fetch = [value.name for value in graph.output if value.name not in state_outputs]
    wanted = sorted((set(fetch) | {pair.output for pair in model.states}) - {value.name for value in graph.input})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions, not on stderr as well
    level = onnxruntime.GraphOptimizationLevel
    # Without it the default optimizations turn some int8 zero points to uint8 and others not, and refuse the graph.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    content = _with_outputs(model.proto, wanted).SerializeToString()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a dozen types without a common one; each says that it does not take the model
        raise _refused(model, error) from error
    state = {
        pair.input: np.full(info.shape, pair.reset, info.dtype)
        for pair, info in zip(model.states, model.state_inputs, strict=True)
    }
    for step in range(len(next(iter(samples.values()), ()))):
        feed = {name: array[step] for name, array in samples.items()} | state
        try:
            found = dict(zip(wanted, session.run(wanted, feed), strict=True)) if wanted else {}
        except Exception as error:
            raise _refused(model, error) from error
        found |= feed
        yield {name: found[name] for name in fetch}
        state = {pair.input: found[pair.output] for pair in model.states}


def _refused(model: Model, error: Exception) -> UnsupportedError:
    line = " ".join(str(error).split())[:300]
    return UnsupportedError(f"ONNX Runtime does not run {model.name}: {line}")


def _with_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    present = {value.name for value in proto.graph.output}
    if present.issuperset(names):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = {value.name: value for value in proto.graph.value_info}
    for name in names:
        if name not in present:
            float_value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            copy.graph.output.append(known.get(name, float_value))
    return copy
