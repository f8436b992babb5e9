# SPDX-License-Identifier: Apache-2.0
"""Linker script of the bench firmware: where code, weights, stack, static data, state and arenas go.

The stack lies at the very bottom of the fastest span, so that an overflow leaves RAM and faults instead of
overwriting data. Sections that generated C may name:

- `.arena.<span>` and `.state.<span>` (see `Span.arena_section`): RAM that start-up leaves alone;
- `.state`: the same as `.state.<fastest span>`;
- `.weights` in internal flash, `.weights.<region>` in an external one (`.weights.qspi`).
"""

from __future__ import annotations

from edgec.emit.names import comment
from edgec.errors import FitError
from edgec.target import Region, Span, Target

DEFAULT_STACK_BYTES = 4096


def weights_section(region: Region) -> str:
    """Section for weights in that flash region."""
    return ".weights" if region.controller is None else f".weights.{region.name}"


def linker_script(target: Target, *, stack_bytes: int = DEFAULT_STACK_BYTES) -> str:
    """The script as text.

    Args:
        target: a target with memory (not the host).
        stack_bytes: reserved for the stack of bench and model together; rounded up to 8.

    Raises:
        FitError: the stack alone does not fit the fastest span.
    """
    spans, flash = target.ram_spans(), target.internal_flash()
    fast = spans[0]
    stack = (stack_bytes + 7) & ~7
    if stack > fast.size:
        raise FitError(
            f"the stack does not fit {target.name}",
            need=f"{stack:,} B",
            have=f"{fast.size:,} B in {fast.name}",
        )
    external = [r for r in target.flash_regions() if r.controller is not None]
    lines = [
        f"/* {comment(target.name)}: generated from its target file by edgec. */",
        "ENTRY(Reset_Handler)",
        "MEMORY {",
    ]
    lines += [_memory(r.name, "rx", r.origin, r.size) for r in (flash, *external)]
    lines += [_memory(s.identifier, "rw", s.origin, s.size) for s in spans]
    lines += ["}", "SECTIONS {"]
    lines += [f"  {line}" for line in _flash_sections(flash, external)]
    lines += [f"  {line}" for line in _static_sections(fast, flash, stack)]
    for i, span in enumerate(spans):
        lines += [f"  {line}" for line in _model_ram(span, first=i == 0)]
    lines += ["  /DISCARD/ : { *(.ARM.exidx*) *(.ARM.attributes) *(.comment) *(.note*) }", "}", ""]
    return "\n".join(lines)


def _memory(name: str, flags: str, origin: int, size: int) -> str:
    return f"  {name} ({flags}) : ORIGIN = {origin:#010x}, LENGTH = {size:#x}"


def _flash_sections(flash: Region, external: list[Region]) -> list[str]:
    lines = [
        f".vectors : ALIGN(512) {{ KEEP(*(.vectors)) }} > {flash.name}",
        f".text : ALIGN(8) {{ *(.text .text.*) }} > {flash.name}",
        f".rodata : ALIGN(8) {{ *(.rodata .rodata.*) }} > {flash.name}",
        # 32 is a cache line of the Cortex-M7 (Technical Reference Manual, section 5).
        f".weights : ALIGN(32) {{ *(.weights) }} > {flash.name}",
    ]
    lines += [f"{weights_section(r)} : ALIGN(32) {{ *({weights_section(r)}) }} > {r.name}" for r in external]
    return lines


def _static_sections(fast: Span, flash: Region, stack: int) -> list[str]:
    ram = fast.identifier
    return [
        f".stack (NOLOAD) : ALIGN(8) {{ edgec_stack_bottom = .; . += {stack:#x}; edgec_stack_top = .; }} > {ram}",
        ".data : ALIGN(8) { edgec_data_start = .; *(.data .data.*) . = ALIGN(4); edgec_data_end = .; } "
        f"> {ram} AT > {flash.name}",
        "edgec_data_load = LOADADDR(.data);",
        ".bss (NOLOAD) : ALIGN(8) { edgec_bss_start = .; *(.bss .bss.* COMMON) . = ALIGN(4); "
        f"edgec_bss_end = .; }} > {ram}",
    ]


def _model_ram(span: Span, *, first: bool) -> list[str]:
    state = f"*(.state) *({span.state_section})" if first else f"*({span.state_section})"
    return [
        f"{span.state_section} (NOLOAD) : ALIGN(8) {{ {state} }} > {span.identifier}",
        f"{span.arena_section} (NOLOAD) : ALIGN(32) {{ *({span.arena_section}) }} > {span.identifier}",
    ]
