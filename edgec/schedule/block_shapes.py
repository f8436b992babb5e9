# SPDX-License-Identifier: Apache-2.0
"""Transformer blocks by shapes, as pieces for `edgec.schedule.planning`: the operators that the compile makes of one.

Weights are zeros that take no memory; parameters are of the scales that a quantizer would find.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edgec.operators import TensorType, get_operator
from edgec.operators.elementwise import add_params
from edgec.operators.layer_norm import constants as norm_constants
from edgec.operators.record import Array
from edgec.operators.softmax import exponentials
from edgec.program import Call, Port, Program, Tensor
from edgec.schedule.planning import Piece

_HALF = 2**29
"""A multiplier that every kernel takes."""


@lru_cache(maxsize=65536)
def transformer_block(tokens: int, width: int, heads: int, depth: int, hidden: int) -> Piece:
    """A pre-norm block in int8: x + P(attention(LN(x))), then x + C(activation(E(LN(x)))).

    Args:
        tokens, width: of x, int8 [tokens, width].
        heads, depth: of attention; queries, keys and values are heads * depth wide.
        hidden: width between the layers E and C.

    Equal arguments give the same piece.
    """
    block = _Block(tokens, width)
    inner = heads * depth
    x = block.norm("norm1", "x")
    parts = [block.view(block.dense(c, "linear_s8", (x,), inner), (tokens, heads, depth)) for c in "qkv"]
    score = block.constant("score", np.array([0, 0, _HALF, 0, 0], np.int32))
    mix = block.constant("mix", np.array([-128, 0, _HALF, 0, 0], np.int32))
    table = block.constant("exponentials", exponentials(0.05))
    mixed = block.view(block.call("attention", "attention_s8", (*parts, score, table, mix)), (tokens, inner))
    x = block.dense("projection", "linear_add_s8", (mixed, "x"), width)
    y = block.dense("expand", "linear_table_s8", (block.norm("norm2", x),), hidden)
    y = block.dense("contract", "linear_add_s8", (y, x), width)
    block.program.outputs.append(Port("y", y, (tokens, width)))
    return Piece(block.program)


class _Block:
    """A program that grows."""

    def __init__(self, tokens: int, width: int) -> None:
        self.program = Program("block", {}, [], [Port("x", "x", (tokens, width))], [], [])
        self.program.tensors["x"] = Tensor("x", TensorType((tokens, width), "int8"))

    def constant(self, name: str, values: Array) -> str:
        self.program.tensors[name] = Tensor(name, TensorType.of(values), values)
        return name

    def call(self, name: str, op: str, inputs: tuple[str, ...]) -> str:
        record = get_operator(op)
        types = [self.program.tensors[n].type for n in inputs]
        out = record.infer(types)
        self.program.tensors[name] = Tensor(name, out)
        self.program.calls.append(Call(name, op, "", inputs, (name,), {}, record.macs(types, out)))
        return name

    def view(self, name: str, shape: tuple[int, ...]) -> str:
        view = f"{name} as {'x'.join(map(str, shape))}"
        self.program.tensors[view] = Tensor(view, TensorType(shape, "int8"), view_of=name)
        return view

    def norm(self, name: str, x: str) -> str:
        width = self.program.tensors[x].type.shape[1]
        parts = norm_constants(np.ones(width), np.zeros(width), 1e-5, 0.05, (0.03, 0))
        return self.call(name, "layer_norm_s8", (x, *(self.constant(f"{name}.{i}", v) for i, v in enumerate(parts))))

    def dense(self, name: str, op: str, inputs: tuple[str, ...], n: int) -> str:
        k = self.program.tensors[inputs[0]].type.shape[1]
        total = add_params((0.05, 0), (0.05, 0), (0.06, 0)) if op == "linear_add_s8" else np.zeros(0, np.int32)
        constants: dict[str, Array] = {
            "w": np.broadcast_to(np.int8(0), (n, k)),
            "bias": np.zeros(n, np.int32),
            "mult": np.full(n, _HALF, np.int32),
            "shift": np.zeros(n, np.uint8),
            "params": np.concatenate([np.zeros(1, np.int32), total]),
        }
        if op == "linear_table_s8":
            constants["table"] = np.zeros(256, np.int8)
        return self.call(name, op, (*inputs, *(self.constant(f"{name}.{role}", v) for role, v in constants.items())))
