# SPDX-License-Identifier: Apache-2.0
"""LayerNorm over the last axis in integers (Ba et al. 2016): integer sums, integer square root, one rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.integer import INT32_MAX, Int8, Int32, as_int32, sat8
from edgec.operators.record import Access, Case, TensorType, operator

WIDEST_ROW = 8192  # keeps D * x - sum(x) below 2^21 and D^2 * variance within int64


def constants(
    gamma: npt.ArrayLike, beta: npt.ArrayLike, epsilon: float, source: float, result: tuple[float, int]
) -> tuple[Int32, Int32, Int32]:
    """(gain int32 [D], offset int32 [D], params) for input scale `source` and the output's (scale, zero_point).

    The normalised value n = (x - mean) / deviation is held in Q(q), |n| <= sqrt(D - 1) always; the gain's
    binary point is placed as high as keeps `n * gain + offset` inside int32.

    Raises:
        ValueError: gains or offsets that no binary point can hold.
    """
    g, b = np.asarray(gamma, np.float64), np.asarray(beta, np.float64)
    width = g.size
    scale, zero_point = result
    lead = 31 - math.ceil(math.log2(255 * width + 1))
    q = lead - 2
    reach = math.sqrt(width) * 2.0**q * np.abs(g).max(initial=0.0) / scale
    reach += 2.0**q * (np.abs(b / scale + zero_point).max(initial=0.0) + 1)
    point = max(-q, min(20, math.floor(math.log2(INT32_MAX / 1.001) - math.log2(max(reach, 1e-300)))))
    shift = point + q
    if shift < 1:
        raise ValueError("LayerNorm: gain is too large for its output scale")
    gain = as_int32("LayerNorm gain", np.rint(g / scale * 2.0**point))
    # The zero point and the half of the final rounding ride in the offset.
    offset = as_int32("LayerNorm offset", np.rint((b / scale + zero_point) * 2.0**shift) + 2 ** (shift - 1))
    eps = max(1, round(width * width * epsilon / source**2))
    if eps >= 2**31:
        raise ValueError("LayerNorm: epsilon is too large for its input scale")
    return gain, offset, np.array([eps, lead, shift], np.int32)


@operator(
    "layer_norm_s8",
    inputs=("x", "gain", "offset", "params"),
    constants=("gain", "offset", "params"),
    parameters=("epsilon", "lead", "shift"),
    access=Access.IN_ROWS,
)
class LayerNormS8:
    """x int8 [R, D], gain and offset int32 [D] -> y int8 [R, D].

    With S = sum(x), V = D * sum(x^2) - S^2 + epsilon (D^2 times the variance) and
    `rstd = floor(2^30 / sqrt(V))`: `n = ((D * x - S) * 2^lead * rstd + 2^31) >> 32`,
    `y = sat8((n * gain + offset) >> shift)`; on Cortex-M4/M7 n is one SMMULR.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        if types[0].shape[1] > WIDEST_ROW:
            raise ValueError(f"layer_norm_s8: rows of {types[0].shape[1]} elements, at most {WIDEST_ROW}")
        return TensorType(types[0].shape, "int8")

    @staticmethod
    def reference(x: Int8, gain: Int32, offset: Int32, params: Int32) -> Int8:
        epsilon, lead, shift = (int(v) for v in params)
        wide, width = x.astype(np.int64), x.shape[1]
        total = wide.sum(axis=1)
        variance = width * (wide * wide).sum(axis=1) - total * total + epsilon
        rstd = np.array([math.isqrt(2**60 // int(v)) for v in variance], np.int64)
        centred = (width * wide - total[:, None]) << lead
        n = (centred * rstd[:, None] + 2**31) >> 32
        return sat8((n * gain + offset) >> shift)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        R, D = out.shape

        @T.prim_func(private=True, s_tir=True)
        def layer_norm_s8(
            x: T.Buffer((R, D), "int8"),
            gain: T.Buffer((D,), "int32"),
            offset: T.Buffer((D,), "int32"),
            params: T.Buffer((3,), "int32"),
            y: T.Buffer((R, D), "int8"),
        ):
            for r in range(R):
                total = T.alloc_buffer((1,), "int32")
                squares = T.alloc_buffer((1,), "int32")
                ratio = T.alloc_buffer((1,), "int64")
                root = T.alloc_buffer((1,), "int64")
                total[0] = T.int32(0)
                squares[0] = T.int32(0)
                for d in range(D):
                    total[0] = total[0] + T.Cast("int32", x[r, d])
                    squares[0] = squares[0] + T.Cast("int32", x[r, d]) * T.Cast("int32", x[r, d])
                ratio[0] = T.truncdiv(
                    T.int64(2**60),
                    T.int64(D) * T.Cast("int64", squares[0])
                    - T.Cast("int64", total[0]) * T.Cast("int64", total[0])
                    + T.Cast("int64", params[0]),
                )
                root[0] = T.int64(0)  # integer square root, a bit at a time from 2^30 down
                for i in range(31):
                    if (root[0] + (T.int64(1) << T.Cast("int64", 30 - i))) * (
                        root[0] + (T.int64(1) << T.Cast("int64", 30 - i))
                    ) <= ratio[0]:
                        root[0] = root[0] + (T.int64(1) << T.Cast("int64", 30 - i))
                for d in range(D):
                    y[r, d] = T.Cast(
                        "int8",
                        T.max(
                            T.min(
                                (
                                    T.Cast(
                                        "int32",
                                        (
                                            T.Cast(
                                                "int64",
                                                (T.int32(D) * T.Cast("int32", x[r, d]) - total[0])
                                                * (T.int32(1) << params[1]),
                                            )
                                            * root[0]
                                            + T.int64(2**31)
                                        )
                                        >> T.int64(32),
                                    )
                                    * gain[d]
                                    + offset[d]
                                )
                                >> params[2],
                                T.int32(127),
                            ),
                            T.int32(-128),
                        ),
                    )

        return layer_norm_s8

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            r, d = int(rng.integers(1, 5)), int(rng.integers(1, 70))
            kind = rng.random()
            x = rng.integers(-128, 128, (r, d))
            if kind < 0.2:
                x = np.full((r, d), rng.integers(-128, 128))  # no variance at all
            elif kind < 0.4:
                x = np.where(rng.random((r, d)) < 1.5 / d, 127, -128)  # one outlier: |n| near sqrt(D)
            gamma, beta = rng.normal(1, 1, d), rng.normal(0, 1, d)
            scale = float(10.0 ** rng.uniform(-3, 0.5))
            gain, offset, params = constants(
                gamma, beta, 1e-5, float(10.0 ** rng.uniform(-3, 0)), (scale, int(rng.integers(-128, 128)))
            )
            yield Case((x.astype(np.int8), gain, offset, params))
