# SPDX-License-Identifier: Apache-2.0
"""DeltaNet on audio features: a linear transformer whose memory is a matrix for each head, written by the delta rule.

Source: S. Yang, B. Wang, Y. Zhang, Y. Shen, Y. Kim, "Parallelizing Linear Transformers with the Delta Rule over
Sequence Length", NeurIPS 2024 (arXiv:2406.06484); row 37. A block, on x [D]:

    q, k, v = heads of conv(W RMSNorm(x))           conv: depthwise, causal, 4 taps
    q, k    = silu(q) / |silu(q)|, silu(k) / |silu(k)|
    b       = sigmoid(W_b RMSNorm(x))               one for each head
    S'      = S + b (silu(v) - S k) k^T
    x       = x + W_o RMSNorm(S' q)                 over each head
    x       = x + W_2 relu(W_1 RMSNorm(x))

State of a block: S [H, d, d] and three past inputs of the convolution, whatever the length of the stream. The training
form runs in chunks (`layers.matrix_memory`). A write replaces what S answered to its key; what no key meets any more
stays. Nothing grows without bound, as |k| = 1 and b < 1.

Our own reading: the FFN has Relu and two matrices where the paper's has SwiGLU and three; frames enter through one
linear layer; no output gate (optional in the authors' code), no positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgec.models.layers.block_stack import BlockStack
from edgec.models.layers.causal_conv import CausalConv1d
from edgec.models.layers.matrix_memory import MatrixMemory
from edgec.models.registry import register_model

EPSILON = 1e-5
Recurrence = Callable[..., tuple[Tensor, Tensor]]


class DeltaBlock(nn.Module):
    """One block: x float [B, D], s float [B, H, d, d], past float [B, 3, 3 H d] -> (x, s, past).

    Args:
        dim: D, the width of the stream.
        heads: H.
        depth: d, the width of keys and values of a head.
        expanded: width of the FFN.
    """

    def __init__(self, dim: int, heads: int, depth: int, expanded: int) -> None:
        super().__init__()
        inner = heads * depth
        self.heads, self.depth = heads, depth
        self.norm1, self.norm2 = nn.RMSNorm(dim, EPSILON), nn.RMSNorm(dim, EPSILON)
        self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.strength = nn.Linear(dim, heads)
        self.conv = CausalConv1d(3 * inner, 3 * inner, taps=4, groups=3 * inner)
        self.memory = MatrixMemory(delta=True, feature="unit-silu")
        self.head_norm = nn.RMSNorm(depth, EPSILON)
        self.projection = nn.Linear(inner, dim)
        self.expand, self.contract = nn.Linear(dim, expanded), nn.Linear(expanded, dim)

    def forward(self, x: Tensor, s: Tensor, past: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        return self._block(x, s, past, self.conv, self.memory)

    def parallel(self, x: Tensor, s: Tensor, past: Tensor) -> tuple[Tensor, ...]:
        """All steps: x float [B, T, D] -> the same, and s and past after the last step."""
        return self._block(x, s, past, self.conv.parallel, self.memory.parallel)

    def _block(self, x: Tensor, s: Tensor, past: Tensor, conv: Recurrence, memory: Recurrence) -> tuple[Tensor, ...]:
        normed = self.norm1(x)
        mixed, past = conv(self.qkv(normed), past)
        q, k, v = mixed.unflatten(-1, (3, self.heads, self.depth)).unbind(-3)
        strength = torch.sigmoid(self.strength(normed))[..., None]
        read, s = memory(q, k, functional.silu(v), s, strength=strength)
        x = x + self.projection(self.head_norm(read).flatten(-2))
        return x + self.contract(torch.relu(self.expand(self.norm2(x)))), s, past


@register_model(
    "deltanet-spoken-digits",
    description="one step of a keyword DeltaNet on 40 log-mel bins, 2 blocks of 3 heads of 16, 10 classes",
    source="Yang et al., Parallelizing Linear Transformers with the Delta Rule, NeurIPS 2024, arXiv:2406.06484",
    parameters=41_712,
    inputs={
        "frame": (1, 40),
        "s0": (1, 3, 16, 16),
        "past0": (1, 3, 144),
        "s1": (1, 3, 16, 16),
        "past1": (1, 3, 144),
    },
    outputs={
        "logits": (1, 10),
        "s0_next": (1, 3, 16, 16),
        "past0_next": (1, 3, 144),
        "s1_next": (1, 3, 16, 16),
        "past1_next": (1, 3, 144),
    },
    states=(
        ("s0", "s0_next", 0.0),
        ("past0", "past0_next", 0.0),
        ("s1", "s1_next", 0.0),
        ("past1", "past1_next", 0.0),
    ),
    row=37,
)
def deltanet_spoken_digits() -> nn.Module:
    """Frames of 40 log-mel bins, two blocks of width 48, logits of the ten digits at every step."""
    blocks = [DeltaBlock(dim=48, heads=3, depth=16, expanded=96) for _ in range(2)]
    return BlockStack(blocks, (2, 2), nn.RMSNorm(48, EPSILON), nn.Linear(48, 10), embedding=nn.Linear(40, 48))
