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
CYCLES_CEILING = 130_000  # an estimate for each frame of 10 ms, of 2,160,000 that the processor has
RAM_CEILING = 3_000
FLASH_CEILING = 105_000


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
    from recordings import heard

    found, right = recordings(), 0
    for i, (pcm, label) in enumerate(zip(found.pcm, found.labels, strict=True)):
        frames = {"frame": heard(pcm)[:, None]}
        logits = run_artifact(artifact, frames, "host-c", raw=True)["logits"]
        right += int(logits[-1].argmax() == label)
        if i % 15 == 0:
            np.testing.assert_array_equal(run_artifact(artifact, frames, "sim", raw=True)["logits"], logits)
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


def test_batches_hold_whole_recordings_where_they_say():
    """Each recording is in its row, from `begin` to `end`, some of its frames and bins silent; nothing is infinite."""
    from batches import LONGEST, Batches

    from tests.torch_modules import torch

    found = recordings()
    batches = Batches(found, 10)
    seen = []
    for x, begin, end, labels in batches(torch.Generator().manual_seed(1)):
        assert x.isfinite().all()
        assert (begin >= 0).all()
        assert (end <= x.shape[1]).all()
        assert ((end - begin) <= LONGEST).all()
        seen += labels.tolist()
        for row, first, last in zip(x, begin, end, strict=True):  # louder than the silence around it
            assert row[first:last].mean() > row[last:].mean() - 0.3 if last < len(row) else True
    assert sorted(seen) == sorted(found.labels.tolist())
    lengths = [len(one[3]) for one in batches.sounds]
    assert all(0.8 * n < len(pcm) / 80 < 1.3 * n + 4 for n, pcm in zip([len(o) for o in batches.sounds[3]], found.pcm))
    assert len(lengths) == 7


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
