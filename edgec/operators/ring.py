# SPDX-License-Identifier: Apache-2.0
"""Rings of past steps, and convolutions over them: what a causal convolution costs when steps come one by one.

A ring keeps the last steps of one or more streams at fixed places; a cursor tells which is the newest, so nothing is
ever moved. For a step: `ring_cursor_s32` moves the cursor on, `ring_write_s8` replaces the oldest step, and the
convolution reads its taps backwards from the cursor. A ring begins as the zero point of x everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import UNREAD, Orders, ReadOrder, RowAccess, Rows, by_element
from edgec.operators.conv import channel_constants, drawn_weights
from edgec.operators.elementwise import sample_int8
from edgec.operators.integer import Int8, Int32, requantize, tir_requantize
from edgec.operators.record import Access, Array, Case, TensorType, operator

_CONV = ("ring", "cursor", "w", "bias", "mult", "shift", "params")


@operator("ring_cursor_s32", inputs=("cursor",), access=Access.ELEMENTWISE)
class RingCursorS32:
    """cursor int32 [N] -> y int32 [N]: `(cursor + step) mod rows`, at least 0. 0 < step <= rows <= 2^16."""

    @staticmethod
    def infer(types: Sequence[TensorType], rows: int, step: int = 1) -> TensorType:
        if types[0].dtype != "int32" or not 0 < step <= rows <= 2**16:
            raise ValueError(f"ring_cursor_s32: step {step} of {rows} rows, cursor of type {types[0].dtype}")
        return types[0]

    @staticmethod
    def reference(cursor: Int32, rows: int, step: int = 1) -> Int32:
        moved: Int32 = ((cursor.astype(np.int64) % rows + step) % rows).astype(np.int32)
        return moved

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, rows: int, step: int = 1) -> Any:
        (N,), L, BY = out.shape, int(rows), int(step)

        @T.prim_func(private=True, s_tir=True)
        def ring_cursor_s32(cursor: T.Buffer((N,), "int32"), y: T.Buffer((N,), "int32")):
            for n in range(N):
                # L more, since the remainder of a negative number is negative.
                y[n] = T.truncmod(T.truncmod(cursor[n], T.int32(L)) + T.int32(L + BY), T.int32(L))

        return ring_cursor_s32

    @staticmethod
    def rows_read(types: Sequence[TensorType], rows: int, step: int = 1) -> Rows:
        return (RowAccess(1, 1),)

    @staticmethod
    def read_order(types: Sequence[TensorType], rows: int, step: int = 1) -> Orders:
        return (by_element(types[0].shape[0]),)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            rows = int(rng.integers(1, 40))
            cursor = rng.integers(-(2**31), 2**31, int(rng.integers(1, 9)))
            if rng.random() < 0.5:
                cursor %= rows
            yield Case((cursor.astype(np.int32),), {"rows": rows, "step": int(rng.integers(1, rows + 1))})


@operator("ring_write_s8", inputs=("ring", "x", "cursor"), access=Access.IN_ROWS)
class RingWriteS8:
    """ring int8 [S, L, C], x int8 [S, C], cursor int32 [1] -> y int8 [S, L, C]: the ring with `y[s, cursor] = x[s]`.

    The cursor counts modulo L. In place of the ring only those rows are written.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        (streams, _, channels), x = types[0].shape, types[1]
        if x != TensorType((streams, channels), types[0].dtype) or types[2] != TensorType((1,), "int32"):
            raise ValueError(f"ring_write_s8: x {x} and cursor {types[2]} do not fit the ring {types[0].shape}")
        return types[0]

    @staticmethod
    def reference(ring: Int8, x: Int8, cursor: Int32) -> Int8:
        written = ring.copy()
        written[:, int(cursor[0]) % ring.shape[1]] = x
        return written

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        (S, L, C), X = out.shape, out.dtype

        @T.prim_func(private=True, s_tir=True)
        def ring_write_s8(
            ring: T.Buffer((S, L, C), X),
            x: T.Buffer((S, C), X),
            cursor: T.Buffer((1,), "int32"),
            y: T.Buffer((S, L, C), X),
        ):
            row = T.alloc_buffer((1,), "int32")
            row[0] = T.truncmod(cursor[0], T.int32(L))
            if row[0] < T.int32(0):
                row[0] = row[0] + T.int32(L)
            for s in range(S):
                for i in range(L):
                    if row[0] == T.int32(i):
                        for c in range(C):
                            y[s, i, c] = x[s, c]
                    else:
                        for c in range(C):
                            y[s, i, c] = ring[s, i, c]

        return ring_write_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType]) -> Rows:
        _, rows, channels = types[0].shape
        return (RowAccess(rows * channels, rows * channels), RowAccess(rows * channels, channels), None)

    @staticmethod
    def read_order(types: Sequence[TensorType]) -> Orders:
        streams, rows, channels = types[0].shape
        size = streams * rows * channels
        # Any row may be the one that is replaced: x is read with the last at the latest.
        row = np.arange(size, dtype=np.int64) // (rows * channels) * channels
        x = ReadOrder(row + np.arange(size, dtype=np.int64) % channels)
        return (by_element(size), x, ReadOrder(np.array([0, UNREAD], np.int64)[np.minimum(np.arange(size), 1)]))

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            streams, rows, channels = (int(v) for v in rng.integers(1, 7, 3))
            ring, x = sample_int8(rng, (streams, rows, channels)), sample_int8(rng, (streams, channels))
            yield Case((ring, x, drawn_cursor(rng, rows)))


