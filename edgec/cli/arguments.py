# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share, and how their text is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgec.errors import UsageError

if TYPE_CHECKING:
    from edgec.compile import Samples
    from edgec.model import Model

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Calibration = Annotated[
    Path | None,
    typer.Option(help="npz of input samples by input name, leading axis = samples (or steps of one stream)."),
]
State = Annotated[list[str] | None, typer.Option("--state", help="A state pair input:output (repeatable).")]
InputShape = Annotated[
    list[str] | None, typer.Option("--input-shape", help="Shape of an input, e.g. x=1,3,64,64 (repeatable).")
]


def read_model(path: Path, states: list[str] | None, shapes: list[str] | None) -> Model:
    """The model at `path` with the state pairs and shapes of the command line."""
    from edgec.model import load_model

    return load_model(path, states=states or (), input_shapes=_shapes(shapes or []))


def read_samples(path: Path | None, model: Model) -> Samples | None:
    """The calibration samples, or None without a file."""
    if path is None:
        return None
    from edgec.quantize.dataset import load_samples

    return load_samples(path, model.inputs)


def _shapes(texts: list[str]) -> dict[str, list[int]]:
    shapes = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        try:
            shape = [int(d) for d in dims.split(",")]
        except ValueError:
            shape = []
        if not equals or not name or not shape or min(shape) < 1:
            raise UsageError(f"--input-shape {text!r} is not a shape", need="NAME=1,3,64,64 (positive numbers)")
        shapes[name] = shape
    return shapes
