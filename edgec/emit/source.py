# SPDX-License-Identifier: Apache-2.0
"""`<model>.c`: the API and the run, one commented call a step."""

from __future__ import annotations

import re

from edgec.emit.feed import PART, api, steps_head
from edgec.emit.header import init_parameters
from edgec.emit.model import ARENA_ALIGNMENT, LICENSE, TURN, Built, shape_text
from edgec.emit.names import comment
from edgec.operators.integer import product
from edgec.program import C_TYPES, Call, Loop, State

WIDTH = 120


def source(built: Built) -> str:
    """Text of `<model>.c`."""
    p = built.prefix
    kernels = any(i.kind == "hand" for i in built.implementations)
    lines = [
        LICENSE,
        f"/* {comment(built.program.name)}: {len(built.program.calls)} steps, {built.program.macs:,} MACs. */",
        f'#include "{p}.h"',
        "",
        "#include <string.h>",
        "",
        *(['#include "edgec_kernels.h"'] if kernels else []),
        f'#include "{p}_kernels.h"',
        f'#include "{p}_weights.h"',
        "",
        *_init(built),
        "",
        *_ports(built),
        *_run(built),
    ]
    if built.program.states:
        lines += ["", *_state(built)]
    return "\n".join(lines) + "\n"


def _init(built: Built) -> list[str]:
    p = built.prefix
    upper = p.upper()
    lines = [f"edgec_status {p}_init({init_parameters(built)}) {{"]
    lines.append("    if (m == NULL) return EDGEC_ERROR_ARGUMENT;")
    for space in built.arenas:
        v = built.arena_variable(space)
        lines += [
            f"    if ({v} == NULL || {v}_bytes < {upper}_{v.upper()}_BYTES) return EDGEC_ERROR_ARENA;",
            f"    if ((uintptr_t){v} % {ARENA_ALIGNMENT} != 0) return EDGEC_ERROR_ALIGNMENT;",
        ]
    if built.program.states:
        lines += [
            f"    if (state == NULL || state_bytes < {upper}_STATE_BYTES) return EDGEC_ERROR_STATE;",
            f"    if ((uintptr_t)state % {ARENA_ALIGNMENT} != 0) return EDGEC_ERROR_ALIGNMENT;",
        ]
    else:
        lines.append("    (void)state_bytes;")
    for space in built.arenas:
        lines.append(f"    m->{built.arena_variable(space)} = (int8_t *){built.arena_variable(space)};")
    lines.append("    m->state = (int8_t *)state;")
    if built.program.feed is not None:
        lines.append("    m->rows = 0;")
    if built.program.states:
        lines.append(f"    {p}_reset(m);")
    return [*lines, "    return EDGEC_OK;", "}"]


def _ports(built: Built) -> list[str]:
    p, lines = built.prefix, []
    inputs = [] if built.program.feed is not None else built.program.inputs
    for ports, const in ((inputs, ""), (built.program.outputs, "const ")):
        for port in ports:
            pointer = built.pointer(port.tensor)
            for variable in ("state", *map(built.arena_variable, built.arenas)):
                pointer = _member(pointer, variable)
            lines += [
                f"{const}{built.c_type(port)} *{p}_{built.ports[port.name]}({const}{p}_model *m) {{",
                f"    return {pointer};",
                "}",
                "",
            ]
    return lines


def _member(pointer: str, variable: str) -> str:
    for form in (f"{variable} + ", f"({variable} + ", f"({variable})"):
        if pointer.startswith(form) or f"(void *){form}" in pointer:
            return pointer.replace(variable, f"m->{variable}", 1)
    return f"m->{variable}" if pointer == variable else pointer


