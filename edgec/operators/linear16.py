# SPDX-License-Identifier: Apache-2.0
"""Dense layers of int16 activations and weights: sums of 64 bits, one rounding, multipliers as wide as proven.

They carry linear memories, whose weights span many orders of magnitude and whose errors stay for thousands of steps.
A multiplier M of a channel has up to 30 bits, and only as many as keep `acc * M` in 64 bits for the channel's own
weights and bias, whatever x is (`proven_multiplier`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.access import Orders, RowAccess, Rows, by_row
from edgec.operators.int16 import Int16, check_bits, sample_wide, saturated
from edgec.operators.integer import NARROW_ERROR, Int32, Int64
from edgec.operators.record import Access, Array, Case, TensorType, operator

LARGEST_INPUT = 2**15
"""Largest magnitude of x."""
LARGEST_WEIGHT = 2**15 - 1
LARGEST_MULTIPLIER = 2**30
MOST_SHIFT = 62


@operator(
    "linear_s16",
    inputs=("x", "w", "bias", "mult", "shift", "params"),
    constants=("w", "bias", "mult", "shift", "params"),
    parameters=("zero_point",),
    access=Access.WHOLE,
)
class LinearS16:
    """x int16 [M, K], w int16 [N, K] -> y [M, N] of `y` bits: `sat(((acc * mult + half) >> shift) + zero_point)`.

    acc = x @ w.T + bias in 64 bits; bias int64 [N], mult int32 [N], shift uint8 [N]. x has zero point 0.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], y: int) -> TensorType:
        check_bits("linear_s16", types, (16, 16))
        (m, k), (n, kw) = types[0].shape, types[1].shape
        if k != kw or any(t.shape != (n,) for t in types[2:5]):
            raise ValueError(f"linear_s16: x {types[0].shape} does not fit w {types[1].shape}")
        return TensorType((m, n), f"int{y}")

    @staticmethod
    def reference(x: Int16, w: Int16, bias: Int64, mult: Int32, shift: Array, params: Int32, y: int) -> Array:
        acc = x.astype(np.int64) @ w.astype(np.int64).T + bias
        places = shift.astype(np.int64)
        rounded = (acc * mult.astype(np.int64) + (np.int64(1) << (places - 1))) >> places
        return saturated(rounded + int(params[0]), y)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, y: int) -> Any:
        (M, K), N = types[0].shape, out.shape[1]
        Y = out.dtype
        LOW, HIGH = -(2 ** (y - 1)), 2 ** (y - 1) - 1

        @T.prim_func(private=True, s_tir=True)
        def linear_s16(
            x: T.Buffer((M, K), "int16"),
            w: T.Buffer((N, K), "int16"),
            bias: T.Buffer((N,), "int64"),
            mult: T.Buffer((N,), "int32"),
            shift: T.Buffer((N,), "uint8"),
            params: T.Buffer((1,), "int32"),
            y: T.Buffer((M, N), Y),
        ):
            for m in range(M):
                for n in range(N):
                    acc = T.alloc_buffer((1,), "int64")
                    acc[0] = bias[n]
                    for k in range(K):
                        acc[0] = acc[0] + T.Cast("int64", T.Cast("int32", x[m, k]) * T.Cast("int32", w[n, k]))
                    y[m, n] = T.Cast(
                        Y,
                        T.max(
                            T.min(
                                (
                                    (
                                        acc[0] * T.Cast("int64", mult[n])
                                        + (T.int64(1) << (T.Cast("int64", shift[n]) - T.int64(1)))
                                    )
                                    >> T.Cast("int64", shift[n])
                                )
                                + T.Cast("int64", params[0]),
                                T.int64(HIGH),
                            ),
                            T.int64(LOW),
                        ),
                    )

        return linear_s16

    @staticmethod
    def macs(types: Sequence[TensorType], out: TensorType) -> int:
        return types[0].shape[0] * types[0].shape[1] * out.shape[1]

    @staticmethod
    def rows_read(types: Sequence[TensorType], y: int) -> Rows:
        return (RowAccess(types[1].shape[0], types[0].shape[1]), *(None,) * 5)

    @staticmethod
    def read_order(types: Sequence[TensorType], y: int) -> Orders:
        (m, k), n = types[0].shape, types[1].shape[0]
        return (by_row(m, k, n), *(None,) * 5)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            m, k, n = (int(v) for v in rng.integers(1, 20, 3))
            bits, most = int(rng.choice([8, 16])), int(rng.choice([3, 2000, LARGEST_WEIGHT]))
            ends = rng.random() < 0.2
            w = rng.choice([-most, most], (n, k)) if ends else rng.integers(-most, most + 1, (n, k))
            bias = rng.integers(-(2**36), 2**36, n) * int(rng.random() < 0.7)
            zero_point = int(rng.integers(-128, 128)) if bits == 8 else 0
            # Results from a step to eight times the range.
            typical = LARGEST_INPUT * np.sqrt((w.astype(np.float64) ** 2).sum(axis=1)) + np.abs(bias) + 1
            ratios = 2.0 ** rng.uniform(0, bits + 2, n) / typical
            mult, shift = proven_multipliers(w, bias, ratios, bits, zero_point)
            constants = (w.astype(np.int16), bias, mult, shift, np.array([zero_point], np.int32))
            yield Case((sample_wide(rng, (m, k), 16), *constants), {"y": bits})


