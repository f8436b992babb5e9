# SPDX-License-Identifier: Apache-2.0
"""Accuracy over all 300 test recordings: float in ONNX Runtime beside the int8 program, real-valued and spiking.

    python examples/keyword_spotting/accuracy.py [--data DIR] [--board N] [--most POINTS] [--json] [MODEL.onnx ...]

Needs the Free Spoken Digit Dataset as fsdd/fsdd.npz below --data, EDGEC_DATA or ../shared/data. The float model gets
log-mel frames, the program, on this machine, the sound itself: its front end is fixed-point. A recording is run from a
reset, and the class after its last frame counts. N recordings also run on the simulated board, where every bit of every
frame's answer has to be that of this machine. Exits with 1 when it is not, or when int8 of the first model loses more
than the points given by --most.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "spoken_digits"))
from comparison import float_classes
from data_folder import DEFAULT
from recordings import Recordings, calibration_of, heard, hops, load

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model
from edgec.device.runner import RunnerKind
from edgec.model import load_model
from edgec.run import run_artifact
from edgec.target import load_target

HERE = Path(__file__).resolve().parent
MODELS = [HERE / "lmuformer_spoken_digits.onnx", HERE / "lmuformer_spiking_spoken_digits.onnx"]


def measure(path: Path, calibration: Path, test: Recordings, board: int) -> dict[str, Any]:
    """Accuracies in percent, and on how many recordings board and this machine agree in every bit."""
    model = load_model(path)
    wanted = float_classes(path, model, [heard(one)[:, None] for one in test.pcm])
    with np.load(calibration) as data:
        options = Options(calibration={model.inputs[0].name: data["frame"]})
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        artifact = compile_model(model, load_target("stm32f746"), Path(folder) / "artifact", options)
        answers = [answer(artifact, one, "host-c") for one in test.pcm]
        got = np.array([logits[-1].argmax() for logits in answers])
        spread = np.linspace(0, len(answers) - 1, board).astype(int)
        equal = sum(np.array_equal(answer(artifact, test.pcm[i], "sim"), answers[i]) for i in spread)
    right = [100 * float(np.mean(classes == test.labels)) for classes in (wanted, got)]
    manifest = artifact.manifest
    return {
        "model": path.name,
        "recordings": len(answers),
        "float": round(right[0], 2),
        "int8": round(right[1], 2),
        "same_class": round(100 * float(np.mean(wanted == got)), 2),
        "board_recordings": board,
        "board_equal": equal,
        "ram_bytes": manifest["ram"]["total_bytes"],
        "state_bytes": manifest["ram"]["state_bytes"],
        "flash_bytes": manifest["flash"]["total_bytes"],
        "macs": manifest["model"]["macs"],
    }


def answer(artifact: Artifact, pcm: npt.NDArray[np.int16], runner: RunnerKind) -> npt.NDArray[np.int8]:
    """The program's logits after every hop of a recording, from a reset: integers as they are, [hops, classes]."""
    (given,), (logits,) = artifact.inputs, artifact.outputs
    result = run_artifact(artifact, {given.name: hops(pcm)}, runner, raw=True)[logits.name]
    return result.reshape(len(result), -1)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, default=MODELS)
    parser.add_argument("--data", type=Path, default=DEFAULT, help="folder of the data sets (EDGEC_DATA)")
    parser.add_argument("--calibration", type=Path, help="default: what lies beside the model")
    parser.add_argument("--board", type=int, default=30, help="recordings that also run on the simulated board")
    parser.add_argument("--most", type=float, default=0.5, help="points that int8 may lose")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    _, test = load(args.data)
    results = [measure(path, args.calibration or calibration_of(path), test, args.board) for path in args.models]
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        for one in results:
            print(f"{one['model']}, {one['recordings']} test recordings")
            print(f"  float {one['float']:.2f} %   int8 {one['int8']:.2f} %   same class {one['same_class']:.2f} %")
            print(f"  simulated board equal in every bit on {one['board_equal']} of {one['board_recordings']}")
            print(f"  RAM {one['ram_bytes']:,} B, state {one['state_bytes']:,} B of it, flash {one['flash_bytes']:,} B")
    lost = results[0]["float"] - results[0]["int8"]
    if lost > args.most or any(one["board_equal"] < one["board_recordings"] for one in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