@operator("causal_conv1d_s8", inputs=_CONV, constants=_CONV[2:], parameters=("zero_point",), access=Access.WHOLE)
class CausalConv1dS8:
    """ring int8 [S, L, C], cursor int32 [1], w int8 [N, k, C] -> y int8 [S, N]; bias, mult int32 [N], shift uint8 [N].

    Tap j of k reads ring row `(cursor - (k - 1 - j) * dilation) mod L`: the last tap the newest step. The zero point
    of x is folded into the bias. Attributes: dilation, with `(k - 1) * dilation < L`; wide.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], dilation: int = 1, wide: int = 0) -> TensorType:
        n, taps, channels = types[2].shape
        _check("causal_conv1d_s8", types, n, taps, channels, dilation)
        return TensorType((types[0].shape[0], n), "int8")

    @staticmethod
    def reference(
        ring: Int8,
        cursor: Int32,
        w: Int8,
        bias: Int32,
        mult: Int32,
        shift: Array,
        params: Int32,
        dilation: int = 1,
        wide: int = 0,
    ) -> Int8:
        taps = _taps(ring, cursor, w.shape[1], dilation)
        acc = taps.reshape(len(ring), -1) @ w.astype(np.int64).reshape(len(w), -1).T + bias
        return requantize(acc, mult, shift, int(params[0]), bool(wide))

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, dilation: int = 1, wide: int = 0) -> Any:
        (S, L, C), (N, KW, _) = types[0].shape, types[2].shape
        D = int(dilation)

        @T.prim_func(private=True, s_tir=True)
        def causal_conv1d_s8(
            ring: T.Buffer((S, L, C), "int8"),
            cursor: T.Buffer((1,), "int32"),
            w: T.Buffer((N, KW, C), "int8"),
            bias: T.Buffer((N,), "int32"),
            mult: T.Buffer((N,), "int32"),
            shift: T.Buffer((N,), "uint8"),
            params: T.Buffer((1,), "int32"),
            y: T.Buffer((S, N), "int8"),
        ):
            taps = T.alloc_buffer((KW, C), "int8")
            row = T.alloc_buffer((1,), "int32")
            oldest = T.alloc_buffer((1,), "int32")
            oldest[0] = T.truncmod(cursor[0], T.int32(L)) - T.int32((KW - 1) * D)
            for s in range(S):
                for k in range(KW):
                    row[0] = T.truncmod(oldest[0] + T.int32(k * D), T.int32(L))
                    if row[0] < T.int32(0):
                        row[0] = row[0] + T.int32(L)
                    for c in range(C):
                        taps[k, c] = ring[s, row[0], c]
                for n in range(N):
                    acc = T.alloc_buffer((1,), "int32")
                    acc[0] = bias[n]
                    for k in range(KW):
                        for c in range(C):
                            acc[0] = acc[0] + T.Cast("int32", taps[k, c]) * T.Cast("int32", w[n, k, c])
                    y[s, n] = tir_requantize(T, acc[0], mult[n], shift[n], params[0], bool(wide))

        return causal_conv1d_s8

    @staticmethod
    def macs(types: Sequence[TensorType], out: TensorType) -> int:
        return out.shape[0] * int(np.prod(types[2].shape))

    @staticmethod
    def rows_read(types: Sequence[TensorType], dilation: int = 1, wide: int = 0) -> Rows:
        return _rows(types, types[2].shape[0])

    @staticmethod
    def read_order(types: Sequence[TensorType], dilation: int = 1, wide: int = 0) -> Orders:
        streams, rows, channels = types[0].shape
        first = np.arange(streams, dtype=np.int64) * (rows * channels)  # all taps before the first output
        return (ReadOrder(first, types[2].shape[0]), cursor_order(streams, types[2].shape[0]), *(None,) * 5)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            ring, cursor, taps, attrs = _drawn_ring(rng)
            n = int(rng.integers(1, 9))
            vectors, attrs["wide"] = channel_constants(rng, n)
            w = drawn_weights(rng, (n, taps, ring.shape[2]))
            yield Case((ring, cursor, w, *vectors[:3], vectors[3][1:]), attrs)


@operator("causal_depthwise_s8", inputs=_CONV, constants=_CONV[2:], parameters=("zero_point",), access=Access.WHOLE)
class CausalDepthwiseS8:
    """ring int8 [S, L, C], cursor int32 [1], w int8 [k, C] -> y int8 [S, C]; bias, mult int32 [C], shift uint8 [C].

    As `causal_conv1d_s8`, each channel by itself.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], dilation: int = 1, wide: int = 0) -> TensorType:
        taps, channels = types[2].shape
        _check("causal_depthwise_s8", types, channels, taps, channels, dilation)
        return TensorType((types[0].shape[0], channels), "int8")

    @staticmethod
    def reference(
        ring: Int8,
        cursor: Int32,
        w: Int8,
        bias: Int32,
        mult: Int32,
        shift: Array,
        params: Int32,
        dilation: int = 1,
        wide: int = 0,
    ) -> Int8:
        acc = (_taps(ring, cursor, len(w), dilation) * w).sum(axis=1) + bias
        return requantize(acc, mult, shift, int(params[0]), bool(wide))

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, dilation: int = 1, wide: int = 0) -> Any:
        (S, L, C), KW, D = types[0].shape, types[2].shape[0], int(dilation)

        @T.prim_func(private=True, s_tir=True)
        def causal_depthwise_s8(
            ring: T.Buffer((S, L, C), "int8"),
            cursor: T.Buffer((1,), "int32"),
            w: T.Buffer((KW, C), "int8"),
            bias: T.Buffer((C,), "int32"),
            mult: T.Buffer((C,), "int32"),
            shift: T.Buffer((C,), "uint8"),
            params: T.Buffer((1,), "int32"),
            y: T.Buffer((S, C), "int8"),
        ):
            rows = T.alloc_buffer((KW,), "int32")
            oldest = T.alloc_buffer((1,), "int32")
            oldest[0] = T.truncmod(cursor[0], T.int32(L)) - T.int32((KW - 1) * D)
            for k in range(KW):
                rows[k] = T.truncmod(oldest[0] + T.int32(k * D), T.int32(L))
                if rows[k] < T.int32(0):
                    rows[k] = rows[k] + T.int32(L)
            for s in range(S):
                for c in range(C):
                    acc = T.alloc_buffer((1,), "int32")
                    acc[0] = bias[c]
                    for k in range(KW):
                        acc[0] = acc[0] + T.Cast("int32", ring[s, rows[k], c]) * T.Cast("int32", w[k, c])
                    y[s, c] = tir_requantize(T, acc[0], mult[c], shift[c], params[0], bool(wide))

        return causal_depthwise_s8

    @staticmethod
    def macs(types: Sequence[TensorType], out: TensorType) -> int:
        return out.shape[0] * int(np.prod(types[2].shape))

    @staticmethod
    def rows_read(types: Sequence[TensorType], dilation: int = 1, wide: int = 0) -> Rows:
        return _rows(types, types[2].shape[1])

    @staticmethod
    def read_order(types: Sequence[TensorType], dilation: int = 1, wide: int = 0) -> Orders:
        streams, rows, channels = types[0].shape
        first = np.arange(streams, dtype=np.int64)[:, None] * (rows * channels) + np.arange(channels)
        return (ReadOrder(first.ravel()), cursor_order(streams * channels, 1), *(None,) * 5)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            ring, cursor, taps, attrs = _drawn_ring(rng)
            channels = ring.shape[2]
            vectors, attrs["wide"] = channel_constants(rng, channels)
            w = drawn_weights(rng, (taps, channels))
            yield Case((ring, cursor, w, *vectors[:3], vectors[3][1:]), attrs)


