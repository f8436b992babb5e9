# SPDX-License-Identifier: Apache-2.0
"""A bound on the peak of every order of a segment: for each node, the fewest bytes live when it runs.

When a node runs, all before it have run and nothing after it has. What of the others has run is free to choose:
the choice with the fewest live bytes is a closure of largest weight, a minimum cut.
"""

from __future__ import annotations

from collections import deque

from edgec.schedule.order_segment import Segment, members


def lower_bound(segment: Segment, enough: int) -> int:
    """No order has a smaller peak than this, bytes; found no further once it reaches `enough`."""
    before, after = relations(segment)
    end = sum(size for size, dies in segment.tensors if not dies)
    bound = max(segment.live_at_start, end)
    everything = (1 << len(segment.nodes)) - 1
    loose = []
    for i in range(len(segment.nodes)):
        forced = forced_bytes(segment, i, before[i], after[i] | 1 << i)
        bound = max(bound, forced)
        if free := everything & ~(before[i] | after[i] | 1 << i):
            loose.append((i, free))
    for i, free in loose:
        if bound >= enough:
            break
        bound = max(bound, _fewest(segment, i, before[i], free))
    return bound


def relations(segment: Segment) -> tuple[list[int], list[int]]:
    """All nodes before and after each node."""
    count = len(segment.nodes)
    before, after = [0] * count, [0] * count
    for i, direct in enumerate(segment.direct):
        for maker in members(direct):
            before[i] |= before[maker] | 1 << maker
    for i in reversed(range(count)):
        for reader in segment.followers[i]:
            after[i] |= after[reader] | 1 << reader
    return before, after


def _own(segment: Segment, i: int) -> int:
    """Bytes that node i adds while it runs, at least."""
    node = segment.nodes[i]
    outputs = {b for _, b, _ in node.shares}
    shared = sum(max(s for _, b, s in node.shares if b == output) for output in outputs)
    return node.scratch + sum(segment.tensors[t][0] for t in node.outputs) - shared


def forced_bytes(segment: Segment, i: int, before: int, rest: int) -> int:
    """Bytes live when node i runs, whatever else has run: made before it, read by it or after it."""
    total = _own(segment, i)
    for (size, dies), maker, readers in zip(segment.tensors, segment.makers, segment.readers, strict=True):
        if (maker < 0 or before >> maker & 1) and (not dies or readers & rest):
            total += size
    return total


def _fewest(segment: Segment, i: int, before: int, free: int) -> int:
    """The fewest bytes live when node i runs, over all choices of which nodes of `free` have run.

    A node on the side of the source has run. Its tensors that live on then cost their bytes; a tensor that could
    die is won back only if all its readers have run.
    """
    flow = _Flow()
    number = {node: flow.node() for node in members(free)}
    for node, vertex in number.items():
        for maker in members(segment.direct[node] & free):
            flow.edge(vertex, number[maker], _Flow.INFINITE)
    constant = _own(segment, i)
    for (size, dies), maker, readers in zip(segment.tensors, segment.makers, segment.readers, strict=True):
        optional = maker >= 0 and bool(free >> maker & 1)
        if not (maker < 0 or before >> maker & 1 or optional) or (dies and not readers):
            continue
        if optional:
            flow.edge(number[maker], _Flow.SINK, size)
        else:
            constant += size
        # Readers other than those that have run in any case and those that may have.
        if not dies or readers & ~(before | free):
            continue
        if not readers & free:
            constant -= size  # dead already: only made before, since what reads a free node's tensor is free or after
            continue
        gain = flow.node()
        flow.edge(_Flow.SOURCE, gain, size)
        constant -= size
        for reader in members(readers & free):
            flow.edge(gain, number[reader], _Flow.INFINITE)
        if optional:
            flow.edge(gain, number[maker], _Flow.INFINITE)
    return constant + flow.most()


class _Flow:
    """Largest flow from SOURCE to SINK by shortest augmenting paths in levels (Dinic 1970)."""

    SOURCE, SINK = 0, 1
    INFINITE = 1 << 60

    def __init__(self) -> None:
        self._edges: list[list[int]] = [[], []]
        self._to: list[int] = []
        self._room: list[int] = []

    def node(self) -> int:
        """A new vertex."""
        self._edges.append([])
        return len(self._edges) - 1

    def edge(self, a: int, b: int, room: int) -> None:
        """An edge from a to b."""
        for start, end, capacity in ((a, b, room), (b, a, 0)):
            self._edges[start].append(len(self._to))
            self._to.append(end)
            self._room.append(capacity)

    def most(self) -> int:
        """The largest flow."""
        total = 0
        while (levels := self._levels())[self.SINK] >= 0:
            first = [0] * len(self._edges)
            while pushed := self._push(levels, first):
                total += pushed
        return total

    def _levels(self) -> list[int]:
        levels = [-1] * len(self._edges)
        levels[self.SOURCE] = 0
        queue = deque([self.SOURCE])
        while queue:
            a = queue.popleft()
            for e in self._edges[a]:
                if self._room[e] and levels[self._to[e]] < 0:
                    levels[self._to[e]] = levels[a] + 1
                    queue.append(self._to[e])
        return levels

    def _push(self, levels: list[int], first: list[int]) -> int:
        """One path along rising levels, as much as it holds; 0 when there is none."""
        path: list[int] = []
        at = self.SOURCE
        while at != self.SINK:
            edges = self._edges[at]
            while first[at] < len(edges):
                e = edges[first[at]]
                if self._room[e] and levels[self._to[e]] == levels[at] + 1:
                    break
                first[at] += 1
            if first[at] == len(edges):
                if not path:
                    return 0
                e = path.pop()
                at = self._to[e ^ 1]
                first[at] += 1
            else:
                e = edges[first[at]]
                path.append(e)
                at = self._to[e]
        pushed = min(self._room[e] for e in path)
        for e in path:
            self._room[e] -= pushed
            self._room[e ^ 1] += pushed
        return pushed
