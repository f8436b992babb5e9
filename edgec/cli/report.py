# SPDX-License-Identifier: Apache-2.0
"""`edgec report`: a compiled model as one HTML page, or two compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgec.cli.arguments import Json
from edgec.cli.output import print_json, progress
from edgec.errors import UsageError

if TYPE_CHECKING:
    from edgec.report import Facts

NAME = "report"
HELP = "One HTML page on a compiled model: memory over time, flash, operators, bounds. With --diff: two compared."
EXAMPLE = "edgec report build/model   or   edgec report --diff build/before build/after"


def command(
    artifacts: Annotated[list[Path], typer.Argument(metavar="DIR...", help="What `edgec compile` wrote.")],
    diff: Annotated[bool, typer.Option("--diff", help="Compare two artifacts: the second minus the first.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The page to write; DIR/report.html, or diff.html with --diff.")
    ] = None,
    profile: Annotated[
        bool,
        typer.Option(
            " /--no-profile",
            help="Do not measure a run. A profile that lies in DIR as profile.json is used instead of measuring.",
        ),
    ] = True,
    json_: Json = False,
) -> None:
    """Write the page."""
    wanted = 2 if diff else 1
    if len(artifacts) != wanted:
        raise UsageError(
            f"{'--diff compares' if diff else 'a report is of'} {'two artifacts' if diff else 'one artifact'}",
            need=f"{wanted} director{'ies' if diff else 'y'}",
            have=str(len(artifacts)),
            hint="edgec report --diff A B" if not diff else None,
        )
    from edgec.artifact import new_file
    from edgec.report import diff_page, page
    from edgec.report.diff import as_json

    tell = progress(json_)
    facts = [_facts(path, profile, tell) for path in artifacts]
    out = out or (Path("diff.html") if diff else artifacts[0] / "report.html")
    text = diff_page(facts[0], facts[1]) if diff else page(facts[0])
    with new_file(out) as part:
        part.write_text(text, encoding="utf-8")
    if json_:
        print_json({"out": str(out), "bytes": out.stat().st_size, **(as_json(facts[0], facts[1]) if diff else {})})
    else:
        print(f"wrote {out} ({out.stat().st_size:,} B)")


def _facts(path: Path, measure: bool, tell: Any) -> Facts:
    from edgec.artifact import load_artifact
    from edgec.report import read_facts, stored_profile
    from edgec.run import profile_artifact

    artifact = load_artifact(path)
    measured: Mapping[str, Any] | None = None
    read_facts(artifact)  # before a run, which takes longer, is made for nothing
    if measure:
        measured = stored_profile(artifact)
        if measured is None:
            tell(f"measure a run of {path}")
            measured = profile_artifact(artifact)
    return read_facts(artifact, measured)
