# SPDX-License-Identifier: Apache-2.0
"""Many whole programs as one: placed, emitted, compiled and run together on this machine, each with its own inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from edgec.build import build
from edgec.device.runner import open_runner
from edgec.emit.model import Built
from edgec.kernels.select import select_kernels
from edgec.model import Model
from edgec.program import Call, Port, Program, Tensor
from edgec.schedule.memories import place_in_memories
from edgec.target import load_target

Arrays = Mapping[str, np.ndarray]


def run_together(work: Sequence[tuple[Program, Arrays]], folder: Path) -> list[dict[str, np.ndarray]]:
    """One run of each program on its inputs (by name, ONNX layout): its outputs by name."""
    merged = Program("cases", {}, [], [], [], [])
    feeds: list[bytes] = []
    for number, (program, given) in enumerate(work):
        _append(merged, program, f"{number}.")
        for port in program.inputs:
            array = np.asarray(given[port.name], program.tensors[port.tensor].type.dtype)
            feeds.append(np.ascontiguousarray(array.transpose(port.layout) if port.layout else array).tobytes())
    target = load_target("host-c")
    implementations = select_kernels(merged, target.cpu.features, "tvm")
    plan, state, weights = place_in_memories(merged, implementations, target)
    built = Built(merged, implementations, plan, state, target, weights)
    folder.mkdir(parents=True)
    build(built, Model(onnx.ModelProto(), merged.name, "0" * 64), folder)
    with open_runner(folder, "host-c", target, symbol=f"{built.prefix}_run") as runner:
        results = iter(runner.run(feeds))
    return [
        {
            p.name: np.frombuffer(next(results), program.tensors[p.tensor].type.dtype).reshape(p.onnx_shape)
            for p in program.outputs
        }
        for program, _ in work
    ]


def _append(merged: Program, program: Program, prefix: str) -> None:
    """Everything of `program` under names of its own."""

    def ports(given: Sequence[Port]) -> list[Port]:
        return [dataclasses.replace(p, name=prefix + p.name, tensor=prefix + p.tensor) for p in given]

    for t in program.tensors.values():
        view = None if t.view_of is None else prefix + t.view_of
        merged.tensors[prefix + t.name] = Tensor(prefix + t.name, t.type, t.data, view)
    for call in program.calls:
        operands = tuple(prefix + n for n in call.inputs), tuple(prefix + n for n in call.outputs)
        function = f"f{prefix}{call.function}".replace(".", "_")
        merged.calls.append(Call(prefix + call.name, call.op, function, *operands, call.attrs))
    for f in program.functions.values():
        name = f"f{prefix}{f.name}".replace(".", "_")
        merged.functions[name] = dataclasses.replace(f, name=name)
    merged.inputs += ports(program.inputs)
    merged.outputs += ports(program.outputs)
