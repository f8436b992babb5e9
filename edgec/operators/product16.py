# SPDX-License-Identifier: Apache-2.0
"""Products of two tensors of which one, or the result, is int16: gates times cell states, decays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.elementwise import broadcast_pair
from edgec.operators.int16 import AddS16, binary_point, check_bits, sample_quant, sample_wide, saturated
from edgec.operators.integer import Int32, as_int32
from edgec.operators.record import Access, Array, Case, TensorType, operator

MOST_POINT = 60
"""A product has 30 bits, a multiplier another 30, and the half of the rounding must fit beside them."""


@operator(
    "mul_s16",
    inputs=("a", "b", "params"),
    constants=("params",),
    parameters=("a_zero_point", "b_zero_point", "mult", "shift", "zero_point"),
    access=Access.WHOLE,
)
class MulS16:
    """a [O, N], b [O or 1, N or 1] -> y [O, N], int8 or int16 each: `sat(((a-za) * (b-zb) * mult) >> shift)`.

    Attributes `a`, `b`, `y`: bits of each, not all 8. Products are 64 bits wide; the shift rounds half up, then the
    zero point is added and the sum saturates to the type of y. A negative mult negates.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], a: int, b: int, y: int) -> TensorType:
        check_bits("mul_s16", types, (a, b))
        return TensorType(broadcast_pair("mul_s16", types).shape, f"int{y}")

    @staticmethod
    def reference(a_: Array, b_: Array, params: Int32, a: int, b: int, y: int) -> Array:
        za, zb, mult, shift, zero_point = (int(v) for v in params)
        product = (a_.astype(np.int64) - za) * (b_.astype(np.int64) - zb)
        return saturated(((product * mult + (1 << (shift - 1))) >> shift) + zero_point, y)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, a: int, b: int, y: int) -> Any:
        (O, N), (BO, BN) = out.shape, types[1].shape
        A, B, Y = types[0].dtype, types[1].dtype, out.dtype
        LOW, HIGH = -(2 ** (y - 1)), 2 ** (y - 1) - 1

        @T.prim_func(private=True, s_tir=True)
        def mul_s16(
            a: T.Buffer((O, N), A),
            b: T.Buffer((BO, BN), B),
            params: T.Buffer((5,), "int32"),
            y: T.Buffer((O, N), Y),
        ):
            for o in range(O):
                for n in range(N):
                    y[o, n] = T.Cast(
                        Y,
                        T.max(
                            T.min(
                                (
                                    (
                                        T.Cast(
                                            "int64",
                                            (T.Cast("int32", a[o, n]) - params[0])
                                            * (T.Cast("int32", b[o if BO > 1 else 0, n if BN > 1 else 0]) - params[1]),
                                        )
                                        * T.Cast("int64", params[2])
                                        + (T.int64(1) << T.Cast("int64", params[3] - 1))
                                    )
                                    >> T.Cast("int64", params[3])
                                )
                                + T.Cast("int64", params[4]),
                                T.int64(HIGH),
                            ),
                            T.int64(LOW),
                        ),
                    )

        return mul_s16

    rows_read = staticmethod(AddS16.rows_read)
    read_order = staticmethod(AddS16.read_order)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            a, b, y = (int(v) for v in rng.choice([8, 16], 3))
            if a == b == y == 8:
                continue
            rows, width = (int(v) for v in rng.integers(1, 12, 2))
            small = (int(rng.choice([1, rows])), int(rng.choice([1, width])))
            qa, qb, qy = (sample_quant(rng, bits) for bits in (a, b, y))
            params = mul_params(qa, qb, (qy[0] * 100, qy[1]), int(rng.choice([-1, 1])))
            yield Case(
                (sample_wide(rng, (rows, width), a), sample_wide(rng, small, b), params), {"a": a, "b": b, "y": y}
            )


def mul_params(a: tuple[float, int], b: tuple[float, int], result: tuple[float, int], sign: int = 1) -> Int32:
    """Parameters of `mul_s16` for the (scale, zero_point) of a, b and the result; `sign` -1 negates the product.

    Raises:
        ValueError: a ratio of scales that the fixed point cannot hold.
    """
    ratio = a[0] * b[0] / result[0]
    shift = binary_point(ratio, MOST_POINT)
    return as_int32("mul_s16 parameters", [a[1], b[1], sign * round(ratio * 2.0**shift), shift, result[1]])
