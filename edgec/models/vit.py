# SPDX-License-Identifier: Apache-2.0
"""Plain vision transformer with pre-norm blocks, dense layers and mean pooling.

Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
ICLR 2021 (arXiv:2010.11929). Tokens x [T, D]:

    x = patches(image) + position
    x = x + P(attention(Q LN(x)))                  for every block; Q: D -> 3D is one fused layer
    x = x + C gelu(E LN(x))                        E: D -> M, C: M -> D
    y = head(mean over tokens of LN(x))

Departures from the paper: mean pooling instead of a class token; LayerNorm's epsilon is 1e-6 (as in timm).
"""

from __future__ import annotations

from torch import Tensor, nn

from edgec.models.layers.attention import SelfAttention
from edgec.models.layers.patch_embedding import PatchEmbedding, grid_position
from edgec.models.registry import register_model


class Block(nn.Module):
    """One pre-norm transformer block: float [B, T, dim] -> float [B, T, dim]."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = SelfAttention(dim, heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim))
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, hidden)
        self.activation = nn.GELU()
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, T, dim] -> float [B, T, dim]."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.contract(self.activation(self.expand(self.norm2(x))))
        return y


class ViT(nn.Module):
    """Image classifier of the family: float [B, C, H, W] with values in [0, 1] -> logits float [B, classes].

    Args:
        image: (channels, height, width).
        patch: side of a patch in pixels.
        dim: width of a token.
        depth: number of blocks.
        heads: attention heads.
        hidden: width between the two layers of the MLP.
        classes: number of logits.
    """

    def __init__(
        self,
        image: tuple[int, int, int],
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.embedding = PatchEmbedding(image, patch, dim)
        self.position = nn.Parameter(grid_position(self.embedding.rows, self.embedding.columns, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def forward(self, image: Tensor) -> Tensor:
        """float [B, C, H, W] -> logits float [B, classes]."""
        x = self.embedding(image) + self.position
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(dim=1))
        return logits


@register_model(
    "vit-64",
    description="plain vision transformer for 64x64 colour images, 10 classes, 23 M MACs",
    source="Dosovitskiy et al., ViT, ICLR 2021, arXiv:2010.11929",
    parameters=324_970,
    inputs={"image": (1, 3, 64, 64)},
    outputs={"logits": (1, 10)},
    smaller=(
        {"width": 64, "heads": 2, "hidden": 128},
        {"patch": 16},
        {"patch": 16, "width": 64, "heads": 2, "hidden": 128},
    ),
)
def vit_64(patch: int = 8, width: int = 96, heads: int = 3, hidden: int = 192) -> nn.Module:
    """64 tokens of width 96, 4 blocks of 3 heads, hidden 192."""
    return ViT((3, 64, 64), patch=patch, dim=width, depth=4, heads=heads, hidden=hidden, classes=10)
