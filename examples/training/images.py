# SPDX-License-Identifier: Apache-2.0
"""Labelled images as tensors: batches in random order, shifted and mirrored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Images:
    """One split: images uint8 [N, H, W] or [N, C, H, W] and labels int64 [N]."""

    images: Tensor
    labels: Tensor


def augment(images: Tensor, shift: int, random: torch.Generator) -> Tensor:
    """Shift every uint8 image [N, ..., H, W] by up to `shift` pixels each way (zeros come in), mirror half of them."""
    count, height, width = len(images), *images.shape[-2:]
    planes = images.reshape(count, -1, height, width)
    padded = functional.pad(planes, (shift,) * 4)
    top, left = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=random)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    mirrored = torch.rand((count, 1), generator=random) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    chosen = padded.permute(0, 2, 3, 1)[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return chosen.permute(0, 3, 1, 2).reshape(images.shape)


def batches(data: Images, size: int, shift: int, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented batches of one epoch in random order; the incomplete last one is left out."""
    order = torch.randperm(len(data.labels), generator=random)
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield augment(data.images[chosen], shift, random), data.labels[chosen]
