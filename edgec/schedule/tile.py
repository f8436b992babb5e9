# SPDX-License-Identifier: Apache-2.0
"""Depth-first execution: which values exist whole, in which order their stages run, and in blocks of how many rows.

The graph is cut where a single value crosses (between the blocks of a transformer). In each segment the search begins
with the fewest values kept whole and adds one at a time, whichever lowers the peak most, until none does. It keeps
every schedule that it meets; which one is taken depends on what the user wants: least RAM, speed, or the best of both.
Segments of equal structure are searched once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from edgec.schedule.order import best_order
from edgec.schedule.rows import GROUP, RowGraph, Work
from edgec.schedule.stages import (
    Blocking,
    Schedule,
    Stage,
    least_peak,
    live_bytes,
    must_keep,
    order_graph,
    schedule,
    stages_of,
)

Goal = Literal["ram", "balanced", "speed"]
_SLOWER = 1.04
"""How many more instructions than the fastest schedule a balanced one may take, by the estimate."""
_WAITS = 0.1
"""What a balanced schedule may wait for flash more than the fastest, as a part of its instructions, by the estimate
(which knows of no cache but that few weights stay in it).
"""
_REMEMBERED = 1024
_LONG, _LONGEST = 20, 40
"""Operators of a segment, where it can be cut at all; from the first on several values may cross the cut."""


@dataclass(frozen=True, eq=False)
class Tiling:
    """Stages in order with their blocks; bytes of RAM, estimated instructions and bytes of flash that they take."""

    stages: tuple[Stage, ...]
    blocks: tuple[Blocking, ...]
    peak: int
    instructions: int
    flash_bytes: int


def frontier(graph: RowGraph, flash_cost: float = 0.0) -> list[Tiling]:
    """Tilings of a graph from the smallest peak up, each the cheapest found within some peak.

    Args:
        graph: the program's operators by rows.
        flash_cost: estimated instructions that reading a byte of weights from flash is worth.
    """
    parts = segments(graph)
    found = combined([searched(part, flash_cost) for part in parts], flash_cost)
    return [tiling_of(parts, chosen) for chosen in found]


def searched(segment: RowGraph, flash_cost: float) -> tuple[Schedule, ...]:
    """The schedules of a segment worth having, whatever the names in it."""
    return _search(_key(segment), flash_cost)


def combined(found: Sequence[tuple[Schedule, ...]], flash_cost: float) -> list[Chosen]:
    """For one peak after the other the cheapest schedule of every segment, of those that were found for it."""
    least = max(min(s.peak for s in options) for options in found)
    peaks = _steps(sorted({s.peak for options in found for s in options if s.peak >= least}))
    return list(dict.fromkeys(tuple(_cheapest(options, peak, flash_cost) for options in found) for peak in peaks))


def untiled(graph: RowGraph, ordered: bool) -> Tiling:
    """Every operator whole, in the best order or in the graph's own."""
    stages = stages_of(graph, graph.sizes.keys() - graph.fed)
    if ordered:
        order = best_order(order_graph(graph, stages)).order
        stages = [stages[i] for i in order]
    blocks = tuple(s.least if s.fed else Blocking(s.ticks, GROUP) for s in stages)
    peak = max(live_bytes(graph, stages, blocks))
    pairs = list(zip(stages, blocks, strict=True))
    return Tiling(
        tuple(stages), blocks, peak, sum(s.instructions(b) for s, b in pairs), sum(s.flash_bytes(b) for s, b in pairs)
    )


def order_bound(graph: RowGraph) -> int:
    """Bytes: no order of the operators, each run whole, has a smaller peak."""
    return best_order(order_graph(graph, stages_of(graph, graph.sizes.keys() - graph.fed))).bound


def choose(tilings: Sequence[Tiling], goal: Goal, flash_cost: float, capacity: int | None = None) -> Tiling:
    """The tiling that serves `goal` best.

    Args:
        tilings: of one program, of several forms of it perhaps.
        goal: "ram" for the smallest peak, "speed" for the lowest cost, "balanced" for the smallest peak that takes next
            to no more instructions than the fastest and does not wait much longer for flash.
        flash_cost: as for `frontier`.
        capacity: most bytes; where none fits, the smallest is taken.
    """
    smallest = sorted(tilings, key=lambda t: (t.peak, t.instructions, t.flash_bytes))
    if capacity is not None:
        tilings = smallest = [t for t in smallest if t.peak <= capacity] or smallest[:1]
    if goal == "ram":
        return smallest[0]
    fastest = min(smallest, key=lambda t: t.instructions + flash_cost * t.flash_bytes)
    if goal == "speed":
        return fastest
    least = min(t.instructions for t in tilings)
    waits = flash_cost * fastest.flash_bytes + _WAITS * least
    good = (t for t in smallest if t.instructions <= _SLOWER * least and flash_cost * t.flash_bytes <= waits)
    return next(good, fastest)


