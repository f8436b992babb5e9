# SPDX-License-Identifier: Apache-2.0
"""LayerNorm over the last axis of int16 rows in integers; results are int8."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.access import Orders, RowAccess, Rows, by_element
from edgec.operators.int16 import Int16, sample_quant
from edgec.operators.integer import Int8, Int32, sat8
from edgec.operators.layer_norm import WIDEST_ROW, affine, leading_bits
from edgec.operators.record import Access, Case, TensorType, operator


@operator(
    "layer_norm_s16",
    inputs=("x", "gain", "offset", "params"),
    constants=("gain", "offset", "params"),
    parameters=("epsilon_low", "epsilon_high", "point", "shift"),
    access=Access.WHOLE,
)
class LayerNormS16:
    """x int16 [R, D], gain and offset int32 [D] -> y int8 [R, D].

    With S = sum(x) and `V = D * sum(x^2) - S^2 + epsilon` (D^2 times the variance; epsilon has 31 bits in each
    parameter), V is brought to [2^60, 2^62) by k doublings of its root, and with `r = 2^61 / isqrt(V * 4^k)`
    `n = (D * x - S) * r >> (61 - k - point)`, half up; `y = sat8((n * gain + offset) >> shift)`.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        if types[0].shape[1] > WIDEST_ROW or types[0].dtype != "int16":
            raise ValueError(f"layer_norm_s16: {types[0].dtype} rows of {types[0].shape[1]} elements")
        return TensorType(types[0].shape, "int8")

    @staticmethod
    def reference(x: Int16, gain: Int32, offset: Int32, params: Int32) -> Int8:
        low, high, point, shift = (int(v) for v in params)
        result = np.empty(x.shape, np.int64)
        for r, row in enumerate(x.astype(object)):  # Python's own integers: no width to think of
            total, squares = sum(row), sum(v * v for v in row)
            variance = len(row) * squares - total * total + (high << 31) + low
            k = 0
            while variance < 2**60:
                variance, k = 4 * variance, k + 1
            ratio, down = 2**61 // math.isqrt(variance), 61 - k - point
            for d, v in enumerate(row):
                n = ((len(row) * v - total) * ratio + (1 << (down - 1))) >> down
                result[r, d] = (n * int(gain[d]) + int(offset[d])) >> shift
        return sat8(result)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        R, D = out.shape

        @T.prim_func(private=True, s_tir=True)
        def layer_norm_s16(
            x: T.Buffer((R, D), "int16"),
            gain: T.Buffer((D,), "int32"),
            offset: T.Buffer((D,), "int32"),
            params: T.Buffer((4,), "int32"),
            y: T.Buffer((R, D), "int8"),
        ):
            for r in range(R):
                total = T.alloc_buffer((1,), "int32")
                variance = T.alloc_buffer((1,), "int64")
                root = T.alloc_buffer((1,), "int64")
                down = T.alloc_buffer((1,), "int32")
                total[0] = T.int32(0)
                variance[0] = T.int64(0)
                for d in range(D):
                    total[0] = total[0] + T.Cast("int32", x[r, d])
                    variance[0] = variance[0] + T.Cast("int64", T.Cast("int32", x[r, d]) * T.Cast("int32", x[r, d]))
                variance[0] = (
                    T.int64(D) * variance[0]
                    - T.Cast("int64", total[0]) * T.Cast("int64", total[0])
                    + T.Cast("int64", params[1]) * T.int64(2**31)
                    + T.Cast("int64", params[0])
                )
                down[0] = T.int32(61) - params[2]
                for _ in range(30):
                    if variance[0] < T.int64(2**60):
                        variance[0] = variance[0] * T.int64(4)
                        down[0] = down[0] - T.int32(1)
                root[0] = T.int64(0)  # integer square root, a bit at a time from 2^30 down
                for i in range(31):
                    if (root[0] + (T.int64(1) << T.Cast("int64", 30 - i))) * (
                        root[0] + (T.int64(1) << T.Cast("int64", 30 - i))
                    ) <= variance[0]:
                        root[0] = root[0] + (T.int64(1) << T.Cast("int64", 30 - i))
                root[0] = T.truncdiv(T.int64(2**61), root[0])
                for d in range(D):
                    y[r, d] = T.Cast(
                        "int8",
                        T.max(
                            T.min(
                                (
                                    T.Cast(
                                        "int32",
                                        (
                                            T.Cast("int64", T.int32(D) * T.Cast("int32", x[r, d]) - total[0]) * root[0]
                                            + (T.int64(1) << T.Cast("int64", down[0] - T.int32(1)))
                                        )
                                        >> T.Cast("int64", down[0]),
                                    )
                                    * gain[d]
                                    + offset[d]
                                )
                                >> params[3],
                                T.int32(127),
                            ),
                            T.int32(-128),
                        ),
                    )

        return layer_norm_s16

    @staticmethod
    def rows_read(types: Sequence[TensorType]) -> Rows:
        width = types[0].shape[1]
        return (RowAccess(width, width), None, None, None)

    @staticmethod
    def read_order(types: Sequence[TensorType]) -> Orders:
        rows, width = types[0].shape
        return (by_element(rows * width), None, None, None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            r, d = int(rng.integers(1, 5)), int(rng.integers(1, 70))
            kind = rng.random()
            x = rng.integers(-(2**15), 2**15, (r, d))
            if kind < 0.2:
                x = np.full((r, d), rng.integers(-(2**15), 2**15))  # no variance at all
            elif kind < 0.4:
                x = np.where(rng.random((r, d)) < 1.5 / d, 2**15 - 1, -(2**15))  # |n| near sqrt(D)
            elif kind < 0.6:
                x = rng.integers(-3, 4, (r, d))
            scale, zero_point = sample_quant(rng, 8)
            gain, offset, params = constants(
                rng.normal(1, 1, d), rng.normal(0, 1, d), 1e-5, float(10.0 ** rng.uniform(-6, -2)),
                (max(scale, 1e-3), zero_point),
            )  # fmt: skip
            yield Case((x.astype(np.int16), gain, offset, params))


def constants(
    gamma: npt.ArrayLike, beta: npt.ArrayLike, epsilon: float, source: float, result: tuple[float, int]
) -> tuple[Int32, Int32, Int32]:
    """(gain int32 [D], offset int32 [D], params) as `layer_norm.constants`, for an int16 input of scale `source`."""
    width = np.asarray(gamma).size
    point = leading_bits(width) - 2
    gain, offset, shift = affine(gamma, beta, result, point)
    eps = max(1, round(width * width * epsilon / source**2))
    if eps >= 2**58:
        raise ValueError("normalization: epsilon is too large for its input scale")
    return gain, offset, np.array([eps % 2**31, eps >> 31, point, shift], np.int32)
