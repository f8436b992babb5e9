# SPDX-License-Identifier: Apache-2.0
"""Stages: operators that run together over blocks of rows, so that what passes between them never exists whole.

Which values are *kept* (exist whole) decides everything: each kept value is made by a stage of its own, from the
operators between it and other kept values. A cheap operator may belong to several stages; it is then computed again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from edgec.schedule.order import Graph, Node, best_order
from edgec.schedule.overlap import span
from edgec.schedule.rows import GROUP, RowGraph, Work

_MERGE_STATES = 2000
ALIGNMENT = 4


@dataclass(frozen=True)
class Blocking:
    """How a stage is cut: ticks of a block, and rows that a dense kernel packs at a time.

    `shared`: what several operators pack is packed once for all of them, the rows of the block together.
    """

    block: int
    panel: int
    shared: bool = False


@dataclass(frozen=True, eq=False)
class Stage:
    """Operators of a `RowGraph` that run together; `makes` are the kept values that they produce."""

    graph: RowGraph
    works: tuple[int, ...]
    makes: tuple[str, ...]

    @cached_property
    def members(self) -> tuple[Work, ...]:
        """The operators, in the order in which a block passes through them."""
        return tuple(self.graph.works[i] for i in self.works)

    @cached_property
    def ticks(self) -> int:
        """The number of equal parts into which all of its operators can be cut."""
        if not all(w.by_rows for w in self.members):
            return 1
        return math.gcd(*(w.units for w in self.members))

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Values that other stages made."""
        made = {w.writes for w in self.members}
        return tuple(dict.fromkeys(v for w in self.members for v in (*w.rows, *w.whole) if v not in made))

    @cached_property
    def least(self) -> Blocking:
        """The smallest blocks that are worth it."""
        block = min(self.ticks, -(-GROUP // self.rows_a_tick))
        if self.fed:
            block = next((b for b in range(block, self.ticks) if self.is_strip(b)), 1)
        plain, shared = Blocking(block, GROUP), Blocking(block, GROUP, bool(self.packings))
        return shared if self.local_bytes(shared) <= self.local_bytes(plain) else plain

    @cached_property
    def common(self) -> frozenset[int | tuple[str, int]]:
        """What it would have in common with another stage: operators, and what they pack."""
        return frozenset((*self.works, *(w.packs for w in self.members if w.packs)))

    @cached_property
    def packings(self) -> tuple[tuple[int, ...], ...]:
        """Members, by their numbers, that can share what they pack."""
        found: dict[tuple[str, int, int], list[int]] = {}
        for i, work in enumerate(self.members):
            if work.packs:
                found.setdefault((*work.packs, work.units), []).append(i)
        return tuple(tuple(group) for group in found.values() if len(group) > 1)

    def sharing(self, size: Blocking) -> dict[int, tuple[int, ...]]:
        """For each member that shares what is packed, the members that do."""
        return {i: group for group in self.packings for i in group} if size.shared else {}

    def last_reads(self, size: Blocking) -> dict[str, int]:
        """When each value is read last in a turn: 2i before member i, by what packs for it; 2i + 1 by it."""
        sharing, last = self.sharing(size), dict[str, int]()
        for i, work in enumerate(self.members):
            packed = work.packs[0] if work.packs and i in sharing else None
            for value in (*work.rows, *work.whole):
                last[value] = max(last.get(value, 0), 2 * sharing[i][0] if value == packed else 2 * i + 1)
        return last

    @cached_property
    def fed(self) -> bool:
        """Whether it runs strip by strip, as an input comes in."""
        return any(w.fed for w in self.members)

    def is_strip(self, block: int) -> bool:
        """Whether an input may be fed in strips of so many ticks: alike, and several."""
        return self.ticks % block == 0 and block < self.ticks

    @cached_property
    def rows_a_tick(self) -> int:
        """Rows of its dense operators (of any, if it has none) in a tick."""
        dense = [w.vectors or w.units for w in self.members if not w.cheap and not w.fed]
        dense = dense or [w.units for w in self.members]
        return max(1, min(dense) // self.ticks)

    def rows(self, work: Work, block: int) -> int:
        """Rows that a dense operator multiplies for a block of so many ticks."""
        return max(1, (work.vectors or work.units) * block // self.ticks)

    def local_bytes(self, size: Blocking) -> int:
        """Bytes beside kept values while a block passes through: its own values and scratch."""
        made = {w.writes: i for i, w in enumerate(self.members) if w.writes not in self.makes}
        last = {v: time for v, time in self.last_reads(size).items() if v in made}
        sharing = self.sharing(size)
        peak = live = 0
        sizes: dict[str, int] = {}
        for i, work in enumerate(self.members):
            rows = self.rows(work, size.block)
            packed = self._aligned(work.scratch.per_row * rows) if i in sharing else 0
            if packed and sharing[i][0] == i:
                live += packed
                peak = max(peak, live)
                live -= sum(sizes.pop(v, 0) for v in work.rows if last.get(v) == 2 * i)
            if work.writes in made:
                taking = self._aligned(self.graph.sizes[work.writes] * size.block / self.ticks)
                dying = [v for v, distance in work.over if last.get(v) == 2 * i + 1 and distance == 0]
                taken = next((v for v in dying if sizes.get(v) == taking), None)
                if taken is not None:
                    sizes[work.writes] = sizes.pop(taken)
                else:
                    sizes[work.writes] = taking
                    live += taking
            scratch = work.scratch.fixed if packed else work.scratch.at(rows, size.panel)
            peak = max(peak, live + self._aligned(scratch))
            for value in {v for v in (*work.rows, *work.whole) if last.get(v) == 2 * i + 1}:
                live -= sizes.pop(value, 0)
            if packed and sharing[i][-1] == i:
                live -= packed
        return peak

    @staticmethod
    def _aligned(size: float) -> int:
        return math.ceil(size / ALIGNMENT) * ALIGNMENT

    @cached_property
    def shares(self) -> tuple[tuple[str, str, int], ...]:
        """(read value, made value, bytes that they may have in common), block by block."""
        found = []
        for made in self.makes:
            for read in self.reads:
                before = self.begins_before(read, made)
                if before is not None:
                    sizes = self.graph.sizes[read], self.graph.sizes[made]
                    found.append((read, made, sum(sizes) - span(before, *sizes)))
        return tuple(share for share in found if share[2] > 0)

    def begins_before(self, read: str, made: str, size: Blocking | None = None) -> int | None:
        """Bytes by which a made value has to begin before a read one at least to take its bytes as it dies, or None.

        A turn writes its block after all that it reads of the other value is read, or as the operator that reads both
        allows; it must not reach what later turns read.
        """
        block = (size or self.least).block
        writer = next(i for i, w in enumerate(self.members) if w.writes == made)
        distance = reach = 0
        for i, work in enumerate(self.members):
            if read in work.rows or read in work.whole:
                over = dict(work.over).get(read)
                if read in work.whole and block < self.ticks:
                    behind = dict(work.behind).get(read)
                    if behind is None or i >= writer:
                        return None
                    reach = max(reach, behind)
                    continue
                if i > writer or (i == writer and over is None):
                    return None
                # A kernel's own blocks of rows begin anew with each turn; its distance is that of unbroken ones.
                broken = block < self.ticks and block * self.rows_a_tick % GROUP
                if i == writer and broken and (over or self.graph.sizes[read] != self.graph.sizes[made]):
                    return None
                distance = over if i == writer and over is not None else distance
        turns = -(-self.ticks // block)
        grows = (self.graph.sizes[made] - self.graph.sizes[read]) / self.ticks * block
        return self._aligned(distance + reach + max(0.0, (turns - 1) * grows))

    def cost(self, size: Blocking, flash_cost: float) -> float:
        """Estimated instructions with what reading weights from flash is worth, `flash_cost` for each byte."""
        return self.instructions(size) + flash_cost * self.flash_bytes(size)

    def instructions(self, size: Blocking) -> int:
        """Estimated instructions, those of the turns included."""
        turns = -(-self.ticks // size.block)
        groups = self.packings if size.shared else ()
        saved = sum((len(group) - 1) * self.members[group[0]].packing - turns * _CALL for group in groups)
        return sum(work.instructions + turns * _CALL for work in self.members) - saved

    def flash_bytes(self, size: Blocking) -> int:
        """Bytes of weights that it reads."""
        sharing = self.sharing(size)
        return sum(self._passes(work, size, i in sharing) * work.weights for i, work in enumerate(self.members))

    def _passes(self, work: Work, size: Blocking, shared: bool) -> int:
        turns = -(-self.ticks // size.block)
        return turns * (-(-self.rows(work, size.block) // size.panel) if work.scratch.per_row and not shared else 1)


_CALL = 60
"""Instructions of a call that do not depend on its rows."""


def stages_of(graph: RowGraph, kept: Iterable[str]) -> list[Stage]:
    """One stage for each kept value, in an order in which they can run."""
    makers, keep = graph.makers, set(kept)
    while True:
        cones = {v: _cone(graph, makers, v, keep) for v in sorted(keep & makers.keys(), key=makers.__getitem__)}
        counts: dict[int, int] = {}
        for cone in cones.values():
            for i in cone:
                counts[i] = counts.get(i, 0) + 1
        dear = {graph.works[i].writes for i, n in counts.items() if n > 1 and not graph.works[i].cheap}
        if not dear:
            return [Stage(graph, tuple(sorted(cone)), (v,)) for v, cone in cones.items()]
        keep |= dear


def must_keep(graph: RowGraph) -> set[str]:
    """Values that exist whole under any tiling: of the outside, read whole, or made by what cannot go by rows."""
    made = {w.writes for w in graph.works}
    kept = set(graph.keep) | {v for v in graph.sizes if v not in made}
    for work in graph.works:
        kept |= set(work.whole)
        if not work.by_rows:
            kept |= {work.writes, *work.rows}
    return kept


def _cone(graph: RowGraph, makers: dict[str, int], value: str, keep: set[str]) -> set[int]:
    found: set[int] = set()
    waiting = [makers[value]]
    while waiting:
        i = waiting.pop()
        if i not in found:
            found.add(i)
            waiting += [makers[v] for v in (*graph.works[i].rows, *graph.works[i].whole) if v not in keep]
    return found


@dataclass(frozen=True, eq=False)
class Schedule:
    """Stages in their order.

    Attributes:
        stages: what runs, in order.
        beside: bytes that are live while each stage runs, its own blocks and scratch left out.
        peak: bytes with the smallest blocks.
        cost: estimated instructions with the smallest blocks.
    """

    stages: tuple[Stage, ...]
    beside: tuple[int, ...]
    peak: int
    cost: float


def schedule(graph: RowGraph, kept: Iterable[str], flash_cost: float, budget: int = 0) -> Schedule:
    """The best order found for the stages of `kept`.

    Neighbours that share operators, or what these pack, become one stage where the peak stays the order's best, or
    within `budget`.
    """
    stages = stages_of(graph, kept)
    result = best_order(order_graph(graph, stages))
    limit = max(budget, result.peak)
    ordered = [stages[i] for i in _neighbourly(graph, stages, limit) or result.order]
    i = 0
    while i + 1 < len(ordered):
        merged = _merged(graph, ordered[i], ordered[i + 1])
        if merged is not None:
            shorter = [*ordered[:i], merged, *ordered[i + 2 :]]
            if max(_Live(graph, shorter).peaks(range(len(shorter)))) <= limit:
                ordered = shorter
                continue
        i += 1
    peaks = _Live(graph, ordered).peaks(range(len(ordered)))
    beside = tuple(p - s.local_bytes(s.least) for p, s in zip(peaks, ordered, strict=True))
    return Schedule(tuple(ordered), beside, max(peaks), sum(s.cost(s.least, flash_cost) for s in ordered))


def least_peak(graph: RowGraph, kept: Iterable[str]) -> int:
    """The smallest peak of any order of the stages of `kept`, with the smallest blocks."""
    return best_order(order_graph(graph, stages_of(graph, kept))).peak


def _merged(graph: RowGraph, a: Stage, b: Stage) -> Stage | None:
    """Both as one stage, if they share an operator or what is packed, and b can follow a block by block."""
    if not a.common & b.common:
        return None
    if any(v in work.whole for work in b.members for v in a.makes):
        return None
    both = Stage(graph, tuple(sorted({*a.works, *b.works})), (*a.makes, *b.makes))
    return both if both.ticks == a.ticks == b.ticks > 1 else None


def order_graph(graph: RowGraph, stages: Sequence[Stage]) -> Graph:
    """What the order sees of stages: kept values, and the rest as scratch."""
    nodes = [Node(s.makes[0], s.reads, s.makes, s.local_bytes(s.least), s.shares) for s in stages]
    used = {v for node in nodes for v in (*node.inputs, *node.outputs)} | graph.keep
    return Graph(tuple(nodes), {v: size for v, size in graph.sizes.items() if v in used}, graph.keep)


class _Live:
    """Live bytes of stages that run in some order; sets of stages are bit masks."""

    def __init__(self, graph: RowGraph, stages: Sequence[Stage], blocks: Sequence[Blocking] | None = None) -> None:
        self.stages = stages
        self._graph = graph
        self._maker = {v: 1 << i for i, s in enumerate(stages) for v in s.makes}
        made = {w.writes for w in graph.works}
        kept = [v for v in graph.sizes if v in self._maker or v not in made]
        self._whole = [(v, graph.sizes[v], self._maker.get(v, -1)) for v in kept]
        self._readers: dict[str, int] = {}
        for i, stage in enumerate(stages):
            for v in stage.reads:
                self._readers[v] = self._readers.get(v, 0) | 1 << i
        self._local = [s.local_bytes(blocks[i] if blocks else s.least) for i, s in enumerate(stages)]
        self.needs = [sum({self._maker[v] for v in s.reads if v in self._maker}) for s in stages]

    def _lives(self, value: str, done: int) -> bool:
        return value in self._graph.keep or bool(self._readers.get(value, 0) & ~done)

    def after(self, done: int) -> int:
        """Bytes that are live between two stages when those in `done` have run."""
        return sum(size for v, size, maker in self._whole if (maker < 0 or maker & done) and self._lives(v, done))

    def peak(self, done: int, nxt: int) -> int:
        """Bytes that are live while the stage `nxt` runs after those in `done`."""
        stage = self.stages[nxt]
        total = self.after(done) + sum(self._graph.sizes[v] for v in stage.makes) + self._local[nxt]
        taken: set[str] = set()
        for source, result, saved in stage.shares:
            if not self._lives(source, done | 1 << nxt) and not {source, result} & taken:
                taken |= {source, result}
                total -= saved
        return total

    def peaks(self, order: Iterable[int]) -> list[int]:
        """The bytes while each stage of an order runs."""
        done, found = 0, []
        for i in order:
            found.append(self.peak(done, i))
            done |= 1 << i
        return found


def live_bytes(graph: RowGraph, stages: Sequence[Stage], blocks: Sequence[Blocking]) -> list[int]:
    """The bytes that are live while each stage runs, in this order and with these blocks."""
    return _Live(graph, stages, blocks).peaks(range(len(stages)))


def _neighbourly(graph: RowGraph, stages: Sequence[Stage], limit: int) -> list[int] | None:
    """An order within `limit` in which stages that share operators tend to follow each other; None if none is found."""
    live = _Live(graph, stages)
    order: list[int] = []
    seen: set[int] = set()
    works = [s.common for s in stages]

    def ready(done: int) -> list[int]:
        shared = works[order[-1]] if order else set()
        found = [i for i in range(len(stages)) if not done >> i & 1 and not live.needs[i] & ~done]
        return sorted(found, key=lambda i: (-len(works[i] & shared), i))

    stack = [iter(ready(0))]
    done = 0
    while stack and len(seen) < _MERGE_STATES:
        if len(order) == len(stages):
            return order
        for i in stack[-1]:
            if done | 1 << i not in seen and live.peak(done, i) <= limit:
                seen.add(done | 1 << i)
                order.append(i)
                done |= 1 << i
                stack.append(iter(ready(done)))
                break
        else:
            stack.pop()
            if order:
                done &= ~(1 << order.pop())
    return order if len(order) == len(stages) else None
