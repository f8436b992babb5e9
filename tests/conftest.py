# SPDX-License-Identifier: Apache-2.0
"""Settings of all tests, and the artifacts that several of them look at (compiled once, not to be changed)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tests.command_line import Answer, done
from tests.small_models import IMAGE, patch_classifier, samples, step_model

# A time limit on each example would fail tests on a busy machine. The same examples every time, so that a change is
# judged and not chance; `scripts/test-slow` looks for new ones.
settings.register_profile("edgec", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("EDGEC_EXAMPLES", "edgec"))


@dataclass(frozen=True)
class Compiled:
    """A model file, samples for it, the artifact made of both, and what `compile --json` printed."""

    model: Path
    samples: Path
    path: Path
    answer: Answer


@pytest.fixture(scope="session")
def patch_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `patches.onnx` (image [1,3,12,8] -> logits [1,5]) and its `samples.npz`."""
    folder = tmp_path_factory.mktemp("patches")
    patch_classifier(folder / "patches.onnx")
    samples(folder / "samples.npz", 12, image=IMAGE)
    return folder


@pytest.fixture(scope="session")
def step_model_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `step.onnx` (states h and m, x [1,6] -> y [1,3]) and its `samples.npz`."""
    folder = tmp_path_factory.mktemp("step")
    step_model(folder / "step.onnx")
    samples(folder / "samples.npz", 40, x=(1, 6))
    return folder


def _compiled(folder: Path, model: str, target: str) -> Compiled:
    out = folder / target
    files = folder / model, folder / "samples.npz"
    answer = done("compile", files[0], "--target", target, "--calibration", files[1], "--out", out, "--json")
    return Compiled(*files, out, answer)


@pytest.fixture(scope="session")
def patches_f746(patch_model: Path) -> Compiled:
    """`patch_model` in int8 for the stm32f746."""
    return _compiled(patch_model, "patches.onnx", "stm32f746")


@pytest.fixture(scope="session")
def step_f746(step_model_files: Path) -> Compiled:
    """`step_model_files` in int8 for the stm32f746."""
    return _compiled(step_model_files, "step.onnx", "stm32f746")


@pytest.fixture(scope="session")
def step_host(step_model_files: Path) -> Compiled:
    """`step_model_files` in int8 for this machine."""
    return _compiled(step_model_files, "step.onnx", "host-c")
