# SPDX-License-Identifier: Apache-2.0
"""The linear memory of a Legendre memory unit: its matrices, and what they answer to one impulse.

Source: A. Voelker, I. Kajic, C. Eliasmith, "Legendre Memory Units: Continuous-Time Representation in Recurrent
Neural Networks", NeurIPS 2019, equations 1, 2 and the zero-order hold of the appendix; the impulse response after
N. Chilkuri, C. Eliasmith, "Parallelizing Legendre Memory Unit Training", ICML 2021 (arXiv:2102.11417), equation 22.
"""

from __future__ import annotations

import torch
from torch import Tensor


def legendre_memory(order: int, window: float) -> tuple[Tensor, Tensor]:
    """(Abar, Bbar) of the update `m' = Abar m + Bbar u`: float64 [order, order] and [order].

    Discretised by zero-order hold at one step: Abar = exp(A / window), so that every eigenvalue lies inside the unit
    circle. Abar spans many orders of magnitude (1e-7 to 0.99 at order 256): it does not survive one 8-bit scale.

    Args:
        order: number of Legendre coefficients.
        window: how many steps the memory spans.
    """
    i = torch.arange(order, dtype=torch.float64)
    signs = torch.where(i[:, None] < i[None, :], -1.0, (-1.0) ** (i[:, None] - i[None, :] + 1))
    a = (2 * i[:, None] + 1) * signs / window
    b = (2 * i + 1) * (-1.0) ** i / window
    a_bar = torch.linalg.matrix_exp(a)
    b_bar = torch.linalg.solve(a, (a_bar - torch.eye(order, dtype=torch.float64)) @ b)
    return a_bar, b_bar


def impulse_response(a_bar: Tensor, b_bar: Tensor, steps: int) -> Tensor:
    """float64 [steps, order]: row t is Abar^t Bbar, what u = 1 leaves in the memory t steps later."""
    rows, power = b_bar[None, :], a_bar
    while len(rows) < steps:  # doubling: steps t + 2^n from steps t
        rows = torch.cat([rows, rows @ power.T])
        power = power @ power
    return rows[:steps].contiguous()
