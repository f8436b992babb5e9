# SPDX-License-Identifier: Apache-2.0
"""The command line: one file a verb, each parses, makes one library call and prints.

Nothing heavy is imported here or by the verbs' modules before a command runs: `edgec --help` is quick.
"""

from __future__ import annotations

import json
import os
import sys

import typer

from edgec.cli import compile as compile_verb
from edgec.cli import doctor, export, models, profile, quantize, run, targets
from edgec.errors import EdgecError, render

INTERRUPTED = 130
DEFECT = 70

app = typer.Typer(
    name="edgec",
    help="A model goes in (PyTorch or ONNX), a proven-to-fit program comes out: flash it, run it, measure it.",
    epilog="Exit codes: 0 done, 2 usage, 3 model not supported, 4 does not fit, 5 device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (doctor, models, targets, export, quantize, compile_verb, run, profile):
    app.command(verb.NAME, help=verb.HELP, epilog=f"Example: {verb.EXAMPLE}")(verb.command)


def main() -> None:
    """Entry point: run the command line and exit with its code."""
    try:
        app()
    except EdgecError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("interrupted; nothing was left half-written", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if os.environ.get("EDGEC_TRACEBACK"):
            raise
        print(
            f"error: a defect of edgec: {type(error).__name__}: {error}\n"
            "  try    the same with EDGEC_TRACEBACK=1 in the environment, and report what it prints",
            file=sys.stderr,
        )
        sys.exit(DEFECT)


def _fail(error: EdgecError) -> None:
    if "--json" in sys.argv:
        report = {"what": error.what, "need": error.need, "have": error.have, "hints": list(error.hints)}
        print(json.dumps({"error": report, "exit_code": error.exit_code}, indent=2))
    print(f"error: {render(error)}", file=sys.stderr)
    sys.exit(error.exit_code)
