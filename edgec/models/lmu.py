# SPDX-License-Identifier: Apache-2.0
"""Legendre memory unit that classifies a sequence of scalars, such as the pixels of an image one after another.

Source: N. Chilkuri, C. Eliasmith, "Parallelizing Legendre Memory Unit Training", ICML 2021 (arXiv:2102.11417),
equations 18 to 20, without nonlinear recurrence:

    u_t = relu(e x_t + b_e)            one scalar
    m_t = Abar m_{t-1} + Bbar u_t      Abar, Bbar fixed, from `layers.legendre`
    o_t = relu(W_m m_t + w_x x_t + b)
    y_t = W_o o_t + b_o

Training needs m at the last step only: u times the impulse response (`last`). Our own reading: the sizes 468 and 346
are those that the paper gives for permuted sequential MNIST; 346 (468 + 2) + 10 (346 + 1) + 2 = 166,092 parameters
then are what it calls 165 k.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgec.models.layers.legendre_reading import LegendreRecurrence
from edgec.models.registry import register_model


class LMUClassifier(nn.Module):
    """One step: x float [B, 1], m float [B, order] -> (logits float [B, classes], m_next).

    Args:
        order: width of the memory.
        window: steps that it spans.
        hidden: width of the layer that reads it.
        classes: number of logits.
    """

    def __init__(self, order: int, window: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(1, 1)
        self.memory = LegendreRecurrence(order, window, None)
        self.read_memory = nn.Linear(order, hidden)
        self.read_input = nn.Linear(1, hidden, bias=False)
        self.out = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(0.0)
        with torch.no_grad():
            self.encoder.weight.fill_(1.0)
            self.encoder.bias.zero_()

    def forward(self, x: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """One step of every sequence in the batch; the state of the first step is zero."""
        _, m = self.memory(self._encoded(x), m)
        return self._answer(x, m), m

    def parallel(self, x: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """All steps: x float [B, T, 1] -> (logits float [B, T, classes], m after the last step)."""
        memories, m = self.memory.parallel(self._encoded(x), m)
        return self._answer(x, memories), m

    def last(self, x: Tensor) -> Tensor:
        """Logits float [B, classes] after the last of the steps x float [B, T <= window, 1], from a state of zero."""
        u = self._encoded(x).squeeze(-1)
        return self._answer(x[:, -1], u @ self.memory.response(x.shape[1]))

    def _encoded(self, x: Tensor) -> Tensor:
        return torch.relu(self.encoder(x))

    def _answer(self, x: Tensor, m: Tensor) -> Tensor:
        hidden = torch.relu(self.read_memory(m) + self.read_input(x))
        logits: Tensor = self.out(self.dropout(hidden))
        return logits


@register_model(
    "lmu-psmnist",
    description="one pixel of permuted sequential MNIST, memory of 468 over 784 steps, 10 classes, 166 k parameters",
    source="Chilkuri & Eliasmith, Parallelizing Legendre Memory Unit Training, ICML 2021, arXiv:2102.11417",
    parameters=166_092,
    inputs={"pixel": (1, 1), "m": (1, 468)},
    outputs={"logits": (1, 10), "m_next": (1, 468)},
    states=(("m", "m_next", 0.0),),
)
def lmu_psmnist() -> nn.Module:
    """Pixels one at a time, memory of 468 over 784 steps, 346 hidden units."""
    return LMUClassifier(order=468, window=784, hidden=346, classes=10)
