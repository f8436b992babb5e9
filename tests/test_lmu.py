# SPDX-License-Identifier: Apache-2.0
"""The Legendre memory unit that classifies sequences of scalars against its equations in NumPy, in all its forms."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.models.registry import get_model
from tests.torch_modules import run, torch

NAME, ORDER = "lmu-psmnist", 468


def exponential(a: np.ndarray) -> np.ndarray:
    """exp(a) by its series at a / 4096, squared twelve times."""
    term = total = np.eye(len(a))
    for k in range(1, 14):
        term = term @ a / (4096 * k)
        total = total + term
    return np.linalg.matrix_power(total, 4096)


def test_step_equals_its_equations() -> None:
    """Abar and Bbar from the paper's continuous matrices, u held over a step, in float64."""
    module = get_model(NAME).build(seed=1)
    w = {name: value.double().numpy() for name, value in module.state_dict().items()}
    i, j = np.indices((ORDER, ORDER))
    a = (2 * i + 1) / 784 * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    b = (2 * np.arange(ORDER) + 1) / 784 * (-1.0) ** np.arange(ORDER)
    held = exponential(
        np.block([[a, b[:, None]], [np.zeros((1, ORDER + 1))]])
    )  # one step of m' = a m + b u with u constant
    random, m, got = np.random.default_rng(2), np.zeros(ORDER), np.zeros((1, ORDER))
    for _ in range(30):
        x = random.random(1)
        u = np.maximum(w["encoder.weight"][0] * x + w["encoder.bias"], 0)
        m = held[:-1, :-1] @ m + held[:-1, -1] * u
        o = w["read_memory.weight"] @ m + w["read_memory.bias"] + w["read_input.weight"][:, 0] * x
        logits, got = run(module, x[None], got)
        np.testing.assert_allclose(got[0], m, atol=1e-5)
        wanted = w["out.weight"] @ np.maximum(o, 0) + w["out.bias"]
        np.testing.assert_allclose(logits[0], wanted, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 97, 784])
def test_the_form_for_training_gives_the_answer_of_the_last_step(steps: int) -> None:
    module = get_model(NAME).build(seed=3)
    x = torch.from_numpy(np.random.default_rng(4).random((2, steps, 1)).astype(np.float32))
    with torch.no_grad():
        wanted, _ = module.parallel(x, torch.zeros(2, ORDER))
        np.testing.assert_allclose(module.last(x), wanted[:, -1], atol=1e-4)