def reach_of(w: npt.NDArray[Any], bias: Int64) -> list[int]:
    """Largest magnitude of the accumulator of every channel, whatever x is.

    Args:
        w: weights, whole numbers [N, K].
        bias: int64 [N].
    """
    sums = np.abs(w.astype(np.int64)).sum(axis=1)
    return [LARGEST_INPUT * int(s) + abs(int(b)) for s, b in zip(sums, bias, strict=True)]


def proven_multipliers(
    w: npt.NDArray[Any], bias: Int64, ratios: npt.NDArray[np.float64], bits: int, zero_point: int
) -> tuple[Int32, npt.NDArray[np.uint8]]:
    """mult int32 [N] and shift uint8 [N] of `linear_s16`.

    Args:
        w: weights, whole numbers [N, K].
        bias: int64 [N].
        ratios: what a step of each accumulator is in steps of y, float64 [N].
        bits: of y.
        zero_point: of y.

    Raises:
        ValueError: see `proven_multiplier`.
    """
    pairs = [
        proven_multiplier(reach, float(ratio), bits, zero_point)
        for reach, ratio in zip(reach_of(w, bias), ratios, strict=True)
    ]
    return np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.uint8)


def proven_multiplier(reach: int, ratio: float, bits: int, zero_point: int) -> tuple[int, int]:
    """(M, r) with M / 2^r the nearest to `ratio` that leaves no sum outside 64 bits for accumulators up to `reach`.

    Raises:
        ValueError: a ratio that is no positive number, or an M of so few bits that it would cost more than
            `NARROW_ERROR` of the last place.
    """
    if not (math.isfinite(ratio) and ratio > 0):
        raise ValueError(f"requantization ratio {ratio} is not a positive number")
    for shift in range(MOST_SHIFT, 0, -1):
        mult = round(ratio * 2.0**shift)
        if mult < LARGEST_MULTIPLIER and largest_sum(reach, mult, shift, zero_point) < 2**63:
            break
    else:
        raise ValueError(f"an accumulator of up to {reach:.3g} times {ratio:.3g} does not fit 64 bits")
    matters = min(float(reach), (2.0 ** (bits - 1) + abs(zero_point)) / ratio)  # larger ones saturate
    if matters * abs(mult / 2.0**shift - ratio) > NARROW_ERROR:
        raise ValueError(
            f"an accumulator of up to {reach:.3g} leaves its multiplier {mult.bit_length()} bits, too few for int{bits}"
        )
    return mult, shift


def largest_sum(reach: int, mult: int, shift: int, zero_point: int) -> int:
    """Largest magnitude of `acc * mult + half`, with the zero point in the same place."""
    return reach * mult + (1 << (shift - 1)) + (abs(zero_point) << shift)
