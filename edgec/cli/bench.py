# SPDX-License-Identifier: Apache-2.0
"""`edgec bench operators`: what single kernels cost on the simulated board."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgec.cli.arguments import Json
from edgec.cli.output import count, print_json, table

NAME = "bench"
HELP = "Measure parts of the product on the simulated board."
EXAMPLE = "edgec bench operators --target stm32f746"
OPERATORS_HELP = "Instructions per MAC or element of every kernel, beside the generated kernel for the same call."

app = typer.Typer(name=NAME, help=HELP, no_args_is_help=True, epilog=f"Example: {EXAMPLE}")


@app.callback()
def _group() -> None:
    """A group of verbs, of which there is one so far."""


@app.command("operators", help=OPERATORS_HELP, epilog=f"Example: {EXAMPLE} --op softmax_s8")
def operators(
    target: Annotated[str, typer.Option(help="Name of a target, or the path of its file.")],
    op: Annotated[
        list[str] | None, typer.Option("--op", metavar="NAME", help="Only this operator (repeatable).")
    ] = None,
    generated: Annotated[
        bool, typer.Option("--generated/--hand", help="Measure the generated kernel of each call too.")
    ] = True,
    json_: Json = False,
) -> None:
    """Measure kernels one by one."""
    from edgec.bench.cases import select_cases
    from edgec.bench.operators import measure, report
    from edgec.target import load_target

    board = load_target(target)
    result = report(measure(select_cases(op or ()), board, generated=generated), board)
    print_json(result) if json_ else print(render(result))


def render(result: dict[str, Any]) -> str:
    """The table of a report."""
    rows = [
        (
            r["op"],
            r["shape"],
            r["kernel"],
            count(r["instructions"]),
            f"{r['instructions_per_unit']:.3f}",
            r["unit"],
            "-" if r["generated_instructions"] is None else f"{r['generated_instructions_per_unit']:.2f}",
            f"{r['cycles_estimate_per_unit']:.2f}",
            r["peer"] or "",
        )
        for r in result["operators"]
    ]
    columns = ("operator", "shape", "kernel", "instructions", "each", "per", "generated", "cycles, estimate", "peer")
    head = (
        f"{result['target']} ({result['core']}), measured on {result['measured_on']}: whole calls, packing included\n"
    )
    return head + table(columns, rows, right=(3, 4, 6, 7))
