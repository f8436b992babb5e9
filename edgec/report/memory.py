# SPDX-License-Identifier: Apache-2.0
"""The arena as a picture: program steps to the right, offsets upwards, each buffer a rectangle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from edgec.report.facts import Buffer, Facts
from edgec.report.markup import Markup, element, join

_LEFT, _RIGHT, _TOP = 76, 14, 58
_MAP, _GAP, _STRIP, _BOTTOM = 380, 12, 64, 30
_WIDTH = 1136
_STEP = 7.0, 120.0
_CHARACTER = 7.0
"""Pixels that a character of a label takes, about."""
KINDS = {
    "input": "input",
    "output": "output",
    "tensor": "tensor",
    "scratch": "scratch of one step",
}


@dataclass(frozen=True)
class Scale:
    """Pixels of a step, and the bytes that the picture's height stands for: two pictures may share one."""

    step: float
    top: int

    @staticmethod
    def of(*all_facts: Facts) -> Scale:
        """A scale on which all of these fit."""
        steps = max(max(1, len(f.operators)) for f in all_facts)
        step = min(max((_WIDTH - _LEFT - _RIGHT) / steps, _STEP[0]), _STEP[1])
        return Scale(step, max(1, *(size for f in all_facts for size in _spaces(f).values())))


def memory_pictures(facts: Facts, scale: Scale | None = None, mark: str = "") -> Markup:
    """One picture for each memory that the arena takes, and what its colours mean.

    Args:
        facts: the artifact.
        scale: by default one that fits it alone.
        mark: makes the picture's identifiers its own where a page has several.
    """
    spaces = _spaces(facts)
    scale = scale or Scale.of(facts)
    figures = [_Picture(facts, space, scale, f"{mark}{i}").draw(len(spaces) > 1) for i, space in enumerate(spaces)]
    return join(*figures)


def legend() -> Markup:
    """What colours and lines of the pictures mean."""
    keys = [element("span", element("i", class_=f"key {kind}"), label) for kind, label in KINDS.items()]
    keys.append(element("span", element("i", class_="key tensor inside"), "begins inside bytes that die"))
    keys.append(element("span", element("i", class_="key then"), "another tensor takes the bytes over"))
    keys.append(element("span", element("i", class_="key loop"), "loop"))
    keys.append(element("span", element("i", class_="key peak"), "peak"))
    return element("p", *keys, class_="legend")


def _spaces(facts: Facts) -> dict[str, int]:
    """Bytes of each memory that the arena takes."""
    spaces: dict[str, int] = facts.plan["spaces"]
    return spaces


def _ticks(top: int) -> range:
    """Round offsets, four to eight of them."""
    step = 1
    while top // step > 8:
        step *= 2
    return range(0, top + 1, step)


