# SPDX-License-Identifier: Apache-2.0
"""The best order of one segment: depth-first over sets of executed nodes, for budgets that close in on the best.

What is live after some nodes have run depends on their set alone, not on their order, so a set from which a budget
cannot be kept is visited once. Four things keep the sets few:

- A node that fits and raises nothing is run at once: moving it to the front of any order keeps the budget (fewer
  bytes are live before every other node, and no input dies later).
- A set is given up when some node left will find more bytes live than the budget, whatever runs before it.
- Parts of the segment that share no tensor made in it, and are equal, may be exchanged (the heads of an attention).
- A budget that cannot be kept proves the next larger one that might be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgec.schedule.order_bound import forced_bytes, relations
from edgec.schedule.order_segment import Segment, members

STATE_LIMIT = 300_000
_GUESS = 2_000
"""Sets that a guess may look at."""
_RESERVE = 4
"""The part of all sets that is kept for a bound, should no proof be found."""

_Bytes = npt.NDArray[np.int64]
_NOTHING = -(2**62)


def search(segment: Segment, known: tuple[int, ...], enough: int, state_limit: int) -> tuple[tuple[int, ...], int]:
    """An order with the smallest peak, or with one of at most `enough`; and a bound on the smallest above `enough`.

    Args:
        segment: what to order.
        known: an order, the result when none is better.
        enough: bytes below which nothing is searched; the bound is at least this.
        state_limit: about so many sets are looked at; where that ends the search the bound may stay below the peak.
    """
    tree = _Tree(segment)
    best, peak, bound, left = known, segment.peak(known), enough, state_limit
    # All live bytes are multiples of this.
    unit = math.gcd(*(size for size, _ in segment.tensors), *(n.scratch for n in segment.nodes), *_shared(segment))

    def probe(budget: int, states: int) -> bool | None:
        """Whether some order keeps the budget; None when that many sets do not tell."""
        nonlocal best, peak, bound, left
        outcome = tree.within(budget, min(states, left))
        left -= max(outcome.states, 1)
        if outcome.order is not None:
            best, peak = outcome.order, segment.peak(outcome.order)
            return True
        if outcome.needed is None:
            return None
        bound = min(max(bound, outcome.needed), peak)
        return False

    # Cheap guesses first: most budgets that can be kept are kept at once.
    low = budget = bound
    while low < peak and left > 0:
        found = probe(budget, _GUESS)
        low = max(low, bound) if found is not None else (budget // unit + 1) * unit
        budget = (low + peak - 1) // 2
    # One refusal just below the peak is the proof; where that takes too long, as good a bound as what is left finds.
    reserve = state_limit // _RESERVE
    while bound < peak and left > reserve and probe(peak - 1, left - reserve):
        pass
    high = peak
    while bound < high and left > 0:
        budget = (bound + high - 1) // 2
        if probe(budget, -(-left // 2)) is not False:
            high = budget
    return best, bound if peak > enough else enough


def _shared(segment: Segment) -> list[int]:
    return [saved for node in segment.nodes for _, _, saved in node.shares]


@dataclass(frozen=True)
class _Outcome:
    """An order within the budget; or the smallest budget that might do; or neither, when the states were used up."""

    order: tuple[int, ...] | None
    needed: int | None
    states: int


class _Tree:
    """The sets of executed nodes of a segment, and how they follow each other."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._twins = _twins(segment)
        before, after = relations(segment)
        count = len(segment.nodes)
        self._forced: _Bytes = np.array(
            [forced_bytes(segment, i, before[i], after[i] | 1 << i) for i in range(count)], np.int64
        )
        # Row j: bytes that node j, once it has run, forces upon each node that runs without it as well.
        self._adds: _Bytes = np.zeros((count, count), np.int64)
        for (size, dies), maker, readers in zip(segment.tensors, segment.makers, segment.readers, strict=True):
            for i in range(count) if maker >= 0 else ():
                if not before[i] >> maker & 1 and (not dies or readers & (after[i] | 1 << i)):
                    self._adds[maker, i] += size
        np.fill_diagonal(self._adds, _NOTHING)

    def _key(self, done: int) -> object:
        """Equal for sets that an exchange of equal parts turns into each other."""
        if not self._twins:
            return done
        rest, states = done, []
        for group in self._twins:
            states.append(tuple(sorted(tuple(done >> i & 1 for i in part) for part in group)))
            for part in group:
                for i in part:
                    rest &= ~(1 << i)
        return rest, tuple(states)

    def within(self, budget: int, state_limit: int) -> _Outcome:
        """An order whose peak is at most `budget`, looking at no more than `state_limit` sets."""
        segment, adds = self._segment, self._adds
        full = (1 << len(segment.nodes)) - 1
        moves, direct, followers = segment.moves, segment.direct, segment.followers
        seen: set[object] = set()
        needed = _Least()
        path: list[int] = []
        start = [i for i, before in enumerate(direct) if not before]
        # What has run, bytes live, bytes forced upon each node, what is ready, what is left to try, length of the path.
        stack = [(0, segment.live_at_start, self._forced, start, [-1], 0)]
        while stack:
            done, live, forced, ready, untried, length = stack[-1]
            del path[length:]
            if not untried:
                stack.pop()
                continue
            pending, ready = untried.pop(), list(ready)
            children: list[tuple[int, int, int]] = []
            while True:
                if pending >= 0:
                    live = moves[pending].run(done, live)[1]
                    done |= 1 << pending
                    forced = forced + adds[pending]
                    path.append(pending)
                    ready.remove(pending)
                    ready += [j for j in followers[pending] if not direct[j] & ~done]
                    pending = -1
                children.clear()
                for i in ready:
                    during, after = moves[i].run(done, live)
                    if during > budget:
                        needed.take(during)
                    elif after <= live:
                        pending = i
                        break
                    else:
                        children.append((after, during, i))
                if pending < 0:
                    break
            if done == full:
                return _Outcome(tuple(path), None, len(seen))
            if not children:
                continue
            most = int(forced.max())
            if most > budget:
                needed.take(most)
                continue
            key = self._key(done)
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > state_limit:
                return _Outcome(None, None, len(seen))
            children.sort(reverse=True)
            stack.append((done, live, forced, ready, [i for _, _, i in children], len(path)))
        return _Outcome(None, max(needed.value or 0, budget + 1), len(seen))


