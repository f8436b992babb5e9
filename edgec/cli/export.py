# SPDX-License-Identifier: Apache-2.0
"""`edgec export`: a model of the zoo as float ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgec.cli.output import print_json

NAME = "export"
HELP = "Export a model of the zoo to float ONNX, checked against torch (needs edgec[models])."
EXAMPLE = "edgec export vit-64 --out vit64.onnx"


def command(
    name: Annotated[str, typer.Argument(help="A name from `edgec models`.")],
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Trained weights (a state dict); else random ones.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Export a model."""
    from edgec.artifact import new_file
    from edgec.export import export

    with new_file(out) as part:
        export(name, part, checkpoint=checkpoint, seed=seed)
    if json_:
        print_json({"model": name, "onnx": str(out), "bytes": out.stat().st_size})
    else:
        print(f"wrote {out} ({out.stat().st_size:,} B)")
