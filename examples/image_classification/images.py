# SPDX-License-Identifier: Apache-2.0
"""Images as a classifier takes them: enlarged and repeated over the channels, without PyTorch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def as_input(images: Floats, shape: tuple[int, ...]) -> Floats:
    """float32 [N, H, W] in [0, 1] -> float32 [N, 1, C, H', W'] for an ONNX input of `shape` [1, C, H', W'].

    Bilinear with half-pixel centres, as torch's interpolate(align_corners=False) does in training.
    """
    _, channels, height, width = shape
    rows, columns = _weights(images.shape[1], height), _weights(images.shape[2], width)
    enlarged = np.einsum("hi,nij,wj->nhw", rows, images, columns, optimize=True)
    return np.repeat(enlarged[:, None, None], channels, axis=2).astype(np.float32)


def _weights(size: int, wanted: int) -> Floats:
    """Matrix [wanted, size] of linear interpolation along one axis."""
    at = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    low = np.minimum(np.floor(at).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    result = np.zeros((wanted, size), np.float32)
    np.add.at(result, (np.arange(wanted), low), 1 - (at - low))
    np.add.at(result, (np.arange(wanted), high), at - low)
    return result
