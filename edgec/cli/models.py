# SPDX-License-Identifier: Apache-2.0
"""`edgec models`: the zoo, and one model of it with its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgec.cli.output import count, print_json, table

if TYPE_CHECKING:
    from edgec.models.registry import ModelRecord

NAME = "models"
HELP = "List the models of the zoo, or describe one (to export them, install edgec[models])."
EXAMPLE = "edgec models gtrxl-spoken-digits"


def command(
    name: Annotated[str | None, typer.Argument(help="A model: its card, inputs, outputs and states.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List models, or describe one."""
    from edgec.models.registry import get_model, list_models

    if name is not None:
        model = get_model(name)
        if json_:
            print_json(_entry(model) | {"states": _states(model), "card": model.card})
        else:
            print(_description(model))
    elif json_:
        print_json({"models": [_entry(m) for m in list_models()]})
    else:
        rows = [
            (m.name, count(m.parameters), count(m.state_bytes) if m.stateful else "-", _given(m), m.description)
            for m in list_models()
        ]
        print(table(("model", "parameters", "state B", "inputs", "what it is"), rows, right=(1, 2)))
        print("\nstate B: as float32; edgec models NAME describes one.")


def _entry(model: ModelRecord) -> dict[str, Any]:
    return {
        "name": model.name,
        "stateful": model.stateful,
        "parameters": model.parameters,
        "state_bytes": model.state_bytes,
        "inputs": {k: list(v) for k, v in model.inputs.items()},
        "outputs": {k: list(v) for k, v in model.outputs.items()},
        "row": model.row,
        "source": model.source,
        "description": model.description,
    }


def _states(model: ModelRecord) -> list[dict[str, Any]]:
    return [
        {"input": source, "output": target, "shape": list(model.inputs[source]), "reset": reset}
        for source, target, reset in model.states
    ]


def _given(model: ModelRecord) -> str:
    """The inputs that a caller gives."""
    states = {source for source, *_ in model.states}
    return _shapes({name: shape for name, shape in model.inputs.items() if name not in states})


def _shapes(tensors: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name}{list(shape)}" for name, shape in tensors.items())


def _description(model: ModelRecord) -> str:
    targets = {target for _, target, _ in model.states}
    facts = [
        ("inputs", _given(model)),
        ("outputs", _shapes({name: shape for name, shape in model.outputs.items() if name not in targets})),
        *(
            ("state", f"{source}{list(model.inputs[source])} -> {target}, {reset:g} at the start")
            for source, target, reset in model.states
        ),
        ("state B", f"{model.state_bytes:,} as float32" if model.stateful else "-"),
        ("parameters", count(model.parameters)),
        ("row", "-" if model.row is None else str(model.row)),
        ("source", model.source),
    ]
    lines = [f"{model.name}: {model.description}", "", model.card, ""]
    lines += [f"{what:<11} {text}" for what, text in facts]
    return "\n".join(lines)
