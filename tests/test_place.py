# SPDX-License-Identifier: Apache-2.0
"""Placement: the optimum of small problems by trying every offset, rigid groups, and the published problems."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.errors import DeviceError, FitError
from edgec.schedule import exact, exact_native, exact_search, place
from edgec.schedule.check import check_plan, violations
from edgec.schedule.exact import minimize, rank_of, shapes_of
from edgec.schedule.place import greedy_bytes, plan
from edgec.schedule.problem import Buffer, MemoryPlan, Placement, Problem, Space
from tests.command_line import edgec

DATA = Path(os.environ.get("EDGEC_DATA", Path(__file__).parents[2] / "shared" / "data"))
PUBLISHED = sorted((DATA.parent / "planner").glob("*.1048576.csv"))
WIDE = Space("ram", 1 << 30)
# 14 buffers in 52 bytes: largest first, longest first and first first all need more.
PUZZLE = Path(__file__).parent / "fixtures" / "placement.csv"


def rows(path: Path) -> tuple[Buffer, ...]:
    with path.open(newline="") as file:
        return tuple(Buffer(r["id"], int(r["size"]), int(r["lower"]), int(r["upper"]), 1) for r in csv.DictReader(file))


@st.composite
def problems(draw: st.DrawFn, anchors: bool, most: int = 7, spaces: tuple[Space, ...] = (WIDE,)) -> Problem:
    """Small enough to try every offset; with `anchors`, some buffers lie at a distance from an earlier one."""
    alignment = draw(st.sampled_from([1, 1, 2]))
    parts: list[Buffer] = []
    for index in range(draw(st.integers(1, most))):
        first = draw(st.integers(0, 4))
        size = draw(st.integers(1, 5))
        anchor = None
        last = first + draw(st.integers(1, 4))
        if anchors and parts and draw(st.booleans()):
            source = draw(st.sampled_from(parts))
            anchor = (source.name, alignment * draw(st.integers(-3, 3)))
        candidate = Buffer(f"b{index}", size, first, last, alignment, None, anchor)
        try:
            Problem((*parts, candidate), spaces)
        except ValueError:  # it would collide with what it is not anchored to
            candidate = Buffer(f"b{index}", size, first, last, alignment)
        parts.append(candidate)
    return Problem(tuple(parts), spaces)


def collide(a: Buffer, at: int, b: Buffer, bt: int) -> bool:
    if (a.anchor and a.anchor[0] == b.name) or (b.anchor and b.anchor[0] == a.name):
        return False
    return a.first < b.last and b.first < a.last and at < bt + b.size and bt < at + a.size


def offsets_within(parts: tuple[Buffer, ...], capacity: int) -> Iterator[dict[str, int]]:
    """Every right answer: each buffer in turn at every byte, anchored ones where they must be."""

    def extend(placed: dict[str, int]) -> Iterator[dict[str, int]]:
        if len(placed) == len(parts):
            yield placed
            return
        buffer = parts[len(placed)]
        everywhere = range(0, capacity - buffer.size + 1, buffer.alignment)
        choices = everywhere if buffer.anchor is None else [placed[buffer.anchor[0]] + buffer.anchor[1]]
        for offset in choices:
            if offset not in everywhere:
                continue
            if not any(collide(buffer, offset, parts[i], at) for i, at in enumerate(placed.values())):
                yield from extend({**placed, buffer.name: offset})

    return extend({})


def optimum(parts: tuple[Buffer, ...], most: int) -> int:
    return next(c for c in range(most + 1) if next(offsets_within(parts, c), None) is not None)


@settings(deadline=None, max_examples=60)
@given(st.booleans().flatmap(lambda anchors: problems(anchors)))
def test_no_offsets_at_all_need_less(problem: Problem) -> None:
    memory = plan(problem)
    check_plan(memory)
    assert memory.placement_bound_bytes <= memory.arena_bytes <= greedy_bytes(problem)
    assert memory.arena_bytes == optimum(problem.buffers, memory.arena_bytes)


@settings(deadline=None, max_examples=60)
@given(problems(anchors=True))
def test_bound_counts_each_live_byte_once(problem: Problem) -> None:
    memory = plan(problem)
    used = [
        {
            memory.placements[b.name].offset + byte
            for b in problem.buffers
            if b.first <= step < b.last
            for byte in range(b.size)
        }
        for step in range(9)
    ]
    assert memory.placement_bound_bytes == max(map(len, used))
    assert memory.peak_step == [len(u) for u in used].index(memory.placement_bound_bytes)


@settings(deadline=None, max_examples=60)
@given(problems(anchors=True), st.integers(-4, 4), st.data())
def test_judge_accepts_an_anchored_buffer_at_its_distance_only(
    problem: Problem, shift: int, data: st.DataObject
) -> None:
    memory = plan(problem)
    tied = [b for b in problem.buffers if b.anchor is not None]
    if not tied or shift == 0:
        return
    victim = data.draw(st.sampled_from(tied))
    place_of = memory.placements[victim.name]
    moved = {**memory.placements, victim.name: Placement(place_of.space, place_of.offset + shift)}
    assert any(f"{victim.name} lies at" in line for line in violations(MemoryPlan(problem, moved)))


def test_judge_knows_no_other_excuse_for_a_collision() -> None:
    """`c` hangs on `b`, which hangs on `a`: that does not let `c` share bytes with `a`."""
    a, b = Buffer("a", 8, 0, 3, 1), Buffer("b", 8, 1, 4, 1, None, ("a", -8))
    with pytest.raises(ValueError, match="the anchors of 'a' and 'c' make them collide"):
        Problem((a, b, Buffer("c", 8, 2, 5, 1, None, ("b", 4))), (WIDE,))
    parts = (a, b, Buffer("c", 8, 2, 5, 1))
    loose = MemoryPlan(Problem(parts, (WIDE,)), {n: Placement("ram", at) for n, at in (("a", 8), ("b", 0), ("c", 4))})
    assert len(violations(loose)) == 2


@pytest.mark.parametrize(
    ("anchor", "message"),
    [(("nobody", 0), "does not exist"), (("x", 0), "anchored to itself"), (("a", 2), "alignment does not allow")],
)
def test_impossible_anchors_are_refused(anchor: tuple[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Problem((Buffer("a", 8, 0, 2, 4), Buffer("x", 8, 1, 3, 4, None, anchor)), (WIDE,))


def test_interlocking_shapes_lie_in_each_other() -> None:
    """Each is low where the other is high: neither lies below the other, no skyline finds it."""
    shapes = (
        *(Buffer("a0", 2, 0, 2, 1), Buffer("a1", 2, 1, 4, 1, None, ("a0", 2))),
        *(Buffer("b0", 2, 3, 6, 1), Buffer("b1", 2, 5, 6, 1, None, ("b0", 2)), Buffer("c", 2, 3, 5, 1)),
        Buffer("d", 2, 0, 1, 1),
    )
    memory = plan(Problem(shapes, (WIDE,)))
    check_plan(memory)
    assert memory.arena_bytes == optimum(shapes, 12)


@settings(deadline=None, max_examples=25)
@given(problems(anchors=True, most=5, spaces=(Space("fast", 9), Space("slow", 12))))
def test_over_two_spaces_the_fewest_bytes_are_in_the_slow_one(problem: Problem) -> None:
    """Against every split of the groups whose halves have right answers."""
    fast, slow = problem.spaces

    def fits(parts: tuple[Buffer, ...], capacity: int) -> bool:
        return next(offsets_within(parts, capacity), None) is not None

    choices = []
    for mask in range(1 << len(problem.groups)):
        names = {n for i, g in enumerate(problem.groups) if mask >> i & 1 for n, _ in g.members}
        inside = tuple(b for b in problem.buffers if b.name in names)
        rest = tuple(b for b in problem.buffers if b.name not in names)
        if fits(rest, fast.capacity) and fits(inside, slow.capacity):
            choices.append(sum(g.height for i, g in enumerate(problem.groups) if mask >> i & 1))
    alone = fits(problem.buffers, slow.capacity)
    try:
        memory = plan(problem)
    except FitError:
        assert choices == []
        return
    check_plan(memory)
    used = {memory.placements[b.name].space for b in problem.buffers}
    if fits(problem.buffers, fast.capacity):
        assert used == {"fast"}
    elif alone:
        assert used == {"slow"}
    else:
        spilled = sum(g.height for g in problem.groups if memory.placements[g.name].space == "slow")
        assert spilled == min(choices)


def test_c_and_python_search_the_same_nodes() -> None:
    native, note = exact_native.searcher()
    assert note == ""
    parts = (*rows(PUZZLE), Buffer("in", 9, 2, 5, 1), Buffer("out", 5, 4, 8, 1, None, ("in", -3)))
    for buffers in (rows(PUZZLE), parts):
        groups = Problem(buffers, (WIDE,)).groups
        shapes, bound = shapes_of(groups)
        seen = set()
        for kind in ("TWA", "LS"):
            for capacity in range(bound, bound + 8):
                for limit in (10, 2000):
                    arguments = (shapes, rank_of(groups, shapes, kind), capacity, limit)
                    ours, theirs = native(*arguments), exact_search.search(*arguments)
                    seen.add(ours.status)
                    assert (ours.status, ours.nodes, ours.weights) == (theirs.status, theirs.nodes, theirs.weights)
                    assert ours.status != exact_search.FOUND or ours.offsets == theirs.offsets
        assert exact_search.FOUND in seen
        assert len(seen) > 1


def test_without_a_compiler_the_plan_is_the_same_and_a_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = Problem(rows(PUZZLE), (WIDE,)).groups
    start = [sum(g.height for g in groups[:i]) for i in range(len(groups))]
    native = minimize(groups, start, 52)

    def broken(*_: object) -> Path:
        raise DeviceError("no compiler here")

    monkeypatch.setattr(exact_native, "cached_host_library", broken)
    fresh = exact_native.searcher.__wrapped__
    monkeypatch.setattr(exact, "searcher", fresh)
    monkeypatch.setattr(place, "searcher", fresh)
    assert minimize(groups, start, 52) == native
    assert "no compiler here" in place.placement_note()


def test_a_small_puzzle_that_no_greedy_order_solves() -> None:
    problem = Problem(rows(PUZZLE), (Space("ram", 52),))
    memory = plan(problem)
    check_plan(memory)
    assert memory.arena_bytes == memory.placement_bound_bytes == 52 < greedy_bytes(problem)


def test_equal_problems_are_answered_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = rows(PUZZLE)
    first = plan(Problem(parts, (WIDE,)))
    monkeypatch.setattr(place, "minimize", partial(pytest.fail, "searched again"))
    renamed = tuple(Buffer(f"other {b.name}", b.size, b.first + 7, b.last + 7, b.alignment) for b in parts)
    again = plan(Problem(renamed, (WIDE,)))
    check_plan(again)
    assert [p.offset for p in again.placements.values()] == [p.offset for p in first.placements.values()]


@pytest.mark.skipif(not PUBLISHED, reason="the published placement problems are not on this machine")
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_problems_fit(path: Path) -> None:
    problem = Problem(rows(path), (Space("ram", 1_048_576),))
    check_plan(plan(problem))


def test_plan_writes_the_rows_with_offsets(tmp_path: Path) -> None:
    answer = edgec("plan", PUZZLE, "--capacity", 52, "--out", tmp_path / "out.csv", "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["arena_bytes"], answer.json["placement_bound_bytes"], answer.json["notes"]) == (52, 52, [])
    with (tmp_path / "out.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    with PUZZLE.open(newline="") as file:
        given_rows = list(csv.DictReader(file))
    assert [{k: r[k] for k in ("id", "lower", "upper", "size")} for r in written] == given_rows
    problem = Problem(rows(PUZZLE), (Space("ram", 52),))
    check_plan(MemoryPlan(problem, {r["id"]: Placement("ram", int(r["offset"])) for r in written}))
    told = edgec("plan", PUZZLE, "--capacity", 60, "--out", tmp_path / "out.csv")
    assert told.out.startswith("14 buffers in 52 B of 60, which is the bound\n")


def test_plan_that_does_not_fit_tells_bound_and_best_found(tmp_path: Path) -> None:
    answer = edgec("plan", PUZZLE, "--capacity", 51, "--out", tmp_path / "out.csv")
    assert answer.code == 4
    assert "arena needs 52 B, the memory has 51 B: over by 1 B" in answer.err
    assert "need   52 B live at step" in answer.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no single column id, lower, upper, size"),
        ("id,lower,upper\n", "line 1: no single column size"),
        ("id,lower,upper,size\na,0,2,4\nb,x,2,4\n", "line 3: lower 'x' is not a whole number"),
        ("id,lower,upper,size\na,0,2\n", "line 2: 3 cells, the header has 4"),
        ("id,lower,upper,size\na,0,2,4\n\na,0,2,4\n", "line 4: id 'a' is that of line 2"),
        ("id,lower,upper,size\na,2,2,4\n", "line 2: lower 2 is not below upper 2"),
        ("id,lower,upper,size\na,-1,2,4\n", "line 2: lower -1 is negative"),
        ("id,lower,upper,size\na,0,2,0\n", "line 2: size 0 is not positive"),
        ("id,lower,upper,size\n,0,2,1\n", "line 2: no id"),
    ],
)
def test_plan_names_the_line_that_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(text)
    answer = edgec("plan", tmp_path / "in.csv", "--capacity", 9, "--out", tmp_path / "out.csv")
    assert answer.code == 2
    assert message in answer.err
    missing = edgec("plan", tmp_path / "none.csv", "--capacity", 9, "--out", tmp_path / "out.csv")
    assert (missing.code, "cannot read" in missing.err) == (2, True)
