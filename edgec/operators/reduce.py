# SPDX-License-Identifier: Apache-2.0
"""Sums along an axis in integers: exact, with one requantization of each result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import Orders, ReadOrder, RowAccess, Rows, by_row
from edgec.operators.integer import Int8, Int32, Int64, multipliers, requantize, tir_requantize
from edgec.operators.record import Access, Case, TensorType, operator

LONGEST_SUM = 2**23  # terms of at most 255 in an int32


def plane_rows(shape: tuple[int, ...]) -> RowAccess:
    """Rows of an input [O, R, I] that is reduced to [O, I]."""
    _, terms, inner = shape
    return RowAccess(inner, terms * inner)


def along_terms(shape: tuple[int, ...]) -> ReadOrder:
    """Element (o, i) of the result reads (o, 0, i), (o, 1, i), ... of an input [O, R, I]."""
    outer, terms, inner = shape
    return ReadOrder((np.arange(outer)[:, None] * terms * inner + np.arange(inner)).ravel())


@operator(
    "mean_s8",
    inputs=("x", "params"),
    constants=("params",),
    parameters=("x_zero_point", "mult", "shift", "zero_point"),
    access=Access.WHOLE,
)
class MeanS8:
    """x int8 [O, R, I] -> y int8 [O, I]: `y = requantize(sum over R of (x - zx))`, 1/R within the multiplier.

    With a multiplier that leaves 1/R out it is a sum (ReduceSum).
    """

    @staticmethod
    def infer(types: Sequence[TensorType], wide: int = 0) -> TensorType:
        outer, terms, inner = types[0].shape
        if terms > LONGEST_SUM:
            raise ValueError(f"mean_s8: {terms} terms, at most {LONGEST_SUM}")
        return TensorType((outer, inner), "int8")

    @staticmethod
    def reference(x: Int8, params: Int32, wide: int = 0) -> Int8:
        zx, mult, shift, zero_point = (int(v) for v in params)
        return requantize((x.astype(np.int64) - zx).sum(axis=1), mult, shift, zero_point, bool(wide))

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, wide: int = 0) -> Any:
        O, R, I = types[0].shape
        X = types[0].dtype

        @T.prim_func(private=True, s_tir=True)
        def mean_s8(x: T.Buffer((O, R, I), X), params: T.Buffer((4,), "int32"), y: T.Buffer((O, I), "int8")):
            for o in range(O):
                for i in range(I):
                    acc = T.alloc_buffer((1,), "int32")
                    acc[0] = T.int32(0)
                    for r in range(R):
                        acc[0] = acc[0] + T.Cast("int32", x[o, r, i]) - params[0]
                    y[o, i] = tir_requantize(T, acc[0], params[1], params[2], params[3], bool(wide))

        return mean_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], wide: int = 0) -> Rows:
        return (plane_rows(types[0].shape), None)

    @staticmethod
    def read_order(types: Sequence[TensorType], wide: int = 0) -> Orders:
        return (along_terms(types[0].shape), None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            shape = tuple(int(v) for v in rng.integers(1, 12, 3))
            x = rng.choice([-128, 127], shape) if rng.random() < 0.2 else rng.integers(-128, 128, shape)
            wide = int(rng.random() < 0.2)
            mult, shift = multipliers(10.0 ** (rng.uniform(-12, -6) if wide else rng.uniform(-5, 0.5)), bool(wide))
            zx, zy = (int(v) for v in rng.integers(-128, 128, 2))
            yield Case((x.astype(np.int8), np.array([zx, mult[0], shift[0], zy], np.int32)), {"wide": wide})


@operator(
    "cumsum_s8",
    inputs=("x", "params"),
    constants=("params",),
    parameters=("x_zero_point", "mult", "shift", "zero_point"),
    access=Access.WHOLE,
)
class CumSumS8:
    """x int8 [O, R, I] -> y int8 [O, R, I]: `y[r] = requantize(sum over 0..r of (x - zx))`.

    `exclusive` leaves x[r] itself out of y[r]; `reverse` sums from the end.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], exclusive: int = 0, reverse: int = 0, wide: int = 0) -> TensorType:
        if types[0].shape[1] > LONGEST_SUM:
            raise ValueError(f"cumsum_s8: {types[0].shape[1]} terms, at most {LONGEST_SUM}")
        return types[0]

    @staticmethod
    def reference(x: Int8, params: Int32, exclusive: int = 0, reverse: int = 0, wide: int = 0) -> Int8:
        zx, mult, shift, zero_point = (int(v) for v in params)
        terms = x.astype(np.int64) - zx
        if reverse:
            terms = terms[:, ::-1]
        sums: Int64 = terms.cumsum(axis=1, dtype=np.int64) - (terms if exclusive else np.int64(0))
        if reverse:
            sums = sums[:, ::-1]
        return requantize(sums, mult, shift, zero_point, bool(wide))

    @staticmethod
    def tir(
        T: Any,
        types: Sequence[TensorType],
        out: TensorType,
        exclusive: int = 0,
        reverse: int = 0,
        wide: int = 0,
    ) -> Any:
        O, R, I = types[0].shape
        first, step = (R - 1, -1) if reverse else (0, 1)
        before, after = not exclusive, bool(exclusive)  # when x[r] is added

        @T.prim_func(private=True, s_tir=True)
        def cumsum_s8(x: T.Buffer((O, R, I), "int8"), params: T.Buffer((4,), "int32"), y: T.Buffer((O, R, I), "int8")):
            for o in range(O):
                for i in range(I):
                    acc = T.alloc_buffer((1,), "int32")
                    acc[0] = T.int32(0)
                    for r in range(R):
                        if before:
                            acc[0] = acc[0] + T.Cast("int32", x[o, first + r * step, i]) - params[0]
                        y[o, first + r * step, i] = tir_requantize(
                            T, acc[0], params[1], params[2], params[3], bool(wide)
                        )
                        if after:
                            acc[0] = acc[0] + T.Cast("int32", x[o, first + r * step, i]) - params[0]

        return cumsum_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], exclusive: int = 0, reverse: int = 0, wide: int = 0) -> Rows:
        (_, terms, inner) = types[0].shape
        return (RowAccess(terms * inner, terms * inner), None)

    @staticmethod
    def read_order(types: Sequence[TensorType], exclusive: int = 0, reverse: int = 0, wide: int = 0) -> Orders:
        (outer, terms, inner) = types[0].shape
        return (by_row(outer, terms * inner, terms * inner, "after"), None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        for case in MeanS8.samples(rng):
            exclusive, reverse = (int(v) for v in rng.integers(0, 2, 2))
            yield Case(case.inputs, {**case.attrs, "exclusive": exclusive, "reverse": reverse})
