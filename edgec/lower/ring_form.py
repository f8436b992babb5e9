# SPDX-License-Identifier: Apache-2.0
"""Which states are rings: "drop the oldest rows, append the newest", in whatever nodes an exporter wrote it.

What counts is where the elements of the successor come from: rows k and on of the state, then k new ones. So slices,
concatenations, transposes, gathers and rolls are all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgec.lower.ring_graph import Ids, RingGraph
from edgec.operators.integer import product


@dataclass(frozen=True)
class RingForm:
    """A state that is a window over its past.

    The extended window is the state's rows and behind them the new one. A row is what comes in one step: k of the
    state's own rows where k come at once.

    Attributes:
        state, result: tensors of the state and of its successor.
        x: tensor that holds what is new, and where in it, as [outer, 1, inner].
        elements: number of each element of the extended window, as [outer, rows + 1, inner].
        dtype: of the elements.
    """

    state: str
    result: str
    x: str
    places: Ids
    elements: Ids
    dtype: str

    @property
    def rows(self) -> int:
        """Rows of the state."""
        return int(self.elements.shape[1]) - 1

    def located(self, ids: Ids) -> Ids | None:
        """Where elements lie in the extended window, flat; None unless all do, some of them in the state."""
        flat, order = self.elements.ravel(), self._order
        at = order[np.minimum(np.searchsorted(flat, ids, sorter=order), flat.size - 1)]
        if not ids.size or not np.array_equal(flat[at], ids):
            return None
        rows = self.row_of(at)
        return at if (rows < self.rows).any() else None

    @cached_property
    def _order(self) -> Ids:
        return np.argsort(self.elements.ravel())

    def row_of(self, at: Ids) -> Ids:
        """The row of places in the extended window."""
        rows: Ids = at // self.elements.shape[2] % self.elements.shape[1]
        return rows


def ring_form(graph: RingGraph, state: str, result: str) -> RingForm | str | None:
    """The form of a state; a reason when it is nearly a ring, None when it is another kind of state."""
    shape, was, now = graph.types[state].shape, graph.ids[state], graph.ids.get(result)
    if now is None or now.size != was.size or not was.size:
        return None
    kept = np.isin(now, was)
    if not kept.any() or np.array_equal(now, was):
        return None
    found = _shift(was.reshape(shape), now.reshape(shape))
    if found is None:
        return None if kept.mean() < 0.5 else "its elements change places, but not by whole steps along one axis"
    axis, step = found
    if shape[axis] % step:
        return f"{step} new rows a step do not divide its {shape[axis]} rows"
    outer, inner = product(shape[:axis]), product(shape[axis + 1 :])
    fresh = now.reshape(outer, shape[axis], inner)[:, -step:]
    if np.isin(fresh, was).any():
        return "what comes new is a part of the state itself"
    if np.unique(fresh).size != fresh.size:
        return "what comes new repeats elements"
    source = _holder(graph, fresh.ravel(), was)
    if source is None:
        return "what comes new is no value of the model"
    dtype = graph.types[state].dtype
    if dtype not in ("int8", "int16"):
        return f"rings of {dtype} are not made"
    whole = np.concatenate([was.reshape(outer, shape[axis], inner), fresh], axis=1)
    rows = shape[axis] // step
    if rows + 1 > 2**16:
        return f"{rows} rows, at most 2^16 - 1"
    return RingForm(
        state, result, source[0], source[1].reshape(outer, 1, -1), whole.reshape(outer, rows + 1, -1), dtype
    )


def _shift(was: Ids, now: Ids) -> tuple[int, int] | None:
    """(axis, rows) by which `now` is `was` moved towards the beginning."""
    for axis, size in enumerate(was.shape):
        first, second = (np.moveaxis(a, axis, 0).reshape(size, -1) for a in (was, now))
        for step in range(1, size):
            if second[0, 0] == first[step, 0] and np.array_equal(second[:-step], first[step:]):
                return axis, step
    return None


def _holder(graph: RingGraph, ids: Ids, state: Ids) -> tuple[str, Ids] | None:
    """The smallest value that holds all these elements and none of the state, and where in it they lie."""
    best: tuple[tuple[int, bool], str, Ids] | None = None
    for name, elements in graph.ids.items():
        if elements.size < ids.size or np.isin(elements, state).any():
            continue
        order = np.argsort(elements, kind="stable")
        at = order[np.minimum(np.searchsorted(elements, ids, sorter=order), elements.size - 1)]
        if not np.array_equal(elements[at], ids):
            continue
        rank = elements.size, not np.array_equal(at, np.arange(ids.size))
        if best is None or rank < best[0]:
            best = rank, name, at.astype(np.int64)
    return None if best is None else best[1:]
