# SPDX-License-Identifier: Apache-2.0
"""Cases at the ends of what the int16 operators take."""

from __future__ import annotations

import numpy as np

from edgec.operators import Case
from edgec.operators.int16 import add_params, requantize_params
from edgec.operators.layer_norm16 import constants as layer_norm_constants
from edgec.operators.linear16 import proven_multipliers
from edgec.operators.product16 import mul_params

BITS = {np.dtype(np.int8): 8, np.dtype(np.int16): 16}


def _int16(*values: object) -> np.ndarray:
    return np.array(values, np.int16)


def _int8(*values: object) -> np.ndarray:
    return np.array(values, np.int8)


def add_edges() -> list[Case]:
    wide, narrow = _int16(-(2**15), 2**15 - 1, 0, 1, -1), _int8(-128, 127, 0, 1)
    cases = []
    for a, b, y, ratio in [
        (wide, wide, 16, 1.0),
        (wide, narrow, 16, 256.0),
        (narrow, wide, 16, 2.0**12),
        (narrow, narrow, 16, 128.0),
        (wide, wide, 8, 2.0**-8),
        (wide, narrow, 8, 2.0**-16),
        (wide, wide, 16, 0.5),  # halves exactly, of both signs
    ]:
        for (rows, width), small in (((5, 9), (5, 9)), ((4, 9), (4, 1)), ((4, 9), (1, 9)), ((1, 1), (1, 1))):
            zeros = [(-128 if q.dtype == np.int8 else 0) for q in (a, b)]
            params = add_params(
                (ratio, zeros[0]), (ratio, zeros[1]), (1.0, 127 if y == 8 else 0), -1 if rows == 5 else 1
            )
            attrs = {"a": BITS[a.dtype], "b": BITS[b.dtype], "y": y}
            cases.append(Case((np.resize(a, (rows, width)), np.resize(b, small), params), attrs))
    return cases


def requantize_edges() -> list[Case]:
    wide, narrow = np.arange(-(2**15), 2**15, 7).astype(np.int16), np.arange(-128, 128, dtype=np.int8)
    return [
        Case((wide, requantize_params((1.0, 0), (256.0, 127), 8)), {"x": 16, "y": 8}),
        Case((wide, requantize_params((1.0, 0), (2.0, 0), 16)), {"x": 16, "y": 16}),  # halves exactly
        Case((wide, requantize_params((1.0, 0), (1.0, 0), 16, (0, 2**15 - 1))), {"x": 16, "y": 16}),  # Relu
        Case((narrow, requantize_params((1.0, -128), (2.0**-7, 0), 16)), {"x": 8, "y": 16}),
        Case((narrow, requantize_params((2.0**12, 127), (1.0, 0), 16)), {"x": 8, "y": 16}),
        Case((_int16(-(2**15)), requantize_params((1.0, 0), (2.0**17, -128), 8)), {"x": 16, "y": 8}),
    ]


def layer_norm_edges() -> list[Case]:
    def case(x: np.ndarray, gamma: float, source: float, result: tuple[float, int], epsilon: float = 1e-5) -> Case:
        signs = np.where(np.arange(x.shape[1]) % 3, 1.0, -1.0)
        return Case((x.astype(np.int16), *layer_norm_constants(gamma * signs, signs, epsilon, source, result)))

    low, high = -(2**15), 2**15 - 1
    outlier = np.full((2, 1024), low)
    outlier[0, 3] = high
    outlier[1, :-1] = high
    widest = np.resize([low, high], (1, 8192))
    return [
        case(np.array([[low]]), 1.0, 1e-4, (0.05, 0)),
        case(np.array([[0, 1], [high, low], [4, 4]]), 1.0, 1e-6, (0.01, 3)),
        case(np.full((4, 33), [[low], [high], [0], [1]]), 1.0, 1e-3, (0.03, 127)),
        case(outlier, 1.0, 1e-3, (0.3, 0)),
        case(widest, 1.0, 1e-3, (0.03, -5)),
        case(np.resize([-1, 0, 0], (2, 96)), 1.0, 1e-6, (0.02, 0)),  # epsilon outweighs the variance
        case(np.resize([5, 9, -7], (1, 64)), 1.0, 1e-6, (0.05, 0), 1e-3),  # and needs more than 31 bits
        case(np.resize([5, 9, -7], (1, 64)), 1.0, 1.0, (0.05, 0), 1e-12),  # none to speak of
    ]


