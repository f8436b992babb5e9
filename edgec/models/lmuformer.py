# SPDX-License-Identifier: Apache-2.0
"""LMUFormer, real-valued and spiking: convolutions over time, then blocks with a Legendre memory instead of attention.

Source: Z. Liu, G. Datta, A. Li, P. A. Beerel, "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre
Memory Units", ICLR 2024 (arXiv:2402.04882). On frames x_t, with c(x) = relu(norm(conv(x))) of 3 taps:

    x   = c(c(c(c(x))));  x = x + conv(x)
    u   = relu(W_u x + b_u)                         one scalar for each block
    m   = Abar m_before + Bbar u                    Legendre memory, fixed (`layers.legendre`)
    h   = relu(W_m m + W_x x + b_h)
    x   = x + norm(W_p h)
    x   = x + relu(norm(W_2 gelu(norm(W_1 x))))
    y   = mean over the last frames of (W_y x + b_y)

Spiking form, lif = the neurons of `layers.lif`: every relu and gelu is a lif behind its normalization, m and W_p h have
one too, as has the convolution beside the skip: what goes from layer to layer are spikes and sums of at most four of
them. Only membranes, u's window and the head's window are states beside the delay lines. Of such sums the spikes of the
convolution beside the skip and those of W_p h count twice.

Plain form, which is what is registered, exported and compiled: normalizations are folded into the layers before them,
and the memory with its reading into taps over u where that takes fewer MACs (`layers.legendre_reading`).

Our own reading: convolutions look back only, two frames each, so that an answer needs no frame after it (the paper's
are symmetric, which costs 5 frames of delay); normalization stands before the activation, where it folds, in the
convolutions too (the authors' code for the real-valued form has it behind); the spiking form is the authors'
`slmu_rnn_conv1d`, not the one with membrane shortcuts, whose normalizations fold into nothing; the mean of the head is
over a window instead of the whole sequence, which on a stream without end would stop to change; a delay line holds
zeros after a reset.

What spikes is chaotic: one spike too many, and all that follows differs for a hundred frames. So nothing between frame
and head may be rounded by int8 alone. The spiking form hears frames in 16 levels (`in_levels`), its neurons count in
whole steps (`layers.lif`), its weights are trained on the grid of int8, and sums reach 3 and 5, of which 255 is a
multiple, because some spikes count twice. The quantizer finds all these steps when calibration reaches their ends: its
stream needs a frame of LOWEST_FRAME and one of HIGHEST_FRAME.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgec.models.layers.causal_conv import CausalConv1d
from edgec.models.layers.legendre_reading import legendre_reading
from edgec.models.layers.lif import LIF
from edgec.models.layers.norm import Normed, folded
from edgec.models.layers.running_mean import RunningMean
from edgec.models.registry import register_model

CONVOLUTIONS = 4
TAPS = 3
LEVEL = 0.34
LOWEST_FRAME, HIGHEST_FRAME = -64 / 17 * LEVEL, 191 / 17 * LEVEL
"""What the spiking form hears of a frame (speech is -1.27 to 3.7): multiples of LEVEL, 16 of them. Between the two ends
are 255 steps of a 17th: where a level ends one of these ends too, and rounding to them first changes nothing."""


class _Stepwise(nn.Module):
    """A part whose two forms are one text: `_run` calls parts with state through `call`, which picks the form.

    States are taken from the front of a list and given back in the same order; `sizes` are their shapes for one stream.
    """

    sizes: list[tuple[int, ...]]

    def reset(self, streams: int) -> list[Tensor]:
        """The states of so many streams before their first frame: zeros."""
        return [torch.zeros(streams, *size) for size in self.sizes]

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One step: x float [B, ...] and the states -> (y, the states after it)."""
        return self._walk(x, state, lambda part: part)

    def parallel(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """All steps: x float [B, T, ...] and the states before -> (y [B, T, ...], the states after the last)."""
        return self._walk(x, state, lambda part: part.parallel)

    def _walk(self, x: Tensor, state: tuple[Tensor, ...], form: Callable[[Any], Any]) -> tuple[Tensor, ...]:
        before, after = iter(state), []

        def call(part: nn.Module, value: Tensor) -> Tensor:
            y: Tensor
            y, now = form(part)(value, next(before))
            after.append(now)
            return y

        return (self._run(x, call), *after)

    def _run(self, x: Tensor, call: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        raise NotImplementedError


class LMUFormer(_Stepwise):
    """The real-valued form; see the module's docstring. `forward` is one step, `parallel` a whole sequence.

    States, in order: `CONVOLUTIONS` + 1 delay lines float [B, 2, inputs or dim]; for each block the last window - 1 of
    u float [B, window - 1, 1], or m float [B, order]; the last frames' scores float [B, averaged, classes].

    Args:
        inputs: width of a frame.
        dim: width of the stream.
        expanded: width inside the feed-forward part.
        order, window: of the Legendre memories.
        blocks: how many.
        averaged: frames that the head's mean spans.
        classes: number of logits.
        dropout: of the feed-forward part and before the head, in training.
    """

    def __init__(
        self,
        inputs: int,
        dim: int,
        expanded: int,
        order: int,
        window: int,
        blocks: int,
        averaged: int,
        classes: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [inputs, *[dim] * CONVOLUTIONS]
        lines = [(TAPS - 1, width) for width in widths]
        memory = legendre_reading(order, window, dim).size
        self.sizes = [*lines, *[memory] * blocks, (averaged, classes)]
        self.embedding = nn.ModuleList(
            Normed(CausalConv1d(widths[i], dim, TAPS, bias=False), dim) for i in range(CONVOLUTIONS)
        )
        self.position = CausalConv1d(dim, dim, TAPS, bias=False)
        self.blocks = nn.ModuleList(_Block(dim, expanded, order, window, dropout) for _ in range(blocks))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, classes)
        self.mean = RunningMean(averaged)

    def _run(self, x: Tensor, call: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        for convolution in self.embedding:
            x = torch.relu(call(convolution, x))
        x = x + call(self.position, x)
        for block in self.blocks:
            x = block(x, call)
        return call(self.mean, self.head(self.dropout(x)))


class _Block(nn.Module):
    """Memory and feed-forward part; `call` runs what has state."""

    def __init__(self, dim: int, expanded: int, order: int, window: int, dropout: float) -> None:
        super().__init__()
        self.encode = nn.Linear(dim, 1)
        self.memory = legendre_reading(order, window, dim)
        self.direct = nn.Linear(dim, dim)
        self.project = Normed(nn.Linear(dim, dim, bias=False), dim)
        self.expand = Normed(nn.Linear(dim, expanded, bias=False), expanded)
        self.contract = Normed(nn.Linear(expanded, dim, bias=False), dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, call: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        u = torch.relu(self.encode(x))
        x = x + self.project(torch.relu(call(self.memory, u) + self.direct(x)))
        return x + torch.relu(self.contract(self.dropout(nn.functional.gelu(self.expand(x)))))


class SpikingLMUFormer(_Stepwise):
    """The spiking form; arguments as `LMUFormer`.

    States, in order: for each of the `CONVOLUTIONS` + 1 convolutions its delay line float [B, 2, inputs or dim] and
    its membranes float [B, dim]; for each block the membrane of u [B, 1], the window of u [B, window - 1, 1] (or the
    memory [B, order]) and the membranes of m [B, order], h [B, dim], the projection [B, dim], and the feed-forward
    part [B, expanded] and [B, dim]; the last frames' scores float [B, averaged, classes].
    """

    def __init__(
        self, inputs: int, dim: int, expanded: int, order: int, window: int, blocks: int, averaged: int, classes: int
    ) -> None:
        super().__init__()
        widths = [inputs, *[dim] * (CONVOLUTIONS + 1)]
        lines = [size for width in widths[:-1] for size in ((TAPS - 1, width), (dim,))]
        memory = [(1,), legendre_reading(order, window, None).size, (order,), (dim,), (dim,), (expanded,), (dim,)]
        self.sizes = [*lines, *memory * blocks, (averaged, classes)]
        self.embedding = nn.ModuleList(Normed(CausalConv1d(width, dim, TAPS, bias=False), dim) for width in widths[:-1])
        self.lifs = nn.ModuleList(LIF() for _ in widths[:-1])
        self.blocks = nn.ModuleList(_SpikingBlock(dim, expanded, order, window) for _ in range(blocks))
        self.head = nn.Linear(dim, classes)
        self.mean = RunningMean(averaged)

    def _run(self, x: Tensor, call: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        before = x = in_levels(x)
        for convolution, lif in zip(self.embedding, self.lifs, strict=True):
            before, x = x, call(lif, call(convolution, x))
        x = before + 2 * x  # the last convolution stands beside a skip; 0 to 3, and below 0 to 5, are exact in int8
        for block in self.blocks:
            x = block(x, call)
        return call(self.mean, self.head(x))


def in_levels(frame: Tensor) -> Tensor:
    """The frame as the spiking form hears it."""
    return torch.round(torch.clamp(frame, LOWEST_FRAME, HIGHEST_FRAME) * (1 / LEVEL)) * LEVEL


class _SpikingBlock(nn.Module):
    """Memory and feed-forward part of spiking neurons; `call` runs what has state."""

    def __init__(self, dim: int, expanded: int, order: int, window: int) -> None:
        super().__init__()
        self.encode = Normed(nn.Linear(dim, 1), 1)
        self.memory = Normed(legendre_reading(order, window, None), order)
        self.mix = Normed(nn.Linear(order + dim, dim, bias=False), dim)
        self.project = Normed(nn.Linear(dim, dim, bias=False), dim)
        self.expand = Normed(nn.Linear(dim, expanded, bias=False), expanded)
        self.contract = Normed(nn.Linear(expanded, dim, bias=False), dim)
        self.lifs = nn.ModuleList(LIF() for _ in range(6))

    def forward(self, x: Tensor, call: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        u_lif, m_lif, h_lif, p_lif, inner, outer = self.lifs
        u = call(u_lif, self.encode(x))
        m = call(m_lif, call(self.memory, u))
        h = call(h_lif, self.mix(torch.cat([m, x], dim=-1)))
        x = x + 2 * call(p_lif, self.project(h))
        return x + call(outer, self.contract(call(inner, self.expand(x))))


FRAMES = {"inputs": 40, "dim": 64, "expanded": 128, "window": 100, "blocks": 1, "averaged": 96, "classes": 10}


def real_form() -> LMUFormer:
    """`lmuformer-spoken-digits` as training has it, with dropout of 0.1."""
    return LMUFormer(**FRAMES, order=64, dropout=0.1)


def spiking_form() -> SpikingLMUFormer:
    """`lmuformer-spiking-spoken-digits` as training has it; the memory is twice as wide as the stream, as theirs."""
    return SpikingLMUFormer(**FRAMES, order=128)


@register_model(
    "lmuformer-spoken-digits",
    description="one frame of 40 log-mel bins, convolutions and a Legendre memory of 100 frames, 10 classes, 89 k MACs",
    source="Liu et al., LMUFormer, ICLR 2024, arXiv:2402.04882",
    row=24,
    parameters=89_099,
    inputs={
        "frame": (1, 40),
        "past1": (1, 2, 40),
        "past2": (1, 2, 64),
        "past3": (1, 2, 64),
        "past4": (1, 2, 64),
        "past5": (1, 2, 64),
        "u": (1, 99, 1),
        "scores": (1, 96, 10),
    },
    outputs={
        "logits": (1, 10),
        "past1_next": (1, 2, 40),
        "past2_next": (1, 2, 64),
        "past3_next": (1, 2, 64),
        "past4_next": (1, 2, 64),
        "past5_next": (1, 2, 64),
        "u_next": (1, 99, 1),
        "scores_next": (1, 96, 10),
    },
    states=(
        ("past1", "past1_next", 0.0),
        ("past2", "past2_next", 0.0),
        ("past3", "past3_next", 0.0),
        ("past4", "past4_next", 0.0),
        ("past5", "past5_next", 0.0),
        ("u", "u_next", 0.0),
        ("scores", "scores_next", 0.0),
    ),
)
def lmuformer_spoken_digits() -> nn.Module:
    """Frames of 40 log-mel bins, 64 channels, one block, a memory of 100 frames, ten digits; plain form."""
    return folded(real_form())


@register_model(
    "lmuformer-spiking-spoken-digits",
    description="the same of leaky integrate-and-fire neurons with membranes as state, 10 classes, 103 k MACs",
    source="Liu et al., LMUFormer, ICLR 2024, arXiv:2402.04882",
    row=24,
    parameters=103_883,
    inputs={
        "frame": (1, 40),
        "past1": (1, 2, 40),
        "v1": (1, 64),
        "past2": (1, 2, 64),
        "v2": (1, 64),
        "past3": (1, 2, 64),
        "v3": (1, 64),
        "past4": (1, 2, 64),
        "v4": (1, 64),
        "past5": (1, 2, 64),
        "v5": (1, 64),
        "v_u": (1, 1),
        "u": (1, 99, 1),
        "v_m": (1, 128),
        "v_h": (1, 64),
        "v_p": (1, 64),
        "v_inner": (1, 128),
        "v_outer": (1, 64),
        "scores": (1, 96, 10),
    },
    outputs={
        "logits": (1, 10),
        "past1_next": (1, 2, 40),
        "v1_next": (1, 64),
        "past2_next": (1, 2, 64),
        "v2_next": (1, 64),
        "past3_next": (1, 2, 64),
        "v3_next": (1, 64),
        "past4_next": (1, 2, 64),
        "v4_next": (1, 64),
        "past5_next": (1, 2, 64),
        "v5_next": (1, 64),
        "v_u_next": (1, 1),
        "u_next": (1, 99, 1),
        "v_m_next": (1, 128),
        "v_h_next": (1, 64),
        "v_p_next": (1, 64),
        "v_inner_next": (1, 128),
        "v_outer_next": (1, 64),
        "scores_next": (1, 96, 10),
    },
    states=(
        ("past1", "past1_next", 0.0),
        ("v1", "v1_next", 0.0),
        ("past2", "past2_next", 0.0),
        ("v2", "v2_next", 0.0),
        ("past3", "past3_next", 0.0),
        ("v3", "v3_next", 0.0),
        ("past4", "past4_next", 0.0),
        ("v4", "v4_next", 0.0),
        ("past5", "past5_next", 0.0),
        ("v5", "v5_next", 0.0),
        ("v_u", "v_u_next", 0.0),
        ("u", "u_next", 0.0),
        ("v_m", "v_m_next", 0.0),
        ("v_h", "v_h_next", 0.0),
        ("v_p", "v_p_next", 0.0),
        ("v_inner", "v_inner_next", 0.0),
        ("v_outer", "v_outer_next", 0.0),
        ("scores", "scores_next", 0.0),
    ),
)
def lmuformer_spiking_spoken_digits() -> nn.Module:
    """The same in spikes; plain form."""
    return folded(spiking_form())
