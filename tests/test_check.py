# SPDX-License-Identifier: Apache-2.0
"""`edgec check` against what compiling really takes: its bounds hold, its table is whole, and it is quick."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.artifact import load_artifact
from edgec.check import check_model
from edgec.model import load_model
from edgec.target import list_targets, load_target
from tests.broken_models import convolutional
from tests.command_line import done, edgec
from tests.conftest import Compiled
from tests.small_models import Graph, attention_block, samples

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
VIT = EXAMPLES / "image_classification" / "vit64.onnx"


def vit(path: Path, *, tokens: int, width: int, depth: int, heads: int) -> Path:
    """A vision transformer's encoder, block by block as exporters write it."""
    g, d, x = Graph(4), width // heads, "x"
    for _ in range(depth):
        n = g.norm(x, width)
        q, k, v = (
            g.op("Transpose", g.op("Reshape", g.dense(n, width, width), g.integers(1, tokens, heads, d)), perm=perm)
            for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = g.op("Mul", g.op("MatMul", q, k), g.const(np.array(d**-0.5, np.float32)))
        mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        mixed = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), g.integers(1, tokens, width))
        x = g.op("Add", x, g.dense(mixed, width, width))
        wide = g.op("Gelu", g.dense(g.norm(x, width), width, 4 * width))
        x = g.op("Add", x, g.dense(wide, 4 * width, width))
    g.op("ReduceMean", x, g.integers(1), out="y", keepdims=0)
    return g.save(path, {"x": (1, tokens, width)}, {"y": (1, width)})


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_the_bounds_hold_for_what_compiling_takes(precision: str, tmp_path: Path) -> None:
    model = attention_block(tmp_path / "block.onnx", tokens=20, width=24, heads=3)
    data = samples(tmp_path / "data.npz", 4, x=(1, 20, 24))
    streaming, images = EXAMPLES / "streaming", samples(tmp_path / "images.npz", 4, x=(1, 2, 6, 4))
    for chosen, given in (
        (model, data),
        (streaming / "recurrent_16_64_32.onnx", streaming / "stream.npz"),
        (convolutional(tmp_path / "cnn.onnx"), images),
    ):
        # Weights of layers that turn out to be wider take more than a check knows of.
        options = "--calibration", given, "--precision", precision, "--target", "stm32f746", "--layer-width", "int8"
        done("compile", chosen, *options, "--out", tmp_path / chosen.stem)
        manifest = load_artifact(tmp_path / chosen.stem).manifest
        check = check_model(load_model(chosen), load_target("stm32f746"), precision)
        assert 0 < check.ram_bound <= manifest["ram"]["arena_bytes"] + manifest["ram"]["state_bytes"]
        assert 0 < check.flash_bound <= manifest["flash"]["weights_bytes"]
        assert check.macs == manifest["model"]["macs"]
        if precision == "int8":  # a state may turn out to be wider
            assert check.state_bytes == sum(math.prod(s["shape"]) for s in manifest["states"])
        assert check.state_bytes <= manifest["ram"]["state_bytes"]
        assert (check.state_bytes == manifest["ram"]["state_bytes"]) or precision == "int8"
        assert check.verdict != "cannot fit"
        # Bounds that say nothing would hold too: apart from a few tables, the weights are most of what lies in flash.
        assert check.flash_bound > 0.5 * (manifest["flash"]["weights_bytes"] - 1024)


def test_bounds_of_a_quantized_file_are_those_of_its_float_model(patches_f746: Compiled, tmp_path: Path) -> None:
    quantized = tmp_path / "q.onnx"
    done("quantize", patches_f746.model, "--calibration", patches_f746.samples, "--out", quantized)
    target = load_target("stm32f746")
    a, b = (check_model(load_model(path), target) for path in (patches_f746.model, quantized))
    assert (a.weight_bytes, a.requantization_bytes, a.macs) == (b.weight_bytes, b.requantization_bytes, b.macs)
    assert a.ram_bound == b.ram_bound
    assert b.flash_bound <= patches_f746.answer.json["flash"]["weights_bytes"]


def test_figures_by_hand(tmp_path: Path) -> None:
    g = Graph()
    g.dense(g.op("Relu", g.dense("x", 100, 50)), 50, 7, out="y")
    check = check_model(load_model(g.save(tmp_path / "m.onnx", {"x": (1, 100)}, {"y": (1, 7)})), load_target("host-c"))
    assert check.macs == check.weight_bytes == 100 * 50 + 50 * 7
    assert check.requantization_bytes == (50 + 7) * (4 + 4)
    assert check.ram_bound == 150  # the first layer's input and output
    assert check.verdict == "fits"


