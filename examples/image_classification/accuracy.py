# SPDX-License-Identifier: Apache-2.0
"""Accuracy over the whole test set: the float model in ONNX Runtime beside the compiled int8 program on this machine.

    python examples/image_classification/accuracy.py [--data DIR] [--model FILE.onnx] [--json]

Needs Fashion-MNIST as fashion_mnist/fashion_mnist.npz (x_test, y_test) below --data, EDGEC_DATA or ../shared/data.
Exits with 1 when int8 loses more than the points given by --most.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgec.compile import Options, compile_model
from edgec.model import load_model
from edgec.quantize.dataset import load_samples
from edgec.run import run_artifact
from edgec.target import load_target

HERE = Path(__file__).resolve().parent
DEFAULT_DATA = Path(os.environ.get("EDGEC_DATA", HERE.parents[2] / "shared" / "data"))


def measure(
    model_path: Path, calibration: Path, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Accuracy of float and int8 in percent, their difference in points, and how often the classes agree.

    Args:
        model_path: float ONNX with one input and one output of class scores.
        calibration: npz of calibration samples.
        images: float32 [S, *ONNX shape without batch].
        labels: int64 [S].
    """
    model = load_model(model_path)
    (image,), (scores,) = model.inputs, model.outputs
    session = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    shaped = images.reshape(-1, *image.shape)
    wanted = np.array([session.run(None, {image.name: x})[0].argmax() for x in shaped])
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        options = Options(calibration=load_samples(calibration, model.inputs))
        artifact = compile_model(model, load_target("stm32f746"), Path(folder) / "artifact", options)
        outputs = run_artifact(artifact, {image.name: shaped}, "host-c")[scores.name]
    got = outputs.reshape(len(labels), -1).argmax(axis=1)
    accuracy = 100 * float(np.mean(wanted == labels)), 100 * float(np.mean(got == labels))
    return {
        "samples": len(labels),
        "float": round(accuracy[0], 2),
        "int8": round(accuracy[1], 2),
        "loss_points": round(accuracy[0] - accuracy[1], 2),
        "same_class": round(100 * float(np.mean(wanted == got)), 2),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--model", type=Path, default=HERE / "mcuformer_fashion_mnist.onnx")
    parser.add_argument("--calibration", type=Path, default=HERE / "calibration.npz")
    parser.add_argument("--most", type=float, default=1.0, help="points that int8 may lose")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    path = args.data / "fashion_mnist" / "fashion_mnist.npz"
    if not path.is_file():
        sys.exit(f"error: {path} is not there\n  try    --data DIR or EDGEC_DATA=DIR")
    with np.load(path) as data:
        images, labels = data["x_test"].astype(np.float32) / 255, data["y_test"].astype(np.int64)
    result = measure(args.model, args.calibration, images, labels)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{args.model.name}, {result['samples']:,} test images")
        print(
            f"  float {result['float']:.2f} %   int8 {result['int8']:.2f} %   loss {result['loss_points']:+.2f} points"
        )
        print(f"  same class for {result['same_class']:.2f} % of the images")
    if result["loss_points"] > args.most:
        sys.exit(1)


if __name__ == "__main__":
    main()
