# SPDX-License-Identifier: Apache-2.0
"""The measure of drift along a stream, and what passes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgec.quantize.drift import LEAST_AGREEMENT, MOST_ERROR, edges, measure, repeated


def test_measure_is_the_norm_of_the_difference() -> None:
    rng = np.random.default_rng(0)
    want, got = rng.normal(size=(50, 1, 4)), rng.normal(size=(50, 1, 4))
    got[:40] = want[:40] * 1.001
    rows = [[{"y": a.astype(np.float32), "s": a[:, :1] * 0} for a in array] for array in (want, got)]
    drift = measure(iter(rows[0]), {"other": iter(rows[1])}, states=["s"])["other"]
    trace = drift.outputs["y"]
    assert drift.steps == 50
    assert list(drift.states) == ["s"]
    assert trace.error(40, 50) == pytest.approx(np.linalg.norm(got[40:] - want[40:]) / np.linalg.norm(want[40:]), 1e-6)
    agreeing = np.mean(want.argmax(-1) == got.argmax(-1))
    assert trace.agreement(0, 50) == pytest.approx(agreeing)
    assert drift.states["s"].error(0, 50) == 0.0
    assert not drift.passes
    assert drift.worst.grows
    stretches = drift.curve("y", 5, "even")
    assert [(s.first, s.last) for s in stretches] == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]
    assert stretches[0].error == pytest.approx(0.001, rel=1e-3)
    assert stretches[0].agreement == 1.0
    with pytest.raises(ValueError, match="shorter"):
        measure(rows[0], {"short": rows[1][:-1]})


def judged(noise: npt.NDArray[np.float64], classes: int = 1, period: int = 0) -> Any:
    """Drift of an output of ones, with `noise` [steps] added to its first number."""
    want = np.zeros((len(noise), 1, classes))
    want[:, :, 0] = 1.0
    got = want.copy()
    got[:, 0, 0] += noise
    pair = [[{"y": row.astype(np.float32)} for row in array] for array in (want, got)]
    return measure(pair[0], {"": pair[1]}, period=period)[""]


@pytest.mark.parametrize(
    ("noise", "classes", "passes"),
    [
        (np.full(1000, 0.9 * MOST_ERROR), 1, True),
        (np.full(1000, 1.1 * MOST_ERROR), 1, False),
        (np.full(1000, 1.1 * MOST_ERROR), 3, True),  # the largest is the same: a classification
        (np.linspace(0, MOST_ERROR, 1000), 1, False),  # within the limit, and growing
        (np.linspace(0, 0.2 * MOST_ERROR, 1000), 1, True),  # growing, and negligible
        (np.where(np.arange(1000) % 50 == 7, -1.5, 0.0), 3, False),  # another class every fiftieth step
        (np.where(np.arange(1000) % 200 == 7, -1.5, 0.0), 3, True),
        (np.where(np.arange(1000) == 999, np.inf, 0.0), 3, False),
    ],
)
def test_what_passes(noise: npt.NDArray[np.float64], classes: int, passes: bool) -> None:
    drift = judged(noise, classes)
    assert drift.passes is passes, drift.worst
    assert (drift.worst.criterion == "top-1") == (classes > 1 and drift.worst.error > MOST_ERROR) or passes
    assert LEAST_AGREEMENT == 0.99


def test_repeated_inputs_are_compared_with_themselves() -> None:
    """An error that is large in the second half of the samples only does not grow from turn to turn."""
    turn = np.where(np.arange(300) < 150, 0.25, 0.95) * MOST_ERROR
    assert judged(np.tile(turn, 4), period=300).passes
    assert judged(np.tile(turn, 4), period=300).spans() == ((300, 600), (900, 1200))
    assert judged(np.zeros(1000)).spans() == ((100, 550), (550, 1000))
    for steps in (1, 2, 3, 9):
        (early, middle), (late, end) = judged(np.full(steps, 0.01)).spans()
        assert 0 <= early < middle <= late + (steps == 1) <= end == steps
    assert not judged(turn).passes


def test_bursts_are_no_growth() -> None:
    """Errors that come in bursts may be later by chance; where bursts and floor rise threefold, it is growth."""
    rng = np.random.default_rng(3)
    even, rising = [], []
    for _ in range(40):
        bursts = np.repeat(0.3 + rng.random(100) ** 4, 100) * MOST_ERROR
        even.append(judged(bursts).worst.grows)
        rising.append(judged(bursts * np.linspace(0.4, 1.2, 10_000)).worst.grows)
    assert sum(even) <= 2
    assert sum(rising) >= 28


def test_stretches() -> None:
    assert edges(10000, 4, "log") == [0, 10, 100, 1000, 10000]
    for steps in (1, 2, 7, 1000):
        for spacing in ("log", "even"):
            bounds = edges(steps, 20, spacing)  # type: ignore[arg-type]
            assert bounds[0] == 0
            assert bounds[-1] == steps
            assert all(np.diff(bounds) > 0)
    assert repeated({"x": np.arange(3)}, 7)["x"].tolist() == [0, 1, 2, 0, 1, 2, 0]
