# SPDX-License-Identifier: Apache-2.0
"""Many cases of operators as one program: built by the project's own road, run with raw bytes or call by call."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgec.build import build
from edgec.device.runner import HOST_LIBRARY, open_runner
from edgec.emit.model import Built
from edgec.kernels.select import PREPARE, Implementation, select_kernels
from edgec.model import Model
from edgec.operators import Case, Operator, TensorType, get_operator
from edgec.program import Call, Port, Program, Tensor
from edgec.schedule.memories import place_in_memories
from edgec.target import Target
from edgec.tvm_bridge.codegen_c import generate
from edgec.tvm_bridge.kernels import function_name, primfunc

Work = Sequence[tuple[Operator, Case]]
_PRIMFUNCS: dict[str, Any] = {}


def _primfuncs(work: Work) -> dict[str, Any]:
    """The PrimFunc of every case by name; each is made once in a test session."""
    names = []
    for op, case in work:
        names.append(function_name(op, case.types, case.attrs))
        if names[-1] not in _PRIMFUNCS:
            _PRIMFUNCS[names[-1]] = primfunc(op, case.types, case.attrs)
    return {name: _PRIMFUNCS[name] for name in names}


class Batch:
    """A program with one call for each case: activations are its inputs, results its outputs, constants baked in."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.values: dict[str, np.ndarray] = {}
        self.program = Program("cases", {}, [], [], [], [])
        for i, (op, case) in enumerate(work):
            function = function_name(op, case.types, case.attrs)
            names = tuple(f"{i}.{role}" for role in op.inputs)
            for role, name, array in zip(op.inputs, names, case.inputs, strict=True):
                constant = role in op.constants
                self.program.tensors[name] = Tensor(name, TensorType.of(array), array if constant else None)
                if not constant:
                    self.values[name] = array
                    self.program.inputs.append(Port(name, name, array.shape))
            self._output(f"{i}.y", op.infer(case.types, **case.attrs))
            self.program.calls.append(Call(f"{i}", op.name, function, names, (f"{i}.y",), case.attrs))
        self.program.functions = generate(_primfuncs(work))

    def _output(self, name: str, kind: TensorType) -> None:
        self.program.tensors[name] = Tensor(name, kind)
        self.program.outputs.append(Port(name, name, kind.shape))

    def implementations(self, features: AbstractSet[str]) -> list[Implementation]:
        """`--kernels auto` for the call of each case; a call that a hand-written kernel takes is appended again.

        The copy writes an output of its own, `<case>.tvm`, and is built as with `--kernels tvm`.
        """
        auto = select_kernels(self.program, features, "auto")
        twins = Program("twins", self.program.tensors, [], [], [], [], self.program.functions)
        for call, implementation in zip(tuple(self.program.calls), auto, strict=True):
            if implementation.kind == "hand" and call.op != PREPARE:
                given = tuple(f"{call.name}.{role}" for role in get_operator(call.op).inputs)  # and nothing prepared
                again = f"{call.name}.tvm"
                self._output(again, self.program.tensors[call.outputs[0]].type)
                twins.calls.append(Call(again, call.op, call.function, given, (again,), call.attrs))
        self.program.calls += twins.calls
        return [*auto, *select_kernels(twins, features, "tvm")]


def build_batch(batch: Batch, implementations: Sequence[Implementation], target: Target, folder: Path) -> Built:
    """Place, emit, compile and link into `folder`."""
    plan, state, weights = place_in_memories(batch.program, implementations, target)
    built = Built(batch.program, implementations, plan, state, target, weights)
    folder.mkdir(parents=True, exist_ok=True)
    build(built, Model(onnx.ModelProto(), batch.program.name, "0" * 64), folder)
    return built


def run_batch(batch: Batch, built: Built, folder: Path) -> dict[str, np.ndarray]:
    """One run of the built program on the cases' inputs: every output by name."""
    kind = "sim" if built.target.ram_spans() else "host-c"
    program = built.program
    with open_runner(folder, kind, built.target, symbol=f"{built.prefix}_run") as runner:
        results = runner.run([batch.values[p.tensor].tobytes() for p in program.inputs])
    return {
        port.name: np.frombuffer(result, program.tensors[port.tensor].type.dtype).reshape(port.onnx_shape)
        for port, result in zip(program.outputs, results, strict=True)
    }


class HostFunctions:
    """The functions of a host library one by one, on memory that the caller lays out."""

    def __init__(self, built: Built, folder: Path) -> None:
        self._built = built
        self._library = ctypes.CDLL(str(folder / HOST_LIBRARY))

    def call(self, step: int, places: Mapping[str, int]) -> None:
        """The call at `step`, with the addresses of its tensors (constants and scratch are made here)."""
        implementation = self._built.implementations[step]
        generated = implementation.kind == "tvm"
        name = f"{self._built.prefix}_{implementation.function}" if generated else implementation.function
        keep, arguments = [], []
        for argument in implementation.arguments:
            if isinstance(argument, int):
                arguments.append(ctypes.c_int32(argument))
            elif argument in implementation.constants or argument.startswith("scratch "):
                packed = implementation.constants.get(argument)
                size = 0 if packed else implementation.scratch[int(argument.split()[1])]
                keep.append(np.ascontiguousarray(packed.values) if packed else np.zeros(size // 4 + 1, np.int32))
                arguments.append(ctypes.c_void_p(keep[-1].ctypes.data))
            elif argument not in places:  # a prepared input: by its own step, into memory of its own
                packer = next(i for i, c in enumerate(self._built.program.calls) if argument in c.outputs)
                keep.append(np.zeros(self._built.program.tensors[argument].type.bytes // 4, np.int32))
                address = keep[-1].ctypes.data
                self.call(packer, {**places, argument: address})
                arguments.append(ctypes.c_void_p(address))
            else:
                arguments.append(ctypes.c_void_p(places[argument]))
        function = getattr(self._library, name)
        function.restype = None
        function(*arguments)
