# SPDX-License-Identifier: Apache-2.0
"""Accuracy over the whole test set: the float model in ONNX Runtime beside the compiled int8 program on this machine.

    python examples/image_classification/accuracy.py [--data DIR] [--model FILE.onnx] [--most POINTS] [--json]

Needs Fashion-MNIST as fashion_mnist/fashion_mnist.npz (x_test, y_test) below --data, EDGEC_DATA or ../shared/data.
Exits with 1 when int8 loses more than the points given by --most.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from images import as_input

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from comparison import add_arguments, compare, report
from data_folder import data_file

from edgec.model import load_model

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, HERE / "mcuformer_fashion_mnist.onnx")
    parser.add_argument("--calibration", type=Path, default=HERE / "calibration.npz")
    args = parser.parse_args()
    with np.load(data_file(args.data, "fashion_mnist/fashion_mnist.npz")) as data:
        images, labels = data["x_test"].astype(np.float32) / 255, data["y_test"].astype(np.int64)
    with np.load(args.calibration) as data:
        calibration = data["image"].reshape(-1, *images.shape[1:])
    shape = load_model(args.model).inputs[0].shape
    result = compare(args.model, as_input(calibration, shape), as_input(images, shape), labels, "test images")
    report(result, args.most, args.json)


if __name__ == "__main__":
    main()
