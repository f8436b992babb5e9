# SPDX-License-Identifier: Apache-2.0
"""The matrix memory and DeltaNet against their equations in NumPy (float64), and their forms against each other."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.models.registry import get_model
from tests.family_forms import assert_export_computes_the_stream, assert_forms_agree, assert_state_keeps_its_size
from tests.torch_modules import run, torch, weights_of

NAME = "deltanet-spoken-digits"


def silu(x):
    return x / (1 + np.exp(-x))


FEATURES = {
    "identity": lambda x: x,
    "elu+1": lambda x: np.where(x > 0, x + 1, np.exp(x)),
    "unit-silu": lambda x: silu(x) / np.linalg.norm(silu(x)),
    "exp-pair": lambda x: np.concatenate([np.exp(x), np.exp(-x)]),
}


def memory_inputs(steps, gate, strength, feature, seed=0):
    """q, k, v, gate, strength [T, H, ...] and S, float64; None where there is none."""
    random = np.random.default_rng(seed)
    heads, keys, values = 3, 5, 4
    mapped = 2 * keys if feature == "exp-pair" else keys
    q, k = 0.5 * random.standard_normal((2, steps, heads, keys))
    v = random.standard_normal((steps, heads, values))
    width = {"none": None, "scalar": 1, "vector": mapped}[gate]
    return {
        "q": q,
        "k": k,
        "v": v,
        "s": random.standard_normal((heads, values, mapped)),
        "gate": None if width is None else 1 / (1 + np.exp(-random.normal(1, 2, (steps, heads, width)))),
        "strength": random.random((steps, heads, 1)) if strength else None,
    }


def by_equations(delta, feature, q, k, v, s, gate, strength):
    """Head by head, step by step, with S (I - b k k^T) + b v k^T written out as matrices."""
    s, read = s.copy(), np.zeros(v.shape)
    for t in range(len(q)):
        for h in range(q.shape[1]):
            q_t, k_t = FEATURES[feature](q[t, h]), FEATURES[feature](k[t, h])
            b = 1.0 if strength is None else strength[t, h, 0]
            a = np.ones(len(k_t)) if gate is None else np.broadcast_to(gate[t, h], k_t.shape)
            erase = np.eye(len(k_t)) - (b * np.outer(k_t, k_t) if delta else 0)
            s[h] = s[h] @ np.diag(a) @ erase + b * np.outer(v[t, h], k_t)
            read[t, h] = s[h] @ q_t
    return read, s


def torch_of(inputs):
    """float32 tensors with a batch of 1 in front."""

    def one(x):
        return None if x is None else torch.from_numpy(x.astype(np.float32))[None]

    return {name: one(value) for name, value in inputs.items()}


@pytest.mark.parametrize("feature", list(FEATURES))
@pytest.mark.parametrize("strength", [True, False])
@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
@pytest.mark.parametrize("delta", [True, False])
def test_memory_equals_its_equations(delta, gate, strength, feature):
    from edgec.models.layers.matrix_memory import MatrixMemory

    inputs = memory_inputs(21, gate, strength, feature)
    if delta and feature in ("elu+1", "exp-pair"):  # long keys at full strength: the equations themselves explode
        inputs["strength"] = 0.1 * np.random.default_rng(1).random((21, 3, 1))
    wanted, wanted_s = by_equations(delta, feature, **inputs)
    memory = MatrixMemory(delta, feature, chunk=8)
    given = torch_of(inputs)
    s = given.pop("s")
    got, got_s = memory.parallel(s=s, **given)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(got[0], wanted, rtol=1e-4, atol=2e-5 * scale)
    np.testing.assert_allclose(got_s[0], wanted_s, rtol=1e-4, atol=2e-5 * np.abs(wanted_s).max())
    for t in range(21):
        step, s = memory(s=s, **{name: None if x is None else x[:, t] for name, x in given.items()})
        np.testing.assert_allclose(step[0], wanted[t], rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 16, 40])
def test_chunks_of_any_remainder(steps):
    from edgec.models.layers.matrix_memory import MatrixMemory

    inputs = memory_inputs(steps, "scalar", True, "unit-silu", seed=steps)
    wanted, wanted_s = by_equations(True, "unit-silu", **inputs)
    got, got_s = MatrixMemory(True, "unit-silu", chunk=8).parallel(**torch_of(inputs))
    np.testing.assert_allclose(got[0], wanted, atol=2e-5)
    np.testing.assert_allclose(got_s[0], wanted_s, atol=2e-5)


def test_additive_memory_is_attention_without_softmax():
    """Quadratic form: o_t is the sum over i <= t of (q_t k_i) v_i, and the normaliser a memory of ones."""
    from edgec.models.layers.matrix_memory import MatrixMemory

    inputs = memory_inputs(50, "none", False, "elu+1")
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    phi = FEATURES["elu+1"]
    weights = np.einsum("thd,ihd->hti", phi(q), phi(k)) * np.tri(50)
    wanted = np.einsum("hti,ihd->thd", weights / weights.sum(-1, keepdims=True), v)
    inputs["s"] = np.zeros((3, 4, 5))
    ones = {**inputs, "v": np.ones((50, 3, 1)), "s": np.zeros((3, 1, 5))}
    memory = MatrixMemory(False, "elu+1")
    (read, _), (total, _) = (memory.parallel(**torch_of(one)) for one in (inputs, ones))
    np.testing.assert_allclose((read / total)[0], wanted, atol=2e-5)


def test_closed_gates_forget_exactly_and_stay_finite():
    from edgec.models.layers.matrix_memory import MatrixMemory

    inputs = memory_inputs(20, "vector", True, "identity")
    inputs["gate"][5] = 0.0  # nothing before step 5 matters any more
    changed = {name: None if x is None else x.copy() for name, x in inputs.items()}
    changed["v"][:5] += 100.0
    first, second = (MatrixMemory(False, chunk=32).parallel(**torch_of(x))[0] for x in (inputs, changed))
    assert torch.isfinite(first).all()
    np.testing.assert_allclose(first[:, 5:], second[:, 5:], atol=1e-4)
    assert np.abs((first - second)[0, :5].numpy()).max() > 1


def test_a_key_written_again_gives_its_new_value():
    """The delta rule's point: full strength replaces what the memory answered, other keys at right angles stay."""
    from edgec.models.layers.matrix_memory import MatrixMemory

    memory, s = MatrixMemory(True), torch.zeros(1, 1, 2, 3)
    keys = torch.eye(3)[:, None, None]  # [key, B, H, 3]
    for key, value in ((0, 1.0), (1, 2.0), (0, 5.0)):
        _, s = memory(keys[key], keys[key], torch.full((1, 1, 2), value), s)
    for key, value in ((0, 5.0), (1, 2.0), (2, 0.0)):
        assert torch.equal(s @ keys[key][..., None], torch.full((1, 1, 2, 1), value))


