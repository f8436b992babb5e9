# SPDX-License-Identifier: Apache-2.0
"""Multi-head self-attention (Vaswani et al. 2017, section 3.2.2) over a whole sequence, without a mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgec.errors import UsageError


class SelfAttention(nn.Module):
    """`y = P(concat_h(softmax(q_h k_h^T / sqrt(d)) v_h))` with q, k, v from one fused layer.

    Column layout of the fused layer: [q | k | v], and within each, head after head (as in timm).
    Shapes: float [B, T, D] -> float [B, T, D].

    Args:
        dim: D, the width of a token.
        heads: number of heads.
        qkv: layer D -> 3 * heads * d.
        projection: layer heads * d -> D that mixes the heads (P).
        depth: d, the width of a head; D / heads without it.
    """

    def __init__(self, dim: int, heads: int, qkv: nn.Module, projection: nn.Module, depth: int | None = None) -> None:
        super().__init__()
        if heads <= 0 or (depth is None and dim % heads):
            raise UsageError(
                "the number of heads does not divide the width of a token",
                need="width % heads == 0",
                have=f"width {dim}, heads {heads}",
            )
        self.heads = heads
        self.depth = depth or dim // heads
        self.scale = self.depth**-0.5
        self.qkv = qkv
        self.projection = projection

    def forward(self, x: Tensor) -> Tensor:
        """float [B, T, D] -> float [B, T, D]."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.depth)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax((q @ k.transpose(-2, -1)) * self.scale, dim=-1)
        y: Tensor = self.projection((weights @ v).transpose(1, 2).reshape(batch, tokens, self.heads * self.depth))
        return y
