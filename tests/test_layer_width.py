# SPDX-License-Identifier: Apache-2.0
"""Layers wider than int8 where outputs drift whatever the states' width: which, how few, what the program is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command_line import done
from onnx import numpy_helper
from test_quantize import Graph
from test_state_width import STEPS, float_nodes, record, samples_of

from edgec.compile import Options, compile_model
from edgec.model import Model, StatePair, save_model
from edgec.quantize.calibrate import run_stream
from edgec.quantize.drift import MOST_ERROR, drift_of
from edgec.quantize.layer_width import WIDENED
from edgec.quantize.options import Recipe
from edgec.quantize.quantize import quantize
from edgec.quantize.state_regions import Recurrence
from edgec.run import run_artifact
from edgec.target import load_target


def leaky_state(g: Graph, x: str) -> str:
    """m' = 0.5 m + x."""
    m = g.input("m", 1, 4)
    return g.op("Add", g.op("Mul", m, g.constant(np.float32(0.5))), x, out="m_next")


def cancelling() -> Model:
    """A difference of two layers' results that nearly cancel, beside one layer that does no harm."""
    g = Graph(8)
    m = leaky_state(g, g.input("x", 1, 4))
    alike = np.array([[1.0, 0.5, 0.3, 0.2], [1.0, 0.5, 0.3, 0.21]], np.float32)
    both = g.op("Gemm", m, g.constant(alike), transB=1)
    y = g.op("Gemm", both, g.constant(np.array([[1.0, -1.0]], np.float32)), transB=1, out="y")
    g.op("Relu", g.op("Gemm", m, g.constant(np.eye(4, dtype=np.float32)), transB=1), out="z")
    return g.model(y, "z", "m_next", states=[StatePair("m", "m_next")])


def attending() -> Model:
    """A window of normalized frames and a learned one, read by attention; the sum of a normalized row is nothing."""
    g = Graph(9)
    x, past = g.input("x", 1, 4), g.input("past", 1, 3, 4)
    moved = g.op("Slice", past, *(g.constant(np.array([v])) for v in (1, 3, 1)))
    row = g.reshape(g.gemm(x, 4, 4), 1, 1, 4)
    past_next = g.op("Concat", moved, row, out="past_next", axis=1)
    keys = g.op("Concat", g.normal(1, 1, 4), past_next, axis=1)
    keys = g.op("LayerNormalization", keys, g.constant(np.ones(4, np.float32)), axis=-1, epsilon=1e-3)
    scores = g.op("MatMul", row, g.op("Transpose", keys, perm=[0, 2, 1]))
    read = g.reshape(g.op("MatMul", g.op("Softmax", scores, axis=-1), keys), 1, 4)
    y = g.op("Gemm", read, g.constant(np.array([[1.0, 1.0, 1.0, 0.8]], np.float32)), transB=1, out="y")
    return g.model(y, "past_next", states=[StatePair("past", "past_next")])


def differences() -> Model:
    """A layer over a window behind a learned row, whose result, cut at 0, is little beside what it reads."""
    g = Graph(11)
    x, past = g.input("x", 1, 4), g.input("past", 1, 3, 4)
    moved = g.op("Slice", past, *(g.constant(np.array([v])) for v in (1, 3, 1)))
    past_next = g.op("Concat", moved, g.reshape(g.gemm(x, 4, 4), 1, 1, 4), out="past_next", axis=1)
    rows = g.reshape(g.op("Concat", g.normal(1, 1, 4), past_next, axis=1), 1, 16)
    weights = np.zeros((2, 16), np.float32)
    weights[0, [0, 8, 12]], weights[1, [1, 9, 13]] = (0.01, 1, -1), (0.01, -1, 1)  # steps of a slow stream
    g.op("Relu", g.op("Gemm", rows, g.constant(weights), transB=1), out="y")
    return g.model("y", "past_next", states=[StatePair("past", "past_next")])


def quantized(model: Model, **recipe: Any) -> Model:
    return quantize(model, samples_of(model), Recipe(**recipe))


def worst(model: Model, form: Model, seed: int = 0) -> Any:
    return drift_of(model, form, samples_of(model, seed), 3 * STEPS).worst


def on_device(form: Model, folder: Path, x: npt.NDArray[np.float32]) -> float:
    """Largest difference between ONNX Runtime and program, in steps of the output; host C and board are equal."""
    artifact = compile_model(form, load_target("stm32f746"), folder / "artifact", Options())
    operators = {operator["op"] for operator in artifact.manifest["operators"]}
    assert {"ring_write_s16", "linear_s16"} <= operators, operators
    host, board = (run_artifact(artifact, {"x": x}, runner)["y"] for runner in ("host-c", "sim"))
    np.testing.assert_array_equal(host, board)
    wanted = np.array([row["y"] for row in run_stream(form, {"x": x})])
    (y,) = artifact.outputs
    return float(np.abs(host.reshape(wanted.shape) - wanted).max() / y.scale)