def _run(built: Built) -> list[str]:
    p, feed = built.prefix, built.program.feed
    lines = [] if feed is not None else [f"edgec_status {p}_run({p}_model *m) {{"]
    body: list[str] = []
    width = len(str(len(built.program.calls)))
    for step, call in enumerate(built.program.calls):
        loop = built.program.loop_at(step)
        if loop is not None and step == loop.first:
            body += ["", *_begin(loop, feed is not None and loop == feed.loop)]
        elif loop is None:
            body.append("")
        indent = "    " if loop is None else "        "
        body += [f"{indent}/* {step + 1:>{width}}  {_description(built, call)} */", *_call(built, step, indent)]
        if loop is not None and step == loop.last - 1:
            body += ["        return EDGEC_OK;"] if feed is not None and loop == feed.loop else []
            body.append("    }")
    text = "\n".join(body)
    for variable in (*map(built.arena_variable, built.arenas), "state"):
        if re.search(rf"(^ +|\(){variable}[ )]", text, re.MULTILINE):
            lines.append(f"    int8_t *const {variable} = m->{variable};")
    if not any("m->" in line for line in lines):
        lines.append("    (void)m;")
    for region in built.weights_by_region():
        name, struct = built.weights_variable(region), built.weights_struct(region)
        lines.append(f"    const {struct}_t *const {name} = &{struct};")
    lines += [*body, "    return EDGEC_OK;", "}"]
    return lines if feed is None else [*steps_head(built), *lines, "", *api(built, feed)]


def _begin(loop: Loop, fed: bool) -> list[str]:
    """The beginning of a loop over blocks of rows, or of one turn of it, where rows are fed."""
    note = comment(loop.note)
    if fed:
        return [f"    if ({PART} < {loop.count}) {{ /* {note} */", f"        const int32_t {TURN} = {PART};"]
    return [f"    for (int32_t {TURN} = 0; {TURN} < {loop.count}; ++{TURN}) {{ /* {note} */"]


def _description(built: Built, call: Call) -> str:
    def told(name: str) -> str:
        return f"{comment(built.label(name))}{shape_text(built.program.tensors[name].type.shape)}"

    operands = [n for n in call.inputs if built.program.tensors[built.program.root(n)].data is None]
    inputs, outputs = ", ".join(map(told, operands)), ", ".join(map(told, call.outputs))
    return f"{comment(call.name)}  {comment(call.op)}  {inputs or 'constants'} -> {outputs}"


def _call(built: Built, step: int, indent: str) -> list[str]:
    """The call, its arguments on as few lines as fit."""
    implementation = built.implementations[step]
    function = implementation.function
    if implementation.kind == "tvm":
        function = f"{built.prefix}_{function}"
    arguments = [built.argument(step, a) for a in implementation.arguments]
    one = f"{indent}{function}({', '.join(arguments)});"
    if len(one) <= WIDTH:
        return [one]
    lines, row = [f"{indent}{function}("], ""
    for i, argument in enumerate(arguments):
        text = argument + (");" if i == len(arguments) - 1 else ",")
        if row and len(row) + len(text) + len(indent) + 5 > WIDTH:
            lines.append(f"{indent}    {row}")
            row = ""
        row = f"{row} {text}".lstrip()
    return [*lines, f"{indent}    {row}"]


def _state(built: Built) -> list[str]:
    p = built.prefix
    lines = [f"void {p}_reset({p}_model *m) {{"]
    for state in built.program.states:
        lines += [f"    {line}" for line in _reset(built, state)]
    return [
        *lines,
        "}",
        "",
        f"void {p}_save(const {p}_model *m, void *to) {{ memcpy(to, m->state, {p.upper()}_STATE_BYTES); }}",
        "",
        f"void {p}_restore({p}_model *m, const void *from) {{ memcpy(m->state, from, {p.upper()}_STATE_BYTES); }}",
    ]


def _reset(built: Built, state: State) -> list[str]:
    kind = built.program.tensors[state.source].type
    place = f"m->state + {built.state.offsets[state.source]}"
    note = f"/* {comment(state.name)}{shape_text(kind.shape)} */"
    if kind.dtype == "int8":
        return [f"memset({place}, {int(state.reset)}, {kind.bytes}); {note}"]
    ctype, count = C_TYPES[kind.dtype], product(kind.shape)
    value = f"{float(state.reset)!r}f" if kind.dtype == "float32" else str(int(state.reset))
    return [f"for (int i = 0; i < {count}; ++i) (({ctype} *)(void *)({place}))[i] = {value}; {note}"]