def tiling_of(parts: Sequence[RowGraph], chosen: Chosen) -> Tiling:
    """The schedules of segments, one after the other."""
    return Tiling(
        tuple(_named(part, stage) for part, (s, _) in zip(parts, chosen, strict=True) for stage in s.stages),
        tuple(b for _, grown in chosen for b in grown.blocks),
        max(grown.peak for _, grown in chosen),
        sum(grown.instructions for _, grown in chosen),
        sum(grown.flash_bytes for _, grown in chosen),
    )


def _steps(peaks: Sequence[int]) -> list[int]:
    """The peaks themselves, and a few steps between them, for blocks to grow into."""
    steps = set(peaks)
    for p in peaks:
        steps |= {int(p * (1 + k / 32)) for k in range(1, 9)}
    return sorted(steps)


@lru_cache(maxsize=_REMEMBERED)
def _cheapest(options: tuple[Schedule, ...], peak: int, flash_cost: float) -> tuple[Schedule, Grown]:
    """The schedule of a segment that is cheapest within `peak`, with its blocks."""
    fitting = [s for s in options if s.peak <= peak] or [min(options, key=lambda s: s.peak)]
    return min(((s, _grow(s, peak, flash_cost)) for s in fitting), key=lambda c: (c[1].cost, c[0].peak))


@dataclass(frozen=True)
class Grown:
    """Blocks of the stages of a schedule, and what it takes with them."""

    blocks: tuple[Blocking, ...]
    cost: float
    peak: int
    instructions: int
    flash_bytes: int


Chosen = tuple[tuple[Schedule, Grown], ...]
"""A schedule with its blocks for each segment."""


@lru_cache(maxsize=_REMEMBERED)
def _grow(plan: Schedule, peak: int, flash_cost: float) -> Grown:
    """Blocks that make each stage of `plan` cheapest within `peak`."""
    blocks, cost, reached = [], 0.0, 0
    for stage, beside in zip(plan.stages, plan.beside, strict=True):
        best = min(
            (o for o in _options(stage, flash_cost) if beside + o[1] <= peak or o[2] == stage.least),
            key=lambda o: (beside + o[1] > peak, o[0], o[1]),
        )
        cost, reached = cost + best[0], max(reached, beside + best[1])
        blocks.append(best[2])
    pairs = list(zip(plan.stages, blocks, strict=True))
    instructions, flash_bytes = sum(s.instructions(b) for s, b in pairs), sum(s.flash_bytes(b) for s, b in pairs)
    return Grown(tuple(blocks), cost, reached, instructions, flash_bytes)


@lru_cache(maxsize=_REMEMBERED)
def _options(stage: Stage, flash_cost: float) -> tuple[tuple[float, int, Blocking], ...]:
    """(cost, bytes, blocks) of a stage."""
    return tuple((stage.cost(b, flash_cost), stage.local_bytes(b), b) for b in _blockings(stage))


