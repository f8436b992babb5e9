# SPDX-License-Identifier: Apache-2.0
"""A memory of slots that is read by attention and written a slot, or a share of every slot, at a time.

    read:   p = softmax(LN(x W_q W_k) M^T / sqrt(dim) + 10 (filled - 1)) M     (values are the slots themselves)
    write:  `causal_conv.push`, first in, first out; or `GatedWrite`

Source of the read: Z. He et al., "HMT: Hierarchical Memory Transformer for Efficient Long Context Language Processing",
NAACL 2025 (arXiv:2405.06067), memory retrieval. A read does not depend on the order of the slots, so that a memory that
is pushed is a ring to the compiler.

Our reading: the query is multiplied by W_k and not every slot, the same number by associativity at the cost of one
small product, and then normalised (A. Henry et al., "Query-Key Normalization for Transformers", 2020,
arXiv:2010.04245), with sqrt(dim) in the place of sqrt(depth). Slots that are rows of an LN have the size sqrt(dim), so
that scores are at most sqrt(dim) times the LN's gains; without it training let them grow past 200, and what tells the
slots apart was lost in 8 bits. The authors' code lets the memory grow from one slot, which has no static shape. Here
an empty slot is zero, and `filled`, a ring of its own that a 1 is pushed into with every slot, takes 10 off its score:
it has less than 1 / 20,000 of the weight of a full one of equal score, and a memory that nothing was written to answers
with zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMPTY = 10.0
"""What an empty slot's score lacks."""


class SlotRead(nn.Module):
    """x float [B, inputs], slots float [B, N, dim], filled float [B, N] -> float [B, dim].

    Args:
        inputs: width of the query.
        dim: width of a slot.
        depth: width in which query and slot are compared.
    """

    def __init__(self, inputs: int, dim: int, depth: int) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.query = nn.Linear(inputs, depth, bias=False)
        self.key = nn.Linear(depth, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, slots: Tensor, filled: Tensor) -> Tensor:
        """What the slots answer; `filled` is 1 where one was written and 0 where not."""
        scores = self.norm(self.key(self.query(x)))[:, None] @ slots.transpose(1, 2)
        weights = torch.softmax(scores * self.scale + (EMPTY * filled - EMPTY)[:, None], dim=-1)
        return (weights @ slots)[:, 0]


class GatedWrite(nn.Module):
    """Every slot moves towards the new content by a gate of its own: M_i' = M_i + g_i (c - M_i).

    g = sigmoid(x W_g + b), c = x W_c. Shapes: x float [B, inputs], slots float [B, N, dim] -> slots' likewise.

    Args:
        inputs: width of x.
        slots: N.
        dim: width of a slot.
        bias: b at the start; below 0 slots keep what they hold.
    """

    def __init__(self, inputs: int, slots: int, dim: int, bias: float = -2.0) -> None:
        super().__init__()
        self.gate = nn.Linear(inputs, slots)
        self.content = nn.Linear(inputs, dim)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor, slots: Tensor) -> Tensor:
        """The slots after the write."""
        g = torch.sigmoid(self.gate(x))[:, :, None]
        after: Tensor = slots + g * (self.content(x)[:, None] - slots)
        return after
