# SPDX-License-Identifier: Apache-2.0
"""DeltaNet on audio features: a linear transformer whose memory is a matrix for each head, written by the delta rule.

Source: S. Yang, B. Wang, Y. Zhang, Y. Shen, Y. Kim, "Parallelizing Linear Transformers with the Delta Rule over
Sequence Length", NeurIPS 2024 (arXiv:2406.06484); row 37. A block, on x [D]:

    q, k    = heads of conv(W_qk RMSNorm(x))        conv: depthwise, causal, 4 taps
    v       = heads of conv(W_v RMSNorm(x))
    q, k    = silu(q) / |silu(q)|, silu(k) / |silu(k)|
    b       = sigmoid(W_b RMSNorm(x))               one for each head
    S'      = S + b (silu(v) - S k) k^T
    x       = x + W_o RMSNorm(S' q)                 over each head
    x       = x + W_2 relu(W_1 RMSNorm(x))

State of a block: S [H, d, d] and three past inputs of the convolutions, whatever the length of the stream. The training
form runs in chunks (`layers.matrix_memory`). A write replaces what S answered to its key; what no key meets any more
stays. Nothing grows without bound, as |k| = 1 and b < 1.

Our own reading: q and k share a convolution and v has its own, because the size of v is free (a norm follows) and int8
has one scale for a tensor; the FFN has Relu and two matrices where the paper's has SwiGLU and three; frames enter
through one linear layer; no output gate (optional in the authors' code), no positions.
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
    """One block: x float [B, D], s float [B, H, d, d], past_qk [B, 3, 2 H d], past_v [B, 3, H d] -> the same.

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
        self.qk, self.value = nn.Linear(dim, 2 * inner, bias=False), nn.Linear(dim, inner, bias=False)
        self.strength = nn.Linear(dim, heads)
        self.conv_qk = CausalConv1d(2 * inner, 2 * inner, taps=4, groups=2 * inner)
        self.conv_v = CausalConv1d(inner, inner, taps=4, groups=inner)
        self.memory = MatrixMemory(delta=True, feature="unit-silu")
        self.head_norm = nn.RMSNorm(depth, EPSILON)
        self.projection = nn.Linear(inner, dim)
        self.expand, self.contract = nn.Linear(dim, expanded), nn.Linear(expanded, dim)

    def forward(self, x: Tensor, s: Tensor, past_qk: Tensor, past_v: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        return self._block(x, s, past_qk, past_v, self.conv_qk, self.conv_v, self.memory)

    def parallel(self, x: Tensor, s: Tensor, past_qk: Tensor, past_v: Tensor) -> tuple[Tensor, ...]:
        """All steps: x float [B, T, D] -> the same, and the states after the last step."""
        forms = (self.conv_qk.parallel, self.conv_v.parallel, self.memory.parallel)
        return self._block(x, s, past_qk, past_v, *forms)

    def _block(
        self,
        x: Tensor,
        s: Tensor,
        past_qk: Tensor,
        past_v: Tensor,
        conv_qk: Recurrence,
        conv_v: Recurrence,
        memory: Recurrence,
    ) -> tuple[Tensor, ...]:
        normed = self.norm1(x)
        mixed, past_qk = conv_qk(self.qk(normed), past_qk)
        value, past_v = conv_v(self.value(normed), past_v)
        q, k = mixed.unflatten(-1, (2, self.heads, self.depth)).unbind(-3)
        v = functional.silu(value).unflatten(-1, (self.heads, self.depth))
        strength = torch.sigmoid(self.strength(normed))[..., None]
        read, s = memory(q, k, v, s, strength=strength)
        x = x + self.projection(self.head_norm(read).flatten(-2))
        return x + self.contract(torch.relu(self.expand(self.norm2(x)))), s, past_qk, past_v


@register_model(
    "deltanet-spoken-digits",
    description="one step of a keyword DeltaNet on 40 log-mel bins, 2 blocks of 3 heads of 16, 10 classes",
    source="Yang et al., Parallelizing Linear Transformers with the Delta Rule, NeurIPS 2024, arXiv:2406.06484",
    parameters=41_712,
    inputs={
        "frame": (1, 40),
        "s0": (1, 3, 16, 16),
        "past_qk0": (1, 3, 96),
        "past_v0": (1, 3, 48),
        "s1": (1, 3, 16, 16),
        "past_qk1": (1, 3, 96),
        "past_v1": (1, 3, 48),
    },
    outputs={
        "logits": (1, 10),
        "s0_next": (1, 3, 16, 16),
        "past_qk0_next": (1, 3, 96),
        "past_v0_next": (1, 3, 48),
        "s1_next": (1, 3, 16, 16),
        "past_qk1_next": (1, 3, 96),
        "past_v1_next": (1, 3, 48),
    },
    states=(
        ("s0", "s0_next", 0.0),
        ("past_qk0", "past_qk0_next", 0.0),
        ("past_v0", "past_v0_next", 0.0),
        ("s1", "s1_next", 0.0),
        ("past_qk1", "past_qk1_next", 0.0),
        ("past_v1", "past_v1_next", 0.0),
    ),
    row=37,
)
def deltanet_spoken_digits() -> nn.Module:
    """Frames of 40 log-mel bins, two blocks of width 48, logits of the ten digits at every step."""
    blocks = [DeltaBlock(dim=48, heads=3, depth=16, expanded=96) for _ in range(2)]
    return BlockStack(blocks, (3, 3), nn.RMSNorm(48, EPSILON), nn.Linear(48, 10), embedding=nn.Linear(40, 48))
