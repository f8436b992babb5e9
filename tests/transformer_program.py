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
        self.program.tensors[view] = Tensor(view, TensorType(shape, self.program.tensors[name].type.dtype), view_of=name)
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
