# SPDX-License-Identifier: Apache-2.0
"""Flash as a picture: an area for each layer's constants and for the code, as large as its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgec.report.facts import Facts, layer_of
from edgec.report.markup import Markup, element, join

_ASPECT = 3.4
"""Width to height of the picture on a wide screen."""
_HUES = 6


class Box(NamedTuple):
    """A rectangle, in parts of the whole picture."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class _Item:
    """Something in flash: its bytes, what it is, where."""

    name: str
    size: int
    detail: str
    constant: bool = True


def flash_map(facts: Facts) -> Markup:
    """The map; every constant and the code is there once."""
    groups = _groups(facts)
    total = sum(item.size for items in groups.values() for item in items)
    if not total:
        return element("p", "Nothing in flash.")
    sizes = {name: sum(i.size for i in items) for name, items in groups.items()}
    order = sorted((n for n in groups if sizes[n]), key=lambda n: -sizes[n])
    hues = {name: i % _HUES for i, name in enumerate(n for n in groups if n != _CODE)}
    boxes = squarify([sizes[n] for n in order], Box(0, 0, _ASPECT, 1))
    layers = (
        _layer(name, groups[name], sizes[name], box, total, "code" if name == _CODE else f"hue{hues[name]}")
        for name, box in zip(order, boxes, strict=True)
    )
    told = f"Flash: {total:,} B by layer; the figures are in the table below."
    return element("div", *layers, class_="treemap", role="img", aria_label=told)


_CODE = "code"


def _groups(facts: Facts) -> dict[str, list[_Item]]:
    groups: dict[str, list[_Item]] = {}
    for c in facts.constants:
        where = f" in {c.region}" if c.region else ""
        detail = f"{c.size:,} B{where}\nfirst read by {c.operator}"
        groups.setdefault(layer_of(c.operator), []).append(_Item(c.name, c.padded, detail))
    code = facts.manifest["flash"]["code_bytes"]
    if code:
        groups.setdefault(_CODE, []).append(_Item("code", code, f"{code:,} B of code", constant=False))
    return groups


def layer_bytes(facts: Facts) -> dict[str, int]:
    """Bytes of flash by layer, and of the code, the largest first."""
    sizes = {name: sum(i.size for i in items) for name, items in _groups(facts).items()}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _layer(name: str, items: Sequence[_Item], size: int, box: Box, total: int, hue: str) -> Markup:
    items = sorted((i for i in items if i.size), key=lambda i: -i.size)
    inner = squarify([i.size for i in items], Box(0, 0, box.width, box.height))
    cells = (
        element(
            "div",
            class_="cell",
            style=_place(cell, box.width, box.height),
            data_tip=f"{item.name}\n{item.detail}",
            data_constant=item.name if item.constant else None,
        )
        for item, cell in zip(items, inner, strict=True)
    )
    label = element("span", element("b", name), f" {size:,} B · {100 * size / total:.1f} %", class_="layer-name")
    tall = box.height > 0.08 and box.width > 0.22
    return element("div", join(*cells), label if tall else None, class_=f"group {hue}", style=_place(box, _ASPECT, 1))


def _place(box: Box, width: float, height: float) -> str:
    return (
        f"left:{100 * box.x / width:.4f}%;top:{100 * box.y / height:.4f}%;"
        f"width:{100 * box.width / width:.4f}%;height:{100 * box.height / height:.4f}%"
    )


def squarify(sizes: Sequence[int], box: Box) -> list[Box]:
    """Rectangles of these areas that fill `box`, nearly square (Bruls, Huizing, van Wijk: Squarified Treemaps, 2000).

    Args:
        sizes: positive, the largest first.
        box: what they share.
    """
    scale = box.width * box.height / sum(sizes) if sizes else 0.0
    return list(_rows([s * scale for s in sizes], box))


def _rows(areas: Sequence[float], box: Box) -> Iterator[Box]:
    while areas:
        side = min(box.width, box.height)
        n = 1
        while n < len(areas) and _worst(areas[: n + 1], side) <= _worst(areas[:n], side):
            n += 1
        thick = sum(areas[:n]) / side if side else 0.0
        at = 0.0
        for area in areas[:n]:
            length = area / thick if thick else 0.0
            if box.width >= box.height:
                yield Box(box.x, box.y + at, thick, length)
            else:
                yield Box(box.x + at, box.y, length, thick)
            at += length
        if box.width >= box.height:
            box = Box(box.x + thick, box.y, max(box.width - thick, 0.0), box.height)
        else:
            box = Box(box.x, box.y + thick, box.width, max(box.height - thick, 0.0))
        areas = areas[n:]


def _worst(areas: Sequence[float], side: float) -> float:
    """The most elongated rectangle of a row along `side`."""
    total = sum(areas)
    return max(side * side * max(areas) / (total * total), total * total / (side * side * min(areas)))
