# SPDX-License-Identifier: Apache-2.0
"""What a runner measured, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FlashTraffic:
    """Data (not code) from one flash region: bytes that instructions read, and bytes that no cache held."""

    region: str
    read: int
    fetched: int


@dataclass(frozen=True)
class Cost:
    """The cycle estimate in its parts (docs/cycles.md), and the flash traffic, which is counted.

    `issue`: from issue to issue; `branch`: pipeline refills; `memory`: waits for memory.
    """

    issue: int
    branch: int
    memory: int
    flash: tuple[FlashTraffic, ...]

    @property
    def cycles(self) -> int:
        """The estimate."""
        return self.issue + self.branch + self.memory


def total_cost(costs: Iterable[Cost]) -> Cost:
    """The sum of costs on one board."""
    costs = list(costs)
    flash = tuple(
        FlashTraffic(parts[0].region, sum(p.read for p in parts), sum(p.fetched for p in parts))
        for parts in zip(*(c.flash for c in costs), strict=True)
    )
    return Cost(sum(c.issue for c in costs), sum(c.branch for c in costs), sum(c.memory for c in costs), flash)


@dataclass(frozen=True)
class OperatorCount:
    """One call instruction of the run function: position in address order, callee, instructions."""

    index: int
    symbol: str
    instructions: int
    cost: Cost | None = None


@dataclass(frozen=True)
class Profile:
    """The last run. What the place of measurement cannot know is None.

    `instructions` = sum over `operators` + `overhead` (the run function's own), exact and repeatable on the
    simulator; `cycles` is known on a board only, and estimated by every `cost`; `seconds` is wall time, on the
    host only.
    """

    measured_on: Literal["board", "simulator", "host"]
    runs: int
    instructions: int | None = None
    overhead: int | None = None
    operators: tuple[OperatorCount, ...] = ()
    cycles: int | None = None
    seconds: float | None = None
    stack_bytes: int | None = None
    overhead_cost: Cost | None = None

    @property
    def cost(self) -> Cost | None:
        """The whole run's cost, where it was estimated."""
        parts = [self.overhead_cost, *(o.cost for o in self.operators)]
        known = [p for p in parts if p is not None]
        return total_cost(known) if len(known) == len(parts) else None
