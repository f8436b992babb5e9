# SPDX-License-Identifier: Apache-2.0
"""scripts/drift.py on three families, on noise in place of recordings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_families_stay_near_float(tmp_path):
    """Noise as loud as speech, 600 steps, one of the programs on its sound: a row for each, whose shares are shares."""
    random = np.random.default_rng(0)
    words = [(3000 * random.standard_normal(length)).astype(np.int16) for length in random.integers(2000, 5000, 20)]
    (tmp_path / "fsdd").mkdir()
    np.savez(
        tmp_path / "fsdd" / "fsdd.npz",
        pcm=np.concatenate(words),
        offset=np.cumsum([0, *map(len, words)]),
        label=np.arange(20) % 10,
        index=np.arange(20) // 10 * 5,
        speaker=np.full(20, "nobody"),
    )
    command = [sys.executable, ROOT / "scripts" / "drift.py", "--data", tmp_path, "--steps", "600", "--seed", "1"]
    names = ["gru-spoken-digits", "aaren-spoken-digits", "lmuformer-spoken-digits"]
    for name in names:
        command += ["--model", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| `")]
    assert [row[0].split("`")[1] for row in rows] == names, done.stderr
    for row in rows:
        agreement, error = (float(row[i].strip().rstrip("%")) for i in (6, 8))
        assert 90 <= agreement <= 100
        assert 0 < error < 20
