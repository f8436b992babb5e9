# SPDX-License-Identifier: Apache-2.0
"""`edgec plan`: the placement search alone, for a problem in the public CSV format."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgec.cli.arguments import Json
from edgec.cli.output import print_json
from edgec.errors import UsageError

if TYPE_CHECKING:
    from edgec.schedule.problem import MemoryPlan, Problem

NAME = "plan"
HELP = "Place buffers with known live ranges in as little memory as can be found: CSV in, the same with offsets out."
EXAMPLE = "edgec plan problem.csv --capacity 1048576 --out placed.csv"
_COLUMNS = ("id", "lower", "upper", "size")


def command(
    problem: Annotated[Path, typer.Argument(help="CSV: id,lower,upper,size; live in the steps [lower, upper).")],
    capacity: Annotated[int, typer.Option(min=0, help="Bytes of memory.")],
    out: Annotated[Path, typer.Option(help="CSV to write: the same rows with a column `offset`.")],
    alignment: Annotated[int, typer.Option(min=1, help="Offsets are multiples of this.")] = 1,
    json_: Json = False,
) -> None:
    """Place; exits with 4 when it does not fit."""
    from edgec.schedule.check import check_plan
    from edgec.schedule.place import placement_note, plan

    rows = _read(problem)
    memory = plan(_problem(rows, capacity, alignment))
    check_plan(memory)
    _write(out, rows, memory)
    note = placement_note()
    if json_:
        print_json(
            {
                "buffers": len(rows),
                "capacity_bytes": capacity,
                "arena_bytes": memory.arena_bytes,
                "placement_bound_bytes": memory.placement_bound_bytes,
                "out": str(out),
                "notes": [note] if note else [],
            }
        )
        return
    bound = memory.placement_bound_bytes
    told = "which is the bound" if memory.arena_bytes == bound else f"bound {bound:,}"
    print(f"{len(rows):,} buffers in {memory.arena_bytes:,} B of {capacity:,}, {told}\nwrote {out}")
    if note:
        print(f"note: {note}")


def _problem(rows: list[tuple[str, int, int, int]], capacity: int, alignment: int) -> Problem:
    from edgec.schedule.problem import Buffer, Problem, Space

    buffers = tuple(Buffer(name, size, lower, upper, alignment) for name, lower, upper, size in rows)
    return Problem(buffers, (Space("memory", capacity),), target="the memory")


def _read(path: Path) -> list[tuple[str, int, int, int]]:
    """(id, lower, upper, size) of each row.

    Raises:
        UsageError: not such a file; names the line.
    """
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {reason}") from None
    header = [cell.strip() for cell in lines[0]] if lines else []
    missing = [name for name in _COLUMNS if header.count(name) != 1]
    if missing:
        raise UsageError(
            f"{path}, line 1: no single column {', '.join(missing)}",
            need=",".join(_COLUMNS),
            have=",".join(header) or "an empty file",
        )
    where = {name: header.index(name) for name in _COLUMNS}
    rows: list[tuple[str, int, int, int]] = []
    seen: dict[str, int] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        at = f"{path}, line {number}"
        if len(cells) != len(header):
            raise UsageError(f"{at}: {len(cells)} cells, the header has {len(header)}")
        name = cells[where["id"]].strip()
        if not name:
            raise UsageError(f"{at}: no id")
        if name in seen:
            raise UsageError(f"{at}: id {name!r} is that of line {seen[name]}")
        seen[name] = number
        lower, upper, size = (_number(cells[where[key]], key, at) for key in _COLUMNS[1:])
        if lower < 0:
            raise UsageError(f"{at}: lower {lower} is negative", need="steps that count from 0")
        if lower >= upper:
            raise UsageError(f"{at}: lower {lower} is not below upper {upper}", need="steps [lower, upper)")
        if size < 1:
            raise UsageError(f"{at}: size {size} is not positive")
        rows.append((name, lower, upper, size))
    return rows


def _number(text: str, key: str, at: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise UsageError(f"{at}: {key} {text.strip()!r} is not a whole number")
    return int(text)


def _write(path: Path, rows: list[tuple[str, int, int, int]], memory: MemoryPlan) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*_COLUMNS, "offset"])
            writer.writerows([*row, memory.placements[row[0]].offset] for row in rows)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
