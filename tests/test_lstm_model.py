# SPDX-License-Identifier: Apache-2.0
"""The keyword LSTM against torch's own, its equations in NumPy, and itself in both forms."""

from __future__ import annotations

import numpy as np

from edgec.models.registry import get_model
from tests.family_forms import assert_export_computes_the_stream, assert_forms_agree, assert_state_keeps_its_size
from tests.torch_modules import run, torch, weights_of

NAME = "lstm-spoken-digits"


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_step_equals_its_equations_over_20_frames():
    module = get_model(NAME).build()
    w = weights_of(module, seed=1)
    random = np.random.default_rng(2)
    h, c, got_h, got_c = np.zeros(48), np.zeros(48), np.zeros((1, 48)), np.zeros((1, 48))
    for _ in range(20):
        x = random.standard_normal(40)
        i, f, g, o = (w[f"{n}x.weight"] @ x + w[f"{n}x.bias"] + w[f"{n}h.weight"] @ h for n in "ifgo")
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits, got_h, got_c = run(module, x[None], got_h, got_c)
        np.testing.assert_allclose(got_c[0], c, atol=1e-4)
        np.testing.assert_allclose(got_h[0], h, atol=1e-4)
        np.testing.assert_allclose(logits[0], w["out.weight"] @ h + w["out.bias"], atol=1e-3)


def test_recurrence_is_that_of_torch():
    """The same weights in torch.nn.LSTM, which has the gates in the order i, f, g, o and both biases."""
    module = get_model(NAME).build(seed=5)
    theirs = torch.nn.LSTM(40, 48, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.cat([getattr(module, f"{n}x").weight for n in "ifgo"]))
        theirs.weight_hh_l0.copy_(torch.cat([getattr(module, f"{n}h").weight for n in "ifgo"]))
        theirs.bias_ih_l0.copy_(torch.cat([getattr(module, f"{n}x").bias for n in "ifgo"]))
        theirs.bias_hh_l0.zero_()
        generator = torch.Generator().manual_seed(6)
        x = torch.randn(3, 25, 40, generator=generator)
        h, c = torch.randn(2, 3, 48, generator=generator)
        wanted, (wanted_h, wanted_c) = theirs(x, (h[None], c[None]))
        logits, got_h, got_c = module.parallel(x, h, c)
        np.testing.assert_allclose(logits, module.out(wanted), atol=1e-5)
    np.testing.assert_allclose(got_h, wanted_h[0], atol=1e-5)
    np.testing.assert_allclose(got_c, wanted_c[0], atol=1e-5)


def test_forms_agree():
    assert_forms_agree(NAME)


def test_state_keeps_its_size():
    assert_state_keeps_its_size(NAME, steps=2000)


def test_exported_step_computes_the_stream(tmp_path):
    assert_export_computes_the_stream(NAME, tmp_path)
