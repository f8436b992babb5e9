# SPDX-License-Identifier: Apache-2.0
"""Convolutions and pools at the ends of what they take: one pixel, windows as large as the image, extreme numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgec.operators import Case

LARGEST_MULT, LARGEST_SHIFT = 2**30 - 1, 30
HALF = 2**29, 0  # y = acc / 4: halves exactly


def case(
    x: Sequence[int],
    w: Sequence[int],
    requantize: tuple[int, int],
    points: tuple[int, int],
    bias: int = 0,
    **attrs: Any,
) -> Case:
    """x and w repeat a few extreme values in these shapes; the last axis of w counts channels when it has three."""
    n = w[-1] if len(w) == 3 else w[0]
    values = np.resize(np.array([-128, 127, 1, -1, 0], np.int8), tuple(x))
    weights = np.resize(np.array([-127, 127, 3], np.int8), tuple(w))
    vectors = [np.full(n, v, t) for v, t in ((bias, np.int32), (requantize[0], np.int32), (requantize[1], np.uint8))]
    geometry = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]} | attrs
    return Case((values, weights, *vectors, np.array(points, np.int32)), geometry)


def conv2d_edges() -> list[Case]:
    return [
        case((1, 1, 1), (1, 1, 1, 1), (LARGEST_MULT, 0), (0, 127)),
        case((1, 1, 1), (5, 3, 3, 1), (2**24, 0), (127, -128), pads=[1, 1, 1, 1]),  # one pixel, mostly padding
        case((4, 6, 3), (2, 4, 6, 3), (2**20, 0), (-128, 0)),  # a window as large as the image
        case((9, 2, 4), (3, 3, 2, 4), (2**22, 1), (5, -7), pads=[0, 1, 2, 0], strides=[4, 3]),
        case((9, 11, 2), (4, 3, 3, 1), HALF, (-5, 3), dilations=[4, 5], group=2),
        case((5, 5, 4), (4, 2, 2, 1), (2**25, LARGEST_SHIFT), (127, 127), group=4, pads=[1, 1, 1, 1]),
        case((3, 20, 60), (2, 3, 3, 60), (2**19, 0), (-128, -128), bias=2**30),  # taps beyond the stack
        case((4, 4, 2), (3, 3, 3, 2), (2**29, 31), (1, 2), bias=-(2**31) + 2**19, wide=1),
    ]


def depthwise_edges() -> list[Case]:
    return [
        case((1, 1, 1), (1, 1, 1), (LARGEST_MULT, 0), (0, 127)),
        case((1, 1, 8), (3, 3, 8), (2**24, 0), (127, -128), pads=[1, 1, 1, 1]),
        case((4, 6, 3), (4, 6, 3), (2**20, 0), (-128, 0)),
        case((9, 2, 4), (3, 2, 12), (2**22, 1), (5, -7), pads=[0, 1, 2, 0], strides=[4, 3]),
        case((9, 2, 4), (3, 2, 4), (2**22, 1), (5, -7), pads=[0, 1, 2, 0], strides=[4, 3]),
        case((9, 11, 4), (3, 3, 4), HALF, (-5, 3), dilations=[4, 5]),
        case((7, 7, 2), (6, 6, 4), (2**22, 0), (-5, 3), pads=[3, 3, 3, 3]),  # more taps than are written out
        case((7, 7, 4), (6, 6, 4), (2**22, 0), (-5, 3), pads=[3, 3, 3, 3]),
        case((5, 5, 4), (5, 5, 4), (2**22, 0), (-5, 3), pads=[2, 2, 2, 2], bias=-(2**31) + 2**19),
        case((3, 3, 70), (3, 3, 70), (2**25, LARGEST_SHIFT), (127, 127), pads=[2, 2, 2, 2]),
        case((3, 3, 72), (3, 3, 72), (LARGEST_MULT, LARGEST_SHIFT), (-128, 127), pads=[2, 2, 2, 2]),
        case((4, 4, 2), (3, 3, 2), (2**29, 31), (1, 2), bias=-(2**31) + 2**19, wide=1),
    ]


def conv_transpose_edges() -> list[Case]:
    none = {"output_padding": [0, 0]}
    return [
        case((1, 1, 1), (1, 1, 1, 1), (LARGEST_MULT, 0), (0, 127), **none),
        case((1, 1, 3), (5, 3, 3, 3), (2**24, 0), (127, -128), strides=[2, 2], pads=[1, 1, 1, 1], **none),
        case((3, 4, 2), (2, 2, 2, 2), (2**24, 0), (-128, 127), strides=[3, 5], output_padding=[2, 4]),  # holes
        case((3, 4, 4), (4, 4, 3, 2), HALF, (9, 1), strides=[2, 1], dilations=[2, 3], group=2, **none),
        case((3, 2, 70), (2, 3, 3, 70), (2**19, 0), (-128, -128), bias=2**29, strides=[2, 2], **none),
        case((2, 2, 2), (3, 3, 3, 2), (2**29, 31), (1, 2), bias=-(2**31) + 2**20, wide=1, **none),
        case((4, 1, 5), (3, 1, 2, 5), (2**24, 0), (3, 1), strides=[2, 1], pads=[0, 1, 0, 1], dilations=[2, 2], **none),
    ]  # the last: no tap reaches a result


def max_pool_edges() -> list[Case]:
    values = np.array([-128, 127, -5, 3, -128, -127], np.int8)

    def pool(shape: Sequence[int], kernel: Sequence[int], **attrs: Any) -> Case:
        geometry = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]} | attrs
        return Case((np.resize(values, tuple(shape)),), {"kernel": list(kernel), **geometry})

    return [
        pool((1, 1, 1), (1, 1)),
        pool((1, 1, 7), (3, 3), pads=[1, 1, 1, 1]),
        pool((6, 5, 3), (6, 5)),
        pool((7, 8, 2), (2, 3), strides=[3, 2], pads=[1, 0, 0, 2], dilations=[3, 2]),
        pool((3, 3, 90), (2, 2), strides=[2, 2], pads=[0, 0, 1, 1]),
    ]


def avg_pool_edges() -> list[Case]:
    def pool(
        shape: Sequence[int], kernel: Sequence[int], mult: int, shift: int, zx: int, zy: int, **attrs: Any
    ) -> Case:
        geometry = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "counted": [0, 0, 0, 0]} | attrs
        counts = np.arange(1, kernel[0] * kernel[1] + 1)
        vectors = (mult // counts).astype(np.int32), np.full(len(counts), shift, np.uint8)
        x = np.resize(np.array([127, -128, 126, 125, -1], np.int8), tuple(shape))
        return Case((x, *vectors, np.array([zx, zy], np.int32)), {"kernel": list(kernel), **geometry})

    return [
        pool((1, 1, 1), (1, 1), LARGEST_MULT, 0, -128, 0),
        pool((1, 1, 3), (3, 3), LARGEST_MULT, LARGEST_SHIFT, 127, -128, pads=[1, 1, 1, 1]),
        pool((1, 1, 3), (3, 3), LARGEST_MULT, 1, 127, 5, pads=[1, 1, 1, 1], counted=[1, 1, 1, 1]),
        pool((6, 5, 90), (6, 5), LARGEST_MULT, 1, -128, 0),
        pool((5, 8, 2), (3, 2), 2**29, 0, 0, 0, strides=[2, 3], pads=[1, 0, 2, 1], counted=[1, 0, 0, 1]),
        pool((7, 7, 4), (2, 3), 2**29, 31, 1, 2, dilations=[3, 2], wide=1),
    ]


HAND = 10
"""So many of these calls are taken by hand-written kernels: one group, narrow, channels that go by four."""

EDGES = {
    "conv2d_s8": conv2d_edges,
    "depthwise_conv2d_s8": depthwise_edges,
    "conv_transpose2d_s8": conv_transpose_edges,
    "max_pool_s8": max_pool_edges,
    "avg_pool_s8": avg_pool_edges,
}
