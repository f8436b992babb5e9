# SPDX-License-Identifier: Apache-2.0
"""Tiling: the peaks that theory promises; programs give the bits of the unscheduled one in the planned arena."""

from __future__ import annotations

import numpy as np
import pytest
from arena_model import run_in_arena
from transformer_program import transformer

from edgec.program import Program, evaluate
from edgec.schedule.memories import place_in_memories
from edgec.schedule.schedule import Wishes, schedule_program
from edgec.schedule.tile import Goal
from edgec.target import load_target

BOARD = load_target("stm32f746")


def same_bits(program: Program, goal: Goal) -> int:
    """Schedule, place, run in the arena, compare; returns the arena's bytes."""
    scheduled = schedule_program(program, BOARD, "auto", Wishes(goal))
    new, implementations = scheduled.program, scheduled.implementations
    plan, _, _ = place_in_memories(new, implementations, BOARD)
    rng = np.random.default_rng(1)
    values = {
        p.tensor: rng.integers(-128, 128, program.tensors[p.tensor].type.shape).astype(np.int8) for p in program.inputs
    }
    want = evaluate(program, values)
    again = evaluate(new, values)
    got = run_in_arena(new, implementations, plan, values)
    for port in program.outputs:
        np.testing.assert_array_equal(again[port.tensor], want[port.tensor])
        np.testing.assert_array_equal(got[port.tensor], want[port.tensor])
    return plan.arena_bytes


@pytest.mark.parametrize("goal", ["ram", "balanced", "speed"])
@pytest.mark.parametrize(
    ("tokens", "width", "heads", "depth", "ratio"),
    [(64, 96, 3, 32, 2), (16, 24, 2, 8, 3), (13, 10, 3, 5, 2), (9, 16, 1, 16, 4), (50, 12, 4, 8, 1)],
)
def test_scheduled_transformers_keep_their_bits(
    goal: Goal, tokens: int, width: int, heads: int, depth: int, ratio: int
) -> None:
    same_bits(transformer(tokens, width, heads, depth, ratio, 2), goal)
