# SPDX-License-Identifier: Apache-2.0
"""Small charts of bars: what memory is made of, what each lever saved, which operators take the instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgec.report.facts import Facts
from edgec.report.markup import MINUS, Markup, element, join

LEVERS = {
    "none": "the graph's own order",
    "order": "+ order",
    "overlap": "+ overlap",
    "tile": "+ tile",
    "rows": "+ rows in",
    "place": "+ place: the arena",
}
"""What the scheduler does, each on top of the ones before it."""
BOUNDS = (
    ("order_bound_bytes", "order bound", "no order of whole operators has less live"),
    ("schedule_bound_bytes", "schedule bound", "no tiling that was considered has less live"),
    ("placement_bound_bytes", "placement bound", "live at the peak of this schedule: no placement of it takes less"),
)


def stacked(parts: Sequence[tuple[str, int]], have: int = 0) -> Markup:
    """One bar of several parts, with its legend; the rest of `have` stays empty."""
    total = max(have, sum(size for _, size in parts), 1)
    bar = (
        element("i", class_=f"part{i}", style=f"width:{100 * size / total:.3f}%", data_tip=f"{name}\n{size:,}")
        for i, (name, size) in enumerate(parts)
        if size
    )
    names = (
        element("span", element("i", class_=f"key part{i}"), f"{name} {size:,}") for i, (name, size) in enumerate(parts)
    )
    return join(element("div", *bar, class_="stacked"), element("p", *names, class_="legend"))


def levers(facts: Facts) -> Markup:
    """Live bytes at the peak with each lever on top of those before it, and the bounds as lines through the bars."""
    saved: Mapping[str, int] = facts.plan["levers"]
    bounds = [(key, label, told, facts.plan[key]) for key, label, told in BOUNDS if facts.plan[key] is not None]
    top = max([*saved.values(), *(b[3] for b in bounds), 1])
    rows, before = [], None
    for lever, size in saved.items():
        change = "" if before is None else _change(size - before)
        row = (
            element("span", LEVERS.get(lever, lever), class_="lever"),
            element(
                "span",
                element("i", class_="bar place" if lever == "place" else "bar", style=f"width:{100 * size / top:.3f}%"),
                *(
                    element(
                        "i", class_=f"bound {key}", style=f"left:{100 * b / top:.3f}%", data_tip=f"{label}\n{b:,} B"
                    )
                    for key, label, _, b in bounds
                ),
                class_="track",
            ),
            element("span", f"{size:,} B", class_="number"),
            element("span", change, class_="number change"),
        )
        rows.append(element("div", *row))
        before = size
    chart = element("div", *rows, class_="levers") if rows else None
    told = [
        element("li", element("i", class_=f"key bound {key}"), element("b", f"{label} {size:,} B"), f" {text}")
        for key, label, text, size in bounds
    ]  # fmt: skip
    return join(chart, element("ul", *told, class_="bounds"))


def _change(difference: int) -> str:
    return f"{MINUS}{-difference:,}" if difference < 0 else f"+{difference:,}" if difference else "0"


def by_operator(facts: Facts) -> list[tuple[str, int, int, int, int | None]]:
    """(operator, steps, turns, MACs, instructions) of each kind of operator, the dearest first."""
    found: dict[str, list[int]] = {}
    for o in facts.operators:
        row = found.setdefault(o.op, [0, 0, 0, 0])
        for i, value in enumerate((1, o.turns, o.macs, o.instructions or 0)):
            row[i] += value
    known = any(o.instructions is not None for o in facts.operators)
    rows = [(op, r[0], r[1], r[2], r[3] if known else None) for op, r in found.items()]
    return sorted(rows, key=lambda r: (-(r[4] or 0), -r[3]))