def mean_edges() -> list[Case]:
    def case(shape: tuple[int, int, int], value: int, *params: int, wide: int = 0) -> Case:
        return Case((np.full(shape, value, np.int16), np.array(params, np.int32)), {"wide": wide})

    return [
        case((1, 1, 1), -(2**15), 0, 2**29, 2, 0),
        case((1, 2**15, 2), 2**15 - 1, 0, 2**20, 0, -128),
        case((2, 3000, 1), -(2**15), 0, 2**29, 31, 127, wide=1),
        case((3, 1, 4), 2, 0, 2**29, 0, 0),  # a half exactly
    ]


def copy_edges() -> list[Case]:
    x = np.arange(-128, 128).astype(np.int16) * 251

    def case(offset: int, shape: list[int], strides: list[int]) -> Case:
        return Case((x,), {"offset": offset, "shape": shape, "strides": strides})

    return [case(0, [1], [0]), case(255, [256], [-1]), case(200, [5, 7], [-30, 2])]


def concat_edges() -> list[Case]:
    a = np.resize(_int16(-(2**15), 2**15 - 1, 3), (3, 5))
    return [Case((a, a[:, :1].copy())), Case((a[:1], a[:1, :2].copy()))]


def linear(m: int, w: object, ratio: float, y: int = 16, zero: int = 0, bias: object = 0) -> Case:
    """A layer of x at the ends of its range."""
    weights = np.array(w, np.int16)
    n, k = weights.shape
    x = np.resize(_int16(-(2**15), 2**15 - 1, 1, -1, 0), (m, k))
    offset = np.broadcast_to(np.asarray(bias, np.int64), (n,)).copy()
    constants = proven_multipliers(weights, offset, np.full(n, ratio), y, zero)
    return Case((x, weights, offset, *constants, np.array([zero], np.int32)), {"y": y})


def linear_edges() -> list[Case]:
    high = 2**15 - 1
    wave = np.resize([high, -high, 7, 0], (3, 65))
    return [
        linear(1, [[high]], 2.0**-15),
        linear(1, np.full((64, 64), -high), 2.0**-21),
        linear(3, wave, 2.0**-18, 8, -128),
        linear(2, np.resize([high, -high], (5, 512)), 2.0**-24, 8, 127),
        linear(2, np.full((2, 2000), high), 2.0**-26),
        linear(2, np.full((2, 9), -high), 1e-15),  # nothing but zeros
        linear(5, [[1], [2], [-1]], 0.5, bias=[0, 1, -1]),  # halves exactly, of both signs
        linear(5, [[1], [3]], 2.0**13),  # far beyond the range
        linear(2, np.zeros((3, 4)), 2.0**-20, bias=[-(2**50), 2**50, 2**20]),  # a bias alone
        linear(2, np.resize([3, -2], (7, 7)), 0.3, 8, 5, bias=2**17),
        linear(4, np.resize([high, 1, -high], (2, 8)), 2.0**-16, bias=-(2**40)),
    ]


def mul_edges() -> list[Case]:
    wide, narrow = _int16(-(2**15), 2**15 - 1, 0, 1, -1), _int8(-128, 127, 0, 1)
    cases = []
    for a, b, y, ratio in [
        (wide, wide, 16, 2.0**-15),
        (wide, wide, 16, 1.0),  # far beyond the range
        (wide, narrow, 16, 2.0**-8),
        (narrow, wide, 16, 2.0**-8),
        (narrow, narrow, 16, 0.5),  # halves exactly, of both signs
        (wide, wide, 8, 2.0**-23),
        (narrow, wide, 8, 2.0**-16),
        (wide, wide, 16, 2.0**-50),
    ]:
        for (rows, width), small in (((5, 9), (5, 9)), ((4, 9), (4, 1)), ((4, 9), (1, 9)), ((1, 1), (1, 1))):
            zeros = [(-128 if q.dtype == np.int8 else 0) for q in (a, b)]
            params = mul_params((ratio, zeros[0]), (1.0, zeros[1]), (1.0, 127 if y == 8 else 0), -1 if rows == 5 else 1)
            attrs = {"a": BITS[a.dtype], "b": BITS[b.dtype], "y": y}
            cases.append(Case((np.resize(a, (rows, width)), np.resize(b, small), params), attrs))
    return cases


EDGES = {
    "add_s16": add_edges,
    "linear_s16": linear_edges,
    "mul_s16": mul_edges,
    "requantize_s16": requantize_edges,
    "layer_norm_s16": layer_norm_edges,
    "mean_s16": mean_edges,
    "strided_copy_s16": copy_edges,
    "concat_s16": concat_edges,
}
