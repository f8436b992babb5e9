# SPDX-License-Identifier: Apache-2.0
"""Static bound of the stack below a function: frame sizes along the deepest path of the call graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgec.device.elf_image import ElfImage, Function
from edgec.device.thumb import lowers_stack
from edgec.errors import DeviceError


@dataclass(frozen=True)
class StackBound:
    """Bytes, and the deepest path as (function, its own frame in bytes), outermost first."""

    bytes: int
    path: tuple[tuple[str, int], ...]


def static_stack_bound(elf: Path, symbol: str) -> StackBound:
    """The most stack that a call of `symbol` can take, its own frame included.

    Frames come from the compiler (`-fstack-size-section`); hand-written assembly states its own in
    `.stack_sizes`.
    A branch into another function counts as a call, which can only overstate.

    Raises:
        DeviceError: recursion, an indirect call or jump, or a function of unknown stack size: no bound
        exists.
    """
    image = ElfImage(elf)
    known: dict[int, StackBound] = {}

    def bound(function: Function, above: tuple[str, ...]) -> StackBound:
        if function.address in known:
            return known[function.address]
        path = (*above, function.name)
        if function.name in above:
            raise DeviceError(f"no stack bound for {symbol}: recursion", have=" -> ".join(path))
        own = image.stack_sizes.get(function.address)
        if own is None:
            raise DeviceError(
                f"no stack bound for {symbol}: the stack of {function.name} is unknown",
                have=" -> ".join(path),
                hint="assembly states its stack in the section .stack_sizes",
            )
        if own == 0 and any(lowers_stack(first, second) for _, first, second in image.instructions(function)):
            # The compiler states 0 for every naked function, whatever its assembly does.
            raise DeviceError(
                f"no stack bound for {symbol}: {function.name} moves the stack pointer but states 0 B",
                have=" -> ".join(path),
                hint="assembly states its stack in the section .stack_sizes",
            )
        deepest = StackBound(0, ())
        for transfer in image.transfers(function):
            if transfer.kind == "indirect jump" and function.address in image.local_jumps:
                continue  # a computed entry into its own unrolled loop
            if transfer.target is None:
                raise DeviceError(
                    f"no stack bound for {symbol}: {transfer.kind} in {image.name_at(transfer.address)}",
                    have=" -> ".join(path),
                )
            if function.address <= transfer.target < function.end and transfer.target != function.address:
                continue
            if transfer.kind == "jump" and transfer.target == function.address:
                continue  # a loop to the first instruction
            callee = image.function_at(transfer.target)
            if callee is None:
                raise DeviceError(
                    f"no stack bound for {symbol}: {image.name_at(transfer.address)} "
                    f"calls {transfer.target:#010x}, which is no function"
                )
            below = bound(callee, path)
            if below.bytes >= deepest.bytes:
                deepest = below
        known[function.address] = StackBound(own + deepest.bytes, ((function.name, own), *deepest.path))
        return known[function.address]

    return bound(image.function(symbol), ())
