# SPDX-License-Identifier: Apache-2.0
"""Noise in training that imitates the rounding to int8 that comes later: the model learns to bear it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LAYERS: frozenset[Callable[..., Any]] = frozenset((functional.linear, functional.conv1d))
"""What multiplies by weights."""
READERS = LAYERS | {functional.layer_norm, functional.rms_norm, torch.softmax}
"""What reads a value of its own scale: a sum, a state, scores."""
WRITERS = READERS | {functional.silu, functional.gelu, functional.normalize, torch.sigmoid, torch.tanh}
"""What writes one."""
POOL = 1 << 22  # random numbers of an epoch; drawing new ones for every value takes longer than all else


class RoundingNoise(TorchFunctionMode):
    """While it is entered, what functions read and write gets uniform noise of some steps of int8 over its range.

    There is none before the first `draw`.

    Args:
        readers: functions whose first argument gets noise.
        writers: functions whose result gets noise.
        shrink: gradients flow through the range too, which draws outliers in.
    """

    def __init__(
        self,
        readers: frozenset[Callable[..., Any]] = READERS,
        writers: frozenset[Callable[..., Any]] = WRITERS,
        shrink: bool = True,
    ) -> None:
        super().__init__()
        self.readers, self.writers, self.shrink = readers, writers, shrink
        self.steps, self._random, self._pool = 0.0, torch.Generator(), torch.zeros(0)

    def draw(self, steps: float, random: torch.Generator) -> None:
        """Noise for an epoch, so many steps wide (rounding to nearest has 1; 0 is none), from a source of its own."""
        self.steps = steps
        self._random.manual_seed(int(torch.randint(2**31, (), generator=random)))
        if steps:
            self._pool = torch.rand(POOL, generator=self._random) - 0.5

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, with noise where it is one of those."""
        if not self.steps:
            return func(*args, **(kwargs or {}))
        if func in self.readers:
            args = (self._noisy(args[0]), *args[1:])
        result = func(*args, **(kwargs or {}))
        return self._noisy(result, positive=func is torch.softmax) if func in self.writers else result

    def _noisy(self, x: Tensor, positive: bool = False) -> Tensor:
        """x with noise; what a mask has cut off (scores of minus infinity, weights of 0) stays so."""
        while len(self._pool) < x.numel():
            self._pool = self._pool.repeat(2)
        first = int(torch.randint(len(self._pool) - x.numel() + 1, (), generator=self._random))
        noise = self._pool[first : first + x.numel()].view(x.shape)
        noise = noise * x.detach().sign() if positive else noise
        added: Tensor = _Noise.apply(x, noise, self.steps / 255, self.shrink)
        return added


class _Noise(torch.autograd.Function):
    """x + share (max(x) - min(x)) noise, over what is finite; with `shrink` both ends get their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, noise: Tensor, share: float, shrink: bool) -> Tensor:
        """Remembers where the ends are."""
        low, high = x.aminmax()
        finite = x if low.isfinite() else x.nan_to_num(neginf=0.0)
        low = low if finite is x else finite.amin()
        ctx.share, ctx.shrink = share, shrink
        ctx.save_for_backward(noise, finite)
        return torch.add(x, noise, alpha=share * float(high - low))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of x alone."""
        (gradient,), (noise, finite) = gradients, ctx.saved_tensors
        if ctx.shrink:
            pull = ctx.share * torch.dot(gradient.reshape(-1), noise.reshape(-1))
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            gradient.view(-1)[finite.argmax()] += pull
            gradient.view(-1)[finite.argmin()] -= pull
        return gradient, None, None, None
