# SPDX-License-Identifier: Apache-2.0
"""Within a plan: what lives shortest goes lowest, where the arena does not grow by it.

An arena often begins in tightly coupled memory, which no cache has to hold, and goes on in memory behind the cache. The
scratch of a dense layer is read once for every few of its outputs; behind the cache it drives out the very weights that
were to be read from flash once for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from edgec.schedule.problem import Buffer, MemoryPlan, Placement

_SHORT = 8
"""Most steps for which a buffer that is moved may live."""


def settle(plan: MemoryPlan) -> MemoryPlan:
    """The plan with short-lived buffers as low as they can lie in their spaces, those of a single step first.

    Every space takes at most as many bytes as before; buffers that are anchored, or that others are anchored to, stay.
    """
    tied = {name for b in plan.problem.buffers if b.anchor is not None for name in (b.name, b.anchor[0])}
    movable = [b for b in plan.problem.buffers if b.steps <= _SHORT and b.name not in tied]
    names = {b.name for b in movable}
    fixed = [b for b in plan.problem.buffers if b.name not in names]
    places = dict(plan.placements)
    for group in _apart(movable):
        beside = [b for b in fixed if any(b.meets(other) for other in group)]
        places |= _lower(plan, group, beside)
    return replace(plan, placements=places)


def _apart(buffers: Sequence[Buffer]) -> Iterator[list[Buffer]]:
    """Buffers in groups that never live at the same time."""
    group: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: (b.first, b.last, b.name)):
        if group and buffer.first >= max(b.last for b in group):
            yield group
            group = []
        group.append(buffer)
    if group:
        yield group


def _lower(plan: MemoryPlan, group: Sequence[Buffer], beside: Sequence[Buffer]) -> dict[str, Placement]:
    """Places of a group, in the first order in which it stays inside the arena; nothing if there is none."""
    ends = plan.arena_bytes_by_space
    scratch = [b for b in group if b.steps == 1]
    if not scratch:
        return {}
    largest = max(scratch, key=lambda b: (b.size, b.name))
    orders: tuple[Callable[[Buffer], tuple[bool, int]], ...] = (
        lambda b: (b.steps > 1, -b.size),
        lambda b: (b is not largest, -b.size),
    )
    for order in orders:
        places: dict[str, Placement] = {}
        known = {b.name: plan.placements[b.name] for b in beside}
        for buffer in sorted(group, key=lambda b: (*order(b), b.name)):
            space = plan.placements[buffer.name].space
            others = [b for b in (*beside, *group) if b.name in known and b.meets(buffer)]
            taken = sorted((known[b.name].offset, b.size) for b in others if known[b.name].space == space)
            known[buffer.name] = places[buffer.name] = Placement(space, _lowest(taken, buffer))
        if all(places[b.name].offset + b.size <= ends[places[b.name].space] for b in group):
            return places
    return {}


def _lowest(taken: Sequence[tuple[int, int]], buffer: Buffer) -> int:
    """The lowest offset at which a buffer fits between the (offset, size) of others."""
    at = 0
    for offset, size in taken:
        if at + buffer.size <= offset:
            return at
        at = max(at, -(-(offset + size) // buffer.alignment) * buffer.alignment)
    return at
