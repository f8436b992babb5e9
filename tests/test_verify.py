# SPDX-License-Identifier: Apache-2.0
"""`edgec verify`: the forms it runs are the ones that it says, and an inequality is found wherever it is planted."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgec.artifact import load_artifact
from edgec.cli.verify import DEFAULT_TARGET
from edgec.target import load_target
from edgec.verify import Comparison, compare, load_labels, subject_of_artifact
from tests.command_line import done, edgec
from tests.conftest import Compiled
from tests.small_models import reference

STATES = [("h", "h_next", 0.25), ("m", "m_next", 0.0)]


def test_an_artifact_is_equal_bit_for_bit_in_three_forms(patches_f746: Compiled) -> None:
    answer = done("verify", patches_f746.path, "--input", patches_f746.samples, "--json").json
    assert answer["compared_bit_for_bit"] == ["definitions", "host C", "board"]
    assert answer["equal"] is True
    assert answer["samples"] == 12
    forms = answer["outputs"]["logits"]
    assert [f["form"] for f in forms] == ["QDQ", "definitions", "host C", "board"]
    assert len({(f["largest"], f["mean"], f["cosine"]) for f in forms[1:]}) == 1


def test_the_forms_of_a_float_model_against_onnx_runtime(step_f746: Compiled) -> None:
    """The float form is the model in ONNX Runtime, state fed back; the others are as far from it as they are told."""
    files = "--input", step_f746.samples, "--calibration", step_f746.samples, "--steps", "20"
    answer = done("verify", step_f746.model, *files, "--target", "stm32f746", "--json").json
    assert answer["reference"] == "float"
    assert answer["steps"] == 20
    subject = subject_of_artifact(step_f746.path)
    with np.load(step_f746.samples) as data:
        feeds = {"x": data["x"][:20].reshape(20, 1, 6)}
    wanted = reference(step_f746.model, feeds, STATES)["y"].astype(np.float64).ravel()
    mine = compare(subject, feeds).real["board"]["y"].astype(np.float64).ravel()
    told = {f["form"]: f for f in answer["outputs"]["y"]}
    assert told["float"]["largest"] == 0
    assert told["board"]["largest"] == pytest.approx(np.abs(wanted - mine).max(), rel=1e-4)
    assert told["board"]["mean"] == pytest.approx(np.abs(wanted - mine).mean(), rel=1e-4)
    cosine = wanted @ mine / np.linalg.norm(wanted) / np.linalg.norm(mine)
    assert told["board"]["cosine"] == pytest.approx(cosine, abs=1e-6)
    assert told["board"]["cosine"] > 0.99


def test_accuracy_of_each_form(patches_f746: Compiled, tmp_path: Path) -> None:
    with np.load(patches_f746.samples) as data:
        images = {"image": data["image"]}
    classes = reference(patches_f746.model, images)["logits"].reshape(12, -1).argmax(axis=1)
    classes[:3] = (classes[:3] + 1) % 5  # three wrong ones
    classes[3] = -1  # one not counted
    np.savez(tmp_path / "labels.npz", labels=classes)
    arguments = "--input", patches_f746.samples, "--calibration", patches_f746.samples
    labels = "--labels", tmp_path / "labels.npz"
    answer = done("verify", patches_f746.model, *arguments, *labels, "--target", "stm32f746", "--json").json
    told = {f["form"]: f["accuracy"] for f in answer["outputs"]["logits"]}
    assert told["float"] == pytest.approx(8 / 11)
    assert told["definitions"] == told["host C"] == told["board"]
    assert "72.73%" in done("verify", patches_f746.model, *arguments, *labels).out


def test_an_unequal_host_library_is_found(patches_f746: Compiled, tmp_path: Path) -> None:
    """A weight changed in the C after compiling: the firmware is as it was, this machine's program is not."""
    copy = tmp_path / "copy"
    shutil.copytree(patches_f746.path, copy, ignore=shutil.ignore_patterns("host"))
    source = copy / "patches_weights.c"
    changed, times = re.subn(r"(\.conv0_weights = \{\s+)\d+u", r"\g<1>0x7F7F7F7Fu", source.read_text())
    assert times == 1
    source.write_text(changed)
    answer = edgec("verify", copy, "--input", patches_f746.samples)
    assert answer.code == 5
    assert "logits: host C differs from definitions" in answer.err
    assert "cosine" in answer.out  # the table comes first
    told = edgec("verify", copy, "--input", patches_f746.samples, "--json")
    assert told.code == 5
    assert told.json["equal"] is False
    assert len(told.json["faults"]) == 2  # host C from the definitions, and the board from host C


