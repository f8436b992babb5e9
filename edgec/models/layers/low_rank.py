# SPDX-License-Identifier: Apache-2.0
"""A linear layer as a product of three small factors (Liang et al. 2023, MCUFormer)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from edgec.errors import UsageError


def rank_of(inputs: int, outputs: int, ratio: float) -> int:
    """The rank that `ratio` stands for: `floor(ratio * min(inputs, outputs))`, at least 1.

    Raises:
        UsageError: ratio is not in (0, 1].
    """
    if not 0.0 < ratio <= 1.0:
        raise UsageError("the rank ratio is out of range", need="0 < ratio <= 1", have=str(ratio))
    return max(1, math.floor(ratio * min(inputs, outputs)))


class LowRankLinear(nn.Module):
    """`y = x (W3 W2 W1)^T + b` with W1 [r, in], W2 [r, r], W3 [out, r]; only the last factor has a bias.

    It takes `r*(in + r + out)` weights instead of `in*out`. Shapes: float [..., in] -> float [..., out].

    Args:
        inputs: width of x.
        outputs: width of y.
        rank: r, the width of the two inner vectors.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.core = nn.Linear(rank, rank, bias=False)
        self.up = nn.Linear(rank, outputs)
        # Orthogonal factors: their product starts with equal singular values, where three random ones in a
        # row would start nearly singular and learn slowly.
        for factor in (self.down, self.core, self.up):
            nn.init.orthogonal_(factor.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """float [..., inputs] -> float [..., outputs]."""
        y: Tensor = self.up(self.core(self.down(x)))
        return y

    def dense(self) -> Tensor:
        """The one matrix [outputs, inputs] that the three factors multiply to."""
        return self.up.weight @ self.core.weight @ self.down.weight
