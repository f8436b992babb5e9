# SPDX-License-Identifier: Apache-2.0
"""The keyword GRU against torch's own, its equations in NumPy, and itself in both forms."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.models.registry import get_model
from tests.family_forms import assert_export_computes_the_stream
from tests.torch_modules import run, torch, weights_of

NAME = "gru-spoken-digits"


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_step_equals_its_equations_over_20_frames():
    module = get_model(NAME).build()
    w = weights_of(module, seed=1)
    random = np.random.default_rng(2)
    h, got_h = np.zeros(64), np.zeros((1, 64))
    for _ in range(20):
        x = random.standard_normal(40)
        r = sigmoid(w["rx.weight"] @ x + w["rx.bias"] + w["rh.weight"] @ h)
        z = sigmoid(w["zx.weight"] @ x + w["zx.bias"] + w["zh.weight"] @ h)
        n = np.tanh(w["nx.weight"] @ x + w["nx.bias"] + r * (w["nh.weight"] @ h + w["nh.bias"]))
        h = (1 - z) * n + z * h
        logits, got_h = run(module, x[None], got_h)
        np.testing.assert_allclose(got_h[0], h, atol=1e-4)
        np.testing.assert_allclose(logits[0], w["out.weight"] @ h + w["out.bias"], atol=1e-3)


@pytest.mark.parametrize("steps", [1, 30])
def test_parallel_form_equals_the_steps(steps):
    module = get_model(NAME).build(seed=3)
    random = np.random.default_rng(4)
    x, start = random.standard_normal((5, steps, 40)), random.uniform(-1, 1, (5, 64))
    with torch.no_grad():
        logits, last = module.parallel(*(torch.from_numpy(a.astype(np.float32)) for a in (x, start)))
    h = start
    for t in range(steps):
        wanted, h = run(module, x[:, t], h)
        np.testing.assert_allclose(logits[:, t], wanted, atol=1e-5)
    np.testing.assert_allclose(last, h, atol=1e-5)


def test_recurrence_is_that_of_torch():
    """The same weights in torch.nn.GRU, which has the gates in the order r, z, n and both biases."""
    module = get_model(NAME).build(seed=5)
    theirs = torch.nn.GRU(40, 64, batch_first=True)
    zeros = torch.zeros(64)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.cat([module.rx.weight, module.zx.weight, module.nx.weight]))
        theirs.weight_hh_l0.copy_(torch.cat([module.rh.weight, module.zh.weight, module.nh.weight]))
        theirs.bias_ih_l0.copy_(torch.cat([module.rx.bias, module.zx.bias, module.nx.bias]))
        theirs.bias_hh_l0.copy_(torch.cat([zeros, zeros, module.nh.bias]))
        x = torch.randn(3, 25, 40, generator=torch.Generator().manual_seed(6))
        wanted, after = theirs(x)
        logits, last = module.parallel(x, torch.zeros(3, 64))
        np.testing.assert_allclose(logits, module.out(wanted), atol=1e-5)
    np.testing.assert_allclose(last, after[0], atol=1e-5)


def test_exported_step_computes_the_stream(tmp_path):
    assert_export_computes_the_stream(NAME, tmp_path)
