# SPDX-License-Identifier: Apache-2.0
"""`edgec check`: what is known of a model on a target before any work, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgec.cli.arguments import InputShape, Json, Precision, State, read_model
from edgec.cli.output import print_json, table

if TYPE_CHECKING:
    from edgec.check import Check

NAME = "check"
HELP = "Tell in seconds whether a model can be compiled for a target: operators, work, lower bounds of RAM and flash."
EXAMPLE = "edgec check model.onnx --target stm32f746"
UNSUPPORTED, DOES_NOT_FIT = 3, 4


def command(
    model: Annotated[Path, typer.Argument(help="ONNX file, float or QDQ.")],
    target: Annotated[str, typer.Option(help="A name from `edgec targets`, or a target file.")],
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the program.")] = Precision.INT8,
    state: State = None,
    input_shape: InputShape = None,
    json_: Json = False,
) -> None:
    """Check a model; exits with 3 when a node is not supported and with 4 when it cannot fit."""
    from edgec.target import load_target

    chosen = load_target(target)
    loaded = read_model(model, state, input_shape)
    from edgec.check import check_model

    check = check_model(loaded, chosen, precision.value)
    code = UNSUPPORTED if check.unsupported else DOES_NOT_FIT if check.verdict == "cannot fit" else 0
    if json_:
        print_json(report(check) | {"exit_code": code})
    else:
        print(summary(check))
    if code:
        raise typer.Exit(code)


def report(check: Check) -> dict[str, Any]:
    """The object of `--json`; bytes, bounds are lower bounds."""
    return {
        "model": check.model,
        "target": check.target,
        "precision": check.precision,
        "operators": dict(check.operators),
        "macs": check.macs,
        "ram": {
            "bound_bytes": check.ram_bound,
            "bound_at": check.ram_bound_at,
            "state_bytes": check.state_bytes,
            "have_bytes": check.ram_have or None,
            "over_bytes": check.ram_over,
        },
        "flash": {
            "bound_bytes": check.flash_bound,
            "weights_bytes": check.weight_bytes,
            "requantization_bytes": check.requantization_bytes,
            "have_bytes": check.flash_have or None,
            "over_bytes": check.flash_over,
        },
        "verdict": "unsupported" if check.unsupported else check.verdict,
        "unsupported": [n._asdict() for n in check.unsupported],
        "notes": list(check.notes),
    }


def summary(check: Check) -> str:
    """One screen: operators, work, bounds, verdict, unsupported nodes."""
    from edgec.check import INPUTS

    operators = " · ".join(f"{kind} {n}" for kind, n in check.operators.items())
    parts = f"weights {check.weight_bytes:,} · biases and requantization {check.requantization_bytes:,}"
    lines = [
        f"{check.model}  ->  {check.target}, {check.precision}",
        *_wrapped("nodes", operators),
        f"  work   {check.macs:,} MAC",
        f"  RAM    at least {_of(check.ram_bound, check.ram_have)}   at {check.ram_bound_at}"
        + (f" · state {check.state_bytes:,}" if check.state_bytes else ""),
        f"  flash  at least {_of(check.flash_bound, check.flash_have)}   {parts}",
        *(f"  note   {note}" for note in check.notes),
    ]
    if check.unsupported:
        rows = [(n.op_type, n.node, n.reason, n.nearest) for n in check.unsupported]
        count = f"{len(rows)} node{'s' if len(rows) > 1 else ''}"
        found = table(("operator", "node", "why not", "nearest that is supported"), rows)
        return "\n".join([*lines, f"  {count} that {check.precision} does not support:", "", *_indented(found)])
    over = [f"{kind} over by {n:,} B" for kind, n in (("RAM", check.ram_over), ("flash", check.flash_over)) if n]
    if check.ram_over and check.ram_bound_at == INPUTS and not check.state_bytes:
        over[0] += " with the input whole (--feed rows does without, where operators allow it)"
    told = {
        "fits": "fits: all tensors at once do",
        "may fit": "may fit: no bound speaks against it; `edgec compile` decides",
        "cannot fit": f"cannot fit: {', '.join(over)}, with what is kept for stack and code",
    }
    return "\n".join([*lines, f"  {told[check.verdict]}" if check.ram_have else "  no memories to fit into"])


def _wrapped(label: str, text: str, width: int = 108) -> list[str]:
    rows: list[str] = []
    for part in text.split(" · "):
        if rows and len(rows[-1]) + len(part) + 3 <= width:
            rows[-1] += f" · {part}"
        else:
            rows.append(part)
    return [f"  {label if i == 0 else '':<6} {row}" for i, row in enumerate(rows)]


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]


def _of(need: int, have: int) -> str:
    return f"{need:,} B of {have:,}" if have else f"{need:,} B"
