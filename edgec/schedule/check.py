# SPDX-License-Identifier: Apache-2.0
"""The judge of every plan, the slow and obvious way: each buffer by itself, then each pair, O(n²).

It shares no reasoning with what made the plan, so that an error there cannot hide here.
"""

from __future__ import annotations

from itertools import combinations

from edgec.schedule.problem import Buffer, MemoryPlan


class InvalidPlanError(Exception):
    """A plan that would corrupt memory: a defect of the planner, never of the model. One line a violation."""


def violations(plan: MemoryPlan) -> list[str]:
    """What is wrong with `plan`, one sentence each; empty if it is right."""
    found = []
    capacity = {space.name: space.capacity for space in plan.problem.spaces}
    for name in plan.placements.keys() - {buffer.name for buffer in plan.problem.buffers}:
        found.append(f"{name} is placed, but the problem does not have it")
    placed = []
    for buffer in plan.problem.buffers:
        if buffer.name not in plan.placements:
            found.append(f"{buffer.name} has no place")
            continue
        space, offset = plan.placements[buffer.name].space, plan.placements[buffer.name].offset
        if space not in capacity:
            found.append(f"{buffer.name} lies in {space}, which does not exist")
            continue
        placed.append((buffer, space, offset))
        if buffer.allowed is not None and space not in buffer.allowed:
            found.append(f"{buffer.name} lies in {space}, but is allowed in {sorted(buffer.allowed)} only")
        if offset < 0 or offset + buffer.size > capacity[space]:
            found.append(
                f"{buffer.name} takes bytes [{offset}, {offset + buffer.size}) of {space}, "
                f"which ends at {capacity[space]}"
            )
        if offset % buffer.alignment != 0:
            found.append(f"{buffer.name} lies at offset {offset}, not a multiple of {buffer.alignment}")
    where = {buffer.name: (space, offset) for buffer, space, offset in placed}
    for buffer, space, offset in placed:
        if buffer.anchor is not None and buffer.anchor[0] in where:
            other, distance = buffer.anchor
            if where[other] != (space, offset - distance):
                at = f"{where[other][0]} + {where[other][1]}"
                found.append(f"{buffer.name} lies at {space} + {offset}, not {distance} B from {other} at {at}")
    for (a, space_a, at_a), (b, space_b, at_b) in combinations(placed, 2):
        share_step = max(a.first, b.first) < min(a.last, b.last)
        share_byte = space_a == space_b and max(at_a, at_b) < min(at_a + a.size, at_b + b.size)
        if share_step and share_byte and not (_anchored(a, b) or _anchored(b, a)):
            found.append(
                f"{a.name} [{at_a}, {at_a + a.size}) and {b.name} [{at_b}, {at_b + b.size}) collide "
                f"in {space_a} at {plan.problem.step_name(max(a.first, b.first))}"
            )
    return found


def _anchored(a: Buffer, b: Buffer) -> bool:
    """Whether `a` declares that it lies at a distance from `b`: that distance is judged by itself."""
    return a.anchor is not None and a.anchor[0] == b.name


def check_plan(plan: MemoryPlan) -> None:
    """Return if `plan` is right.

    Raises:
        InvalidPlanError: it is not; the message names each buffer and each colliding pair.
    """
    found = violations(plan)
    if found:
        raise InvalidPlanError("\n".join(found))
