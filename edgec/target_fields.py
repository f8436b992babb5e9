# SPDX-License-Identifier: Apache-2.0
"""Typed access to one TOML table, with errors that name the file and the key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from edgec.errors import UsageError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None when none comes close."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)), None)


class Fields:
    """One table of a TOML file. Every accessor marks its key as known; `finish` rejects the rest.

    All accessors raise UsageError for a missing key, a wrong type or a value out of range.
    """

    def __init__(self, table: dict[str, Any], path: Path, prefix: str) -> None:
        self._table, self._path, self._prefix = table, path, prefix
        self._seen: list[str] = []

    @property
    def name(self) -> str:
        """The last part of the table's own key."""
        return self._prefix.rpartition(".")[2]

    def error(self, key: str, what: str, *, need: str | None = None, hint: str | None = None) -> UsageError:
        """The error to raise about `key`, or about the table itself when `key` is empty."""
        where = ".".join(part for part in (self._prefix, key) if part)
        return UsageError(f"{self._path}: {where}: {what}", need=need, hint=hint)

    def has(self, key: str) -> bool:
        """Whether the table has the key."""
        return key in self._table

    def keys_left(self) -> list[str]:
        """Every key of the table, in the order of the file (for tables whose keys are names)."""
        return list(self._table)

    def _get(self, key: str) -> Any:
        if key not in self._table:
            raise self.error(key, "missing")
        self._seen.append(key)
        return self._table[key]

    def string(self, key: str) -> str:
        """A non-empty string."""
        value = self._get(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"{value!r} is not a string")
        return value

    def strings(self, key: str, *, default: Sequence[str]) -> tuple[str, ...]:
        """A list of strings."""
        value = self._get(key) if self.has(key) else list(default)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.error(key, f"{value!r} is not a list of strings")
        return tuple(value)

    @overload
    def choice(self, key: str, known: Sequence[str], *, optional: Literal[False] = False) -> str: ...
    @overload
    def choice(self, key: str, known: Sequence[str], *, optional: Literal[True]) -> str | None: ...
    def choice(self, key: str, known: Sequence[str], *, optional: bool = False) -> str | None:
        """One of the known strings."""
        if optional and not self.has(key):
            return None
        value = self.string(key)
        if value not in known:
            close = nearest(value, known)
            need = "one of " + ", ".join(known) if known else None
            raise self.error(key, f"unknown value {value!r}", need=need, hint=f'{key} = "{close}"' if close else None)
        return value

    @overload
    def integer(self, key: str, *, low: int, high: int = ..., optional: Literal[False] = False) -> int: ...
    @overload
    def integer(self, key: str, *, low: int, high: int = ..., optional: Literal[True]) -> int | None: ...
    def integer(self, key: str, *, low: int, high: int = (1 << 32) - 1, optional: bool = False) -> int | None:
        """An integer in [low, high]."""
        if optional and not self.has(key):
            return None
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, f"{value!r} is not an integer")
        if not low <= value <= high:
            raise self.error(key, f"{value} is out of range", need=f"{low} to {high}")
        return value

    def word(self, key: str, *, default: int) -> int:
        """A 32-bit register value."""
        return self.integer(key, low=0) if self.has(key) else default

    def size(self, key: str, *, default: int | None = None, low: int = 0) -> int:
        """A number of bytes: an integer, or a string with K or M ("64K")."""
        if default is not None and not self.has(key):
            return default
        value = self._get(key)
        if isinstance(value, str):
            match = re.fullmatch(r"(\d+) ?([KM]?)", value)
            if not match:
                raise self.error(key, f"{value!r} is not a size", need='an integer, or a string like "64K" or "1M"')
            self._table = {**self._table, key: int(match[1]) * _UNITS[match[2]]}
        return self.integer(key, low=low)

    def register(self, key: str, origins: dict[str, int]) -> int:
        """A register's address, written `peripheral+offset`."""
        text = self.string(key)
        match = re.fullmatch(r"(\w+)\+(0x[0-9A-Fa-f]+)", text)
        if not match:
            raise self.error(key, f"{text!r} is not a register", need='a peripheral and an offset, like "rcc+0x30"')
        if match[1] not in origins:
            close = nearest(match[1], origins)
            raise self.error(key, f"[peripherals] has no {match[1]!r}", hint=close)
        return origins[match[1]] + int(match[2], 16)

    def table(self, key: str) -> Fields:
        """An inner table."""
        value = self._get(key)
        if not isinstance(value, dict):
            raise self.error(key, f"{value!r} is not a table")
        return Fields(value, self._path, f"{self._prefix}.{key}" if self._prefix else key)

    def tables(self, key: str) -> list[Fields]:
        """A list of tables, empty when the key is absent; errors name the index."""
        value = self._get(key) if self.has(key) else []
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise self.error(key, "is not a list of tables")
        return [Fields(v, self._path, f"{self._prefix}.{key}[{i}]") for i, v in enumerate(value)]

    def finish(self) -> None:
        """Reject keys that nobody asked for."""
        for key in self._table:
            if key not in self._seen:
                close = nearest(key, self._seen)
                raise self.error(key, "unknown key", hint=f"{close} instead" if close else None)
