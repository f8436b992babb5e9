# SPDX-License-Identifier: Apache-2.0
"""The least memory for a few rigid groups of any shape, interlocking ones too: branching on who lies where.

Two groups that are live together may differ in offset by what lies in one of a few intervals. Bounds follow from the
intervals chosen so far; the first pair that collides at its least offsets is branched on. Exact, exponential, for few
groups: `exact_search` places large problems, but only where of two groups one lies below the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgec.schedule.rigid import RigidGroup

NODES = 20_000


def search_pairs(groups: Sequence[RigidGroup], arena: int, bound: int) -> tuple[list[int] | None, bool]:
    """Offsets that take less than `arena` bytes, the best found, or None; and whether nothing better exists."""
    run = _Pairs(groups, arena, bound)
    done = run.solve([group.residue for group in groups], [])
    return run.best, done or run.arena <= bound


class _Pairs:
    def __init__(self, groups: Sequence[RigidGroup], arena: int, bound: int) -> None:
        self.groups, self.arena, self.bound = groups, arena, bound
        self.best: list[int] | None = None
        self.nodes = 0
        self.forbidden = {
            (i, j): gaps for i in range(len(groups)) for j in range(i) if (gaps := _forbidden(groups[i], groups[j]))
        }

    def solve(self, low: list[int], edges: list[tuple[int, int, int]]) -> bool:
        """Search above `low`, the least offsets under `edges` (i, j, d: offset i >= offset j + d); False: too long."""
        self.nodes += 1
        if self.nodes > NODES:
            return False
        raised = self._raise(low, edges)
        if raised is None or self.arena <= self.bound:
            return True
        for (i, j), gaps in self.forbidden.items():
            gap = next((g for g in gaps if g[0] < raised[i] - raised[j] < g[1]), None)
            if gap is None:
                continue
            above, below = (i, j, gap[1]), (j, i, -gap[0])
            return self.solve(raised, [*edges, above]) and self.solve(raised, [*edges, below])
        self.best = raised
        self.arena = max(at + group.height for at, group in zip(raised, self.groups, strict=True))
        return True

    def _raise(self, low: list[int], edges: list[tuple[int, int, int]]) -> list[int] | None:
        """The least offsets, or None if they do not lead to a better answer."""
        low = list(low)
        changed = True
        while changed:
            changed = False
            for i, j, distance in edges:
                if low[i] < low[j] + distance:
                    low[i] = self.groups[i].lift(low[j] + distance)
                    changed = True
                    if low[i] + self.groups[i].height >= self.arena:
                        return None
        fits = all(at + group.height < self.arena for at, group in zip(low, self.groups, strict=True))
        return low if fits else None


def _forbidden(a: RigidGroup, b: RigidGroup) -> list[tuple[int, int]]:
    """The open intervals in which offset(a) - offset(b) must not lie, disjoint."""
    gaps = sorted(
        (q.low - p.high, q.high - p.low) for p in a.parts for q in b.parts if p.first < q.last and q.first < p.last
    )
    merged: list[tuple[int, int]] = []
    for low, high in gaps:
        if merged and low < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged
