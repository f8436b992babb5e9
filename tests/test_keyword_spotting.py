# SPDX-License-Identifier: Apache-2.0
"""The keyword example as it is shipped: what its program hears, that board and host agree, and what a frame costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model
from edgec.model import load_model
from edgec.run import profile_artifact, run_artifact
from edgec.target import load_target

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FOLDER = EXAMPLES / "keyword_spotting"
CYCLES_CEILING = 140_000  # an estimate for each frame of 10 ms, of the 2,160,000 that the processor has
RAM_CEILING = 8_000  # 3,840 of them for the mean of the last scores, which is float to keep from drifting
FLASH_CEILING = 112_000


@pytest.fixture(autouse=True)
def examples_importable(monkeypatch):
    """As when a script of the example runs; the modules are forgotten afterwards."""
    before = set(sys.modules)
    for folder in (EXAMPLES / "spoken_digits", EXAMPLES, FOLDER):
        monkeypatch.syspath_prepend(str(folder))
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(EXAMPLES)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    with np.load(FOLDER / "calibration.npz") as data:
        options = Options(calibration={"frame": data["frame"]})
    model = load_model(FOLDER / "lmuformer_spoken_digits.onnx")
    return compile_model(model, load_target("stm32f746"), tmp_path_factory.mktemp("digits") / "artifact", options)


def recordings() -> Any:
    from recordings import shipped

    return shipped(FOLDER / "digits.npz")


def test_thirty_recordings_are_of_every_digit_and_speaker():
    found = recordings()
    assert sorted(found.labels.tolist()) == sorted(3 * list(range(10)))
    assert len(set(found.names)) == 30
    assert len(set(found.speakers)) == 6
    for name, label, pcm in zip(found.names, found.labels, found.pcm, strict=True):
        digit, _, number = name.split("_")
        assert (int(digit), int(number) < 5) == (label, True)  # of the test part
        assert 1000 < len(pcm) < 12_000
        assert np.abs(pcm.astype(int)).max() > 500


def test_program_understands_them_and_board_equals_host(artifact):
    from recordings import hops

    found, right = recordings(), 0
    for i, (pcm, label) in enumerate(zip(found.pcm, found.labels, strict=True)):
        sound = {"pcm": hops(pcm)}
        logits = run_artifact(artifact, sound, "host-c", raw=True)["logits"]
        right += int(logits[-1].argmax() == label)
        if i % 15 == 0:
            np.testing.assert_array_equal(run_artifact(artifact, sound, "sim", raw=True)["logits"], logits)
    assert right >= 29


def test_a_frame_stays_below_its_ceilings(artifact):
    assert profile_artifact(artifact)["cycles_estimate"] <= CYCLES_CEILING
    assert artifact.manifest["ram"]["total_bytes"] <= RAM_CEILING
    assert artifact.manifest["flash"]["total_bytes"] <= FLASH_CEILING


@pytest.mark.parametrize("name", ["lmuformer_spoken_digits", "lmuformer_spiking_spoken_digits"])
def test_shipped_step_is_plain_and_has_the_states_of_the_registered_model(name):
    from edgec.models.registry import get_model

    path = FOLDER / f"{name}.onnx"
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert not kinds & {"BatchNormalization", "MatMul"}
    model, record = load_model(path), get_model(name.replace("_", "-"))
    assert [(s.input, s.output, s.reset) for s in model.states] == list(record.states)


def test_frames_are_those_of_the_front_end_that_the_file_declares():
    from recordings import heard, hops

    from edgec.front_end import front_end_of

    front_end = front_end_of(load_model(FOLDER / "lmuformer_spoken_digits.onnx"))
    assert front_end is not None
    for pcm in recordings().pcm[:3]:
        np.testing.assert_allclose(front_end.features(hops(pcm), (40,)), heard(pcm), atol=1e-5)


def test_batches_hold_every_recording_where_they_say():
    """Each is in its row from `begin` to `end`, at one of the speeds; frames at its border are those of its sound."""
    from batches import SPEEDS, Batches, _masked, as_frames, energies
    from recordings import at_speed, heard

    from tests.torch_modules import torch

    random = torch.Generator().manual_seed(1)
    found = recordings()
    batches = Batches(found, 10)
    assert len(batches) == 3
    seen = []
    for x, begin, end, labels in batches(random):
        assert x.isfinite().all()
        assert (begin >= 0).all()
        assert (end <= x.shape[1]).all()
        for length, label in zip((end - begin).tolist(), labels.tolist(), strict=True):
            same = [pcm for pcm, other in zip(found.pcm, found.labels, strict=True) if other == label]
            assert any(length == len(at_speed(pcm, speed)) // 80 for pcm in same for speed in SPEEDS)
        seen += labels.tolist()
    assert sorted(seen) == sorted(found.labels.tolist())

    sound = heard(found.pcm[0])
    np.testing.assert_allclose(as_frames(energies(sound)), sound, atol=1e-3)
    hidden = np.mean([(_masked(energies(sound), random) == 0).double().mean() for _ in range(50)])
    assert 0.05 < hidden < 0.35


def test_speed_changes_length_and_pitch():
    from recordings import at_speed

    tone = np.round(8000 * np.sin(2 * np.pi * 500 * np.arange(8000) / 8000)).astype(np.int16)
    faster = at_speed(tone, 1.25)
    assert abs(len(faster) - 6400) <= 1
    assert np.abs(np.fft.rfft(faster, 8000)).argmax() == pytest.approx(625, abs=2)


def test_listening_prints_every_recording(artifact):
    from listen import listen
    from rich.console import Console

    with (console := Console(width=100, no_color=True)).capture() as captured:
        share = listen(artifact, "host-c", console)
    lines = captured.get().splitlines()
    assert len(lines) == 30
    assert sum("✓" in line for line in lines) == round(30 * share) >= 29


def test_accuracy_script_says_where_data_is_missing(tmp_path):
    command = [sys.executable, str(FOLDER / "accuracy.py"), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not there\n  try    --data DIR" in done.stderr


def test_settled_weights_are_those_of_int8():
    from settle import Pairs, on_grid

    from edgec.models.layers.lif import LIF
    from edgec.quantize.scheme import ActivationParams, linear_params
    from tests.torch_modules import torch

    weight = torch.randn(9, 7, generator=torch.Generator().manual_seed(1))
    grid = on_grid(weight)
    assert torch.equal(on_grid(grid), grid)
    step = ActivationParams(1.0, 0)
    linear = linear_params(weight.numpy(), np.zeros(9, np.float32), step, step, "layer")
    np.testing.assert_allclose(grid.numpy(), linear.weight * linear.weight_scale[:, None], rtol=1e-6)
    lif = LIF().train()
    pairs = Pairs(torch.nn.Sequential(lif))
    x = torch.randn(1, 40, 5, generator=torch.Generator().manual_seed(2))
    for noise, most in ((0.0, 0.0), (100.0, 1.0)):
        pairs.noise = noise
        pairs.differing.clear()
        lif.parallel(torch.cat([x, x]), torch.zeros(2, 5))
        (share,) = pairs.differing
        assert 0.0 <= float(share) <= most
        assert (float(share) > 0) == (noise > 0)