def test_a_vit_is_checked_within_five_seconds_and_without_tvm(tmp_path: Path) -> None:
    """DeiT-tiny's size; processor time, so that a busy machine does not decide."""
    model = vit(tmp_path / "vit.onnx", tokens=197, width=192, depth=12, heads=3)
    program = """
import sys
from edgec.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 4, end.code
assert not [m for m in ("tvm", "torch", "onnxruntime") if m in sys.modules]
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = [sys.executable, "-c", program, "check", model, "--target", "stm32f746", "--json"]
    told = subprocess.run(arguments, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert told.returncode == 0, told.stderr
    report = json.loads(told.stdout)
    assert report["flash"]["weights_bytes"] == 12 * (4 * 192 * 192 + 2 * 192 * 768)
    assert report["verdict"] == "cannot fit"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5


def test_what_cannot_fit_is_refused_by_check_and_by_compile() -> None:
    answer = edgec("check", VIT, "--target", "stm32f746", "--precision", "float32")
    assert answer.code == 4
    over = 1_257_216 + 49_152 - 1_048_576  # weights, what is kept for code, the target's flash
    assert f"cannot fit: flash over by {over:,} B" in answer.out
    assert done("check", VIT, "--target", "stm32f746").out.count("may fit") == 1


def test_figures_by_hand_of_steps_that_may_run_row_by_row(tmp_path: Path) -> None:
    """Of a wide layer on many rows one row counts, of a product of two values all of what is on its right."""
    g = Graph()
    g.dense(g.op("Relu", g.dense("x", 3, 900)), 900, 2, out="y")
    wide = load_model(g.save(tmp_path / "wide.onnx", {"x": (50, 3)}, {"y": (50, 2)}))
    target = load_target("host-c")
    assert check_model(wide, target).ram_bound == 3 + 900
    assert check_model(wide, target, "float32").ram_bound == 4 * 50 * (3 + 900)
    g = Graph()
    keys = g.op("Transpose", g.dense("x", 3, 32), perm=[1, 0])
    g.op("ReduceMax", g.op("MatMul", g.dense("x", 3, 32), keys), g.integers(0), out="y", keepdims=0)
    square = load_model(g.save(tmp_path / "square.onnx", {"x": (50, 3)}, {"y": (50,)}))
    check = check_model(square, target)
    assert check.ram_bound == 32 + 32 * 50
    assert "matmul" in check.ram_bound_at.lower()


def test_only_boards_with_less_ram_than_is_certainly_needed_are_ruled_out(tmp_path: Path) -> None:
    """On every board, for a need that is known by hand: the input. What runs in blocks of rows rules none out."""
    paths = {}
    for inputs, hidden in ((700, 64), (64, 900)):
        g = Graph()
        g.dense(g.op("Relu", g.dense("x", inputs, hidden)), hidden, 8, out="y")
        paths[inputs] = g.save(tmp_path / f"{inputs}.onnx", {"x": (500, inputs)}, {"y": (500, 8)})
    for width, path in paths.items():
        verdicts = {t: check_model(load_model(path), load_target(t)).verdict for t in list_targets()}
        for name, verdict in verdicts.items():
            have = sum(s.size for s in load_target(name).ram_spans())
            assert verdict == "cannot fit" if have and have < 500 * width else verdict != "cannot fit"
        assert ("cannot fit" in verdicts.values()) == (width == 700)
    told = edgec("check", paths[700], "--target", "stm32f407")
    assert told.code == 4
    assert "RAM over by" in told.out
    assert "--feed rows" in told.out
    # The layer's result alone is more than this board has: 450,000 B.
    data = samples(tmp_path / "data.npz", 2, x=(1, 500, 64))
    done("compile", paths[64], "--target", "stm32f407", "--calibration", data, "--out", tmp_path / "out")
    arena = load_artifact(tmp_path / "out").manifest["ram"]["arena_bytes"]
    assert 500 * 64 <= arena < 100_000 < sum(s.size for s in load_target("stm32f407").ram_spans()) < 500 * 900


def test_every_unsupported_node_is_in_the_table_with_the_nearest_form(tmp_path: Path) -> None:
    g = Graph()
    t = g.op("Mod", "x", g.const(np.full((1, 4), 2.0, np.float32)), name="wrap", fmod=1)
    t = g.op("Det", g.op("Reshape", t, g.integers(1, 2, 2)), name="volume")
    g.op("Reshape", t, g.integers(1, 1), out="y")
    path = g.save(tmp_path / "m.onnx", {"x": (1, 4)}, {"y": (1, 1)})
    answer = edgec("check", path, "--target", "stm32f746", "--json")
    assert answer.code == 3
    assert answer.json["exit_code"] == 3
    assert {n["node"]: n["op_type"] for n in answer.json["unsupported"]} == {"wrap": "Mod", "volume": "Det"}
    assert all(n["nearest"] and n["reason"] for n in answer.json["unsupported"])
    text = edgec("check", path, "--target", "stm32f746")
    assert text.code == 3
    assert "2 nodes that int8 does not support" in text.out
    assert "nearest that is supported" in text.out


def test_an_open_batch_is_told_and_open_shapes_can_be_given(tmp_path: Path) -> None:
    g = Graph()
    g.dense("x", 6, 3, out="y")
    path = g.save(tmp_path / "m.onnx", {"x": (1, 6)}, {"y": (1, 3)})
    proto = onnx.load(path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(proto, path)
    assert "batch dimension is fixed to 1" in done("check", path, "--target", "stm32f407").out
    given = done("check", path, "--target", "stm32f407", "--input-shape", "x=5,6", "--json").json
    assert given["macs"] == 5 * 6 * 3
    assert given["ram"]["bound_bytes"] == 5 * 6  # and rows of the output may take the place of the input's


@pytest.mark.parametrize("arguments", [["--target", "moon"], ["--target", "stm32f746", "--precision", "int4"]])
def test_wrong_arguments_are_usage_errors(arguments: list[str]) -> None:
    assert edgec("check", VIT, *arguments).code == 2


def test_a_quantized_file_has_no_float32_program(patches_f746: Compiled) -> None:
    model = patches_f746.path / "model.onnx"
    answer = edgec("check", model, "--target", "stm32f746", "--precision", "float32")
    assert answer.code == 2
    assert "is quantized already" in answer.err