def rms_norm(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight


def test_model_equals_its_equations_over_12_frames():
    module = get_model(NAME).build()
    w = weights_of(module, seed=1)
    random = np.random.default_rng(2)
    state = [(np.zeros((3, 16, 16)), np.zeros((3, 144))) for _ in range(2)]
    got = [np.zeros((1, 3, 16, 16)), np.zeros((1, 3, 96)), np.zeros((1, 3, 48))] * 2
    for _ in range(12):
        frame = random.standard_normal(40)
        x = w["embedding.weight"] @ frame + w["embedding.bias"]
        for i in range(2):
            own = {n.removeprefix(f"stages.{i}."): v for n, v in w.items() if n.startswith(f"stages.{i}.")}
            s, past = state[i]
            normed = rms_norm(x, own["norm1.weight"])
            projected = np.concatenate([own["qk.weight"] @ normed, own["value.weight"] @ normed])
            window = np.concatenate([past, [projected]])
            taps = np.concatenate([own["conv_qk.conv.weight"], own["conv_v.conv.weight"]])[:, 0]
            bias = np.concatenate([own["conv_qk.conv.bias"], own["conv_v.conv.bias"]])
            q, k, v = silu((window.T * taps).sum(1) + bias).reshape(3, 3, 16)
            b = 1 / (1 + np.exp(-(own["strength.weight"] @ normed + own["strength.bias"])))
            read = np.zeros((3, 16))
            for h in range(3):
                q[h], k[h] = q[h] / np.linalg.norm(q[h]), k[h] / np.linalg.norm(k[h])
                s[h] = s[h] @ (np.eye(16) - b[h] * np.outer(k[h], k[h])) + b[h] * np.outer(v[h], k[h])
                read[h] = rms_norm(s[h] @ q[h], own["head_norm.weight"])
            x = x + own["projection.weight"] @ read.ravel() + own["projection.bias"]
            inner = own["expand.weight"] @ rms_norm(x, own["norm2.weight"]) + own["expand.bias"]
            x = x + own["contract.weight"] @ np.maximum(inner, 0) + own["contract.bias"]
            state[i] = s, window[1:]
        logits, *got = run(module, frame[None], *got)
        wanted = w["head.weight"] @ rms_norm(x, w["norm.weight"]) + w["head.bias"]
        np.testing.assert_allclose(logits[0], wanted, atol=2e-3)
    np.testing.assert_allclose(got[0][0], state[0][0], atol=2e-3)


def test_forms_agree():
    assert_forms_agree(NAME)


def test_state_keeps_its_size():
    assert_state_keeps_its_size(NAME)


def test_exported_step_computes_the_stream(tmp_path):
    assert_export_computes_the_stream(NAME, tmp_path)
