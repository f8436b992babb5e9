# SPDX-License-Identifier: Apache-2.0
"""Random convolutional, attention and recurrent graphs in float32 through host C against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgec.compile import Options, make_program
from edgec.model import load_model
from tests.random_graphs import RandomGraph
from tests.together import run_together

TOLERANCE = 1e-4  # of the largest value of an output
AT_ONCE = 30  # programs in one library


def _check(seeds: range, folder: Path) -> None:
    work, wanted = [], []
    for seed in seeds:
        path = folder / f"{seed}.onnx"
        inputs = RandomGraph(seed).build(path)
        rng = np.random.default_rng(seed + 10**6)
        feeds = {n: rng.normal(size=s).astype(np.float32) for n, s in inputs.items()}
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        wanted.append(dict(zip(names, session.run(names, feeds), strict=True)))
        work.append((make_program(load_model(path), Options(precision="float32")), feeds))
    for results, exact, seed in zip(run_together(work, folder / "run"), wanted, seeds, strict=True):
        for name, values in exact.items():
            apart = np.abs(results[name] - values).max() / max(np.abs(values).max(), 1e-6)
            assert apart <= TOLERANCE, (seed, name, apart)


def test_some_random_graphs(tmp_path: Path) -> None:
    _check(range(6), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 300, AT_ONCE))
def test_random_graphs(tmp_path: Path, first: int) -> None:
    _check(range(first, first + AT_ONCE), tmp_path)
