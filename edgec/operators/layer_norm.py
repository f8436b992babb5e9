# SPDX-License-Identifier: Apache-2.0
"""LayerNorm (Ba et al. 2016) and RMSNorm (Zhang and Sennrich 2019) over the last axis in integers.

Both are integer sums, an integer square root and one rounding; they differ in what is taken off x, its mean or
its zero point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.integer import INT32_MAX, Int8, Int32, Int64, as_int32, sat8
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
    width = np.asarray(gamma).size
    lead = leading_bits(width)
    gain, offset, shift = affine(gamma, beta, result, lead - 2)
    eps = round(width * width * epsilon / source**2)  # 0 for wide steps; a row without variance counts as 1
    if eps >= 2**31:
        raise ValueError("normalization: epsilon is too large for its input scale")
    return gain, offset, np.array([eps, lead, shift], np.int32)


def leading_bits(width: int) -> int:
    """Bits that `D * x - sum(x)` of int8 leaves free in 31; two less are the fraction bits of n."""
    return 31 - math.ceil(math.log2(255 * width + 1))


def affine(gamma: npt.ArrayLike, beta: npt.ArrayLike, result: tuple[float, int], q: int) -> tuple[Int32, Int32, int]:
    """(gain, offset, shift) with which n, q bits behind its point, becomes the result: see `constants`."""
    g, b = np.asarray(gamma, np.float64), np.asarray(beta, np.float64)
    width = g.size
    scale, zero_point = result
    reach = math.sqrt(width) * 2.0**q * np.abs(g).max(initial=0.0) / scale
    reach += 2.0**q * (np.abs(b / scale + zero_point).max(initial=0.0) + 1)
    point = max(-q, min(20, math.floor(math.log2(INT32_MAX / 1.001) - math.log2(max(reach, 1e-300)))))
    shift = point + q
    if shift < 1:
        raise ValueError("normalization: the gain is too large for its output scale")
    gain = as_int32("normalization gain", np.rint(g / scale * 2.0**point))
    # The zero point and the half of the final rounding ride in the offset.
    offset = as_int32("normalization offset", np.rint((b / scale + zero_point) * 2.0**shift) + 2 ** (shift - 1))
    return gain, offset, shift


@operator(
    "layer_norm_s8",
    inputs=("x", "gain", "offset", "params"),
    constants=("gain", "offset", "params"),
    parameters=("epsilon", "lead", "shift"),
    access=Access.IN_ROWS,
)
class LayerNormS8:
    """x int8 [R, D], gain and offset int32 [D] -> y int8 [R, D].

    With S = sum(x), V = max(1, D * sum(x^2) - S^2 + epsilon) (D^2 times the variance) and
    `rstd = floor(2^30 / sqrt(V))`: `n = ((D * x - S) * 2^lead * rstd + 2^31) >> 32`,
    `y = sat8((n * gain + offset) >> shift)`; on Cortex-M4/M7 n is one SMMULR.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        return _rows("layer_norm_s8", types)

    @staticmethod
    def reference(x: Int8, gain: Int32, offset: Int32, params: Int32) -> Int8:
        wide, width = x.astype(np.int64), x.shape[1]
        total = wide.sum(axis=1)
        variance = width * (wide * wide).sum(axis=1) - total * total
        return _normalized(width * wide - total[:, None], variance, gain, offset, params)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        return _tir(T, out, about_mean=True)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            yield Case(_sample(rng))


@operator(
    "rms_norm_s8",
    inputs=("x", "gain", "offset", "params"),
    constants=("gain", "offset", "params"),
    parameters=("epsilon", "lead", "shift", "x_zero_point"),
    access=Access.IN_ROWS,
)
class RmsNormS8:
    """x int8 [R, D], gain and offset int32 [D] -> y int8 [R, D].

    As `layer_norm_s8` with c = x - zx in place of x - mean: `V = max(1, D * sum(c^2) + epsilon)`,
    `n = (D * c * 2^lead * rstd + 2^31) >> 32`. The bounds are the same: |D * c| <= 255 * D, |n| <= sqrt(D).
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        return _rows("rms_norm_s8", types)

    @staticmethod
    def reference(x: Int8, gain: Int32, offset: Int32, params: Int32) -> Int8:
        centred, width = x.astype(np.int64) - int(params[3]), x.shape[1]
        return _normalized(width * centred, width * (centred * centred).sum(axis=1), gain, offset, params)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        return _tir(T, out, about_mean=False)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            x, gain, offset, params = _sample(rng)
            yield Case((x, gain, offset, np.append(params, rng.integers(-128, 128)).astype(np.int32)))


def _rows(name: str, types: Sequence[TensorType]) -> TensorType:
    if types[0].shape[1] > WIDEST_ROW:
        raise ValueError(f"{name}: rows of {types[0].shape[1]} elements, at most {WIDEST_ROW}")
    return TensorType(types[0].shape, "int8")


def _normalized(centred: Int64, variance: Int64, gain: Int32, offset: Int32, params: Int32) -> Int8:
    """D times the centred values [R, D], D^2 times their mean square [R] -> y."""
    epsilon, lead, shift = (int(v) for v in params[:3])
    rstd = np.array([math.isqrt(2**60 // max(int(v) + epsilon, 1)) for v in variance], np.int64)
    n = ((centred << lead) * rstd[:, None] + 2**31) >> 32
    return sat8((n * gain + offset) >> shift)


def _tir(T: Any, out: TensorType, about_mean: bool) -> Any:
    R, D = out.shape
    P = 3 if about_mean else 4

    @T.prim_func(private=True, s_tir=True)
    def normalize(
        x: T.Buffer((R, D), "int8"),
        gain: T.Buffer((D,), "int32"),
        offset: T.Buffer((D,), "int32"),
        params: T.Buffer((P,), "int32"),
        y: T.Buffer((R, D), "int8"),
    ):
        for r in range(R):
            total = T.alloc_buffer((1,), "int32")  # what is taken off D * x
            squares = T.alloc_buffer((1,), "int32")
            ratio = T.alloc_buffer((1,), "int64")
            root = T.alloc_buffer((1,), "int64")
            squares[0] = T.int32(0)
            if about_mean:
                total[0] = T.int32(0)
                for d in range(D):
                    total[0] = total[0] + T.Cast("int32", x[r, d])
                    squares[0] = squares[0] + T.Cast("int32", x[r, d]) * T.Cast("int32", x[r, d])
                ratio[0] = T.truncdiv(
                    T.int64(2**60),
                    T.max(
                        T.int64(D) * T.Cast("int64", squares[0])
                        - T.Cast("int64", total[0]) * T.Cast("int64", total[0])
                        + T.Cast("int64", params[0]),
                        T.int64(1),
                    ),
                )
            else:
                total[0] = T.int32(D) * params[P - 1]
                for d in range(D):
                    squares[0] = squares[0] + (T.Cast("int32", x[r, d]) - params[P - 1]) * (
                        T.Cast("int32", x[r, d]) - params[P - 1]
                    )
                ratio[0] = T.truncdiv(
                    T.int64(2**60),
                    T.max(T.int64(D) * T.Cast("int64", squares[0]) + T.Cast("int64", params[0]), T.int64(1)),
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

    return normalize


def _sample(rng: np.random.Generator) -> tuple[Int8, Int32, Int32, Int32]:
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
    return x.astype(np.int8), gain, offset, params
