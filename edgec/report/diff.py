# SPDX-License-Identifier: Apache-2.0
"""Two builds in one table each: figures, flash by layer, operators by name; a difference is B minus A."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgec.report.charts import LEVERS
from edgec.report.facts import Facts, Operator
from edgec.report.flash import layer_bytes
from edgec.report.markup import MINUS, Markup, element
from edgec.report.tables import Cell, row, table

Figure = tuple[str, int | float | None, int | float | None]
"""What it is; A's; B's."""
_DIFFERENCE = f"B {MINUS} A"


class Node(NamedTuple):
    """An operator of the model in one build: all steps that compute it, on other rows or once more."""

    op: str
    kind: str
    instructions: int | None
    flash_read: int | None


def figure_rows(a: Facts, b: Facts) -> list[Figure]:
    """RAM, flash and work of both."""
    rows: list[Figure] = []
    for part, keys in (
        ("ram", ("total_bytes", "arena_bytes", "state_bytes", "stack_bytes", "static_bytes")),
        ("flash", ("total_bytes", "weights_bytes", "code_bytes")),
        ("plan", ("placement_bound_bytes", "schedule_bound_bytes", "order_bound_bytes")),
    ):
        title = {"ram": "RAM", "flash": "flash", "plan": "bound"}[part]
        for key in keys:
            name = key.removesuffix("_bytes").removesuffix("_bound").replace("_", " ")
            rows.append((f"{title}: {name}, B", a.manifest[part][key], b.manifest[part][key]))
    for lever in LEVERS:
        before, after = (f.plan["levers"].get(lever) for f in (a, b))
        if before is not None or after is not None:
            rows.append((f"live at the peak: {LEVERS[lever]}, B", before, after))
    rows.append(("MAC", a.manifest["model"]["macs"], b.manifest["model"]["macs"]))
    rows.append(("steps", len(a.operators), len(b.operators)))
    for key, name in (
        ("instructions", "instructions"),
        ("cycles_estimate", "cycles, estimate"),
        ("milliseconds_estimate", "milliseconds, estimate"),
        ("flash_bytes_read", "flash bytes read"),
        ("flash_bytes_fetched", "flash bytes read past the cache"),
        ("stack_bytes", "stack, measured, B"),
    ):
        rows.append((name, a.measured(key), b.measured(key)))
    return rows


def operator_rows(a: Facts, b: Facts) -> list[tuple[str, Node | None, Node | None]]:
    """Operators of both by name: in A's order, then those that only B has."""
    ours, theirs = _nodes(a), _nodes(b)
    return [(name, ours.get(name), theirs.get(name)) for name in dict.fromkeys([*ours, *theirs])]


def _nodes(facts: Facts) -> dict[str, Node]:
    found: dict[str, list[Operator]] = {}
    for o in facts.operators:
        found.setdefault(re.sub(r" #\d+$", "", o.name), []).append(o)
    return {
        name: Node(
            steps[0].op,
            ", ".join(dict.fromkeys(o.kind for o in steps)),
            _sum(o.instructions for o in steps),
            _sum(o.flash_read for o in steps),
        )
        for name, steps in found.items()
    }


def _sum(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if None in known else sum(v for v in known if v is not None)


def figures(a: Facts, b: Facts) -> Markup:
    """The table of `figure_rows`."""
    rows = [row((name, x, y, _difference(x, y), _percent(x, y)), data_figure=name) for name, x, y in figure_rows(a, b)]
    return table(["", "A", "B", _DIFFERENCE, "%"], rows, caption="What a program takes.")


def layers(a: Facts, b: Facts) -> Markup:
    """Flash bytes by layer."""
    ours, theirs = layer_bytes(a), layer_bytes(b)
    rows = [
        row((name, x, y, _difference(x or 0, y or 0), _percent(x, y)))
        for name in dict.fromkeys([*ours, *theirs])
        for x, y in [(ours.get(name), theirs.get(name))]
    ]
    return table(
        ["layer", "A", "B", _DIFFERENCE, "%"], rows, caption="Constants by layer, and code; bytes.", sortable=True
    )


def operators(a: Facts, b: Facts) -> Markup:
    """Instructions and flash bytes of operators by name."""
    rows = []
    for name, x, y in operator_rows(a, b):
        known = [o for o in (x, y) if o is not None]
        kernels = " → ".join(dict.fromkeys(o.kind for o in known))
        cells: list[Cell] = [element("th", name, scope="row", class_="name"), known[-1].op, kernels]
        for key in ("instructions", "flash_read"):
            before, after = (getattr(o, key) if o is not None else None for o in (x, y))
            missing = 0 if x is None or y is None else None
            cells += [before, after, _difference(_or(before, missing), _or(after, missing))]
        rows.append(row(cells, data_operator=name, class_="lonely" if x is None or y is None else None))
    heads = ["name", "operator", "kernel", "instructions A", "B", _DIFFERENCE, "flash B read A", "B", _DIFFERENCE]
    caption = "Operators by name, all steps of one together; what only one build has counts as 0 in the other."
    return table(heads, rows, caption=caption, sortable=True)


def _or(value: int | None, missing: int | None) -> int | None:
    return missing if value is None else value


def _difference(a: int | float | None, b: int | float | None) -> Cell:
    if a is None or b is None:
        return None
    value = b - a
    shown = f"{abs(value):,.2f}" if isinstance(value, float) else f"{abs(value):,}"
    sign, kind = (MINUS, "less") if value < 0 else ("+", "more") if value > 0 else ("", "same")
    return element("td", sign + (shown if value else "0"), class_=f"n {kind}", data_v=value, data_difference=True)


def _percent(a: int | float | None, b: int | float | None) -> Cell:
    if not a or b is None:
        return None
    value = 100 * (b - a) / a
    return element("td", f"{value:+.1f}" if value else "0", class_="n", data_v=f"{value:.4f}")


def as_json(a: Facts, b: Facts) -> Mapping[str, object]:
    """The differences for programs; None where one of the two is not known."""
    return {
        "figures": [
            {"name": name, "a": x, "b": y, "difference": None if x is None or y is None else y - x}
            for name, x, y in figure_rows(a, b)
        ],
        "operators": [
            {"name": name, "a": x._asdict() if x else None, "b": y._asdict() if y else None}
            for name, x, y in operator_rows(a, b)
        ],
    }
