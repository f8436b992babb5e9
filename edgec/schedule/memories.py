# SPDX-License-Identifier: Apache-2.0
"""Phase 5 of the compile: a program's tensors and scratch into the target's RAM, its constants into its flash."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.errors import FitError
from edgec.kernels.select import Implementation
from edgec.program import Program
from edgec.schedule.check import check_plan
from edgec.schedule.from_program import StateLayout, problem_of, state_layout
from edgec.schedule.loosen import plan_loosely
from edgec.schedule.place import plan
from edgec.schedule.problem import MemoryPlan, Space
from edgec.schedule.settle import settle
from edgec.target import Region, Target

STATIC_RESERVE = 4096 + 1024
"""Bytes kept for stack, static data and serial buffers in the fastest memory; the linker has the last word."""
CODE_RESERVE = 48 * 1024
"""Bytes of internal flash kept for code when weights are spread over flash regions."""
_HOST_RAM = 2**40


STACK_GUESS = 1024
"""Bytes of stack that a limit on all RAM leaves beside the arena, before the program is linked."""


def arena_room(program: Program, target: Target, ram: int | None = None) -> int | None:
    """Most bytes of arena: what the target has, or what `ram` bytes in all leave beside state and stack."""
    if not target.ram_spans():
        return None
    state = state_layout(program).bytes
    room = sum(span.size for span in target.ram_spans()) - STATIC_RESERVE - state
    return room if ram is None else min(room, max(0, ram - state - STACK_GUESS))


def place_in_memories(
    program: Program, implementations: Sequence[Implementation], target: Target, search: bool = True
) -> tuple[MemoryPlan, StateLayout, dict[str, Region]]:
    """The checked plan of the arena, the layout of the state buffer, and the flash region of each constant.

    Offsets are searched, or greedy without `search`.

    Raises:
        FitError: the arena, the state or the weights do not fit.
    """
    state = state_layout(program)
    weights = _place_weights(program, implementations, target)
    problem = problem_of(program, implementations, *memory_spaces(target, state))
    result = settle(plan_loosely(problem)) if search else plan(problem, search=False)
    check_plan(result)
    return result, state, weights


def memory_spaces(target: Target, state: StateLayout) -> tuple[list[Space], str]:
    """RAM spans with what the arena may take of them: largest first, so that one space holds all if any can."""
    spans = target.ram_spans()
    if not spans:
        return [Space("host", _HOST_RAM)], target.name
    taken = STATIC_RESERVE + state.bytes
    if taken > spans[0].size:
        raise FitError(
            f"the state does not fit {target.name}",
            need=f"{state.bytes:,} B of state beside {STATIC_RESERVE:,} B of stack and static data",
            have=f"{spans[0].size:,} B in {spans[0].name}",
        )
    spaces = [Space(s.name, s.size - (taken if s is spans[0] else 0)) for s in spans]
    label = f"{target.name} ({sum(s.size for s in spans):,} B of RAM, {taken:,} B for state, stack and static data)"
    return spaces, label


def _place_weights(program: Program, implementations: Sequence[Implementation], target: Target) -> dict[str, Region]:
    """Internal flash while it lasts, first what is read in the most turns of loops; the rest goes to external flash."""
    regions = target.flash_regions()
    if not regions:
        return {}
    sizes = {name: p.values.nbytes for i in implementations for name, p in i.constants.items()}
    internal = target.internal_flash()
    room = {r.name: r.size - (CODE_RESERVE if r is internal else 0) for r in regions}
    result = {}
    turns = dict.fromkeys(sizes, 0)
    for step, implementation in enumerate(implementations):
        loop = program.loop_at(step)
        for name in implementation.constants:
            turns[name] += loop.count if loop is not None else 1
    for name, size in sorted(sizes.items(), key=lambda item: (-turns[item[0]], item[1])):
        region = next((r for r in regions if room[r.name] >= size), None)
        if region is None:
            total, have = sum(sizes.values()), sum(r.size for r in regions)
            raise FitError(
                f"weights need {total:,} B, {target.name} has {have:,} B of flash ({CODE_RESERVE:,} B kept for code):"
                f" over by {total - have + CODE_RESERVE:,} B"
            )
        room[region.name] -= -(-size // 4) * 4
        result[name] = region
    return {name: result[name] for name in sizes}
