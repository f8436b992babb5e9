# SPDX-License-Identifier: Apache-2.0
"""Names for readers of the generated code."""

from __future__ import annotations

from typing import TypeVar

import onnx_ir as ir

from edgec.passes.graph_edit import WISH, GraphEdit

_Named = TypeVar("_Named", ir.Value, ir.Node)


def name_everything(edit: GraphEdit) -> None:
    """Give every node a name: its own, else its operator's with a number.

    Requires: nothing.
    Ensures: every node of the graph has a name, not empty, that no other node has; values too.
    """
    nodes: set[str] = set()
    taken = {n.name for n in edit.graph if n.name}
    for node in edit.graph:
        wanted = node.name or node.op_type
        name, count = wanted, 1
        while name in nodes or (not node.name and name in taken):
            count += 1
            name = f"{wanted}.{count}"
        nodes.add(name)
        node.name = name


def tidy_names(edit: GraphEdit) -> None:
    """Give what the passes made the names that they asked for, now that what they replaced is gone.

    Requires: no dead nodes.
    Ensures: names of inputs and outputs are the model's; every other name is unique.
    """
    graph = edit.graph
    fixed = {v.name for v in (*graph.inputs, *graph.outputs)}
    values = [v for n in graph for v in n.outputs if not v.is_graph_output()]
    values += [v for v in graph.initializers.values() if not v.is_graph_output()]
    for value, name in _wishes(values, fixed):
        value.name = name
    for node, name in _wishes(list(graph), set()):
        node.name = name


def _wishes(things: list[_Named], taken: set[str | None]) -> list[tuple[_Named, str]]:
    """Each thing with the name it gets; those that nobody made keep theirs. All are renamed aside first."""
    names = taken | {t.name for t in things if WISH not in t.meta}
    made = [t for t in things if WISH in t.meta]
    for i, thing in enumerate(made):
        thing.name = f"\0{i}"
    granted = []
    for thing in made:
        wish: str = thing.meta[WISH]
        name, count = wish, 1
        while name in names:
            count += 1
            name = f"{wish}.{count}"
        names.add(name)
        granted.append((thing, name))
    return granted
