# SPDX-License-Identifier: Apache-2.0
"""Leaky integrate-and-fire neurons whose membrane is a state: one step at a time or over a whole sequence.

They count whole steps, FIRES of them to twice the threshold, as neurons of hardware do:

    s_t = round(v_{t-1} + x_t)                       x and s cut to int8, -128 .. FIRES; v starts at 0
    z_t = 1 where s_t = FIRES, else 0
    v_t = 0 where z_t, else floor(s_t / 2)

Source: the neuron of LMUFormer (arXiv:2402.04882), h = v + (x - v) / tau with tau = 2, z = h >= threshold, and a hard
reset to 0 (that of the library its authors train with), written over the sum s = 2 h: both the spike and the membrane
are functions of s alone, so that the int8 program takes one addition and two tables. The backward pass has the
derivative of sigmoid(4 (h - threshold)) in place of the step's, and none through the reset, as theirs.

Our own reading: sums and membranes are whole steps. A network of such neurons is chaotic: one that fires a step too
early, because its membrane was rounded, changes what all behind it do for a hundred steps. So rounding is not what the
program does to the neuron but what the neuron is: in float and in int8 it counts alike. And a step brings at most what
makes a neuron at rest fire, and about as much the other way. Training rounds too, with the gradient of the identity.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SLOPE = 4.0  # of the surrogate gradient
LEAST, FIRES = -128, 127
"""Ends of the sum in steps; at the upper one the neuron fires."""


class _Fire(torch.autograd.Function):
    """A whole sequence in steps, time first: x [T, B, C], v [B, C] -> (spikes [T, B, C], v after the last step).

    Of its own because torch would keep and follow eight small tensors a step.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        sums = x.clone()  # not cut: how far beyond firing a sum is, the gradient has to know
        spikes = torch.empty_like(x)
        for now, total, spike in zip(x.clamp(LEAST, FIRES), sums, spikes, strict=True):
            total += v
            whole = now.add_(v).clamp_(LEAST, FIRES).round_()
            torch.ge(whole, FIRES, out=spike)
            v = torch.floor(0.5 * whole) * (1 - spike)
        context.save_for_backward(sums, spikes)
        return spikes, v

    @staticmethod
    def backward(context: Any, spikes: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        sums, fired = context.saved_tensors
        soft = torch.sigmoid(SLOPE * (sums / FIRES - 1))
        backwards = (spikes * (SLOPE / FIRES * soft * (1 - soft))).flip(0)
        kept = (0.5 * (1 - fired) * (sums > LEAST)).flip(0)
        later = last
        for gradient, keep in zip(backwards, kept, strict=True):
            later = gradient.addcmul_(later, keep)
        return backwards.flip(0), later


class LIF(nn.Module):
    """x float [B, C], v float [B, C] -> (spikes 0 or 1 float [B, C], v').

    Args:
        threshold: of the halved sum, above 0.
    """

    def __init__(self, threshold: float = 1.0) -> None:
        super().__init__()
        self.step = 2 * threshold / FIRES

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        least, most = LEAST * self.step, FIRES * self.step
        total = torch.round(torch.clamp(v + torch.clamp(x, least, most), least, most) * (1 / self.step))
        fired = total >= FIRES
        return fired.to(x.dtype), torch.where(fired, 0.0, torch.floor(0.5 * total) * self.step)

    def parallel(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All steps, in order (the reset leaves no other way): x float [B, T, C] -> (spikes [B, T, C], last v)."""
        x, v = x.transpose(0, 1).contiguous() * (1 / self.step), v * (1 / self.step)
        spikes, v = _Fire.apply(x, v)  # type: ignore[no-untyped-call]
        return spikes.transpose(0, 1), v * self.step
