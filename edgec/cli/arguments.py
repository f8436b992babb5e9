# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share, and how their text is read."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgec.errors import UsageError

if TYPE_CHECKING:
    from edgec.compile import Samples
    from edgec.model import Model
    from edgec.quantize.options import Recipe


class Precision(enum.StrEnum):
    """Arithmetic of the program."""

    INT8 = "int8"
    FLOAT32 = "float32"


class Method(enum.StrEnum):
    """How int8 ranges follow from what calibration saw."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


class Equalize(enum.StrEnum):
    """Whether channels are scaled against each other."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Calibration = Annotated[
    Path | None,
    typer.Option(help="npz of input samples by input name, leading axis = samples (or steps of one stream)."),
]
State = Annotated[list[str] | None, typer.Option("--state", help="A state pair input:output (repeatable).")]
InputShape = Annotated[
    list[str] | None, typer.Option("--input-shape", help="Shape of an input, e.g. x=1,3,64,64 (repeatable).")
]
InputNorm = Annotated[
    list[str] | None,
    typer.Option(
        "--input-norm",
        help="[INPUT=]MEANS/DEVIATIONS: the input becomes images of 0..255, e.g. "
        "0.485,0.456,0.406/0.229,0.224,0.225 (repeatable).",
    ),
]

CalibrationMethod = Annotated[Method, typer.Option("--method", help="How ranges follow from the calibration samples.")]
Equalization = Annotated[
    Equalize, typer.Option("--equalize", help="Scale channels against each other: auto keeps it where outputs gain.")
]
BiasCorrection = Annotated[
    bool, typer.Option("--bias-correction/--no-bias-correction", help="Fold each layer's expected error into its bias.")
]
MaxLoss = Annotated[
    float | None,
    typer.Option(
        "--max-loss",
        metavar="POINTS",
        help="Use int16 for as few tensors as keep the loss on the calibration samples within so many points: "
        "of accuracy with --labels, else 100 * (1 - cosine to float).",
    ),
]
Labels = Annotated[Path | None, typer.Option("--labels", help="npz: the class of each calibration sample.")]


def read_model(path: Path, states: list[str] | None, shapes: list[str] | None, norms: list[str] | None = None) -> Model:
    """The model at `path` with the state pairs, shapes and normalizations of the command line."""
    from edgec.model import load_model

    model = load_model(path, states=states or (), input_shapes=_shapes(shapes or []))
    if norms:
        from edgec.passes.input_norm import normalized_inputs

        model = normalized_inputs(model, norms)
    return model


def read_samples(path: Path | None, model: Model) -> Samples | None:
    """The calibration samples, or None without a file."""
    if path is None:
        return None
    from edgec.quantize.dataset import load_samples

    return load_samples(path, model.inputs)


def read_recipe(
    method: Method,
    equalize: Equalize,
    bias_correction: bool,
    max_loss: float | None,
    labels: Path | None,
    model: Model,
    samples: Samples | None,
) -> Recipe:
    """How to quantize, from the options of the command line."""
    from edgec.quantize.options import Recipe

    recipe = Recipe(method.value, equalize=equalize.value, bias_correction=bias_correction, max_loss=max_loss)
    if labels is None:
        return recipe
    if samples is None or max_loss is None:
        raise UsageError(
            "--labels needs --calibration and --max-loss", hint="for accuracy alone: edgec verify --labels"
        )
    from edgec.verify import load_labels

    truth = load_labels(labels, model.outputs, len(next(iter(samples.values()))))
    return dataclasses.replace(recipe, labels=truth.classes, scores=truth.output)


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
