# SPDX-License-Identifier: Apache-2.0
"""Random graphs of the kinds that people bring: convolutional, attention and recurrent mixes of standard operators.

A seed decides everything: kind, sizes, layers, weights. Weights are scaled so that values stay near one in deep graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.small_models import Graph

Shape = tuple[int, ...]


@dataclass
class Value:
    """A tensor of the graph under construction."""

    name: str
    shape: Shape


class RandomGraph:
    """One graph; `build` writes it and returns the shapes of its inputs."""

    def __init__(self, seed: int) -> None:
        self.graph = Graph(seed)
        self.rng = self.graph.rng
        self.kind = ("convolutional", "attention", "recurrent")[seed % 3]

    def build(self, path: Path) -> dict[str, Shape]:
        inputs, outputs = {"convolutional": self._convolutional, "attention": self._attention,
                           "recurrent": self._recurrent}[self.kind]()  # fmt: skip
        for i, value in enumerate(outputs):  # outputs bear names of their own
            self.graph.op("Identity", value.name, out=f"y{i}")
        self.graph.save(path, inputs, {f"y{i}": v.shape for i, v in enumerate(outputs)})
        return inputs

    # ---- pieces

    def pick(self, *choices: object) -> object:
        return choices[int(self.rng.integers(len(choices)))]

    def size(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def scalar(self, value: float) -> str:
        return self.graph.const(np.array(value, np.float32))

    def op(self, kind: str, *inputs: Value | str, shape: Shape, **attrs: object) -> Value:
        names = [v.name if isinstance(v, Value) else v for v in inputs]
        return Value(self.graph.op(kind, *names, **attrs), shape)

    def activation(self, x: Value) -> Value:
        kind = str(self.pick(*"Relu Clip HardSwish Silu LeakyRelu Sigmoid Tanh Gelu Elu None".split()))
        match kind:
            case "None":
                return x
            case "Clip":
                return self.op("Clip", x, self.scalar(0.0), self.scalar(6.0), shape=x.shape)
            case "Silu":
                return self.op("Mul", x, self.op("Sigmoid", x, shape=x.shape), shape=x.shape)
            case "LeakyRelu":
                return self.op(kind, x, shape=x.shape, alpha=0.1)
            case "Gelu":
                return self.op(kind, x, shape=x.shape, approximate=str(self.pick("none", "tanh")))
        return self.op(kind, x, shape=x.shape)

    def dense(self, x: Value, width: int) -> Value:
        return Value(self.graph.dense(x.name, x.shape[-1], width), (*x.shape[:-1], width))

    # ---- convolutional

    def _convolutional(self) -> tuple[dict[str, Shape], list[Value]]:
        inputs: dict[str, Shape] = {"x": (1, self.size(1, 4), self.size(9, 18), self.size(9, 18))}
        x = Value("x", inputs["x"])
        steps: list[Callable[[Value], Value]] = [
            self._convolution, self._convolution, self._depthwise, self._pool, self._batch_norm, self._residual,
            self._branches, self._upsample, self._transposed, self._padded, self.activation,
        ]  # fmt: skip
        for _ in range(self.size(3, 7)):
            x = steps[int(self.rng.integers(len(steps)))](x)
        extra = [x] if self.rng.random() < 0.3 else []
        pooled = self.op(str(self.pick("GlobalAveragePool", "GlobalMaxPool")), x, shape=(1, x.shape[1], 1, 1))
        flat = self.op("Flatten", pooled, shape=(1, x.shape[1]), axis=1)
        return inputs, [self.dense(flat, self.size(2, 9)), *extra]

    def _convolution(self, x: Value, stride: int | None = None) -> Value:
        n, c, h, w = x.shape
        groups = int(self.pick(1, 1, *(g for g in (2, 3) if c % g == 0)))  # type: ignore[call-overload]
        out = groups * self.size(1, 12 // groups)
        kernel = [self.size(1, min(4, d)) for d in (h, w)]
        most = [2 if k > 1 and (k - 1) * 2 + 1 <= d else 1 for k, d in zip(kernel, (h, w), strict=True)]
        dilations = [self.size(1, m) for m in most]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        pads = [self.size(0, r // 2) for r in (*reach, *reach)]
        strides = [stride or self.size(1, 2) for _ in range(2)]
        shape = tuple((d + pads[i] + pads[i + 2] - reach[i]) // strides[i] + 1 for i, d in enumerate((h, w)))
        weights = [self.graph.random(out, c // groups, *kernel)]
        if self.rng.random() < 0.7:
            weights.append(self.graph.random(out, scale=0.1))
        y = self.op("Conv", x, *weights, shape=(n, out, *shape), group=groups, kernel_shape=kernel, pads=pads,
                    strides=strides, dilations=dilations)  # fmt: skip
        return self.activation(y)

    def _depthwise(self, x: Value) -> Value:
        c = x.shape[1]
        y = self.op("Conv", x, self.graph.random(c, 1, 3, 3), shape=x.shape, group=c, kernel_shape=[3, 3], pads=[1] * 4)
        return self.activation(y)

    def _pool(self, x: Value) -> Value:
        n, c, h, w = x.shape
        if min(h, w) < 3:
            return x
        kernel, stride = self.size(2, 3), self.size(1, 2)
        pads = [self.size(0, 1) for _ in range(4)]
        shape = tuple((d + pads[i] + pads[i + 2] - kernel) // stride + 1 for i, d in enumerate((h, w)))
        attrs: dict[str, object] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads}
        kind = str(self.pick("MaxPool", "AveragePool"))
        if kind == "AveragePool":
            attrs["count_include_pad"] = self.size(0, 1)
        return self.op(kind, x, shape=(n, c, *shape), **attrs)

    def _batch_norm(self, x: Value) -> Value:
        c = x.shape[1]
        parameters = [self.graph.const(self.rng.uniform(0.5, 1.5, c).astype(np.float32)) for _ in range(4)]
        return self.op("BatchNormalization", x, *parameters, shape=x.shape)

    def _residual(self, x: Value) -> Value:
        y = self._depthwise(x)
        return self.op("Add", x, y, shape=x.shape)

    def _branches(self, x: Value) -> Value:
        a, b = self._depthwise(x), self.activation(x)
        shape = (x.shape[0], 2 * x.shape[1], *x.shape[2:])
        return x if shape[1] > 24 else self.op("Concat", a, b, shape=shape, axis=1)

    def _upsample(self, x: Value) -> Value:
        n, c, h, w = x.shape
        if max(h, w) > 16:
            return x
        scales = self.graph.const(np.array([1, 1, 2, 2], np.float32))
        mode = str(self.pick("nearest", "linear"))
        attrs = {"coordinate_transformation_mode": str(self.pick("asymmetric", "half_pixel", "align_corners"))}
        if mode == "nearest":
            attrs["nearest_mode"] = str(self.pick("floor", "round_prefer_floor"))
        return self.op("Resize", x, "", scales, shape=(n, c, 2 * h, 2 * w), mode=mode, **attrs)

    def _transposed(self, x: Value) -> Value:
        n, c, h, w = x.shape
        if max(h, w) > 12:
            return x
        out, kernel, stride = self.size(1, 8), self.size(2, 4), self.size(1, 2)
        pads = [self.size(0, 1) for _ in range(4)]
        shape = tuple(stride * (d - 1) + kernel - pads[i] - pads[i + 2] for i, d in enumerate((h, w)))
        if min(shape) < 1:
            return x
        weights = self.graph.random(c, out, kernel, kernel, scale=0.5 / float(np.sqrt(c)))
        return self.op("ConvTranspose", x, weights, shape=(n, out, *shape), kernel_shape=[kernel] * 2,
                       strides=[stride] * 2, pads=pads)  # fmt: skip

    def _padded(self, x: Value) -> Value:
        mode = str(self.pick("constant", "reflect", "edge"))
        pads = [self.size(0, min(2, d - 1)) for d in (*x.shape[2:], *x.shape[2:])]
        amounts = self.graph.integers(0, 0, *pads[:2], 0, 0, *pads[2:])
        shape = (*x.shape[:2], x.shape[2] + pads[0] + pads[2], x.shape[3] + pads[1] + pads[3])
        return self.op("Pad", x, amounts, shape=shape, mode=mode)

    # ---- attention

    def _attention(self) -> tuple[dict[str, Shape], list[Value]]:
        heads = self.size(1, 3)
        tokens, width = self.size(3, 12), heads * self.size(2, 8)
        inputs: dict[str, Shape] = {"x": (1, tokens, width)}
        x = Value("x", inputs["x"])
        if self.rng.random() < 0.5:
            x = self.op("Add", x, self.graph.random(1, tokens, width, scale=0.3), shape=x.shape)
        for _ in range(self.size(1, 3)):
            y = self._mixed(self._normalized(x), heads)
            x = self.op("Add", x, y, shape=x.shape)
            y = self.dense(self.activation(self.dense(self._normalized(x), 2 * width)), width)
            x = self.op("Add", x, y, shape=x.shape)
        match self.size(0, 4):
            case 0:
                y = self.op("ReduceMean", x, self.graph.integers(1), shape=(1, width), keepdims=0)
            case 1:
                y = self.op("ReduceMax", x, self.graph.integers(1), shape=(1, width), keepdims=0)
            case 2:
                y = self.op("Gather", x, self.graph.const(np.array(0, np.int64)), shape=(1, width), axis=1)
            case 3:
                bounds = [self.graph.integers(v) for v in (0, tokens, 1, 2)]
                y = self.op("Slice", x, *bounds, shape=(1, (tokens + 1) // 2, width))
            case _:
                y = self.op("CumSum", x, self.graph.const(np.array(1, np.int64)), shape=x.shape)
                y = self.op("Mul", y, self.scalar(1 / tokens), shape=x.shape)
        result = self.dense(y, self.size(2, 7))
        if self.rng.random() < 0.5:
            result = self.op("Softmax", result, shape=result.shape, axis=-1)
        return inputs, [result]

    def _normalized(self, x: Value) -> Value:
        if self.rng.random() < 0.6:
            return Value(self.graph.norm(x.name, x.shape[-1]), x.shape)
        square = self.op("Mul", x, x, shape=x.shape)  # RMS norm, as exporters write it
        mean = self.op("ReduceMean", square, self.graph.integers(-1), shape=(*x.shape[:-1], 1), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.scalar(1e-5), shape=mean.shape), shape=mean.shape)
        scaled = self.op("Div", x, root, shape=x.shape)
        return self.op("Mul", scaled, self.graph.random(x.shape[-1], scale=1.0), shape=x.shape)

    def _mixed(self, x: Value, heads: int) -> Value:
        _, tokens, width = x.shape
        size = width // heads
        parts: list[Value] = []
        if self.rng.random() < 0.5:
            fused = self.dense(x, 3 * width)
            names = [f"{fused.name}.{k}" for k in range(3)]
            node = self.graph.op("Split", fused.name, self.graph.integers(width, width, width), out=names[0], axis=2)
            self.graph.nodes[-1].output.extend(names[1:])
            assert node == names[0]
            parts = [Value(n, x.shape) for n in names]
        else:
            parts = [self.dense(x, width) for _ in range(3)]
        shape = (1, heads, tokens, size)
        q, k, v = (
            self.op("Transpose", self.op("Reshape", p, self.graph.integers(1, tokens, heads, size),
                                         shape=(1, tokens, heads, size)), shape=shape, perm=[0, 2, 1, 3])
            for p in parts
        )  # fmt: skip
        square = (1, heads, tokens, tokens)
        if self.rng.random() < 0.3:
            scores = self.op("Einsum", q, k, shape=square, equation="bhid,bhjd->bhij")
        else:
            turned = self.op("Transpose", k, shape=(1, heads, size, tokens), perm=[0, 1, 3, 2])
            scores = self.op("MatMul", q, turned, shape=square)
        scores = self.op("Mul", scores, self.scalar(float(size) ** -0.5), shape=square)
        if self.rng.random() < 0.4:  # causal
            mask = np.where(np.tri(tokens, dtype=bool), 0, -1e4).astype(np.float32)
            scores = self.op("Add", scores, self.graph.const(mask.reshape(1, 1, tokens, tokens)), shape=square)
        weights = self.op("Softmax", scores, shape=square, axis=-1)
        mixed = self.op("MatMul", weights, v, shape=shape)
        back = self.op("Transpose", mixed, shape=(1, tokens, heads, size), perm=[0, 2, 1, 3])
        return self.dense(self.op("Reshape", back, self.graph.integers(1, tokens, width), shape=x.shape), width)

    # ---- recurrent

    def _recurrent(self) -> tuple[dict[str, Shape], list[Value]]:
        features, width = self.size(2, 9), self.size(3, 12)
        inputs: dict[str, Shape] = {"x": (1, features), "h": (1, width)}
        lstm = self.rng.random() < 0.5
        if lstm:
            inputs["c"] = (1, width)
        x, h = Value("x", inputs["x"]), Value("h", inputs["h"])
        if self.rng.random() < 0.4:  # a small front of one-dimensional convolution over the features
            row = self.op("Reshape", x, self.graph.integers(1, 1, features), shape=(1, 1, features))
            y = self.op("Conv", row, self.graph.random(2, 1, 2), shape=(1, 2, features), kernel_shape=[2], pads=[0, 1])
            x = self.op("Flatten", self.activation(y), shape=(1, 2 * features), axis=1)
        c = Value("c", (1, width))
        for _ in range(self.size(1, 3)):
            h, c = self._lstm(x, h, c) if lstm else (self._gru(x, h), c)
        outputs = [self.dense(self.activation(h), self.size(2, 6)), h]
        return inputs, [*outputs, c] if lstm else outputs

    def _gates(self, x: Value, h: Value, count: int) -> list[Value]:
        if self.rng.random() < 0.5:
            joined = self.op("Concat", x, h, shape=(1, x.shape[1] + h.shape[1]), axis=1)
            return [self.dense(joined, h.shape[1]) for _ in range(count)]
        return [
            self.op("Add", self.dense(x, h.shape[1]), self.dense(h, h.shape[1]), shape=h.shape) for _ in range(count)
        ]

    def _gru(self, x: Value, h: Value) -> Value:
        z, r = (self.op("Sigmoid", g, shape=h.shape) for g in self._gates(x, h, 2))
        (n,) = self._gates(x, self.op("Mul", r, h, shape=h.shape), 1)
        n = self.op("Tanh", n, shape=h.shape)
        kept = self.op("Mul", z, h, shape=h.shape)
        rest = self.op("Sub", self.scalar(1.0), z, shape=h.shape)
        return self.op("Add", kept, self.op("Mul", rest, n, shape=h.shape), shape=h.shape)

    def _lstm(self, x: Value, h: Value, c: Value) -> tuple[Value, Value]:
        i, f, o, g = self._gates(x, h, 4)
        i, f, o = (self.op("Sigmoid", v, shape=h.shape) for v in (i, f, o))
        g = self.op("Tanh", g, shape=h.shape)
        kept, new = self.op("Mul", f, c, shape=h.shape), self.op("Mul", i, g, shape=h.shape)
        c = self.op("Add", kept, new, shape=h.shape)
        return self.op("Mul", o, self.op("Tanh", c, shape=h.shape), shape=h.shape), c
