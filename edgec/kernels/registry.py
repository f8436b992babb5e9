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
from functools import cache
from typing import Any, ClassVar, TypeVar

from edgec.operators.record import Array, TensorType

# One module a family; importing one registers its kernels.
FAMILIES = (
    "linear",
    "linear_dot",
    "conv",
    "attention",
    "attention_row",
    "depthwise_3x3",
    "norm",
    "pool",
    "elementwise",
    "movement",
    "reduce",
    "ring",
    "front_end",
    "int16",
    "linear16",
    "product16",
    "float_border",
)


@dataclass(frozen=True)
class Machine:
    """What the order of loops is chosen from: wait states of the flash that holds the weights, data cache in bytes."""

    flash_wait_states: int = 5
    data_cache: int = 0


TYPICAL = Machine()


@dataclass(frozen=True)
class Call:
    """One call of an operator, as a kernel sees it at compile time.

    Attributes:
        types: type of every input, by the name that the operator record gives it.
        constants: values of the constant inputs, by the same names.
        attrs: structural attributes of the call, and what a schedule asks of the kernel.
        machine: of the target.
        panel_rows: how many rows a schedule wants the kernel to take together; 0 leaves it to the kernel.
        packed: inputs that come as what `HandKernel.shared` packed, instead of being packed by the kernel itself.
    """

    types: Mapping[str, TensorType]
    constants: Mapping[str, Array]
    attrs: Mapping[str, Any]
    machine: Machine = TYPICAL
    panel_rows: int = 0
    packed: frozenset[str] = frozenset()


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


@dataclass(frozen=True)
class Prepared:
    """An activation that a kernel reads packed: a step of its own before the call (operator `prepare`).

    Attributes:
        role: the input; the kernel gets the packed bytes in its place.
        function: the C function that packs, declared in `edgec_kernels.h`.
        bytes: size of what it writes, 4-byte aligned.
        arguments: in order: the role, "y" for the packed bytes, "scratch", or an int.
        in_place: whether the packed bytes may begin where the input's begin, when nobody else reads that.
        scratch: bytes of 4-byte aligned scratch.
    """

    role: str
    function: str
    bytes: int
    arguments: tuple[str | int, ...]
    in_place: bool = False
    scratch: int = 0


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

    def prepare(self, call: Call) -> tuple[Prepared, ...]:
        """Activations that are packed at run time, by steps that a scheduler may move out of loops over rows."""
        return ()

    def shared(self, call: Call) -> Prepared | None:
        """How to pack the activation that the kernel packs itself, row by row, in a step that several calls may share.

        Equal for all calls that can share it. None where there is nothing to share.
        """
        return None

    def overlap_block_rows(self, call: Call) -> int | None:
        """How the output may overlap a dying input (edgec/schedule/overlap.py); None when nothing is promised.

        The call has types and attributes only, and what is said holds for every machine and `panel_rows`.
        n > 0: rows of the output (of its last axis; pixels of an image, tokens of an attention) are computed in
        order, n at a time and the rest in smaller blocks; all that a block reads of its inputs is read before the
        first of its bytes is written, but for an operand that is added to the output element by element, which
        may be read just before its element is. 0: inputs are read no later than the operator's `read_order` says.
        """
        return None

    def overlap_reads_late(self, call: Call) -> bool:
        """Whether what a block of `overlap_block_rows` reads may be read even after its last byte is written."""
        return False

    @abstractmethod
    def scratch_bytes(self, call: Call) -> int:
        """Bytes of 4-byte aligned scratch that a call uses."""

    @abstractmethod
    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """C arguments in order: a name is an input, a `Packed` array, "y" or "scratch"; an int a literal.

        A kernel that can make any rows of its result (along the leading axis, "y" being the first of them) from whole
        inputs says where it takes their number by "first_row" and "rows".
        """


_REGISTRY: dict[str, HandKernel] = {}
_Kernel = TypeVar("_Kernel", bound=type[HandKernel])


def hand_kernel(definition: _Kernel) -> _Kernel:
    """Class decorator: register a hand-written kernel."""
    kernel = definition()
    if kernel.name in _REGISTRY:
        raise ValueError(f"kernel {kernel.name} is registered twice")
    _REGISTRY[kernel.name] = kernel
    return definition


@cache
def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f"edgec.kernels.{family}")


def kernel_named(name: str) -> HandKernel | None:
    """The hand-written kernel of that name."""
    _load()
    return _REGISTRY.get(name)


def kernels_for(op: str, cpu_features: AbstractSet[str] | None = None) -> tuple[HandKernel, ...]:
    """Kernels of operator `op` that a CPU with these features (None: with all) runs; those that need the most first."""
    _load()
    found = [k for k in _REGISTRY.values() if k.op == op and (cpu_features is None or k.needs <= cpu_features)]
    return tuple(sorted(found, key=lambda k: (-len(k.needs), k.name)))
