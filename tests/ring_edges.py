# SPDX-License-Identifier: Apache-2.0
"""Rings at the ends of what they take: one row, cursors that are any number, extreme sums."""

from __future__ import annotations

import numpy as np

from edgec.operators import Case

LARGEST_MULT, LARGEST_SHIFT = 2**30 - 1, 30
CURSORS = (0, -1, 2**31 - 1, -(2**31))


def _int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def _int8(shape: tuple[int, ...], *values: int) -> np.ndarray:
    return np.resize(np.array(values, np.int8), shape)


def cursor_edges() -> list[Case]:
    ends = _int32(*CURSORS)
    return [Case((ends,), {"rows": rows, "step": step}) for rows, step in ((1, 1), (7, 1), (7, 7), (2**16, 2**16))]


def write_edges() -> list[Case]:
    shapes = [(1, 1, 1), (1, 3, 1), (2, 5, 17), (4, 1, 40)]
    return [
        Case((_int8(shape, -128, 127, 3), _int8((shape[0], shape[2]), 127, -5), _int32(cursor)), {})
        for shape in shapes
        for cursor in CURSORS
    ]


def read_edges() -> list[Case]:
    shapes = [((1, 1, 1), 1), ((1, 3, 1), 2), ((2, 5, 17), 5), ((4, 1, 40), 1), ((1, 200, 3), 199)]
    return [
        Case((_int8(shape, -128, 127, 3), _int32(cursor)), {"rows": rows})
        for shape, rows in shapes
        for cursor in CURSORS
    ]


def rotate_edges() -> list[Case]:
    shapes = [(1, 1, 1), (1, 3, 1), (2, 5, 17), (4, 1, 40), (1, 200, 3)]
    return [Case((_int8(shape, -128, 127, 3), _int32(cursor)), {}) for shape in shapes for cursor in CURSORS]


def wide(cases: list[Case]) -> list[Case]:
    """The same with int16 for int8."""
    ends = (-(2**15), 2**15 - 1, 1)
    return [
        Case(
            tuple(np.resize(np.array(ends, np.int16), a.shape) if a.dtype == np.int8 else a for a in case.inputs),
            case.attrs,
        )
        for case in cases
    ]


def _extremes(shape: tuple[int, ...]) -> np.ndarray:
    return _int8(shape, -128, 127, 1, -1, 0)


def _weights(shape: tuple[int, ...]) -> np.ndarray:
    return _int8(shape, -127, 127, 3)


def _constants(n: int, mult: int, shift: int, bias: int, zero_point: int) -> list[np.ndarray]:
    vectors = [np.full(n, v, t) for v, t in ((bias, np.int32), (mult, np.int32), (shift, np.uint8))]
    return [*vectors, _int32(zero_point)]


_REQUANTIZE = [(LARGEST_MULT, 0, 0, 127), (2**20, 0, -(2**20), -128), (2**22, 1, 2**20, 3), (2**29, 31, 5, 0)]


def conv_edges() -> list[Case]:
    shapes = [((1, 1, 1), 1, 1, 1), ((2, 5, 4), 3, 5, 1), ((1, 7, 3), 4, 3, 3), ((3, 8, 16), 5, 2, 7)]
    return [
        Case(
            (_extremes(ring), _int32(cursor), _weights((n, taps, ring[2])), *_constants(n, *how)),
            {"dilation": dilation, "wide": int(how[1] == 31)},
        )
        for cursor, how in zip(CURSORS, _REQUANTIZE, strict=True)
        for ring, n, taps, dilation in shapes
    ]


def depthwise_edges() -> list[Case]:
    shapes = [((1, 1, 1), 1, 1), ((2, 5, 4), 5, 1), ((1, 7, 8), 3, 3), ((3, 26, 12), 26, 1)]
    return [
        Case(
            (_extremes(ring), _int32(cursor), _weights((taps, ring[2])), *_constants(ring[2], *how)),
            {"dilation": dilation, "wide": int(how[1] == 31)},
        )
        for cursor, how in zip(CURSORS, _REQUANTIZE, strict=True)
        for ring, taps, dilation in shapes
    ]


EDGES = {
    "ring_cursor_s32": cursor_edges,
    "ring_write_s8": write_edges,
    "ring_read_s8": read_edges,
    "ring_rotate_s8": rotate_edges,
    "ring_write_s16": lambda: wide(write_edges()),
    "ring_read_s16": lambda: wide(read_edges()),
    "ring_rotate_s16": lambda: wide(rotate_edges()),
    "causal_conv1d_s8": conv_edges,
    "causal_depthwise_s8": depthwise_edges,
}
