# SPDX-License-Identifier: Apache-2.0
"""Program -> placement problem: one buffer for every arena tensor and every scratch area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgec.assemble import arena_tensors
from edgec.kernels.select import Implementation
from edgec.program import Program
from edgec.schedule.problem import Buffer, Problem, Space

ALIGNMENT = 4


@dataclass(frozen=True)
class StateLayout:
    """Offsets of the states in the caller's state buffer, by the state's tensor name, and its bytes."""

    offsets: dict[str, int]
    bytes: int


def scratch_name(step: int, index: int) -> str:
    """Buffer name of scratch area `index` of the call at `step`."""
    return f"scratch {index} of step {step}"


def problem_of(
    program: Program, implementations: Sequence[Implementation], spaces: Sequence[Space], target: str
) -> Problem:
    """The placement problem of a program with its chosen kernels."""
    buffers = [
        Buffer(name, program.tensors[name].type.bytes, first, last, ALIGNMENT, anchor=_anchor(program, name))
        for name, (first, last) in arena_tensors(program).items()
    ]
    for step, implementation in enumerate(implementations):
        buffers += [
            Buffer(scratch_name(step, i), size, step, step + 1, ALIGNMENT)
            for i, size in enumerate(implementation.scratch)
        ]
    return Problem(tuple(buffers), tuple(spaces), tuple(call.name for call in program.calls), target)


def _anchor(program: Program, name: str) -> tuple[str, int] | None:
    if name not in program.anchors:
        return None
    old, distance = program.anchors[name]
    return program.storage(old), distance


def state_layout(program: Program) -> StateLayout:
    """States one after the other, each aligned, in the order of the contract."""
    offsets, end = {}, 0
    for state in program.states:
        offsets[state.source] = end
        end += -(-program.tensors[state.source].type.bytes // ALIGNMENT) * ALIGNMENT
    return StateLayout(offsets, end)
