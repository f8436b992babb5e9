# SPDX-License-Identifier: Apache-2.0
"""The public header of a compiled model."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.emit.feed import feed_declaration, role, row_bytes
from edgec.emit.model import ARENA_ALIGNMENT, LICENSE, Built, shape_text
from edgec.emit.names import comment
from edgec.program import Port

_AXES: dict[tuple[int, ...], str] = {(0, 2, 3, 1): "channels-last (N, H, W, C)"}


@dataclass(frozen=True)
class Figures:
    """What the first lines of the header say; bytes. `flash` and `stack` are None until the program is linked."""

    flash: int | None
    stack: int | None


def header(built: Built, figures: Figures) -> str:
    """Text of `<model>.h`."""
    p, program = built.prefix, built.program
    guard = f"{p.upper()}_H"
    lines = [
        LICENSE,
        f"/* {comment(program.name)} for {comment(built.target.name)}",
        *_figures(built, figures),
        " */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        *(["#include <stdbool.h>"] if _has_bool(built) else []),
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        '#include "edgec.h"',
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        *_sizes(built),
        "",
        *_structure(built),
        "",
        *_functions(built),
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        f"#endif /* {guard} */",
        "",
    ]
    return "\n".join(lines)


def init_parameters(built: Built) -> str:
    """Parameter list of `<model>_init`."""
    arenas = [f"void *{v}, size_t {v}_bytes" for v in map(built.arena_variable, built.arenas)]
    return ", ".join([f"{built.prefix}_model *m", *arenas, "void *state, size_t state_bytes"])


def _has_bool(built: Built) -> bool:
    return any(built.c_type(port) == "bool" for port in (*built.program.inputs, *built.program.outputs))


def _figures(built: Built, figures: Figures) -> list[str]:
    plan, program = built.plan, built.program
    stack = f" + stack {figures.stack:,}" if figures.stack is not None else ""
    flash = f"{figures.flash:,} B" if figures.flash is not None else "-"
    return [
        f" *   RAM    arena {plan.arena_bytes:,} + state {built.state.bytes:,}{stack} B"
        f" (placement bound {plan.placement_bound_bytes:,} B)",
        f" *   flash  {flash}",
        f" *   work   {program.macs:,} multiply-accumulates",
        f" *   peak   {comment(plan.peak_at)}, step {plan.peak_step + 1} of {len(program.calls)}",
    ]


def _sizes(built: Built) -> list[str]:
    p = built.prefix.upper()
    lines = [f"#define {p}_ALIGNMENT {ARENA_ALIGNMENT} /* bytes, of every arena and of the state */"]
    for space, size in built.arenas.items():
        lines.append(f"#define {p}_{built.arena_variable(space).upper()}_BYTES {max(size, 1)}")
    lines.append(f"#define {p}_STATE_BYTES {built.state.bytes}")
    for port in (*built.program.inputs, *built.program.outputs):
        name = f"{p}_{built.ports[port.name].upper()}"
        kind = built.program.tensors[port.tensor].type
        lines.append(f"#define {name}_BYTES {kind.bytes}")
        if built.program.feed is not None and port.tensor == built.program.feed.tensor:
            lines.append(f"#define {name}_ROWS {built.program.feed.rows}")
            lines.append(f"#define {name}_ROW_BYTES {row_bytes(built, built.program.feed)}")
        if port.quantization is not None:
            lines.append(f"#define {name}_SCALE {port.quantization.scale!r}f /* real = scale * (q - zero_point) */")
            lines.append(f"#define {name}_ZERO_POINT ({port.quantization.zero_point})")
    return lines


def _structure(built: Built) -> list[str]:
    pointers = [f"    int8_t *{built.arena_variable(space)};" for space in built.arenas]
    told = "The arena means nothing between runs and may be shared; the state persists."
    fed: list[str] = []
    if built.program.feed is not None:
        told = "The arena means nothing between a run and the next row, and may be shared then."
        fed = ["    int32_t rows; /* that were fed since the last run */"]
    return [
        f"/* One use of the model. {told} */",
        "typedef struct {",
        *pointers,
        "    int8_t *state;",
        *fed,
        f"}} {built.prefix}_model;",
    ]


def _functions(built: Built) -> list[str]:
    p = built.prefix
    lines = [
        "/* Checks sizes and alignment, keeps the pointers"
        + (", resets the state." if built.program.states else "; state may be NULL.")
        + " */",
        f"edgec_status {p}_init({init_parameters(built)});",
        "",
    ]
    feed = built.program.feed
    for port in built.program.inputs:
        if feed is not None:
            lines += _described(built, port, role(built, port, feed))
            lines += [f"edgec_status {feed_declaration(built)};", ""]
            continue
        lines += _port_comment(built, port, "input: fill it before every run, which consumes it")
        lines += [f"{built.c_type(port)} *{p}_{built.ports[port.name]}({p}_model *m);", ""]
    if feed is not None:
        lines += ["/* The rest of an inference. EDGEC_ERROR_INPUT: rows are missing; nothing was run. */"]
    else:
        lines += ["/* One inference" + (" step." if built.program.states else ".") + " */"]
    lines += [f"edgec_status {p}_run({p}_model *m);", ""]
    for port in built.program.outputs:
        lines += _port_comment(built, port, f"output: valid until the next {'run' if feed is None else 'row'}")
        lines += [f"const {built.c_type(port)} *{p}_{built.ports[port.name]}(const {p}_model *m);", ""]
    if built.program.states:
        lines += [
            "/* State back to its reset values; copied out and in, bit for bit. */",
            f"void {p}_reset({p}_model *m);",
            f"void {p}_save(const {p}_model *m, void *to);",
            f"void {p}_restore({p}_model *m, const void *from);",
        ]
    return lines[:-1] if not lines[-1] else lines


def _port_comment(built: Built, port: Port, role: str) -> list[str]:
    kind = built.program.tensors[port.tensor].type
    return _described(built, port, [f"/* {comment(port.name)} {kind.dtype}{shape_text(kind.shape)}, {role}."])


def _described(built: Built, port: Port, lines: list[str]) -> list[str]:
    """The beginning of a comment with the port's layout and scale behind it."""
    if port.layout:
        axes = _AXES.get(port.layout, f"the ONNX axes {shape_text(port.layout)}")
        lines.append(f" * Layout: {axes}; {shape_text(port.onnx_shape)} in ONNX.")
    if port.quantization is not None:
        q = port.quantization
        lines.append(f" * real = {q.scale:.9g} * (q - ({q.zero_point})).")
    lines[-1] += " */"
    return lines
