# SPDX-License-Identifier: Apache-2.0
"""What each quantization method keeps of the shipped models: the table of docs/quantization.md.

    .venv/bin/python scripts/quantization.py [--data DIR] [--count N]            prints the table
    .venv/bin/python scripts/quantization.py --write                             and puts it into docs/quantization.md

Figures are of the QDQ models in ONNX Runtime without graph optimizations, on the first N test samples: accuracy, and
the signal-to-noise ratio of the scores against float. Calibration samples are those of the examples.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgec.model import Model, load_model
from edgec.passes.canonicalize import canonicalize
from edgec.quantize.calibrate import run_stream
from edgec.quantize.fidelity import decibels, noise_of
from edgec.quantize.options import Recipe
from edgec.quantize.quantize import quantize

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "quantization.md"
MARKS = ("<!-- table: scripts/quantization.py -->", "<!-- end -->")
sys.path[:0] = [str(EXAMPLES), str(EXAMPLES / "image_classification"), str(EXAMPLES / "cnn")]
import cifar10  # noqa: E402
import images  # noqa: E402
from data_folder import DEFAULT, data_file  # noqa: E402

RECIPES = {
    "minmax alone": Recipe(equalize="off", bias_correction=False),
    "+ bias correction": Recipe(equalize="off"),
    "+ equalization": Recipe(equalize="on"),
    "defaults": Recipe(),
    "percentile 99.99": Recipe(method="percentile"),
    "mse": Recipe(method="mse"),
    "entropy": Recipe(method="entropy"),
}
Floats = npt.NDArray[np.float32]
Case = tuple[str, Model, Floats, Floats, npt.NDArray[np.int64]]


def cases(data: Path, count: int) -> Iterator[Case]:
    """Name, canonical model, calibration samples, test samples and labels of each image classifier."""
    with np.load(data_file(data, "fashion_mnist/fashion_mnist.npz")) as arrays:
        pictures, labels = arrays["x_test"][:count].astype(np.float32) / 255, arrays["y_test"][:count].astype(np.int64)
    for name in ("mcuformer_fashion_mnist", "vit64"):
        model = canonicalize(load_model(EXAMPLES / "image_classification" / f"{name}.onnx"))
        shape = model.inputs[0].shape
        with np.load(EXAMPLES / "image_classification" / "calibration.npz") as arrays:
            calibration = images.as_input(arrays["image"].reshape(-1, 28, 28), shape)
        yield name, model, calibration, images.as_input(pictures, shape), labels
    pixels, labels = cifar10.load_cifar10(data, "test", np.arange(count))
    drawn, _ = cifar10.load_cifar10(data, "train", np.random.default_rng(0).permutation(50_000)[:64])
    for name in ("resnet_cifar10", "ds_cnn_cifar10"):
        model = canonicalize(load_model(EXAMPLES / "cnn" / f"{name}.onnx"))
        yield name, model, cifar10.as_input(drawn)[:, None], cifar10.as_input(pixels)[:, None], labels


def scores(model: Model, samples: dict[str, Floats]) -> npt.NDArray[np.float64]:
    """The model's one output, [S, classes]."""
    return np.stack([next(iter(found.values())).ravel() for found in run_stream(model, samples)]).astype(np.float64)


def table(data: Path, count: int) -> str:
    """The table in Markdown: a row for each recipe, a column for each model."""
    rows = [f"| {name} |" for name in ("model", "---", "float", *RECIPES)]
    for name, model, calibration, test, labels in cases(data, count):
        given = model.inputs[0].name
        want = scores(model, {given: test})
        cells = [name, "---", f"{accuracy(want, labels):.2f} %"]
        for recipe in RECIPES.values():
            got = scores(quantize(model, {given: calibration}, recipe), {given: test})
            cells.append(f"{accuracy(got, labels):.2f} %, {decibels(noise_of(got, want)):.1f} dB")
        rows = [f"{row} {cell} |" for row, cell in zip(rows, cells, strict=True)]
        print(f"{name} done", file=sys.stderr)
    return "\n".join(rows)


def accuracy(values: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Percent of rows whose largest value is at their label."""
    return 100 * float(np.mean(values.argmax(axis=1) == labels))


def main() -> None:
    """Parse, measure, print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    text = table(args.data, args.count)
    print(text)
    if args.write:
        before = PAGE.read_text()
        pattern = re.compile(f"{re.escape(MARKS[0])}.*?{re.escape(MARKS[1])}", re.DOTALL)
        PAGE.write_text(pattern.sub(lambda _: f"{MARKS[0]}\n\n{text}\n\n{MARKS[1]}", before))


if __name__ == "__main__":
    main()
