# SPDX-License-Identifier: Apache-2.0
"""Tables of a report; those with `sortable` columns are sorted by clicking on a heading."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from edgec.report.charts import by_operator
from edgec.report.facts import Facts
from edgec.report.markup import Markup, element, join

Cell = Markup | str | int | float | None
"""Numbers stand flush right with thousands apart; None is not known."""

_LONG = 40
"""Rows from which a table scrolls in a window of its own."""


def table(heads: Sequence[str], rows: Iterable[Markup], *, caption: str, sortable: bool = False) -> Markup:
    """A table of rows that `row` made; headings stand as the first row's cells do."""
    rows = list(rows)
    numbers = [cell.startswith('<td class="n') for cell in re.findall(r"<t[dh][^>]*>", rows[0])] if rows else []
    cells = (
        element(
            "th",
            element("button", head, type="button") if sortable else head,
            scope="col",
            class_="n" if number else None,
            aria_sort="none" if sortable else None,
        )
        for head, number in zip_longest(heads, numbers)
    )
    inner = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *cells)),
        element("tbody", *rows),
        class_="sortable" if sortable else None,
    )
    return element("div", inner, class_="scroll table long" if len(rows) > _LONG else "scroll table", tabindex=0)


def row(cells: Iterable[Cell], **attributes: object) -> Markup:
    """One row: its first cell names it."""
    return element("tr", *(_cell(c, i == 0) for i, c in enumerate(cells)), **attributes)


def _cell(value: Cell, head: bool) -> Markup:
    if isinstance(value, Markup):
        return value
    if isinstance(value, str):
        return element("th", value, scope="row") if head else element("td", value)
    shown = "-" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
    return element("td", shown, class_="n", data_v=-1 if value is None else value)


def operators(facts: Facts) -> Markup:
    """Every step: what it is, what it computes, what it costs."""
    total = facts.measured("instructions")
    heads = ["step", "name", "operator", "kernel", "turns", "MAC", "instructions", "share", "cycles (estimate)",
             "flash B read", "past cache"]  # fmt: skip
    rows = []
    most = max((100 * (o.instructions or 0) / total for o in facts.operators), default=0.0) if total else 0.0
    for o in facts.operators:
        share = None if not total or o.instructions is None else 100 * o.instructions / total
        rows.append(
            row(
                (
                    o.step,
                    element("th", o.name, scope="row", class_="name"),
                    o.op,
                    element("td", o.kind, class_=f"kernel {o.kind}", data_tip=o.kernel),
                    o.turns,
                    o.macs,
                    o.instructions,
                    _share(share, most or 1.0),
                    o.cycles,
                    o.flash_read,
                    o.flash_fetched,
                ),
                data_operator=o.name,
            )
        )
    caption = (
        "Every step of the program, all its turns together. Instructions and flash bytes read are exact counts, bytes"
        " past the cache are what the modelled data cache had to fetch, cycles are an estimate."
    )
    if total is None:
        caption = "Every step of the program. Nothing was measured."
    return table(heads, rows, caption=caption, sortable=True)


def _share(share: float | None, most: float) -> Cell:
    if share is None:
        return None
    bar = element("i", class_="share", style=f"width:{max(0.0, min(100 * share / most, 100)):.2f}%")
    return element("td", f"{share:.1f} %", bar, class_="n shared", data_v=f"{share:.4f}")


def families(facts: Facts) -> Markup:
    """Each kind of operator."""
    total = facts.measured("instructions")
    rows = [
        row((
            op, steps, turns, macs, instructions,
            _share(100 * instructions / total if total and instructions is not None else None, 100.0),
            instructions / macs if macs and instructions is not None else None,
        ))
        for op, steps, turns, macs, instructions in by_operator(facts)
    ]  # fmt: skip
    heads = ["operator", "steps", "calls", "MAC", "instructions", "share", "per MAC"]
    return table(heads, rows, caption="The same by kind of operator.", sortable=True)


def buffers(facts: Facts) -> Markup:
    """Every buffer of the arena: the picture as a table."""
    rows = [
        row((
            element("th", b.name, scope="row", class_="name"), b.kind, b.space, b.offset, b.size, b.first, b.last - 1,
            b.inside or "", len(b.then),
        ))
        for b in facts.buffers
    ]  # fmt: skip
    heads = ["buffer", "kind", "memory", "offset", "bytes", "from step", "to step", "begins inside", "taken over"]
    return table(heads, rows, caption="Every buffer of the arena.", sortable=True)


def ports(facts: Facts) -> Markup:
    """Inputs, outputs and states with their types and scales."""
    rows = []
    for what, key in (("input", "inputs"), ("output", "outputs"), ("state", "states")):
        for p in facts.manifest[key]:
            shape = "×".join(str(d) for d in p["shape"])
            scale = "-" if p["scale"] is None else f"{p['scale']:.6g}"
            rows.append(row((p["name"], what, shape, p["dtype"], scale, p["zero_point"])))
    return table(["name", "", "shape", "type", "scale", "zero point"], rows, caption="What goes in and comes out.")


def tools(facts: Facts) -> Markup:
    """Versions and hashes."""
    model = facts.manifest["model"]
    listed = {
        "model": f"sha256 {model['sha256']}",
        "program": facts.manifest["model_id"],
        **{name: str(version) for name, version in facts.manifest.get("tools", {}).items()},
    }
    if facts.profile:
        listed["measured on"] = str(facts.profile["measured_on"])
    pairs = (join(element("dt", name), element("dd", value)) for name, value in listed.items())
    return element("dl", *pairs, class_="tools")
