# SPDX-License-Identifier: Apache-2.0
"""How closely an output may follow its dying input: the smallest safe distance `input - output` of their addresses.

An operator that has read a part of its input for the last time may write over it. With the output `distance` bytes
before the input, both together take `span` bytes instead of their sum. The distance follows from the order in which
the code that runs reads and writes: that of the PrimFunc for generated code (`Operator.read_order`), blocks of rows
for a hand-written kernel that says so (`HandKernel.overlap_block_rows`), nothing for one that does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from edgec.kernels.registry import Call as KernelCall
from edgec.kernels.registry import kernel_named
from edgec.kernels.select import PREPARE, Implementation
from edgec.operators import TensorType, get_operator
from edgec.operators.access import Access
from edgec.program import Call, Program

_BYTES = ("int8", "uint8")


def span(distance: int, in_bytes: int, out_bytes: int) -> int:
    """Bytes that an input `distance` bytes behind its output takes together with it."""
    return max(out_bytes, distance + in_bytes) - min(0, distance)


def safe_distance(
    op: str,
    types: Sequence[TensorType],
    attrs: Mapping[str, Any],
    position: int,
    implementation: Implementation,
    turn: int = 0,
) -> int | None:
    """Bytes by which the input at `position`, read for the last time, must begin behind the output, at least.

    0 is in place. From a positive distance on every larger one is safe as well, so it may be rounded up to any
    alignment. The other inputs must not share bytes with the output.

    Args:
        op: the operator.
        types: of its inputs, as the record declares them (not of what a kernel reads packed instead).
        attrs: its attributes.
        position: of the input among them.
        implementation: the code that runs.
        turn: rows (of the output's last axis) of each call when the operator runs in a loop over blocks of rows, the
            last of which may be smaller; 0 when it is one call. Types and distance are those of the whole.

    Returns:
        None when nothing is known, or only that the output cannot begin before the input's end.
    """
    key = tuple(sorted((name, tuple(v) if isinstance(v, (list, tuple)) else v) for name, v in attrs.items()))
    rows: int | None = 0
    late = False
    if implementation.kind == "hand":
        kernel = kernel_named(implementation.kernel)
        if kernel is None:
            return None
        view = KernelCall(dict(zip(get_operator(op).inputs, types, strict=True)), {}, attrs)
        rows, late = kernel.overlap_block_rows(view), kernel.overlap_reads_late(view)
        if rows and turn % rows:  # its own blocks begin anew with each turn
            rows, late = (None, False) if late else (1, False)
    return _distance(op, tuple(types), key, position, rows, late)


@lru_cache(8192)
def _distance(
    op: str,
    types: tuple[TensorType, ...],
    attrs: tuple[tuple[str, Any], ...],
    position: int,
    rows: int | None,
    late: bool,
) -> int | None:
    record, given = get_operator(op), dict(attrs)
    source, result = types[position], record.infer(types, **given)
    # Only bytes may be written in place of numbers of another type, says C.
    if record.inputs[position] in record.constants or (
        source.dtype != result.dtype and source.dtype not in _BYTES and result.dtype not in _BYTES
    ):
        return None
    if rows is None:
        alike = source == result and (position == 0 or record.access is Access.ELEMENTWISE)
        return 0 if alike and record.access.in_place else None
    order = record.read_order(types, **given)[position]
    if order is None:
        return None
    if rows:
        size = rows * max(order.elements, result.shape[-1])
        order = order.in_late_blocks(size) if late else order.in_blocks(size)
    distance = max(0, order.distance(np.dtype(source.dtype).itemsize, np.dtype(result.dtype).itemsize))
    return distance if distance < result.bytes else None


def safe_distances(program: Program, call: Call, implementation: Implementation, turn: int = 0) -> dict[str, int]:
    """The distance for each tensor that the call may write over, by the name that owns the bytes; `turn` as above.

    Whether a tensor dies there is for the caller to know. One that the call reads twice has the larger distance.
    Distances are between the bytes that the call reads and writes, wherever these lie in what owns them.
    """
    if call.op == PREPARE:
        return {program.root(call.inputs[0]): 0} if implementation.in_place else {}
    operands = program.operands(call)
    types = [program.tensors[name].type for name in operands]
    found: dict[str, int | None] = {}
    for position, name in enumerate(call.inputs):
        root = program.root(name)
        if program.tensors[root].data is not None:
            continue
        # Packed bytes are not the operator's input: nothing is known of when they are read.
        packed = operands[position] != name
        distance = None if packed else safe_distance(call.op, types, call.attrs, position, implementation, turn)
        before = found.get(root, 0)
        found[root] = None if distance is None or before is None else max(distance, before)
    return {root: distance for root, distance in found.items() if distance is not None}
