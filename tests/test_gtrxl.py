# SPDX-License-Identifier: Apache-2.0
"""Attention over a ring and the gated transformer-XL against their equations in NumPy, both forms, and the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from edgec.errors import UsageError
from edgec.models.registry import get_model
from tests.exported import exported
from tests.torch_modules import run, torch, weights_of

NAME = "gtrxl-spoken-digits"
WINDOW, DIM, HEADS, TAPS = 40, 32, 4, 5
Array = np.ndarray[Any, Any]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def layer_norm(x: Array, w: dict[str, Array], name: str) -> Array:
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def dense(x: Array, w: dict[str, Array], name: str) -> Array:
    return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", np.zeros(1))


def encoding(distance: int, dim: int) -> Array:
    """The sines and cosines that tell how old a step is, one number at a time."""
    angles = np.array([distance / 10000 ** (2 * i / dim) for i in range(dim // 2)])
    return np.concatenate([np.sin(angles), np.cos(angles)])


def attention(
    x: Array, past: list[tuple[Array, Array]], w: dict[str, Array], name: str, window: int, heads: int, relative: bool
) -> Array:
    """One query over the last `window` (key, value) pairs, `x` the newest; pairs before the first step are zero."""
    past.append((dense(x, w, f"{name}key"), dense(x, w, f"{name}value")))
    q, dim = dense(x, w, f"{name}query"), len(x)
    depth, parts = dim // heads, []
    for h in range(heads):
        part = slice(h * depth, (h + 1) * depth)
        scores, values = [], []
        for distance in range(window):
            k, v = past[-1 - distance] if distance < len(past) else (np.zeros(dim), np.zeros(dim))
            score = q[part] @ k[part]
            if relative:
                r = (w[f"{name}position.weight"] @ encoding(distance, dim))[part]
                score = (q[part] + w[f"{name}u"][h, 0]) @ k[part] + (q[part] + w[f"{name}v"][h, 0]) @ r
            scores.append(score / np.sqrt(depth))
            values.append(v[part])
        shares = np.exp(np.array(scores) - max(scores))
        parts.append(shares @ np.array(values) / shares.sum())
    return dense(np.concatenate(parts), w, f"{name}out")


def gate(x: Array, y: Array, w: dict[str, Array], name: str) -> Array:
    r = sigmoid(w[f"{name}.wr.weight"] @ y + w[f"{name}.ur.weight"] @ x)
    z = sigmoid(w[f"{name}.wz.weight"] @ y + w[f"{name}.uz.weight"] @ x + w[f"{name}.wz.bias"])
    h = np.tanh(w[f"{name}.wg.weight"] @ y + w[f"{name}.ug.weight"] @ (r * x))
    return (1 - z) * x + z * h


def gtrxl(frames: list[Array], memory: list[list[tuple[Array, Array]]], w: dict[str, Array]) -> Array:
    """Logits at the last of all frames so far; there were zeros before them."""
    seen = [np.zeros(40)] * (TAPS - len(frames)) + frames[-TAPS:]
    taps = w["stages.0.conv.weight"]  # [DIM, 40, TAPS]
    e = w["stages.0.conv.bias"] + sum(taps[:, :, j] @ seen[j] for j in range(TAPS))
    for i, past in enumerate(memory):
        n = f"stages.{i + 1}."
        a = attention(layer_norm(e, w, n + "norm1"), past, w, n + "attention.", WINDOW, HEADS, True)
        y = gate(e, np.maximum(a, 0), w, n + "gate1")
        hidden = np.maximum(dense(layer_norm(y, w, n + "norm2"), w, n + "expand"), 0)
        e = gate(y, np.maximum(dense(hidden, w, n + "contract"), 0), w, n + "gate2")
    return dense(e, w, "head")


def zero_state() -> list[Array]:
    return [np.zeros((1, TAPS - 1, 40)), *[np.zeros((1, WINDOW, DIM))] * 4]


def test_step_equals_its_equations_beyond_the_window() -> None:
    module = get_model(NAME).build()
    w = weights_of(module, seed=1)
    random, frames, memory = np.random.default_rng(2), [], [[], []]
    state = zero_state()
    for _ in range(WINDOW + 8):
        x = random.standard_normal(40)
        frames.append(x)
        wanted = gtrxl(frames, memory, w)
        logits, *state = run(module, x[None], *state)
        np.testing.assert_allclose(logits[0], wanted, atol=1e-4)
    for i, past in enumerate(memory):
        for j in range(2):  # the ring holds the last keys and values, oldest first
            np.testing.assert_allclose(state[1 + 2 * i + j][0], [p[j] for p in past[-WINDOW:]], atol=1e-4)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(("dim", "heads", "window", "steps"), [(6, 3, 1, 4), (8, 1, 5, 3), (12, 2, 4, 11)])
def test_window_attention_equals_its_equations_in_both_forms(
    dim: int, heads: int, window: int, steps: int, relative: bool
) -> None:
    from edgec.models.layers.kv_ring import WindowAttention

    layer = WindowAttention(dim, heads, window, relative)
    w = weights_of(layer, seed=3)
    x, zeros, past = np.random.default_rng(4).standard_normal((steps, dim)), np.zeros((1, window, dim)), []
    wanted = [attention(row, past, w, "", window, heads, relative) for row in x]
    state = [zeros, zeros]
    for row, y in zip(x, wanted, strict=True):
        got, *state = run(layer, row[None], *state)
        np.testing.assert_allclose(got[0], y, atol=1e-5)
    got, *after = run(layer.parallel, x[None], zeros, zeros)
    np.testing.assert_allclose(got[0], wanted, atol=1e-5)
    np.testing.assert_allclose(after, state, atol=1e-5)


def test_parallel_form_goes_on_from_any_state() -> None:
    module = get_model(NAME).build(seed=5)
    random = np.random.default_rng(6)
    x = random.standard_normal((3, 70, 40))
    start = [random.standard_normal((3, *part.shape[1:])) for part in zero_state()]
    whole, *last = run(module.parallel, x, *start)
    state, pieces = start, []
    for piece in np.split(x, [1, 30, 31], axis=1):
        y, *state = run(module.parallel, piece, *state)
        pieces.append(y)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-5)
    for a, b in zip(state, last, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for t in range(70):
        y, *start = run(module, x[:, t], *start)
        np.testing.assert_allclose(y, whole[:, t], atol=1e-5)


def test_what_left_the_window_is_forgotten() -> None:
    """Two layers of 40 steps on 5 taps: an answer depends on the last 83 steps and on no other."""
    module = get_model(NAME).build(seed=7)
    x = np.random.default_rng(8).standard_normal((1, 2 * WINDOW + TAPS, 40))
    zeros = zero_state()
    for step, equal in ((2, True), (3, False)):
        other = x.copy()
        other[:, :step] += 3.0
        a, b = (run(module.parallel, stream, *zeros)[0][0, -1] for stream in (x, other))
        assert np.array_equal(a, b) is equal, step


def test_a_shut_gate_makes_a_layer_the_identity() -> None:
    from edgec.models.gtrxl import Layer

    layer = Layer(dim=8, heads=2, window=5, hidden=12)
    weights_of(layer, seed=9)
    x, zeros = np.random.default_rng(10).standard_normal((1, 8)), np.zeros((1, 5, 8))
    assert np.abs(run(layer, x, zeros, zeros)[0] - x).max() > 0.1
    with torch.no_grad():
        for gated in (layer.gate1, layer.gate2):
            gated.wz.bias.fill_(-1000.0)
    np.testing.assert_array_equal(run(layer, x, zeros, zeros)[0], x.astype(np.float32))


def test_a_fresh_gate_begins_near_the_identity() -> None:
    from edgec.models.gtrxl import Gate

    torch.manual_seed(12)
    gate, (x, y) = Gate(DIM), np.random.default_rng(11).standard_normal((2, 1, DIM))
    assert (gate.wz.bias == -2).all()
    assert np.abs(run(gate, x, y) - x).mean() < 0.3 * np.abs(x).mean()


def test_exported_windows_are_drop_the_oldest_append_the_newest() -> None:
    graph = onnx.load_from_string(exported(NAME)).graph
    made = {output: node for node in graph.node for output in node.output}
    for name in ("k0", "v0", "k1", "v1"):
        append = made[f"{name}_next"]
        assert append.op_type == "Concat"
        drop = made[append.input[0]]
        assert (drop.op_type, drop.input[0]) == ("Slice", name)
        assert [n.op_type for n in graph.node if name in n.input] == ["Slice"]  # nothing else reads the old window


def test_heads_must_divide_the_width() -> None:
    from edgec.models.layers.kv_ring import WindowAttention, sinusoids

    with pytest.raises(UsageError, match="number of heads does not divide"):
        WindowAttention(10, 4, 8)
    with pytest.raises(UsageError, match="even width"):
        sinusoids(4, 7)
