# SPDX-License-Identifier: Apache-2.0
"""Which kernel runs each call: a hand-written one that accepts it, else the one that TVM generated."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from edgec.kernels.registry import Call as KernelCall
from edgec.kernels.registry import HandKernel, Packed, kernels_for
from edgec.operators import get_operator
from edgec.program import Call, Program

Choice = Literal["auto", "tvm"]


@dataclass(frozen=True)
class Implementation:
    """How one call is computed, ready to be printed as a C call.

    Attributes:
        kind: "tvm" for generated, "hand" for hand-written.
        kernel: name of the kernel or of the operator, for reports.
        function: C function; without the model's prefix when it is generated.
        arguments: in order: a tensor's name, a constant's name, "scratch <k>", or a literal.
        constants: arrays that the call reads from flash, by the name that `arguments` uses.
        scratch: bytes of each scratch area.
        sources: hand-written sources below runtime/kernels.
        declined: why each hand-written kernel that could have run does not.
    """

    kind: Literal["tvm", "hand"]
    kernel: str
    function: str
    arguments: tuple[str | int, ...]
    constants: dict[str, Packed]
    scratch: tuple[int, ...]
    sources: tuple[str, ...] = ()
    declined: tuple[str, ...] = ()


def select_kernels(program: Program, features: AbstractSet[str], choice: Choice) -> list[Implementation]:
    """One implementation for every call, in order."""
    return [_select(program, call, features, choice) for call in program.calls]


def _select(program: Program, call: Call, features: AbstractSet[str], choice: Choice) -> Implementation:
    declined = []
    for kernel in kernels_for(call.op, features) if choice == "auto" else ():
        view = _view(program, call)
        reason = kernel.accepts(view)
        if reason is None:
            return _hand(program, call, kernel, view)
        declined.append(f"{kernel.name}: {reason}")
    return _generated(program, call, tuple(declined))


def _view(program: Program, call: Call) -> KernelCall:
    roles = get_operator(call.op).inputs
    tensors = {role: program.tensors[name] for role, name in zip(roles, call.inputs, strict=True)}
    return KernelCall(
        types={role: t.type for role, t in tensors.items()},
        constants={role: t.data for role, t in tensors.items() if t.data is not None},
        attrs=call.attrs,
    )


def _hand(program: Program, call: Call, kernel: HandKernel, view: KernelCall) -> Implementation:
    roles = dict(zip(get_operator(call.op).inputs, call.inputs, strict=True))
    packed = {f"{call.name}.{p.name}": p for p in kernel.pack(view)}
    names: dict[str, str] = {**roles, "y": call.outputs[0], "scratch": "scratch 0"}
    names.update({p.name: key for key, p in packed.items()})
    arguments = tuple(names[a] if isinstance(a, str) else a for a in kernel.arguments(view))
    scratch = kernel.scratch_bytes(view)
    return Implementation(
        "hand", kernel.name, kernel.function, arguments, packed, (scratch,) if scratch else (), kernel.sources
    )


def _generated(program: Program, call: Call, declined: tuple[str, ...]) -> Implementation:
    function = program.functions[call.function]
    scratch = tuple(f"scratch {i}" for i in range(len(function.workspaces)))
    constants = {}
    for name in call.inputs:
        root = program.root(name)
        tensor = program.tensors[root]
        if tensor.data is not None:
            constants[root] = Packed(root, tensor.data, "x".join(str(d) for d in tensor.type.shape) or "scalar")
    arguments = tuple(program.root(n) if program.root(n) in constants else n for n in call.inputs)
    return Implementation(
        "tvm", call.op, call.function, (*arguments, *call.outputs, *scratch), constants, function.workspaces,
        declined=declined,
    )  # fmt: skip
