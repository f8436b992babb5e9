# SPDX-License-Identifier: Apache-2.0
"""Rules of the rarer operators: quotients, choices, running sums, RMSNorm."""

from __future__ import annotations

import numpy as np

from edgec.lower.graph import Array, NotIntegerError, Stored, Value
from edgec.lower.movement import spread
from edgec.lower.picking import padding_index, take
from edgec.lower.rules import (
    Site,
    broadcast,
    in_three,
    matrices,
    reduction,
    requantized,
    rule,
    scalar_multiplier,
)
from edgec.operators import layer_norm
from edgec.operators.division import div_params
from edgec.operators.integer import INT8_MIN, as_int32, product, quantize_real


@rule("Div")
def _divide(site: Site) -> str:
    a, b = site.value(0), site.value(1)
    if b.quant.pair[1] != INT8_MIN:
        raise NotIntegerError("a divisor whose range reaches below 0; it must be positive, with zero point -128")
    params = div_params(a.quant.pair, b.quant.pair, site.quant.pair)
    a = spread(site.node, a, site.shape, site.graph)
    return site.emit("div_s8", matrices(site, a, b), {"params": params})


@rule("Max", "Min")
def _extreme(site: Site) -> str:
    parts = [_in_result(site, i) for i in range(len(site.operands))]
    result = parts[0]
    for part in parts[1:]:
        a, b, _ = broadcast(site, result, part)
        smallest = int(site.node.op_type == "Min")
        result = Value(site.emit("extreme_s8", matrices(site, a, b), {}, smallest=smallest), site.shape, site.quant)
    return str(result.tensor)


@rule("ReduceMax", "ReduceMin")
def _reduce_extreme(site: Site) -> str:
    x, dims = reduction(site)
    tensor = site.graph.operand(x, f"{site.node.name}.x")
    smallest = int(site.node.op_type == "ReduceMin")
    found = site.emit("reduce_extreme_s8", [site.graph.view(tensor, dims)], {}, smallest=smallest)
    return requantized(site.graph, site.node, found, x.quant, site.quant)


@rule("Pad")
def _pad(site: Site) -> Stored:
    """Padded axis by axis, in the order in which the bytes lie."""
    x, pads, axes = site.stored(0), site.real(1), site.real(3)
    rank = len(x.shape)
    if pads is None or pads.min(initial=0) < 0:
        raise NotIntegerError("its pads must be constant and not negative")
    if x.tensor is None:
        raise NotIntegerError("it is computed from constants alone; fold them")
    axes = np.arange(rank) if axes is None else axes.ravel() % rank
    order = x.order or tuple(range(rank))
    tensor, shape = requantized(site.graph, site.node, x.tensor, x.quant, site.quant), x.stored_shape
    mode = site.attribute("mode", b"constant").decode()
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if before or after:
            at = order.index(int(axis))
            index = padding_index(mode, shape[at], int(before), int(after))
            tensor = take(site.graph, site.node, tensor, shape, at, index, _fill(site))
            shape = (*shape[:at], len(index), *shape[at + 1 :])
    return Stored(tensor, x.order)


def _fill(site: Site) -> int:
    given = site.real(2)
    real = 0.0 if given is None else float(given.reshape(()))
    return int(quantize_real(np.array(real), *site.quant.pair))


@rule("Where")
def _where(site: Site) -> str:
    condition = site.operands[0]
    if condition is None:
        raise NotIntegerError("no condition")
    if isinstance(condition, Value):
        mask = site.value(0)
    else:
        mask = Value(None, condition.shape, site.quant, (condition != 0).astype(np.int8))
    a, b = (_in_result(site, i) for i in (1, 2))
    inverted = int(a.tensor is None or a.shape != site.shape) & int(b.tensor is not None)
    if inverted:
        a, b = b, a
    a = spread(site.node, a, site.shape, site.graph)
    names = ("a", "b", "mask")
    flat = [_repeated(site, v, f"{site.node.name}.{n}") for v, n in zip((a, b, mask), names, strict=True)]
    return site.emit("select_s8", flat, {}, inverted=inverted)


@rule("CumSum")
def _cumulative(site: Site) -> str:
    x, axis = site.value(0), site.real(1)
    if axis is None:
        raise NotIntegerError("its axis must be constant")
    dims = in_three(x.shape, {int(axis.reshape(())) % len(x.shape)})
    (sx, zx), (sy, zy) = x.quant.pair, site.quant.pair
    mult, shift, wide = scalar_multiplier(sx / sy, min(128.0, 255 * dims[1] * sx / sy))
    return site.emit(
        "cumsum_s8",
        [site.graph.view(site.graph.operand(x, f"{site.node.name}.x"), dims)],
        {"params": as_int32("params", [zx, mult, shift, zy])},
        exclusive=int(site.attribute("exclusive", 0)),
        reverse=int(site.attribute("reverse", 0)),
        wide=wide,
    )


@rule("RMSNormalization")
def _rms_norm(site: Site) -> str:
    x, gamma = site.value(0), site.real(1)
    width = x.shape[-1]
    if site.attribute("axis", -1) not in (-1, len(x.shape) - 1) or gamma is None or gamma.size not in (1, width):
        raise NotIntegerError("RMSNormalization over more than the last axis, or with a computed scale")
    return rms_norm(site, x, gamma, site.attribute("epsilon", 1e-5))


def rms_norm(site: Site, x: Value, gamma: Array, epsilon: float) -> str:
    """RMSNorm of the rows of x."""
    width = x.shape[-1]
    gamma = np.broadcast_to(gamma.ravel(), (width,))
    scale, zero_point = x.quant.pair
    gain, offset, params = layer_norm.constants(gamma, np.zeros(width), epsilon, scale, site.quant.pair)
    constants: dict[str, Array] = {"gain": gain, "offset": offset, "params": as_int32("params", [*params, zero_point])}
    return site.emit("rms_norm_s8", [site.rows(x, width)], constants)


def _in_result(site: Site, index: int) -> Value:
    """Operand `index` in the quantization of the result."""
    if isinstance(site.operands[index], Value) and (operand := site.value(index)).tensor is not None:
        tensor = requantized(site.graph, site.node, str(operand.tensor), operand.quant, site.quant)
        return Value(tensor, operand.shape, site.quant)
    real = site.real(index)
    assert real is not None
    return Value(None, real.shape, site.quant, quantize_real(real, *site.quant.pair))


def _repeated(site: Site, value: Value, name: str) -> str:
    """A flat operand that repeats to the result's elements: leading axes of size 1 or missing repeat by themselves."""
    shape = value.shape
    while shape and shape[0] == 1:
        shape = shape[1:]
    if shape and shape != site.shape[len(site.shape) - len(shape) :]:
        value, shape = spread(site.node, value, site.shape, site.graph), site.shape
    return site.graph.view(site.graph.operand(value, name), (product(shape),))
