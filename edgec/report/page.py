# SPDX-License-Identifier: Apache-2.0
"""The pages themselves: one build, or two beside each other; self-contained, for light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path

from edgec.report import charts, diff, drift, flash, memory, tables
from edgec.report.facts import Facts
from edgec.report.markup import Markup, element, join

_FOLDER = Path(__file__).resolve().parent


def page(facts: Facts) -> str:
    """The report of one build."""
    m = facts.manifest
    sections = [
        _section("Memory over time", _memory_note(facts), memory.legend(), memory.memory_pictures(facts),
                 _details("The same as a table", tables.buffers(facts))),
        _section("Bounds, and what each lever saved", _untouched(facts), charts.levers(facts)),
        _section("Flash by layer", flash.flash_map(facts), _details("The same as a table", _layers(facts))),
        _section("Operators", tables.operators(facts), tables.families(facts)),
        _section("Drift", drift.drift_pictures(facts.drift)) if facts.drift else None,
        _section("Inputs and outputs", tables.ports(facts)),
        _section("Made by", tables.tools(facts)),
    ]  # fmt: skip
    head = element(
        "header",
        element("p", "edgec report", class_="kicker"),
        element("h1", m["model"]["name"], element("span", f" on {m['target']}")),
        element("div", *_cards(facts), class_="cards"),
    )
    return _document(facts.title, join(head, element("main", *sections)))


def diff_page(a: Facts, b: Facts) -> str:
    """Two builds: figures side by side, operators matched by name, memory on one scale."""
    scale = memory.Scale.of(a, b)
    sections = [
        _section("Figures", diff.figures(a, b)),
        _section("Memory over time", element("p", "Both on one scale."), memory.legend(),
                 element("h3", f"A: {a.folder}, {a.title}"), memory.memory_pictures(a, scale, "a"),
                 element("h3", f"B: {b.folder}, {b.title}"), memory.memory_pictures(b, scale, "b")),
        _section("Flash by layer", diff.layers(a, b)),
        _section("Operators", diff.operators(a, b)),
        _section("Made by", element("h3", "A"), tables.tools(a), element("h3", "B"), tables.tools(b)),
    ]  # fmt: skip
    head = element(
        "header",
        element("p", "edgec report: two builds", class_="kicker"),
        *(
            element("h1", f"{mark}: {f.folder} ", element("span", f.title), class_="one-of-two")
            for mark, f in (("A", a), ("B", b))
        ),
    )
    return _document(f"{a.folder}, {b.folder}", join(head, element("main", *sections)))


def _section(title: str, *children: object) -> Markup:
    return element("section", element("h2", title), *children)


def _details(title: str, *children: object) -> Markup:
    return element("details", element("summary", title), *children)


def _memory_note(facts: Facts) -> Markup:
    plan, live = facts.plan, facts.plan["placement_bound_bytes"]
    over = plan["arena_bytes"] - live
    how = "exactly the bytes live at the peak" if over == 0 else f"{over:,} B more than the {live:,} B live at the peak"
    return element(
        "p",
        f"The arena takes {plan['arena_bytes']:,} B, {how}, which is at ",
        element("b", plan["peak_at"]),
        f" (step {plan['peak_step']} of {len(facts.operators)}). Point at anything for its name.",
    )


def _untouched(facts: Facts) -> Markup | None:
    if facts.plan["levers"]:
        return None
    return element("p", "This program runs in the graph's own order: those with state, and those for a computer, do.")


def _cards(facts: Facts) -> list[Markup]:
    ram, rom, macs = facts.manifest["ram"], facts.manifest["flash"], facts.manifest["model"]["macs"]
    parts = [(label, ram[f"{key}_bytes"]) for key, label in
             (("arena", "arena"), ("state", "state"), ("stack", "stack ≤"), ("static", "static"))]  # fmt: skip
    constants = [("weights", rom["weights_bytes"]), ("code", rom["code_bytes"])]
    cards = [
        _card("RAM", ram["total_bytes"] or ram["arena_bytes"], "B", facts.ram_have, _known(parts)),
        _card("Flash", rom["total_bytes"] or rom["weights_bytes"], "B", facts.flash_have, _known(constants)),
    ]
    instructions = facts.measured("instructions")
    if instructions is not None:
        rows = charts.by_operator(facts)
        shown = [(op, n or 0) for op, *_, n in rows[:4]]
        shown.append(("other", instructions - sum(n for _, n in shown)))
        each = f"{instructions / macs:.3f} for each of {macs:,} MAC" if macs else "no MAC"
        cards.append(_card("Instructions of a run", instructions, "", 0, shown, f"exact; {each}"))
    cycles = facts.measured("cycles_estimate")
    if cycles is not None and facts.profile:
        split = facts.profile["cycles_estimate_parts"]
        clock = f"estimate: {facts.profile['milliseconds_estimate']:.2f} ms" if facts.clock_hz else "estimate"
        at = f"{clock} at {facts.clock_hz / 1e6:g} MHz" if facts.clock_hz else clock
        cards.append(_card("Cycles, estimate", cycles, "", 0, list(split.items()), at))
    if instructions is None:
        seconds = facts.measured("seconds")
        told = f"{1000 * seconds:.3f} ms on this machine" if seconds is not None else "not profiled"
        cards.append(_card("Work", macs, "MAC", 0, [], f"{len(facts.operators)} steps; {told}"))
    return cards


def _known(parts: list[tuple[str, int | None]]) -> list[tuple[str, int]]:
    return [(name, size) for name, size in parts if size is not None]


def _card(title: str, value: int, unit: str, have: int, parts: list[tuple[str, int]], told: str = "") -> Markup:
    if have:
        told = f"{100 * value / have:.1f} % of {have:,} B"
    return element(
        "div",
        element("h2", title),
        element("p", f"{value:,}", element("small", f" {unit}") if unit else None, class_="figure"),
        element("p", told, class_="told"),
        charts.stacked(parts, have) if parts else None,
        class_="card",
    )


def _layers(facts: Facts) -> Markup:
    sizes = flash.layer_bytes(facts)
    total = max(1, sum(sizes.values()))
    rows = [tables.row((name, size, 100 * size / total)) for name, size in sizes.items()]
    return tables.table(["layer", "bytes", "%"], rows, caption="Flash by layer.", sortable=True)


def _document(title: str, body: Markup) -> str:
    style, script = ((_FOLDER / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    head = element(
        "head",
        Markup('<meta charset="utf-8"/>'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} - edgec"),
        element("style", Markup(style)),
    )
    tip = element("div", id="tip", role="status", hidden=True)
    whole = element("html", head, element("body", body, tip, element("script", Markup(script))), lang="en")
    return f"<!doctype html>\n{whole}\n"
