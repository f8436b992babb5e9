# SPDX-License-Identifier: Apache-2.0
"""Geometry of windows that slide over an image [H, W, C]: what convolutions and pools share.

`kernel`, `strides` and `dilations` are (height, width); `pads` is (top, left, bottom, right).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from edgec.operators.access import UNREAD, RowAccess
from edgec.operators.integer import Int8, Int64
from edgec.operators.record import Array


def window_counts(
    image: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, int]:
    """How many windows fit below and beside each other.

    Raises:
        ValueError: a step or dilation below 1, a negative padding, an image smaller than one window, or windows
            that reach no pixel.
    """
    if min(*strides, *dilations, *kernel) < 1 or min(pads) < 0:
        raise ValueError(f"window {list(kernel)} with strides {list(strides)}, pads {list(pads)}")
    counts = [(image[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in (0, 1)]
    if min(counts) < 1:
        raise ValueError(f"a window {list(kernel)} does not fit into an image {list(image[:2])}")
    for i in (0, 1):
        starts = np.arange(counts[i]) * strides[i] - pads[i]
        taps = starts[:, None] + np.arange(kernel[i]) * dilations[i]
        if not ((taps >= 0) & (taps < image[i])).any():
            raise ValueError(f"every window {list(kernel)} reads padding alone")
    return counts[0], counts[1]


def windows(
    x: Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    fill: Any,
) -> Array:
    """x [H, W, C] -> [rows, columns, kernel height, kernel width, C]; taps outside the image are `fill`."""
    rows, columns = window_counts(x.shape, kernel, strides, pads, dilations)
    top, left, bottom, right = pads
    padded = np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=fill)
    a, b, c = padded.strides
    return as_strided(
        padded,
        (rows, columns, kernel[0], kernel[1], x.shape[2]),
        (a * strides[0], b * strides[1], a * dilations[0], b * dilations[1], c),
    )


def window_rows(
    image: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    channels: int,
) -> RowAccess:
    """Rows of the image [H, W, C] that a row of windows with so many results each reads."""
    _, columns = window_counts(image, kernel, strides, pads, dilations)
    top, reach = int(pads[0]), (int(kernel[0]) - 1) * int(dilations[0])
    return RowAccess(columns * channels, image[1] * image[2], top, reach - top, int(strides[0]))


def window_starts(
    image: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    channels: Sequence[int] = (0,),
) -> Int64:
    """The first element that each window reads of each of some channels, [rows, columns, channels].

    `UNREAD` where a window lies in the padding.
    """
    counts = window_counts(image, kernel, strides, pads, dilations)
    axes = []
    for i in (0, 1):
        start = np.arange(counts[i], dtype=np.int64) * strides[i] - pads[i]
        skipped = np.maximum(0, -(start // dilations[i]))  # taps before the image
        first = start + skipped * dilations[i]
        axes.append(np.where((skipped < kernel[i]) & (first < image[i]), first, -1))
    rows, columns = axes[0][:, None, None], axes[1][:, None]
    pixels = (rows * image[1] + columns) * image[2] + np.asarray(channels, np.int64)
    return np.where((rows < 0) | (columns < 0), UNREAD, pixels)


def _touches(image: Sequence[int], kernel: Sequence[int], attrs: Mapping[str, Any]) -> bool:
    """Whether `window_counts` takes this geometry."""
    try:
        window_counts(image, kernel, attrs["strides"], attrs["pads"], attrs["dilations"])
    except ValueError:
        return False
    return True


def drawn_window(rng: np.random.Generator) -> tuple[tuple[int, int], dict[str, list[int]]]:
    """A random kernel, and strides, pads and dilations as attributes."""
    kernel = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    simple = rng.random() < 0.4
    return kernel, {
        "strides": [1, 1] if simple else [int(v) for v in rng.integers(1, 4, 2)],
        "pads": [kernel[i % 2] // 2 if simple else int(rng.integers(0, kernel[i % 2] + 1)) for i in range(4)],
        "dilations": [1, 1] if simple else [int(v) for v in rng.integers(1, 3, 2)],
    }


def drawn_image(
    rng: np.random.Generator, kernel: Sequence[int], attrs: Mapping[str, Sequence[int]], channels: int
) -> Int8:
    """An image with room for at least one window."""
    pads, reach = attrs["pads"], [(k - 1) * d + 1 for k, d in zip(kernel, attrs["dilations"], strict=True)]
    least = [max(1, reach[i] - pads[i] - pads[i + 2]) for i in (0, 1)]
    while not _touches(image := [n + int(rng.integers(0, 6)) for n in least], kernel, attrs):
        pass
    shape = (*image, channels)
    ends = rng.random() < 0.2
    drawn = rng.choice([-128, 127], shape) if ends else rng.integers(-128, 128, shape)
    return drawn.astype(np.int8)
