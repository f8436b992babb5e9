# SPDX-License-Identifier: Apache-2.0
"""Groups over several spaces: what no space holds alone. As few bytes as can be lie in the less preferred ones."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgec.schedule.exact import minimize
from edgec.schedule.rigid import RigidGroup

_ASSIGNMENTS = 20_000
# Splits that are placed exactly: every one of a small problem, the first few of a large one.
_LEAVES_OF_SMALL, _SMALL, _LEAVES = 1500, 12, 20
_NODES_OF_LEAF = 20_000


class Layout(NamedTuple):
    """An attempt: space and offset of each group. It may run over the end of the spaces, by `overrun` bytes in all;
    `slow` is the sum of bytes times the space's place in the order of preference.
    """

    spaces: tuple[int, ...]
    offsets: tuple[int, ...]
    overrun: int
    slow: int
    arena: int

    @property
    def cost(self) -> tuple[int, int, int]:
        """What is minimized, the first thing first."""
        return self.overrun, self.slow, self.arena


def spill(
    groups: Sequence[RigidGroup],
    capacities: Sequence[int],
    allowed: Sequence[Sequence[int]],
    orders: Sequence[Callable[[RigidGroup], tuple[int, ...]]],
) -> Layout:
    """The best layout found over all spaces, `allowed[g]` those of group `g`; never worse than the best greedy."""
    best = min((first_fit(groups, capacities, allowed, order) for order in orders), key=lambda found: found.cost)
    search = _Assign(groups, capacities, allowed, best)
    search.improve(best.spaces)
    search.assign(0, [])
    return search.best


def first_fit(
    groups: Sequence[RigidGroup],
    capacities: Sequence[int],
    allowed: Sequence[Sequence[int]],
    order: Callable[[RigidGroup], tuple[int, ...]],
) -> Layout:
    """Greedy in `order`: each group in its first space with room. What fits nowhere reaches the least beyond an end."""
    inside: list[list[tuple[RigidGroup, int]]] = [[] for _ in capacities]
    spaces, offsets = [0] * len(groups), [0] * len(groups)
    for g in sorted(range(len(groups)), key=lambda g: (*order(groups[g]), g)):
        choices = []
        for space in allowed[g]:
            offset = _lowest_offset(groups[g], inside[space])
            choices.append((max(0, offset + groups[g].height - capacities[space]), space, offset))
        _, spaces[g], offsets[g] = min(choices)
        inside[spaces[g]].append((groups[g], offsets[g]))
    return _layout(groups, capacities, spaces, offsets)


def _layout(
    groups: Sequence[RigidGroup], capacities: Sequence[int], spaces: Sequence[int], offsets: Sequence[int]
) -> Layout:
    ends = [0] * len(capacities)
    for group, space, offset in zip(groups, spaces, offsets, strict=True):
        ends[space] = max(ends[space], offset + group.height)
    over = sum(max(0, end - capacity) for end, capacity in zip(ends, capacities, strict=True))
    slow = sum(group.height * space for group, space in zip(groups, spaces, strict=True))
    return Layout(tuple(spaces), tuple(offsets), over, slow, sum(ends))


def _lowest_offset(group: RigidGroup, placed: Sequence[tuple[RigidGroup, int]]) -> int:
    """The lowest aligned offset at which `group` meets none of those `placed` in the same space."""
    gaps: list[tuple[int, int]] = []
    for other, at in placed:
        for q in other.parts:
            for p in group.parts:
                if p.first < q.last and q.first < p.last:
                    insort(gaps, (at + q.low - p.high, at + q.high - p.low))
    offset = group.lift(0)
    for low, high in gaps:
        if offset <= low:
            break
        if offset < high:
            offset = group.lift(high)
    return offset


class _Assign:
    """Depth-first over which group lies in which space, the preferred ones first; exact placement at the leaves."""

    def __init__(
        self, groups: Sequence[RigidGroup], capacities: Sequence[int], allowed: Sequence[Sequence[int]], best: Layout
    ) -> None:
        self.groups, self.capacities, self.allowed, self.best = groups, capacities, allowed, best
        self.order = sorted(range(len(groups)), key=lambda g: (-groups[g].height, groups[g].first, g))
        self.steps = max((p.last for g in groups for p in g.parts), default=0)
        self.live = [[0] * self.steps for _ in capacities]
        self.left = _ASSIGNMENTS
        self.leaves = _LEAVES_OF_SMALL if len(groups) <= _SMALL else _LEAVES
        # What the groups not yet assigned cost at least.
        self.least = [0]
        for g in reversed(self.order):
            self.least.append(self.least[-1] + groups[g].height * min(allowed[g]))
        self.least.reverse()

    def assign(self, depth: int, chosen: list[int], slow: int = 0) -> None:
        """Try every space for the group at `depth`; `slow` is the cost of those before it."""
        self.left -= 1
        if self.left < 0 or self.leaves <= 0 or (0, slow + self.least[depth], 0) >= self.best.cost:
            return
        if depth == len(self.order):
            spaces = [0] * len(chosen)
            for g, space in zip(self.order, chosen, strict=True):
                spaces[g] = space
            self.improve(spaces)
            return
        group = self.groups[self.order[depth]]
        for space in self.allowed[self.order[depth]]:
            if self._add(group, space, 1):
                self.assign(depth + 1, [*chosen, space], slow + group.height * space)
            self._add(group, space, -1)

    def _add(self, group: RigidGroup, space: int, sign: int) -> bool:
        """Count the group's bytes in `space`; False if more are live there than it has."""
        live, fits = self.live[space], True
        for part in group.parts:
            for step in range(part.first, part.last):
                live[step] += sign * (part.high - part.low)
                fits &= live[step] <= self.capacities[space]
        return fits

    def improve(self, spaces: Sequence[int]) -> None:
        """Place each space's groups by exact search and keep the layout if it is better."""
        self.leaves -= 1
        everywhere = [(space,) for space in spaces]
        start = first_fit(self.groups, self.capacities, everywhere, lambda g: (-g.height, g.first))
        offsets = list(start.offsets)
        for space, capacity in enumerate(self.capacities):
            inside = [g for g, where in enumerate(spaces) if where == space]
            held = [offsets[g] for g in inside]
            if spaces == self.best.spaces:
                held = [self.best.offsets[g] for g in inside]
            found = minimize([self.groups[g] for g in inside], held, capacity, _NODES_OF_LEAF)
            for g, offset in zip(inside, found.offsets, strict=True):
                offsets[g] = offset
            if found.arena > capacity and self.best.overrun == 0:
                return
        layout = _layout(self.groups, self.capacities, spaces, offsets)
        if layout.cost < self.best.cost:
            self.best = layout
