# SPDX-License-Identifier: Apache-2.0
"""Between a ring's rows as they lie and in the order of time: what has to have an order gets a copy in it.

The cursor is the newest row, counted modulo the rows; the oldest lies behind it. The int16 forms, and the one of
`ring_write_s8`, are the same with wider elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import Orders, ReadOrder, RowAccess, Rows
from edgec.operators.elementwise import sample_int8
from edgec.operators.int16 import sample_wide
from edgec.operators.record import Access, Array, Case, TensorType, operator
from edgec.operators.ring import RingWriteS8, cursor_order, drawn_cursor

_MOST_ROWS = 2**16


@operator("ring_read_s8", inputs=("ring", "cursor"), access=Access.WHOLE)
class RingReadS8:
    """ring int8 [S, L, C], cursor int32 [1] -> y int8 [S, rows, C]: the newest `rows` of each stream, oldest first."""

    @staticmethod
    def infer(types: Sequence[TensorType], rows: int) -> TensorType:
        streams, length, channels = types[0].shape
        if types[1] != TensorType((1,), "int32") or not 0 < rows <= length <= _MOST_ROWS:
            raise ValueError(f"ring_read_s8: {rows} rows of a ring {types[0].shape}, cursor {types[1]}")
        return TensorType((streams, rows, channels), types[0].dtype)

    @staticmethod
    def reference(ring: Array, cursor: Array, rows: int) -> Array:
        found: Array = ring[:, (int(cursor[0]) - np.arange(rows - 1, -1, -1)) % ring.shape[1]]
        return found

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, rows: int) -> Any:
        (S, L, C), R, X = types[0].shape, int(rows), out.dtype

        @T.prim_func(private=True, s_tir=True)
        def ring_read_s8(ring: T.Buffer((S, L, C), X), cursor: T.Buffer((1,), "int32"), y: T.Buffer((S, R, C), X)):
            row = T.alloc_buffer((1,), "int32")
            oldest = T.alloc_buffer((1,), "int32")
            oldest[0] = T.truncmod(cursor[0], T.int32(L)) - T.int32(R - 1)
            for s in range(S):
                for r in range(R):
                    row[0] = T.truncmod(oldest[0] + T.int32(r), T.int32(L))
                    if row[0] < T.int32(0):
                        row[0] = row[0] + T.int32(L)
                    for c in range(C):
                        y[s, r, c] = ring[s, row[0], c]

        return ring_read_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], rows: int) -> Rows:
        _, length, channels = types[0].shape
        return (RowAccess(rows * channels, length * channels), None)

    @staticmethod
    def read_order(types: Sequence[TensorType], rows: int) -> Orders:
        return _any_row(types, rows)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            shape = _drawn_shape(rng)
            cursor = drawn_cursor(rng, shape[1])
            yield Case((sample_int8(rng, shape), cursor), {"rows": int(rng.integers(1, shape[1] + 1))})


@operator("ring_rotate_s8", inputs=("x", "cursor"), access=Access.WHOLE)
class RingRotateS8:
    """x int8 [S, L, C] oldest first, cursor int32 [1] -> y int8 [S, L, C]: where a ring has the same rows.

    `y[s, (cursor + 1 + j) mod L] = x[s, j]`.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        if types[1] != TensorType((1,), "int32") or not 0 < types[0].shape[1] <= _MOST_ROWS:
            raise ValueError(f"ring_rotate_s8: x {types[0].shape}, cursor {types[1]}")
        return types[0]

    @staticmethod
    def reference(x: Array, cursor: Array) -> Array:
        return np.roll(x, (int(cursor[0]) + 1) % x.shape[1], axis=1)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        (S, L, C), X = out.shape, out.dtype

        @T.prim_func(private=True, s_tir=True)
        def ring_rotate_s8(x: T.Buffer((S, L, C), X), cursor: T.Buffer((1,), "int32"), y: T.Buffer((S, L, C), X)):
            row = T.alloc_buffer((1,), "int32")
            first = T.alloc_buffer((1,), "int32")
            first[0] = T.int32(-1) - T.truncmod(cursor[0], T.int32(L))
            for s in range(S):
                for r in range(L):
                    row[0] = T.truncmod(first[0] + T.int32(r), T.int32(L))
                    if row[0] < T.int32(0):
                        row[0] = row[0] + T.int32(L)
                    for c in range(C):
                        y[s, r, c] = x[s, row[0], c]

        return ring_rotate_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType]) -> Rows:
        _, length, channels = types[0].shape
        return (RowAccess(length * channels, length * channels), None)

    @staticmethod
    def read_order(types: Sequence[TensorType]) -> Orders:
        return _any_row(types, types[0].shape[1])

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            shape = _drawn_shape(rng)
            yield Case((sample_int8(rng, shape), drawn_cursor(rng, shape[1])))


@operator("ring_write_s16", inputs=("ring", "x", "cursor"), access=Access.IN_ROWS)
class RingWriteS16:
    """ring int16 [S, L, C], x int16 [S, C], cursor int32 [1] -> y int16 [S, L, C]: as `ring_write_s8`."""

    infer = staticmethod(RingWriteS8.infer)
    reference = staticmethod(RingWriteS8.reference)
    tir = staticmethod(RingWriteS8.tir)
    rows_read = staticmethod(RingWriteS8.rows_read)
    read_order = staticmethod(RingWriteS8.read_order)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        return _widened(rng, RingWriteS8.samples(rng))


@operator("ring_read_s16", inputs=("ring", "cursor"), access=Access.WHOLE)
class RingReadS16:
    """ring int16 [S, L, C], cursor int32 [1] -> y int16 [S, rows, C]: as `ring_read_s8`."""

    infer = staticmethod(RingReadS8.infer)
    reference = staticmethod(RingReadS8.reference)
    tir = staticmethod(RingReadS8.tir)
    rows_read = staticmethod(RingReadS8.rows_read)
    read_order = staticmethod(RingReadS8.read_order)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        return _widened(rng, RingReadS8.samples(rng))


@operator("ring_rotate_s16", inputs=("x", "cursor"), access=Access.WHOLE)
class RingRotateS16:
    """x int16 [S, L, C], cursor int32 [1] -> y int16 [S, L, C]: as `ring_rotate_s8`."""

    infer = staticmethod(RingRotateS8.infer)
    reference = staticmethod(RingRotateS8.reference)
    tir = staticmethod(RingRotateS8.tir)
    rows_read = staticmethod(RingRotateS8.rows_read)
    read_order = staticmethod(RingRotateS8.read_order)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        return _widened(rng, RingRotateS8.samples(rng))


def _any_row(types: Sequence[TensorType], rows: int) -> Orders:
    """Any row of a stream may be the one that an output row is a copy of."""
    streams, length, channels = types[0].shape
    first = np.arange(streams, dtype=np.int64)[:, None, None] * (length * channels) + np.arange(channels)
    elements = np.broadcast_to(first, (streams, rows, channels)).ravel()
    return (ReadOrder(elements), cursor_order(elements.size, 1))


def _drawn_shape(rng: np.random.Generator) -> tuple[int, int, int]:
    streams, rows, channels = (int(v) for v in rng.integers(1, (4, 9, 12)))
    return streams, rows, channels


def _widened(rng: np.random.Generator, cases: Iterator[Case]) -> Iterator[Case]:
    """Cases with int16 in place of their int8."""
    for case in cases:
        yield Case(tuple(sample_wide(rng, a.shape, 16) if a.dtype == np.int8 else a for a in case.inputs), case.attrs)
