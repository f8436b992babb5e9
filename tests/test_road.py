# SPDX-License-Identifier: Apache-2.0
"""The main job on the shipped model: real images, simulated board = host C = oracle, TVM's kernels = hand-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model, make_program
from edgec.model import Model, load_model
from edgec.operators.integer import quantize_real
from edgec.program import evaluate
from edgec.quantize.dataset import load_samples
from edgec.run import profile_artifact, run_artifact
from edgec.target import load_target

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "image_classification"
FLOAT = EXAMPLE / "mcuformer_fashion_mnist.onnx"
# Exact counts of one run on the simulated board; a change that costs more must say why here.
INSTRUCTIONS_CEILING = 7_700_000
RAM_CEILING = 10_400
FLASH_CEILING = 151_500


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(FLOAT)


@pytest.fixture(scope="module")
def options(model: Model) -> Options:
    return Options(calibration=load_samples(EXAMPLE / "calibration.npz", model.inputs))


@pytest.fixture(scope="module")
def images(model: Model) -> dict[str, np.ndarray[Any, Any]]:
    return load_samples(EXAMPLE / "samples.npz", model.inputs)


@pytest.fixture(scope="module")
def labels() -> np.ndarray[Any, Any]:
    with np.load(EXAMPLE / "labels.npz") as data:
        return np.asarray(data["labels"])


@pytest.fixture(scope="module")
def artifact(model: Model, options: Options, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("road")
    return compile_model(model, load_target("stm32f746"), folder / "auto", options)


@pytest.fixture(scope="module")
def generated(model: Model, options: Options, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("road")
    only_tvm = Options(calibration=options.calibration, kernels="tvm")
    return compile_model(model, load_target("stm32f746"), folder / "tvm", only_tvm)


def test_board_equals_host_on_a_hundred_images(artifact: Artifact, images: dict[str, np.ndarray[Any, Any]]) -> None:
    hundred = {name: a[:100] for name, a in images.items()}
    board = run_artifact(artifact, hundred, "sim", raw=True)["logits"]
    host = run_artifact(artifact, hundred, "host-c", raw=True)["logits"]
    assert len(board) == 100
    np.testing.assert_array_equal(board, host)


def test_host_equals_the_oracle(
    artifact: Artifact, model: Model, options: Options, images: dict[str, np.ndarray[Any, Any]]
) -> None:
    program = make_program(model, options)
    port, out = program.inputs[0], program.outputs[0]
    assert port.quantization is not None
    few = images[port.name][:4]
    got = run_artifact(artifact, {port.name: few}, "host-c", raw=True)[out.name]
    for image, result in zip(few, got, strict=True):
        device = image.transpose(port.layout) if port.layout else image
        values = {port.tensor: quantize_real(device, port.quantization.scale, port.quantization.zero_point)}
        np.testing.assert_array_equal(evaluate(program, values)[out.tensor].ravel(), result.ravel())


def test_generated_kernels_give_the_same_bits(
    artifact: Artifact, generated: Artifact, images: dict[str, np.ndarray[Any, Any]]
) -> None:
    assert set(generated.manifest["kernels"].values()) == {"tvm"}
    linear = [o["name"] for o in artifact.manifest["operators"] if o["op"] == "linear_s8"]
    assert linear
    assert all(artifact.manifest["kernels"][name] == "hand" for name in linear)
    few = {name: a[:3] for name, a in images.items()}
    wanted = run_artifact(artifact, few, "sim", raw=True)["logits"]
    np.testing.assert_array_equal(run_artifact(generated, few, "sim", raw=True)["logits"], wanted)
    many = run_artifact(generated, images, "host-c", raw=True)["logits"]
    np.testing.assert_array_equal(many, run_artifact(artifact, images, "host-c", raw=True)["logits"])


def test_int8_agrees_with_float_on_the_shipped_slice(
    artifact: Artifact, images: dict[str, np.ndarray[Any, Any]], labels: np.ndarray[Any, Any]
) -> None:
    session = onnxruntime.InferenceSession(FLOAT, providers=["CPUExecutionProvider"])
    wanted = np.array([session.run(None, {"image": x})[0].argmax() for x in images["image"]])
    got = run_artifact(artifact, images, "host-c")["logits"].reshape(len(labels), -1).argmax(axis=1)
    assert np.mean(wanted == labels) > 0.85
    assert np.mean(got == labels) >= np.mean(wanted == labels) - 0.02
    assert np.mean(got == wanted) >= 0.97


def test_profile_counts_every_instruction_once(artifact: Artifact, images: dict[str, np.ndarray[Any, Any]]) -> None:
    report = profile_artifact(artifact, images)
    again = profile_artifact(artifact, images)
    assert report == again
    counted = sum(o["instructions"] for o in report["operators"]) + report["overhead"]
    assert report["measured_on"] == "simulator"
    assert counted == report["instructions"]
    assert report["stack_bytes"] <= artifact.manifest["ram"]["stack_bytes"]
    ram, flash = artifact.manifest["ram"], artifact.manifest["flash"]
    print(f"\n{report['instructions']:,} instructions, RAM {ram['total_bytes']:,}, flash {flash['total_bytes']:,}")
    assert report["instructions"] <= INSTRUCTIONS_CEILING
    assert ram["total_bytes"] <= RAM_CEILING
    assert flash["total_bytes"] <= FLASH_CEILING


def test_figures_add_up(artifact: Artifact) -> None:
    ram, flash = artifact.manifest["ram"], artifact.manifest["flash"]
    assert ram["total_bytes"] == sum(ram[k] for k in ("arena_bytes", "state_bytes", "stack_bytes", "static_bytes"))
    assert flash["total_bytes"] == flash["code_bytes"] + flash["weights_bytes"]
    assert artifact.manifest["plan"]["arena_bytes"] >= artifact.manifest["plan"]["placement_bound_bytes"]
    assert json.loads((artifact.path / "manifest.json").read_text()) == artifact.manifest
