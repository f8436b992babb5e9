# SPDX-License-Identifier: Apache-2.0
"""Attention of the newest step over a window of the last steps: a ring of their keys and values.

Keys and values are projected once, when a step is written, and then only read. A window is written as "drop the
oldest, append the newest"; nothing that reads it depends on the order of its rows, so the compiler keeps it as a ring
with a cursor. Only the relative position terms have an order: a number for each row and head is rotated, never a row.

Source of the relative terms: Z. Dai et al., "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context",
ACL 2019 (arXiv:1901.02860), section 3.3:

    score_j = ((q + u) k_j^T + (q + v) R_d^T) / sqrt(depth),   d = distance of step j to the newest

with u, v learned vectors per head and R_d = W_R s_d, s_d the sines and cosines of d. R depends on the weights alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgec.errors import UsageError
from edgec.models.layers.causal_conv import push


class WindowAttention(nn.Module):
    """One step: x [B, D], keys and values [B, window, D] (oldest first) -> (y [B, D], keys', values').

    The window that a step reads has the step itself as its newest row. Rows before the first step are whatever the
    state began with: zeros give a score of (q + v) R^T (0 without relative terms) and add nothing to the sum.

    Args:
        dim: D, the width of a step.
        heads: number of heads; divides D.
        window: steps that are remembered, the newest included.
        relative: whether scores have the position terms; without them a step does not know how old a row is.

    Raises:
        UsageError: `heads` does not divide `dim`.
    """

    distances: Tensor

    def __init__(self, dim: int, heads: int, window: int, relative: bool = True) -> None:
        super().__init__()
        if heads <= 0 or dim % heads:
            raise UsageError(
                "the number of heads does not divide the width of a step",
                need="width % heads == 0",
                have=f"width {dim}, heads {heads}",
            )
        self.heads, self.depth, self.window = heads, dim // heads, window
        self.scale = self.depth**-0.5
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.position: nn.Linear | None = None
        if relative:
            self.position = nn.Linear(dim, dim, bias=False)
            self.u = nn.Parameter(torch.zeros(heads, 1, self.depth))
            self.v = nn.Parameter(torch.zeros(heads, 1, self.depth))
            self.register_buffer("distances", sinusoids(window, dim).flip(0), persistent=False)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of every sequence in the batch."""
        keys, values = push(keys, self.key(x)), push(values, self.value(x))
        q = self._split(self.query(x)[:, None])
        k, v = self._split(keys), self._split(values)
        if self.position is None:
            scores = q @ k.transpose(-2, -1)
        else:
            scores = (q + self.u) @ k.transpose(-2, -1) + (q + self.v) @ self._relative().transpose(-2, -1)
        weights = torch.softmax(scores * self.scale, dim=-1)
        return self.out(self._join(weights @ v)[:, 0]), keys, values

    def parallel(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All steps at once, with a band as mask: x [B, T, D] -> (y [B, T, D], keys and values after the last)."""
        steps, width = x.shape[1], x.shape[1] + self.window - 1
        keys, values = torch.cat([keys, self.key(x)], dim=1), torch.cat([values, self.value(x)], dim=1)
        q, k, v = self._split(self.query(x)), self._split(keys[:, 1:]), self._split(values[:, 1:])
        if self.position is None:
            scores = q @ k.transpose(-2, -1)
        else:
            shifted = _band((q + self.v) @ self._relative().transpose(-2, -1), width)
            scores = (q + self.u) @ k.transpose(-2, -1) + shifted
        place = torch.arange(width, device=x.device) - torch.arange(steps, device=x.device)[:, None]
        outside = (place < 0) | (place >= self.window)
        weights = torch.softmax((scores * self.scale).masked_fill(outside, -torch.inf), dim=-1)
        return self.out(self._join(weights @ v)), keys[:, -self.window :], values[:, -self.window :]

    def _relative(self) -> Tensor:
        """R float [heads, window, depth], the row of the oldest step first."""
        assert self.position is not None
        rows: Tensor = self.position(self.distances)
        return rows.reshape(self.window, self.heads, self.depth).transpose(0, 1)

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, heads, T, depth]."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.depth).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        """[B, heads, T, depth] -> [B, T, D]."""
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], self.heads * self.depth)


def sinusoids(count: int, dim: int) -> Tensor:
    """Float [count, dim]: sin and cos of 0, 1, .. at the frequencies 10000^(-2i / dim), sines first.

    Raises:
        UsageError: dim is odd.
    """
    if dim % 2:
        raise UsageError("sines and cosines need an even width", have=str(dim))
    angles = torch.arange(count)[:, None] * 10000.0 ** -(torch.arange(0, dim, 2) / dim)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _band(rows: Tensor, width: int) -> Tensor:
    """[..., T, L] -> [..., T, width >= T + L - 1]: row t begins at column t; what lies outside is of no meaning."""
    steps = rows.shape[-2]
    flat = functional.pad(rows, (0, width + 1 - rows.shape[-1])).flatten(-2)
    banded: Tensor = flat[..., : steps * width].unflatten(-1, (steps, width))
    return banded
