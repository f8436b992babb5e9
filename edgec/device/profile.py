# SPDX-License-Identifier: Apache-2.0
"""What a runner measured, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OperatorCount:
    """One call instruction of the run function: position in address order, callee, instructions."""

    index: int
    symbol: str
    instructions: int


@dataclass(frozen=True)
class Profile:
    """The last run. What the place of measurement cannot know is None.

    `instructions` = sum over `operators` + `overhead` (the run function's own), exact and repeatable on the
    simulator; `cycles` is known on a board only; `seconds` is wall time, on the host only.
    """

    measured_on: Literal["board", "simulator", "host"]
    runs: int
    instructions: int | None = None
    overhead: int | None = None
    operators: tuple[OperatorCount, ...] = ()
    cycles: int | None = None
    seconds: float | None = None
    stack_bytes: int | None = None
