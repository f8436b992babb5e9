# SPDX-License-Identifier: Apache-2.0
"""A linear reading of a Legendre memory, y_t = W m_t, in the two forms that a step can have.

    recurrent   m_t = [Abar | Bbar] [m_{t-1}; u_t], y_t = W m_t          state m [order]
    taps        y_t = sum_s (W Abar^s Bbar) u_{t-s}, s = 0 .. window-1     state: the last window - 1 of u

Both are exact up to `window` steps after a reset, the length of the memory; after that the taps forget what is older
while the recurrence keeps a fading rest. The recurrent form takes order (order + 1) MACs and order * outputs to read,
the taps take window * outputs. Without W (y = m) reading is free and the taps take window * order. Taps have no
rounding that comes round again, and no Abar, whose entries span too many orders of magnitude for int8.

Source: equations 18 to 26 of N. Chilkuri, C. Eliasmith, "Parallelizing Legendre Memory Unit Training", ICML 2021
(arXiv:2102.11417); the fold of W into the response is our own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgec.models.layers.causal_conv import CausalConv1d
from edgec.models.layers.legendre import impulse_response, legendre_memory


def step_macs(order: int, window: int, outputs: int | None) -> dict[str, int]:
    """Multiply-accumulates of one step in each form; `outputs` rows of W, None where y is m itself."""
    read = 0 if outputs is None else order * outputs
    return {
        "recurrent": order * (order + 1) + read,
        "taps": window * (order if outputs is None else outputs),
    }


def legendre_reading(order: int, window: int, outputs: int | None) -> LegendreRecurrence | LegendreTaps:
    """The form that takes fewer MACs a step (see `step_macs`); the taps when both take as many."""
    macs = step_macs(order, window, outputs)
    form = LegendreRecurrence if macs["recurrent"] < macs["taps"] else LegendreTaps
    return form(order, window, outputs)


class _Reading(nn.Module):
    """What both forms have: the matrices of the memory, fixed, and W, learned and without bias.

    Args:
        order: width of the memory.
        window: steps that it spans.
        outputs: rows of W, or None for y = m.
    """

    def __init__(self, order: int, window: int, outputs: int | None) -> None:
        super().__init__()
        self.order, self.window = order, window
        self.a_bar, self.b_bar = legendre_memory(order, window)  # float64; no buffers: they follow from the sizes
        self.read = None if outputs is None else nn.Linear(order, outputs, bias=False)


class LegendreRecurrence(_Reading):
    """u float [B, 1], m float [B, order] -> (y float [B, outputs], m')."""

    transition: Tensor

    def __init__(self, order: int, window: int, outputs: int | None) -> None:
        super().__init__(order, window, outputs)
        self.size: tuple[int, ...] = (order,)
        transition = torch.cat([self.a_bar, self.b_bar[:, None]], dim=1).float()
        self.register_buffer("transition", transition, persistent=False)
        self._response = torch.empty(0, order)  # of the last number of steps asked for

    def forward(self, u: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        m = functional.linear(torch.cat([m, u], dim=1), self.transition)
        return self._read(m), m

    def parallel(self, u: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """All steps: u float [B, T, 1] -> (y float [B, T, outputs], m after the last step)."""
        memories = []
        for piece in u.split(self.window, dim=1):  # a piece is a triangular product: quadratic in its length
            steps = piece.shape[1]
            response = self.response(steps).to(u.dtype)
            history = functional.pad(piece.squeeze(2), (steps - 1, 0)).unfold(1, steps, 1)
            memories.append(history @ response + self._fading(m, steps))
            m = memories[-1][:, -1]
        return self._read(torch.cat(memories, dim=1)), m

    def response(self, steps: int) -> Tensor:
        """float [steps, order]: what u = 1 that many steps before the last has left in m, the oldest first."""
        if len(self._response) != steps:
            self._response = impulse_response(self.a_bar, self.b_bar, steps).flip(0).float()
        return self._response

    def _fading(self, m: Tensor, steps: int) -> Tensor:
        """float [B, steps, order]: what is left of m after 1, 2, ... steps."""
        rows, power = (m.double() @ self.a_bar.T)[:, None], self.a_bar
        while rows.shape[1] < steps:
            rows = torch.cat([rows, rows @ power.T], dim=1)
            power = power @ power
        return rows[:, :steps].to(m.dtype)

    def _read(self, m: Tensor) -> Tensor:
        return m if self.read is None else self.read(m)


class LegendreTaps(_Reading):
    """u float [B, 1], past float [B, window - 1, 1] (oldest first) -> (y float [B, outputs], past').

    Its plain form (`folded`) is a causal convolution over u.
    """

    response: Tensor

    def __init__(self, order: int, window: int, outputs: int | None) -> None:
        super().__init__(order, window, outputs)
        self.size: tuple[int, ...] = (window - 1, 1)
        response = impulse_response(self.a_bar, self.b_bar, window).flip(0).T.float()  # [order, window]
        self.register_buffer("response", response, persistent=False)

    def taps(self) -> Tensor:
        """float [outputs, window]: the last column meets the newest u."""
        return self.response if self.read is None else self.read.weight @ self.response

    def forward(self, u: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        y, past = self.parallel(u[:, None], past)
        return y[:, 0], past

    def parallel(self, u: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """All steps: u float [B, T, 1] -> (y float [B, T, outputs], past after the last step)."""
        whole = torch.cat([past, u], dim=1)
        history = whole.squeeze(2).unfold(1, self.window, 1)
        return history @ self.taps().T, whole[:, whole.shape[1] - (self.window - 1) :]

    def folded(self) -> CausalConv1d:
        """The same as a convolution of `window` taps with weights of its own."""
        taps = self.taps().detach()
        plain = CausalConv1d(1, len(taps), taps=self.window, bias=False)
        plain.conv.weight = nn.Parameter(taps[:, None].clone())
        return plain
