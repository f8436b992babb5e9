# SPDX-License-Identifier: Apache-2.0
"""`edgec targets`: what can be compiled for."""

from __future__ import annotations

from typing import Annotated

import typer

from edgec.cli.output import count, print_json, table

NAME = "targets"
HELP = "List the targets that ship with edgec, with their memories."
EXAMPLE = "edgec targets"


def command(json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List targets."""
    from edgec.target import list_targets, load_target

    found = [load_target(name) for name in list_targets()]
    if json_:
        print_json(
            {
                "targets": [
                    {
                        "name": t.name,
                        "core": t.cpu.core,
                        "features": sorted(t.cpu.features),
                        "clock_hz": t.cpu.clock_hz,
                        "runner": t.runner,
                        "memory": [
                            {"name": r.name, "kind": r.kind, "origin": r.origin, "bytes": r.size} for r in t.memory
                        ],
                    }
                    for t in found
                ]
            }
        )
        return
    rows = []
    for t in found:
        ram = sum(s.size for s in t.ram_spans())
        flash = sum(r.size for r in t.flash_regions())
        clock = f"{t.cpu.clock_hz // 1_000_000} MHz" if t.cpu.clock_hz else "-"
        rows.append((t.name, t.cpu.core, clock, count(ram or None), count(flash or None), t.runner))
    print(table(("target", "core", "clock", "RAM B", "flash B", "runner"), rows, right=(2, 3, 4)))
