# SPDX-License-Identifier: Apache-2.0
"""Accuracy over all test utterances: the float step in ONNX Runtime beside the compiled int8 program on this machine.

    python examples/spoken_digits/accuracy.py [--data DIR] [--model FILE.onnx] [--most POINTS] [--json]

Needs the Free Spoken Digit Dataset as fsdd/fsdd.npz below --data, EDGEC_DATA or ../shared/data. An utterance is
run frame by frame, or in whole segments, from a reset, and the class after the last one counts. Exits with 1 when int8
loses more than the points given by --most.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from comparison import add_arguments, compare, report
from features import Floats, load_fsdd

from edgec.model import load_model

HERE = Path(__file__).resolve().parent


def as_steps(frames: Floats, shape: tuple[int, ...]) -> Floats:
    """Frames [T, BINS] as a model takes them: [steps, *shape]; an incomplete segment at the end is left out."""
    segment = int(np.prod(shape)) // frames.shape[1]
    return frames[: len(frames) // segment * segment].reshape(-1, *shape)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, HERE / "gru_spoken_digits.onnx")
    parser.add_argument("--calibration", type=Path, help="default: the model's own beside it, else calibration.npz")
    args = parser.parse_args()
    test = load_fsdd(args.data, "test")
    own = args.model.with_name(f"calibration_{args.model.stem}.npz")
    given = load_model(args.model).inputs[0]
    with np.load(args.calibration or (own if own.exists() else HERE / "calibration.npz")) as data:
        calibration = data[given.name]
    streams = [as_steps(frames, given.shape) for frames in test.frames]
    result = compare(args.model, calibration, streams, test.labels, "test utterances")
    report(result, args.most, args.json)


if __name__ == "__main__":
    main()
