# SPDX-License-Identifier: Apache-2.0
"""Offsets by greedy first fit: buffers in a fixed order, each at the lowest offset free while it is live.

A few orders are tried, first in one space alone (the preferred one that suffices), then over all of them.
It is deterministic: equal problems get equal plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgec.errors import FitError
from edgec.schedule.problem import Buffer, MemoryPlan, Placement, Problem, Space

# What goes first. Large buffers find the fewest gaps; long-lived ones are in everybody's way; program order
# keeps chains of equal tensors tight. No order wins on all programs, and all are cheap.
_ORDERS: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
    lambda b: (-b.size, b.first),
    lambda b: (-b.size * b.steps, b.first),
    lambda b: (b.first, -b.size),
)


def plan(problem: Problem) -> MemoryPlan:
    """Place every buffer of `problem`.

    Everything lies in one space if one suffices (the first such in order of preference); otherwise
    each buffer lies in its most preferred space with room.

    Raises:
        FitError: the buffers do not fit; it names need, have, difference and the operator at the peak.
    """
    attempts: list[tuple[Space, ...]] = [(space,) for space in problem.spaces if _all_may_use(problem, space)]
    if len(problem.spaces) > 1:
        attempts.append(problem.spaces)
    for spaces in attempts:
        layout = min((_greedy(problem, spaces, order) for order in _ORDERS), key=lambda found: found.cost)
        if layout.overrun == 0:
            return MemoryPlan(problem, layout.placements)
    raise _does_not_fit(problem, layout.overrun)


@dataclass(frozen=True)
class _Layout:
    """One attempt: it may run over the end of the spaces, by `overrun` bytes in all."""

    placements: dict[str, Placement]
    overrun: int
    arena: int

    @property
    def cost(self) -> tuple[int, int]:
        return self.overrun, self.arena


def _all_may_use(problem: Problem, space: Space) -> bool:
    return all(space in problem.may_use(buffer) for buffer in problem.buffers)


def _greedy(problem: Problem, spaces: Sequence[Space], order: Callable[[Buffer], tuple[int, ...]]) -> _Layout:
    """First fit in `order`. What fits nowhere goes where it reaches the least beyond the end."""
    inside: dict[str, list[tuple[Buffer, int]]] = {space.name: [] for space in spaces}
    end = {space.name: 0 for space in spaces}
    placements: dict[str, Placement] = {}
    for buffer in sorted(problem.buffers, key=lambda b: (*order(b), b.name)):
        choices = []
        for preference, space in enumerate(problem.may_use(buffer)):
            if space.name not in inside:
                continue
            offset = _lowest_offset(buffer, inside[space.name])
            over = max(0, offset + buffer.size - space.capacity)
            choices.append((over, preference, space.name, offset))
        _, _, name, offset = min(choices)
        inside[name].append((buffer, offset))
        end[name] = max(end[name], offset + buffer.size)
        placements[buffer.name] = Placement(name, offset)
    overrun = sum(max(0, end[space.name] - space.capacity) for space in spaces)
    return _Layout(placements, overrun, arena=sum(end.values()))


def _lowest_offset(buffer: Buffer, placed: Sequence[tuple[Buffer, int]]) -> int:
    """The lowest aligned offset at which `buffer` meets none of those `placed` in the same space."""
    offset = 0
    for start, end in sorted((at, at + other.size) for other, at in placed if buffer.meets(other)):
        if offset + buffer.size <= start:
            break
        offset = max(offset, -(-end // buffer.alignment) * buffer.alignment)
    return offset


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
