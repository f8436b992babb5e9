# SPDX-License-Identifier: Apache-2.0
"""Aaren on audio features: attention of learned queries as a recurrent network with a running softmax.

Source: L. Feng, F. Tung, H. Hajimirsadeghi, M. O. Ahmed, Y. Bengio, G. Mori, "Attention as an RNN", 2024
(arXiv:2405.13956); row 25. A block, on x [D], with one learned query for each head, the same at every step:

    s, v = q^T W_k LN(x), heads of W_v LN(x)
    m'   = max(m, s)
    u'   = u exp(m - m') + exp(s - m')
    w'   = w exp(m - m') + v exp(s - m')
    x    = x + W_o RMSNorm(w' / u')
    x    = x + W_2 relu(W_1 LN(x))

State of a block: m, u [H] and w [H, d], whatever the length of the stream. The training form is a scan
(`layers.running_softmax`).

What it remembers: a weighted mean over everything since the last reset. The query does not depend on the input, so
nothing is ever forgotten: on a stream without an end the mean settles and a new word hardly moves it. The program is
for utterances with a reset before each.

Our own reading: query and key projection are both learned and meet nowhere else, so the layer keeps their product
q^T W_k, one row for each head; RMSNorm before W_o, because a mean shrinks as it settles; m starts at -10,000 (see the
layer). Frames enter through a causal convolution over 5 of them, because a mean keeps no order; the paper adds
positions, which would bound the stream.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgec.models.layers.block_stack import BlockStack
from edgec.models.layers.causal_conv import CausalConv1d
from edgec.models.layers.running_softmax import Running, softmax_scan, softmax_step
from edgec.models.registry import register_model


class AarenBlock(nn.Module):
    """One block: x float [B, D], m and u float [B, H], w float [B, H, d] -> (x, m, u, w).

    Args:
        dim: D, the width of the stream.
        heads: H; d is D / H.
        expanded: width of the FFN.
    """

    def __init__(self, dim: int, heads: int, expanded: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.score = nn.Linear(dim, heads, bias=False)
        self.value = nn.Linear(dim, dim)
        self.read_norm = nn.RMSNorm(dim, 1e-5)
        self.projection = nn.Linear(dim, dim)
        self.expand, self.contract = nn.Linear(dim, expanded), nn.Linear(expanded, dim)

    def forward(self, x: Tensor, m: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        return self._block(x, (m, u, w), softmax_step)

    def parallel(self, x: Tensor, m: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        """All steps: x float [B, T, D] -> the same, and m, u, w after the last step."""
        return self._block(x, (m, u, w), softmax_scan)

    def _block(
        self, x: Tensor, state: Running, attend: Callable[[Tensor, Tensor, Running], tuple[Tensor, Running]]
    ) -> tuple[Tensor, ...]:
        normed = self.norm1(x)
        read, state = attend(self.score(normed), self.value(normed).unflatten(-1, (self.heads, -1)), state)
        x = x + self.projection(self.read_norm(read.flatten(-2)))
        return x + self.contract(torch.relu(self.expand(self.norm2(x)))), *state


@register_model(
    "aaren-spoken-digits",
    description="one step of a keyword Aaren on 40 log-mel bins, 2 blocks of 4 heads of 12, 10 classes",
    source="Feng et al., Attention as an RNN, 2024, arXiv:2405.13956",
    parameters=39_226,
    inputs={
        "frame": (1, 40),
        "past": (1, 4, 40),
        "m0": (1, 4),
        "u0": (1, 4),
        "w0": (1, 4, 12),
        "m1": (1, 4),
        "u1": (1, 4),
        "w1": (1, 4, 12),
    },
    outputs={
        "logits": (1, 10),
        "past_next": (1, 4, 40),
        "m0_next": (1, 4),
        "u0_next": (1, 4),
        "w0_next": (1, 4, 12),
        "m1_next": (1, 4),
        "u1_next": (1, 4),
        "w1_next": (1, 4, 12),
    },
    states=(
        ("past", "past_next", 0.0),
        ("m0", "m0_next", -10_000.0),
        ("u0", "u0_next", 0.0),
        ("w0", "w0_next", 0.0),
        ("m1", "m1_next", -10_000.0),
        ("u1", "u1_next", 0.0),
        ("w1", "w1_next", 0.0),
    ),
    row=25,
)
def aaren_spoken_digits() -> nn.Module:
    """Frames of 40 log-mel bins, two blocks of width 48, logits of the ten digits at every step."""
    blocks = [AarenBlock(dim=48, heads=4, expanded=96) for _ in range(2)]
    stages = [CausalConv1d(40, 48, taps=5), *blocks]
    return BlockStack(stages, (1, 3, 3), nn.LayerNorm(48), nn.Linear(48, 10))