class _Least:
    """The smallest number that it was given."""

    def __init__(self) -> None:
        self.value: int | None = None

    def take(self, number: int) -> None:
        if self.value is None or number < self.value:
            self.value = number


def _twins(segment: Segment) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Groups of equal parts, the nodes of each part in corresponding order.

    A part is connected by tensors made in the segment. Two are equal when they have the same nodes over tensors of
    the same bytes, and read the same of the tensors that were there before.
    """
    parts = _parts(segment)
    groups: dict[object, list[tuple[int, ...]]] = {}
    for part in parts:
        groups.setdefault(_shape(segment, part), []).append(part)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _parts(segment: Segment) -> list[tuple[int, ...]]:
    parent = list(range(len(segment.nodes)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, direct in enumerate(segment.direct):
        for maker in members(direct):
            parent[root(maker)] = root(i)
    result: dict[int, list[int]] = {}
    for i in range(len(segment.nodes)):
        result.setdefault(root(i), []).append(i)
    return [tuple(part) for part in result.values()]


def _shape(segment: Segment, part: Iterable[int]) -> object:
    own: dict[int, int] = {}
    shape = []
    for i in part:
        node = segment.nodes[i]
        for tensor in node.outputs:
            own[tensor] = len(own)

        def name(tensor: int) -> tuple[str, int, int, bool]:
            size, dies = segment.tensors[tensor]
            return ("own", own[tensor], size, dies) if tensor in own else ("shared", tensor, size, dies)

        inputs, outputs = tuple(map(name, node.inputs)), tuple(map(name, node.outputs))
        shares = tuple((name(a), name(b), s) for a, b, s in node.shares)
        shape.append((node.scratch, inputs, outputs, shares))
    return tuple(shape)
