# SPDX-License-Identifier: Apache-2.0
"""Accuracy over all test images: the float model in ONNX Runtime beside the compiled int8 program on this machine.

    python examples/cnn/accuracy.py [--data DIR] [--model FILE.onnx] [--most POINTS] [--json]

Needs CIFAR-10 as cifar10/cifar10_jpegbytes.npz below --data, EDGEC_DATA or ../shared/data, and Pillow; the
calibration images are drawn from its training part, since none are shipped. Exits with 1 when int8 loses more than
the points given by --most.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cifar10 import as_input, load_cifar10
from comparison import add_arguments, compare, report

HERE = Path(__file__).resolve().parent
CALIBRATION = 64  # training images, drawn at random with this seed
SEED = 0


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, HERE / "resnet_cifar10.onnx")
    args = parser.parse_args()
    chosen = np.random.default_rng(SEED).permutation(50_000)[:CALIBRATION]
    calibration, _ = load_cifar10(args.data, "train", chosen)
    images, labels = load_cifar10(args.data, "test")
    result = compare(args.model, as_input(calibration)[:, None], as_input(images)[:, None], labels, "test images")
    report(result, args.most, args.json)


if __name__ == "__main__":
    main()
