# SPDX-License-Identifier: Apache-2.0
"""QDQ models with windows over their past, written as many exporters do; streams of them in three ways.

`shifted` is the integer graph with the windows as copies, `ringed` the same with rings; both run node by node on the
operators' NumPy definitions, and ONNX Runtime runs the QDQ file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from qdq_graph import Graph

from edgec.lower import lower_to_integers
from edgec.lower.attention import fuse_attention
from edgec.lower.lower import INTERFACE_KEY
from edgec.lower.rings import with_rings
from edgec.model import Model, StatePair
from edgec.operators import get_operator

HUGE = 2**63 - 1


class Stream(Graph):
    """A graph with states; every state has a scale and a zero point of its own, which its successor has too."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.pairs: list[StatePair] = []
        self.quants: dict[str, tuple[str, str]] = {}  # value -> its scale and zero point
        self._open: dict[str, str] = {}

    def drawn(self) -> tuple[str, str]:
        """A scale and a zero point."""
        scale = np.float32(self.rng.uniform(0.01, 0.03))
        return self.constant(scale, "scale"), self.constant(np.int8(self.rng.integers(-20, 20)), "zero")

    def snap(self, name: str, quant: tuple[str, str]) -> str:
        """Q and DQ with this quantization."""
        result = self.dequantize(self.op("QuantizeLinear", name, *quant), *quant)
        self.quants[result] = quant
        return result

    def given(self, *shape: int, quant: tuple[str, str] | None = None) -> str:
        """A quantized input."""
        name = self._name("x")
        self.inputs[name] = self.rng.uniform(-2, 2, shape).astype(np.float32)
        return self.snap(name, quant or self.drawn())

    def state(self, *shape: int, quant: tuple[str, str] | None = None) -> str:
        """A quantized state; `push` writes its successor."""
        name = self._name("s")
        self.inputs[name] = self.rng.uniform(-2, 2, shape).astype(np.float32)
        value = self.snap(name, quant or self.drawn())
        self._open[value] = name
        return value

    def successor(self, state: str, value: str) -> str:
        """Quantize `value` as the state is and make it its successor."""
        result = self.snap(value, self.quants[state])
        self.outputs[result] = self.values(result).shape
        self.pairs.append(StatePair(self._open.pop(state), result, float(self.rng.uniform(-0.1, 0.1))))
        return result

    def ints(self, *values: int) -> str:
        """A constant list of indices."""
        return self.constant(np.array(values, np.int64))

    def cut(self, name: str, axis: int, first: int, last: int = HUGE) -> str:
        """A slice along one axis."""
        return self.op("Slice", name, self.ints(first), self.ints(last), self.ints(axis))

    def read(self, value: str, state: str) -> str:
        """What reads a window gets it quantized as the state is."""
        return self.snap(value, self.quants[state])

    def finished(self, *results: str) -> Model:
        """The model with these outputs."""
        for name in results:
            self.output(name)
        wanted, kept = set(self.outputs), []
        for node in reversed(self.nodes):  # what a push offers and nobody took
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        return Model(self.proto(), "stream", "0" * 64, tuple(self.pairs))


Push = Callable[[Stream, str, str, int], tuple[str, str]]
"""state, new rows, axis -> (window with the new rows, successor), both float."""


def _sizes(g: Stream, s: str, x: str, axis: int) -> tuple[int, int]:
    return g.values(s).shape[axis], g.values(x).shape[axis]


def slice_concat(g: Stream, s: str, x: str, axis: int) -> tuple[str, str]:
    _, step = _sizes(g, s, x, axis)
    return g.op("Concat", s, x, axis=axis), g.op("Concat", g.cut(s, axis, step), x, axis=axis)


def concat_slice(g: Stream, s: str, x: str, axis: int) -> tuple[str, str]:
    _, step = _sizes(g, s, x, axis)
    window = g.read(g.op("Concat", s, x, axis=axis), s)
    return window, g.cut(window, axis, step)


def last_rows(g: Stream, s: str, x: str, axis: int) -> tuple[str, str]:
    """window[-rows:] on a negative axis."""
    rows, _ = _sizes(g, s, x, axis)
    window = g.read(g.op("Concat", s, x, axis=axis - g.values(s).ndim), s)
    return window, g.cut(window, axis - g.values(s).ndim, -rows)


def split(g: Stream, s: str, x: str, axis: int) -> tuple[str, str]:
    rows, step = _sizes(g, s, x, axis)
    _, kept = g.node("Split", [s, g.ints(step, rows - step)], 2, axis=axis)
    return g.op("Concat", s, x, axis=axis), g.op("Concat", kept, x, axis=axis)


def gathered(g: Stream, s: str, x: str, axis: int) -> tuple[str, str]:
    rows, step = _sizes(g, s, x, axis)
    window = g.read(g.op("Concat", s, x, axis=axis), s)
    return window, g.op("Gather", window, g.ints(*range(step, rows + step)), axis=axis)


