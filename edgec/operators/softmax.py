# SPDX-License-Identifier: Apache-2.0
"""Softmax over the last axis in integers: a table of exponentials, an exact sum, one reciprocal, one rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.access import RowAccess, Rows
from edgec.operators.integer import Int8, sat8
from edgec.operators.record import Access, Case, TensorType, operator

LONGEST_ROW = 32767  # the sum of exponentials stays below 2^31


def exponentials(scale: float) -> npt.NDArray[np.uint16]:
    """uint16 [256]: entry d is `65535 * exp(-d * scale)`, for an input d steps of `scale` below its row's largest."""
    table: npt.NDArray[np.uint16] = np.rint(65535.0 * np.exp(-np.arange(256) * scale)).astype(np.uint16)
    return table


@operator(
    "softmax_s8",
    inputs=("x", "table"),
    constants=("table",),
    access=Access.IN_ROWS,
)
class SoftmaxS8:
    """x int8 [R, N], table uint16 [256] -> y int8 [R, N] of scale 1/256, zero_point -128.

    With E = table[max(x) - x] and S = sum(E): `y = sat8(((E * floor(2^40 / S) + 2^31) >> 32) - 128)`.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        if types[0].shape[1] > LONGEST_ROW:
            raise ValueError(f"softmax_s8: rows of {types[0].shape[1]} elements, at most {LONGEST_ROW}")
        return TensorType(types[0].shape, "int8")

    @staticmethod
    def reference(x: Int8, table: npt.NDArray[np.uint16]) -> Int8:
        wide = x.astype(np.int64)
        e = table.astype(np.int64)[wide.max(axis=1, keepdims=True) - wide]
        reciprocal = 2**40 // e.sum(axis=1, keepdims=True)
        return sat8(((e * reciprocal + 2**31) >> 32) - 128)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        R, N = out.shape

        @T.prim_func(private=True, s_tir=True)
        def softmax_s8(
            x: T.Buffer((R, N), "int8"),
            table: T.Buffer((256,), "uint16"),
            y: T.Buffer((R, N), "int8"),
        ):
            for r in range(R):
                largest = T.alloc_buffer((1,), "int32")
                total = T.alloc_buffer((1,), "int32")
                reciprocal = T.alloc_buffer((1,), "int64")
                largest[0] = T.int32(-128)
                for n in range(N):
                    largest[0] = T.max(largest[0], T.Cast("int32", x[r, n]))
                total[0] = T.int32(0)
                for n in range(N):
                    total[0] = total[0] + T.Cast("int32", table[largest[0] - T.Cast("int32", x[r, n])])
                reciprocal[0] = T.truncdiv(T.int64(2**40), T.Cast("int64", total[0]))
                for n in range(N):
                    y[r, n] = T.Cast(
                        "int8",
                        T.min(
                            T.Cast(
                                "int32",
                                (
                                    T.Cast("int64", table[largest[0] - T.Cast("int32", x[r, n])]) * reciprocal[0]
                                    + T.int64(2**31)
                                )
                                >> T.int64(32),
                            ),
                            T.int32(255),
                        )
                        - T.int32(128),
                    )

        return softmax_s8

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            r, n = int(rng.integers(1, 6)), int(rng.integers(1, 70))
            x = rng.choice([-128, 127], (r, n)) if rng.random() < 0.3 else rng.integers(-128, 128, (r, n))
            yield Case((x.astype(np.int8), exponentials(float(10.0 ** rng.uniform(-4, 1)))))


@operator("masked_softmax_s8", inputs=("x", "mask", "table"), constants=("mask", "table"), access=Access.IN_ROWS)
class MaskedSoftmaxS8:
    """x int8 [R, N], mask int8 [M, N], table uint16 [256] -> y int8 [R, N]: `softmax_s8` of what the mask leaves.

    Row r takes row r % M of the mask. Where that is 0 the element does not count and its result is 0.0 (-128); so
    is a whole row of them.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        (rows, width), mask = types[0].shape, types[1].shape
        if rows % mask[0] or width != mask[1]:
            raise ValueError(f"masked_softmax_s8: a mask {mask} for {types[0].shape}")
        if width > LONGEST_ROW:
            raise ValueError(f"masked_softmax_s8: rows of {width} elements, at most {LONGEST_ROW}")
        return types[0]

    @staticmethod
    def reference(x: Int8, mask: Int8, table: npt.NDArray[np.uint16]) -> Int8:
        kept = np.resize(mask != 0, x.shape)
        wide = x.astype(np.int64)
        largest = np.where(kept, wide, -128).max(axis=1, keepdims=True)
        e = np.where(kept, table.astype(np.int64)[np.maximum(largest - wide, 0)], 0)
        reciprocal = 2**40 // np.maximum(e.sum(axis=1, keepdims=True), 1)
        return sat8(((e * reciprocal + 2**31) >> 32) - 128)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        (R, N), M = out.shape, types[1].shape[0]

        @T.prim_func(private=True, s_tir=True)
        def masked_softmax_s8(
            x: T.Buffer((R, N), "int8"),
            mask: T.Buffer((M, N), "int8"),
            table: T.Buffer((256,), "uint16"),
            y: T.Buffer((R, N), "int8"),
        ):
            for r in range(R):
                largest = T.alloc_buffer((1,), "int32")
                total = T.alloc_buffer((1,), "int32")
                reciprocal = T.alloc_buffer((1,), "int64")
                largest[0] = T.int32(-128)
                for n in range(N):
                    if mask[r % M, n] != T.int8(0):
                        largest[0] = T.max(largest[0], T.Cast("int32", x[r, n]))
                total[0] = T.int32(0)
                for n in range(N):
                    if mask[r % M, n] != T.int8(0):
                        total[0] = total[0] + T.Cast("int32", table[largest[0] - T.Cast("int32", x[r, n])])
                reciprocal[0] = T.truncdiv(T.int64(2**40), T.Cast("int64", T.max(total[0], T.int32(1))))
                for n in range(N):
                    if mask[r % M, n] != T.int8(0):
                        y[r, n] = T.Cast(
                            "int8",
                            T.min(
                                T.Cast(
                                    "int32",
                                    (
                                        T.Cast("int64", table[largest[0] - T.Cast("int32", x[r, n])]) * reciprocal[0]
                                        + T.int64(2**31)
                                    )
                                    >> T.int64(32),
                                ),
                                T.int32(255),
                            )
                            - T.int32(128),
                        )
                    else:
                        y[r, n] = T.int8(-128)

        return masked_softmax_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType]) -> Rows:
        mask = types[1].shape[0] * types[1].shape[1]
        return (RowAccess(mask, mask), None, None)  # rows that begin where the mask begins again

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        for case in SoftmaxS8.samples(rng):
            x, table = case.inputs
            rows = int(rng.choice([m for m in range(1, len(x) + 1) if len(x) % m == 0]))
            mask = rng.random((rows, x.shape[1])) < rng.choice([0.1, 0.7])
            yield Case((x, mask.astype(np.int8), table))
