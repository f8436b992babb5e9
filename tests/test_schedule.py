# SPDX-License-Identifier: Apache-2.0
"""Placement: the judge against a byte-by-step grid, the planner against the judge and known bounds."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.errors import FitError, render
from edgec.schedule.check import InvalidPlanError, check_plan, violations
from edgec.schedule.place import plan
from edgec.schedule.problem import Buffer, MemoryPlan, Placement, Problem, Space

# Published placement problems, if this machine has them: a folder `planner` beside the data sets.
DATA = Path(os.environ.get("EDGEC_DATA", Path(__file__).parents[2] / "shared" / "data"))
PUBLISHED = sorted((DATA.parent / "planner").glob("*.csv"))

WIDE = Space("ram", 1 << 30)


@st.composite
def buffers(draw: st.DrawFn, max_size: int = 24, alignments: tuple[int, ...] = (1, 2, 4, 8)) -> tuple[Buffer, ...]:
    def one(index: int) -> Buffer:
        first = draw(st.integers(0, 7))
        return Buffer(
            name=f"b{index}",
            size=draw(st.integers(1, max_size)),
            first=first,
            last=first + draw(st.integers(1, 5)),
            alignment=draw(st.sampled_from(alignments)),
        )

    return tuple(one(i) for i in range(draw(st.integers(1, 9))))


def occupancy(memory: MemoryPlan) -> Counter[tuple[str, int, int]]:
    """How many buffers claim each (space, byte, step): the truth about collisions, no interval logic."""
    return Counter(
        (memory.placements[b.name].space, byte, step)
        for b in memory.problem.buffers
        for byte in range(memory.placements[b.name].offset, memory.placements[b.name].offset + b.size)
        for step in range(b.first, b.last)
    )


def live_bytes(problem: Problem) -> list[int]:
    return [sum(b.size for b in problem.buffers if b.first <= step < b.last) for step in range(13)]


@given(buffers())
def test_plan_in_one_space_is_right_and_between_its_bounds(parts: tuple[Buffer, ...]) -> None:
    problem = Problem(parts, (WIDE,))
    memory = plan(problem)
    check_plan(memory)
    assert max(occupancy(memory).values()) == 1
    assert all(memory.placements[b.name].offset % b.alignment == 0 for b in parts)
    assert memory.placement_bound_bytes == max(live_bytes(problem))
    assert memory.peak_step == live_bytes(problem).index(memory.placement_bound_bytes)
    widest = max(b.alignment for b in parts)
    assert memory.placement_bound_bytes <= memory.arena_bytes <= sum(-(-b.size // widest) * widest for b in parts)
    assert memory == plan(problem)


@given(buffers(), st.lists(st.integers(8, 60), min_size=2, max_size=3), st.data())
def test_plan_over_several_spaces_is_right_or_refused(
    parts: tuple[Buffer, ...], capacities: list[int], data: st.DataObject
) -> None:
    spaces = tuple(Space(f"s{i}", capacity) for i, capacity in enumerate(capacities))
    names = st.frozensets(st.sampled_from([s.name for s in spaces]), min_size=1)
    parts = tuple(dataclasses.replace(b, allowed=data.draw(st.none() | names)) for b in parts)
    problem = Problem(parts, spaces)
    try:
        memory = plan(problem)
    except FitError:
        # Room for all of them side by side in every space they may use: then there is no excuse.
        assert any(
            sum(-(-b.size // 8) * 8 for b in parts if b.allowed is None or space.name in b.allowed) > space.capacity
            for space in spaces
        )
        return
    check_plan(memory)
    assert max(occupancy(memory).values()) == 1
    assert memory.arena_bytes >= memory.placement_bound_bytes
    assert all(memory.arena_bytes_by_space[s.name] <= s.capacity for s in spaces)


@given(buffers(), st.integers(-6, 40), st.data())
def test_judge_rejects_a_moved_buffer_exactly_when_it_collides(
    parts: tuple[Buffer, ...], offset: int, data: st.DataObject
) -> None:
    memory = plan(Problem(parts, (Space("ram", 300),)))
    victim = data.draw(st.sampled_from(parts))
    capacity = data.draw(st.integers(memory.arena_bytes, 300))
    moved = MemoryPlan(
        Problem(parts, (Space("ram", capacity),)),
        {**memory.placements, victim.name: Placement("ram", offset)},
    )
    claims = occupancy(moved)
    collides = max(claims.values()) > 1
    outside = any(not 0 <= byte < capacity for _, byte, _ in claims)
    misaligned = offset % victim.alignment != 0
    found = violations(moved)
    assert bool(found) == (collides or outside or misaligned)
    assert any("collide" in line for line in found) == collides
    assert all(victim.name in line for line in found)


def test_judge_names_the_two_that_collide_and_the_step() -> None:
    parts = (Buffer("q", 8, 0, 2), Buffer("k", 8, 1, 3))
    problem = Problem(parts, (WIDE,), steps=("embed", "attn", "mlp"))
    with pytest.raises(InvalidPlanError, match=r"q \[0, 8\) and k \[4, 12\) collide in ram at attn"):
        check_plan(MemoryPlan(problem, {"q": Placement("ram", 0), "k": Placement("ram", 4)}))


@pytest.mark.parametrize(
    ("placements", "message"),
    [
        ({}, "x has no place"),
        ({"x": Placement("flash", 0)}, "x lies in flash, which does not exist"),
        ({"x": Placement("slow", 0)}, r"x lies in slow, but is allowed in \['fast'\] only"),
        ({"x": Placement("fast", 2)}, "x lies at offset 2, not a multiple of 4"),
        ({"x": Placement("fast", 60)}, r"x takes bytes \[60, 68\) of fast, which ends at 64"),
        (
            {"x": Placement("fast", 0), "y": Placement("fast", 0)},
            "y is placed, but the problem does not have it",
        ),
    ],
)
def test_judge_rejects(placements: dict[str, Placement], message: str) -> None:
    x = Buffer("x", 8, 0, 1, alignment=4, allowed=frozenset({"fast"}))
    problem = Problem((x,), (Space("fast", 64), Space("slow", 1024)))
    with pytest.raises(InvalidPlanError, match=message):
        check_plan(MemoryPlan(problem, placements))


def test_one_space_is_preferred_to_the_spill() -> None:
    """40 + 40 bytes at once: `small` holds one of them, `large` both; the program stays in one piece."""
    parts = (Buffer("a", 40, 0, 2), Buffer("b", 40, 1, 3))
    memory = plan(Problem(parts, (Space("small", 64), Space("large", 100))))
    assert memory.arena_bytes_by_space == {"small": 0, "large": 80}


def test_what_fits_no_single_space_spills_in_order_of_preference() -> None:
    parts = (Buffer("a", 60, 0, 2), Buffer("b", 40, 0, 2), Buffer("c", 20, 0, 2))
    memory = plan(Problem(parts, (Space("first", 64), Space("second", 64))))
    check_plan(memory)
    assert memory.arena_bytes_by_space == {"first": 60, "second": 60}


def test_of_two_orders_the_one_that_fits_is_kept() -> None:
    """Largest first leaves `a` no room; by size times steps, nothing runs over."""
    parts = (Buffer("a", 8, 1, 4), Buffer("b", 16, 3, 4), Buffer("c", 12, 3, 4))
    memory = plan(Problem(parts, (Space("fast", 20), Space("slow", 16))))
    check_plan(memory)
    assert memory.arena_bytes_by_space == {"fast": 20, "slow": 16}


def test_a_gap_of_exactly_the_size_is_used() -> None:
    parts = (Buffer("a", 16, 1, 3), Buffer("b", 16, 0, 2), Buffer("c", 16, 2, 4))
    memory = plan(Problem(parts, (WIDE,)))
    check_plan(memory)
    assert memory.arena_bytes == 32


@pytest.mark.parametrize(
    ("parts", "bound"),
    [
        (((8, 1, 3), (16, 3, 4), (8, 2, 4)), 24),
        (((12, 3, 6), (8, 2, 4), (8, 0, 3), (12, 1, 2)), 20),
        (((16, 3, 6), (4, 1, 3), (16, 0, 2), (4, 2, 4)), 20),
    ],
    ids=["by size", "by size times steps", "by first step"],
)
def test_each_order_reaches_the_bound_where_the_others_do_not(
    parts: tuple[tuple[int, int, int], ...], bound: int
) -> None:
    memory = plan(Problem(tuple(Buffer(f"b{i}", *part) for i, part in enumerate(parts)), (WIDE,)))
    check_plan(memory)
    assert memory.arena_bytes == memory.placement_bound_bytes == bound


def test_fit_error_names_need_have_difference_and_operator() -> None:
    parts = (Buffer("image", 38_944, 0, 2), Buffer("scores", 300_000, 1, 3), Buffer("logits", 12, 2, 3))
    problem = Problem(parts, (Space("ram", 327_680),), steps=("embed", "blocks.2.attn", "head"), target="stm32f746")
    with pytest.raises(FitError) as caught:
        plan(problem)
    assert render(caught.value).splitlines() == [
        "arena needs 338,944 B, stm32f746 has 327,680 B: over by 11,264 B at blocks.2.attn",
        "  need   338,944 B live at blocks.2.attn (largest: scores 300,000 B, image 38,944 B)",
        "  have   ram 327,680 B",
    ]


@given(buffers())
def test_over_by_is_exactly_what_is_missing(parts: tuple[Buffer, ...]) -> None:
    with pytest.raises(FitError) as caught:
        plan(Problem(parts, (Space("ram", 0),)))
    missing = int(caught.value.what.split("over by ")[1].split(" B")[0].replace(",", ""))
    check_plan(plan(Problem(parts, (Space("ram", missing),))))
    with pytest.raises(FitError, match="over by 1 B"):
        plan(Problem(parts, (Space("ram", missing - 1),)))


def test_no_buffers_need_no_memory() -> None:
    memory = plan(Problem((), (Space("ram", 0),)))
    check_plan(memory)
    assert memory.arena_bytes == memory.placement_bound_bytes == 0


@pytest.mark.skipif(not PUBLISHED, reason="the published placement problems are not on this machine")
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_problems(path: Path) -> None:
    with path.open(newline="") as file:
        parts = tuple(
            Buffer(row["id"], int(row["size"]), int(row["lower"]), int(row["upper"]), alignment=1)
            for row in csv.DictReader(file)
        )
    memory = plan(Problem(parts, (WIDE,)))
    check_plan(memory)
    # No greedy order is known to need more than half as much again on these.
    assert memory.placement_bound_bytes <= memory.arena_bytes <= 1.5 * memory.placement_bound_bytes
