# SPDX-License-Identifier: Apache-2.0
"""What tiling sees of a program: operators that read values by rows or whole, and what a block of rows costs.

A *value* is a tensor's bytes, whatever views rename them. An operator makes `units` rows; a value that it reads *by
rows* is needed only as far as the rows at hand, one that it reads *whole* must exist completely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GROUP = 4
"""Rows that the dense kernels take at a time: blocks are multiples of it where they can be."""


@dataclass(frozen=True)
class Scratch:
    """Scratch bytes of a call: some for any number of rows, some for each row of the panel that it packs."""

    fixed: int = 0
    per_row: int = 0

    def at(self, rows: int, panel: int) -> int:
        """Bytes for a call on `rows` rows that packs at most `panel` of them at a time."""
        return self.fixed + self.per_row * min(rows, panel)


@dataclass(frozen=True)
class Work:
    """One operator.

    Attributes:
        name: of its call.
        rows, whole: values that it reads by rows, and those of which it needs all bytes.
        writes: the value that it makes.
        units: rows of its output.
        instructions: estimate for all rows.
        weights: bytes of constants that each call reads from flash, whatever its number of rows; 0 for so few that they
            stay in the data cache.
        scratch: bytes beside its operands.
        over: values inside whose bytes the output may begin while it is computed, each with the bytes by which it has
            to begin before them at least.
        cheap: whether computing it again costs less than keeping it may.
        step: its call's number in the program.
        vectors: rows of a dense operator: elements of the result but for its last axis.
        behind: values of `whole` of which its kernel reads a window for any rows of the result, moving on with them:
            each with the bytes that the window reaches back before the place of the rows. Empty for a kernel that can
            only make all rows.
        fed: whether its value, an input, comes by rows from outside and may never exist whole.
        packs: a value that its kernel packs row by row before it begins, and the elements of such a row; operators with
            the same can share what is packed. Its bytes are `scratch.per_row`.
        packing: instructions of that, part of `instructions`.
    """

    name: str
    rows: tuple[str, ...]
    whole: tuple[str, ...]
    writes: str
    units: int
    instructions: int
    weights: int = 0
    scratch: Scratch = field(default_factory=Scratch)
    over: tuple[tuple[str, int], ...] = ()
    cheap: bool = False
    step: int = 0
    vectors: int = 0
    behind: tuple[tuple[str, int], ...] = ()
    fed: bool = False
    packs: tuple[str, int] | None = None
    packing: int = 0

    @property
    def by_rows(self) -> bool:
        """Whether it can run on a block of rows."""
        return self.units > 1 and (bool(self.rows) or bool(self.behind) or not self.whole)


@dataclass(frozen=True)
class RowGraph:
    """Operators in an order in which they can run.

    Attributes:
        works: the operators.
        sizes: bytes of every value.
        keep: values that must exist at the end, or that someone else writes or reads (states, outputs).
    """

    works: tuple[Work, ...]
    sizes: Mapping[str, int]
    keep: frozenset[str]

    @property
    def makers(self) -> dict[str, int]:
        """The operator that makes each value; inputs have none."""
        return {work.writes: i for i, work in enumerate(self.works)}

    @property
    def fed(self) -> set[str]:
        """Values that may never exist whole: inputs that come by rows, and what is as large and merely made of them."""
        found: set[str] = set()
        for work in self.works:
            reads = {*work.rows, *work.whole}
            smallest = min((self.sizes[v] for v in reads), default=0)
            if work.fed or (work.cheap and reads and reads <= found and self.sizes[work.writes] >= smallest):
                found.add(work.writes)
        return found