def _blockings(stage: Stage) -> list[Blocking]:
    """Sensible blocks: even parts of the whole, a multiple of the dense kernels' rows; with panels to match."""
    unit = stage.rows_a_tick
    found = {stage.least, Blocking(stage.ticks, GROUP)}
    for parts in range(1, stage.ticks + 1):
        block = -(-stage.ticks // parts)
        while block * unit % GROUP and block < stage.ticks:
            block += 1
        found |= {Blocking(block, p) for p in (4, 8, 16, 32, 64) if p <= max(GROUP, block * unit)}
    if stage.packings:
        found |= {replace(b, shared=True) for b in found}
    found = {b for b in found if b.block >= stage.least.block and (not stage.fed or stage.is_strip(b.block))}
    return sorted(found, key=lambda b: (b.block, b.panel, b.shared))


def segments(graph: RowGraph) -> list[RowGraph]:
    """The graph cut where a single value crosses that has to exist whole, or may as well.

    That is one which is read whole or by several operators; a value with a single reader by rows is cut at only where
    a segment would become too long to search, several values where it becomes long.
    """
    last = {v: i for i, w in enumerate(graph.works) for v in (*w.rows, *w.whole)}
    by_rows = [v for w in graph.works for v in w.rows]
    whole = {v for w in graph.works for v in w.whole}
    made, fed = graph.makers, graph.fed  # what is fed may never exist whole: no cut there
    parts: list[RowGraph] = []
    begin = 0
    alive = {v for v in graph.sizes if v not in made and v in last}
    for i, work in enumerate(graph.works):
        alive = {v for v in alive | {work.writes} if last.get(v, -1) > i}
        long, longest = i - begin >= _LONG, i - begin >= _LONGEST
        well = (len(alive) <= 1 or long) and all(v not in fed and (v in whole or by_rows.count(v) > 1) for v in alive)
        if well or i == len(graph.works) - 1 or (len(alive) <= 1 and longest):
            parts.append(_part(graph, begin, i + 1, alive))
            begin = i + 1
    return parts


def _part(graph: RowGraph, begin: int, end: int, crossing: set[str]) -> RowGraph:
    works = graph.works[begin:end]
    used = {v for w in works for v in (*w.rows, *w.whole, w.writes)}
    others = {v for v in graph.keep - used if graph.makers.get(v, -1) < begin}  # live, though nobody here asks
    names = [v for v in graph.sizes if v in used | others | crossing]
    return RowGraph(works, {v: graph.sizes[v] for v in names}, (graph.keep & (used | others)) | crossing)


_Key = tuple[tuple[tuple[object, ...], ...], tuple[int, ...], tuple[int, ...]]


def _key(part: RowGraph) -> _Key:
    """A segment without its names: values are numbered in the order of their sizes."""
    index = {v: i for i, v in enumerate(part.sizes)}
    works = tuple(_shape(w, index) for w in part.works)
    return works, tuple(part.sizes.values()), tuple(sorted(index[v] for v in part.keep))


def _named(part: RowGraph, stage: Stage) -> Stage:
    """A stage of a segment without names as one of the segment `part`."""
    names = list(part.sizes)
    return Stage(part, stage.works, tuple(names[int(v)] for v in stage.makes))


def _shape(work: Work, index: dict[str, int]) -> tuple[object, ...]:
    """An operator without its names."""

    def numbers(values: object) -> tuple[str, ...]:
        return tuple(str(index[v]) for v in values)  # type: ignore[attr-defined]

    return (
        numbers(work.rows), numbers(work.whole), str(index[work.writes]), work.units, work.instructions, work.weights,
        work.scratch, tuple((str(index[v]), d) for v, d in work.over), work.cheap, 0, work.vectors,
        tuple((str(index[v]), d) for v, d in work.behind), work.fed,
        (str(index[work.packs[0]]), work.packs[1]) if work.packs else None, work.packing,
    )  # fmt: skip


@lru_cache(maxsize=_REMEMBERED)
def _search(key: _Key, flash_cost: float) -> tuple[Schedule, ...]:
    """The schedules of a segment worth having: each has a smaller peak or a lower cost than every other."""
    works, sizes, keep = key
    graph = RowGraph(
        tuple(Work(str(i), *fields) for i, fields in enumerate(works)),  # type: ignore[arg-type]
        {str(i): size for i, size in enumerate(sizes)},
        frozenset(map(str, keep)),
    )
    path = [frozenset(graph.sizes) - graph.fed, frozenset(must_keep(graph))]
    peak = least_peak(graph, path[-1])
    # Of a cheap value it is better to keep what it is made from.
    dear = {w.writes for w in graph.works if not w.cheap} - graph.fed
    while rest := sorted(dear - path[-1], key=int):
        lower, value = min((least_peak(graph, path[-1] | {v}), i) for i, v in enumerate(rest))
        if lower >= peak:
            break
        peak = lower
        path.append(path[-1] | {rest[value]})
    met = [schedule(graph, kept, flash_cost) for kept in path]
    best = met[-1]
    for kept in _cheaper(graph, path[-1], best, flash_cost):
        met.append(kept)
    met += [schedule(graph, kept, flash_cost, s.peak) for kept in path[1:] for s in met[1:-1] if s.peak > best.peak]
    front: list[Schedule] = []
    for s in sorted(met, key=lambda s: (s.peak, s.cost)):
        if all(s.cost < other.cost for other in front):
            front.append(s)
    return tuple(front)


def _cheaper(graph: RowGraph, kept: frozenset[str], best: Schedule, flash_cost: float) -> Iterator[Schedule]:
    """Schedules that keep more values, as long as that lowers the cost and not raises the peak."""
    while rest := sorted(set(graph.sizes) - graph.fed - kept, key=int):
        tried = [
            (schedule(graph, kept | {v}, flash_cost, best.peak), v)
            for v in rest
            if least_peak(graph, kept | {v}) <= best.peak
        ]
        lower, value = min(tried, key=lambda t: t[0].cost, default=(best, ""))
        if lower.cost >= best.cost:
            return
        best, kept = lower, kept | {value}
        yield best
