# SPDX-License-Identifier: Apache-2.0
"""The running softmax and Aaren against masked softmax attention in NumPy (float64), and their forms."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.models.registry import get_model
from tests.family_forms import assert_export_computes_the_stream, assert_forms_agree, assert_state_keeps_its_size
from tests.torch_modules import run, torch, weights_of

NAME = "aaren-spoken-digits"


def prefix_attention(score, value):
    """Row t of softmax(score + causal mask) times the values: score [T, H], value [T, H, d]."""
    masked = np.where(np.tri(len(score)).astype(bool), score.T[:, None, :], -np.inf)  # [H, T, T]
    weights = np.exp(masked - masked.max(-1, keepdims=True))
    return np.einsum("hti,ihd->thd", weights / weights.sum(-1, keepdims=True), value)


def empty(heads, d):
    return torch.full((1, heads), -10_000.0), torch.zeros(1, heads), torch.zeros(1, heads, d)


@pytest.mark.parametrize(("steps", "spread"), [(1, 1), (2, 1), (31, 1), (64, 5), (100, 30)])
def test_step_and_scan_are_masked_softmax(steps, spread):
    """Also where the scores lie 60 above or below each other, and where exp of all of them is 0."""
    from edgec.models.layers.running_softmax import softmax_scan, softmax_step

    random = np.random.default_rng(steps)
    score, value = spread * random.standard_normal((steps, 3)), random.standard_normal((steps, 3, 4))
    score[:, 2] -= score[:, 2].max() + 500
    wanted = prefix_attention(score, value)
    s, v = (torch.from_numpy(x.astype(np.float32))[None] for x in (score, value))
    means, last = softmax_scan(s, v, empty(3, 4))
    np.testing.assert_allclose(means[0], wanted, atol=2e-5)
    state = empty(3, 4)
    for t in range(steps):
        mean, state = softmax_step(s[:, t], v[:, t], state)
        np.testing.assert_allclose(mean[0], wanted[t], atol=2e-5)
    for a, b in zip(last, state, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cut", [1, 17, 39])
def test_merge_of_two_stretches_is_the_whole(cut):
    from edgec.models.layers.running_softmax import merge, softmax_scan

    random = np.random.default_rng(cut)
    s = torch.from_numpy(4 * random.standard_normal((1, 40, 3)))
    v = torch.from_numpy(random.standard_normal((1, 40, 3, 4)))
    nothing = tuple(x.double() for x in empty(3, 4))
    _, whole = softmax_scan(s, v, nothing)
    _, first = softmax_scan(s[:, :cut], v[:, :cut], nothing)
    _, second = softmax_scan(s[:, cut:], v[:, cut:], nothing)
    for a, b in zip(merge(first, second), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def layer_norm(x, w, name):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x, w, name):
    return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0)


def test_model_equals_its_equations_over_15_frames():
    """Every step attends anew over all that the block has seen; no running state."""
    module = get_model(NAME).build()
    w = weights_of(module, seed=1)
    frames = np.random.default_rng(2).standard_normal((15, 40))
    padded = np.concatenate([np.zeros((4, 40)), frames])
    kernel = w["stages.0.conv.weight"]  # [48, 40, 5]
    stream = [np.einsum("oij,ji->o", kernel, padded[t : t + 5]) + w["stages.0.conv.bias"] for t in range(15)]
    for i in (1, 2):
        own = {n.removeprefix(f"stages.{i}."): v for n, v in w.items() if n.startswith(f"stages.{i}.")}
        normed = [layer_norm(x, own, "norm1") for x in stream]
        score = np.array([linear(x, own, "score") for x in normed])
        value = np.array([linear(x, own, "value").reshape(4, 12) for x in normed])
        read = prefix_attention(score, value)
        for t, x in enumerate(stream):
            normed = read[t].ravel() / np.sqrt((read[t] ** 2).mean() + 1e-5) * own["read_norm.weight"]
            x = x + linear(normed, own, "projection")
            inner = np.maximum(linear(layer_norm(x, own, "norm2"), own, "expand"), 0)
            stream[t] = x + linear(inner, own, "contract")
    wanted = [linear(layer_norm(x, w, "norm"), w, "head") for x in stream]

    record = get_model(NAME)
    state = [np.full(record.inputs[source], reset) for source, _, reset in record.states]
    for t in range(15):
        logits, *state = run(module, frames[t : t + 1], *state)
        np.testing.assert_allclose(logits[0], wanted[t], atol=2e-3)


def test_memory_becomes_a_mean_over_everything():
    """What the model card warns of: after 5,000 frames of one kind, ten of another hardly move what is read."""
    from edgec.models.layers.running_softmax import softmax_scan

    score, value = torch.zeros(1, 5010, 1), torch.zeros(1, 5010, 1, 1)
    value[:, 5000:] = 1.0
    means, _ = softmax_scan(score, value, empty(1, 1))
    assert float(means[0, -1]) == pytest.approx(10 / 5010, rel=1e-4)


def test_forms_agree():
    assert_forms_agree(NAME)


def test_state_keeps_its_size():
    assert_state_keeps_its_size(NAME)


def test_exported_step_computes_the_stream(tmp_path):
    assert_export_computes_the_stream(NAME, tmp_path)
