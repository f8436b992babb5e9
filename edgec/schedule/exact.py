# SPDX-License-Identifier: Apache-2.0
"""The least memory for groups in one space: the bound is probed first, then rising capacities, each with a fixed
number of nodes. Never worse than the answer it starts from, and the same for equal problems.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgec.schedule.exact_native import searcher
from edgec.schedule.exact_pairs import search_pairs
from edgec.schedule.exact_search import FOUND, LIMIT, NONE, Outcome, Shapes
from edgec.schedule.rigid import RigidGroup

NODES = 1_200_000
"""Nodes that one problem may cost: about two seconds where the bound cannot be reached."""
MAX_GROUPS = 1000
"""Beyond it the work space of the search, quadratic in this, is too large to be worth it."""
_MAX_BYTES = 2**60
_MAX_PAIRS = 9
# What is tried first among equal offsets: T most live bytes met, A bytes x steps, W steps, C sections, S size,
# U end, L begin. No order wins: each solves published problems in a thousand nodes that others fail in a million.
_RANKS = ("TWA", "TCA", "TLA", "TUA", "LS", "UC")
_RESTARTED = ("TU", "AS", "UC", "TWA")
_QUICK, _WIDE = 1000, 10_000
_LADDER = (32, 16, 8, 4, 2)


@dataclass(frozen=True)
class Best:
    """The offsets of the groups, the bytes they take, and what is known: no answer takes less than `bound`."""

    offsets: tuple[int, ...]
    arena: int
    bound: int
    nodes: int

    @property
    def proven(self) -> bool:
        """Whether there is no better answer."""
        return self.arena <= self.bound


def minimize(groups: Sequence[RigidGroup], start: Sequence[int], capacity: int, nodes: int = NODES) -> Best:
    """The best offsets found, from the offsets `start` on; `capacity` is where fitting matters most."""
    if not groups:
        return Best((), 0, 0, 0)
    run = _Run(groups, list(start), nodes)
    run.improve(capacity)
    return Best(tuple(run.offsets), run.arena, run.bound, nodes - run.left)


class _Run:
    """One minimization: the best answer so far, a proven bound, and the nodes left."""

    def __init__(self, groups: Sequence[RigidGroup], offsets: list[int], nodes: int) -> None:
        self.groups = groups
        self.offsets = offsets
        self.left = nodes
        self.shapes, self.bound = shapes_of(groups)
        self.rectangles = all(len(group.parts) == 1 for group in groups)
        self.arena = self._arena(offsets)
        self.ranks: dict[str, list[int]] = {}

    def improve(self, capacity: int) -> None:
        """Probe the bound, then `capacity`, then what lies between; in depth first where fitting is at stake."""
        if len(self.groups) > MAX_GROUPS or sum(g.height + g.modulus for g in self.groups) > _MAX_BYTES:
            return
        whole = self.left
        self._attempt(self.bound, whole, deep=False)
        if self.arena > capacity and self._attempt(capacity, whole, deep=False) != FOUND:
            self._attempt(capacity, whole * 3 // 4, deep=True)
        gap, floor = self.arena - self.bound, self.bound
        for part in _LADDER:
            if self._attempt(floor + gap // part, whole, deep=False) == FOUND:
                break
        self._attempt(self.bound, whole // 10, deep=True)
        while self.arena > self.bound and self._attempt(self.arena - 1, whole, deep=False) == FOUND:
            pass
        if self.arena > self.bound and not self.rectangles and len(self.groups) <= _MAX_PAIRS:
            found, proven = search_pairs(self.groups, self.arena, self.bound)
            if found is not None:
                self._keep(found)
            if proven:
                self.bound = self.arena

    def _attempt(self, capacity: int, nodes: int, *, deep: bool) -> int:
        """Look for an answer in `capacity` at the cost of at most `nodes`.

        Searches with several ranks, restarted so that those groups go first at which they failed; in depth each time
        with more nodes.
        """
        if not self.bound <= capacity < self.arena:
            return LIMIT
        nodes = min(nodes, self.left)
        end = self.left - nodes
        for kind in _RANKS:
            found = self._search(self._rank(kind), capacity, min(self.left - end, _WIDE if deep else _QUICK))
            if found.status != LIMIT:
                return found.status
        failures = {kind: [0.0] * len(self.groups) for kind in _RESTARTED}
        again = 0
        while deep and self.left > end:
            for kind, seen in failures.items():
                rank = _by(seen, self._rank(kind))
                found = self._search(rank, capacity, min(self.left - end, 1500 + 400 * again))
                if found.status != LIMIT:
                    return found.status
                total = sum(found.weights) or 1
                failures[kind] = [0.7 * f + w / total for f, w in zip(seen, found.weights, strict=True)]
            again += 1
        return LIMIT

    def _search(self, rank: Sequence[int], capacity: int, limit: int) -> Outcome:
        """One search; keeps what it found or proved."""
        outcome = searcher()[0](self.shapes, rank, capacity, limit)
        self.left -= min(outcome.nodes, limit)
        if outcome.status == FOUND:
            self._keep(outcome.offsets)
        elif outcome.status == NONE and self.rectangles:
            self.bound = capacity + 1
        return outcome

    def _rank(self, kind: str) -> list[int]:
        if kind not in self.ranks:
            self.ranks[kind] = rank_of(self.groups, self.shapes, kind)
        return self.ranks[kind]

    def _keep(self, offsets: Sequence[int]) -> None:
        self.offsets, self.arena = list(offsets), self._arena(offsets)

    def _arena(self, offsets: Sequence[int]) -> int:
        return max(at + group.height for at, group in zip(offsets, self.groups, strict=True))


def _by(failures: Sequence[float], base: Sequence[int]) -> list[int]:
    """Ranks: what failed most first, equal ones as in `base`. Where searches fail is where they should begin."""
    order = sorted(range(len(base)), key=lambda g: (-round(failures[g], 4), base[g]))
    return _ranks(order)


def _ranks(order: Sequence[int]) -> list[int]:
    rank = [0] * len(order)
    for position, g in enumerate(order):
        rank[g] = position
    return rank


def rank_of(groups: Sequence[RigidGroup], shapes: Shapes, kind: str) -> list[int]:
    """The place of each group in the order `kind`."""
    total = [0] * shapes.sections
    for parts in shapes.parts:
        for since, until, low, high in parts:
            for t in range(since, until):
                total[t] += high - low
    values = {
        "T": [-max(total[a:b]) for a, b in zip(shapes.first, shapes.last, strict=True)],
        "A": [-g.area for g in groups],
        "W": [-sum(p.last - p.first for p in g.parts) for g in groups],
        "C": [a - b for a, b in zip(shapes.first, shapes.last, strict=True)],
        "S": [-g.height for g in groups],
        "U": [-max(p.last for p in g.parts) for g in groups],
        "L": [g.first for g in groups],
    }
    return _ranks(sorted(range(len(groups)), key=lambda g: (*(values[k][g] for k in kind), g)))


def shapes_of(groups: Sequence[RigidGroup]) -> tuple[Shapes, int]:
    """The groups as the search sees them, and a lower bound of the memory they take, alignment counted."""
    every = [part for group in groups for part in group.parts]
    begins, ends = {part.first for part in every}, {part.last for part in every}
    events = sorted(begins | ends)
    # What is live together is largest between a begin and the end that follows it; the rest is part of one of these.
    starts = [a for a, b in pairwise(events) if a in begins and b in ends]
    unit = math.gcd(*(n for g in groups for n in (g.modulus, g.residue, *(p.low for p in g.parts))))
    parts = tuple(
        tuple(
            (bisect_left(starts, p.first), bisect_left(starts, p.last), p.low, -(-p.high // unit) * unit)
            for p in group.parts
        )
        for group in groups
    )
    live, slack = [0] * len(starts), [0] * len(starts)
    for group, rounded in zip(groups, parts, strict=True):
        for part, (since, until, low, high) in zip(group.parts, rounded, strict=True):
            for t in range(since, until):
                live[t] += high - low
                slack[t] = max(slack[t], high - part.high)
    bound = max(max(a - b for a, b in zip(live, slack, strict=True)), max(g.residue + g.height for g in groups))
    first = tuple(min(p[0] for p in found) for found in parts)
    last = tuple(max(p[1] for p in found) for found in parts)
    shapes = Shapes(
        sections=len(starts),
        unit=unit,
        modulus=tuple(g.modulus for g in groups),
        residue=tuple(g.residue for g in groups),
        height=tuple(g.height for g in groups),
        parts=parts,
        first=first,
        last=last,
        near=_near(parts, first, last),
        order=tuple(sorted(range(len(groups)), key=lambda g: (first[g], last[g], g))),
    )
    return shapes, bound


def _near(
    parts: Sequence[Sequence[tuple[int, int, int, int]]], first: Sequence[int], last: Sequence[int]
) -> tuple[tuple[tuple[int, int], ...], ...]:
    near: list[list[tuple[int, int]]] = [[] for _ in parts]
    for g, mine in enumerate(parts):
        for h, theirs in enumerate(parts):
            if g == h or first[g] >= last[h] or first[h] >= last[g]:
                continue
            above = [p[3] - q[2] for p in mine for q in theirs if p[0] < q[1] and q[0] < p[1]]
            if above:
                near[g].append((h, max(above)))
    return tuple(tuple(found) for found in near)
