# SPDX-License-Identifier: Apache-2.0
"""The mean over the last steps of a stream, over a window of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgec.models.layers.causal_conv import push


class RunningMean(nn.Module):
    """y_t = (x_t + x_{t-1} + ...) / steps over the last `steps` entries; what came before a reset counts as 0.

    There is no sum that is carried on: neither rounding nor an old error can pile up, however long the stream.

    Args:
        steps: entries of the window.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One step: x float [B, C], past float [B, steps, C], oldest first -> (y [B, C], past')."""
        past = push(past, x)
        return past.mean(1), past

    def parallel(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """All steps: x float [B, T, C] -> (y [B, T, C], past after the last step)."""
        whole = torch.cat([past, x], dim=1)
        mean = functional.avg_pool1d(whole[:, 1:].transpose(1, 2), self.steps, stride=1).transpose(1, 2)
        return mean, whole[:, whole.shape[1] - self.steps :]
