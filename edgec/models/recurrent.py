# SPDX-License-Identifier: Apache-2.0
"""Recurrent memory: one step of a Legendre memory unit, its state passed in and out.

Source: A. Voelker, I. Kajic, C. Eliasmith, "Legendre Memory Units: Continuous-Time Representation in
Recurrent Neural Networks", NeurIPS 2019. A linear memory m keeps the last `window` values of a scalar u as
coefficients of Legendre polynomials; a nonlinear state h reads it:

    u  = ex x + eh h
    m' = m + A m + B u
    h' = tanh(wx x + wm m' + wh h)
    y  = out h'

A and B start as the paper's matrices, discretised by zero-order hold at one step: I + A = exp(A_c / window),
so that every eigenvalue of I + A lies inside the unit circle. Our own reading: the update is written as a sum
(m + A m), so that 8-bit weights hold the small matrix A instead of one that is nearly the identity; the
encoder of m into u is left out; none of the layers has a bias but the last.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgec.models.layers.legendre import legendre_memory
from edgec.models.registry import register_model


class RecurrentMemory(nn.Module):
    """One step: x float [B, inputs], h float [B, hidden], m float [B, memory] -> (y, h_next, m_next).

    Args:
        inputs: width of x.
        hidden: width of the nonlinear state h.
        memory: width of the linear memory m.
        outputs: width of y.
        window: steps that the memory spans at the start of training.
    """

    def __init__(self, inputs: int, hidden: int, memory: int, outputs: int, window: float) -> None:
        super().__init__()
        self.ex = nn.Linear(inputs, 1, bias=False)
        self.eh = nn.Linear(hidden, 1, bias=False)
        self.A = nn.Linear(memory, memory, bias=False)
        self.B = nn.Linear(1, memory, bias=False)
        self.wx = nn.Linear(inputs, hidden, bias=False)
        self.wm = nn.Linear(memory, hidden, bias=False)
        self.wh = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, outputs)
        a, b = legendre_memory(memory, window)
        with torch.no_grad():
            self.A.weight.copy_(a - torch.eye(memory, dtype=a.dtype))  # the update is written as m + A m
            self.B.weight.copy_(b[:, None])

    def forward(self, x: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of every sequence in the batch; the state of the first step is zero."""
        h_next, m_next = self._advance(self.ex(x), self.wx(x), h, m)
        return self.out(h_next), h_next, m_next

    def parallel(self, x: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All steps: x float [B, T, inputs] -> (y float [B, T, outputs], h and m after the last step).

        What does not depend on the state is one product over all steps.
        """
        seen = []
        for ex, wx in zip(self.ex(x).unbind(1), self.wx(x).unbind(1), strict=True):
            h, m = self._advance(ex, wx, h, m)
            seen.append(h)
        return self.out(torch.stack(seen, dim=1)), h, m

    def _advance(self, ex: Tensor, wx: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        m_next = m + self.A(m) + self.B(ex + self.eh(h))
        return torch.tanh(wx + self.wm(m_next) + self.wh(h)), m_next


@register_model(
    "recurrent-16-64-32",
    description="one step of a recurrent memory with two states, 16 inputs, 10 outputs, 9 k MACs",
    source="Voelker et al., Legendre Memory Units, NeurIPS 2019",
    parameters=8_954,
    inputs={"x": (1, 16), "h": (1, 64), "m": (1, 32)},
    outputs={"y": (1, 10), "h_next": (1, 64), "m_next": (1, 32)},
    states=(("h", "h_next", 0.0), ("m", "m_next", 0.0)),
)
def recurrent_16_64_32() -> nn.Module:
    """x [16], h [64], m [32] over a window of 64 steps, y [10]."""
    return RecurrentMemory(inputs=16, hidden=64, memory=32, outputs=10, window=64.0)
