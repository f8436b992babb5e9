# SPDX-License-Identifier: Apache-2.0
"""Offsets: greedy first fit in a few orders, improved by exact search; buffers anchored to each other move as one.

First in one space alone (the preferred one that suffices), then over all of them. Equal problems get equal plans, and
a problem seen before, whatever its names and step numbers, is answered from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from edgec.errors import FitError
from edgec.schedule.exact import minimize
from edgec.schedule.exact_native import searcher
from edgec.schedule.problem import MemoryPlan, Placement, Problem
from edgec.schedule.rigid import Part, RigidGroup
from edgec.schedule.spill import Layout, first_fit, spill

_Groups = tuple[RigidGroup, ...]


class _Order(NamedTuple):
    """What goes first. Large groups find the fewest gaps; long-lived ones are in everybody's way; program order
    keeps chains of equal tensors tight. No order wins on all programs, and all are cheap.
    """

    key: Callable[[RigidGroup], tuple[int, ...]]


_ORDERS = (
    _Order(lambda g: (-g.height, g.first)),
    _Order(lambda g: (-g.area, g.first)),
    _Order(lambda g: (g.first, -g.height)),
)


def plan(problem: Problem, search: bool = True) -> MemoryPlan:
    """Place every buffer of `problem`; greedily if it is not to be searched.

    Everything lies in one space if one suffices (the first such in order of preference), in the fewest bytes that
    the search finds; otherwise as few bytes as can be lie in the less preferred spaces.

    Raises:
        FitError: no placement was found; it names need, have, difference and the operator at the peak.
    """
    groups = _from_zero(problem.groups)
    spaces = [space.name for space in problem.spaces]
    over = -1
    for index, space in enumerate(problem.spaces):
        if all(space in problem.may_use(buffer) for buffer in problem.buffers):
            offsets, arena = _in_one_space(_unnamed(groups), space.capacity, search)
            over = max(0, arena - space.capacity)
            if over == 0:
                return _named(problem, spaces, Layout((index,) * len(groups), offsets, 0, 0, arena))
    if len(spaces) > 1:
        layout = _over_all(
            _by_events(groups),
            tuple((space.name, space.capacity) for space in problem.spaces),
        )
        over = layout.overrun
        if over == 0:
            return _named(problem, spaces, layout)
    raise _does_not_fit(problem, over)


def placement_note() -> str:
    """What a report should say of how placement was searched; empty if nothing."""
    return searcher()[1]


def greedy_bytes(problem: Problem) -> int:
    """Bytes that the best greedy order takes in one space: what `plan` starts from."""
    groups = _unnamed(_from_zero(problem.groups))
    return min((_arena(groups, offsets) for offsets in _greedy_offsets(groups)), default=0)


def _from_zero(groups: _Groups) -> _Groups:
    """The groups with their steps counted from the first that matters: equal problems become equal values."""
    start = min((g.first for g in groups), default=0)
    return tuple(
        g._replace(parts=tuple(Part(p.first - start, p.last - start, p.low, p.high) for p in g.parts)) for g in groups
    )


def _by_events(groups: _Groups) -> _Groups:
    """The groups with only those steps counted at which something begins or ends."""
    events = sorted({step for g in groups for p in g.parts for step in (p.first, p.last)})
    number = {step: i for i, step in enumerate(events)}
    return tuple(
        g._replace(parts=tuple(Part(number[p.first], number[p.last], p.low, p.high) for p in g.parts)) for g in groups
    )


def _unnamed(groups: _Groups) -> _Groups:
    return tuple(g._replace(name="", members=(), allowed=None) for g in groups)


@lru_cache(maxsize=1024)
def _in_one_space(groups: _Groups, capacity: int, search: bool) -> tuple[tuple[int, ...], int]:
    """The offsets of the groups and the bytes they take."""
    if not groups:
        return (), 0
    start = min(_greedy_offsets(groups), key=lambda offsets: _arena(groups, offsets))
    if not search:
        return start, _arena(groups, start)
    best = minimize(groups, start, capacity)
    return best.offsets, best.arena


@lru_cache(maxsize=256)
def _spilled(groups: _Groups, capacities: tuple[int, ...], allowed: tuple[tuple[int, ...], ...]) -> Layout:
    return spill(groups, capacities, allowed, [order.key for order in _ORDERS])


def _over_all(groups: _Groups, spaces: tuple[tuple[str, int], ...]) -> Layout:
    allowed = tuple(
        tuple(i for i, (name, _) in enumerate(spaces) if g.allowed is None or name in g.allowed) for g in groups
    )
    return _spilled(_unnamed(groups), tuple(capacity for _, capacity in spaces), allowed)


def _arena(groups: _Groups, offsets: Sequence[int]) -> int:
    return max((at + g.height for at, g in zip(offsets, groups, strict=True)), default=0)


def _greedy_offsets(groups: _Groups) -> list[tuple[int, ...]]:
    far = sum(g.height + g.modulus for g in groups)
    everywhere = ((0,),) * len(groups)
    return [first_fit(groups, (far,), everywhere, order.key).offsets for order in _ORDERS]


def _named(problem: Problem, spaces: Sequence[str], layout: Layout) -> MemoryPlan:
    placements = {}
    for group, space, offset in zip(problem.groups, layout.spaces, layout.offsets, strict=True):
        for name, distance in group.members:
            placements[name] = Placement(spaces[space], offset + distance)
    return MemoryPlan(problem, {buffer.name: placements[buffer.name] for buffer in problem.buffers})


def _does_not_fit(problem: Problem, overrun: int) -> FitError:
    have = sum(space.capacity for space in problem.spaces)
    peak = problem.peak
    at = problem.step_name(peak.step)
    largest = ", ".join(f"{b.name} {b.size:,} B" for b in problem.live_at(peak.step)[:3])
    memories = " + ".join(f"{space.name} {space.capacity:,} B" for space in problem.spaces)
    return FitError(
        f"arena needs {have + overrun:,} B, {problem.target} has {have:,} B: over by {overrun:,} B at {at}",
        need=f"{peak.live_bytes:,} B live at {at} (largest: {largest})",
        have=memories,
    )