def test_faults_say_where() -> None:
    a, b = np.zeros((3, 1, 4), np.int8), np.zeros((3, 1, 4), np.int8)
    b[2, 0, 1:3] = 1
    found = Comparison(3, {"x": {"y": a}}, {"definitions": {"y": a}, "host C": {"y": b}, "board": {"y": b}}).faults()
    assert found == ["y: host C differs from definitions in 2 of 12 elements, first in sample 2"]


def test_a_changed_model_in_an_artifact_is_refused(patches_f746: Compiled, step_f746: Compiled, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(patches_f746.path, copy)
    shutil.copyfile(step_f746.path / "model.onnx", copy / "model.onnx")
    answer = edgec("verify", copy, "--input", patches_f746.samples)
    assert answer.code == 2
    assert "is not the model that was compiled" in answer.err
    (copy / "model.onnx").unlink()
    assert "has no model.onnx" in edgec("verify", copy, "--input", patches_f746.samples).err


def test_a_float32_program_is_compared_by_distance_its_c_bit_for_bit(patches_f746: Compiled, tmp_path: Path) -> None:
    options = "--precision", "float32", "--input", patches_f746.samples, "--steps", "2", "--json"
    answer = done("verify", patches_f746.model, *options).json
    assert [f["form"] for f in answer["outputs"]["logits"]] == ["float", "canonical", "host C", "board"]
    assert answer["compared_bit_for_bit"] == ["host C", "board"]
    assert answer["equal"] is True
    assert all(f["largest"] < 1e-4 for f in answer["outputs"]["logits"])


def test_without_input_random_samples_are_told(step_f746: Compiled) -> None:
    answer = done("verify", step_f746.path, "--steps", "3")
    assert "3 random samples" in answer.out
    assert "3 steps" in answer.out
    assert "definitions = host C = board, bit for bit" in answer.out


def test_a_model_of_the_zoo_by_its_name() -> None:
    pytest.importorskip("torch")
    answer = done("verify", "recurrent-16-64-32", "--steps", "4", "--target", "host-c", "--json").json
    assert answer["model"] == "recurrent-16-64-32"
    assert answer["compared_bit_for_bit"] == ["definitions", "host C"]
    assert answer["equal"] is True


def test_a_stateful_model_of_the_zoo_begins_with_both_forms_in_torch() -> None:
    """Weights from the exported file of a trained model: all float forms agree to rounding, the program's closely."""
    pytest.importorskip("torch")
    digits = Path(__file__).parents[1] / "examples" / "spoken_digits"
    files = "--input", digits / "calibration.npz", "--checkpoint", digits / "gru_spoken_digits.onnx"
    told = done("verify", "gru-spoken-digits", *files, "--steps", "60", "--target", "host-c", "--json").json
    forms = {f["form"]: f for f in told["outputs"]["logits"]}
    assert list(forms) == ["parallel", "torch step", "float", "QDQ", "definitions", "host C"]
    assert told["reference"] == "parallel"
    assert 0 < forms["torch step"]["largest"] < 1e-5
    assert forms["float"]["largest"] < 1e-5
    assert 0.99 < forms["host C"]["cosine"] < 1


def test_the_parallel_form_goes_on_from_chunk_to_chunk() -> None:
    pytest.importorskip("torch")
    from edgec.models.registry import get_model
    from edgec.models.streams import parallel_stream, step_stream

    record = get_model("gru-spoken-digits")
    module = record.build(3)
    frames = {"frame": np.random.default_rng(0).normal(size=(11, 1, 40)).astype(np.float32)}
    steps = np.stack([row["logits"] for row in step_stream(module, record, frames)])
    for chunk in (1, 4, 11, 500):
        chunked = np.stack([row["logits"] for row in parallel_stream(module, record, frames, chunk)])
        assert chunked.shape == steps.shape == (11, 1, 10)
        np.testing.assert_allclose(chunked, steps, atol=1e-6)


def test_a_checkpoint_is_for_models_of_the_zoo(patches_f746: Compiled) -> None:
    for subject in (patches_f746.model, patches_f746.path):
        answer = edgec("verify", subject, "--checkpoint", patches_f746.model)
        assert answer.code == 2
        assert "--checkpoint" in answer.err


@pytest.mark.parametrize(
    ("arrays", "needed"),
    [
        ({"labels": np.array([0, 1, 5])}, "0 to 4"),
        ({"labels": np.array([-1, -1, -1])}, "0 to 4"),
        ({"labels": np.array([0.5, 1, 2])}, "3 whole numbers"),
        ({"labels": np.array([1, 2])}, "3 whole numbers"),
        ({"a": np.arange(3), "b": np.arange(3)}, "one array"),
    ],
)
def test_labels_that_are_none(
    patches_f746: Compiled, tmp_path: Path, arrays: dict[str, np.ndarray], needed: str
) -> None:
    np.savez(tmp_path / "labels.npz", **arrays)  # type: ignore[arg-type]
    answer = edgec(
        "verify",
        patches_f746.path,
        "--input",
        patches_f746.samples,
        "--steps",
        "3",
        "--labels",
        tmp_path / "labels.npz",
    )
    assert answer.code == 2
    assert needed in answer.err


def test_labels_by_output_name_and_shape(tmp_path: Path, patches_f746: Compiled) -> None:
    np.savez(tmp_path / "labels.npz", logits=np.arange(5).reshape(5, 1))
    outputs = subject_of_artifact(patches_f746.path).graph.outputs
    labels = load_labels(tmp_path / "labels.npz", outputs, 4)
    assert labels.output == "logits"
    np.testing.assert_array_equal(labels.classes, [0, 1, 2, 3])


@pytest.mark.parametrize("option", [("--target", "stm32f746"), ("--calibration", "x.npz"), ("--state", "a:b")])
def test_options_of_models_are_refused_for_an_artifact(patches_f746: Compiled, option: tuple[str, str]) -> None:
    answer = edgec("verify", patches_f746.path, *option)
    assert answer.code == 2
    assert option[0] in answer.err


def test_what_is_nothing_is_a_usage_error(tmp_path: Path) -> None:
    assert "there is no model named" in edgec("verify", "no-such-model").err
    assert edgec("verify", tmp_path / "no.onnx").code == 2
    assert edgec("verify", tmp_path).code == 2


def test_the_artifacts_model_is_the_quantized_one(patches_f746: Compiled, tmp_path: Path) -> None:
    """Quantizing apart gives the same file, and its hash is the manifest's."""
    import hashlib

    quantized = tmp_path / "q.onnx"
    done("quantize", patches_f746.model, "--calibration", patches_f746.samples, "--out", quantized)
    assert quantized.read_bytes() == (patches_f746.path / "model.onnx").read_bytes()
    told = load_artifact(patches_f746.path).manifest["model"]["onnx_sha256"]
    assert told == hashlib.sha256(quantized.read_bytes()).hexdigest()


def test_the_default_target_is_a_board() -> None:
    assert load_target(DEFAULT_TARGET).ram_spans()


def test_drift_is_told_and_drawn(step_f746: Compiled, tmp_path: Path) -> None:
    """The stream goes on past the input's end; errors of stretches are those of the outputs, by an independent sum."""
    folder, page = tmp_path / "program", tmp_path / "report.html"
    shutil.copytree(step_f746.path, folder)
    files = "--input", step_f746.samples, "--report", page
    with np.load(step_f746.samples) as data:
        given = data["x"].reshape(-1, 1, 6)
    steps = len(given) + 130
    told = done("verify", folder, *files, "--steps", steps, "--json").json
    assert told["steps"] == steps
    compared = compare(subject_of_artifact(folder), {"x": np.concatenate([given] * 9)[:steps]}).real
    wanted, mine = (compared[form]["y"].astype(np.float64) for form in ("QDQ", "board"))
    for stretch in told["drift"]["board"]["y"]["stretches"]:
        a, b = stretch["first"], stretch["last"]
        error = np.linalg.norm(mine[a:b] - wanted[a:b]) / np.linalg.norm(wanted[a:b])
        assert stretch["relative_error"] == pytest.approx(error, rel=1e-6, abs=1e-12)
        assert stretch["top1"] == pytest.approx((mine[a:b].argmax(-1) == wanted[a:b].argmax(-1)).mean())
    text = done("verify", folder, *files, "--steps", steps).out
    assert f"the input has {len(given)} steps: it is repeated" in text
    assert "definitions = host C = board" in text
    assert "<h2>Drift</h2>" in page.read_text()
    assert "<h2>Drift</h2>" in (done("report", folder), (folder / "report.html").read_text())[1]
