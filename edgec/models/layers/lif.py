# SPDX-License-Identifier: Apache-2.0
"""Leaky integrate-and-fire neurons whose membrane is a state: one step at a time or over a whole sequence.

    s_t = v_{t-1} + x_t                              v starts at 0
    z_t = 1 where s_t / 2 >= threshold, else 0
    v_t = 0 where z_t, else max(s_t / 2, LOWEST threshold)

Source: the neuron of LMUFormer (arXiv:2402.04882), h = v + (x - v) / tau with tau = 2, and a hard reset to 0 (that of
the library its authors train with), written over the sum s: both the spike and the membrane are functions of s alone,
so that the int8 program takes one addition and two tables. The backward pass has the derivative of
sigmoid(4 (h - threshold)) in place of the step's, and none through the reset, as theirs.

Our own reading: a membrane does not fall below LOWEST thresholds. So x and s count between two bounds only, the step
cuts them there, which changes nothing, and int8 has steps fine enough for what is left.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SLOPE = 4.0  # of the surrogate gradient
LOWEST = -2.0
"""The least value of a membrane, in thresholds."""


class _Fire(torch.autograd.Function):
    """A whole sequence, time first: x [T, B, C], v [B, C], threshold -> (spikes [T, B, C], v after the last step).

    Of its own because torch would keep and follow four small tensors a step.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, v: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        halves = torch.empty_like(x)
        for now, half in zip(x, halves, strict=True):
            torch.add(v, now, out=half)
            half *= 0.5
            v = half.clamp(min=LOWEST * threshold) * (half < threshold)
        context.save_for_backward(halves)
        context.threshold = threshold
        return (halves >= threshold).to(x.dtype), v

    @staticmethod
    def backward(context: Any, spikes: Tensor, last: Tensor) -> tuple[Tensor, Tensor, None]:
        (halves,) = context.saved_tensors
        soft = torch.sigmoid(SLOPE * (halves - context.threshold))
        backwards = (spikes * (SLOPE * soft * (1 - soft))).flip(0)
        threshold = context.threshold
        kept = 0.5 * ((halves < threshold) & (halves > LOWEST * threshold)).to(halves.dtype).flip(0)
        later = 2 * last
        for gradient, keep in zip(backwards, kept, strict=True):
            later = gradient.addcmul_(later, keep)
        return 0.5 * backwards.flip(0), 0.5 * later, None


class LIF(nn.Module):
    """x float [B, C], v float [B, C] -> (spikes 0 or 1 float [B, C], v').

    Args:
        threshold: of the halved sum, above 0.
    """

    def __init__(self, threshold: float = 1.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        highest = 2 * self.threshold  # more is not needed to fire
        lowest = LOWEST * highest  # less leaves the same membrane
        x = torch.clamp(x, lowest - self.threshold, highest - LOWEST * self.threshold)  # whatever the membrane is
        total = torch.clamp(v + x, lowest, highest)
        fired = total >= highest
        return fired.to(x.dtype), torch.where(fired, 0.0, 0.5 * total)

    def parallel(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All steps, in order (the reset leaves no other way): x float [B, T, C] -> (spikes [B, T, C], last v)."""
        spikes, v = _Fire.apply(x.transpose(0, 1).contiguous(), v, self.threshold)  # type: ignore[no-untyped-call]
        return spikes.transpose(0, 1), v
