# SPDX-License-Identifier: Apache-2.0
"""Through generated C: words in, classes out; recurrent nodes as streams; a board runs the rarer operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from canonical_form import f32, hand_model, node, run
from onnx import TensorProto, helper, numpy_helper

from edgec.compile import Options, compile_model, make_program
from edgec.model import Model, StatePair
from edgec.program import evaluate
from edgec.quantize.calibrate import run_stream
from edgec.run import run_artifact
from edgec.target import load_target


def words(length: int = 6) -> Model:
    """Classes of a line of words: embedding, RMSNorm by hand, dense layer, pooling by the largest, ArgMax."""
    nodes = [
        node("Gather", "table ids", "x", axis=0),
        node("Mul", "x x", "s"),
        node("ReduceMean", "s last", "m", keepdims=1),
        node("Add", "m eps", "e"),
        node("Sqrt", "e", "r"),
        node("Div", "x r", "n"),
        node("MatMul", "n w", "p"),
        node("ReduceMax", "p middle", "logits", keepdims=0),
        node("ArgMax", "logits", "class", axis=-1, keepdims=0),
        node("TopK", "logits two", "best order"),
    ]
    constants = {
        "table": f32(30, 8, seed=1), "last": np.array([-1]), "eps": np.float32(1e-6), "w": f32(8, 5, seed=2),
        "middle": np.array([1]), "two": np.array([2]),
    }  # fmt: skip
    info, real, whole = helper.make_tensor_value_info, TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "g",
        [info("ids", whole, [1, length])],
        [
            info("logits", real, [1, 5]),
            info("class", whole, [1]),
            info("best", real, [1, 2]),
            info("order", whole, [1, 2]),
        ],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return Model(proto, "words", "0" * 64)


@pytest.mark.parametrize("target", ["host-c", "stm32f746"])
def test_words_in_and_classes_out(tmp_path: Path, target: str) -> None:
    model = words()
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 30, (40, 1, 6))
    options = Options(calibration={"ids": ids})
    artifact = compile_model(model, load_target(target), tmp_path / "words", options)
    assert [p.dtype for p in artifact.inputs] == ["int32"]
    assert {p.name: p.dtype for p in artifact.outputs} == {
        "logits": "int8", "class": "int32", "best": "int8", "order": "int32",
    }  # fmt: skip
    few = ids[:8]
    few[0, 0, :2] = [29, -30]
    got = run_artifact(artifact, {"ids": few.astype(np.int32)}, raw=True)
    program = make_program(model, options)
    agreed = 0
    for i, one in enumerate(few):
        values = evaluate(program, {program.inputs[0].tensor: one.astype(np.int32)})
        for port in program.outputs:
            assert np.array_equal(got[port.name][i], values[port.tensor].reshape(port.onnx_shape)), port.name
        agreed += int(got["class"][i, 0] == run(model.proto, {"ids": one})[1][0])
        assert got["order"][i, 0, 0] == got["class"][i, 0]
    assert agreed >= 7
    text = (tmp_path / "words" / "words.h").read_text()
    assert "int32_t *words_ids(" in text
    assert "const int32_t *words_order(" in text


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_recurrent_node_is_a_stream(tmp_path: Path, kind: str) -> None:
    """One step a run, its state in the state buffer: as far from the float stream as int8 is."""
    gates = {"GRU": 3, "LSTM": 4}[kind]
    weights = {"w": f32(1, gates * 8, 5, seed=1) / 2, "r": f32(1, gates * 8, 8, seed=2) / 3}
    weights |= {"b": f32(1, gates * 16, seed=3) / 4, "out": f32(8, 3, seed=4), "first": np.array([0])}
    states = [StatePair("h", "h2")] + ([StatePair("c", "c2")] if kind == "LSTM" else [])
    nodes = [
        helper.make_node(
            kind,
            ["x", "w", "r", "b", "", *(s.input for s in states)],
            ["y", *(s.output for s in states)],
            name="cell",
            hidden_size=8,
            **({"linear_before_reset": 1} if kind == "GRU" else {}),
        ),
        node("Squeeze", "y first", "rows"),
        node("MatMul", "rows out", "logits"),
    ]
    inputs = {"x": [1, 1, 5], **{s.input: [1, 1, 8] for s in states}}
    made = hand_model(nodes, inputs, ["logits", *(s.output for s in states)], weights)
    model = Model(made.proto, "stream", made.sha256, tuple(states))
    x = np.random.default_rng(1).normal(size=(60, 1, 1, 5)).astype(np.float32)
    artifact = compile_model(model, load_target("host-c"), tmp_path / "stream", Options(calibration={"x": x}))
    assert artifact.stateful
    got = run_artifact(artifact, {"x": x})["logits"]
    wanted = np.stack([step["logits"] for step in run_stream(model, {"x": x})])
    assert got.shape == wanted.shape
    error = np.square(got - wanted).mean() / np.square(wanted).mean()
    assert error < 0.01, error
