# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models of standard operators, written node by node (no exporter), with random weights and samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shapes = Mapping[str, Sequence[int]]


@dataclass
class Graph:
    """Nodes and initializers being collected; every method returns the name of what it added."""

    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def const(self, array: np.ndarray, name: str | None = None) -> str:
        name = name or f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def random(self, *shape: int, scale: float | None = None) -> str:
        spread = scale if scale is not None else 1 / np.sqrt(shape[0] if len(shape) < 3 else np.prod(shape[1:]))
        return self.const((self.rng.normal(size=shape) * spread).astype(np.float32))

    def op(self, kind: str, *inputs: str, out: str | None = None, name: str | None = None, **attrs: object) -> str:
        result = out or f"t{len(self.nodes)}"
        node = name or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [result], name=node, **attrs))
        return result

    def dense(self, x: str, inputs: int, outputs: int, out: str | None = None, name: str | None = None) -> str:
        product = self.op("MatMul", x, self.random(inputs, outputs), name=name)
        return self.op("Add", product, self.random(outputs, scale=0.1), out=out)

    def norm(self, x: str, width: int) -> str:
        scale, bias = self.random(width, scale=0.2), self.random(width, scale=0.2)
        self.constants[scale] += 1
        return self.op("LayerNormalization", x, scale, bias, axis=-1)

    def integers(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def save(self, path: Path, inputs: Shapes, outputs: Shapes, states: Sequence[tuple[str, str, float]] = ()) -> Path:
        proto = helper.make_model(
            helper.make_graph(
                self.nodes,
                "graph",
                [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()],
                [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in outputs.items()],
                [numpy_helper.from_array(a, n) for n, a in self.constants.items()],
            ),
            opset_imports=[helper.make_opsetid("", 21)],
            ir_version=10,
        )
        if states:
            pairs = [{"input": i, "output": o, "reset": r} for i, o, r in states]
            helper.set_model_props(proto, {"edgec.state": json.dumps(pairs)})
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(proto, path)
        return path


IMAGE = (1, 3, 12, 8)  # N, C, H, W: all different, so that no wrong layout goes unnoticed


def patch_classifier(path: Path, *, width: int = 16, inputs: str = "image", outputs: str = "logits") -> Path:
    """Patches of 4x4, a Gelu layer, the mean over all six tokens, five classes."""
    g = Graph(1)
    _, c, h, w = IMAGE
    t = g.op("Conv", inputs, g.random(width, c, 4, 4), g.random(width, scale=0.1), kernel_shape=[4, 4], strides=[4, 4])
    t = g.op("Reshape", t, g.integers(1, width, (h // 4) * (w // 4)))
    t = g.op("Transpose", t, perm=[0, 2, 1])
    t = g.op("Gelu", g.dense(t, width, 2 * width, name="widen"))
    t = g.op("ReduceMean", t, g.integers(1), keepdims=0)
    g.dense(t, 2 * width, 5, out=outputs)
    return g.save(path, {inputs: IMAGE}, {outputs: (1, 5)})


def patch_classifier_numpy(x: np.ndarray, path: Path) -> np.ndarray:
    """The same on [S, *IMAGE] in float64, without ONNX: the answer to the question of layout."""
    from math import erf

    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in onnx.load(path).graph.initializer}
    floats = [a for a in weights.values() if a.ndim and a.size > 4]
    kernel, bias, w1, b1, w2, b2 = floats
    s, c, h, w = len(x), *IMAGE[1:]
    patches = x.reshape(s, c, h // 4, 4, w // 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(s, -1, c * 16)
    t = patches.astype(np.float64) @ kernel.reshape(len(kernel), -1).T + bias
    t = t @ w1 + b1
    t = 0.5 * t * (1 + np.vectorize(erf)(t / np.sqrt(2)))
    result: np.ndarray = t.mean(1) @ w2 + b2
    return result


def step_model(path: Path) -> Path:
    """A recurrent step with two states: a linear memory `m` and a tanh layer `h`; `h` starts at 0.25."""
    g = Graph(2)
    feed = g.op("Add", g.dense("x", 6, 1), g.dense("h", 10, 1))
    g.op("Add", g.op("MatMul", "m", g.const(0.9 * np.eye(4, dtype=np.float32))), g.dense(feed, 1, 4), out="m_next")
    total = g.op("Add", g.dense("x", 6, 10), g.op("Add", g.dense("m_next", 4, 10), g.dense("h", 10, 10)))
    g.op("Tanh", total, out="h_next")
    g.dense("h_next", 10, 3, out="y")
    return g.save(
        path,
        {"x": (1, 6), "h": (1, 10), "m": (1, 4)},
        {"y": (1, 3), "h_next": (1, 10), "m_next": (1, 4)},
        [("h", "h_next", 0.25), ("m", "m_next", 0.0)],
    )


def windowed_step_model(path: Path, window: int = 6) -> Path:
    """Three states: the last inputs `past`, a linear memory `m`, and a tanh layer `h` that reads the oldest input."""
    g = Graph(7)
    kept = g.op("Slice", "past", g.integers(1), g.integers(window), g.integers(1))
    g.op("Concat", kept, g.op("Unsqueeze", "x", g.integers(1)), axis=1, out="past_next")
    oldest = g.op("Slice", "past_next", g.integers(0), g.integers(1), g.integers(1))
    g.op("Add", g.op("MatMul", "m", g.const(0.9 * np.eye(4, dtype=np.float32))), g.dense("x", 6, 4), out="m_next")
    total = g.op("Add", g.dense("m_next", 4, 10), g.dense("h", 10, 10))
    g.op("Tanh", g.op("Add", g.dense(g.op("Squeeze", oldest, g.integers(1)), 6, 10), total), out="h_next")
    g.dense("h_next", 10, 3, out="y")
    shapes = {"past": (1, window, 6), "h": (1, 10), "m": (1, 4)}
    return g.save(
        path,
        {"x": (1, 6), **shapes},
        {"y": (1, 3), **{f"{name}_next": shape for name, shape in shapes.items()}},
        [("past", "past_next", 0.0), ("h", "h_next", 0.25), ("m", "m_next", -0.5)],
    )


def attention_block(path: Path, tokens: int = 7, width: int = 12, heads: int = 2) -> Path:
    """LayerNorm, attention of two heads with Softmax, residual."""
    g, d = Graph(3), width // heads
    n = g.norm("x", width)
    q, k, v = (
        g.op("Transpose", g.op("Reshape", g.dense(n, width, width), g.integers(1, tokens, heads, d)), perm=perm)
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scores = g.op("Mul", g.op("MatMul", q, k), g.const(np.array(d**-0.5, np.float32)))
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
    mixed = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), g.integers(1, tokens, width))
    g.op("Add", "x", g.dense(mixed, width, width), out="y")
    return g.save(path, {"x": (1, tokens, width)}, {"y": (1, tokens, width)})


def samples(path: Path, count: int, *, seed: int = 5, **shapes: Sequence[int]) -> Path:
    """An npz of normal samples; shapes as in the ONNX model."""
    rng = np.random.default_rng(seed)
    arrays = {n: rng.normal(size=(count, *s[1:])).astype(np.float32) for n, s in shapes.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def reference(
    path: Path, feeds: Mapping[str, np.ndarray], states: Sequence[tuple[str, str, float]] = ()
) -> dict[str, np.ndarray]:
    """ONNX Runtime on samples in order; `states` (input, output, reset value) are fed back."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shapes = {i.name: i.shape for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    fed_back = {i: np.full(shapes[i], reset, np.float32) for i, _, reset in states}
    results: dict[str, list[np.ndarray]] = {n: [] for n in names}
    for step in range(len(next(iter(feeds.values())))):
        given = {n: a[step].reshape(shapes[n]) for n, a in feeds.items()}
        values = dict(zip(names, session.run(None, {**given, **fed_back}), strict=True))
        fed_back = {i: values[o] for i, o, _ in states}
        for n in names:
            results[n].append(values[n])
    kept = [n for n in names if n not in {o for _, o, _ in states}]
    return {n: np.stack(results[n]) for n in kept}
