# SPDX-License-Identifier: Apache-2.0
"""The Program: ordered calls over named tensors, what TVM's import and fusion leave and the scheduler places.

A tensor that merely renames bytes of another (a reshape, a block of rows) is a view; everything that concerns memory
looks at `Program.storage`. State tensors are inputs whose bytes persist; the call that makes their successor writes
there. A scheduled program has loops: stretches of calls that run once for each block of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.integer import product
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
        offset: bytes from the start of `view_of`.
        step: bytes by which the view moves on with each turn of the loop that its calls are in.
    """

    name: str
    type: TensorType
    data: npt.NDArray[Any] | None = None
    view_of: str | None = None
    offset: int = 0
    step: int = 0


@dataclass(frozen=True)
class GeneratedFunction:
    """A C function that TVM generated from a PrimFunc.

    Attributes:
        name: its symbol, without the model's prefix.
        parameters: (C element type, parameter name, whether only read) of each pointer, workspaces last.
        body: the C text between the braces, braces included.
        workspaces: bytes of each workspace parameter, from the allocations in the PrimFunc.
        in_place: indices of the inputs that its result may replace, where the code shows it.
        constants: names of the parameters that point to constants, which nobody writes.
    """

    name: str
    parameters: tuple[tuple[str, str, bool], ...]
    body: str
    workspaces: tuple[int, ...] = ()
    in_place: tuple[int, ...] = ()
    constants: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RowRange:
    """Some rows of a result, along its leading axis: the first of them, and by how many it moves on with each turn."""

    first: int
    step: int = 0


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
        rows: where the output begins in the operator's whole result, of which it holds as many rows as it has; None
            when it is the whole.
    """

    name: str
    op: str
    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    macs: int = 0
    rows: RowRange | None = None


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


@dataclass(frozen=True)
class Loop:
    """The calls `[first, last)` run `count` times, over blocks of rows; `note` says of what, for people."""

    first: int
    last: int
    count: int
    note: str = ""


@dataclass(frozen=True)
class Feed:
    """An input that never exists whole: it comes by rows, and whenever a strip of them is complete, a turn runs.

    Attributes:
        tensor: the input's.
        strip: tensor that holds the rows of a turn.
        rows: rows of the whole input, along its leading axis that is longer than 1.
        loop: the calls of a turn, which are the program's first.
    """

    tensor: str
    strip: str
    rows: int
    loop: Loop

    @property
    def rows_per_turn(self) -> int:
        """Rows of a strip."""
        return self.rows // self.loop.count


@dataclass
class Program:
    """Calls in the order in which they run, and all that they touch.

    Attributes:
        macs: multiply-accumulates of one run.
        loops: stretches of calls that repeat; they neither nest nor overlap, and are in order.
        in_place: tensors that take the bytes of another one, which dies: name of the new -> name of the old.
        anchors: tensors that begin inside another one, which dies: name of the new -> name of the old, bytes from its
            beginning (negative: before it).
        packed: tensors that hold another one in the layout that a kernel reads: name of the packed -> of the other.
        feed: the input that comes by rows, if one does.
        float_nodes: names of the nodes of a quantized model that compute in float32.
    """

    name: str
    tensors: dict[str, Tensor]
    calls: list[Call]
    inputs: list[Port]
    outputs: list[Port]
    states: list[State]
    functions: dict[str, GeneratedFunction] = field(default_factory=dict)
    macs: int = 0
    loops: list[Loop] = field(default_factory=list)
    in_place: dict[str, str] = field(default_factory=dict)
    anchors: dict[str, tuple[str, int]] = field(default_factory=dict)
    packed: dict[str, str] = field(default_factory=dict)
    feed: Feed | None = None
    float_nodes: tuple[str, ...] = ()

    def root(self, name: str) -> str:
        """Name of the tensor that owns the bytes of `name`."""
        while (parent := self.tensors[name].view_of) is not None:
            name = parent
        return name

    def storage(self, name: str) -> str:
        """Like `root`, but what is written in place of another tensor, or of a state, is that one."""
        root = self.root(name)
        while (old := self.in_place.get(root)) is not None:
            root = self.root(old)
        for state in self.states:
            if state.in_place and self.root(state.result) == root:
                return self.root(state.source)
        return root

    def operands(self, call: Call) -> tuple[str, ...]:
        """The inputs of a call as its operator has them: what is packed for a kernel is the tensor that it holds."""
        return tuple(self.packed.get(name, name) for name in call.inputs)

    def window(self, name: str) -> tuple[int, int]:
        """Bytes from the start of its root at which a view lies, and by which it moves on with each turn."""
        views = [self.tensors[n] for n in _views(self, name)]
        return sum(t.offset for t in views), sum(t.step for t in views)

    def loop_at(self, step: int) -> Loop | None:
        """The loop that the call at `step` is in."""
        return next((loop for loop in self.loops if loop.first <= step < loop.last), None)

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

    Inputs live from step 0, outputs to the end: the caller reads them after the run. Of an input that is fed by rows
    only the strip lives, anew in every turn; all that outlives a turn is there from the first row on.
    """
    end = len(program.calls)
    persistent = {program.root(s.source) for s in program.states}
    first: dict[str, int] = {}
    last: dict[str, int] = {}

    def touch(name: str, step: int, stop: int) -> None:
        root = program.storage(name)
        if program.tensors[root].data is None and root not in persistent:
            first[root] = min(first.get(root, step), step)
            last[root] = max(last.get(root, stop), stop)

    for port in program.inputs:
        touch(port.tensor if program.feed is None else program.feed.strip, 0, 1)
    for step, call in enumerate(program.calls):
        for name in (*call.inputs, *call.outputs):
            touch(name, step, step + 1)
    for port in program.outputs:
        root = program.storage(port.tensor)
        if root in last:
            last[root] = max(end, last[root])
        else:
            touch(port.tensor, max(end - 1, 0), end)
    for loop in program.loops:
        for root in _kept_through(program, loop, first, last):
            touch(root, loop.first, loop.last)
    return {name: (first[name], last[name]) for name in first}


