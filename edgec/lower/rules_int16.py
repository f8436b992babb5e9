# SPDX-License-Identifier: Apache-2.0
"""Rules of layers and products with an int16 operand, int16 weights or an int16 result.

An int8 operand beside them is brought to int16 in the same steps, less its zero point, which costs nothing in accuracy.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgec.lower.graph import Array, NotIntegerError, Quant, Value
from edgec.lower.rules import RULES, Rule, Site, bits_of, broadcast, matrices, product_of, requantized, transposes
from edgec.operators.integer import Int64, as_int32
from edgec.operators.linear16 import LARGEST_WEIGHT, proven_multipliers
from edgec.operators.product16 import mul_params

MOST_BIAS = 2.0**62


def rule_of(op_type: str) -> Rule | None:
    """The rule of an operator, by the widths of its operands and result; None where there is none."""
    narrow, wide = RULES.get(op_type), _RULES.get(op_type)
    if narrow is None or wide is None:
        return narrow
    return lambda site: wide(site) if is_wide(site) else narrow(site)


def is_wide(site: Site) -> bool:
    """Whether an operand, the weights or the result are int16."""
    quants = [o.quant for o in site.operands if isinstance(o, Value)]
    return any(quant.dtype == "int16" for quant in (site.quant, *quants))


def widened(site: Site, value: Value) -> Value:
    """`value` as int16 with its own scale and zero point 0."""
    if value.quant.dtype == "int16":
        return value
    wanted = Quant(value.quant.scale, 0, dtype="int16")
    if value.tensor is None:
        assert value.data is not None
        data = value.data.astype(np.int16) - value.quant.zero_point
        return replace(value, data=data.astype(np.int16), quant=wanted)
    known = site.graph.widened
    if value.tensor not in known:
        known[value.tensor] = requantized(site.graph, site.node, value.tensor, value.quant, wanted)
    return replace(value, tensor=known[value.tensor], quant=wanted)


def emit_linear16(
    site: Site, rows: str, weights: Int64, acc_scale: Array, real_bias: Array | None, x_scale: float = 1.0
) -> str:
    """`linear_s16` of x int16 [M, K] and weights [N, K].

    Args:
        site: whose result it is.
        rows: x.
        weights: whole numbers of up to 16 bits.
        acc_scale: what a step of each accumulator is worth over `x_scale`, [N] or [].
        real_bias: of N elements or one; None for zeros.
        x_scale: of x.

    Raises:
        NotIntegerError: weights or a bias that do not fit.
        ValueError: sums for which 64 bits are not proven to do.
    """
    n = len(weights)
    steps = np.broadcast_to(np.asarray(acc_scale, np.float64) * x_scale, (n,))
    if np.abs(weights).max(initial=0) > LARGEST_WEIGHT:
        raise NotIntegerError(f"a weight of {int(np.abs(weights).max())}; int16 weights are at most {LARGEST_WEIGHT}")
    if real_bias is not None and real_bias.size not in (1, n):
        raise NotIntegerError(f"a bias of {real_bias.shape} for {n} channels")
    offset = np.zeros(n) if real_bias is None else np.rint(real_bias.ravel() / steps)
    if np.abs(offset).max(initial=0.0) > MOST_BIAS:
        raise NotIntegerError("a bias of more than 62 bits")
    bias = np.broadcast_to(offset, (n,)).astype(np.int64)
    (sy, zy), bits = site.quant.pair, bits_of(site.quant)
    mult, shift = proven_multipliers(weights, bias, steps / sy, bits, zy)
    constants: dict[str, Array] = {"w": weights.astype(np.int16), "bias": bias, "mult": mult, "shift": shift}
    return site.emit("linear_s16", [rows], {**constants, "params": as_int32("params", [zy])}, y=bits)


def _gemm(site: Site) -> str:
    return _linear(site, transposed=transposes(site))


def _matmul(site: Site) -> str:
    right = site.stored(1)
    if right.data is not None and right.data.ndim == 2:
        return _linear(site, transposed=False)
    return RULES["MatMul"](site)  # type: ignore[return-value]


def _linear(site: Site, transposed: bool) -> str:
    layer = product_of(site, transposed)
    x = widened(site, layer.x)
    rows = site.rows(x, layer.weights.shape[1])
    return emit_linear16(site, rows, layer.weights, layer.scale, layer.bias, x.quant.pair[0])


def _mul(site: Site) -> str:
    factor = next((o for o in site.operands if isinstance(o, np.ndarray) and o.size == 1), None)
    if factor is not None:
        return _scaled(site, float(factor.reshape(())))
    a, b = site.value(0), site.value(1)
    return _product(site, a, b, 1)


def _scaled(site: Site, factor: float) -> str:
    """A tensor times one number, which goes into the multiplier."""
    x = site.value(next(i for i, o in enumerate(site.operands) if isinstance(o, Value)))
    if not factor:
        raise NotIntegerError("a product with 0")
    if factor > 0 and x.shape == site.shape and x.tensor is not None:
        steps = replace(x.quant, scale=x.quant.scale * factor)
        return requantized(site.graph, site.node, x.tensor, steps, site.quant)
    one = Value(None, (1,), Quant(np.array(abs(factor)), 0, dtype="int16"), np.ones(1, np.int16))
    return _product(site, x, one, 1 if factor > 0 else -1)


def _product(site: Site, a: Value, b: Value, sign: int) -> str:
    params = mul_params(a.quant.pair, b.quant.pair, site.quant.pair, sign)
    a, b, swapped = broadcast(site, a, b)
    if swapped:
        params = params[[1, 0, 2, 3, 4]]
    bits = {name: bits_of(q) for name, q in (("a", a.quant), ("b", b.quant), ("y", site.quant))}
    return site.emit("mul_s16", matrices(site, a, b), {"params": params}, **bits)


_RULES: dict[str, Rule] = {"Gemm": _gemm, "MatMul": _matmul, "Mul": _mul}
