# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 from JPEG: cifar10/cifar10_jpegbytes.npz below the data folder; needs Pillow, not PyTorch."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from data_folder import data_file
from PIL import Image


def load_cifar10(
    folder: Path, part: str, chosen: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(images uint8 [N, 3, 32, 32], labels int64 [N]) of "train" (50,000) or "test" (10,000), official split.

    Args:
        folder: data folder. Its npz holds jpeg_PART, the files one after another, off_PART, where each starts
            (and the last ends), and y_PART.
        part: "train" or "test".
        chosen: indices of the images wanted, in that order; all of them by default.
    """
    with np.load(data_file(folder, "cifar10/cifar10_jpegbytes.npz")) as data:
        jpeg, ends, labels = data[f"jpeg_{part}"], data[f"off_{part}"], data[f"y_{part}"].astype(np.int64)
    chosen = np.arange(len(labels)) if chosen is None else chosen
    images = np.empty((len(chosen), 3, 32, 32), np.uint8)
    for image, i in zip(images, chosen, strict=True):
        with Image.open(io.BytesIO(jpeg[ends[i] : ends[i + 1]].tobytes())) as picture:
            image[:] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    return images, labels[chosen]


def as_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 [N, 3, 32, 32] -> float32 [N, 3, 32, 32] in [0, 1]: what the models of this folder take."""
    return images.astype(np.float32) / 255
