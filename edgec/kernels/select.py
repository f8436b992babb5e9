# SPDX-License-Identifier: Apache-2.0
"""Which kernel runs each call: a hand-written one that accepts it, else the one that TVM generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from edgec.kernels.registry import TYPICAL, HandKernel, Machine, Packed, Prepared, kernel_named, kernels_for
from edgec.kernels.registry import Call as KernelCall
from edgec.operators import TensorType, get_operator
from edgec.program import Call, GeneratedFunction, Program, Tensor
from edgec.target import Target

Choice = Literal["auto", "tvm"]
PREPARE = "prepare"
"""Operator of the steps that pack an activation for one kernel; no record, no logical value."""


@dataclass(frozen=True)
class Index:
    """An integer argument that counts on by `step` with each turn of the call's loop."""

    start: int
    step: int


Argument = str | int | Index
"""A tensor's or a constant's name, "scratch <k>", a literal, or an index."""


@dataclass(frozen=True)
class Implementation:
    """How one call is computed, ready to be printed as a C call.

    Attributes:
        kind: "tvm" for generated, "hand" for hand-written.
        kernel: name of the kernel or of the operator, for reports.
        function: C function; without the model's prefix when it is generated.
        arguments: in order, see `Argument`.
        constants: arrays that the call reads from flash, by the name that `arguments` uses.
        scratch: bytes of each scratch area.
        sources: hand-written sources below runtime/kernels.
        declined: why each hand-written kernel that could have run does not.
        in_place: whether a `prepare` step may write over its (dying) input, at the same address.
        any_rows: whether it can make any rows of its result from whole inputs (see `Call.rows`).
    """

    kind: Literal["tvm", "hand"]
    kernel: str
    function: str
    arguments: tuple[Argument, ...]
    constants: dict[str, Packed]
    scratch: tuple[int, ...]
    sources: tuple[str, ...] = ()
    declined: tuple[str, ...] = ()
    in_place: bool = False
    any_rows: bool = False


def machine_of(target: Target) -> Machine:
    """What kernels ask of a target."""
    flash = target.internal_flash() if target.flash_regions() else None
    return Machine(flash.wait_states if flash else 0, target.cpu.dcache)


def select_kernels(
    program: Program, features: AbstractSet[str], choice: Choice, machine: Machine = TYPICAL
) -> list[Implementation]:
    """One implementation for every call, in order.

    The program gets a call `prepare` before each call whose kernel wants an activation packed, which then reads what
    that wrote. Only what memory and C need holds for such calls: they are for kernels and not for `evaluate`.
    """
    calls, implementations = [], []
    for call in program.calls:
        if call.op == PREPARE:
            raise ValueError(f"kernels of {program.name} are selected already")
        for step, implementation in _select(program, call, features, choice, machine):
            calls.append(step)
            implementations.append(implementation)
    program.calls[:] = calls
    return implementations


def select_kernel(
    program: Program,
    call: Call,
    features: AbstractSet[str],
    choice: Choice,
    machine: Machine = TYPICAL,
    panel_rows: int = 0,
    shared: Mapping[str, str] | None = None,
    only: str | None = None,
) -> tuple[Call, Implementation]:
    """The kernel of one more call of a program for which kernels are selected: what it reads packed exists already.

    `shared` has the packed tensor of each input that a step of `share_packing` packed. `only` names the one
    hand-written kernel that may be chosen.
    """
    return _select(program, call, features, choice, machine, panel_rows, shared or {}, only)[-1]


def shared_packing(program: Program, call: Call, implementation: Implementation, machine: Machine) -> Prepared | None:
    """The packing inside a call's kernel that may as well be a step of its own, for several calls."""
    kernel = kernel_named(implementation.kernel)
    if kernel is None or call.op == PREPARE:
        return None
    return kernel.shared(_view(program, replace(call, inputs=program.operands(call)), machine, 0))


def share_packing(
    program: Program, call: Call, implementation: Implementation, machine: Machine
) -> tuple[Call, Implementation]:
    """The step that does the `shared_packing` of a call, on a block of rows perhaps, whose kernel has one."""
    prepared, kernel = shared_packing(program, call, implementation, machine), kernel_named(implementation.kernel)
    assert prepared is not None
    assert kernel is not None
    return _prepare(program, call, kernel, prepared)


