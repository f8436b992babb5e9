# SPDX-License-Identifier: Apache-2.0
"""How verbs print: one JSON object or aligned text on stdout, progress on stderr when a person watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence

from edgec.json_text import json_text


def print_json(value: object) -> None:
    """The one object of `--json`."""
    print(json_text(value))


def progress(quiet: bool) -> Callable[[str], None]:
    """A function that tells the phase just begun, on stderr: one line a phase with the seconds so far."""
    start = time.monotonic()

    def tell(phase: str) -> None:
        if not quiet and sys.stderr.isatty():
            print(f"  {time.monotonic() - start:6.1f} s  {phase}", file=sys.stderr, flush=True)

    return tell


def counter(quiet: bool, total: int, what: str) -> Callable[[int], None]:
    """A function that tells how many of `total` are done, in one line that is rewritten at most five times a second."""
    last = 0.0

    def tell(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if quiet or not sys.stderr.isatty() or (done < total and now - last < 0.2):
            return
        last = now
        print(
            f"\r  {done:,} of {total:,} {what}",
            end="\n" if done == total else "",
            file=sys.stderr,
            flush=True,
        )

    return tell


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Columns two spaces apart, those in `right` flush right."""
    cells = [list(header), *(list(r) for r in rows)]
    widths = [max(len(r[i]) for r in cells) for i in range(len(header))]
    flush = set(right)
    lines = [
        "  ".join(c.rjust(w) if i in flush else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
        for r in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def count(value: int | None) -> str:
    """`12,345`, or `-` for what is not known."""
    return "-" if value is None else f"{value:,}"
