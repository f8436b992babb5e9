# SPDX-License-Identifier: Apache-2.0
"""Cases at the ends of what operators take: single elements, extreme values, ties, halves exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgec.operators import Case
from edgec.operators.division import div_params
from edgec.operators.layer_norm import constants as normalization_constants
from edgec.operators.softmax import exponentials

LARGEST_MULT, LARGEST_SHIFT = 2**30 - 1, 30


def _int8(*values: object) -> np.ndarray:
    return np.array(values, np.int8)


def _int32(*values: object) -> np.ndarray:
    return np.array(values, np.int32)


def rms_norm_edges() -> list[Case]:
    def case(x: np.ndarray, gamma: float, result: tuple[float, int], source: float, zero: int) -> Case:
        signs = np.where(np.arange(x.shape[1]) % 3, 1.0, -1.0)
        gain, offset, params = normalization_constants(gamma * signs, 0 * signs, 1e-6, source, result)
        return Case((x.astype(np.int8), gain, offset, np.append(params, np.int32(zero))))

    outlier = np.full((2, 1024), -128)
    outlier[0, 3] = 127
    return [
        case(np.array([[-128]]), 1.0, (0.05, 0), 0.1, 127),
        case(np.array([[7], [127], [-128]]), 2.0, (0.05, -128), 0.001, 7),
        case(np.full((3, 33), [[-128], [127], [0]]), 1.0, (0.03, 127), 0.1, -128),
        case(outlier, 1.0, (0.3, 0), 0.1, -128),
        case(outlier, 1e-6, (1e-8, 0), 10.0, 127),
        case(np.resize([0, 1], (2, 96)), 1.0, (0.02, 0), 1e-3, 0),  # epsilon outweighs the squares
    ]


def div_edges() -> list[Case]:
    a, b = np.resize(_int8(-128, 127, 0, 1, -1), (5, 9)), np.resize(_int8(-128, -127, 127, 0), (5, 9))
    return [
        Case((a, b, div_params((1.0, 127), (1.0, -128), (1.0, 0)))),
        Case((a, b, div_params((1.0, -128), (1e-6, -128), (1.0, -128)))),
        Case((a, b[:1], div_params((1e-6, 0), (1.0, -128), (1.0, 127)))),
        Case((a, b[:, :1].copy(), div_params((0.5, 0), (1.0, -2), (1.0, 0)))),  # halves exactly
        Case((a[:1, :1].copy(), _int8(-128)[None], div_params((1.0, 0), (1.0, 127), (1.0, 0)))),
    ]


def extreme_edges() -> list[Case]:
    a, b = np.resize(_int8(-128, 127, 0), (4, 7)), np.resize(_int8(127, -128, 0, 1), (4, 7))
    small = [b, b[:1], b[:, :1].copy(), b[:1, :1].copy()]
    return [Case((a, part), {"smallest": s}) for part in small for s in (0, 1)]


def select_edges() -> list[Case]:
    a, b = np.arange(-120, 120, dtype=np.int8), np.arange(-120, 120, dtype=np.int8)[::-1].copy()
    masks = [_int8(1), _int8(0), np.resize(_int8(1, 0, -128), 240), _int8(0, 127, 0), _int8(*[0] * 239, -1)]
    return [Case((a, other, mask)) for mask in masks for other in (b, b[:1], b[:16])]


def _lines() -> list[np.ndarray]:
    ramp = np.arange(-128, 128, dtype=np.int8)
    return [ramp[:1].reshape(1, 1, 1), ramp.reshape(1, 256, 1), ramp[::-1].reshape(2, 64, 2).copy(),
            np.full((2, 5, 3), -128, np.int8), np.full((2, 5, 3), 127, np.int8)]  # fmt: skip


def reduce_extreme_edges() -> list[Case]:
    return [Case((x,), {"smallest": s}) for x in _lines() for s in (0, 1)]


def arg_extreme_edges() -> list[Case]:
    return [Case((x,), {"smallest": s, "last": last}) for x in _lines() for s in (0, 1) for last in (0, 1)]


def top_k_edges() -> list[Case]:
    flags = [{"smallest": s, "indices": i} for s in (0, 1) for i in (0, 1)]
    return [Case((x,), {"k": k, **f}) for x in _lines() for k in {1, x.shape[1]} for f in flags]


def cumsum_edges() -> list[Case]:
    cases = []
    for shape, value, params, wide in (
        ((1, 1, 1), -128, (127, LARGEST_MULT, 0, 0), 0),
        ((5, 1, 1), 127, (-128, LARGEST_MULT, LARGEST_SHIFT, 127), 0),
        ((1, 3000, 2), 127, (-128, 2**20, 0, -128), 0),
        ((2, 500, 1), -128, (127, 2**29, 31, 127), 1),
        ((3, 4, 4), 1, (0, 2**29, 0, 0), 0),  # halves exactly
    ):
        for exclusive in (0, 1):
            attrs = {"exclusive": exclusive, "reverse": 1 - exclusive, "wide": wide}
            cases.append(Case((np.full(shape, value, np.int8), _int32(*params)), attrs))
    return cases


def take_edges() -> list[Case]:
    x = np.arange(-128, 127, dtype=np.int8).reshape(5, 17, 3)
    return [
        Case((x, np.arange(-1, 17, dtype=np.int32), _int32(-128))),
        Case((x, _int32(16, 16, 0, -1, -1, 3), _int32(127))),
        Case((x[:1, :1, :1].copy(), _int32(-1), _int32(5))),
        Case((x[:, :, :1].copy(), _int32(0), _int32(0))),
    ]


def embedding_edges() -> list[Case]:
    table = np.arange(-128, 127, dtype=np.int8).reshape(17, 15)
    ends = _int32(0, 16, -1, -17, 17, -18, 2**31 - 1, -(2**31))
    return [Case((ends, table)), Case((ends, table[:1])), Case((ends[:1], table[:, :1].copy()))]


def masked_softmax_edges() -> list[Case]:
    ramp = np.array([np.arange(-128, 128), np.arange(-128, 128)[::-1]], np.int8)
    masks = [np.zeros((1, 256)), np.ones((2, 256)), np.eye(2, 256), np.arange(256)[None] < 128]
    return [Case((ramp, mask.astype(np.int8), exponentials(scale))) for mask in masks for scale in (1e-5, 0.02, 3.0)]


MORE_EDGES: dict[str, Callable[[], list[Case]]] = {
    "masked_softmax_s8": masked_softmax_edges,
    "rms_norm_s8": rms_norm_edges,
    "div_s8": div_edges,
    "extreme_s8": extreme_edges,
    "select_s8": select_edges,
    "reduce_extreme_s8": reduce_extreme_edges,
    "arg_extreme_s8": arg_extreme_edges,
    "top_k_s8": top_k_edges,
    "cumsum_s8": cumsum_edges,
    "take_s8": take_edges,
    "embedding_s8": embedding_edges,
}
