# SPDX-License-Identifier: Apache-2.0
"""`edgec quantize`: float ONNX -> int8 ONNX (QDQ)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgec.cli.arguments import Calibration, InputShape, Json, State, read_model, read_samples
from edgec.cli.output import print_json, progress

NAME = "quantize"
HELP = "Quantize a float ONNX model to int8 (QDQ form, which ONNX Runtime also runs)."
EXAMPLE = "edgec quantize model.onnx --calibration samples.npz --out model.int8.onnx"


def command(
    model: Annotated[Path, typer.Argument(help="Float ONNX file.")],
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write.")],
    calibration: Calibration = None,
    state: State = None,
    input_shape: InputShape = None,
    json_: Json = False,
) -> None:
    """Quantize a model."""
    tell = progress(json_)
    tell("read the model")
    loaded = read_model(model, state, input_shape)
    samples = read_samples(calibration, loaded)
    from edgec.artifact import new_file
    from edgec.compile import Options, prepare
    from edgec.model import save_model

    tell("canonicalize, calibrate, quantize")
    with new_file(out) as part:
        quantized = prepare(loaded, Options(calibration=samples))
        save_model(quantized, part)
    if json_:
        print_json(
            {
                "model": loaded.name,
                "onnx": str(out),
                "bytes": out.stat().st_size,
                "operators": quantized.histogram(),
                "notes": quantized.notes,
            }
        )
        return
    print(f"wrote {out} ({out.stat().st_size:,} B, int8 QDQ)")
    for note in quantized.notes:
        print(f"  note   {note}")
