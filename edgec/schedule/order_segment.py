# SPDX-License-Identifier: Apache-2.0
"""One segment of a graph to order: nodes and tensors by number, sets of nodes as bits, what running a node does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class SegmentNode:
    """A node: its scratch bytes, and tensors by their number; `shares` as in `order.Node`."""

    scratch: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shares: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Segment:
    """Nodes in an order that is possible, and (bytes, whether it dies in here) of each tensor.

    Tensors that no node makes are live at the beginning. What lives throughout is left out.
    """

    nodes: tuple[SegmentNode, ...]
    tensors: tuple[tuple[int, bool], ...]

    @cached_property
    def makers(self) -> tuple[int, ...]:
        """The node that makes each tensor; -1 for none."""
        makers = [-1] * len(self.tensors)
        for i, node in enumerate(self.nodes):
            for tensor in node.outputs:
                makers[tensor] = i
        return tuple(makers)

    @cached_property
    def readers(self) -> tuple[int, ...]:
        """The set of nodes that read each tensor."""
        readers = [0] * len(self.tensors)
        for i, node in enumerate(self.nodes):
            for tensor in node.inputs:
                readers[tensor] |= 1 << i
        return tuple(readers)

    @cached_property
    def direct(self) -> tuple[int, ...]:
        """The set of nodes that make what each node reads."""
        return tuple(
            sum(1 << maker for maker in {self.makers[t] for t in node.inputs} if maker >= 0) for node in self.nodes
        )

    @cached_property
    def followers(self) -> tuple[tuple[int, ...], ...]:
        """The nodes that read what each node makes."""
        result: list[list[int]] = [[] for _ in self.nodes]
        for i, direct in enumerate(self.direct):
            for maker in members(direct):
                result[maker].append(i)
        return tuple(tuple(r) for r in result)

    @cached_property
    def live_at_start(self) -> int:
        """Bytes."""
        return sum(size for (size, _), maker in zip(self.tensors, self.makers, strict=True) if maker < 0)

    @cached_property
    def moves(self) -> tuple[_Move, ...]:
        """What running each node does."""
        return tuple(_move(self, i) for i in range(len(self.nodes)))

    def peak(self, order: Sequence[int]) -> int:
        """The peak of an order.

        Raises:
            ValueError: a node stands before what it reads.
        """
        done, live = 0, self.live_at_start
        peak = live
        for i in order:
            if self.direct[i] & ~done:
                raise ValueError("a node stands before what it reads")
            during, live = self.moves[i].run(done, live)
            done |= 1 << i
            peak = max(peak, during)
        return peak

    def greedy(self) -> tuple[int, ...]:
        """Always the node after which the fewest bytes are live; of the best of three ways to settle ties and peaks."""
        ways = (self._greedy(lambda d, a, i: (a, i)), self._greedy(lambda d, a, i: (a, d, i)),
                self._greedy(lambda d, a, i: (d, a, i)))  # fmt: skip
        return min(ways, key=self.peak)

    def _greedy(self, key: Callable[[int, int, int], tuple[int, ...]]) -> tuple[int, ...]:
        """The ready node with the smallest key (bytes during it, bytes after it, its number), again and again."""
        done, live = 0, self.live_at_start
        order: list[int] = []
        ready = [i for i, direct in enumerate(self.direct) if not direct]
        while ready:
            i = min(ready, key=lambda i: key(*self.moves[i].run(done, live), i))
            live = self.moves[i].run(done, live)[1]
            done |= 1 << i
            order.append(i)
            ready.remove(i)
            ready += [j for j in self.followers[i] if not self.direct[j] & ~done]
        return tuple(order)


def members(nodes: int) -> list[int]:
    """The numbers in a set, ascending."""
    found = []
    while nodes:
        found.append((nodes & -nodes).bit_length() - 1)
        nodes &= nodes - 1
    return found


@dataclass(frozen=True)
class _Move:
    """Running one node: bytes it makes, with scratch and without; what can die, and what can be shared.

    `deaths` has the set of the other readers and the bytes of each input that dies here once all those have run;
    `shares` the same for each pair, with the output's number in place of nothing.
    """

    during: int
    made: int
    deaths: tuple[tuple[int, int], ...]
    shares: tuple[tuple[int, int, int, int], ...]

    def run(self, done: int, live: int) -> tuple[int, int]:
        """Bytes while it runs, and after it, when the nodes `done` have run and `live` bytes are live."""
        after = live + self.made
        for others, size in self.deaths:
            if not others & ~done:
                after -= size
        during = live + self.during
        if self.shares:
            during -= _saved([(a, b, s) for others, a, b, s in self.shares if not others & ~done])
        return (during if during > after else after), after


def _move(segment: Segment, i: int) -> _Move:
    node, me = segment.nodes[i], 1 << i
    deaths = [
        (segment.readers[t] & ~me, segment.tensors[t][0])
        for t in node.inputs
        if segment.tensors[t][1] and segment.tensors[t][0]
    ]
    made = sum(segment.tensors[t][0] for t in node.outputs)
    unread = sum(segment.tensors[t][0] for t in node.outputs if segment.tensors[t][1] and not segment.readers[t])
    shares = [(segment.readers[a] & ~me, a, b, s) for a, b, s in node.shares if segment.tensors[a][1]]
    return _Move(made + node.scratch, made - unread, tuple(deaths), tuple(shares))


def _saved(pairs: list[tuple[int, int, int]]) -> int:
    """The most bytes that disjoint pairs (input, output, bytes) save."""
    if len({b for _, b, _ in pairs}) <= 1:
        return max((s for _, _, s in pairs), default=0)
    (a, b, s), rest = pairs[0], pairs[1:]
    return max(_saved(rest), s + _saved([p for p in rest if p[0] != a and p[1] != b]))