def _kept_through(program: Program, loop: Loop, first: Mapping[str, int], last: Mapping[str, int]) -> set[str]:
    """Storage that outlives one turn of `loop`: touched outside of it, block by block, or read before it is written."""
    kept: set[str] = set()
    written = {program.feed.strip} if program.feed is not None and program.feed.loop == loop else set()
    for call in program.calls[loop.first : loop.last]:
        for name in (*call.inputs, *call.outputs):
            root = program.storage(name)
            if root not in first:
                continue
            moves = program.window(name)[1] != 0
            outside = first[root] < loop.first or last[root] > loop.last
            if moves or outside or (name in call.inputs and root not in written):
                kept.add(root)
        written |= {program.storage(name) for name in call.outputs}
    return kept


def _views(program: Program, name: str) -> list[str]:
    """`name` and what it is a view of, down to the root."""
    chain = [name]
    while (parent := program.tensors[chain[-1]].view_of) is not None:
        chain.append(parent)
    return chain


def result_of(program: Program, call: Call, inputs: Sequence[npt.NDArray[Any]], turn: int) -> npt.NDArray[Any]:
    """What a call makes of its operator's inputs in one turn of its loop, by the operator's definition."""
    from edgec.operators import get_operator

    result = get_operator(call.op).run(inputs, call.attrs)
    if call.rows is None:
        return result
    first = call.rows.first + turn * call.rows.step
    return result[first : first + program.tensors[call.outputs[0]].type.shape[0]]


def evaluate(program: Program, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Run an integer program with the operators' NumPy definitions (the oracle).

    Args:
        program: every call must be an operator with a record, or pack for a kernel (which changes no value).
        values: arrays by tensor name for inputs and states, in device layout.

    Returns:
        Arrays by tensor name, for every tensor.
    """
    # The elements of every root, flat.
    env: dict[str, npt.NDArray[Any]] = {n: t.data.ravel() for n, t in program.tensors.items() if t.data is not None}

    def elements(name: str, turn: int) -> npt.NDArray[Any]:
        """The elements of a tensor, flat: a window into its root's."""
        tensor, root = program.tensors[name], program.root(name)
        offset, step = program.window(name)
        start = offset + turn * step
        if root not in env:
            raise KeyError(f"tensor {root} is read before it is written")
        size = np.dtype(tensor.type.dtype).itemsize
        data = env[root] if env[root].dtype == tensor.type.dtype else env[root].view(tensor.type.dtype)
        return data[start // size : start // size + product(tensor.type.shape)]

    def run(call: Call, turn: int) -> None:
        if call.outputs[0] in program.packed:
            return
        inputs = [elements(n, turn).reshape(program.tensors[n].type.shape) for n in program.operands(call)]
        kind = program.tensors[root := program.root(call.outputs[0])].type
        env.setdefault(root, np.zeros(product(kind.shape), kind.dtype))
        elements(call.outputs[0], turn)[:] = result_of(program, call, inputs, turn).ravel()

    for name, array in values.items():
        env[name] = np.array(array, program.tensors[name].type.dtype).ravel()
    step = 0
    while step < len(program.calls):
        loop = program.loop_at(step) or Loop(step, step + 1, 1)
        for turn in range(loop.count):
            if program.feed is not None and program.feed.loop == loop:
                env[program.feed.strip] = np.split(env[program.feed.tensor], loop.count)[turn]
            for call in program.calls[loop.first : loop.last]:
                run(call, turn)
        step = loop.last
    known = [name for name in program.tensors if program.root(name) in env]
    return {name: elements(name, 0).reshape(program.tensors[name].type.shape) for name in known}
