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
        weights: bytes of constants that each call reads, whatever its number of rows.
        scratch: bytes beside its operands.
        over: values inside whose bytes the output may begin while it is computed, each with the bytes by which it has
            to begin before them at least.
        cheap: whether computing it again costs less than keeping it may.
        step: its call's number in the program.
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

    @property
    def by_rows(self) -> bool:
        """Whether it can run on a block of rows."""
        return self.units > 1 and (bool(self.rows) or not self.whole)


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
