# SPDX-License-Identifier: Apache-2.0
"""The Program: ordered calls over named tensors, what TVM's import and fusion leave and the scheduler places.

A tensor that merely renames bytes of another (a reshape) is a view; everything that concerns memory looks at
`Program.root`. State tensors are inputs whose bytes persist; the call that makes their successor writes there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.record import TensorType

C_TYPES = {
    "int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "uint16": "uint16_t", "int32": "int32_t",
    "uint32": "uint32_t", "int64": "int64_t", "float32": "float", "bool": "bool",
}  # fmt: skip
"""C element type of every tensor type that a program may hold."""


@dataclass(frozen=True)
class Quantization:
    """`real = scale * (q - zero_point)` of a tensor at the program's border; None of it for float32."""

    scale: float
    zero_point: int


@dataclass
class Tensor:
    """One value of the program.

    Attributes:
        name: its name in the model.
        type: static shape and dtype.
        data: the values of a constant, else None.
        view_of: name of the tensor whose bytes these are, else None.
    """

    name: str
    type: TensorType
    data: npt.NDArray[Any] | None = None
    view_of: str | None = None


@dataclass(frozen=True)
class GeneratedFunction:
    """A C function that TVM generated from a PrimFunc.

    Attributes:
        name: its symbol, without the model's prefix.
        parameters: (C element type, parameter name, whether only read) of each pointer, workspaces last.
        body: the C text between the braces, braces included.
        workspaces: bytes of each workspace parameter, from the allocations in the PrimFunc.
    """

    name: str
    parameters: tuple[tuple[str, str, bool], ...]
    body: str
    workspaces: tuple[int, ...] = ()


@dataclass
class Call:
    """One step of the program.

    Attributes:
        name: the ONNX node (or nodes, joined by "+") it computes, for people.
        op: the operator record's name, or the PrimFunc's for what only TVM knows.
        function: name of the generated function.
        inputs, outputs: tensor names in call order.
        attrs: structural attributes of the operator.
        macs: multiply-accumulates.
    """

    name: str
    op: str
    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    macs: int = 0


@dataclass(frozen=True)
class Port:
    """An input or output of the model as its user meets it.

    Attributes:
        name: name in the model.
        tensor: the program's tensor.
        onnx_shape: shape in the ONNX model, batch included.
        layout: permutation from the ONNX axes to the device's, () when they are the same.
        quantization: None for float32.
    """

    name: str
    tensor: str
    onnx_shape: tuple[int, ...]
    layout: tuple[int, ...] = ()
    quantization: Quantization | None = None


@dataclass(frozen=True)
class State:
    """A tensor that persists between runs: `source` is what a run reads, `result` the tensor that replaces it.

    Attributes:
        name, output: names of the state's input and output in the model.
        reset: the element value, in the tensor's own integers or floats, that `reset` writes.
        in_place: whether the last call writes the state's own bytes; else a copy ends the run.
    """

    name: str
    output: str
    source: str
    result: str
    reset: float
    quantization: Quantization | None = None
    in_place: bool = True


@dataclass
class Program:
    """Calls in the order in which they run, and all that they touch; `macs` is the work of one run."""

    name: str
    tensors: dict[str, Tensor]
    calls: list[Call]
    inputs: list[Port]
    outputs: list[Port]
    states: list[State]
    functions: dict[str, GeneratedFunction] = field(default_factory=dict)
    macs: int = 0

    def root(self, name: str) -> str:
        """Name of the tensor that owns the bytes of `name`."""
        while (parent := self.tensors[name].view_of) is not None:
            name = parent
        return name

    def storage(self, name: str) -> str:
        """Like `root`, but a state's successor that is written in place is the state itself."""
        root = self.root(name)
        for state in self.states:
            if state.in_place and self.root(state.result) == root:
                return self.root(state.source)
        return root

    def constants(self) -> list[Tensor]:
        """Constants that some call reads, in the order of first use."""
        seen: dict[str, Tensor] = {}
        for call in self.calls:
            for name in call.inputs:
                tensor = self.tensors[self.root(name)]
                if tensor.data is not None:
                    seen.setdefault(tensor.name, tensor)
        return list(seen.values())


def live_ranges(program: Program) -> dict[str, tuple[int, int]]:
    """Half-open live range `[first, last)` in steps of every arena tensor (neither constant nor state).

    Inputs live from step 0, outputs to the end: the caller reads them after the run.
    """
    end = len(program.calls)
    persistent = {program.root(s.source) for s in program.states}
    first: dict[str, int] = {}
    last: dict[str, int] = {}

    def touch(name: str, step: int) -> None:
        root = program.storage(name)
        if program.tensors[root].data is None and root not in persistent:
            first[root] = min(first.get(root, step), step)
            last[root] = max(last.get(root, step + 1), step + 1)

    for port in program.inputs:
        touch(port.tensor, 0)
    for step, call in enumerate(program.calls):
        for name in (*call.inputs, *call.outputs):
            touch(name, step)
    for port in program.outputs:
        root = program.storage(port.tensor)
        if root in last:
            last[root] = max(end, last[root])
        else:
            touch(port.tensor, max(end - 1, 0))
    return {name: (first[name], last[name]) for name in first}


def evaluate(program: Program, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Run an integer program with the operators' NumPy definitions (the oracle).

    Args:
        program: every call must be an operator with a record.
        values: arrays by tensor name for inputs and states, in device layout.

    Returns:
        Arrays by tensor name, for every tensor.
    """
    from edgec.operators import get_operator

    env: dict[str, npt.NDArray[Any]] = {n: t.data for n, t in program.tensors.items() if t.data is not None}
    env.update({name: np.asarray(array) for name, array in values.items()})

    def value(name: str) -> npt.NDArray[Any]:
        if name not in env:
            tensor = program.tensors[name]
            if tensor.view_of is None:
                raise KeyError(f"tensor {name} is read before it is written")
            env[name] = value(tensor.view_of).reshape(tensor.type.shape)
        return env[name]

    for call in program.calls:
        env[call.outputs[0]] = get_operator(call.op).run([value(n) for n in call.inputs], call.attrs)
    return {name: value(name) for name in program.tensors}