@dataclass(frozen=True)
class _Picture:
    facts: Facts
    space: str
    scale: Scale
    mark: str

    @property
    def steps(self) -> int:
        return max(1, len(self.facts.operators))

    @property
    def right(self) -> float:
        return self.x(self.steps)

    @property
    def floor(self) -> float:
        return _TOP + _MAP

    def x(self, step: float) -> float:
        return _LEFT + step * self.scale.step

    def y(self, offset: float) -> float:
        return self.floor - offset * _MAP / self.scale.top

    def draw(self, name_space: bool) -> Markup:
        width, height = max(self.right + _RIGHT, 420.0), self.floor + _GAP + _STRIP + _BOTTOM
        size = _spaces(self.facts)[self.space]
        told = f"Memory over time: {len(self.facts.buffers)} buffers in {size:,} B of {self.space}"
        svg = element(
            "svg",
            self._patterns(),
            join(*self._loops()),
            join(*self._grid()),
            join(*(self._buffer(b, i % 3) for i, b in enumerate(self._buffers()))),
            join(*(self._label(b) for b in self._buffers())),
            join(*self._peak()),
            join(*self._strip()),
            join(*self._layers()),
            width=width,
            height=height,
            viewBox=f"0 0 {width:.0f} {height:.0f}",
            role="img",
            aria_label=told + "; the table below has the same.",
        )
        caption = element("figcaption", f"{self.space}: {size:,} B") if name_space else None
        return element("figure", caption, element("div", svg, class_="scroll", tabindex=0), class_="memory")

    def _patterns(self) -> Markup:
        line = element("path", d="M0 6L6 0", class_="hatch")
        pattern = element(
            "pattern",
            element("rect", width=6, height=6, class_="hatch-ground"),
            line,
            id=f"hatch{self.mark}",
            width=6,
            height=6,
            patternUnits="userSpaceOnUse",
        )
        return element("defs", pattern)

    def _buffers(self) -> list[Buffer]:
        """The larger ones first, so that what lies inside another is drawn over it."""
        mine = [b for b in self.facts.buffers if b.space == self.space]
        return sorted(mine, key=lambda b: (b.inside is not None, -b.size * (b.last - b.first), b.first))

    def _buffer(self, b: Buffer, shade: int) -> Markup:
        x, y = self.x(b.first), self.y(b.offset + b.size)
        width, height = self.x(b.last) - x, self.y(b.offset) - y
        shape = element(
            "rect",
            x=x + 0.5,
            y=y + 0.5,
            width=max(width - 1, 1.0),
            height=max(height - 1, 1.0),
            rx=min(3.0, height / 4),
            class_=f"buffer {f'shade{shade}' if b.kind == 'tensor' else b.kind}" + (" inside" if b.inside else ""),
            fill=f"url(#hatch{self.mark})" if b.kind == "scratch" else None,
            data_buffer=b.name,
            data_tip=_tip(b),
        )
        taken = (element("line", x1=at, x2=at, y1=y + 2, y2=y + height - 2, class_="then") for at in self._taken(b))
        return join(shape, *taken)

    def _taken(self, b: Buffer) -> Iterator[float]:
        return (self.x(step) for _, step in b.then if b.first < step < b.last)

    def _label(self, b: Buffer) -> Markup | None:
        """Its name where there is room; the size too where there is more."""
        width = self.x(b.last) - self.x(b.first) - 8
        height = self.y(b.offset) - self.y(b.offset + b.size)
        room = int(width / _CHARACTER)
        if height < 15 or room < 6:
            return None
        top = self.y(b.offset + b.size)
        lines = [_short("scratch" if b.kind == "scratch" else b.name, room)]
        kind = "name dark" if b.kind == "scratch" else "name"
        if height >= 30 and room >= len(f"{b.size:,} B"):
            lines.append(f"{b.size:,} B")
        at = top + height / 2 + 4 - 7 * (len(lines) - 1)
        return join(
            *(
                element("text", line, x=self.x(b.first) + 5, y=at + 14 * i, class_=kind if i == 0 else f"{kind} size")
                for i, line in enumerate(lines)
            )
        )

    def _grid(self) -> Iterator[Markup]:
        for offset in _ticks(self.scale.top):
            y = self.y(offset)
            yield element("line", x1=_LEFT, x2=self.right, y1=y, y2=y, class_="grid")
            yield element("text", f"{offset:,}", x=_LEFT - 8, y=y + 4, class_="axis end")
        yield element("text", "offset, B", x=_LEFT - 8, y=_TOP - 16, class_="axis end")

    def _loops(self) -> Iterator[Markup]:
        for loop in self.facts.loops:
            x, width = self.x(loop.first), self.x(loop.last) - self.x(loop.first)
            tip = f"loop: steps {loop.first} to {loop.last - 1} run {loop.turns} times\n{loop.note}"
            yield element(
                "rect", x=x, y=_TOP - 8, width=width, height=_MAP + 8 + _GAP + _STRIP, class_="loop", data_tip=tip
            )
            yield element("path", d=f"M{x + 1:.1f} {_TOP - 2}v-6h{width - 2:.1f}v6", class_="bracket")
            yield element("text", f"×{loop.turns}", x=x + width / 2, y=_TOP - 13, class_="axis middle turns")

    def _peak(self) -> Iterator[Markup]:
        step = self.facts.plan["peak_step"]
        x, bound = self.x(step), self.facts.plan["placement_bound_bytes"]
        yield element("rect", x=x, y=_TOP - 8, width=self.scale.step, height=_MAP + 8 + _GAP + _STRIP, class_="peak")
        told = f"peak: {bound:,} B live at step {step}"
        room = len(told) * _CHARACTER
        before = x + room > self.right
        yield element(
            "text",
            told,
            x=x + self.scale.step if before else x,
            y=_TOP - 36,
            class_="peak-name end" if before else "peak-name",
        )
        yield element("path", d=f"M{x + self.scale.step / 2:.1f} {_TOP - 32}V{_TOP - 8}", class_="peak-line")

    def _strip(self) -> Iterator[Markup]:
        """Live bytes of each step, on a scale of their own."""
        live = self.facts.live(self.space)
        top, base = max(1, *live), self.floor + _GAP + _STRIP
        yield element("text", "live, B", x=_LEFT - 8, y=base - _STRIP / 2 + 4, class_="axis end")
        for step, size in enumerate(live):
            height = size * _STRIP / top
            tip = f"step {step}: {size:,} B live"
            if step < len(self.facts.operators):
                o = self.facts.operators[step]
                tip += f"\n{o.name}\n{o.op}" + (f", {o.turns} turns" if o.turns > 1 else "")
            yield element(
                "rect",
                x=self.x(step) + 0.5,
                y=base - height,
                width=max(self.scale.step - 1, 1.0),
                height=height,
                class_="live top" if step == self.facts.plan["peak_step"] else "live",
                data_tip=tip,
            )

    def _layers(self) -> Iterator[Markup]:
        """Which steps are of which layer."""
        y, first = self.floor + _GAP + _STRIP + 6, 0
        for i, (layer, group) in enumerate(groupby(self.facts.operators, key=lambda o: o.layer)):
            last = first + len(list(group))
            x, width = self.x(first), self.x(last) - self.x(first)
            yield element("rect", x=x + 0.5, y=y, width=max(width - 1, 1.0), height=3, class_=f"layer{i % 2}")
            room = int((width - 4) / _CHARACTER)
            if room >= 3:
                name = _short(layer, room)
                yield element("text", name, x=x + width / 2, y=y + 18, class_="axis middle", data_tip=layer)
            first = last


def _tip(b: Buffer) -> str:
    lines = [
        b.name,
        f"{KINDS[b.kind]}, {b.size:,} B at {b.offset:,}",
        f"live at step {b.first}" if b.last == b.first + 1 else f"live at steps {b.first} to {b.last - 1}",
    ]
    if b.inside:
        lines.append(f"begins inside {b.inside}, which dies")
    lines += [f"from step {step} on: {name}" for name, step in b.then[:6]]
    if len(b.then) > 6:
        lines.append(f"and {len(b.then) - 6} more, one after the other")
    return "\n".join(lines)


def _short(name: str, room: int) -> str:
    """The end of a name, which tells most, in so many characters."""
    return name if len(name) <= room else "…" + name[len(name) - room + 1 :]
