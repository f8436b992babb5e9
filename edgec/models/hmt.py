# SPDX-License-Identifier: Apache-2.0
"""Hierarchical memory transformer: segments of a stream, each read with what a memory of earlier segments recalls.

Source: Z. He et al., "HMT: Hierarchical Memory Transformer for Efficient Long Context Language Processing", NAACL 2025
(arXiv:2405.06067), section 3; row 1. For segment x_n of L frames, with E = LN(embedding(x_n)) and f a transformer:

    q_n = last(f([s; E[:L/2]; s]))                         summary; s is learned
    p_n = softmax(LN(W_k^T W_q q_n) M^T / sqrt(D)) M       recall from the filled slots of the memory M [slots, D]
    H   = f([p_n; S; E; p_n])                              S: the last k frames of segment n - 1, embedded
    m_n = last(H), pushed into M, first in, first out

Our own reading: the paper wraps a language model and gives logits for every token; here a segment of frames has one
answer, `head(mean of H at the frames of the segment)`. f is an encoder of pre-norm blocks without a mask (the paper's
backbones are causal) with learned positions and LN at its end, so m_n has the size of an LN row whatever came before.
That LN and the one of E have no gains: what is recalled and what is heard stand in one tensor, which int8 gives one
scale, and come in one size. (With gains, and E as it is, recalled rows grew to four times the size of heard ones.)
S is kept embedded, which is the same number as embedding it again. Which slots are filled is a ring of ones beside the
memory (see `layers.slot_memory`). Training: gradients flow through the memory within one call of `parallel`.

A step is a segment. `parallel` takes segments [B, S, L, inputs], which are frames [B, S * L, inputs] seen through
`frames.unflatten(1, (-1, L))`, and gives logits [B, S, classes]; the state of a fresh stream is zero. All summaries
are one call of f; only recall and the segments themselves wait for the segment before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgec.models.layers.causal_conv import push
from edgec.models.layers.slot_memory import SlotRead
from edgec.models.registry import register_model
from edgec.models.vit import Block


class HMT(nn.Module):
    """One step: x float [B, L, inputs], memory float [B, slots, D], filled float [B, slots], sensory float [B, k, D].

    -> logits float [B, classes] and the states after it.

    Args:
        inputs: width of a frame.
        segment: L, frames of a segment.
        dim: D.
        depth: blocks of the transformer.
        heads: attention heads; divides D.
        hidden: width between the two layers of a block's MLP.
        sensory: k, frames of the segment before that are seen again.
        classes: number of logits.
    """

    def __init__(
        self, inputs: int, segment: int, dim: int, depth: int, heads: int, hidden: int, sensory: int, classes: int
    ) -> None:
        super().__init__()
        self.segment, self.sensory = segment, sensory
        self.embedding = nn.Sequential(nn.Linear(inputs, dim), nn.LayerNorm(dim, elementwise_affine=False))
        self.start = nn.Parameter(0.5 * torch.randn(1, 1, dim))
        self.position = nn.Parameter(0.1 * torch.randn(1, sensory + segment + 2, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.recall = SlotRead(dim, dim, dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor, memory: Tensor, filled: Tensor, sensory: Tensor) -> tuple[Tensor, ...]:
        """One segment of every sequence in the batch; the state of the first is zero."""
        e = self.embedding(x)
        logits, memory, filled = self._segment(self._summary(e), e, memory, filled, sensory)
        return logits, memory, filled, e[:, self.segment - self.sensory :]

    def parallel(self, x: Tensor, memory: Tensor, filled: Tensor, sensory: Tensor) -> tuple[Tensor, ...]:
        """All segments: x float [B, S, L, inputs] -> logits float [B, S, classes] and the state after the last."""
        e = self.embedding(x)
        summaries = self._summary(e.flatten(0, 1)).unflatten(0, e.shape[:2])
        logits = []
        for q, segment in zip(summaries.unbind(1), e.unbind(1), strict=True):
            answer, memory, filled = self._segment(q, segment, memory, filled, sensory)
            sensory = segment[:, self.segment - self.sensory :]
            logits.append(answer)
        return torch.stack(logits, dim=1), memory, filled, sensory

    def _summary(self, e: Tensor) -> Tensor:
        """q_n float [B, D] of embedded segments [B, L, D]."""
        start = self.start.expand(len(e), -1, -1)
        return self._transform(torch.cat([start, e[:, : self.segment // 2], start], dim=1))[:, -1]

    def _segment(
        self, q: Tensor, e: Tensor, memory: Tensor, filled: Tensor, sensory: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(logits, memory after the segment, which of its slots are filled)."""
        p = self.recall(q, memory, filled)[:, None]
        h = self._transform(torch.cat([p, sensory, e, p], dim=1))
        logits: Tensor = self.head(h[:, 1 + self.sensory : -1].mean(dim=1))
        return logits, push(memory, h[:, -1]), push(filled, torch.ones_like(filled[:, 0]))

    def _transform(self, x: Tensor) -> Tensor:
        """f: float [B, T, D] -> float [B, T, D]."""
        x = x + self.position[:, : x.shape[1]]
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.norm(x)
        return y


@register_model(
    "hmt-spoken-digits",
    description="one segment of 8 frames of 40 log-mel bins, memory of 16 segments, 10 classes, 506 k MACs a segment",
    source="He et al., HMT: Hierarchical Memory Transformer, NAACL 2025, arXiv:2405.06067",
    parameters=32_330,
    inputs={"segment": (1, 8, 40), "memory": (1, 16, 40), "filled": (1, 16), "sensory": (1, 2, 40)},
    outputs={"logits": (1, 10), "memory_next": (1, 16, 40), "filled_next": (1, 16), "sensory_next": (1, 2, 40)},
    states=(("memory", "memory_next", 0.0), ("filled", "filled_next", 0.0), ("sensory", "sensory_next", 0.0)),
    row=1,
)
def hmt_spoken_digits() -> nn.Module:
    """Segments of 8 frames, width 40, 2 blocks of 2 heads, hidden 80, 16 slots, 2 frames seen again."""
    return HMT(inputs=40, segment=8, dim=40, depth=2, heads=2, hidden=80, sensory=2, classes=10)
