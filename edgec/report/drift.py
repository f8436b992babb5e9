# SPDX-License-Identifier: Apache-2.0
"""How far a stream's outputs are from float as the steps go by: a curve for each form, on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgec.report import tables
from edgec.report.markup import Markup, element, join

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 16, 40
_WIDTH, _HEIGHT = 1136, 300
_COLOURS = 5

Stretch = Mapping[str, Any]
"""Steps `[first, last)` with their relative_error and top1 (agreement, or None): see `edgec.quantize.drift`."""


def drift_pictures(drift: Mapping[str, Any]) -> Markup:
    """One picture for each output, and the same as a table.

    Args:
        drift: what `edgec verify` found: "steps", "reference", and "outputs": name -> form -> stretches.
    """
    return join(*(_output(name, forms, drift["reference"]) for name, forms in drift["outputs"].items()))


def _output(name: str, all_forms: Mapping[str, Sequence[Stretch]], reference: str) -> Markup:
    forms = _equals_joined(all_forms)
    keys = [element("span", element("i", class_=f"key part{i % _COLOURS}"), form) for i, form in enumerate(forms)]
    caption = element("figcaption", f"{name}: error relative to {reference}, of each stretch of steps")
    figure = element("figure", caption, element("p", *keys, class_="legend"), _Picture(forms).draw(name))
    rows = [
        tables.row(
            (
                form,
                f"{s['first'] + 1:,} to {s['last']:,}",
                f"{s['relative_error']:.3%}",
                "" if s["top1"] is None else f"{s['top1']:.2%}",
            )
        )
        for form, stretches in forms.items()
        for s in stretches
    ]
    table = tables.table(["form", "steps", "relative error", "same largest output"], rows, caption=f"Drift of {name}.")
    return join(figure, element("details", element("summary", "The same as a table"), table))


def _equals_joined(forms: Mapping[str, Sequence[Stretch]]) -> dict[str, Sequence[Stretch]]:
    """Forms of the same curve under one name."""
    joined: dict[str, Sequence[Stretch]] = {}
    for form, stretches in forms.items():
        same = next((name for name, other in joined.items() if list(other) == list(stretches)), None)
        if same is not None:
            del joined[same]
        joined[form if same is None else f"{same} = {form}"] = stretches
    return joined


class _Picture:
    def __init__(self, forms: Mapping[str, Sequence[Stretch]]) -> None:
        self.forms = forms
        every = [s for stretches in forms.values() for s in stretches]
        errors = [s["relative_error"] for s in every if s["relative_error"] > 0]
        self.low = math.floor(math.log10(min(errors, default=1e-3)))
        self.high = max(math.ceil(math.log10(max(errors, default=1e-1))), self.low + 1)
        self.steps = max((s["last"] for s in every), default=1)

    def x(self, step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log10(max(step, 1)) / max(math.log10(self.steps), 1e-9)

    def y(self, error: float) -> float:
        at = (math.log10(error) - self.low) / (self.high - self.low) if error > 0 else 0.0
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * at

    def draw(self, name: str) -> Markup:
        svg = element(
            "svg",
            join(*self._grid()),
            join(*(self._curve(form, s, i % _COLOURS) for i, (form, s) in enumerate(self.forms.items()))),
            width=_WIDTH,
            height=_HEIGHT,
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            role="img",
            aria_label=f"Drift of {name} over {self.steps:,} steps; the table below has the same.",
        )
        return element("div", svg, class_="scroll", tabindex=0)

    def _grid(self) -> Iterator[Markup]:
        right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        for power in range(self.low, self.high + 1):
            y = self.y(10.0**power)
            yield element("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid")
            yield element("text", f"{10.0**power:.12g}", x=_LEFT - 8, y=y + 4, class_="axis end")
        for power in range(int(math.log10(self.steps)) + 1):
            x = self.x(10.0**power)
            yield element("line", x1=x, x2=x, y1=_TOP, y2=floor, class_="grid")
            yield element("text", f"{10**power:,}", x=x, y=floor + 18, class_="axis middle")
        yield element("text", "step", x=right, y=_HEIGHT - 6, class_="axis end")

    def _curve(self, form: str, stretches: Sequence[Stretch], colour: int) -> Markup:
        points = [(self.x(math.sqrt((s["first"] + 1) * s["last"])), self.y(s["relative_error"])) for s in stretches]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        dots = (
            element("circle", cx=x, cy=y, r=3.5, class_=f"dot{colour}", data_tip=_tip(form, s))
            for (x, y), s in zip(points, stretches, strict=True)
        )
        return join(element("path", d=path, class_=f"curve curve{colour}") if points else None, *dots)


def _tip(form: str, s: Stretch) -> str:
    same = "" if s["top1"] is None else f"\nsame largest output in {s['top1']:.2%}"
    return f"{form}, steps {s['first'] + 1:,} to {s['last']:,}\nrelative error {s['relative_error']:.3%}{same}"
