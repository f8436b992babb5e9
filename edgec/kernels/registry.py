# SPDX-License-Identifier: Apache-2.0
"""Hand-written kernels register here and override the generated kernel where they accept a call.

A kernel is C or assembly under `runtime/kernels/` plus one class: what it needs from the CPU, which calls it
accepts (a kernel that declines says why, and the generated one runs), and how the constants of a call are
packed at compile time. Its bits are those of the operator's reference.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from edgec.operators.record import Array, TensorType

# One module a family; importing one registers its kernels.
FAMILIES = ("linear", "conv")


@dataclass(frozen=True)
class Call:
    """One call of an operator, as a kernel sees it at compile time.

    Attributes:
        types: type of every input, by the name that the operator record gives it.
        constants: values of the constant inputs, by the same names.
        attrs: structural attributes of the call.
    """

    types: Mapping[str, TensorType]
    constants: Mapping[str, Array]
    attrs: Mapping[str, Any]


@dataclass(frozen=True)
class Packed:
    """A constant array in the layout that a kernel reads.

    Attributes:
        name: what it holds; `HandKernel.arguments` refers to it by this name.
        values: int32 or uint32, so that the C array is 4-byte aligned by its type.
        layout: one line for the reader of the generated C.
    """

    name: str
    values: Array
    layout: str


class HandKernel(ABC):
    """One hand-written kernel.

    Attributes:
        name: unique; what reports and the manifest print.
        op: the operator that it overrides.
        needs: CPU features that a target must have.
        function: the C function, declared in `edgec_kernels.h`.
        sources: files to compile, relative to `runtime/kernels`; they build on every target.
    """

    name: ClassVar[str]
    op: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    function: ClassVar[str]
    sources: ClassVar[tuple[str, ...]]

    @abstractmethod
    def accepts(self, call: Call) -> str | None:
        """None when the kernel gives the operator's bits for this call, else the reason why it declines."""

    @abstractmethod
    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The arrays that replace the call's constants in flash; only for a call that `accepts` takes."""

    @abstractmethod
    def scratch_bytes(self, call: Call) -> int:
        """Bytes of 4-byte aligned scratch that a call uses."""

    @abstractmethod
    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """C arguments in order: a name is an input, a `Packed` array, "y" or "scratch"; an int a literal."""


_REGISTRY: dict[str, HandKernel] = {}
_Kernel = TypeVar("_Kernel", bound=type[HandKernel])


def hand_kernel(definition: _Kernel) -> _Kernel:
    """Class decorator: register a hand-written kernel."""
    kernel = definition()
    if kernel.name in _REGISTRY:
        raise ValueError(f"kernel {kernel.name} is registered twice")
    _REGISTRY[kernel.name] = kernel
    return definition


def kernels_for(op: str, cpu_features: AbstractSet[str]) -> tuple[HandKernel, ...]:
    """Kernels of operator `op` that a CPU with these features runs; those that need the most come first."""
    for family in FAMILIES:
        importlib.import_module(f"edgec.kernels.{family}")
    found = [k for k in _REGISTRY.values() if k.op == op and k.needs <= cpu_features]
    return tuple(sorted(found, key=lambda k: (-len(k.needs), k.name)))
