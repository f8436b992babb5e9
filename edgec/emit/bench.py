# SPDX-License-Identifier: Apache-2.0
"""`bench.c`: the glue between a compiled model and the bench (firmware or host library), see edgec_bench.h."""

from __future__ import annotations

from edgec.emit.feed import row_bytes
from edgec.emit.model import LICENSE, Built
from edgec.emit.names import string
from edgec.program import Feed, Port

FEED_ROWS = 1
"""Rows that the bench gathers before it feeds them."""


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
        *(_feed(built, built.program.feed) if built.program.feed else _input(built)),
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
        *(["    .feed = feed,"] if built.program.feed else []),
        *(["    .state = state,", "    .state_bytes = sizeof state,"] if built.program.states else []),
        "};",
        "",
    ]
    return "\n".join(lines)


def _input(built: Built) -> list[str]:
    return ["static void *input(uint32_t index) {", *_cases(built, built.program.inputs), "}", ""]


def _feed(built: Built, feed: Feed) -> list[str]:
    """Bytes as they come, gathered until they are rows."""
    p, row = built.prefix, row_bytes(built, feed)
    kind = built.c_type(built.program.inputs[0])
    return [
        "static void *input(uint32_t index) {",
        "    (void)index;",
        "    return NULL;",
        "}",
        "",
        "static int feed(uint32_t index, uint32_t offset, const void *bytes, uint32_t count) {",
        f"    static union {{ int8_t bytes[{FEED_ROWS * row}]; {kind} values; }} rows;",
        "    static uint32_t taken;",
        "    if (offset == 0u) {",
        "        taken = 0u;",
        "        if (init() != 0) return -1;",
        "    }",
        f"    if (index != 0u || offset != taken || count > {feed.rows * row}u - taken) return -1;",
        "    for (uint32_t i = 0; i < count; ++i) {",
        f"        rows.bytes[taken++ % {FEED_ROWS * row}u] = ((const int8_t *)bytes)[i];",
        f"        const uint32_t held = taken % {FEED_ROWS * row}u;",
        f"        if (held != 0u && taken < {feed.rows * row}u) continue;",
        f"        const int32_t whole = held == 0u ? {FEED_ROWS} : (int32_t)(held / {row}u);",
        f"        const int status = (int){p}_feed_rows(&model, &rows.values, whole);",
        "        if (status != 0) return status;",
        "    }",
        "    return 0;",
        "}",
        "",
    ]


def _cases(built: Built, ports: list[Port]) -> list[str]:
    cases = [f"    case {i}: return {built.prefix}_{built.ports[p.name]}(&model);" for i, p in enumerate(ports)]
    return ["    switch (index) {", *cases, "    default: return NULL;", "    }"]


def _tensors(built: Built, name: str, ports: list[Port]) -> list[str]:
    rows = [f"    {{{string(_short(p.name))}, {built.program.tensors[p.tensor].type.bytes}}}," for p in ports]
    return [f"static const edgec_bench_tensor {name}[] = {{", *(rows or ["    {NULL, 0},"]), "};"]


def _short(name: str) -> str:
    """What a frame of the serial protocol has room for: whole characters, at most 200 bytes of UTF-8."""
    return name.encode("utf-8", "replace")[:200].decode("utf-8", "ignore")
