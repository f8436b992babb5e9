# SPDX-License-Identifier: Apache-2.0
"""Tiling of models that nobody named, of odd sizes: the bits of the unscheduled program, and what peaks promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from arena_model import run_in_arena
from hypothesis import given, settings
from hypothesis import strategies as st
from transformer_program import hybrid, mixer, nested, transformer

from edgec.build import build
from edgec.device.runner import open_runner
from edgec.emit.model import Built
from edgec.model import Model
from edgec.program import Program, evaluate
from edgec.schedule import tile
from edgec.schedule.memories import place_in_memories
from edgec.schedule.schedule import Scheduled, Wishes, schedule_program
from edgec.schedule.tile import Goal
from edgec.target import load_target

BOARD = load_target("stm32f746")
GOALS: tuple[Goal, ...] = ("ram", "balanced", "speed")


def inputs_of(program: Program) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    types = {p.tensor: program.tensors[p.tensor].type for p in program.inputs}
    return {name: rng.integers(-128, 128, t.shape).astype(np.int8) for name, t in types.items()}


def scheduled_for(program: Program, wishes: Wishes) -> tuple[Scheduled, int, dict[str, np.ndarray]]:
    """The scheduled program, its arena's bytes, and the outputs that it computes there."""
    scheduled = schedule_program(program, BOARD, "auto", wishes)
    plan, _, _ = place_in_memories(scheduled.program, scheduled.implementations, BOARD)
    outputs = run_in_arena(scheduled.program, scheduled.implementations, plan, inputs_of(program))
    return scheduled, plan.arena_bytes, outputs


def check(program: Program) -> None:
    """All goals: bits, bounds, and no goal takes more than the one that cares less for memory."""
    want = evaluate(program, inputs_of(program))
    untiled, plain, _ = scheduled_for(program, Wishes("ram", levers=("order", "overlap")))
    arenas = []
    for goal in GOALS:
        scheduled, arena, got = scheduled_for(program, Wishes(goal))
        again = evaluate(scheduled.program, inputs_of(program))
        for port in program.outputs:
            np.testing.assert_array_equal(got[port.tensor], want[port.tensor])
            np.testing.assert_array_equal(again[port.tensor], want[port.tensor])
        assert scheduled.schedule_bound is not None
        assert scheduled.order_bound is not None
        assert scheduled.schedule_bound <= arena
        assert scheduled.schedule_bound <= scheduled.order_bound
        arenas.append(arena)
    assert arenas == sorted(arenas)
    assert arenas[0] <= plain


some = settings(max_examples=12, deadline=None)


@some
@given(
    tokens=st.integers(2, 21), heads=st.integers(1, 4), depth=st.integers(1, 9), width=st.integers(2, 20),
    ratio=st.integers(1, 4), blocks=st.integers(1, 2),
)  # fmt: skip
def test_transformers(tokens: int, heads: int, depth: int, width: int, ratio: int, blocks: int) -> None:
    check(transformer(tokens, width, heads, depth, ratio, blocks))


@some
@given(
    tokens=st.integers(2, 19), width=st.integers(2, 20), token_ratio=st.integers(1, 3), ratio=st.integers(1, 4),
    blocks=st.integers(1, 2),
)  # fmt: skip
def test_mixers(tokens: int, width: int, token_ratio: int, ratio: int, blocks: int) -> None:
    check(mixer(tokens, width, token_ratio, ratio, blocks))


@some
@given(
    side=st.integers(2, 11), channels=st.integers(2, 9), heads=st.integers(1, 3), depth=st.integers(1, 6),
    blocks=st.integers(0, 2),
)  # fmt: skip
def test_hybrids(side: int, channels: int, heads: int, depth: int, blocks: int) -> None:
    check(hybrid(side, channels, heads, depth, blocks))


@some
@given(
    patches=st.integers(2, 9), inner=st.integers(2, 8), width=st.integers(2, 8), outer_width=st.integers(2, 16),
    blocks=st.integers(1, 2),
)  # fmt: skip
def test_nested(patches: int, inner: int, width: int, outer_width: int, blocks: int) -> None:
    check(nested(patches, inner, width, outer_width, blocks))
