# SPDX-License-Identifier: Apache-2.0
"""One rule an ONNX operator: its operands as int8 values and the wanted quantization -> an integer operator.

A rule that declines raises `NotIntegerError` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from edgec.lower.graph import Array, IntegerGraph, NotIntegerError, Quant, Stored, Value
from edgec.lower.movement import spread
from edgec.lower.weights import channel_constants
from edgec.operators import int16, layer_norm, layer_norm16, softmax
from edgec.operators.elementwise import add_params
from edgec.operators.integer import (
    INT32_MAX,
    Int8,
    Int64,
    as_int32,
    multipliers,
    needs_wide,
    product,
    table_of,
)

SOFTMAX_QUANT = Quant(np.array(1 / 256), -128)


@dataclass(frozen=True)
class Site:
    """One node being lowered.

    Attributes:
        node: the ONNX node.
        operands: its inputs as int8 values, float64 arrays (float constants) or None (absent).
        shape: static shape of its result.
        quant: quantization that its result shall have.
        graph: where to write.
    """

    node: onnx.NodeProto
    operands: list[Value | Array | None]
    shape: tuple[int, ...]
    quant: Quant
    graph: IntegerGraph

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the node."""
        return next((onnx.helper.get_attribute_value(a) for a in self.node.attribute if a.name == name), default)

    def value(self, index: int) -> Value:
        """Operand `index`, which must be quantized, with its bytes in ONNX order."""
        return self.graph.in_order(self.stored(index), (), self.node.name)

    def stored(self, index: int) -> Value:
        """Operand `index`, which must be quantized, as it lies."""
        operand = self.operands[index]
        if not isinstance(operand, Value):
            raise NotIntegerError(f"input {self.node.input[index]} is not quantized")
        return operand

    def real(self, index: int) -> Array | None:
        """Operand `index`, which must be constant, as float64; None when absent."""
        operand = self.operands[index] if index < len(self.operands) else None
        return operand.real() if isinstance(operand, Value) else operand

    def rows(self, value: Value, width: int, name: str = "x") -> str:
        """The operand as a matrix with rows of `width`."""
        tensor = self.graph.operand(value, f"{self.node.name}.{name}")
        return self.graph.view(tensor, (product(value.shape) // width, width))

    def emit(self, op: str, inputs: list[str], constants: dict[str, Array], **attrs: Any) -> str:
        """Write the operator's call; the result in the ONNX shape."""
        result = self.graph.emit(op, self.node.name, self.node.output[0], inputs, constants, **attrs)
        return self.graph.view(result, self.shape)


Rule = Callable[[Site], str | Stored]
"""Writes the operator; its result in ONNX order, or in the order of axes that it says."""
RULES: dict[str, Rule] = {}


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    """Register the rule of these operators."""

    def register(function: Rule) -> Rule:
        for op_type in op_types:
            RULES[op_type] = function
        return function

    return register


def scalar_multiplier(ratio: float, largest: float = 128.0) -> tuple[int, int, int]:
    """(mult, shift, wide) of one ratio."""
    wide = needs_wide(np.array([ratio]), np.array([largest]))
    mult, shift = multipliers(ratio, wide)
    return int(mult[0]), int(shift[0]), int(wide)


@rule("Gemm")
def _gemm(site: Site) -> str:
    return _linear(site, transposed=transposes(site))


def transposes(site: Site) -> bool:
    """transB of a Gemm that has no other flags.

    Raises:
        NotIntegerError: it has others.
    """
    if site.attribute("transA", 0) or site.attribute("alpha", 1.0) != 1 or site.attribute("beta", 1.0) != 1:
        raise NotIntegerError("Gemm with transA, alpha or beta")
    return bool(site.attribute("transB", 0))


@rule("MatMul")
def _matmul(site: Site) -> str:
    a, b = site.value(0), site.value(1)
    if b.data is not None and b.data.ndim == 2:
        return _linear(site, transposed=False)
    if min(len(a.shape), len(b.shape)) < 2:
        raise NotIntegerError("MatMul of a vector")
    batch, k = site.shape[:-2], a.shape[-1]
    a, b = (spread(site.node, v, (*batch, *v.shape[-2:]), site.graph) for v in (a, b))
    (sa, za), (sb, zb), (sy, zy) = a.quant.pair, b.quant.pair, site.quant.pair
    reach = k * 255 * 255
    if reach > INT32_MAX:
        raise NotIntegerError(f"MatMul sums {k} products, which 32 bits cannot hold")
    ratio = sa * sb / sy
    mult, shift, wide = scalar_multiplier(ratio, min(128.0, reach * ratio))
    tensors = [
        site.graph.view(site.graph.operand(v, f"{site.node.name}.{name}"), (product(batch), *v.shape[-2:]))
        for v, name in ((a, "a"), (b, "b"))
    ]
    return site.emit("matmul_s8", tensors, {"params": as_int32("params", [za, zb, mult, shift, zy])}, wide=wide)


@dataclass(frozen=True)
class Product:
    """A dense layer in numbers: x, weights int64 [N, K], their scale [N] or [], the real bias or None."""

    x: Value
    weights: Int64
    scale: Array
    bias: Array | None


def product_of(site: Site, transposed: bool) -> Product:
    """The layer of a Gemm, or of a MatMul with a constant.

    Raises:
        NotIntegerError: weights that are not constant, not symmetric or scaled along the wrong axis.
    """
    x, w = site.value(0), site.value(1)
    if w.data is None:
        raise NotIntegerError("the weight is not constant")
    if x.data is not None:
        raise NotIntegerError("the left operand is constant")
    if w.quant.zero_point:
        raise NotIntegerError("the weights are not symmetric (zero point 0)")
    weights = (w.data if transposed else w.data.T).astype(np.int64)
    if w.quant.scale.ndim and w.quant.axis % 2 != (0 if transposed else 1):
        raise NotIntegerError("the weights' scales run along the wrong axis")
    return Product(x, weights, w.quant.scale, site.real(2))


def _linear(site: Site, transposed: bool) -> str:
    layer = product_of(site, transposed)
    vectors, wide = channel_constants(layer.weights, layer.scale, layer.bias, layer.x.quant, site.quant)
    return emit_linear(site, site.rows(layer.x, layer.weights.shape[1]), layer.weights, vectors, wide)


def emit_linear(site: Site, rows: str, weights: Int64, vectors: dict[str, Array], wide: int) -> str:
    """`linear_s8` of x [M, K] and weights [N, K] with the constants of every channel."""
    params = {"params": as_int32("params", [site.quant.zero_point])}
    constants: dict[str, Array] = {"w": weights.astype(np.int8), **vectors, **params}
    return site.emit("linear_s8", [rows], constants, wide=wide)


@rule("Softmax")
def _softmax(site: Site) -> str:
    x = site.value(0)
    if site.attribute("axis", -1) not in (-1, len(x.shape) - 1):
        raise NotIntegerError("Softmax over an axis that is not the last")
    result = site.emit("softmax_s8", [site.rows(x, x.shape[-1])], {"table": softmax.exponentials(x.quant.pair[0])})
    return requantized(site.graph, site.node, result, SOFTMAX_QUANT, site.quant)


def masked_softmax(site: Site, mask: Array) -> str:
    """Softmax of the scores that count in `mask`."""
    x = site.value(0)
    shape = mask.shape
    while shape and shape[0] == 1:
        shape = shape[1:]
    if len(shape) < 2 or shape != x.shape[len(x.shape) - len(shape) :]:
        shape = x.shape[-2:] if mask.size in (1, x.shape[-1]) or len(shape) < 2 else x.shape
    rows = np.broadcast_to(mask.reshape(mask.shape[-len(shape) :]) if mask.ndim > len(shape) else mask, shape)
    constants: dict[str, Array] = {
        "mask": np.ascontiguousarray(rows).reshape(-1, x.shape[-1]).astype(np.int8),
        "table": softmax.exponentials(x.quant.pair[0]),
    }
    result = site.emit("masked_softmax_s8", [site.rows(x, x.shape[-1])], constants)
    return requantized(site.graph, site.node, result, SOFTMAX_QUANT, site.quant)


@rule("LayerNormalization")
def _layer_norm(site: Site) -> str:
    x, gamma, beta = site.value(0), site.real(1), site.real(2)
    width = x.shape[-1]
    if site.attribute("axis", -1) not in (-1, len(x.shape) - 1) or gamma is None or gamma.shape != (width,):
        raise NotIntegerError("LayerNormalization over more than the last axis")
    wide = x.quant.dtype == "int16"
    gain, offset, params = (layer_norm16.constants if wide else layer_norm.constants)(
        gamma,
        np.zeros(width) if beta is None else beta,
        site.attribute("epsilon", 1e-5),
        x.quant.pair[0],
        site.quant.pair,
    )
    op = "layer_norm_s16" if wide else "layer_norm_s8"
    return site.emit(op, [site.rows(x, width)], {"gain": gain, "offset": offset, "params": params})


@rule("Add", "Sub")
def _add(site: Site) -> str:
    sign = -1 if site.node.op_type == "Sub" else 1
    a, b = site.value(0), site.value(1)
    if "int16" in (a.quant.dtype, b.quant.dtype, site.quant.dtype):
        return _add_wide(site, a, b, sign)
    params = add_params(a.quant.pair, b.quant.pair, site.quant.pair, sign)
    a, b, swapped = broadcast(site, a, b)
    if swapped:
        params = params[[1, 0, 2, 3]]
    return site.emit("add_s8", matrices(site, a, b), {"params": params})


def _add_wide(site: Site, a: Value, b: Value, sign: int) -> str:
    params = int16.add_params(a.quant.pair, b.quant.pair, site.quant.pair, sign)
    a, b, swapped = broadcast(site, a, b)
    if swapped:
        params = params[[1, 0, 3, 2, 4, 5]]
    bits = {name: bits_of(q) for name, q in (("a", a.quant), ("b", b.quant), ("y", site.quant))}
    return site.emit("add_s16", matrices(site, a, b), {"params": params}, **bits)


def bits_of(quant: Quant) -> int:
    """Bits of an activation."""
    return 8 * np.dtype(quant.dtype).itemsize


@rule("Mul")
def _mul(site: Site) -> str:
    a, b = site.value(0), site.value(1)
    mult, shift, wide = scalar_multiplier(a.quant.pair[0] * b.quant.pair[0] / site.quant.pair[0])
    a, b, _ = broadcast(site, a, b)
    params = as_int32("params", [a.quant.zero_point, b.quant.zero_point, mult, shift, site.quant.zero_point])
    return site.emit("mul_s8", matrices(site, a, b), {"params": params}, wide=wide)


def broadcast(site: Site, a: Value, b: Value) -> tuple[Value, Value, bool]:
    """Operands such that the first has the full shape; and whether they changed places."""
    if a.shape != site.shape and b.shape == site.shape:
        return b, a, True
    return spread(site.node, a, site.shape, site.graph), b, False


def matrices(site: Site, a: Value, b: Value) -> list[str]:
    """a as [O, N] and b as [O or 1, N or 1], by a split of the axes into two groups; else b is spread out."""
    shape = site.shape
    padded = (1,) * (len(shape) - len(b.shape)) + b.shape
    for cut in range(len(shape) + 1):
        groups = []
        for full, part in ((shape[:cut], padded[:cut]), (shape[cut:], padded[cut:])):
            if part == full:
                groups.append((product(full), product(full)))
            elif all(d == 1 for d in part):
                groups.append((product(full), 1))
        if len(groups) == 2:
            (rows, b_rows), (width, b_width) = groups
            names = [site.graph.operand(v, f"{site.node.name}.{n}") for v, n in ((a, "a"), (b, "b"))]
            return [site.graph.view(names[0], (rows, width)), site.graph.view(names[1], (b_rows, b_width))]
    return matrices(site, a, spread(site.node, b, shape, site.graph))


@rule("ReduceMean", "ReduceSum")
def _mean(site: Site) -> str:
    x, dims = reduction(site)
    (sx, zx), (sy, zy) = x.quant.pair, site.quant.pair
    ratio = sx / sy / (dims[1] if site.node.op_type == "ReduceMean" else 1)
    long = x.quant.dtype == "int16"
    mult, shift, wide = scalar_multiplier(ratio, min(128.0, (65535 if long else 255) * dims[1] * ratio))
    tensor = site.graph.view(site.graph.operand(x, f"{site.node.name}.x"), dims)
    params = as_int32("params", [zx, mult, shift, zy])
    return site.emit("mean_s16" if long else "mean_s8", [tensor], {"params": params}, wide=wide)


def reduction(site: Site) -> tuple[Value, tuple[int, int, int]]:
    """Operand 0 and its shape as [outer, reduced, inner]; copied where what is reduced does not lie together."""
    x = site.value(0)
    reduced = reduced_axes(site, len(x.shape))
    try:
        return x, in_three(x.shape, reduced)
    except NotIntegerError:
        if x.tensor is None or site.graph.types[x.tensor].dtype != "int8":
            raise
    kept = [a for a in range(len(x.shape)) if a not in reduced]
    moved = site.graph.in_order(x, (*kept, *sorted(reduced)), site.node.name)
    return moved, (product([x.shape[a] for a in kept]), product([x.shape[a] for a in reduced]), 1)


def reduced_axes(site: Site, rank: int) -> set[int]:
    """The axes over which a reduction goes."""
    axes = site.real(1)
    if axes is None and site.attribute("axes", None) is not None:
        axes = np.array(site.attribute("axes", None))
    if axes is not None and not axes.size and not site.attribute("noop_with_empty_axes", 0):
        axes = None
    return set(range(rank)) if axes is None else {int(a) % rank for a in axes.ravel()}


def in_three(shape: tuple[int, ...], reduced: set[int]) -> tuple[int, int, int]:
    """The shape as [outer, reduced, inner]; axes of size 1 reduce to themselves."""
    kept = [i for i, d in enumerate(shape) if d > 1]
    inner = [i in reduced for i in kept]
    span = [i for i, r in enumerate(inner) if r]
    first, last = (span[0], span[-1] + 1) if span else (0, 0)
    if not all(inner[first:last]):
        raise NotIntegerError("it reduces axes that are not adjacent")
    dims = [shape[i] for i in kept]
    return product(dims[:first]), product(dims[first:last]), product(dims[last:])


@rule("Concat")
def _concat(site: Site) -> str:
    axis = site.attribute("axis", 0) % len(site.shape)
    rows = product(site.shape[:axis])
    parts = []
    for i, _ in enumerate(site.operands):
        value = site.value(i)
        name = f"{site.node.name}.{i}"
        if value.data is not None:
            tensor = site.graph.constant(name, site.quant.integers(value.real()))
        else:
            tensor = requantized(site.graph, site.node, site.graph.operand(value, name), value.quant, site.quant)
        parts.append(site.graph.view(tensor, (rows, product(value.shape[axis:]))))
    result = parts[0]
    for part in parts[1:]:
        op = "concat_s16" if site.quant.dtype == "int16" else "concat_s8"
        result = site.graph.emit(op, site.node.name, site.node.output[0], [result, part], {})
    return site.graph.view(result, site.shape)


def requantized(
    graph: IntegerGraph,
    node: onnx.NodeProto,
    tensor: str,
    have: Quant,
    want: Quant,
    limits: tuple[int, int] | None = None,
) -> str:
    """`tensor` brought from one quantization to another; itself when they are the same and there are no `limits`.

    Between int8 tensors by a table, else by arithmetic, which takes limits of the result (a Relu or Clip).
    """
    if have.same(want) and limits is None:
        return tensor
    if "int16" in (have.dtype, want.dtype):
        shape = graph.types[tensor].shape
        params = int16.requantize_params(have.pair, want.pair, bits_of(want), limits)
        flat = [graph.view(tensor, (product(shape),))]
        name, bits = f"{tensor}.requantized", {"x": bits_of(have), "y": bits_of(want)}
        return graph.view(graph.emit("requantize_s16", node.name, name, flat, {"params": params}, **bits), shape)
    return table(graph, node.name, tensor, table_of(lambda v: v, have.pair, want.pair), f"{tensor}.requantized")


def table(graph: IntegerGraph, node: str, tensor: str, entries: Int8, output: str) -> str:
    """An elementwise table applied to `tensor`, in its shape."""
    shape = graph.types[tensor].shape
    result = graph.emit("table_s8", node, output, [graph.view(tensor, (product(shape),))], {"table": entries})
    return graph.view(result, shape)