def _check(name: str, types: Sequence[TensorType], n: int, taps: int, channels: int, dilation: int) -> None:
    ring, cursor, _, *vectors = types[:6]
    if ring.shape[2] != channels or any(t.shape != (n,) for t in vectors):
        raise ValueError(f"{name}: ring {ring.shape} does not fit w {types[2].shape}")
    if cursor != TensorType((1,), "int32") or dilation < 1 or (taps - 1) * dilation >= ring.shape[1]:
        raise ValueError(f"{name}: {taps} taps {dilation} apart in a ring of {ring.shape[1]} rows, cursor {cursor}")


def _taps(ring: Int8, cursor: Int32, taps: int, dilation: int) -> Array:
    """int64 [S, k, C], the oldest first."""
    back = np.arange(taps - 1, -1, -1) * dilation
    found: Array = ring[:, (int(cursor[0]) - back) % ring.shape[1]].astype(np.int64)
    return found


def _rows(types: Sequence[TensorType], outputs: int) -> Rows:
    _, rows, channels = types[0].shape
    return (RowAccess(outputs, rows * channels), None, *(None,) * 5)


def cursor_order(steps: int, elements: int) -> ReadOrder:
    """The cursor is read with the first output elements."""
    first = np.full(steps, UNREAD, np.int64)
    first[0] = 0
    return ReadOrder(first, elements)


def drawn_cursor(rng: np.random.Generator, rows: int) -> Int32:
    """A place in the ring, or any number."""
    cursor = rng.integers(0, rows, 1) if rng.random() < 0.7 else rng.integers(-(2**31), 2**31, 1)
    return cursor.astype(np.int32)


def _drawn_ring(rng: np.random.Generator) -> tuple[Int8, Int32, int, dict[str, int]]:
    taps, dilation, streams = (int(v) for v in rng.integers(1, (6, 4, 4)))
    rows = (taps - 1) * dilation + 1 + int(rng.choice([0, 0, 1, 3]))
    channels = int(rng.choice([1, 2, 3, 4, 5, 8, 12]))
    ring = sample_int8(rng, (streams, rows, channels))
    return ring, drawn_cursor(rng, rows), taps, {"dilation": dilation}
