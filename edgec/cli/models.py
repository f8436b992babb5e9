# SPDX-License-Identifier: Apache-2.0
"""`edgec models`: the zoo."""

from __future__ import annotations

from typing import Annotated

import typer

from edgec.cli.output import print_json, table

NAME = "models"
HELP = "List the models of the zoo (to export them, install edgec[models])."
EXAMPLE = "edgec models"


def command(json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List models."""
    from edgec.models.registry import list_models

    found = list_models()
    if json_:
        print_json(
            {
                "models": [
                    {
                        "name": m.name,
                        "stateful": m.stateful,
                        "inputs": {k: list(v) for k, v in m.inputs.items()},
                        "row": m.row,
                        "source": m.source,
                        "description": m.description,
                    }
                    for m in found
                ]
            }
        )
        return
    rows = [
        (
            m.name,
            "yes" if m.stateful else "no",
            ", ".join(f"{k}{list(v)}" for k, v in m.inputs.items()),
            m.description,
        )
        for m in found
    ]
    print(table(("model", "state", "inputs", "what it is"), rows))
