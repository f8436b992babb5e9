# SPDX-License-Identifier: Apache-2.0
"""The part of a model's C API by which an image comes in by rows: `<model>_feed_rows`, and the run that follows it.

`<model>_steps` holds every call of the program: turn i of the strips, or (the last i) all that comes after them. That
is one function so that a profile counts one inference by its calls, whichever function of the API set them off.
"""

from __future__ import annotations

from edgec.emit.model import Built, shape_text
from edgec.emit.names import comment
from edgec.operators.integer import product
from edgec.program import Feed, Port

PART = "part"
"""C name of the argument of `<model>_steps`: the turn of the strips, or their number for the rest."""


def steps_symbol(built: Built) -> str:
    """Name of the C function that calls the kernels."""
    return f"{built.prefix}_{'steps' if built.program.feed else 'run'}"


def entries(built: Built) -> int:
    """How often one inference enters that function."""
    return built.program.feed.loop.count + 1 if built.program.feed else 1


def steps_head(built: Built) -> list[str]:
    """The beginning of `<model>_steps`."""
    p = built.prefix
    return [
        "/* A turn of the strips, or all that follows the last of them. */",
        f"__attribute__((noinline)) static edgec_status {p}_steps(const {p}_model *m, int32_t {PART}) {{",
    ]


def api(built: Built, feed: Feed) -> list[str]:
    """`<model>_feed_rows` and `<model>_run`."""
    p, k = built.prefix, feed.rows_per_turn
    place = built.plan.placements[built.program.storage(feed.strip)]
    arena = f"m->{built.arena_variable(place.space)}" + (f" + {place.offset}" if place.offset else "")
    elements = row_elements(built, feed)
    size = row_bytes(built, feed)
    return [
        f"edgec_status {feed_declaration(built)} {{",
        "    if (m == NULL || rows == NULL || count < 0) return EDGEC_ERROR_ARGUMENT;",
        f"    if (count > {feed.rows} - m->rows) return EDGEC_ERROR_INPUT;",
        "    while (count > 0) {",
        f"        const int32_t held = m->rows % {k}, n = count < {k} - held ? count : {k} - held;",
        f"        memcpy({arena} + {size} * held, rows, {size}u * (size_t)n);",
        f"        rows += {elements} * n;",
        "        count -= n;",
        "        m->rows += n;",
        f"        if (m->rows % {k} == 0) {{",
        f"            const edgec_status status = {p}_steps(m, m->rows / {k} - 1);",
        "            if (status != EDGEC_OK) return status;",
        "        }",
        "    }",
        "    return EDGEC_OK;",
        "}",
        "",
        f"edgec_status {p}_run({p}_model *m) {{",
        f"    if (m->rows != {feed.rows}) return EDGEC_ERROR_INPUT;",
        "    m->rows = 0;",
        f"    return {p}_steps(m, {feed.loop.count});",
        "}",
    ]


def feed_declaration(built: Built) -> str:
    """`<model>_feed_rows` with its parameters."""
    p = built.prefix
    return f"{p}_feed_rows({p}_model *m, const {built.c_type(built.program.inputs[0])} *rows, int32_t count)"


def row_elements(built: Built, feed: Feed) -> int:
    """Elements of a row of the input."""
    return product(built.program.tensors[feed.tensor].type.shape) // feed.rows


def row_bytes(built: Built, feed: Feed) -> int:
    """Bytes of a row of the input."""
    return built.program.tensors[feed.tensor].type.bytes // feed.rows


def role(built: Built, port: Port, feed: Feed) -> list[str]:
    """What the header says of the input beside its layout and scale."""
    kind = built.program.tensors[port.tensor].type
    return [
        f"/* {comment(port.name)} {kind.dtype}{shape_text(kind.shape)}, input, by rows: {feed.rows} of"
        f" {row_bytes(built, feed)} bytes before every run, in order, any number at a",
        f" * time. They are copied; after every {feed.rows_per_turn} the network takes them in, within that call.",
        " * From the first row to the run the arena has to be left alone. EDGEC_ERROR_INPUT: more rows than are",
        f" * missing; none was taken. To drop an image half-way, call {built.prefix}_init again.",
    ]
