# SPDX-License-Identifier: Apache-2.0
"""The drift test of the quantizer: plans of one model, run closed-loop beside its float form on the calibration stream.

What is chosen by it has to hold on streams that it has not seen, and on what training has seen a model is more decided
than elsewhere. So a plan has to keep a distance from the limits, where any plan does: see MARGINS.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import numpy as np

from edgec.errors import UnsupportedError
from edgec.lower import lower_to_integers
from edgec.model import Model
from edgec.passes.layout import device_layout
from edgec.quantize.drift import Drift, Outputs, measure, outputs_along, repeated
from edgec.quantize.plan import Plan

STEPS = 1000
"""Least steps of the drift test; the calibration stream is repeated, three times or more."""
MOST_STEPS = 6000
MOST_SECONDS = 6.0
"""Estimated time of one run of the test, which shortens it: 16 us for each node and 2 ns for each multiplication."""
MARGINS = ((0.7, 0.0), (0.7, 0.5), (1.0, 1.0))
"""Shares of error and of disagreeing steps that are allowed, best first. Errors are nearly the same on another stream,
while twice as many answers may differ, and which plan has the fewest such answers is chance."""
GROWN = 1.25
"""Largest value of a state in the last turn of the stream beside that in the first: above it the state grows without
end, if it grew in every turn and in the last about as much as in the others."""
LOST = measure([{"": np.zeros(1)}], {"": [{"": np.array([np.inf])}]})[""]
"""A drift without bound."""


class DriftTest:
    """Float's outputs on the stream, with which plans are compared.

    Args:
        narrow: a plan of the model without wide states or layers.
        samples: `[S, *onnx_shape]` per input, the steps of one stream.

    Attributes:
        steps: of the stream; 0 where the float model gives no finite outputs.
        growing: inputs of the states that reach further in float with every turn of the stream.
    """

    def __init__(self, narrow: Plan, samples: Mapping[str, np.ndarray]) -> None:
        self.narrow, self.samples = narrow, samples
        self.period = len(next(iter(samples.values()), ()))
        self._wanted: list[Outputs] = []
        self._narrow_compiles: bool | None = None
        model = narrow.model
        self._stream = repeated(samples, test_steps(model, self.period))
        self.growing = self._run_float(model)
        self.steps = len(self._wanted)
        self._stream = {name: array[: self.steps] for name, array in self._stream.items()}

    def run(self, plan: Plan, steps: int | None = None) -> Drift:
        """How far the plan's outputs are from float's over the first `steps`, all without it; LOST where the plan has
        no quantized form, or the compiler none for that."""
        try:
            written = plan.write()
        except UnsupportedError:
            return LOST
        if plan.grouping.regions.nodes and not _compiles(written) and self._compiles_narrow():
            return LOST
        wanted = self._wanted[:steps]
        form = outputs_along(written, {name: array[: len(wanted)] for name, array in self._stream.items()})
        scores = None if plan.model.outputs else ()
        return measure(wanted, {"": form}, scores=scores, period=self.period)[""]

    def _run_float(self, model: Model) -> frozenset[str]:
        """Take float's outputs up to the first that is not finite; the states that grow."""
        states = {pair.output: pair.input for pair in model.states}
        names = [i.name for i in model.outputs] or list(states)
        peaks: list[list[float]] = []
        for row in outputs_along(model, self._stream):
            kept = {name: row[name] for name in names}
            if not all(np.isfinite(v).all() for v in kept.values()):
                break
            self._wanted.append(kept)
            peaks.append([float(np.abs(row[name]).max(initial=0.0)) for name in states])
        turns = len(peaks) // self.period if self.period else 0
        if turns < 2:
            return frozenset()
        highest = np.array(peaks[: turns * self.period]).reshape(turns, self.period, -1).max(axis=1)
        gains = np.diff(highest, axis=0)  # those of a memory that is longer than the stream fade
        grown = (highest[-1] > GROWN * highest[0]) & (gains[-1] > 0.5 * gains.mean(axis=0)) & (gains > 0).all(axis=0)
        return frozenset(name for name, grows in zip(states.values(), grown, strict=True) if grows)

    def _compiles_narrow(self) -> bool:
        if self._narrow_compiles is None:
            self._narrow_compiles = _compiles(self.narrow.write())
        return self._narrow_compiles


def test_steps(model: Model, samples: int) -> int:
    """Steps of the drift test of a model with so many calibration samples."""
    steps = min(samples * max(3, ceil(STEPS / samples)), MOST_STEPS)
    seconds = 16e-6 * len(model.proto.graph.node) + 2e-9 * model.macs()
    return max(min(steps, int(MOST_SECONDS / seconds)), min(samples, STEPS), 2)


def _compiles(model: Model) -> bool:
    """Whether every node has an integer form, or is one of those that are float on purpose."""
    try:
        lower_to_integers(device_layout(model))
    except UnsupportedError:
        return False
    return True
