# SPDX-License-Identifier: Apache-2.0
"""What the scripts of the examples share, and the files that they ship."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.model import load_model
from edgec.models.registry import get_model
from edgec.quantize.dataset import load_samples
from tests.torch_modules import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def examples_importable(monkeypatch):
    """As when a script of `spoken_digits` runs; the modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(EXAMPLES / "spoken_digits"))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(EXAMPLES)):
            del sys.modules[name]


def test_features_equal_their_definition():
    """Frame by frame, frequency by frequency, triangle by triangle."""
    import features

    random = np.random.default_rng(0)
    pcm = (8000 * np.sin(np.arange(1000) * 0.7) + random.normal(0, 300, 1000)).astype(np.int16)
    got = features.log_mel(pcm)
    assert got.shape == (1 + (1000 - 200) // 80, 40)
    corners = [
        700 * (10 ** (mel / 2595) - 1)
        for mel in np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 3800 / 700), 42)
    ]
    n = np.arange(200)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 200)
    for t, frame in enumerate(got):
        x = pcm[80 * t : 80 * t + 200] / 32768 * window
        power = [abs(np.sum(x * np.exp(-2j * np.pi * k * n / 256))) ** 2 / 200 for k in range(129)]
        for b in range(40):
            left, centre, right = corners[b : b + 3]
            energy = 0.0
            for k in range(129):
                f = k * 8000 / 256
                if left < f <= centre:
                    energy += power[k] * (f - left) / (centre - left)
                elif centre < f < right:
                    energy += power[k] * (right - f) / (right - centre)
            assert frame[b] == pytest.approx((np.log(energy + 1e-6) + 10) / 3, abs=1e-4)


def test_short_recording_gives_one_frame():
    import features

    silence = (np.log(1e-6) + 10) / 3
    np.testing.assert_allclose(features.log_mel(np.zeros(5, np.int16)), np.full((1, 40), silence), rtol=1e-5)


@pytest.mark.parametrize("shape", [(12, 9, 7), (12, 3, 9, 7)])
def test_augmented_image_is_a_shifted_or_mirrored_one(shape):
    from training.images import augment

    images = torch.from_numpy(np.random.default_rng(1).integers(1, 256, shape, np.uint8))
    made = augment(images, 2, torch.Generator().manual_seed(2)).numpy()
    assert made.shape == shape
    seen = set()
    for image, result in zip(images.numpy(), made, strict=True):
        around = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(2, 2)] * 2)
        fitting = [
            (step, top, left)
            for step in (1, -1)
            for top in range(5)
            for left in range(5)
            if np.array_equal(result, around[..., top : top + 9, left : left + 7][..., ::step])
        ]
        assert fitting
        seen.update(fitting)
    assert len(seen) > 5
    assert {step for step, _, _ in seen} == {1, -1}


def test_interrupted_training_ends_as_an_uninterrupted_one(tmp_path):
    from training.run import Log, Run

    def run_until(epoch: int, name: str) -> torch.nn.Module:
        """A fresh process, as it were: interrupted while it scores the epoch after `epoch`."""
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        run = Run(model, [optimizer], {"seed": 4}, tmp_path / f"{name}.checkpoint.pt")

        def losses(random):
            for _ in range(5):
                x = torch.randn(16, 4, generator=random)
                yield ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()

        def score(_):
            if run.epoch == epoch:
                raise KeyboardInterrupt
            return 0.0

        try:
            run.train(losses, 5, 4, 3, score, Log(tmp_path / f"{name}.log", run.epoch > 0))
        except KeyboardInterrupt:
            assert epoch < 4
        return model

    whole = run_until(4, "whole").state_dict()
    pieces = [run_until(epoch, "pieces").state_dict() for epoch in (1, 2, 4)][-1]
    assert all(torch.equal(whole[key], pieces[key]) for key in whole)
    lines = (tmp_path / "pieces.log").read_text().splitlines()
    assert [line for line in lines if "resumed" in line] == [
        f"# resumed after epoch {epoch}; the schedule ends at epoch 4" for epoch in (1, 2)
    ]


def test_checkpoint_of_other_settings_is_refused(tmp_path):
    from training.run import Run

    model = torch.nn.Linear(1, 1)
    optimizers = [torch.optim.AdamW(model.parameters())]
    Run(model, optimizers, {"seed": 0}, tmp_path / "c.pt").save()
    with pytest.raises(SystemExit, match="other settings"):
        Run(model, optimizers, {"seed": 1}, tmp_path / "c.pt")


