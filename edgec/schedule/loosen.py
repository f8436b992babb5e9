# SPDX-License-Identifier: Apache-2.0
"""Anchors that cost more than they save are dropped: an output need not begin inside its dying input.

In a chain of outputs that each begin a little before their inputs the chain walks through the arena; where there is
room elsewhere, it may break.
"""

from __future__ import annotations

from dataclasses import replace

from edgec.errors import FitError
from edgec.schedule.place import plan
from edgec.schedule.problem import MemoryPlan, Problem

_MOST = 24
"""Anchors up to which every one is tried; a problem with more keeps them."""


def plan_loosely(problem: Problem) -> MemoryPlan:
    """The best plan found with the anchors of `problem` or fewer of them.

    Raises:
        FitError: nothing fits.
    """
    best = plan(problem)
    while True:
        anchored = [b.name for b in best.problem.buffers if b.anchor is not None]
        if best.arena_bytes == best.placement_bound_bytes or not 0 < len(anchored) <= _MOST:
            return best
        tried = [p for p in (_tried(best.problem, name) for name in anchored) if p is not None]
        better = min(tried, key=lambda p: p.arena_bytes, default=best)
        if better.arena_bytes >= best.arena_bytes:
            return best
        best = better


def _tried(problem: Problem, free: str) -> MemoryPlan | None:
    """The plan without one anchor, if there is any."""
    buffers = tuple(replace(b, anchor=None) if b.name == free else b for b in problem.buffers)
    try:
        return plan(replace(problem, buffers=buffers))
    except FitError:
        return None
