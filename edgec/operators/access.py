# SPDX-License-Identifier: Apache-2.0
"""What an operator reads for a part of its output, and in which order: what tiling and overlap go by.

`RowAccess` says which of an input's elements some output elements depend on, whatever computes them. `ReadOrder` says
in which order generated code (the record's PrimFunc) reads an input while it writes the output. Both count elements of
the flattened tensors.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
Int64 = npt.NDArray[np.int64]
UNREAD = 2**62
"""In `ReadOrder.first`: the step reads nothing."""


class Access(enum.Enum):
    """In which order a kernel reads its activations and writes its output, in one word.

    ELEMENTWISE: element i of every same-shaped input is last read before element i of the output is written.
    IN_ROWS: the same, a row at a time: nothing of row r is read after its output row is begun, except the
        element just being replaced; the output may take the place of the first input.
    ROWS: row r of the first input is not read after output row r is complete; not in place.
    WHOLE: no promise: every input must live until the last output byte is written.
    """

    ELEMENTWISE = "elementwise"
    IN_ROWS = "in_rows"
    ROWS = "rows"
    WHOLE = "whole"

    @property
    def in_place(self) -> bool:
        """Whether the output may start at the address of the (equally sized) first input."""
        return self in (Access.ELEMENTWISE, Access.IN_ROWS)


@dataclass(frozen=True)
class RowAccess:
    """Which rows of an input each row of the output depends on.

    Output row r, `out_elements` elements from `r * out_elements` on, depends on nothing but the input rows from
    `r * stride // per - before` to `r * stride // per + after`, as far as they exist, of `in_elements` elements each.

    Attributes:
        out_elements, in_elements: elements of a row of the output and of the input.
        before, after: rows further back and ahead; negative ones move the other end.
        stride, per: input rows by which `per` output rows move on.
    """

    out_elements: int
    in_elements: int
    before: int = 0
    after: int = 0
    stride: int = 1
    per: int = 1

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """The input rows `[a, b)` of the output rows `[first, last)`; they may lie outside the input."""
        return first * self.stride // self.per - self.before, (last - 1) * self.stride // self.per + self.after + 1

    def elements(self, first: int, last: int, size: int) -> tuple[int, int]:
        """The elements `[a, b)` of an input of `size` that the output elements `[first, last)` depend on."""
        a, b = self.rows(first // self.out_elements, -(-last // self.out_elements))
        a, b = (min(max(row * self.in_elements, 0), size) for row in (a, b))
        return a, max(a, b)

    @property
    def rowwise(self) -> bool:
        """Whether output row r depends on input row r alone."""
        return (self.before, self.after, self.stride, self.per) == (0, 0, 1, 1)


@dataclass(frozen=True)
class ReadOrder:
    """How generated code goes through one input: steps that read a part of it and write the next output elements.

    Attributes:
        first: int64, the lowest element that each step reads, or `UNREAD`.
        elements: how many a step writes.
        reads: what the step reads is read "before" its first element is written, "until" its last is about to be
            written, or "after" it may be as well.
    """

    first: Int64
    elements: int = 1
    reads: Literal["before", "until", "after"] = "before"

    def in_blocks(self, size: int) -> ReadOrder:
        """The order of code that reads all that `size` output elements need before it writes them.

        The last block may be smaller; it is taken step by step, which allows less.
        """
        many = size // self.elements
        whole = len(self.first) // many * many if many else 0
        if many < 2:
            return ReadOrder(self.first, self.elements) if many else self
        blocks = self.first[:whole].reshape(-1, many)
        first = np.full(blocks.shape, UNREAD, np.int64)
        # A block is as many steps; all that it reads is read by the first of them.
        first[:, 0] = blocks.min(axis=1)
        return ReadOrder(np.concatenate([first.ravel(), self.first[whole:]]), self.elements)

    def in_late_blocks(self, size: int) -> ReadOrder:
        """The order of code that may read what `size` output elements need even after it has written them."""
        many = -(-size // self.elements)
        first = np.full(-(-len(self.first) // many) * many, UNREAD, np.int64)
        first[: len(self.first)] = self.first
        return ReadOrder(first.reshape(-1, many).min(axis=1), many * self.elements, "after")

    def distance(self, in_bytes: int, out_bytes: int) -> int:
        """Smallest d in bytes such that the input may begin d or any more bytes behind the output.

        An element written must not lie on one that is read later. Negative where the output may begin behind the
        input; what must not lie where the output ends is not asked.

        Args:
            in_bytes, out_bytes: bytes of an element of each.
        """
        if self.elements == 1 and self.reads == "until":
            return ReadOrder(self.first).distance(in_bytes, out_bytes)
        steps = len(self.first)
        written = np.arange(1, steps + 1, dtype=np.int64) * (self.elements * out_bytes)
        unread = self.first >= UNREAD
        read = np.where(unread, UNREAD, self.first * in_bytes)
        later = np.minimum.accumulate(read[::-1])[::-1]
        found = [np.where(later[1:] < UNREAD, written[:-1] - later[1:], -UNREAD)]
        if self.reads != "before":
            kept = out_bytes if self.reads == "until" else 0
            found.append(np.where(unread, -UNREAD, written - kept - read))
        return int(max((f.max(initial=-UNREAD) for f in found), default=-UNREAD))


Rows = tuple[RowAccess | None, ...]
Orders = tuple[ReadOrder | None, ...]


def by_element(size: int) -> ReadOrder:
    """Element i is last read just before element i is written."""
    return ReadOrder(np.arange(size, dtype=np.int64))


def by_row(rows: int, row: int, elements: int, reads: Literal["before", "until", "after"] = "until") -> ReadOrder:
    """Row r of `row` elements is read while the r-th `elements` of the output are written."""
    return ReadOrder(np.arange(rows, dtype=np.int64) * row, elements, reads)


def default_rows(access: Access, shapes: Sequence[Shape], out: Shape, activations: int) -> Rows:
    """What `access` says of each input; None for one that may be needed whole.

    Where an operand is broadcast, rows are those of the last axis: the operator is the same for any number of them.
    """
    found: list[RowAccess | None] = [None] * len(shapes)
    alike = all(shape == out for shape in shapes[:activations])
    for i, shape in enumerate(shapes[:activations]):
        if access is Access.ELEMENTWISE and shape == out:
            found[i] = RowAccess(1, 1) if alike else RowAccess(out[-1], out[-1])
        elif access is Access.ELEMENTWISE and shape == (*out[:-1], 1):
            found[i] = RowAccess(out[-1], 1)
        elif access in (Access.IN_ROWS, Access.ROWS) and i == 0:
            found[i] = RowAccess(out[-1], shape[-1])
    return tuple(found)


def default_orders(access: Access, shapes: Sequence[Shape], out: Shape, activations: int) -> Orders:
    """What `access` promises of each input; None for nothing."""
    found: list[ReadOrder | None] = [None] * len(shapes)
    size = int(np.prod(out, dtype=np.int64))
    for i, shape in enumerate(shapes[:activations]):
        if shape == out and (access is Access.ELEMENTWISE or (access is Access.IN_ROWS and i == 0)):
            found[i] = by_element(size)
        elif access is Access.ELEMENTWISE and shape == (*out[:-1], 1):
            found[i] = by_row(size // out[-1], 1, out[-1])
        elif access is Access.ROWS and i == 0:
            found[i] = by_row(size // out[-1], shape[-1], out[-1], "after")
    return tuple(found)