DIGITS = sorted((EXAMPLES / "spoken_digits").glob("*.onnx"))


@pytest.mark.parametrize("path", DIGITS, ids=lambda path: path.stem)
def test_a_trained_model_of_the_digits_is_the_one_of_the_zoo(path):
    """Its file, the samples for the quantizer beside it, and the log of its training with the options of today."""
    import train

    record, model = get_model(path.stem.replace("_", "-")), load_model(path)
    states = {source for source, *_ in record.states}
    assert {(s.input, s.output, s.reset) for s in model.states} == set(record.states)
    (given,) = model.inputs
    assert {given.name: given.shape} == {name: x for name, x in record.inputs.items() if name not in states}
    own = path.with_name(f"calibration_{path.stem}.npz")
    calibration = own if own.exists() else path.with_name("calibration.npz")
    assert load_samples(calibration, model.inputs)[given.name].shape[1:] == given.shape
    assert max(path.stat().st_size, calibration.stat().st_size) < 400_000
    first, second, *_, last = path.with_suffix(".train.log").read_text().splitlines()
    assert set(train.SETTINGS) <= {part.split()[0] for part in first.split(" epochs, ")[1].split(", ")}
    assert record.name in first
    assert second.startswith(f"# {record.parameters:,} parameters;")
    assert float(last.split("accuracy ")[1].split(",")[0]) >= 0.95


def test_every_family_of_the_digits_is_shipped_trained():
    import train

    assert sorted(path.stem.replace("_", "-") for path in DIGITS) == sorted(
        set(train.MODELS) - {"lmuformer-spoken-digits", "lmuformer-spiking-spoken-digits"}  # in an example of their own
    )


def test_keyword_model_ships_as_a_step_of_six_operators():
    path = EXAMPLES / "spoken_digits" / "gru_spoken_digits.onnx"
    assert {node.op_type for node in onnx.load(path).graph.node} == {"Gemm", "Sigmoid", "Tanh", "Mul", "Add", "Sub"}
    model = load_model(path)
    assert [(s.input, s.output, s.reset) for s in model.states] == [("h", "h_next", 0.0)]
    frames = load_samples(EXAMPLES / "spoken_digits" / "calibration.npz", model.inputs)["frame"]
    assert frames.shape[1:] == (1, 40)


def test_compiled_keyword_model_hears_what_the_float_model_hears():
    from comparison import compare, float_classes

    path = EXAMPLES / "spoken_digits" / "gru_spoken_digits.onnx"
    with np.load(EXAMPLES / "spoken_digits" / "calibration.npz") as data:
        frames = data["frame"]
    pieces = [frames[start : start + 40] for start in range(0, len(frames) - 39, 60)]
    labels = float_classes(path, load_model(path), pieces)
    assert len(set(labels.tolist())) > 5
    result = compare(path, frames, pieces, labels, "pieces")
    assert result["float"] == 100
    assert result["int8"] == result["same_class"] >= 80


def test_accuracy_script_judges_by_its_limit(tmp_path, capsys):
    """On ten shipped test images as if they were the whole set, from the command line."""
    from comparison import report

    folder = EXAMPLES / "image_classification"
    with np.load(folder / "samples.npz") as data, np.load(folder / "labels.npz") as truth:
        images, labels = np.round(data["image"][:10, 0] * 255).astype(np.uint8), truth["labels"][:10]
    (tmp_path / "fashion_mnist").mkdir()
    np.savez(tmp_path / "fashion_mnist" / "fashion_mnist.npz", x_test=images, y_test=labels)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(folder / "accuracy.py"), "--data", str(tmp_path), *options]
        return subprocess.run(command, capture_output=True, text=True)

    done = run("--json", "--most", "20")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["samples"] == 10
    assert result["loss_points"] == pytest.approx(result["float"] - result["int8"])
    with pytest.raises(SystemExit, match="1"):
        report(result, result["loss_points"] - 0.01, as_json=False)
    report(result, result["loss_points"], as_json=False)
    assert capsys.readouterr().out.count(f"int8 {result['int8']:.2f} %") == 2
    missing = run("--data", str(tmp_path / "nowhere"))
    assert missing.returncode == 1
    assert "is not there\n  try    --data DIR" in missing.stderr
