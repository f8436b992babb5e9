# SPDX-License-Identifier: Apache-2.0
"""Causal convolution over time: whole sequences at once, or a step at a time over a window of the last inputs.

The step is written as "drop the oldest, append the newest, multiply": the compiler recognises that form and keeps the
window as a ring with a cursor, so that nothing moves (docs/spec.md, state).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CausalConv1d(nn.Module):
    """y_t = b + sum_j w_j x_{t-(k-1)+j}, j = 0 .. k-1: the last tap meets the newest input.

    Args:
        inputs: channels of x.
        outputs: channels of y.
        taps: k.
        groups: as torch.nn.Conv1d; `inputs` for a depthwise convolution.
        bias: whether b exists.
    """

    def __init__(self, inputs: int, outputs: int, taps: int, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.taps = taps
        self.conv = nn.Conv1d(inputs, outputs, taps, groups=groups, bias=bias)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One step: x float [B, inputs], past float [B, taps - 1, inputs] (oldest first) -> (y [B, outputs], past')."""
        window = torch.cat([past, x[:, None]], dim=1)
        return self.conv(window.transpose(1, 2)).flatten(1), window[:, 1:]

    def parallel(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """All steps: x float [B, T, inputs], past as in `forward` -> (y [B, T, outputs], past after the last step)."""
        whole = torch.cat([past, x], dim=1)
        return self.conv(whole.transpose(1, 2)).transpose(1, 2), whole[:, whole.shape[1] - (self.taps - 1) :]


def push(window: Tensor, x: Tensor) -> Tensor:
    """Window float [B, L, ...] without its oldest entry and with x [B, ...] as its newest: what a ring holds."""
    return torch.cat([window[:, 1:], x[:, None]], dim=1)
