# SPDX-License-Identifier: Apache-2.0
"""The order of execution with the smallest peak of live bytes, exact where the search ends within its limit.

The graph is cut where a node is comparable with all others: what runs before such a node and what runs after it
is the same in every order, so the segments between them are problems of their own. Equal segments (the blocks of a
transformer) are solved once. `order_search` solves one segment, `order_bound` bounds it from below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from edgec.schedule.order_bound import lower_bound
from edgec.schedule.order_search import STATE_LIMIT, search
from edgec.schedule.order_segment import Segment, SegmentNode, members

_REMEMBERED = 4096
"""Segments whose solution is kept."""


@dataclass(frozen=True)
class Node:
    """One operator of a `Graph`.

    Attributes:
        name: unique, for reports and errors.
        inputs, outputs: tensors; one that is named twice counts once.
        scratch: bytes that are live while it runs, and only then.
        shares: (input, output, bytes): when the input dies here, the output may lie over so many of its bytes,
            at most the smaller of both. Of several pairs, each tensor takes part in at most one.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scratch: int = 0
    shares: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True)
class Graph:
    """What to order.

    Attributes:
        nodes: the operators, each after all that it reads (any such order; it is the one to improve on).
        sizes: bytes of every tensor. One that no node makes is an input: live from the beginning.
        keep: tensors that are live to the end. Every other dies after its last reader; an input that nobody
            reads counts for nothing.
    """

    nodes: tuple[Node, ...]
    sizes: Mapping[str, int]
    keep: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        makers = {tensor: i for i, node in enumerate(self.nodes) for tensor in node.outputs}
        if sum(len(set(node.outputs)) for node in self.nodes) != len(makers):
            raise ValueError("a tensor is made twice")
        for i, node in enumerate(self.nodes):
            if late := [t for t in node.inputs if makers.get(t, -1) >= i]:
                raise ValueError(f"{node.name} stands before what makes its {late[0]}")
            for source, result, saved in node.shares:
                if source not in node.inputs or result not in node.outputs:
                    raise ValueError(f"{node.name}: {source} and {result} are not an input and an output of it")
                if not 0 <= saved <= min(self.sizes[source], self.sizes[result]):
                    raise ValueError(f"{node.name}: {source} and {result} cannot share {saved} bytes")


@dataclass(frozen=True)
class OrderResult:
    """An order and how good it is.

    Attributes:
        order: indices into the nodes of the graph.
        peak: the largest sum of live bytes while a node runs, in this order.
        bound: no order has a smaller peak.
        exact: whether `peak` is `bound`.
    """

    order: tuple[int, ...]
    peak: int
    bound: int

    @property
    def exact(self) -> bool:
        """Whether no order is better."""
        return self.peak == self.bound

    @property
    def gap(self) -> float:
        """How far the peak may lie above the best, as a part of the bound."""
        return (self.peak - self.bound) / self.bound if self.bound else 0.0


def best_order(graph: Graph, state_limit: int = STATE_LIMIT) -> OrderResult:
    """The order with the smallest peak; the given one if none is better.

    Args:
        graph: any acyclic graph.
        state_limit: sets of executed nodes that the search of one segment may look at; beyond it the best order
            found is returned with the proven bound.
    """
    whole = _Whole(graph)
    parts = whole.segments()
    solved = [_outline(part.segment) for part in parts]
    peaks, bounds = [s.peak for s in solved], [s.bound for s in solved]
    floor = max((b + p.base for b, p in zip(bounds, parts, strict=True)), default=whole.base)
    # The worst first: what it needs in any case, the others need not stay below.
    for i in sorted(range(len(parts)), key=lambda i: -(peaks[i] + parts[i].base)):
        if peaks[i] + parts[i].base > floor:
            solved[i] = _solved(parts[i].segment, floor - parts[i].base, state_limit)
            floor = max(floor, solved[i].bound + parts[i].base)
    order = tuple(part.nodes[i] for part, s in zip(parts, solved, strict=True) for i in s.order)
    peak = max((s.peak + p.base for s, p in zip(solved, parts, strict=True)), default=whole.base)
    given = tuple(range(len(graph.nodes)))
    given_peak = peak_of(graph, given)
    best = (given, given_peak) if given_peak <= peak else (order, peak)
    return OrderResult(*best, bound=floor)


def peak_of(graph: Graph, order: Sequence[int]) -> int:
    """The peak of `order`, bytes.

    Raises:
        ValueError: not an order of all nodes, each after what it reads.
    """
    if sorted(order) != list(range(len(graph.nodes))):
        raise ValueError("not an order of all nodes")
    whole = _Whole(graph)
    segment = whole.part(0, (1 << len(graph.nodes)) - 1, whole.base)
    return segment.base + segment.segment.peak(order)


