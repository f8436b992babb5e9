# SPDX-License-Identifier: Apache-2.0
"""An executable model of a memory plan: the definitions on the bytes of one arena, scratch filled with noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgec.kernels.select import PREPARE, Implementation
from edgec.program import Call, Loop, Program, result_of
from edgec.schedule.from_program import scratch_name
from edgec.schedule.problem import MemoryPlan


def run_in_arena(
    program: Program, implementations: Sequence[Implementation], plan: MemoryPlan, values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Outputs by tensor name. A byte that two live tensors share, or that scratch hits, gives other results."""
    noise = np.random.default_rng(0)
    arena = {name: noise.integers(0, 256, size, np.uint8) for name, size in plan.arena_bytes_by_space.items()}

    def place(name: str, turn: int) -> np.ndarray:
        tensor = program.tensors[name]
        offset, step = program.window(name)
        start = offset + turn * step
        constant = program.tensors[program.root(name)].data
        if constant is not None:
            data = constant.ravel().view(np.uint8)
        else:
            at = plan.placements[program.storage(name)]
            data, start = arena[at.space], start + at.offset
        return data[start : start + tensor.type.bytes]

    def read(name: str, turn: int) -> np.ndarray:
        kind = program.tensors[name].type
        return place(name, turn).copy().view(kind.dtype).reshape(kind.shape)

    def run(step: int, call: Call, turn: int) -> None:
        for i, size in enumerate(implementations[step].scratch):
            at = plan.placements[scratch_name(step, i)]
            arena[at.space][at.offset : at.offset + size] = noise.integers(0, 256, size, np.uint8)
        if call.op == PREPARE:  # packing keeps the bytes: who reads them takes as many as the tensor has
            source, packed = place(call.inputs[0], turn).copy(), place(call.outputs[0], turn)
            packed[:] = np.resize(source, packed.size)
            return
        inputs = []
        for name, logical in zip(call.inputs, program.operands(call), strict=True):
            kind, data = program.tensors[logical].type, place(name, turn)
            assert name == logical or np.array_equal(data, np.resize(data[: kind.bytes], data.size)), f"{name} is hit"
            inputs.append(data[: kind.bytes].copy().view(kind.dtype).reshape(kind.shape))
        result = result_of(program, call, inputs, turn)
        place(call.outputs[0], turn)[:] = result.ravel().view(np.uint8)

    feed = program.feed
    given = {p.tensor: np.ascontiguousarray(values[p.tensor]).ravel().view(np.uint8) for p in program.inputs}
    for name, data in given.items():
        if feed is None:
            place(name, 0)[:] = data
    step = 0
    while step < len(program.calls):
        loop = program.loop_at(step) or Loop(step, step + 1, 1)
        for turn in range(loop.count):
            if feed is not None and feed.loop == loop:
                place(feed.strip, 0)[:] = np.split(given[feed.tensor], loop.count)[turn]
            for i in range(loop.first, loop.last):
                run(i, program.calls[i], turn)
        step = loop.last
    return {port.tensor: read(port.tensor, 0) for port in program.outputs}
