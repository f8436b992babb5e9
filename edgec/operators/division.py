# SPDX-License-Identifier: Apache-2.0
"""Quotients of two tensors in integers, with one rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.elementwise import broadcast_pair, sample_pair
from edgec.operators.integer import Int8, Int32, as_int32, sat8, tir_sat8
from edgec.operators.record import Access, Case, TensorType, operator

FINEST = 21  # bits: 2 * 255 * 2^21 + 255 * 2^21 stays below 2^31


def div_params(a: tuple[float, int], b: tuple[float, int], result: tuple[float, int]) -> Int32:
    """Parameters of `div_s8` for the (scale, zero_point) of a, b and the result.

    Raises:
        ValueError: a ratio of scales that the fixed point cannot hold.
    """
    ratio = a[0] / (b[0] * result[0])
    shift = FINEST
    while shift > 0 and round(ratio * 2.0**shift) >= 2**FINEST:
        shift -= 1
    mult = round(ratio * 2.0**shift)
    if not 0 < mult < 2**FINEST:
        raise ValueError(f"division of scale {a[0]:g} by {b[0]:g} into {result[0]:g}: ratio out of range")
    return as_int32("div_s8 parameters", np.array([a[1], b[1], mult, shift, result[1]]))


@operator(
    "div_s8",
    inputs=("a", "b", "params"),
    constants=("params",),
    parameters=("a_zero_point", "b_zero_point", "mult", "shift", "zero_point"),
    access=Access.ELEMENTWISE,
)
class DivS8:
    """a int8 [O, N], b int8 [O or 1, N or 1] -> y int8 [O, N]: `y = sat8(round((a - za) * mult / (d * 2^shift)) + zy)`.

    d = max(b - zb, 1): a divisor below one step of its scale counts as one step. Rounds half up, once.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        return broadcast_pair("div_s8", types)

    @staticmethod
    def reference(a: Int8, b: Int8, params: Int32) -> Int8:
        za, zb, mult, shift, zero_point = (int(v) for v in params)
        divisor = np.maximum(b.astype(np.int64) - zb, 1) << shift
        return sat8((2 * (a.astype(np.int64) - za) * mult + divisor) // (2 * divisor) + zero_point)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        (O, N), (BO, BN) = out.shape, types[1].shape

        @T.prim_func(private=True, s_tir=True)
        def div_s8(
            a: T.Buffer((O, N), "int8"),
            b: T.Buffer((BO, BN), "int8"),
            params: T.Buffer((5,), "int32"),
            y: T.Buffer((O, N), "int8"),
        ):
            for o in range(O):
                for n in range(N):
                    divisor = T.alloc_buffer((1,), "int32")
                    doubled = T.alloc_buffer((1,), "int32")
                    quotient = T.alloc_buffer((1,), "int32")
                    divisor[0] = T.max(
                        T.Cast("int32", b[o if BO > 1 else 0, n if BN > 1 else 0]) - params[1], T.int32(1)
                    ) * (T.int32(1) << params[3])
                    doubled[0] = (T.Cast("int32", a[o, n]) - params[0]) * params[2] * T.int32(2) + divisor[0]
                    # C truncates: one less where the remainder is negative.
                    quotient[0] = T.truncdiv(doubled[0], divisor[0] * T.int32(2))
                    if T.truncmod(doubled[0], divisor[0] * T.int32(2)) < T.int32(0):
                        quotient[0] = quotient[0] - T.int32(1)
                    y[o, n] = tir_sat8(T, quotient[0] + params[4])

        return div_s8

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            a, b = sample_pair(rng)
            quant = [(float(10.0 ** rng.uniform(-2, 0)), int(rng.integers(-128, 128))) for _ in range(3)]
            if rng.random() < 0.7:
                quant[1] = (quant[1][0], -128)
            yield Case((a, b, div_params(*quant)))
