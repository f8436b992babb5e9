# SPDX-License-Identifier: Apache-2.0
"""`edgec profile`: what one run costs, operator by operator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgec.cli.arguments import Json
from edgec.cli.output import count, print_json, table
from edgec.cli.run import Artifact, Runner

NAME = "profile"
HELP = "Measure one run: exact instructions for each operator on the simulated board."
EXAMPLE = "edgec profile build/model"


def command(
    artifact: Artifact,
    input_: Annotated[
        Path | None, typer.Option("--input", help="npz whose first sample is run; zeros without it.")
    ] = None,
    runner: Runner = None,
    json_: Json = False,
) -> None:
    """Profile a compiled model."""
    from edgec.artifact import load_artifact
    from edgec.quantize.dataset import load_samples
    from edgec.run import input_infos, profile_artifact

    loaded = load_artifact(artifact)
    samples = load_samples(input_, input_infos(loaded)) if input_ else None
    report = profile_artifact(loaded, samples, runner.value if runner else None)
    if json_:
        print_json(report)
    else:
        print(render(report))


def render(report: dict[str, Any], most: int | None = None) -> str:
    """The table of operators, in program order, or the `most` expensive ones."""
    total = report["instructions"]
    operators = report["operators"]
    if most is not None and total is not None:
        operators = sorted(operators, key=lambda o: -o["instructions"])[:most]
    rows = [
        (
            o["name"],
            o["op"],
            o["kernel"],
            count(o["instructions"]),
            f"{100 * o['instructions'] / total:.1f} %" if total else "-",
            count(o["macs"] or None),
            f"{o['instructions'] / o['macs']:.2f}" if total and o["macs"] else "-",
            count(o["flash_bytes_read"]),
            count(o["cycles_estimate"]),
        )
        for o in operators
    ]
    head = f"{report['model']['name']} on {report['target']}, measured on {report['measured_on']}: "
    parts = [f"{count(total)} instructions"] if total is not None else []
    if report["cycles_estimate"] is not None:
        parts.append(
            f"an estimate of {count(report['cycles_estimate'])} cycles ({report['milliseconds_estimate']:.2f} ms)"
        )
        parts.append(f"{count(report['flash_bytes_read'])} B of data read from flash")
    if report["seconds"] is not None:
        parts.append(f"{1000 * report['seconds']:.3f} ms")
    if report["stack_bytes"] is not None:
        parts.append(f"{report['stack_bytes']:,} B of stack")
    columns = (
        "node",
        "operator",
        "kernel",
        "instructions",
        "share",
        "MAC",
        "per MAC",
        "flash B read",
        "cycles, estimate",
    )
    return head + ", ".join(parts) + "\n" + table(columns, rows, right=(3, 4, 5, 6, 7, 8))
