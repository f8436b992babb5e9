# SPDX-License-Identifier: Apache-2.0
"""Slot memory and hierarchical memory transformer against their equations in NumPy, both forms, and the file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.models.registry import get_model
from tests.exported import exported
from tests.torch_modules import run, weights_of

NAME = "hmt-spoken-digits"
LENGTH, DIM, HEADS, SLOTS, SENSORY, BLOCKS = 8, 40, 2, 16, 2, 2
Array = np.ndarray[Any, Any]


def softmax(x: Array) -> Array:
    shares = np.exp(x - x.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def dense(x: Array, w: dict[str, Array], name: str) -> Array:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", np.zeros(1))


def standardised(x: Array, epsilon: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)


def layer_norm(x: Array, w: dict[str, Array], name: str, epsilon: float) -> Array:
    return standardised(x, epsilon) * w[f"{name}.weight"] + w[f"{name}.bias"]


def transformer(x: Array, w: dict[str, Array]) -> Array:
    x = x + w["position"][0, : len(x)]
    for i in range(BLOCKS):
        n = f"blocks.{i}."
        qkv = dense(layer_norm(x, w, n + "norm1", 1e-6), w, n + "attention.qkv")
        q, k, v = np.split(qkv, 3, axis=1)
        depth, parts = DIM // HEADS, []
        for h in range(HEADS):
            one = slice(h * depth, (h + 1) * depth)
            parts.append(softmax(q[:, one] @ k[:, one].T / math.sqrt(depth)) @ v[:, one])
        x = x + dense(np.concatenate(parts, axis=1), w, n + "attention.projection")
        hidden = dense(layer_norm(x, w, n + "norm2", 1e-6), w, n + "expand")
        hidden = hidden * np.vectorize(lambda a: (1 + math.erf(a / math.sqrt(2))) / 2)(hidden)
        x = x + dense(hidden, w, n + "contract")
    return standardised(x, 1e-5)


def hmt(x: Array, memory: list[Array], sensory: Array, w: dict[str, Array]) -> tuple[Array, Array]:
    """(logits, sensory') of one segment [LENGTH, 40]; appends to `memory`, of which the last SLOTS count."""
    e, s = standardised(dense(x, w, "embedding.0"), 1e-5), w["start"][0]
    q = transformer(np.concatenate([s, e[: LENGTH // 2], s]), w)[-1]
    rows = np.array([np.zeros(DIM)] * max(0, SLOTS - len(memory)) + memory[-SLOTS:])
    query = layer_norm(w["recall.key.weight"] @ w["recall.query.weight"] @ q, w, "recall.norm", 1e-5)
    empty = np.arange(SLOTS) < SLOTS - len(memory)
    shares = softmax(rows @ query / math.sqrt(DIM) - 10 * empty)
    p = (shares @ rows)[None]
    h = transformer(np.concatenate([p, sensory, e, p]), w)
    memory.append(h[-1])
    return dense(h[1 + SENSORY : 1 + SENSORY + LENGTH].mean(axis=0), w, "head"), e[-SENSORY:]


def test_step_equals_its_equations_beyond_the_memory() -> None:
    module = get_model(NAME).build()
    w = weights_of(module, seed=1)
    random = np.random.default_rng(2)
    memory, seen = [], np.zeros((SENSORY, DIM))
    state = [np.zeros((1, SLOTS, DIM)), np.zeros((1, SLOTS)), np.zeros((1, SENSORY, DIM))]
    for step in range(SLOTS + 4):
        x = random.standard_normal((LENGTH, 40))
        wanted, seen = hmt(x, memory, seen, w)
        logits, *state = run(module, x[None], *state)
        np.testing.assert_allclose(logits[0], wanted, atol=2e-4)
        np.testing.assert_array_equal(state[1][0], np.arange(SLOTS) >= SLOTS - 1 - step)
    np.testing.assert_allclose(state[0][0], memory[-SLOTS:], atol=2e-4)
    np.testing.assert_allclose(state[2][0], seen, atol=1e-4)


def test_parallel_form_goes_on_from_any_state() -> None:
    module = get_model(NAME).build(seed=3)
    random = np.random.default_rng(4)
    x = random.standard_normal((3, 21, LENGTH, 40))
    filled = np.tile(np.arange(SLOTS) > 5, (3, 1)).astype(float)
    start = [random.standard_normal((3, SLOTS, DIM)), filled, random.standard_normal((3, SENSORY, DIM))]
    whole, *last = run(module.parallel, x, *start)
    assert whole.shape == (3, 21, 10)
    state, pieces = start, []
    for piece in np.split(x, [1, 9], axis=1):
        y, *state = run(module.parallel, piece, *state)
        pieces.append(y)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-5)
    for t in range(21):
        y, *start = run(module, x[:, t], *start)
        np.testing.assert_allclose(y, whole[:, t], atol=1e-5)
    for a, b, c in zip(state, last, start, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a, c, atol=1e-5)


def test_the_memory_reaches_an_answer() -> None:
    """A segment that is neither this one nor the one before changes what the model says now."""
    module = get_model(NAME).build(seed=5)
    x = np.random.default_rng(6).standard_normal((1, 5, LENGTH, 40))
    zeros = np.zeros((1, SLOTS, DIM)), np.zeros((1, SLOTS)), np.zeros((1, SENSORY, DIM))
    other = x.copy()
    other[:, 0] += 1.0
    a, b = (run(module.parallel, stream, *zeros)[0][0, -1] for stream in (x, other))
    assert np.abs(a - b).max() > 1e-4


def test_state_stays_as_large_over_500_segments() -> None:
    module = get_model(NAME).build(seed=7)
    random = np.random.default_rng(8)
    shapes = [get_model(NAME).inputs[name] for name in ("memory", "filled", "sensory")]
    state = [np.zeros(shape) for shape in shapes]
    for _ in range(500):
        _, *state = run(module, random.standard_normal((1, LENGTH, 40)), *state)
        assert [s.shape for s in state] == shapes
    assert np.abs(state[0]).max() <= math.sqrt(DIM)  # rows of a LayerNorm without gains


def test_read_and_gated_write_of_slots() -> None:
    from edgec.models.layers.slot_memory import GatedWrite, SlotRead

    random = np.random.default_rng(9)
    x, slots, filled = random.standard_normal((2, 5)), random.standard_normal((2, 6, 7)), np.ones((2, 6))
    filled[1, :2] = 0
    read, write = SlotRead(5, 7, 3), GatedWrite(5, 6, 7)
    w, g = weights_of(read, seed=10), weights_of(write, seed=11)
    for b in range(2):
        query = layer_norm(w["key.weight"] @ w["query.weight"] @ x[b], w, "norm", 1e-5)
        shares = softmax(slots[b] @ query / math.sqrt(7) - 10 * (1 - filled[b]))
        np.testing.assert_allclose(run(read, x, slots, filled)[b], shares @ slots[b], atol=1e-5)
        gate = 1 / (1 + np.exp(-(g["gate.weight"] @ x[b] + g["gate.bias"])))
        content = g["content.weight"] @ x[b] + g["content.bias"]
        wanted = [(1 - a) * slot + a * content for a, slot in zip(gate, slots[b], strict=True)]
        np.testing.assert_allclose(run(write, x, slots)[b], wanted, atol=1e-5)


@pytest.mark.parametrize("written", [0, 1, 3])
def test_empty_slots_hardly_count(written: int) -> None:
    """What is read of a young memory is what a memory of as many slots would give."""
    from edgec.models.layers.slot_memory import SlotRead

    random = np.random.default_rng(12)
    read, x, slots = SlotRead(4, 4, 4), random.standard_normal((1, 4)), np.zeros((1, 6, 4))
    weights_of(read, seed=13)
    slots[:, 6 - written :] = random.standard_normal((1, written, 4))
    got = run(read, x, slots, (np.arange(6) >= 6 - written)[None])
    wanted = run(read, x, slots[:, 6 - written :], np.ones((1, written))) if written else np.zeros((1, 4))
    np.testing.assert_allclose(got, wanted, atol=2e-3)


def test_scores_of_rows_of_a_norm_are_bounded_however_large_the_weights() -> None:
    """Cauchy-Schwarz: two rows of size sqrt(dim), divided by sqrt(dim)."""
    from edgec.models.layers.slot_memory import SlotRead

    random, dim = np.random.default_rng(14), 9
    slots = random.standard_normal((1, 6, dim))
    slots -= slots.mean(axis=-1, keepdims=True)
    slots *= math.sqrt(dim) / np.linalg.norm(slots, axis=-1, keepdims=True)
    read = SlotRead(dim, dim, dim)
    for weight in (read.query.weight, read.key.weight):
        weight.data *= 1000
    shares = run(read, slots[:, 2], slots, np.ones((1, 6))) @ np.linalg.pinv(slots[0])
    assert shares.min() > np.exp(-2 * math.sqrt(dim)) / 6


def test_exported_memory_is_drop_the_oldest_append_the_newest() -> None:
    graph = onnx.load_from_string(exported(NAME)).graph
    made = {output: node for node in graph.node for output in node.output}
    append = made["memory_next"]
    drop = made[append.input[0]]
    assert (append.op_type, drop.op_type, drop.input[0]) == ("Concat", "Slice", "memory")
