# SPDX-License-Identifier: Apache-2.0
"""An input that comes by rows: which ones can, and what tiling sees of it.

Feeding is an operator without operands, at the front of the graph, whose value is never kept. So the stage that reads
the input holds no more of it than a strip, the rows of one turn; it runs first, turn by turn, as strips come in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from edgec.errors import UsageError
from edgec.program import Feed, Loop, Program
from edgec.schedule.rows import RowGraph, Work
from edgec.schedule.tile import Tiling
from edgec.target import Target

Feeding = Literal["whole", "rows"]
"""How an image comes in: into a buffer for all of it, or by rows."""


def rows_of(program: Program) -> int:
    """Rows of the program's only input: its leading axis that is longer than 1, in device layout."""
    return next((n for n in program.tensors[program.inputs[0].tensor].type.shape if n > 1), 1)


def require_feedable(program: Program, target: Target) -> None:
    """Raise UsageError for a program none of whose inputs can come by rows on that target, whatever its operators."""
    if len(program.inputs) != 1:
        raise UsageError(f"{program.name} cannot be fed by rows: it has {len(program.inputs)} inputs, not one")
    port = program.inputs[0]
    if program.states:
        raise _refused(program, "the model has a state")
    if not target.ram_spans():
        raise _refused(program, f"{target.name} is not a board, and short of nothing")
    if program.root(port.tensor) in {program.root(p.tensor) for p in program.outputs}:
        raise _refused(program, "it is an output too")
    if rows_of(program) < 2:
        raise _refused(program, "it is a single row")


def by_rows(program: Program, graph: RowGraph) -> RowGraph:
    """The graph with its input fed by rows.

    Raises:
        UsageError: an operator needs more of the input than the rows that it makes rows of.
    """
    value = program.storage(program.inputs[0].tensor)
    for work in graph.works:
        if value in work.whole or (value in work.rows and not work.by_rows):
            raise _refused(program, f"{work.name} ({program.calls[work.step].op}) reads other rows than those at hand")
    size = graph.sizes[value]
    fed = Work(f"feed {value}", (), (), value, rows_of(program), size // 4, step=-1, fed=True)
    return replace(graph, works=(fed, *graph.works))


def by_strips(program: Program, tilings: list[Tiling]) -> list[Tiling]:
    """The tilings that begin with the strips of the input.

    Raises:
        UsageError: there are none.
    """
    found = [t for t in tilings if t.stages[0].is_strip(t.blocks[0].block) and not any(_keeps_fed(t))]
    if not found:
        raise _refused(program, "the operators that read it cannot run on strips of it")
    return found


def _keeps_fed(tiling: Tiling) -> list[bool]:
    """Of each stage, whether it runs on the input but not as the first, or keeps it."""
    return [(i > 0 and s.fed) or bool(s.graph.fed & set(s.makes)) for i, s in enumerate(tiling.stages)]


def feed_of(program: Program, strip: str, loop: Loop) -> Feed:
    """What the program says of its input: `strip` holds the rows of a turn of `loop`."""
    return Feed(program.inputs[0].tensor, strip, rows_of(program), loop)


def _refused(program: Program, reason: str) -> UsageError:
    return UsageError(
        f"input {program.inputs[0].name!r} of {program.name} cannot be fed by rows: {reason}", hint="--feed whole"
    )
