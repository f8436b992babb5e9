# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a classifier: float in ONNX Runtime beside the program compiled from it, on this machine; no PyTorch."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from data_folder import DEFAULT

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model
from edgec.model import Model, load_model
from edgec.run import run_artifact
from edgec.target import load_target

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]


def compare(
    model_path: Path, calibration: Floats, streams: Sequence[Floats] | Floats, labels: Classes, what: str
) -> dict[str, Any]:
    """Accuracy of float and int8 in percent, their difference in points, how often the classes agree, and the RAM.

    Args:
        model_path: float ONNX with one input, state apart, and one output of class scores.
        calibration: float32 [S, *ONNX shape], for the quantizer.
        streams: float32 [steps, *ONNX shape] of each thing to classify, for a model with state: it begins with
            a reset, and its class is that of the last step. For a model without: float32 [N, *ONNX shape].
        labels: int64 [N].
        what: the plural of what is classified.
    """
    model = load_model(model_path)
    wanted = float_classes(model_path, model, streams)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        options = Options(calibration={model.inputs[0].name: calibration})
        artifact = compile_model(model, load_target("stm32f746"), Path(folder) / "artifact", options)
        got = compiled_classes(artifact, model, streams)
    accuracy = 100 * float(np.mean(wanted == labels)), 100 * float(np.mean(got == labels))
    return {
        "model": model_path.name,
        "what": what,
        "samples": len(labels),
        "float": round(accuracy[0], 2),
        "int8": round(accuracy[1], 2),
        "loss_points": round(accuracy[0] - accuracy[1], 2),
        "same_class": round(100 * float(np.mean(wanted == got)), 2),
        "target": artifact.manifest["target"],
        "ram_bytes": artifact.manifest["ram"]["total_bytes"],
    }


def float_classes(path: Path, model: Model, streams: Sequence[Floats] | Floats) -> Classes:
    """The class that ONNX Runtime finds for each stream (see `compare`)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (scores,) = model.inputs, model.outputs
    names = [scores.name, *(state.output for state in model.states)]
    shapes = {info.name: info.shape for info in model.state_inputs}
    start = {state.input: np.full(shapes[state.input], state.reset, np.float32) for state in model.states}
    classes = []
    for stream in streams:
        state = start
        for x in stream if model.states else (stream,):
            logits, *after = session.run(names, {given.name: x, **state})
            state = {pair.input: value for pair, value in zip(model.states, after, strict=True)}
        classes.append(int(logits.argmax()))
    return np.array(classes)


def compiled_classes(artifact: Artifact, model: Model, streams: Sequence[Floats] | Floats) -> Classes:
    """The class that the compiled program finds for each stream (see `compare`)."""
    (given,), (scores,) = model.inputs, model.outputs
    if model.states:  # every call of run_artifact begins with a reset
        logits = [run_artifact(artifact, {given.name: one}, "host-c")[scores.name][-1].ravel() for one in streams]
    else:
        logits = list(run_artifact(artifact, {given.name: np.asarray(streams)}, "host-c")[scores.name])
    return np.array([one.argmax() for one in logits])


def add_arguments(parser: argparse.ArgumentParser, model: Path) -> None:
    """The options that every accuracy script has; `model` is the default of --model."""
    parser.add_argument("--data", type=Path, default=DEFAULT, help="folder of the data sets (EDGEC_DATA)")
    parser.add_argument("--model", type=Path, default=model)
    parser.add_argument("--most", type=float, default=0.7, help="points that int8 may lose")
    parser.add_argument("--json", action="store_true")


def report(result: dict[str, Any], most: float, as_json: bool) -> None:
    """Print the result of `compare`; the program ends with 1 when int8 lost more than `most` points."""
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{result['model']}, {result['samples']:,} {result['what']}")
        print(
            f"  float {result['float']:.2f} %   int8 {result['int8']:.2f} %   loss {result['loss_points']:+.2f} points"
        )
        print(f"  same class for {result['same_class']:.2f} % of the {result['what']}")
        print(f"  {result['ram_bytes']:,} B of RAM on {result['target']}, stack included")
    if result["loss_points"] > most:
        sys.exit(1)
