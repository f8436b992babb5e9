# SPDX-License-Identifier: Apache-2.0
"""The training of the spoken-digit families: what carries the loss, and one epoch of each on a few synthetic words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.models.registry import list_models
from tests.torch_modules import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FAMILIES = [record for record in list_models() if record.name.endswith("-spoken-digits")]


@pytest.fixture
def train(monkeypatch):
    """The module of the script; it and its neighbours are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(EXAMPLES / "spoken_digits"))
    import train

    yield train
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(EXAMPLES)):
            del sys.modules[name]


@pytest.mark.parametrize("multiple", [1, 8])
def test_silence_stands_before_shorter_utterances(train, multiple):
    frames = [np.full((length, 40), length, np.float32) for length in (5, 12, 9)]
    x = train.in_front(frames, multiple)
    assert x.shape == (3, 12 if multiple == 1 else 16, 40)
    for row, length in zip(x, (5, 12, 9), strict=True):
        assert (row[-length:] == length).all()
        assert torch.allclose(row[:-length], torch.tensor(-3.8155 / 3), atol=1e-3)  # ln(1e-6) + 10, over 3


@pytest.mark.parametrize("segment", [1, 4])
@pytest.mark.parametrize("doubt", [0.0, 0.5])
def test_loss_counts_the_ends_and_all_doubt(train, segment, doubt):
    """Answer by answer: cross-entropy in the last quarter of each utterance, entropy everywhere."""
    random = np.random.default_rng(0)
    steps, lengths, labels = 40, [40, 21, 8], [3, 1, 4]
    logits = random.standard_normal((3, steps // segment, 10))
    losses, entropies = [], []
    for row, (length, digit) in enumerate(zip(lengths, labels, strict=True)):
        for i in range(steps // segment):
            scores = logits[row, i] - np.log(np.exp(logits[row, i]).sum())
            entropies.append(-np.sum(np.exp(scores) * scores))
            last = (i + 1) * segment - 1  # frame that the answer follows
            if last >= steps - length // 4 - (segment - 1):
                losses.append(-scores[digit])
    tensors = (torch.tensor(x) for x in (lengths, labels))
    got = float(train.batch_loss(torch.from_numpy(logits), steps, *tensors, doubt))
    assert got == pytest.approx(np.mean(losses) + doubt * np.mean(entropies))


@pytest.fixture
def noise(train):
    """A maker of noise, for each call the same."""
    from training.rounding_noise import RoundingNoise

    def made(steps, **which):
        drawn = RoundingNoise(**which)
        drawn.draw(steps, torch.Generator().manual_seed(1))
        return drawn

    return made


def test_noise_comes_where_it_is_entered_and_within_its_steps(noise):
    layer, x = torch.nn.Linear(5, 7), torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    clean = layer(x).detach()
    with noise(3.0, readers=frozenset()):
        shaken = layer(x).detach()
    step = float(clean.max() - clean.min()) / 255
    seen = (shaken - clean) / step
    assert 1.4 < float(seen.abs().max()) <= 1.501
    assert abs(float(seen.mean())) < 0.1
    with noise(0.0):
        assert torch.equal(layer(x).detach(), clean)
    assert torch.equal(layer(x).detach(), clean)


def test_noise_before_a_layer_is_of_what_it_reads(noise):
    x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    with noise(2.0, writers=frozenset()):
        seen = torch.nn.functional.linear(x, torch.eye(5)) - x
    step = float(x.max() - x.min()) / 255
    assert 0.9 * step < float(seen.abs().max()) <= 1.001 * step


def test_noise_leaves_masked_scores_and_weights(noise):
    scores = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    scores[:, 4:] = -torch.inf
    clean = scores.softmax(-1)
    with noise(1.0):
        weights = torch.softmax(scores, dim=-1)
    assert (weights[:, 4:] == 0).all()
    assert 0 < float((weights - clean).abs().max()) < 0.05


def test_gradients_reach_the_range_unless_told(noise):
    for shrink, reached in ((True, 2), (False, 0)):
        x = torch.randn(100, generator=torch.Generator().manual_seed(0), requires_grad=True)
        with noise(1.0, shrink=shrink):
            (torch.tanh(x) - torch.Tensor.tanh(x)).sum().backward()
        assert int((x.grad != 0).sum()) == reached


def synthetic_words(folder: Path) -> Path:
    """A data set in the form of fsdd.npz: thirty words of each digit for training, one for test, tones of their own."""
    random, words = np.random.default_rng(0), []
    numbers = [(digit, index) for index in (0, *range(5, 35)) for digit in range(10)]
    for digit, index in numbers:
        time = np.arange(random.integers(1500, 3000)) / 8000
        words.append((6000 * np.sin(2 * np.pi * (300 + 250 * digit + index) * time)).astype(np.int16))
    (folder / "fsdd").mkdir()
    np.savez(
        folder / "fsdd" / "fsdd.npz",
        pcm=np.concatenate(words),
        offset=np.cumsum([0, *map(len, words)]),
        label=np.array([digit for digit, _ in numbers]),
        index=np.array([index for _, index in numbers]),
        speaker=np.full(len(numbers), "nobody"),
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("record", FAMILIES, ids=lambda record: record.name)
def test_every_family_trains_an_epoch_and_writes_its_files(tmp_path, record):
    """From the command line, then again: the second run resumes after the first epoch."""
    data = synthetic_words(tmp_path)
    command = [sys.executable, EXAMPLES / "spoken_digits" / "train.py", "--model", record.name, "--data", data]
    command += ["--out", tmp_path / "out", "--batch", "20", "--threads", "1"]
    for epochs in ("1", "2"):
        done = subprocess.run([*command, "--epochs", epochs], capture_output=True, text=True, check=True)
        assert f"epoch   {epochs}/{epochs}" in done.stdout
    stem = record.name.replace("-", "_")
    graph = onnx.load(tmp_path / "out" / f"{stem}.onnx").graph
    assert [value.name for value in graph.input] == list(record.inputs)
    (calibration,) = (tmp_path / "out").glob("calibration*.npz")
    with np.load(calibration) as arrays:
        first, shape = next(iter(record.inputs.items()))
        assert arrays[first].shape[1:] == shape
    log = (tmp_path / "out" / f"{stem}.train.log").read_text()
    assert log.count("epoch   ") == 2
    assert "nan" not in log
