# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share, and how their text is read."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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


class LayerWidth(enum.StrEnum):
    """Width of what no state demands to be wider."""

    AUTO = "auto"
    INT8 = "int8"


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
FrontEnd = Annotated[
    str | None,
    typer.Option(
        "--front-end",
        metavar="[INPUT=]log-mel",
        help="The program takes samples (pcm, int16) and computes the frames of this input itself; "
        "log-mel:window=400,hop=160,... sets what is not as usual, none takes frames whatever the file says.",
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
StateWidths = Annotated[
    list[str] | None,
    typer.Option(
        "--state-width",
        metavar="[STATE=]auto|int8|int16|float32",
        help="Width of the states, or of one: auto takes the narrowest with which the outputs do not drift from float "
        "(repeatable).",
    ),
]
LayerWidths = Annotated[
    LayerWidth,
    typer.Option(
        "--layer-width",
        help="In models with states: auto makes as few layers as possible int16 or float where the outputs drift "
        "whatever the states' width.",
    ),
]


def read_model(
    path: Path,
    states: list[str] | None,
    shapes: list[str] | None,
    norms: list[str] | None = None,
    front_end: str | None = None,
) -> Model:
    """The model at `path` with the state pairs, shapes, normalizations and front end of the command line."""
    from edgec.model import load_model

    model = load_model(path, states=states or (), input_shapes=_shapes(shapes or []))
    if norms:
        from edgec.passes.input_norm import normalized_inputs

        model = normalized_inputs(model, norms)
    if front_end is not None:
        from edgec.front_end import with_front_end

        model = with_front_end(model, front_end)
    return model


def read_samples(path: Path | None, model: Model) -> Samples | None:
    """The calibration samples, or None without a file; of a model with a front end features, or what it takes."""
    if path is None:
        return None
    from edgec.front_end import features_alone, given_inputs
    from edgec.quantize.dataset import check_samples, read_npz

    arrays, given = read_npz(path), given_inputs(model)
    infos = given if all(info.name in arrays for info in given) else model.inputs
    return features_alone(model, check_samples(arrays, infos, source=str(path)))


def read_recipe(
    method: Method,
    equalize: Equalize,
    bias_correction: bool,
    max_loss: float | None,
    labels: Path | None,
    model: Model,
    samples: Samples | None,
    widths: list[str] | None = None,
    layers: LayerWidth = LayerWidth.AUTO,
) -> Recipe:
    """How to quantize, from the options of the command line."""
    from edgec.quantize.options import Recipe

    recipe = Recipe(
        method.value,
        equalize=equalize.value,
        bias_correction=bias_correction,
        max_loss=max_loss,
        **width_fields(widths, layers),
    )
    if labels is None:
        return recipe
    if samples is None or max_loss is None:
        raise UsageError(
            "--labels needs --calibration and --max-loss", hint="for accuracy alone: edgec verify --labels"
        )
    from edgec.verify import load_labels

    truth = load_labels(labels, model.outputs, len(next(iter(samples.values()))))
    return dataclasses.replace(recipe, labels=truth.classes, scores=truth.output)


def width_fields(states: list[str] | None, layers: LayerWidth) -> dict[str, Any]:
    """Fields of a recipe: the width of all states, of those that are named, and of layers."""
    texts = states or []
    common, named = [t for t in texts if "=" not in t], [t.rpartition("=") for t in texts if "=" in t]
    found: dict[str, Any] = {"state_widths": {name: width for name, _, width in named}, "layer_width": layers.value}
    return found | ({"state_width": common[-1]} if common else {})


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
