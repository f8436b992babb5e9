# SPDX-License-Identifier: Apache-2.0
"""Patch embedding: an image becomes a sequence of tokens (Dosovitskiy et al. 2021, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgec.errors import UsageError


class PatchEmbedding(nn.Module):
    """Cut an image into square patches that do not overlap and map each linearly to a token.

    `token[i] = W vec(patch[i]) + b`, written as a convolution whose kernel equals its stride. Patches are
    numbered row by row. Shapes: image float [B, C, H, W] -> tokens float [B, T, dim], T = (H/p)*(W/p).

    Args:
        image: (channels, height, width) of the image.
        patch: side of a patch in pixels; divides height and width.
        dim: width of a token.
    """

    def __init__(self, image: tuple[int, int, int], patch: int, dim: int) -> None:
        super().__init__()
        channels, height, width = image
        if patch <= 0 or height % patch or width % patch:
            raise UsageError(
                f"a patch of {patch} pixels does not divide an image of {height}x{width}",
                need="a patch side that divides height and width",
                have=f"patch {patch}, image {channels}x{height}x{width}",
            )
        self.rows, self.columns = height // patch, width // patch
        self.projection = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        """float [B, C, H, W] -> float [B, tokens, dim]."""
        features: Tensor = self.projection(image)
        return features.flatten(2).transpose(1, 2)


def grid_position(rows: int, columns: int, dim: int) -> Tensor:
    """Sines and cosines of a token's row and column: float [1, rows * columns, dim], in [-0.5, 0.5].

    A start for a learned position: neighbours begin alike, which saves the training from finding out what
    lies beside what. A quarter of dim each: sin and cos of the row, then of the column, at frequencies
    100^(-4i/dim).

    Raises:
        UsageError: dim is not a multiple of 4.
    """
    if dim % 4:
        raise UsageError("a token's width must be a multiple of 4", have=str(dim))
    frequency = 100.0 ** -(torch.arange(dim // 4) * 4 / dim)
    row = torch.arange(rows)[:, None] * frequency
    column = torch.arange(columns)[:, None] * frequency
    by_row = torch.cat([row.sin(), row.cos()], dim=1)[:, None].expand(-1, columns, -1)
    by_column = torch.cat([column.sin(), column.cos()], dim=1)[None].expand(rows, -1, -1)
    return 0.5 * torch.cat([by_row, by_column], dim=2).reshape(1, rows * columns, dim)
