# SPDX-License-Identifier: Apache-2.0
"""Program = the calls that TVM left + the model's border: ports with their quantization, state bound to its bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.errors import UnsupportedError
from edgec.kernels.registry import Call as KernelCall
from edgec.kernels.registry import kernels_for
from edgec.lower.internal import INTERNAL
from edgec.lower.lower import INTERFACE_KEY
from edgec.model import Model, float_node_names
from edgec.operators import TensorType, get_operator
from edgec.operators.integer import quantize_to
from edgec.passes.layout import layouts
from edgec.program import Call, Port, Program, Quantization, State, Tensor, live_ranges

if TYPE_CHECKING:
    from edgec.tvm_bridge.pipeline import Lowered


def assemble(model: Model, lowered: Lowered, *, original: Model, macs: int) -> Program:
    """The program of a lowered (or float, layout-changed) model.

    Args:
        model: what went through TVM.
        lowered: what came out.
        original: the model as its user knows it, for names and ONNX shapes.
        macs: multiply-accumulates of one run.
    """
    border = _border(model)
    perms = layouts(model)
    proto = model.proto.graph
    by_output = dict(zip([o.name for o in proto.output], lowered.outputs, strict=True))

    def port(name: str, shape: tuple[int, ...], tensor: str) -> Port:
        quant = border.get(name)
        return Port(name, tensor, shape, perms.get(name, ()), _quantization(quant))

    inputs = [port(i.name, i.shape, i.name) for i in original.inputs]
    outputs = [port(o.name, o.shape, by_output[_tensor(border, o.name)]) for o in original.outputs]
    states = []
    for pair in original.states:
        quant = _quantization(border.get(pair.input))
        reset = pair.reset
        if quant is not None:
            reset = int(quantize_to(lowered.tensors[pair.input].type.dtype, reset, quant.scale, quant.zero_point))
        result = by_output[_tensor(border, pair.output)]
        states.append(State(pair.input, pair.output, pair.input, result, reset, quant))
    for entry in _interface(model).get(INTERNAL, []):  # cursors of rings: no names in the model
        name, result = str(entry["name"]), by_output[str(entry["tensor"])]
        states.append(State(name, result, name, result, float(entry["reset"])))
    program = Program(
        original.name, lowered.tensors, lowered.calls, inputs, outputs, states, dict(lowered.functions), macs
    )
    if border:
        program.float_nodes = float_node_names(model.proto)
    _bind_states(program)
    _name_calls_apart(program)
    return program


def _name_calls_apart(program: Program) -> None:
    """One node may become several calls: each gets a name of its own, which reports and the manifest key by."""
    taken: set[str] = set()
    for call in program.calls:
        name, n = call.name, 2
        while call.name in taken:
            call.name, n = f"{name}.{n}", n + 1
        taken.add(call.name)


def _interface(model: Model) -> dict[str, list[dict[str, Any]]]:
    text = next((p.value for p in model.proto.metadata_props if p.key == INTERFACE_KEY), None)
    loaded: dict[str, list[dict[str, Any]]] = {} if text is None else json.loads(text)
    return loaded


def _border(model: Model) -> dict[str, dict[str, Any]]:
    interface = _interface(model)
    return {entry["name"]: entry for entry in (*interface.get("inputs", []), *interface.get("outputs", []))}


def _quantization(entry: dict[str, Any] | None) -> Quantization | None:
    return (
        None if entry is None or "scale" not in entry else Quantization(float(entry["scale"]), int(entry["zero_point"]))
    )


def _tensor(border: dict[str, dict[str, Any]], name: str) -> str:
    return str(border[name]["tensor"]) if name in border else name


def _bind_states(program: Program) -> None:
    """Let the last writer of each state write the state's own bytes where its reader is done with them.

    Otherwise the successor stays in the arena and a copy ends the run. States whose successor is the state
    itself, another state, an input or a constant are copied too.
    """
    owners: set[str] = set()
    for index, state in enumerate(program.states):
        in_place = _may_write_in_place(program, state, owners)
        if in_place:
            owners.add(program.root(state.result))
        program.states[index] = State(
            state.name, state.output, state.source, state.result, state.reset, state.quantization, in_place
        )
    moved = [s for s in program.states if not s.in_place and program.root(s.result) != program.root(s.source)]
    sources = {program.root(s.source) for s in program.states}
    crossing = [s for s in moved if program.root(s.result) in sources]
    if crossing:
        # Copying one state over another would destroy a value that a later copy still needs.
        raise UnsupportedError(
            f"state {crossing[0].name!r} is replaced by another state, unchanged",
            hint="let the model compute it (for example x * 1) or keep both as one state",
        )
    for state in moved:
        _append_copy(program, state)


def _may_write_in_place(program: Program, state: State, owners: set[str]) -> bool:
    root, source = program.root(state.result), program.root(state.source)
    persistent = {program.root(s.source) for s in program.states}
    given = {program.root(p.tensor) for p in program.inputs}
    if root in persistent | given | owners or program.tensors[root].data is not None:
        return False
    if program.tensors[root].type.bytes != program.tensors[source].type.bytes:
        return False
    writer = next(i for i, c in enumerate(program.calls) if root in c.outputs)
    readers = [i for i, c in enumerate(program.calls) if source in [program.root(n) for n in c.inputs]]
    last = max(readers, default=-1)
    if last < writer:
        return True
    call = program.calls[writer]
    operands = [program.root(n) for n in call.inputs]
    return (
        last == writer
        and operands.count(source) == 1
        and call.function in program.functions
        and _in_place(program, call, operands.index(source))
    )


def _in_place(program: Program, call: Call, position: int) -> bool:
    """Whether the call may write its result over the operand at `position`, which is as large."""
    try:
        record = get_operator(call.op)
    except KeyError:  # only TVM knows it: what its code shows
        return position in program.functions[call.function].in_place
    if position == 0 and record.access.in_place:
        return True
    # Element by element, whatever kernel it will be.
    types = [program.tensors[n].type for n in call.inputs]
    order = record.read_order(types, **call.attrs)[position]
    view = KernelCall(dict(zip(record.inputs, types, strict=True)), {}, call.attrs)
    size, out = (np.dtype(kind.dtype).itemsize for kind in (types[position], program.tensors[call.outputs[0]].type))
    return (
        order is not None
        and order.elements == 1
        and order.distance(size, out) <= 0
        and all(kernel.overlap_block_rows(view) == 0 for kernel in kernels_for(call.op))
    )


def _append_copy(program: Program, state: State) -> None:
    from edgec.tvm_bridge.pipeline import generate_operator  # importing TVM takes seconds

    size = program.tensors[state.source].type.bytes  # as bytes, whatever the type is
    attrs = {"offset": 0, "shape": [size], "strides": [1]}
    function = generate_operator("strided_copy_s8", [TensorType((size,), "int8")], attrs)
    program.functions[function.name] = function
    flat = f"{state.result} as bytes of {state.name}"
    program.tensors[flat] = Tensor(flat, TensorType((size,), "int8"), view_of=state.result)
    name = f"{state.output} -> {state.name}"
    program.calls.append(Call(name, "strided_copy_s8", function.name, (flat,), (state.source,), attrs))


def arena_tensors(program: Program) -> dict[str, tuple[int, int]]:
    """Live ranges of the tensors that the arena holds, without those of no bytes."""
    return {n: r for n, r in live_ranges(program).items() if program.tensors[n].type.bytes}
