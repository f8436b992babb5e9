# SPDX-License-Identifier: Apache-2.0
"""In which order the elements of a ring lie: the axis of time may come first, in its own place, or last."""

from __future__ import annotations

import enum

import numpy as np

from edgec.lower.ring_form import RingForm
from edgec.lower.ring_graph import Ids


class Layout(enum.Enum):
    """How [outer, rows, inner] lies as streams, rows and channels.

    ROWS: one stream of whole rows. OWN: a stream for each outer index, as the model has it. LINES: a stream for each
    element, which keeps its past together.
    """

    ROWS = "rows"
    OWN = "own"
    LINES = "lines"

    def streams(self, form: RingForm) -> int:
        """Number of streams."""
        outer, _, inner = form.elements.shape
        return {Layout.ROWS: 1, Layout.OWN: int(outer), Layout.LINES: int(outer * inner)}[self]

    def channels(self, form: RingForm) -> int:
        """Elements of a stream's row."""
        outer, _, inner = form.elements.shape
        return int(outer * inner) // self.streams(form)

    def of(self, form: RingForm, at: Ids) -> tuple[Ids, Ids, Ids]:
        """(stream, row, channel) of places in the extended window."""
        _, rows, inner = form.elements.shape
        element = at // (rows * inner) * inner + at % inner
        return element // self.channels(form), form.row_of(at), element % self.channels(form)

    def places(self, form: RingForm, at: Ids, first: int, length: int) -> Ids:
        """Where places of the extended window lie in a tensor of the `length` rows from `first` on."""
        stream, row, channel = self.of(form, at)
        return (stream * length + row - first) * self.channels(form) + channel

    def new(self, form: RingForm) -> Ids:
        """Places in `form.x` of what is new, as [streams, channels]."""
        return form.places.reshape(self.streams(form), self.channels(form))


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
