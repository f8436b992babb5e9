# SPDX-License-Identifier: Apache-2.0
"""The command line: one file a verb, each parses, makes one library call and prints.

Nothing heavy is imported here or by the verbs' modules before a command runs: `edgec --help` is quick.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys

import typer

from edgec.cli import bench, check, doctor, export, models, plan, profile, quantize, report, run, targets, verify
from edgec.cli import compile as compile_verb
from edgec.errors import EdgecError, UsageError, render

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
for verb in (doctor, models, targets, export, check, quantize, compile_verb, run, profile, report, verify, plan):
    app.command(verb.NAME, help=verb.HELP, epilog=f"Example: {verb.EXAMPLE}")(verb.command)
app.add_typer(bench.app)


def main() -> None:
    """Entry point: run the command line and exit with its code."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, _terminate)  # as Ctrl-C: what was begun is cleared away
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except EdgecError as error:
        code = _fail(error)
    except typer.TyperException as error:  # a wrong option or argument, before any verb ran
        code = _fail(_usage(error)) if error.format_message() else error.exit_code
    except typer.Abort:
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read the output has gone; nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        if os.environ.get("EDGEC_TRACEBACK"):
            raise
        code = _fail(_defect(error))
    if code == INTERRUPTED:
        print("interrupted; nothing was left half-written", file=sys.stderr)
    sys.exit(code or 0)


def _terminate(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _usage(error: typer.TyperException) -> EdgecError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "edgec"
    return UsageError(error.format_message(), hint=f"{path} --help")


def _defect(error: Exception) -> EdgecError:
    report = EdgecError(
        f"a defect of edgec: {type(error).__name__}: {error}",
        hint="the same with EDGEC_TRACEBACK=1 in the environment, and report what it prints",
    )
    report.exit_code = DEFECT
    return report


def _fail(error: EdgecError) -> int:
    if "--json" in sys.argv:
        report = {"what": error.what, "need": error.need, "have": error.have, "hints": list(error.hints)}
        print(json.dumps({"error": report, "exit_code": error.exit_code}, indent=2))
    print(f"error: {render(error)}", file=sys.stderr)
    return error.exit_code
