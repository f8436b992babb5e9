# SPDX-License-Identifier: Apache-2.0
"""Rigid groups: buffers anchored to each other, which move as one shape of rectangles (steps x bytes)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple


class Anchored(NamedTuple):
    """What a buffer says of itself (see `Buffer`)."""

    name: str
    size: int
    first: int
    last: int
    alignment: int
    allowed: frozenset[str] | None
    anchor: tuple[str, int] | None


class Part(NamedTuple):
    """A rectangle of a group: the bytes `[low, high)`, from the group's lowest one on, at steps `[first, last)`."""

    first: int
    last: int
    low: int
    high: int


class RigidGroup(NamedTuple):
    """Buffers at fixed distances from each other.

    Attributes:
        name: its first buffer's.
        members: each buffer's name and its distance from the group's lowest byte.
        parts: disjoint rectangles that cover what the members cover.
        height: bytes from its lowest to its highest.
        modulus, residue: the group's offset is `residue` modulo `modulus`, so that every member is aligned.
        allowed: the spaces that all members may lie in, or None for all.
    """

    name: str
    members: tuple[tuple[str, int], ...]
    parts: tuple[Part, ...]
    height: int
    modulus: int
    residue: int
    allowed: frozenset[str] | None

    @property
    def area(self) -> int:
        """Bytes times steps."""
        return sum((p.high - p.low) * (p.last - p.first) for p in self.parts)

    @property
    def first(self) -> int:
        """First step at which any of it is live."""
        return min(p.first for p in self.parts)

    def lift(self, offset: int) -> int:
        """The lowest offset from `offset` on at which every member is aligned."""
        return offset + (self.residue - offset) % self.modulus


def rigid_groups(buffers: Sequence[Anchored]) -> tuple[RigidGroup, ...]:
    """The groups of `buffers`, in the order of their first members.

    Raises:
        ValueError: an anchor is unknown or its own, no offset aligns all members, or two members collide that
            are not anchored to each other.
    """
    by_name = {b.name: b for b in buffers}
    place: dict[str, tuple[str, int]] = {}
    for buffer in buffers:
        chain: list[Anchored] = []
        at: Anchored = buffer
        seen: set[str] = set()
        while at.name not in place and at.anchor is not None:
            if at.name in seen:
                raise ValueError(f"buffer {buffer.name!r} is anchored to itself")
            seen.add(at.name)
            chain.append(at)
            if at.anchor[0] not in by_name:
                raise ValueError(f"buffer {at.name!r} is anchored to {at.anchor[0]!r}, which does not exist")
            at = by_name[at.anchor[0]]
        place.setdefault(at.name, (at.name, 0))
        for link in reversed(chain):
            assert link.anchor is not None
            root, distance = place[link.anchor[0]]
            place[link.name] = (root, distance + link.anchor[1])
    members: dict[str, list[tuple[Anchored, int]]] = {}
    for buffer in buffers:
        root, distance = place[buffer.name]
        members.setdefault(root, []).append((buffer, distance))
    return tuple(_group(found) for found in members.values())


def _group(found: list[tuple[Anchored, int]]) -> RigidGroup:
    lowest = min(distance for _, distance in found)
    found = [(b, distance - lowest) for b, distance in found]
    first = found[0][0]
    if len(found) == 1:
        part = Part(first.first, first.last, 0, first.size)
        return RigidGroup(first.name, ((first.name, 0),), (part,), first.size, first.alignment, 0, first.allowed)
    for (a, at), (b, bt) in combinations(found, 2):
        anchored = (a.anchor is not None and a.anchor[0] == b.name) or (b.anchor is not None and b.anchor[0] == a.name)
        share = a.first < b.last and b.first < a.last and at < bt + b.size and bt < at + a.size
        if share and not anchored:
            raise ValueError(f"the anchors of {a.name!r} and {b.name!r} make them collide")
    modulus, residue = 1, 0
    for b, distance in found:
        modulus, residue = _both(modulus, residue, b.alignment, -distance % b.alignment, b.name)
    allowed: frozenset[str] | None = None
    for b, _ in found:
        if b.allowed is not None:
            allowed = b.allowed if allowed is None else allowed & b.allowed
    return RigidGroup(
        first.name,
        tuple((b.name, distance) for b, distance in found),
        _union(found),
        max(distance + b.size for b, distance in found),
        modulus,
        residue,
        allowed,
    )


def _both(m: int, r: int, n: int, q: int, name: str) -> tuple[int, int]:
    """The offsets that are `r` modulo `m` and `q` modulo `n`."""
    common = math.gcd(m, n)
    if (q - r) % common:
        raise ValueError(f"buffer {name!r} is anchored at a distance that its alignment does not allow")
    step = (q - r) // common * pow(m // common, -1, n // common) % (n // common) if n > common else 0
    both = m // common * n
    return both, (r + m * step) % both


def _union(found: list[tuple[Anchored, int]]) -> tuple[Part, ...]:
    """Disjoint rectangles: at each step the union of the members' bytes; equal neighbours in time are one."""
    steps = sorted({step for b, _ in found for step in (b.first, b.last)})
    done: list[Part] = []
    running: dict[tuple[int, int], int] = {}
    for step in steps:
        spans: list[list[int]] = []
        for low, high in sorted((at, at + b.size) for b, at in found if b.first <= step < b.last):
            if spans and low <= spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], high)
            else:
                spans.append([low, high])
        now = {(low, high) for low, high in spans}
        done += [Part(since, step, *span) for span, since in running.items() if span not in now]
        running = {span: running.get(span, step) for span in sorted(now)}
    return tuple(sorted(done))
