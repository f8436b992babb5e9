# SPDX-License-Identifier: Apache-2.0
"""`edgec run`: the two runners give equal bits, in the model's own layout, as real values or the device's integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.artifact import load_artifact
from tests.command_line import done
from tests.conftest import Compiled
from tests.small_models import IMAGE, patch_classifier_numpy, reference


def ran(compiled: Compiled, out: Path, *options: object, given: Path | None = None) -> dict[str, np.ndarray]:
    done("run", compiled.path, "--input", given or compiled.samples, "--output", out, *options)
    return dict(np.load(out))


@pytest.mark.parametrize("which", ["patches_f746", "step_f746"])
def test_the_board_and_this_machine_give_equal_bits(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    compiled: Compiled = request.getfixturevalue(which)
    board = ran(compiled, tmp_path / "a.npz", "--raw", "--runner", "sim")
    host = ran(compiled, tmp_path / "b.npz", "--raw", "--runner", "host-c")
    default = ran(compiled, tmp_path / "c.npz", "--raw")
    real = ran(compiled, tmp_path / "d.npz")
    for port in load_artifact(compiled.path).outputs:
        assert board[port.name].dtype == host[port.name].dtype == np.int8
        assert len(np.unique(board[port.name])) > 8
        np.testing.assert_array_equal(board[port.name], host[port.name])
        np.testing.assert_array_equal(board[port.name], default[port.name])
        wanted = (board[port.name].astype(np.float64) - port.zero_point) * port.scale
        np.testing.assert_array_equal(real[port.name], wanted.astype(np.float32))


def test_host_artifact_and_board_artifact_give_equal_bits(
    step_f746: Compiled, step_host: Compiled, tmp_path: Path
) -> None:
    a = ran(step_f746, tmp_path / "a.npz", "--raw")["y"]
    b = ran(step_host, tmp_path / "b.npz", "--raw")["y"]
    np.testing.assert_array_equal(a, b)


def test_images_come_in_the_layout_of_the_model(patches_f746: Compiled, tmp_path: Path) -> None:
    """The device holds the image channels-last; H, W and C all differ, so that a wrong order cannot pass."""
    manifest = patches_f746.answer.json
    assert manifest["inputs"][0]["layout"] == [0, 2, 3, 1]
    assert manifest["inputs"][0]["shape"] == list(IMAGE)
    quantized = tmp_path / "q.onnx"
    done("quantize", patches_f746.model, "--calibration", patches_f746.samples, "--out", quantized)
    images = np.load(patches_f746.samples)["image"]
    got = ran(patches_f746, tmp_path / "r.npz")["logits"]
    lsb = manifest["outputs"][0]["scale"]
    qdq = reference(quantized, {"image": images})["logits"]
    assert np.abs(got - qdq).max() <= 2.001 * lsb  # at most one in each of the layers that feed the output
    exact = patch_classifier_numpy(images, patches_f746.model)
    assert np.abs(got[:, 0] - exact).max() <= 0.03 * np.ptp(exact)
    turned = np.swapaxes(images, 2, 3).reshape(images.shape)
    np.savez(tmp_path / "turned.npz", image=turned)
    other = ran(patches_f746, tmp_path / "r.npz", given=tmp_path / "turned.npz")["logits"]
    assert np.abs(other - got).max() > 0.1 * np.ptp(exact)


def test_a_batch_dimension_may_be_given_or_left_out(patches_f746: Compiled, tmp_path: Path) -> None:
    images = np.load(patches_f746.samples)["image"]
    np.savez(tmp_path / "batch.npz", image=images[:, None].astype(np.float64))
    a = ran(patches_f746, tmp_path / "a.npz")["logits"]
    b = ran(patches_f746, tmp_path / "b.npz", given=tmp_path / "batch.npz")["logits"]
    np.testing.assert_array_equal(a, b)


def test_every_run_of_a_stateful_model_begins_a_new_stream(step_f746: Compiled, tmp_path: Path) -> None:
    whole = ran(step_f746, tmp_path / "a.npz")["y"]
    x = np.load(step_f746.samples)["x"]
    np.savez(tmp_path / "head.npz", x=x[:7])
    head = ran(step_f746, tmp_path / "b.npz", given=tmp_path / "head.npz")["y"]
    np.testing.assert_array_equal(whole[:7], head)
    np.savez(tmp_path / "tail.npz", x=x[7:])
    tail = ran(step_f746, tmp_path / "c.npz", given=tmp_path / "tail.npz")["y"]
    assert not np.array_equal(whole[7:], tail)


def test_a_stream_follows_onnx_runtime_fed_back_by_hand(step_f746: Compiled, tmp_path: Path) -> None:
    """The first output already depends on the reset value 0.25 of `h`."""
    got = ran(step_f746, tmp_path / "a.npz")["y"]
    feeds = dict(np.load(step_f746.samples))
    wanted = reference(step_f746.model, feeds, [("h", "h_next", 0.25), ("m", "m_next", 0.0)])["y"]
    cold = reference(step_f746.model, feeds, [("h", "h_next", 0.0), ("m", "m_next", 0.0)])["y"]
    assert np.abs(got[:3] - wanted[:3]).max() < 0.03 * np.ptp(wanted) < np.abs(cold[:3] - wanted[:3]).max()
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.99


def test_profile_runs_the_sample_that_it_is_given(step_f746: Compiled) -> None:
    default = done("profile", step_f746.path, "--json").json
    given = done("profile", step_f746.path, "--input", step_f746.samples, "--json").json
    assert [o["name"] for o in default["operators"]] == [o["name"] for o in given["operators"]]
    assert default["instructions"] > 100
    assert given["instructions"] > 100
