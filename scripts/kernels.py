# SPDX-License-Identifier: Apache-2.0
"""What every kernel costs on simulated Cortex-M7 and M4, beside the generated kernels and CMSIS-NN.

    .venv/bin/python scripts/kernels.py            prints the table
    .venv/bin/python scripts/kernels.py --write    and puts it into docs/kernels.md, and the counts of hand-written
                                                   kernels into tests/kernel_ceilings.json, where they only fall

Counts are exact and made in this run; cycles are estimates (docs/cycles.md). CMSIS-NN's figures were measured once for
this project (gcc 12.2 and clang 22) and are not measured again here.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from edgec.bench.cases import CASES
from edgec.bench.operators import Result, measure
from edgec.target import load_target

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "kernels.md"
CEILINGS = ROOT / "tests" / "kernel_ceilings.json"
MARKS = ("<!-- table: scripts/kernels.py -->", "<!-- end -->")
BOARDS = ("stm32f746", "stm32f407")
"""A Cortex-M7 and a Cortex-M4."""


def table(measured: dict[str, list[Result]]) -> list[str]:
    """Rows in Markdown."""
    rows = [
        "| operator, shape | kernel | per | M7 | M4 | generated (M7) | limit "
        "| M7 cycles, *estimate* | M4 cycles, *estimate* | another library |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for m7, m4 in zip(*(measured[board] for board in BOARDS), strict=True):
        hand = m7.ours.kernel != "generated"
        name = f"`{m7.ours.kernel}`" if hand else "generated"
        other = f"{m7.generated.instructions / m7.units:.2f}" if m7.generated else ""
        limit = "" if m7.case.limit is None else f"{m7.case.limit:g}"
        cycles = (f"{r.ours.cycles_estimate / r.units:.2f}" for r in (m7, m4))
        rows.append(
            f"| `{m7.case.op}` {m7.case.label} | {name} | {m7.unit} | {m7.per_unit:.3f} | {m4.per_unit:.3f} | {other} "
            f"| {limit} | {' | '.join(cycles)} | {m7.case.peer} |"
        )
    return rows


def lowered(measured: dict[str, list[Result]], old: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """The ceilings after this run; a kernel that has become dearer keeps its old one, and the test fails."""
    new: dict[str, dict[str, int]] = {}
    for board, results in measured.items():
        new[board] = {}
        for result in results:
            if result.ours.kernel == "generated":
                continue
            count, before = result.ours.instructions, old.get(board, {}).get(result.case.name)
            if before is not None and count > before:
                print(f"dearer on {board}: {result.case.name}: {before} -> {count}", file=sys.stderr)
            new[board][result.case.name] = count if before is None else min(count, before)
    return new


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="update docs/kernels.md and tests/kernel_ceilings.json")
    args = parser.parse_args()
    measured = {board: measure(CASES, load_target(board), generated=True) for board in BOARDS}
    rows = table(measured)
    print("\n".join(rows))
    if args.write:
        text = "\n".join((MARKS[0], *rows, MARKS[1]))
        page = re.sub(f"{re.escape(MARKS[0])}.*?{re.escape(MARKS[1])}", lambda _: text, PAGE.read_text(), flags=re.S)
        PAGE.write_text(page)
        old = json.loads(CEILINGS.read_text()) if CEILINGS.exists() else {}
        CEILINGS.write_text(json.dumps(lowered(measured, old), indent=1) + "\n")


if __name__ == "__main__":
    main()