def scratch_bytes(
    program: Program, call: Call, implementation: Implementation, machine: Machine, panel_rows: int
) -> int:
    """Scratch that a call's kernel would take if it packed so many rows at a time, 4-byte aligned areas together."""
    kernel = kernel_named(implementation.kernel)
    if kernel is None or call.op == PREPARE:
        return sum(-(-size // 4) * 4 for size in implementation.scratch)
    logical = replace(call, inputs=program.operands(call))
    return -(-kernel.scratch_bytes(_view(program, logical, machine, panel_rows)) // 4) * 4


def _select(
    program: Program,
    call: Call,
    features: AbstractSet[str],
    choice: Choice,
    machine: Machine,
    panel_rows: int = 0,
    shared: Mapping[str, str] = MappingProxyType({}),
    only: str | None = None,
) -> list[tuple[Call, Implementation]]:
    """The call with its kernel, behind the steps that prepare its inputs."""
    declined = []
    offered = kernels_for(call.op, features) if choice == "auto" else ()
    for kernel in (k for k in offered if only in (None, k.name)):
        view = replace(_view(program, call, machine, panel_rows), packed=frozenset(shared))
        reason = kernel.accepts(view)
        if reason is None:
            hand = _hand(program, call, kernel, view)
            steps = [_prepare(program, call, kernel, prepared) for prepared in kernel.prepare(view)]
            renamed = {step.inputs[0]: step.outputs[0] for step, _ in steps}
            renamed |= {call.inputs[get_operator(call.op).inputs.index(role)]: name for role, name in shared.items()}
            reads = tuple(renamed.get(name, name) for name in call.inputs)
            arguments = tuple(renamed.get(a, a) if isinstance(a, str) else a for a in hand.arguments)
            return [*steps, (replace(call, inputs=reads), replace(hand, arguments=arguments))]
        declined.append(f"{kernel.name}: {reason}")
    return [(call, _generated(program, call, tuple(declined)))]


def _view(program: Program, call: Call, machine: Machine, panel_rows: int) -> KernelCall:
    roles = get_operator(call.op).inputs
    tensors = {role: program.tensors[name] for role, name in zip(roles, call.inputs, strict=True)}
    return KernelCall(
        types={role: t.type for role, t in tensors.items()},
        constants={role: t.data for role, t in tensors.items() if t.data is not None},
        attrs=call.attrs,
        machine=machine,
        panel_rows=panel_rows,
    )


def _hand(program: Program, call: Call, kernel: HandKernel, view: KernelCall) -> Implementation:
    packed = {f"{call.name}.{p.name}": p for p in kernel.pack(view)}
    names = {p.name: key for key, p in packed.items()}
    scratch = kernel.scratch_bytes(view)
    wanted = kernel.arguments(view)
    arguments, constants = _arguments(program, call, wanted, call.outputs[0], names)
    return Implementation(
        "hand",
        kernel.name,
        kernel.function,
        arguments,
        {**packed, **constants},
        (scratch,) if scratch else (),
        kernel.sources,
        any_rows="rows" in wanted,
    )


def _prepare(program: Program, call: Call, kernel: HandKernel, prepared: Prepared) -> tuple[Call, Implementation]:
    """The step that packs one input, and how it is computed."""
    source = call.inputs[get_operator(call.op).inputs.index(prepared.role)]
    name = f"{call.name}.{prepared.role}"
    output = f"{source} packed for {call.name}"
    program.tensors[output] = Tensor(output, TensorType((prepared.bytes,), "int8"))
    program.packed[output] = source
    arguments, constants = _arguments(program, call, prepared.arguments, output, {})
    scratch = (prepared.scratch,) if prepared.scratch else ()
    implementation = Implementation(
        "hand",
        kernel.name,
        prepared.function,
        arguments,
        constants,
        scratch,
        kernel.sources,
        in_place=prepared.in_place,
    )
    return Call(name, PREPARE, "", (source,), (output,)), implementation


def _arguments(
    program: Program, call: Call, wanted: Sequence[str | int], output: str, packed: Mapping[str, str]
) -> tuple[tuple[Argument, ...], dict[str, Packed]]:
    """C arguments by the names that a kernel uses, and the operands among them that are constants of the model."""
    roles = dict(zip(get_operator(call.op).inputs, call.inputs, strict=True))
    names: dict[str, Argument] = {**roles, "y": output, "scratch": "scratch 0", **packed}
    names["rows"] = program.tensors[output].type.shape[0]
    names["first_row"] = 0
    if call.rows is not None:
        names["first_row"] = Index(call.rows.first, call.rows.step) if call.rows.step else call.rows.first
    arguments: list[Argument] = []
    constants = {}
    for argument in wanted:
        name = names[argument] if isinstance(argument, str) else argument
        if isinstance(name, str) and argument in roles and argument not in packed:
            root = program.root(name)
            data = program.tensors[root].data
            if data is not None:
                constants[root] = Packed(root, data, "as it is")
                name = _of_flash(program, name)
        arguments.append(name)
    return tuple(arguments), constants


def _generated(program: Program, call: Call, declined: tuple[str, ...]) -> Implementation:
    function = program.functions.get(call.function) or _generate(program, call)
    scratch = tuple(f"scratch {i}" for i in range(len(function.workspaces)))
    constants = {}
    for name in call.inputs:
        root = program.root(name)
        tensor = program.tensors[root]
        if tensor.data is not None:
            constants[root] = Packed(root, tensor.data, "x".join(str(d) for d in tensor.type.shape) or "scalar")
    arguments = tuple(_of_flash(program, n) if program.root(n) in constants else n for n in call.inputs)
    return Implementation(
        "tvm", call.op, function.name, (*arguments, *call.outputs, *scratch), constants, function.workspaces,
        declined=declined,
    )  # fmt: skip


def _of_flash(program: Program, name: str) -> str:
    """A constant's name; that of a view where it is a block of rows."""
    return program.root(name) if program.window(name) == (0, 0) else name


def _generate(program: Program, call: Call) -> GeneratedFunction:
    """The function of a call that the scheduler made."""
    from edgec.tvm_bridge.pipeline import generate_operator  # importing TVM takes seconds

    function = generate_operator(call.op, [program.tensors[n].type for n in call.inputs], dict(call.attrs))
    return program.functions.setdefault(function.name, function)
