# SPDX-License-Identifier: Apache-2.0
"""Integer transformers of any size with random weights, as programs: what the scheduler's tests cut up."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.operators import TensorType, get_operator
from edgec.operators.elementwise import add_params
from edgec.operators.integer import multipliers
from edgec.operators.layer_norm import constants as norm_constants
from edgec.operators.softmax import exponentials
from edgec.program import Call, Port, Program, Tensor


class Builder:
    """Adds calls to a program that has one input `x` int8 [tokens, width]."""

    def __init__(self, tokens: int, width: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.program = Program("transformer", {}, [], [Port("x", "x", (tokens, width))], [], [])
        self.program.tensors["x"] = Tensor("x", TensorType((tokens, width), "int8"))

    def constant(self, name: str, values: np.ndarray) -> str:
        """A constant of the program."""
        self.program.tensors[name] = Tensor(name, TensorType.of(values), values)
        return name

    def call(self, name: str, op: str, inputs: tuple[str, ...], attrs: dict[str, Any] | None = None) -> str:
        """A call whose output has the call's name."""
        record, attrs = get_operator(op), attrs or {}
        types = [self.program.tensors[n].type for n in inputs]
        out = record.infer(types, **attrs)
        self.program.tensors[name] = Tensor(name, out)
        self.program.calls.append(Call(name, op, "", inputs, (name,), attrs, record.macs(types, out)))
        return name

    def view(self, name: str, shape: tuple[int, ...]) -> str:
        """The same bytes in another shape."""
        view = f"{name} as {'x'.join(map(str, shape))}"
        self.program.tensors[view] = Tensor(
            view, TensorType(shape, self.program.tensors[name].type.dtype), view_of=name
        )
        return view

    def linear(self, name: str, x: str, n: int) -> str:
        """A dense layer."""
        k = self.program.tensors[x].type.shape[1]
        w = self.rng.integers(-127, 128, (n, k)).astype(np.int8)
        bias = self.rng.integers(-1000, 1000, n).astype(np.int32)
        mult, shift = multipliers(self.rng.uniform(0.5, 1.0, n) / (40 * np.sqrt(k)), False)
        parts = {"w": w, "bias": bias, "mult": mult, "shift": shift, "params": np.array([3], np.int32)}
        return self.call(name, "linear_s8", (x, *(self.constant(f"{name}.{p}", v) for p, v in parts.items())))

    def norm(self, name: str, x: str) -> str:
        """LayerNorm."""
        d = self.program.tensors[x].type.shape[1]
        parts = norm_constants(self.rng.normal(1, 0.1, d), self.rng.normal(0, 0.1, d), 1e-5, 0.05, (0.03, 1))
        return self.call(name, "layer_norm_s8", (x, *(self.constant(f"{name}.{i}", v) for i, v in enumerate(parts))))

    def add(self, name: str, a: str, b: str) -> str:
        """A sum of two values of one scale."""
        params = add_params((0.05, 0), (0.05, 3), (0.06, -1))
        return self.call(name, "add_s8", (a, b, self.constant(f"{name}.params", params)))

    def table(self, name: str, x: str) -> str:
        """An activation."""
        shape = self.program.tensors[x].type.shape
        flat = self.view(x, (int(np.prod(shape)),))
        values = self.rng.integers(-128, 128, 256).astype(np.int8)
        return self.view(self.call(name, "table_s8", (flat, self.constant(f"{name}.table", values))), shape)

    def attention(self, name: str, x: str, heads: int, depth: int) -> str:
        """q, k, v from x, attention of every head, [tokens, heads * depth]."""
        t = self.program.tensors[x].type.shape[0]
        parts = [self.view(self.linear(f"{name}.{c}", x, heads * depth), (t, heads, depth)) for c in "qkv"]
        ratio = [multipliers(r, False)[0][0] for r in (0.02 / np.sqrt(depth), 0.01)]
        score = np.array([1, 0, ratio[0], 0, 2], np.int32)
        mix = np.array([-128, 0, ratio[1], 0, -3], np.int32)
        constants = {"score": score, "table": exponentials(0.05), "mix": mix}
        result = self.call(
            name, "attention_s8", (*parts, *(self.constant(f"{name}.{c}", v) for c, v in constants.items()))
        )
        return self.view(result, (t, heads * depth))

    def block(self, name: str, x: str, heads: int, depth: int, ratio: int) -> str:
        """A transformer block."""
        width = self.program.tensors[x].type.shape[1]
        mixed = self.attention(f"{name}.attention", self.norm(f"{name}.norm1", x), heads, depth)
        x = self.add(f"{name}.add1", x, self.linear(f"{name}.projection", mixed, width))
        hidden = self.linear(f"{name}.expand", self.norm(f"{name}.norm2", x), ratio * width)
        hidden = self.linear(f"{name}.contract", self.table(f"{name}.gelu", hidden), width)
        return self.add(f"{name}.add2", x, hidden)

    def columns(self, name: str, x: str) -> str:
        """The transpose of a matrix."""
        rows, width = self.program.tensors[x].type.shape
        flat = self.view(x, (rows * width,))
        return self.call(name, "strided_copy_s8", (flat,), {"offset": 0, "shape": [width, rows], "strides": [1, width]})

    def concat(self, name: str, a: str, b: str) -> str:
        """Two matrices side by side."""
        return self.call(name, "concat_s8", (a, b))

    def _channels(self, name: str, w: np.ndarray, n: int, terms: int) -> tuple[str, ...]:
        mult, shift = multipliers(self.rng.uniform(0.5, 1.0, n) / (40 * np.sqrt(terms)), False)
        bias = self.rng.integers(-1000, 1000, n).astype(np.int32)
        parts = {"w": w, "bias": bias, "mult": mult, "shift": shift, "params": np.array([1, -2], np.int32)}
        return tuple(self.constant(f"{name}.{p}", v) for p, v in parts.items())

    def conv(self, name: str, x: str, n: int, kernel: int = 3, stride: int = 1) -> str:
        """A convolution over [H, W, C], padded by half its kernel."""
        c = self.program.tensors[x].type.shape[2]
        w = self.rng.integers(-127, 128, (n, kernel, kernel, c)).astype(np.int8)
        attrs = {"strides": [stride] * 2, "pads": [kernel // 2] * 4, "dilations": [1, 1], "group": 1, "wide": 0}
        return self.call(name, "conv2d_s8", (x, *self._channels(name, w, n, kernel * kernel * c)), attrs)

    def depthwise(self, name: str, x: str, kernel: int = 3, stride: int = 1) -> str:
        """A depthwise convolution over [H, W, C], padded by half its kernel."""
        c = self.program.tensors[x].type.shape[2]
        w = self.rng.integers(-127, 128, (kernel, kernel, c)).astype(np.int8)
        attrs = {"strides": [stride] * 2, "pads": [kernel // 2] * 4, "dilations": [1, 1], "wide": 0}
        return self.call(name, "depthwise_conv2d_s8", (x, *self._channels(name, w, c, kernel * kernel)), attrs)

    def max_pool(self, name: str, x: str) -> str:
        """The largest of every 2x2 pixels of [H, W, C]."""
        attrs = {"kernel": [2, 2], "strides": [2, 2], "pads": [0] * 4, "dilations": [1, 1]}
        return self.call(name, "max_pool_s8", (x,), attrs)

    def mean(self, name: str, x: str) -> str:
        """The mean of a matrix's rows, [1, width]."""
        rows, width = self.program.tensors[x].type.shape
        mult, shift = multipliers(np.array([1.0 / rows]), False)
        params = self.constant(f"{name}.params", np.array([0, mult[0], shift[0], 0], np.int32))
        return self.call(name, "mean_s8", (self.view(x, (1, rows, width)), params), {"wide": 0})

    def apart_attention(self, name: str, x: str, groups: int) -> str:
        """Attention of a single head within each of `groups` equal parts of the rows, step by step."""
        t, width = self.program.tensors[x].type.shape
        q, k, v = (self.view(self.linear(f"{name}.{c}", x, width), (groups, t // groups, width)) for c in "qkv")
        ratio = [int(multipliers(r, False)[0][0]) for r in (0.02 / np.sqrt(width), 0.01)]
        score = self.constant(f"{name}.score", np.array([1, 0, ratio[0], 0, 2], np.int32))
        mix = self.constant(f"{name}.mix", np.array([-128, 0, ratio[1], 0, -3], np.int32))
        table = self.constant(f"{name}.table", exponentials(0.05))
        p = self.call(f"{name}.scores", "matmul_s8", (q, k, score), {"transpose_b": 1})
        p = self.view(p, (t, t // groups))
        p = self.view(self.call(f"{name}.softmax", "softmax_s8", (p, table)), (groups, t // groups, t // groups))
        return self.view(self.call(f"{name}.mixed", "matmul_s8", (p, v, mix)), (t, width))

    def output(self, name: str) -> None:
        """Make a tensor the program's output."""
        self.program.outputs.append(Port("y", name, self.program.tensors[name].type.shape))
        self.program.macs = sum(call.macs for call in self.program.calls)


def transformer(tokens: int, width: int, heads: int, depth: int, ratio: int, blocks: int, seed: int = 0) -> Program:
    """A stack of blocks."""
    b = Builder(tokens, width, seed)
    x = "x"
    for i in range(blocks):
        x = b.block(f"b{i}", x, heads, depth, ratio)
    b.output(x)
    return b.program


def mixer(tokens: int, width: int, token_ratio: int, ratio: int, blocks: int, seed: int = 0) -> Program:
    """An MLP-mixer: a product over tokens between two transposes, a product over channels."""
    b = Builder(tokens, width, seed)
    x = "x"
    for i in range(blocks):
        turned = b.columns(f"b{i}.columns", b.norm(f"b{i}.norm1", x))
        hidden = b.table(f"b{i}.gelu1", b.linear(f"b{i}.tokens1", turned, token_ratio * tokens))
        back = b.columns(f"b{i}.rows", b.linear(f"b{i}.tokens2", hidden, tokens))
        x = b.add(f"b{i}.add1", x, back)
        hidden = b.table(f"b{i}.gelu2", b.linear(f"b{i}.expand", b.norm(f"b{i}.norm2", x), ratio * width))
        x = b.add(f"b{i}.add2", x, b.linear(f"b{i}.contract", hidden, width))
    b.output(x)
    return b.program


def hybrid(side: int, channels: int, heads: int, depth: int, blocks: int, seed: int = 0) -> Program:
    """Convolutions, an inverted residual, then transformer blocks over the pixels and a classifier."""
    b = Builder(side * side, 3, seed)
    x = b.conv("stem", b.view("x", (side, side, 3)), channels)
    side = b.program.tensors[x].type.shape[0]
    wide = b.conv("widen", x, 2 * channels, kernel=1)
    narrow = b.conv("narrow", b.depthwise("between", wide), channels, kernel=1)
    flat = [b.view(v, (side * side, channels)) for v in (x, narrow)]
    x = b.view(b.add("residual", *flat), (side, side, channels))
    x = b.max_pool("pool", x) if side > 3 else x
    rows = b.program.tensors[x].type.shape[0]
    x = b.view(x, (rows * rows, channels))
    for i in range(blocks):
        x = b.block(f"b{i}", x, heads, depth, 2)
    b.output(b.linear("head", b.mean("mean", b.norm("norm", x)), 10))
    return b.program


def nested(patches: int, inner: int, width: int, outer_width: int, blocks: int, seed: int = 0) -> Program:
    """Transformer in transformer: attention within each patch, whose result is added to the patches' own tokens."""
    b = Builder(patches * inner, width, seed)
    x, outer = "x", b.linear("embed", b.view("x", (patches, inner * width)), outer_width)
    for i in range(blocks):
        mixed = b.apart_attention(f"i{i}.attention", b.norm(f"i{i}.norm1", x), patches)
        x = b.add(f"i{i}.add1", x, b.linear(f"i{i}.projection", mixed, width))
        hidden = b.table(f"i{i}.gelu", b.linear(f"i{i}.expand", b.norm(f"i{i}.norm2", x), 2 * width))
        x = b.add(f"i{i}.add2", x, b.linear(f"i{i}.contract", hidden, width))
        joined = b.linear(f"i{i}.join", b.view(x, (patches, inner * width)), outer_width)
        outer = b.block(f"o{i}", b.add(f"i{i}.add3", outer, joined), 2, 4, 2)
    b.output(outer)
    return b.program
