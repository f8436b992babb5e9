# SPDX-License-Identifier: Apache-2.0
"""HTML as Python calls. Text is escaped unless it is `Markup` already: a model's names are hostile text."""

from __future__ import annotations

import html
import unicodedata

MINUS = "\N{MINUS SIGN}"
_VOID = frozenset(("meta", "br", "line", "rect", "path", "circle", "input"))


class Markup(str):
    """Text that is HTML: what `element` and `join` return."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as HTML text; characters that nobody sees, or that turn the text around, become `?`."""
    if isinstance(value, Markup):
        return value
    shown = "".join("?" if _hidden(c) else c for c in str(value))
    return Markup(html.escape(shown, quote=True))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name attributes>children</name>`; `class_` and `data_x` are the attributes class and data-x.

    An attribute of None or False is left out, one of True has no value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        shown = key.rstrip("_").replace("_", "-")
        parts.append(shown if value is True else f'{shown}="{text(_number(value))}"')
    opening = f"<{' '.join(parts)}>"
    if name in _VOID:
        return Markup(opening[:-1] + "/>")
    return Markup(f"{opening}{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Children one after the other; None is nothing."""
    return Markup("".join(text(child) for child in children if child is not None))


def _number(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def _hidden(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
