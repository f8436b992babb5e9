# SPDX-License-Identifier: Apache-2.0
"""Elementwise parts of a fused PrimFunc move into the loops that read them; TVM leaves a loop and an array for each.

The same operations on the same values: no bit changes.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir, tirx
from tvm.ir import Call, TensorLoad
from tvm_ffi.structural import structural_walk

_DATA_PARALLEL = 0


def inlined(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """The function without the arrays that one loop fills and one other reads, element by element."""
    schedule = s_tir.Schedule(function)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    for block in blocks:
        if not _computes_once(schedule, block):
            continue
        try:
            schedule.compute_inline(block)
        except s_tir.ScheduleError:  # an output, or in another form than TVM takes
            continue
    return schedule.mod["main"]


def _computes_once(schedule: s_tir.Schedule, block: Any) -> bool:
    """Whether, written where it is read, the block computes nothing more often than now."""
    consumers = schedule.get_consumers(block)
    own = schedule.get(block)
    parallel = all(int(v.iter_type) == _DATA_PARALLEL for v in own.iter_vars)
    if len(consumers) != 1 or not parallel or len(own.writes) != 1 or not isinstance(own.body, tirx.BufferStore):
        return False
    if isinstance(own.body.value, TensorLoad):
        return True
    consumer = schedule.get(consumers[0])
    once = not _calls(own.body) or _reads(consumer.body, own.body.buffer) == 1
    return _turns(consumer) == _turns(own) and once


def _turns(block: s_tir.SBlock) -> int:
    return math.prod(int(v.dom.extent) for v in block.iter_vars)


def _calls(body: tirx.Stmt) -> int:
    found: list[Call] = []
    structural_walk(body, (Call, found.append))
    return len(found)


def _reads(body: tirx.Stmt, buffer: tirx.Buffer) -> int:
    found: list[TensorLoad] = []
    structural_walk(body, (TensorLoad, found.append))
    return sum(load.source.same_as(buffer) for load in found)
