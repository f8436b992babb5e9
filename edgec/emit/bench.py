# SPDX-License-Identifier: Apache-2.0
"""`bench.c`: the glue between a compiled model and the bench (firmware or host library), see edgec_bench.h."""

from __future__ import annotations

from edgec.emit.model import LICENSE, Built
from edgec.emit.names import string
from edgec.program import Port


def bench_source(built: Built, model_id: str) -> str:
    """Text of `bench.c`: static arena and state, and the constant `edgec_bench`."""
    p = built.prefix
    upper = p.upper()
    spans = {s.name: s for s in built.target.ram_spans()}
    lines = [LICENSE, "#include <stddef.h>", "", '#include "edgec_bench.h"', f'#include "{p}.h"', ""]
    arguments = []
    for space in built.arenas:
        v = built.arena_variable(space)
        section = f', section("{spans[space].arena_section}")' if space in spans else ""
        lines.append(
            f"static int8_t {v}[{upper}_{v.upper()}_BYTES] __attribute__((aligned({upper}_ALIGNMENT){section}));"
        )
        arguments.append(f"{v}, sizeof {v}")
    if built.program.states:
        section = ', section(".state")' if spans else ""
        lines.append(f"static int8_t state[{upper}_STATE_BYTES] __attribute__((aligned({upper}_ALIGNMENT){section}));")
    arguments.append("state, sizeof state" if built.program.states else "NULL, 0")
    reset = f"{p}_reset(&model);" if built.program.states else ""
    lines += [
        f"static {p}_model model;",
        "",
        f"static int init(void) {{ return (int){p}_init(&model, {', '.join(arguments)}); }}",
        f"static void reset(void) {{ {reset} }}",
        f"static int run(void) {{ return (int){p}_run(&model); }}",
        "",
        "static void *input(uint32_t index) {",
        *_cases(built, built.program.inputs),
        "}",
        "",
        "static const void *output(uint32_t index) {",
        *_cases(built, built.program.outputs),
        "}",
        "",
        *_tensors(built, "inputs", built.program.inputs),
        *_tensors(built, "outputs", built.program.outputs),
        "const edgec_bench_program edgec_bench = {",
        f"    .model_id = {string(model_id)},",
        f"    .input_count = {len(built.program.inputs)},",
        f"    .output_count = {len(built.program.outputs)},",
        "    .inputs = inputs,",
        "    .outputs = outputs,",
        "    .init = init,",
        "    .reset = reset,",
        "    .run = run,",
        "    .input = input,",
        "    .output = output,",
        "};",
        "",
    ]
    return "\n".join(lines)


def _cases(built: Built, ports: list[Port]) -> list[str]:
    cases = [f"    case {i}: return {built.prefix}_{built.ports[p.name]}(&model);" for i, p in enumerate(ports)]
    return ["    switch (index) {", *cases, "    default: return NULL;", "    }"]


def _tensors(built: Built, name: str, ports: list[Port]) -> list[str]:
    rows = [f"    {{{string(_short(p.name))}, {built.program.tensors[p.tensor].type.bytes}}}," for p in ports]
    return [f"static const edgec_bench_tensor {name}[] = {{", *(rows or ["    {NULL, 0},"]), "};"]


def _short(name: str) -> str:
    """What a frame of the serial protocol has room for: whole characters, at most 200 bytes of UTF-8."""
    return name.encode("utf-8", "replace")[:200].decode("utf-8", "ignore")
