# SPDX-License-Identifier: Apache-2.0
"""Products of low-rank factors: dense layers in a row with nothing between them are as few layers as is cheapest.

Factors W1 [r, in], W2 [r, r], W3 [out, r] take `r*(in + r + out)` weights, their product `in*out`: a product is cheaper
from r/in = 0.414 on where out = in, from 0.646 where out = 3*in, from 0.702 where out = 4*in. An inner square factor
never pays: W2 W1 is as large as W1.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import Array, GraphEdit, array_of, attribute, is_float32, only_consumer, shape_of
from edgec.passes.movement_maps import is_movement, moved

_COLUMN_BYTES = 8
"""Bias and multiplier of an output column in int8."""
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class _Factor:
    """A Gemm of the normal form: weight float [N, K], bias float [N]."""

    node: ir.Node
    weight: Array
    bias: Array

    @property
    def macs(self) -> int:
        return shape_of(self.node.outputs[0])[0] * self.weight.size

    @property
    def bytes(self) -> int:
        return _bytes(*self.weight.shape)


@dataclass(frozen=True)
class _Fold:
    """Factors `[first, last)` of a chain become one layer; `macs` and `bytes` are that layer's."""

    first: int
    last: int
    macs: int
    bytes: int


def fold_low_rank(edit: GraphEdit) -> None:
    """Multiply dense layers in a row where that saves multiply-accumulates and bytes, both counted.

    Bytes are those of int8: a byte for a weight, eight for the bias and the multiplier of a column. The bias of an
    inner layer is multiplied into the last one's. What is left as it is, is noted as well.

    Requires: Gemm in normal form, static shapes.
    Ensures: of Gemms with a single reader, and none but movement that cancels between them, neighbours whose product
        takes fewer multiply-accumulates and fewer bytes than they do are one Gemm, so that the whole row takes the
        fewest multiply-accumulates. Weights that others use too stay.
    """
    for chain in _chains(edit):
        best = _cheapest(chain)
        products = [_product(chain[f.first : f.last]) for f in best]
        if not all((np.abs(array) <= _LARGEST).all() for product in products for array in product):
            continue
        names = " * ".join(str(f.node.name) for f in chain)
        before = sum(f.macs for f in chain), sum(f.bytes for f in chain)
        after = sum(f.macs for f in best), sum(f.bytes for f in best)
        if len(best) == len(chain):
            whole = _folded(chain, 0, len(chain))
            edit.note(
                f"{names}: left as {len(chain)} layers of {_cost(*before)};"
                f" their product takes {_cost(whole.macs, whole.bytes)}"
            )
            continue
        for fold, product in zip(best, products, strict=True):
            if fold.last - fold.first > 1:
                _fold(edit, chain[fold.first : fold.last], *product)
        layers = "one dense layer" if len(best) == 1 else f"{len(best)} dense layers"
        edit.note(f"{names}: folded to {layers} of {_cost(*after)}, from {_cost(*before)}")


def _cost(macs: int, size: int) -> str:
    return f"{macs:,} MAC and {size:,} B in int8"


def _bytes(outputs: int, inputs: int) -> int:
    return outputs * (inputs + _COLUMN_BYTES)


def _chains(edit: GraphEdit) -> Iterator[list[_Factor]]:
    """Longest rows of factors, each the only reader of the one before it."""
    factors = {node: f for node in edit.nodes("Gemm") if (f := _factor(node)) is not None}
    uses = Counter(_identity(f.weight) for f in factors.values())
    alone = {node: f for node, f in factors.items() if uses[_identity(f.weight)] == 1}
    seen: set[ir.Node] = set()
    for node in alone:
        chain: list[_Factor] = []
        factor: _Factor | None = alone[node]
        while factor is not None and factor.node not in seen:
            seen.add(factor.node)
            chain.append(factor)
            follower = _follower(factor)
            factor = None if follower is None else alone.get(follower)
        if len(chain) > 1:
            yield chain


def _factor(node: ir.Node) -> _Factor | None:
    if node.op_type != "Gemm" or node.domain or len(node.inputs) != 3 or not attribute(node, "transB", 0):
        return None
    if not is_float32(node.outputs[0]):
        return None
    weight, bias = array_of(node.inputs[1]), array_of(node.inputs[2])
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        return None
    return _Factor(node, weight, bias)


def _identity(weight: Array) -> tuple[tuple[int, ...], bytes]:
    """Equal for weights that are stored once."""
    return weight.shape, hashlib.sha256(np.ascontiguousarray(weight).tobytes()).digest()


def _follower(factor: _Factor) -> ir.Node | None:
    """The Gemm that is the only reader of a factor's rows, as they are, whatever movement lies between."""
    value = factor.node.outputs[0]
    path: list[ir.Node] = []
    while (reader := only_consumer(value)) is not None and is_movement(reader) and reader.inputs[0] is value:
        path.append(reader)
        value = reader.outputs[0]
    if reader is None or reader.op_type != "Gemm" or reader.inputs[0] is not value:
        return None
    shape = shape_of(factor.node.outputs[0])
    if shape_of(value) != shape:
        return None
    if any(node.op_type == "Transpose" for node in path):
        elements = numbers = np.arange(shape[0] * shape[1]).reshape(shape)
        for node in path:
            elements = moved(node, elements)
        if not np.array_equal(elements, numbers):
            return None
    return reader


def _cheapest(chain: Sequence[_Factor]) -> list[_Fold]:
    """How to cut a chain into layers for the fewest multiply-accumulates; every fold saves bytes, too."""
    best: list[list[_Fold]] = [[]]
    for last in range(1, len(chain) + 1):
        found = []
        for first in reversed(range(last)):
            fold = _folded(chain, first, last)
            macs = sum(f.macs for f in chain[first:last])
            size = sum(f.bytes for f in chain[first:last])
            if last - first == 1 or (fold.macs < macs and fold.bytes < size):
                found.append([*best[first], fold])
        best.append(min(found, key=lambda folds: (sum(f.macs for f in folds), sum(f.bytes for f in folds))))
    return best[-1]


def _folded(chain: Sequence[_Factor], first: int, last: int) -> _Fold:
    rows = shape_of(chain[first].node.outputs[0])[0]
    outputs, inputs = chain[last - 1].weight.shape[0], chain[first].weight.shape[1]
    return _Fold(first, last, rows * outputs * inputs, _bytes(outputs, inputs))


def _product(factors: Sequence[_Factor]) -> tuple[Array, Array]:
    """Weight and bias, float64, of factors as one layer."""
    weight, bias = factors[0].weight.astype(np.float64), factors[0].bias.astype(np.float64)
    for factor in factors[1:]:
        following = factor.weight.astype(np.float64)
        weight, bias = following @ weight, following @ bias + factor.bias
    return weight, bias


def _fold(edit: GraphEdit, factors: Sequence[_Factor], weight: Array, bias: Array) -> None:
    """One Gemm in the place of several."""
    last = factors[-1].node
    edit.at = last
    name = edit.take_name(last)
    x, out = factors[0].node.inputs[0], last.outputs[0]
    operands = [x, edit.constant(weight, f"{name}.weight"), edit.constant(bias, f"{name}.bias")]
    edit.replace(out, edit.emit("Gemm", operands, shape_of(out), name, {"transB": 1}))
