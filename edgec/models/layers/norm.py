# SPDX-License-Identifier: Apache-2.0
"""Batch normalization that training needs and a program does not: folded into the layer before it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgec.models.layers.causal_conv import CausalConv1d


class Normed(nn.Module):
    """A layer and a batch normalization of its last axis.

    Args:
        layer: `Linear`, or a `CausalConv1d` or what folds into one: its state passes through. No bias is needed.
        channels: of its result.
    """

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, *state: Tensor) -> Tensor | tuple[Tensor, ...]:
        """One step, x float [B, ...]; for a `Linear` also a whole sequence [B, T, ...]."""
        return self._normed(self.layer(x, *state))

    def parallel(self, x: Tensor, *state: Tensor) -> Tensor | tuple[Tensor, ...]:
        """A whole sequence, x float [B, T, ...], of a layer with state."""
        return self._normed(self.layer.parallel(x, *state))  # type: ignore[operator]

    def _normed(self, result: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        y, *after = result if isinstance(result, tuple) else (result,)
        y = self.norm(y.flatten(0, -2)).view_as(y)
        return (y, *after) if after else y

    def folded(self) -> nn.Module:
        """The layer alone, with other weights: what it computes in evaluation mode."""
        layer = folded(self.layer)
        weighted = layer.conv if isinstance(layer, CausalConv1d) else layer
        if not isinstance(weighted, nn.Linear | nn.Conv1d):
            raise TypeError(f"a normalization cannot be folded into {type(layer).__name__}")
        statistics = (self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var)
        gain, offset, mean, variance = (value.detach().double() for value in statistics if value is not None)
        gain = gain / torch.sqrt(variance + self.norm.eps)
        weight = weighted.weight.detach().double()
        bias = 0.0 if weighted.bias is None else weighted.bias.detach().double()
        weighted.weight = nn.Parameter((weight * gain.view(-1, *(1,) * (weight.ndim - 1))).float())
        weighted.bias = nn.Parameter((offset + gain * (bias - mean)).float())
        return layer


def folded(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode in which every part that has a plain form (a method `folded`) is replaced by it."""
    if hasattr(module, "folded"):
        plain: nn.Module = module.folded()  # type: ignore[operator]
        return plain.eval()
    twin = copy.deepcopy(module).eval()
    for name, child in module.named_children():
        setattr(twin, name, folded(child))
    return twin
