# SPDX-License-Identifier: Apache-2.0
"""A longer window costs memory and nothing else, but where every row of it is read: exact instructions on the board."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgec.artifact import load_artifact
from edgec.run import run_artifact
from tests.command_line import done
from tests.small_models import Graph, reference

WIDTH = 12


def echo(path: Path, window: int) -> Path:
    """y = x A + (the oldest of the last `window` inputs) B + c: a delay line that one row is read of."""
    g = Graph(3)
    g.op("Concat", g.op("Slice", "past", g.integers(1), g.integers(window), g.integers(1)),
         g.op("Unsqueeze", "x", g.integers(1)), axis=1, out="past_next")  # fmt: skip
    oldest = g.op("Slice", "past_next", g.integers(0), g.integers(1), g.integers(1))
    old = g.op("MatMul", g.op("Squeeze", oldest, g.integers(1)), g.random(WIDTH, 5))
    g.op("Add", g.dense("x", WIDTH, 5), old, out="y")
    shape = (1, window, WIDTH)
    return g.save(
        path, {"x": (1, WIDTH), "past": shape}, {"y": (1, 5), "past_next": shape}, [("past", "past_next", 0.0)]
    )


def costs(folder: Path) -> dict[str, tuple[str, int]]:
    """Operator and exact instructions of a step, by name; a cursor has the length of its ring in its name."""
    operators = done("profile", folder, "--json").json["operators"]
    return {re.sub(r"^ring_cursor_\d+", "cursor", o["name"]): (o["op"], o["instructions"]) for o in operators}


def test_a_step_with_a_delay_line_costs_the_same_however_long_it_is(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(90, 1, WIDTH)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    found = []
    for window in (4, 64):
        model, out = echo(tmp_path / f"echo{window}.onnx", window), tmp_path / f"out{window}"
        options = ("--calibration", tmp_path / "x.npz", "--layer-width", "int8")
        done("compile", model, "--target", "stm32f746", *options, "--out", out)
        artifact = load_artifact(out)
        assert artifact.manifest["ram"]["state_bytes"] in range(window * WIDTH, window * WIDTH + 9)
        found.append(costs(out))
        got = run_artifact(artifact, {"x": x}, "host-c")["y"].reshape(90, 5)
        wanted = reference(model, {"x": x}, [("past", "past_next", 0.0)])["y"].reshape(90, 5)
        assert np.abs(got - wanted).max() < 0.05 * np.ptp(wanted)  # a row too early or too late: off by its whole size
    assert found[0] == found[1]
    assert any(op.startswith("ring_") for op, _ in found[0].values())


@pytest.mark.slow
def test_of_a_transformer_with_memory_only_attention_over_the_window_grows(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from edgec.export import export
    from edgec.models.gtrxl import GTrXL

    x = np.random.default_rng(2).normal(size=(60, 1, 10)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    found = []
    for window in (8, 48):
        torch.manual_seed(3)
        module, shape = GTrXL(10, 16, 1, 2, window, 24, 4), (1, window, 16)
        path = export(
            module,
            tmp_path / f"net{window}.onnx",
            inputs={"x": (1, 10), "k": shape, "v": shape},
            outputs=["y", "k_next", "v_next"],
            states=[("k", "k_next", 0.0), ("v", "v_next", 0.0)],
        )
        out = tmp_path / f"out{window}"
        options = ("--calibration", tmp_path / "x.npz", "--layer-width", "int8")
        done("compile", path, "--target", "stm32f746", *options, "--out", out)
        found.append(costs(out))
    assert found[0].keys() == found[1].keys()
    grown = {
        name: op
        for name, (op, before) in found[0].items()
        if found[1][name][1] > 1.05 * before + 20  # a normalization takes a few more or less by its values
    }
    over_the_window = {"prepare", "matmul_s8", "softmax_s8", "add_s8", "linear_s8", "ring_rotate_s8", "strided_copy_s8"}
    assert set(grown.values()) <= over_the_window
    assert [n for n in grown if "/attention/" not in n and "v_next" not in n and "k_next" not in n] == []
    assert not any(n.endswith(("key/Gemm", "value/Gemm", "query/Gemm", "out/Gemm", ".push", ".next")) for n in grown)
    assert sum(op == "ring_write_s8" for op, _ in found[0].values()) == 2