def test_layers_that_lose_more_than_states() -> None:
    """No state's width helps here: the layers that lose become int16, and nothing else does."""
    model = cancelling()
    narrow, chosen = quantized(model, layer_width="int8"), quantized(model)
    assert worst(model, narrow).error > 0.5
    assert record(narrow)["states"] == {"m": "int8"}
    assert not record(narrow)["drift"]["passes"]
    assert any("--layer-width auto" in note for note in narrow.notes), narrow.notes
    assert "wide_layers" not in record(narrow)

    assert record(chosen)["drift"]["passes"]
    assert worst(model, chosen, 9).error < MOST_ERROR
    wide = [node for node in model.proto.graph.node if node.name in record(chosen)["wide_layers"]]
    assert [node.op_type for node in wide] == ["Gemm", "Gemm"]
    assert "z" not in {wide[-1].output[0]}
    assert not float_nodes(chosen)
    assert any(note.startswith("2 of 6 nodes are wider than int8, 0 of them float") for note in chosen.notes)


def test_operators_without_int16_form_are_float(tmp_path: Path) -> None:
    """Attention over a window: its norm and products in float, its layers and its window int16; the ring stays one."""
    model = attending()
    narrow, chosen = quantized(model, layer_width="int8"), quantized(model, state_widths={"past": "int16"})
    assert not worst(model, narrow).passes
    assert worst(model, chosen).passes
    assert worst(model, chosen, 9).error < 0.5 * worst(model, narrow, 9).error
    assert {"LayerNormalization", "MatMul"} <= set(float_nodes(chosen))
    assert not {"Gemm", "Slice"} & set(float_nodes(chosen))
    kinds = {str(numpy_helper.to_array(t).dtype) for t in chosen.proto.graph.initializer if t.name.endswith("q16")}
    assert kinds >= {"int16"}, "weights of the wide layers"

    assert on_device(chosen, tmp_path, samples_of(model)["x"][:20]) <= 1.01  # float sums in another order


def test_window_becomes_wider_with_its_layers(tmp_path: Path) -> None:
    """An int16 ring, behind an int16 constant, read by an int16 layer: one program with the bits of ONNX Runtime."""
    model = differences()
    narrow, chosen = quantized(model, layer_width="int8"), quantized(model)
    assert not worst(model, narrow).passes
    assert worst(model, chosen, 9).error < 0.5 * worst(model, narrow, 9).error
    assert record(chosen)["states"] == {"past": "int16"}
    assert f"state past: {WIDENED}" in chosen.notes
    assert not float_nodes(chosen)
    assert on_device(chosen, tmp_path, samples_of(model)["x"][:20]) <= 1.01


def test_which_form_wide_layers_have() -> None:
    """Layers are int16; what connects without them is int16 where all of it has such a form, else float."""
    g = Graph(3)
    m = leaky_state(g, g.input("x", 1, 4))
    a = g.gemm(m, 4, 4)
    total = g.op("Add", a, g.gemm(m, 4, 4))
    bent = g.op("Tanh", g.gemm(total, 4, 4))
    g.gemm(g.op("Mul", bent, a), 4, 2, out="y")
    model = g.model("y", "m_next", states=[StatePair("m", "m_next")])
    regions = Recurrence(model).regions({}, [n.name for n in model.proto.graph.node])
    by_name = {n.name: n.op_type for n in model.proto.graph.node}
    assert sorted(by_name[n] for n in regions.floating) == ["Mul", "Tanh"]
    assert sorted(by_name[n] for n in regions.wide) == ["Add", "Add", "Gemm", "Gemm", "Gemm", "Gemm", "Mul"]


def test_what_nothing_helps_stays_narrow() -> None:
    """Where input and output alone lose what the limit allows, wide layers would be for nothing."""
    g = Graph(10)
    x = g.input("x", 1, 4)
    m = leaky_state(g, x)
    alike = np.array([[1.0, -1.0, 0.0, 0.0]], np.float32)
    y = g.op("Gemm", g.op("Add", m, x), g.constant(alike), transB=1, out="y")
    model = g.model(y, "m_next", states=[StatePair("m", "m_next")])
    samples = samples_of(model)
    samples["x"][..., 1] = samples["x"][..., 0] * 1.003  # the inputs nearly cancel: int8 does not hold the difference
    chosen = quantize(model, samples, Recipe())
    assert not record(chosen)["drift"]["passes"]
    assert "wide_layers" not in record(chosen)
    assert any("whatever the width" in note for note in chosen.notes), chosen.notes


def test_states_of_chosen_width_keep_layers_narrow() -> None:
    chosen = quantized(cancelling(), state_width="int16")
    assert "wide_layers" not in record(chosen)
    assert chosen.notes == ["state m: int16, as asked"] or "m: int16" in chosen.notes[0]


@pytest.mark.parametrize("width", ["auto", "int8"])
def test_command_line(tmp_path: Path, width: str) -> None:
    model = attending()
    save_model(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", **samples_of(model))
    arguments = ("--calibration", tmp_path / "c.npz", "--out", tmp_path / "q.onnx", "--layer-width", width)
    out = done("quantize", tmp_path / "m.onnx", *arguments).out
    assert ("nodes are wider than int8" in out) == (width == "auto")
