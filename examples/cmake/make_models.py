# SPDX-License-Identifier: Apache-2.0
"""Compiles the two models of this example: the recurrent step of ../streaming and a small classifier of its outputs."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.compile import Options, compile_model
from edgec.model import load_model
from edgec.quantize.calibrate import run_stream
from edgec.quantize.dataset import load_samples
from edgec.target import load_target

STREAMING = Path(__file__).resolve().parents[1] / "streaming"
FEATURES, HIDDEN, CLASSES = 10, 16, 4


def classifier(path: Path) -> Path:
    """Two dense layers and a Softmax over ten features; random weights: the example is about the C."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(size=(FEATURES, HIDDEN)),
        "b1": rng.normal(size=HIDDEN),
        "w2": rng.normal(size=(HIDDEN, CLASSES)),
        "b2": rng.normal(size=CLASSES),
    }
    nodes = [
        helper.make_node("Gemm", ["features", "w1", "b1"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="host-c", help="where the models will run")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder of the two artifacts")
    arguments = parser.parse_args()
    target, out = load_target(arguments.target), arguments.out
    out.mkdir(parents=True, exist_ok=True)

    step = load_model(STREAMING / "recurrent_16_64_32.onnx")
    stream = load_samples(STREAMING / "stream.npz", step.inputs)
    compile_model(step, target, out / "step", Options(calibration=stream))

    features = np.stack([row["y"] for row in run_stream(step, stream)])  # what the classifier will be given
    head = load_model(classifier(out / "classifier.onnx"))
    compile_model(head, target, out / "classifier", Options(calibration={"features": features}))
    print(f"wrote {out}/step and {out}/classifier")


if __name__ == "__main__":
    main()
