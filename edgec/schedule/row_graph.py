# SPDX-License-Identifier: Apache-2.0
"""Program -> what tiling sees of it: which calls go by rows, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgec.kernels.registry import Machine
from edgec.kernels.select import PREPARE, Implementation, scratch_bytes, shared_packing
from edgec.operators import TensorType, get_operator, operators
from edgec.operators.access import RowAccess
from edgec.operators.integer import product
from edgec.program import Call, Program
from edgec.schedule.overlap import safe_distances
from edgec.schedule.rows import GROUP, RowGraph, Scratch, Work

# Estimates of instructions for choosing between schedules; `edgec bench operators` measures.
_PER_MAC = {"attention_s8": 1.22}
_PER_MAC_ELSE = 0.82
_PER_ELEMENT = {"softmax_s8": 12, "layer_norm_s8": 11, "rms_norm_s8": 11, "add_s8": 4, "table_s8": 3, "mul_s8": 6}
_PER_ELEMENT_ELSE = 2
_PER_PACKED_ELEMENT = 1.1
"""For each element that a dense kernel widens before it multiplies."""


def row_accesses(program: Program, call: Call) -> tuple[RowAccess | None, ...]:
    """The rows of each operand that rows of a call's result need, in the order of its inputs; None for all."""
    if call.op not in operators():  # packs for a kernel, or only TVM knows it: a barrier
        return (None,) * len(call.inputs)
    types = [program.tensors[n].type for n in program.operands(call)]
    found = get_operator(call.op).rows_read(types, **call.attrs)
    if len(found) > 1 and any(access is not None and not access.rowwise for access in found):
        return (None,) * len(found)  # on some rows of one operand it would need a window of another
    return tuple(access if access is not None and access.rowwise else None for access in found)


def row_graph(program: Program, implementations: Sequence[Implementation], machine: Machine) -> RowGraph:
    """The operators by rows of a program whose kernels are selected."""
    values = {
        program.storage(n)
        for call in program.calls
        for n in (*call.inputs, *call.outputs)
        if program.tensors[program.root(n)].data is None
    }
    sizes = {n: program.tensors[n].type.bytes for n in program.tensors if n in values}
    given = {program.storage(p.tensor) for p in program.outputs}
    works = [
        _work(program, step, implementation, values, machine) for step, implementation in enumerate(implementations)
    ]
    return RowGraph(tuple(works), sizes, frozenset(given & values))


def _work(program: Program, step: int, implementation: Implementation, values: set[str], machine: Machine) -> Work:
    call = program.calls[step]
    accesses = row_accesses(program, call)
    rows: list[str] = []
    whole: list[str] = []
    for name, access in zip(call.inputs, accesses, strict=True):
        value = program.storage(name)
        if value in values:
            (whole if access is None else rows).append(value)
    out = program.tensors[call.outputs[0]].type
    weights = sum(p.values.nbytes for p in implementation.constants.values())
    scratch = _scratch(program, call, implementation, machine)
    behind = _windows(program, call, implementation) if not rows else {}
    unit = next((a.out_elements for a in accesses if a is not None), product(out.shape))
    if behind:
        unit = product(out.shape[1:])
    cut = [out, *(program.tensors[n].type for n, a in zip(program.operands(call), accesses, strict=True) if a)]
    written = program.storage(call.outputs[0])
    widened = product(program.tensors[call.inputs[0]].type.shape) if scratch.per_row else 0
    return Work(
        call.name,
        tuple(dict.fromkeys(v for v in rows if v not in whole)),
        tuple(dict.fromkeys(whole)),
        written,
        math.gcd(product(out.shape) // max(unit, 1), *(leading(t.shape) for t in cut)),
        _instructions(call, out, widened),
        0 if 2 * weights <= machine.data_cache else weights,
        scratch,
        _over(program, call, implementation, values),
        cheap=call.macs == 0 and call.op != PREPARE,
        step=step,
        packs=_packs(program, call, implementation, machine, rows) if scratch.per_row else None,
        packing=int(widened * _PER_PACKED_ELEMENT),
        vectors=product(out.shape[:-1]),
        behind=tuple(behind.items()),
    )


def leading(shape: Sequence[int]) -> int:
    """Length of the axis that blocks cut: the first that is longer than 1."""
    return next((n for n in shape if n > 1), 1)


def _windows(program: Program, call: Call, implementation: Implementation) -> dict[str, int]:
    """Values of which a kernel that makes any rows reads a window, with the bytes that it reaches back."""
    if not implementation.any_rows:
        return {}
    types = [program.tensors[n].type for n in program.operands(call)]
    out = program.tensors[call.outputs[0]].type
    found = {}
    for name, kind, access in zip(
        call.inputs, types, get_operator(call.op).rows_read(types, **call.attrs), strict=True
    ):
        value = program.storage(name)
        if program.tensors[program.root(name)].data is not None:
            continue
        moves = access is not None and access.per == 1 and access.out_elements == product(out.shape[1:])
        if access is None or not moves or access.stride * access.in_elements * out.shape[0] > product(kind.shape):
            return {}
        found[value] = max(0, access.before) * access.in_elements
    return found


def _scratch(program: Program, call: Call, implementation: Implementation, machine: Machine) -> Scratch:
    """What a call takes for any number of rows, and for each that it packs at a time."""
    one, two = (scratch_bytes(program, call, implementation, machine, panel) for panel in (GROUP, 2 * GROUP))
    per_row = (two - one) // GROUP
    return Scratch(one - GROUP * per_row, per_row)


def _packs(
    program: Program, call: Call, implementation: Implementation, machine: Machine, rows: Sequence[str]
) -> tuple[str, int] | None:
    """What the kernel packs row by row: all of a value that it reads for nothing else."""
    prepared = shared_packing(program, call, implementation, machine) if call.op in operators() else None
    if prepared is None:
        return None
    name = call.inputs[get_operator(call.op).inputs.index(prepared.role)]
    value, kind = program.storage(name), program.tensors[name].type
    whole = value == program.root(name) and kind.bytes == program.tensors[value].type.bytes
    return (value, kind.shape[-1]) if whole and rows.count(value) == 1 else None


def _over(
    program: Program, call: Call, implementation: Implementation, values: set[str]
) -> tuple[tuple[str, int], ...]:
    """Values that the result may take the bytes of, with the distances."""
    if call.op != PREPARE and call.op not in operators():
        return ()
    found = safe_distances(program, call, implementation)
    return tuple((program.storage(root), d) for root, d in found.items() if program.storage(root) in values)


def _instructions(call: Call, out: TensorType, widened: int) -> int:
    work = call.macs * _PER_MAC.get(call.op, _PER_MAC_ELSE) + widened * _PER_PACKED_ELEMENT
    return int(work + product(out.shape) * _PER_ELEMENT.get(call.op, _PER_ELEMENT_ELSE))
