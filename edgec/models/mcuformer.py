# SPDX-License-Identifier: Apache-2.0
"""MCUFormer: a vision transformer whose linear layers are products of three small factors.

Source: Y. Liang, Z. Wang, X. Xu, Y. Tang, J. Zhou, J. Lu, "MCUFormer: Deploying Vision Transformers on
Microcontrollers with Limited Memory", NeurIPS 2023 (arXiv:2310.16898). With L(x; in, out) the low-rank layer
of `layers/low_rank.py` of rank floor(ratio * min(in, out)), tokens x [T, D] and hidden width M:

    x   = patches(image) + position
    x   = x + P(attention(L(LN(x); D, 3D)))         for every block
    x   = x + L(gelu(L(LN(x); D, M)); M, D)
    y   = head(mean over tokens of LN(x))

Our own reading, where the paper has another scale in mind: the mixing layer P is dense, because three square
factors cost more than one matrix as soon as ratio > sqrt(2) - 1 = 0.414; there is no class token (mean
pooling instead, an option in the authors' code as well); positions start as sines and cosines. As in that
code q, k and v share their first two factors, and only the last factor has a bias. The memory side of the
paper (patch-wise embedding, integrated attention, token overwriting) is the work of edgec's scheduler, not of
the model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgec.models.layers.attention import SelfAttention
from edgec.models.layers.low_rank import LowRankLinear, rank_of
from edgec.models.layers.patch_embedding import PatchEmbedding, grid_position
from edgec.models.registry import register_model


class Block(nn.Module):
    """One pre-norm transformer block with low-rank layers: float [B, T, dim] -> float [B, T, dim]."""

    def __init__(self, dim: int, heads: int, hidden: int, ratio: float | None, depth: int | None = None) -> None:
        super().__init__()
        mixed = heads * depth if depth is not None else dim
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads, _linear(dim, 3 * mixed, ratio), nn.Linear(mixed, dim), depth)
        self.norm2 = nn.LayerNorm(dim)
        self.expand = _linear(dim, hidden, ratio)
        self.activation = nn.GELU()
        self.contract = _linear(hidden, dim, ratio)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, T, dim] -> float [B, T, dim]."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.contract(self.activation(self.expand(self.norm2(x))))
        return y


def _linear(inputs: int, outputs: int, ratio: float | None) -> nn.Module:
    return (
        nn.Linear(inputs, outputs) if ratio is None else LowRankLinear(inputs, outputs, rank_of(inputs, outputs, ratio))
    )


class MCUFormer(nn.Module):
    """Image classifier of the family: float [B, C, H, W] with values in [0, 1] -> logits float [B, classes].

    Args:
        image: (channels, height, width).
        patch: side of a patch in pixels.
        dim: width of a token.
        depth: number of blocks.
        heads: attention heads.
        hidden: width between the two layers of the MLP.
        ratio: rank ratio of the low-rank layers, in (0, 1]; None for dense ones, which their products come to.
        classes: number of logits.
        head: width of an attention head; dim / heads without it.
    """

    def __init__(
        self,
        image: tuple[int, int, int],
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        ratio: float | None,
        classes: int,
        head: int | None = None,
    ) -> None:
        super().__init__()
        self.embedding = PatchEmbedding(image, patch, dim)
        self.position = nn.Parameter(grid_position(self.embedding.rows, self.embedding.columns, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, ratio, head) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, image: Tensor) -> Tensor:
        """float [B, C, H, W] -> logits float [B, classes]."""
        x = self.embedding(image) + self.position
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(dim=1))
        return logits


def imagenet(patch: int, dim: int, heads: int, depth: int, seed: int = 0) -> MCUFormer:
    """A network of the paper's ImageNet search space, freshly initialised: for images of 240x240x3, 1000 classes.

    Heads are 64 wide, whatever the width of a token, and the hidden layer is 4 * dim. The layers are dense: what the
    low-rank factors of the released models multiply to. Weights are normal, as trained ones nearly are (uniform ones
    have larger sums, by which kernels are chosen).

    Args:
        patch: side of a patch in pixels.
        dim: width of a token.
        heads: attention heads.
        depth: number of blocks.
        seed: of the random weights; the global random state of torch is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MCUFormer((3, 240, 240), patch, dim, depth, heads, 4 * dim, None, 1000, head=64)
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)
        return net.eval()


@register_model(
    "mcuformer-fashion-mnist",
    description="low-rank vision transformer for 28x28 grey images, 10 classes, 6.7 M MACs",
    source="Liang et al., MCUFormer, NeurIPS 2023, arXiv:2310.16898",
    row=39,
    parameters=118_410,
    inputs={"image": (1, 1, 28, 28)},
    outputs={"logits": (1, 10)},
    smaller=(
        {"width": 48, "heads": 3, "hidden": 96},
        {"patch": 7},
        {"patch": 7, "width": 48, "heads": 3, "hidden": 96},
    ),
)
def mcuformer_fashion_mnist(patch: int = 4, width: int = 64, heads: int = 4, hidden: int = 128) -> nn.Module:
    """49 tokens of width 64, 4 blocks of 4 heads, hidden 128, rank 32 (ratio 0.5)."""
    return MCUFormer((1, 28, 28), patch=patch, dim=width, depth=4, heads=heads, hidden=hidden, ratio=0.5, classes=10)
