# SPDX-License-Identifier: Apache-2.0
"""What lives shortest goes lowest: plans stay right, arenas stay as small, scratch moves down."""

from __future__ import annotations

import random

from edgec.errors import FitError
from edgec.schedule.check import check_plan
from edgec.schedule.place import plan
from edgec.schedule.problem import Buffer, MemoryPlan, Placement, Problem, Space
from edgec.schedule.settle import settle


def random_problem(seed: int) -> Problem | None:
    """Buffers of all lives, some inside others; None for anchors that contradict each other."""
    rng = random.Random(seed)
    buffers: list[Buffer] = []
    for i in range(rng.randrange(1, 25)):
        first = rng.randrange(30)
        anchor = None
        other = rng.choice(buffers) if buffers and rng.random() < 0.2 else None
        if other is not None and other.anchor is None and other.first <= first < other.last:
            anchor = other.name, 4 * rng.randrange(-3, 4)
        last = first + rng.choice([1, 1, 1, 2, 3, 12])
        buffers.append(Buffer(f"b{i}", rng.randrange(1, 100), first, last, rng.choice([4, 8]), anchor=anchor))
    spaces = (Space("near", 300), Space("far", 4000)) if rng.random() < 0.3 else (Space("all", 4000),)
    try:
        return Problem(tuple(buffers), spaces)
    except ValueError:
        return None


def test_settled_plans_are_right_and_no_larger() -> None:
    moved = 0
    for seed in range(150):
        problem = random_problem(seed)
        if problem is None:
            continue
        try:
            before = plan(problem)
        except FitError:
            continue
        after = settle(before)
        check_plan(after)
        for space, size in before.arena_bytes_by_space.items():
            assert after.arena_bytes_by_space[space] <= size
        moved += after.placements != before.placements
    assert moved > 30


def test_scratch_goes_below_the_block_that_it_serves() -> None:
    """The kept value stays; scratch and block change places."""
    kept, block, scratch = Buffer("kept", 40, 0, 20), Buffer("block", 60, 3, 5), Buffer("scratch", 20, 4, 5)
    problem = Problem((kept, block, scratch), (Space("ram", 120),))
    places = {"kept": Placement("ram", 0), "block": Placement("ram", 40), "scratch": Placement("ram", 100)}
    after = settle(MemoryPlan(problem, places))
    assert {n: p.offset for n, p in after.placements.items()} == {"kept": 0, "scratch": 40, "block": 60}


def test_what_does_not_fit_in_another_order_stays() -> None:
    """Scratch first would leave no room for the second block between it and the first."""
    buffers = (
        Buffer("low", 40, 0, 2), Buffer("high", 60, 1, 3), Buffer("a", 60, 0, 1), Buffer("b", 40, 2, 3),
        Buffer("c", 100, 3, 4),
    )  # fmt: skip
    places = {"low": 0, "high": 40, "a": 40, "b": 0, "c": 0}
    before = MemoryPlan(Problem(buffers, (Space("ram", 100),)), {n: Placement("ram", at) for n, at in places.items()})
    after = settle(before)
    check_plan(after)
    assert after.arena_bytes == before.arena_bytes == 100