def transposed(g: Stream, s: str, x: str, axis: int) -> tuple[str, str]:
    """The window in another order of axes, as convolutions want it."""
    rank = g.values(s).ndim
    perm = [rank - 1 - a for a in range(rank)]
    t, u = (g.op("Transpose", name, perm=perm) for name in (s, x))
    window = g.read(g.op("Concat", t, u, axis=perm.index(axis)), s)
    step = _sizes(g, s, x, axis)[1]
    kept = g.cut(window, perm.index(axis), step)
    return tuple(g.op("Transpose", name, perm=perm) for name in (window, kept))  # type: ignore[return-value]


def rolled(g: Stream, s: str, x: str, axis: int) -> tuple[str, str]:
    """torch.roll, then all but the last rows and the new ones."""
    rows, step = _sizes(g, s, x, axis)
    turned = g.read(g.op("Concat", g.cut(s, axis, step), g.cut(s, axis, 0, step), axis=axis), s)
    kept = g.cut(turned, axis, 0, rows - step)
    return g.op("Concat", s, x, axis=axis), g.op("Concat", kept, x, axis=axis)


PUSHES: dict[str, Push] = {
    p.__name__: p for p in (slice_concat, concat_slice, last_rows, split, gathered, transposed, rolled)
}


def shifted(model: Model) -> Model:
    """The integer graph, windows as copies."""
    return fuse_attention(lower_to_integers(model))


def ringed(model: Model) -> Model:
    """The integer graph, windows as rings."""
    return with_rings(shifted(model))


def ops(model: Model) -> list[str]:
    """Operators in order, views left out."""
    return [n.op_type for n in model.proto.graph.node if n.op_type != "Reshape"]


def border_of(model: Model) -> dict[str, Any]:
    """What the integer graph says of its border."""
    border: dict[str, Any] = json.loads(next(p.value for p in model.proto.metadata_props if p.key == INTERFACE_KEY))
    return border


def stream(model: Model, feeds: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Outputs (no states) of each step of an integer graph by the operators' definitions, flat."""
    graph = model.proto.graph
    border = border_of(model)
    entries = {e["name"]: e for e in (*border["inputs"], *border["outputs"])}
    shapes = {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in graph.input}
    dtypes = {i.name: helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in graph.input}
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    pairs = [
        (s.input, entries[s.output]["tensor"], _quantized(entries[s.input], s.reset, dtypes[s.input]))
        for s in model.states
    ]
    pairs += [(e["name"], e["tensor"], np.int32(e["reset"])) for e in border.get("internal", [])]
    state = {name: np.full(shapes[name], reset) for name, _, reset in pairs}
    outputs = [e["name"] for e in border["outputs"] if e["name"] not in {s.output for s in model.states}]
    results = []
    for feed in feeds:
        values = {**constants, **state}
        values |= {n: _quantized(entries[n], a, dtypes[n]).reshape(shapes[n]) for n, a in feed.items()}
        for node in graph.node:
            _run(node, values)
        state = {name: values[tensor].reshape(shapes[name]) for name, tensor, _ in pairs}
        results.append({name: values[entries[name]["tensor"]].ravel() for name in outputs})
    return results


def ort_stream(model: Model, feeds: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Outputs (no states) of each step by ONNX Runtime, as it stands, real values."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.proto.SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    state = {
        s.input: np.full(i.shape, s.reset, np.float32) for s, i in zip(model.states, model.state_inputs, strict=True)
    }
    results = []
    for feed in feeds:
        found = dict(zip(names, session.run(names, {**feed, **state}), strict=True))
        state = {s.input: found[s.output] for s in model.states}
        results.append({o.name: found[o.name] for o in model.outputs})
    return results


def feeds_of(model: Model, steps: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Inputs of a stream."""
    rng = np.random.default_rng([seed, steps])
    return [{i.name: rng.uniform(-2, 2, i.shape).astype(np.float32) for i in model.inputs} for _ in range(steps)]


def same_bits(model: Model, steps: int, seed: int = 0, *, varied: bool = True) -> Model:
    """The ringed form, after a stream of it has had the bits of the shifted one at every step."""
    rings, feeds = ringed(model), feeds_of(model, steps, seed)
    values: set[int] = set()
    for step, (wanted, got) in enumerate(zip(stream(shifted(model), feeds), stream(rings, feeds), strict=True)):
        for name, array in wanted.items():
            np.testing.assert_array_equal(got[name], array, err_msg=f"step {step}, {name}")
            values |= set(array.tolist())
    assert len(values) > 1 or not varied  # scales are drawn: now and then one is too large for a result
    return rings


def _quantized(entry: dict[str, float], real: np.ndarray | float, dtype: np.dtype) -> np.ndarray:
    q = np.rint(np.asarray(real, np.float32) / np.float32(entry["scale"])) + entry["zero_point"]
    return np.clip(q, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def _run(node: onnx.NodeProto, values: dict[str, np.ndarray]) -> None:
    if node.op_type == "Reshape":
        values[node.output[0]] = values[node.input[0]].reshape(values[node.input[1]])
        return
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    values[node.output[0]] = get_operator(node.op_type).run([values[n] for n in node.input], attrs)
