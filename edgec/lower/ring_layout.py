# SPDX-License-Identifier: Apache-2.0
"""In which order the elements of a ring lie: the axis of time may come first, in its own place, or last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.lower.ring_form import RingForm
from edgec.lower.ring_graph import Ids

_MOST_STREAMS = 16


@dataclass(frozen=True)
class Layout:
    """How [outer, rows, inner] lies: as [streams, rows, channels], each stream a part of all elements of a row.

    One stream keeps rows together, as many as a row has elements keep the past of each one together; attention wants a
    stream for each head where it is not fused.
    """

    streams: int

    def channels(self, form: RingForm) -> int:
        """Elements of a stream's row."""
        return width(form) // self.streams

    def of(self, form: RingForm, at: Ids) -> tuple[Ids, Ids, Ids]:
        """(stream, row, channel) of places in the extended window."""
        element = element_of(form, at)
        return element // self.channels(form), form.row_of(at), element % self.channels(form)

    def places(self, form: RingForm, at: Ids, first: int, length: int) -> Ids:
        """Where places of the extended window lie in a tensor of the `length` rows from `first` on."""
        stream, row, channel = self.of(form, at)
        return (stream * length + row - first) * self.channels(form) + channel

    def unfolded(self, form: RingForm) -> Ids:
        """Where the state's own elements lie in a tensor of its rows alone, along axes that are evenly spaced."""
        outer, rows, inner = form.elements.shape
        at = np.arange(outer * rows * inner).reshape(outer, rows, inner)[:, :-1]
        channels = self.channels(form)
        axes = (outer, 1, rows - 1, inner // channels, channels)
        if channels > inner:
            axes = (outer * inner // channels, channels // inner, rows - 1, 1, inner)
        return self.places(form, at, 0, rows - 1).reshape(axes)

    def new(self, form: RingForm) -> Ids:
        """Places in `form.x` of what is new, as [streams, channels]."""
        return form.places.reshape(self.streams, self.channels(form))


def layouts(form: RingForm) -> list[Layout]:
    """The layouts that may be worth something, the plainest first."""
    size = width(form)
    few = [n for n in range(1, _MOST_STREAMS + 1) if size % n == 0]
    every = [Layout(n) for n in dict.fromkeys([*few, form.elements.shape[0], size])]
    inner = form.elements.shape[2]
    return [e for e in every if inner % e.channels(form) == 0 or e.channels(form) % inner == 0]


def width(form: RingForm) -> int:
    """Elements of a row."""
    outer, _, inner = form.elements.shape
    return int(outer * inner)


def element_of(form: RingForm, at: Ids) -> Ids:
    """Which element of its row a place in the extended window is."""
    _, rows, inner = form.elements.shape
    element: Ids = at // (rows * inner) * inner + at % inner
    return element


def rotated_axis(rows: Ids, others: Ids, length: int) -> tuple[int, int] | None:
    """(outer, inner) of a tensor [outer, length, inner] whose middle axis is the rows of a window, in their order.

    Args:
        rows: row of each element, counted from the window's first.
        others: a number that tells elements of one row apart; along the rows it must not change.
        length: rows of the window.
    """
    if rows.size % length or not rows.size:
        return None
    changed = np.flatnonzero(rows != rows[0])
    inner = int(changed[0]) if changed.size else rows.size
    if rows.size % (inner * length):
        return None
    shaped = rows.reshape(-1, length, inner)
    if not (shaped == np.arange(length)[:, None]).all():
        return None
    same = others.reshape(-1, length, inner)
    return (len(shaped), inner) if (same == same[:, :1]).all() else None
