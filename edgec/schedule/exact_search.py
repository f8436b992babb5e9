# SPDX-License-Identifier: Apache-2.0
"""Branch and bound for placement in a given capacity, in Python: the same algorithm as `exact.c`, node for node.

Method: M. Moffitt, MiniMalloc (ASPLOS 2023). *Canonical*: in some best answer no group can be lowered, so groups are
placed from the bottom up, each resting on what lies below it, by (offset, rank). *Dominance*: what starts above the
top of another that could lie there is not next, and what is in nobody's way is never moved. *Sections*: at each step
the lowest offset left plus the bytes left must not exceed the capacity. *Decomposition*: groups left that are never
live together are solved apart; if one part fails, so does what split them. No clock and no randomness: a limit of
nodes.

Groups of one rectangle are searched completely; shapes of several only among answers in which one lies below the other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

LIMIT, NONE, FOUND = -1, 0, 1


@dataclass(frozen=True, eq=False)
class Shapes:
    """Groups as the search sees them, in sections (maximal sets of what is live together) instead of steps.

    Every offset is a multiple of `unit`, and sizes are rounded up to it. `parts[g]` are (first section, section after
    the last, low, high); `near[g]` are the groups `h` live together with `g`, each with the least offset(h) - offset(g)
    at which `h` lies above `g`; `order` is by first section.
    """

    sections: int
    unit: int
    modulus: tuple[int, ...]
    residue: tuple[int, ...]
    height: tuple[int, ...]
    parts: tuple[tuple[tuple[int, int, int, int], ...], ...]
    first: tuple[int, ...]
    last: tuple[int, ...]
    near: tuple[tuple[tuple[int, int], ...], ...]
    order: tuple[int, ...]

    def roof(self, capacity: int) -> int:
        """Where what is stacked may end, sizes being rounded up to `unit`."""
        return -(-capacity // self.unit) * self.unit

    def lift(self, group: int, offset: int) -> int:
        """The lowest offset from `offset` on that the alignment of `group` allows."""
        return offset + (self.residue[group] - offset) % self.modulus[group]


@dataclass(frozen=True)
class Outcome:
    """What a search found: `status` (FOUND, NONE, LIMIT), the offsets if found, nodes, and failures by group."""

    status: int
    offsets: list[int]
    nodes: int
    weights: list[int]


def search(shapes: Shapes, rank: Sequence[int], capacity: int, node_limit: int) -> Outcome:
    """Look for offsets within `capacity`, trying groups of equal offset by `rank`."""
    depth = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 2 * len(shapes.height) + 100)
    try:
        return _Search(shapes, rank, capacity, node_limit).run()
    finally:
        sys.setrecursionlimit(depth)


@dataclass
class _Search:
    shapes: Shapes
    rank: Sequence[int]
    capacity: int
    node_limit: int
    nodes: int = 0
    lowest: list[int] = field(init=False)
    offset: list[int] = field(init=False)
    weight: list[int] = field(init=False)
    placed: list[bool] = field(init=False)

    def run(self) -> Outcome:
        count = len(self.shapes.height)
        self.lowest = [self.shapes.lift(g, 0) for g in range(count)]
        self.offset, self.weight, self.placed = [0] * count, [0] * count, [False] * count
        parts = self._components(self.shapes.order)
        status = FOUND if all(self._promising(part, -1, -1) for part in parts) else NONE
        for part in parts:
            if status == FOUND:
                status = self._solve(part, -1, -1)
        return Outcome(status, self.offset, self.nodes, self.weight)

    def _reachable(self, g: int, last: int, base: int) -> int:
        """The lowest offset that the canonical order leaves to `g`, after `last` was placed at `base`."""
        at = self.lowest[g]
        if at < base:
            at = self.shapes.lift(g, base)
        if last >= 0 and at == base and self.rank[g] < self.rank[last]:
            at = self.shapes.lift(g, base + 1)
        return at

    def _components(self, groups: Sequence[int]) -> list[list[int]]:
        found: list[list[int]] = []
        end = -1
        for g in groups:
            if self.shapes.first[g] < end:
                found[-1].append(g)
            else:
                found.append([g])
            end = max(end, self.shapes.last[g])
        return found

    def _promising(self, groups: Sequence[int], last: int, base: int) -> bool:
        """False if some section cannot hold what is left to place in it."""
        begin, end = self.shapes.first[groups[0]], max(self.shapes.last[g] for g in groups)
        roof = self.shapes.roof(self.capacity)
        low, left = [self.capacity] * (end - begin), [0] * (end - begin)
        for g in groups:
            at = self._reachable(g, last, base)
            if at + self.shapes.height[g] > self.capacity:
                self.weight[g] += 1
                return False
            for since, until, bottom, top in self.shapes.parts[g]:
                for t in range(since - begin, until - begin):
                    low[t] = min(low[t], at + bottom)
                    left[t] += top - bottom
        for t in range(end - begin):
            if left[t] and low[t] + left[t] > roof:
                for g in groups:
                    self.weight[g] += self.shapes.first[g] <= t + begin < self.shapes.last[g]
                return False
        return True

    def _candidates(self, groups: Sequence[int], last: int, base: int, rectangles: bool) -> list[tuple[int, int, int]]:
        """(offset, rank, group) of those that may be next, in the order in which they are tried."""
        found = [(self.lowest[g], self.rank[g], g) for g in groups]
        if rectangles:
            reach = {g: self._reachable(g, last, base) for g in groups}
            top = min(reach[g] + self.shapes.height[g] for g in groups)
            found = [c for c in found if c[0] < top and c[0] == reach[c[2]]]
        elif last >= 0:
            # Two that never meet are placed in one order only.
            near = {h for h, _ in self.shapes.near[last]}
            found = [c for c in found if c[2] in near or c[:2] >= (self.offset[last], self.rank[last])]
        return sorted(found)

    def _solve(self, groups: Sequence[int], last: int, base: int) -> int:
        rectangles = all(len(self.shapes.parts[g]) == 1 for g in groups)
        for offset, _, g in self._candidates(groups, last, base, rectangles):
            self.nodes += 1
            if self.nodes > self.node_limit:
                return LIMIT
            self.placed[g], self.offset[g] = True, offset
            before: list[tuple[int, int]] = []
            reach = [self._reachable(h, last, base) for h, _ in self.shapes.near[g]]
            status = self._raise_near(g, offset, before)
            in_the_way = any(
                not self.placed[h] and offset + distance > at
                for (h, distance), at in zip(self.shapes.near[g], reach, strict=True)
            )
            if status == FOUND:
                status = self._solve_rest([h for h in groups if h != g], g, offset, rectangles)
            for h, lowest in reversed(before):
                self.lowest[h] = lowest
            self.placed[g] = False
            if status != NONE or not in_the_way:
                return status
        return NONE

    def _raise_near(self, g: int, offset: int, before: list[tuple[int, int]]) -> int:
        """Lift what is near `g` and still to place; NONE if one leaves the memory."""
        for h, distance in self.shapes.near[g]:
            need = offset + distance
            if self.placed[h] or need <= self.lowest[h]:
                continue
            before.append((h, self.lowest[h]))
            self.lowest[h] = self.shapes.lift(h, need)
            if self.lowest[h] + self.shapes.height[h] > self.capacity:
                self.weight[h] += 1
                self.weight[g] += 1
                return NONE
        return FOUND

    def _solve_rest(self, rest: Sequence[int], g: int, offset: int, rectangles: bool) -> int:
        tasks = []
        for part in self._components(rest):
            # The monotone rule holds among rectangles only; below a raised part something may still go.
            free = not rectangles and all(len(self.shapes.parts[h]) == 1 for h in part)
            tasks.append((part, -1 if free else g, offset if rectangles else -1))
        if not all(self._promising(*task) for task in tasks):
            return NONE
        for task in tasks:
            status = self._solve(*task)
            if status != FOUND:
                return status
        return FOUND