@dataclass(frozen=True)
class _Part:
    """A segment, the graph's nodes that are its own, the bytes that live throughout, and those live after it."""

    segment: Segment
    nodes: tuple[int, ...]
    base: int
    after: int


class _Whole:
    """A graph as bit sets."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._maker = {t: i for i, node in enumerate(graph.nodes) for t in node.outputs}
        self._readers = dict.fromkeys(graph.sizes, 0)
        self._before = [0] * len(graph.nodes)
        for i, node in enumerate(graph.nodes):
            for tensor in node.inputs:
                self._readers[tensor] |= 1 << i
                if tensor in self._maker:
                    maker = self._maker[tensor]
                    self._before[i] |= self._before[maker] | 1 << maker

    @property
    def base(self) -> int:
        """Bytes of the inputs that are kept or read."""
        return sum(size for t, size in self._graph.sizes.items() if t not in self._maker and self._lives(t, 0))

    def _lives(self, tensor: str, done: int) -> bool:
        return tensor in self._graph.keep or bool(self._readers[tensor] & ~done)

    def segments(self) -> list[_Part]:
        """The parts of the graph in their order; a node that is comparable with all others is a part of its own."""
        n = len(self._graph.nodes)
        after = [0] * n
        for i in reversed(range(n)):
            for tensor in self._graph.nodes[i].outputs:
                rest = self._readers[tensor]
                while rest:
                    reader = (rest & -rest).bit_length() - 1
                    rest &= rest - 1
                    after[i] |= after[reader] | 1 << reader
        fixed = [i for i in range(n) if self._before[i].bit_count() + after[i].bit_count() == n - 1]
        cuts = [0]
        for i in sorted(fixed, key=lambda i: self._before[i].bit_count()):
            cuts += [self._before[i], self._before[i] | 1 << i]
        cuts.append((1 << n) - 1)
        parts, live = [], self.base
        for done, end in pairwise(cuts):
            if end != done:
                parts.append(self.part(done, end & ~done, live))
                live = parts[-1].after
        return parts

    def part(self, done: int, inside: int, live: int) -> _Part:
        """The problem of ordering the nodes `inside` after those that are `done`, which left `live` bytes."""
        graph, end = self._graph, done | inside
        nodes = members(inside)
        # Numbered by use: the names and the order of a mapping must not tell equal segments apart.
        index: dict[str, int] = {}
        tensors: list[tuple[int, bool]] = []
        base = after = live
        for tensor in dict.fromkeys(t for i in nodes for t in (*graph.nodes[i].inputs, *graph.nodes[i].outputs)):
            size, dies = graph.sizes[tensor], not self._lives(tensor, end)
            made = inside >> self._maker[tensor] & 1 if tensor in self._maker else 0
            if not made and not dies:
                continue  # lives throughout
            index[tensor] = len(tensors)
            tensors.append((size, dies))
            if not made:
                base -= size
                after -= size
            elif not dies:
                after += size
        parts = tuple(
            SegmentNode(
                scratch=node.scratch,
                inputs=tuple(dict.fromkeys(index[t] for t in node.inputs if t in index)),
                outputs=tuple(dict.fromkeys(index[t] for t in node.outputs)),
                shares=tuple((index[a], index[b], saved) for a, b, saved in node.shares if saved and a in index),
            )
            for node in (graph.nodes[i] for i in nodes)
        )
        return _Part(Segment(parts, tuple(tensors)), tuple(nodes), base, after)


@dataclass(frozen=True)
class _Solution:
    order: tuple[int, ...]
    peak: int
    bound: int


@lru_cache(_REMEMBERED)
def _outline(segment: Segment) -> _Solution:
    """The better of the given order and the greedy one, and a bound."""
    given, greedy = tuple(range(len(segment.nodes))), segment.greedy()
    order = min((given, greedy), key=segment.peak)
    peak = segment.peak(order)
    return _Solution(order, peak, lower_bound(segment, peak))


@lru_cache(_REMEMBERED)
def _solved(segment: Segment, enough: int, state_limit: int) -> _Solution:
    """A best order, or one whose peak is `enough`."""
    outline = _outline(segment)
    order, bound = search(segment, outline.order, max(outline.bound, enough), state_limit)
    # Below `enough` nothing was searched, so nothing is proven.
    return _Solution(order, segment.peak(order), bound if bound > max(outline.bound, enough) else outline.bound)
