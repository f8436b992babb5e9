# SPDX-License-Identifier: Apache-2.0
"""Data movement in normal form, judged by NumPy on element numbers."""

from __future__ import annotations

import math

import numpy as np
from canonical_form import (
    MOVEMENT,
    canonical_form,
    feeds_of,
    hand_model,
    node,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.canonicalize import canonicalize
from edgec.passes.movement_maps import factor


@st.composite
def _chains(draw: st.DrawFn) -> tuple[list[int], list[tuple[str, list[int]]]]:
    """A start shape and a chain of reshapes and transposes."""
    primes = draw(st.lists(st.sampled_from([1, 2, 2, 3, 5]), min_size=1, max_size=5))
    shape, steps = list(primes), []
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            perm = draw(st.permutations(range(len(shape))))
            shape = [shape[p] for p in perm]
            steps.append(("Transpose", list(perm)))
        else:
            factors = draw(st.permutations([p for d in shape for p in _primes(d)] + [1]))
            cuts = sorted(draw(st.lists(st.integers(0, len(factors)), max_size=4)))
            shape = [math.prod(factors[a:b]) for a, b in zip([0, *cuts], [*cuts, len(factors)], strict=True)]
            steps.append(("Reshape", shape))
    return list(primes), steps


def _primes(n: int) -> list[int]:
    found = []
    for p in (2, 3, 5):
        while n % p == 0:
            found.append(p)
            n //= p
    return found


@settings(max_examples=60, deadline=None)
@given(_chains())
def test_movement_becomes_its_normal_form(chain: tuple[list[int], list[tuple[str, list[int]]]]) -> None:
    shape, steps = chain
    nodes, weights, last = [node("Relu", "x", "v")], {}, "v"
    for i, (op_type, operand) in enumerate(steps):
        if op_type == "Transpose":
            nodes.append(node(op_type, last, f"m{i}", perm=operand))
        else:
            weights[f"shape{i}"] = np.array(operand)
            nodes.append(node(op_type, f"{last} shape{i}", f"m{i}"))
        last = f"m{i}"
    nodes.append(node("Softmax", last, "y", axis=-1))
    model = canonical_form(hand_model(nodes, {"x": shape}, ["y"], weights))
    middle = [n.op_type for n in model.proto.graph.node if n.op_type in MOVEMENT]
    elements = np.arange(math.prod(shape)).reshape(shape)  # the obvious method, in NumPy
    for op_type, operand in steps:
        elements = elements.transpose(operand) if op_type == "Transpose" else elements.reshape(operand)
    if factor(elements) is None:
        return  # not one transpose: the chain stays a chain
    assert "".join(m[0] for m in middle) in ("", "R", "T", "RT", "TR", "RTR")
    in_order = bool((np.diff(elements.reshape(-1)) > 0).all())
    assert ("Transpose" in middle) == (not in_order)


@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_factor_finds_the_fewest_axes(perm: list[int], shape: list[int]) -> None:
    order = np.arange(math.prod(shape)).reshape(shape).transpose(perm)
    axes = factor(order)
    assert axes is not None
    rebuilt = np.zeros([s for s, _ in axes], int)
    for axis, (size, stride) in enumerate(axes):
        rebuilt += (np.arange(size) * stride).reshape([-1 if i == axis else 1 for i in range(len(axes))])
    assert rebuilt.reshape(-1).tolist() == order.reshape(-1).tolist()
    fewest = 0  # slow: axes of size above 1 that do not continue the one before them
    kept = [p for p in perm if shape[p] > 1]
    alive = sorted(kept)
    for i, p in enumerate(kept):
        fewest += i == 0 or alive.index(p) != alive.index(kept[i - 1]) + 1
    assert len(axes) == fewest


def test_factor_knows_what_is_no_transpose() -> None:
    assert factor(np.array([1, 0])) is None
    assert factor(np.array([0, 1, 3, 2])) is None
    assert factor(np.array([0, 2, 4, 1, 3, 5])) == [(2, 1), (3, 2)]


def test_a_reordered_value_with_two_readers_is_reordered_once() -> None:
    nodes = [
        node("Relu", "x", "v"),
        node("Transpose", "v", "t", perm=[0, 2, 1]),
        node("Softmax", "t", "y0", axis=-1),
        node("Reshape", "t flat", "r"),
        node("Softmax", "r", "y1", axis=-1),
    ]
    model = canonical_form(hand_model(nodes, {"x": [1, 4, 6]}, ["y0", "y1"], {"flat": np.array([3, 8])}))
    assert model.histogram()["Transpose"] == 1


def test_movement_straight_from_input_to_output() -> None:
    nodes = [node("Unsqueeze", "x ax", "u"), node("Squeeze", "u ax", "y"), node("Identity", "x", "z")]
    model = hand_model(nodes, {"x": [2, 3]}, ["y", "z"], {"ax": np.array([0])})
    feeds = feeds_of(model)
    got = run(canonicalize(model).proto, feeds)
    assert all((g == feeds["x"]).all() for g in got)
