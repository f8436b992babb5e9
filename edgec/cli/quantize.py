# SPDX-License-Identifier: Apache-2.0
"""`edgec quantize`: float ONNX -> int8 ONNX (QDQ), and which operator loses most on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgec.cli.arguments import (
    BiasCorrection,
    Calibration,
    CalibrationMethod,
    Equalization,
    Equalize,
    InputNorm,
    InputShape,
    Json,
    Labels,
    LayerWidth,
    LayerWidths,
    MaxLoss,
    Method,
    State,
    StateWidths,
    read_model,
    read_recipe,
    read_samples,
)
from edgec.cli.output import print_json, progress
from edgec.errors import UsageError

if TYPE_CHECKING:
    from edgec.compile import Samples
    from edgec.model import Model
    from edgec.quantize.options import Recipe
    from edgec.quantize.report import Row

NAME = "quantize"
HELP = "Quantize a float ONNX model to int8 (QDQ form, which ONNX Runtime also runs)."
EXAMPLE = "edgec quantize model.onnx --calibration samples.npz --out model.int8.onnx --report"


def command(
    model: Annotated[Path, typer.Argument(help="Float ONNX file.")],
    out: Annotated[Path | None, typer.Option("--out", help="The ONNX file to write; not needed with --report.")] = None,
    calibration: Calibration = None,
    state: State = None,
    input_shape: InputShape = None,
    input_norm: InputNorm = None,
    method: CalibrationMethod = Method.MINMAX,
    equalize: Equalization = Equalize.AUTO,
    bias_correction: BiasCorrection = True,
    max_loss: MaxLoss = None,
    labels: Labels = None,
    state_width: StateWidths = None,
    layer_width: LayerWidths = LayerWidth.AUTO,
    report: Annotated[
        bool, typer.Option("--report", help="Which operator loses most, worst first, why, and what helps.")
    ] = False,
    json_: Json = False,
) -> None:
    """Quantize a model."""
    tell = progress(json_)
    tell("read the model")
    loaded = read_model(model, state, input_shape, input_norm)
    samples = read_samples(calibration, loaded)
    recipe = read_recipe(method, equalize, bias_correction, max_loss, labels, loaded, samples, state_width, layer_width)
    if out is None and not report:
        raise UsageError("nothing to do", need="--out FILE, --report or both")
    tell("canonicalize, calibrate, quantize")
    quantized, rows = _quantized(loaded, samples, recipe, report)
    written = 0
    if out is not None:
        from edgec.artifact import new_file
        from edgec.model import save_model

        with new_file(out) as part:
            save_model(quantized, part)
        written = out.stat().st_size
    if json_:
        result: dict[str, object] = {"model": loaded.name, "onnx": None if out is None else str(out), "bytes": written}
        result |= {"operators": quantized.histogram(), "notes": quantized.notes}
        print_json(result | ({"report": [row.as_json() for row in rows]} if report else {}))
        return
    if report:
        from edgec.quantize.report import render

        print(render(rows))
    if out is not None:
        print(f"wrote {out} ({written:,} B, int8 QDQ)")
    for note in quantized.notes:
        print(f"  note   {note}")


def _quantized(model: Model, samples: Samples | None, recipe: Recipe, report: bool) -> tuple[Model, list[Row]]:
    from edgec.compile import Options, canonical, prepare

    if not report:
        return prepare(model, Options(calibration=samples, recipe=recipe)), []
    from edgec.quantize.quantize import finish, is_quantized, plan_quantization
    from edgec.quantize.report import diagnose

    if is_quantized(model):
        raise UsageError(f"{model.name} is quantized already", need="the float model for a report")
    decision = plan_quantization(canonical(model), samples, recipe)
    return finish(decision), diagnose(decision.plan, decision.samples)
