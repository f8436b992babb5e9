# SPDX-License-Identifier: Apache-2.0
"""The placement problem and its answer: buffers with live ranges, memories, and an offset for each buffer.

Steps number the calls of a program from 0. A buffer is live in the half-open range `[first, last)`: it is
born before call `first` and dead once call `last - 1` has returned. Sizes, offsets and alignments are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from edgec.schedule.rigid import Anchored, RigidGroup, rigid_groups


@dataclass(frozen=True)
class Buffer:
    """Bytes that must lie somewhere while they are live: a tensor or one call's scratch.

    Attributes:
        name: unique within its problem; what reports and errors call it.
        size: bytes, at least 1.
        first: first step at which it is live.
        last: first step at which it is dead again, after `first`.
        alignment: its offset is a multiple of this.
        allowed: the spaces it may lie in, or None for all of them.
        anchor: `(a, d)`: it lies at offset(a) + d, in the same space, and may share bytes with `a` while both live
            (an output inside its dying input; that this is safe is proven where the anchor is made).
    """

    name: str
    size: int
    first: int
    last: int
    alignment: int = 4
    allowed: frozenset[str] | None = None
    anchor: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.alignment < 1 or not 0 <= self.first < self.last:
            raise ValueError(f"not a buffer: {self}")

    @property
    def steps(self) -> int:
        """Number of steps during which it is live."""
        return self.last - self.first

    def meets(self, other: Buffer) -> bool:
        """True if both are live at some step, and so must not share a byte."""
        return self.first < other.last and other.first < self.last


@dataclass(frozen=True)
class Space:
    """One contiguous span of RAM for the arena; its start is aligned for every buffer.

    Attributes:
        name: what the target calls it.
        capacity: bytes that the arena may use.
    """

    name: str
    capacity: int


@dataclass(frozen=True)
class Problem:
    """What to place, and where it may go.

    Attributes:
        buffers: what to place.
        spaces: the memories, the preferred one first.
        steps: the name of each step's operator, for reports; steps beyond its end are called by their number.
        target: what errors call the owner of the spaces.
    """

    buffers: tuple[Buffer, ...]
    spaces: tuple[Space, ...]
    steps: tuple[str, ...] = ()
    target: str = "the target"

    def __post_init__(self) -> None:
        spaces = {space.name for space in self.spaces}
        if not spaces or len(spaces) != len(self.spaces):
            raise ValueError("a problem needs at least one space, and each a name of its own")
        names = {buffer.name for buffer in self.buffers}
        if len(names) != len(self.buffers):
            raise ValueError("two buffers have one name")
        for buffer in self.buffers:
            if buffer.allowed is not None and not buffer.allowed & spaces:
                raise ValueError(f"buffer {buffer.name!r} may lie in none of the spaces {sorted(spaces)}")
        for group in self.groups:
            if group.allowed is not None and not group.allowed & spaces:
                raise ValueError(f"{group.name!r} and what is anchored to it may lie in no common space")

    @cached_property
    def groups(self) -> tuple[RigidGroup, ...]:
        """What moves as one: every buffer with all that is anchored to it; most groups are one buffer."""
        return rigid_groups(
            [Anchored(b.name, b.size, b.first, b.last, b.alignment, b.allowed, b.anchor) for b in self.buffers]
        )

    def may_use(self, buffer: Buffer) -> tuple[Space, ...]:
        """The spaces that `buffer` may lie in, the preferred one first."""
        return tuple(s for s in self.spaces if buffer.allowed is None or s.name in buffer.allowed)

    def step_name(self, step: int) -> str:
        """What reports call `step`."""
        return self.steps[step] if step < len(self.steps) else f"step {step}"

    @cached_property
    def peak(self) -> Peak:
        """The step with the most live bytes, the first if there are several; shared bytes count once."""
        change: dict[int, int] = {}
        for part in (part for group in self.groups for part in group.parts):
            change[part.first] = change.get(part.first, 0) + part.high - part.low
            change[part.last] = change.get(part.last, 0) - part.high + part.low
        best = Peak(step=0, live_bytes=0)
        live = 0
        for step in sorted(change):
            live += change[step]
            if live > best.live_bytes:
                best = Peak(step, live)
        return best

    def live_at(self, step: int) -> tuple[Buffer, ...]:
        """The buffers that are live at `step`, the largest first."""
        live = (b for b in self.buffers if b.first <= step < b.last)
        return tuple(sorted(live, key=lambda b: (-b.size, b.name)))


@dataclass(frozen=True)
class Peak:
    """Where a program needs most memory: the step, and the sum of the bytes live at it."""

    step: int
    live_bytes: int


@dataclass(frozen=True)
class Placement:
    """Where one buffer lies: `offset` bytes from the start of the space called `space`."""

    space: str
    offset: int


@dataclass(frozen=True)
class MemoryPlan:
    """An answer to a `Problem`: the place of every buffer, by its name. `check_plan` judges it."""

    problem: Problem
    placements: Mapping[str, Placement]

    @cached_property
    def arena_bytes_by_space(self) -> dict[str, int]:
        """For each space the bytes that the arena takes of it: where its furthest buffer ends."""
        arena = {space.name: 0 for space in self.problem.spaces}
        for buffer in self.problem.buffers:
            place = self.placements[buffer.name]
            arena[place.space] = max(arena[place.space], place.offset + buffer.size)
        return arena

    @property
    def arena_bytes(self) -> int:
        """Bytes of arena, all spaces together."""
        return sum(self.arena_bytes_by_space.values())

    @property
    def placement_bound_bytes(self) -> int:
        """The most bytes live at one step, shared ones once: no placement of this order needs less."""
        return self.problem.peak.live_bytes

    @property
    def peak_step(self) -> int:
        """The step at which the placement bound is reached."""
        return self.problem.peak.step

    @property
    def peak_at(self) -> str:
        """The name of the operator at `peak_step`."""
        return self.problem.step_name(self.peak_step)
