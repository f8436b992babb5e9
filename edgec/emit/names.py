# SPDX-License-Identifier: Apache-2.0
"""Names from a model on their way into C: identifiers, comments and string literals that cannot break out."""

from __future__ import annotations

import re

_KEYWORDS = frozenset(
    """alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const consteval
    constexpr constinit continue decltype default delete do double else enum explicit export extern false float for
    friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private
    protected public register reinterpret_cast requires restrict return short signed sizeof static struct switch
    template this throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor
    xor_eq""".split()
)
_FILES = frozenset(
    """assert board complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg
    stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype""".split()
)
LONGEST = 60


def identifier(name: str) -> str:
    """A C (and C++) identifier that resembles `name`: ASCII letters, digits and single underscores."""
    text = re.sub(r"[^A-Za-z0-9]+", "_", name.encode("ascii", "ignore").decode()).strip("_").lower()
    if len(text) > LONGEST:
        text = text[-LONGEST:].strip("_")
    if not text or text[0].isdigit() or text in _KEYWORDS:
        text = f"t_{text}".rstrip("_")
    return text


def prefix(name: str) -> str:
    """The identifier that begins a model's symbols and files: not one whose header would hide another's."""
    text = identifier(name)
    return f"model_{text}" if text in _FILES or text.startswith("edgec") else text


class Identifiers:
    """Unique identifiers for a set of names, stable in the order in which they are asked for."""

    def __init__(self, taken: frozenset[str] = frozenset()) -> None:
        self._taken = set(taken)
        self._by_name: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._by_name:
            base = candidate = identifier(name)
            n = 2
            while candidate in self._taken:
                candidate, n = f"{base}_{n}", n + 1
            self._taken.add(candidate)
            self._by_name[name] = candidate
        return self._by_name[name]


def comment(text: str) -> str:
    """`text` for the inside of a C comment: printable ASCII, no comment delimiters, no line continuation."""
    safe = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)
    while "*/" in safe or "/*" in safe:
        safe = safe.replace("*/", "*|").replace("/*", "|*")
    return safe.replace("??", "?_")


def string(text: str) -> str:
    """A C string literal with the bytes of `text` in UTF-8, quotes included."""
    out = []
    for byte in text.encode("utf-8", "replace"):
        char = chr(byte)
        out.append(char if " " <= char <= "~" and char not in '"\\?' else f"\\{byte:03o}")
    return '"' + "".join(out) + '"'
