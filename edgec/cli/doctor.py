# SPDX-License-Identifier: Apache-2.0
"""`edgec doctor`: what is installed and works, and what is missing for which verb."""

from __future__ import annotations

import sys

import typer

from edgec.cli.arguments import Json
from edgec.cli.output import print_json, table

NAME = "doctor"
HELP = "Check the installation: tools, simulator, serial ports."
EXAMPLE = "edgec doctor"


def command(json_: Json = False) -> None:
    """Check the installation; exits with 5 when something that compiling needs is missing."""
    from edgec.device.doctor import examine

    checks = examine()
    if json_:
        print_json(
            {
                "python": sys.version.split()[0],
                "checks": [
                    {"name": c.name, "ok": c.ok, "needed": c.needed, "found": c.found, "hint": c.hint} for c in checks
                ],
            }
        )
    else:
        rows = [(c.name, "ok" if c.ok else "MISSING" if c.needed else "absent", c.found, c.hint or "") for c in checks]
        print(table(("what", "", "found", "hint"), rows))
    if any(c.needed and not c.ok for c in checks):
        raise typer.Exit(5)
