# SPDX-License-Identifier: Apache-2.0
"""The front door: what a good file becomes, and one clear error for every bad one."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgec import model_file
from edgec.errors import EdgecError, UnsupportedError, UsageError
from edgec.model import STATE_KEY, StatePair, load_model, save_model

FLOAT = TensorProto.FLOAT


def _info(name: str, shape: list[int | str | None] | None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _dense(batch: int | str | None = 1, opset: int = 21) -> onnx.ModelProto:
    weights = {"w": np.arange(12, dtype=np.float32).reshape(4, 3), "b": np.ones(3, np.float32)}
    return _model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="dense")],
        [_info("x", [batch, 4])],
        [_info("y", [batch, 3])],
        weights,
        opset,
    )


def _step() -> onnx.ModelProto:
    return _model(
        [
            helper.make_node("Add", ["x", "h"], ["h_next"], name="add"),
            helper.make_node("Relu", ["h_next"], ["y"], name="relu"),
        ],
        [_info("x", [1, 4]), _info("h", [1, 4])],
        [_info("y", [1, 4]), _info("h_next", [1, 4])],
    )


def _write(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def _refused(kind: type[EdgecError], path: Path, *words: str, **arguments: object) -> EdgecError:
    with pytest.raises(kind) as caught:
        load_model(path, **arguments)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


# --- good files


def test_a_good_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "net.onnx", _dense())
    model = load_model(path)
    assert (model.name, model.notes, model.states) == ("net", [], ())
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [(t.name, t.shape, t.dtype) for t in model.inputs] == [("x", (1, 4), np.dtype(np.float32))]
    assert [(t.name, t.shape, t.dtype) for t in model.outputs] == [("y", (1, 3), np.dtype(np.float32))]
    assert model.macs() == 12


@pytest.mark.parametrize("batch", ["batch", None, 0, -1])
def test_an_open_batch_becomes_one_with_a_note(tmp_path: Path, batch: int | str | None) -> None:
    proto = _dense(batch if batch != -1 else 1)
    if batch == -1:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
        proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = -1
    if batch in (0, -1):  # such files come from exporters that mean "any" by it
        proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = load_model(_write(tmp_path / "m.onnx", proto))
    assert model.inputs[0].shape == (1, 4)
    assert model.outputs[0].shape == (1, 3)
    assert len(model.notes) == 1
    assert "x" in model.notes[0]
    assert "batch" in model.notes[0]


def test_an_open_size_is_given_by_the_caller(tmp_path: Path) -> None:
    proto = _model(
        [helper.make_node("Relu", ["x"], ["y"], name="r")],
        [_info("x", ["n", 3, "h", "w"])],
        [_info("y", ["n", 3, "h", "w"])],
    )
    path = _write(tmp_path / "m.onnx", proto)
    error = _refused(UsageError, path, "'x'", "--input-shape x=")
    assert "2, 3" in str(error)
    assert load_model(path, input_shapes={"x": (1, 3, 8, 6)}).outputs[0].shape == (1, 3, 8, 6)
    _refused(UsageError, path, "'z'", "'x'", input_shapes={"z": (1,)})
    _refused(UsageError, path, "another shape", input_shapes={"x": (1, 4, 8, 6)})
    _refused(UsageError, path, "another shape", input_shapes={"x": (1, 3, 8)})
    _refused(UsageError, path, "positive", input_shapes={"x": (1, 3, 0, 6)})


def test_no_shape_at_all(tmp_path: Path) -> None:
    proto = _model([helper.make_node("Relu", ["x"], ["y"], name="r")], [_info("x", None)], [_info("y", None)])
    path = _write(tmp_path / "m.onnx", proto)
    _refused(UsageError, path, "no shape", "--input-shape x=")
    assert load_model(path, input_shapes={"x": (2, 5)}).outputs[0].shape == (2, 5)


def test_shape_arithmetic_gives_the_output_shape(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], name="shape"),
        helper.make_node("Gather", ["s", "zero"], ["n"], name="gather"),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"], name="unsqueeze"),
        helper.make_node("Concat", ["n1", "rest"], ["t"], name="concat", axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"], name="reshape"),
    ]
    weights = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1, 2])}
    proto = _model(nodes, [_info("x", ["b", 6])], [_info("y", None)], weights)
    assert load_model(_write(tmp_path / "m.onnx", proto)).outputs[0].shape == (1, 3, 2)


def test_an_input_with_a_default_is_a_constant(tmp_path: Path) -> None:
    proto = _dense()
    proto.graph.input.append(_info("b", [3]))
    assert [t.name for t in load_model(_write(tmp_path / "m.onnx", proto)).inputs] == ["x"]


def test_hostile_names_are_kept(tmp_path: Path) -> None:
    proto = _model(
        [helper.make_node("Relu", ["*/ evil(); /*"], ["y\n#"], name='"; system("x")')],
        [_info("*/ evil(); /*", [1, 2])],
        [_info("y\n#", [1, 2])],
    )
    model = load_model(_write(tmp_path / "m.onnx", proto))
    assert model.inputs[0].name == "*/ evil(); /*"
    assert model.outputs[0].name == "y\n#"


# --- state


def test_states_from_arguments_and_metadata(tmp_path: Path) -> None:
    path = _write(tmp_path / "step.onnx", _step())
    model = load_model(path, states=["h:h_next"])
    assert model.states == (StatePair("h", "h_next", 0.0),)
    assert [t.name for t in model.inputs] == ["x"]
    assert [t.name for t in model.outputs] == ["y"]
    assert [t.name for t in model.state_inputs] == ["h"]
    assert [t.name for t in model.state_outputs] == ["h_next"]
    saved = tmp_path / "saved.onnx"
    save_model(model, saved)
    again = load_model(saved)
    assert again.states == model.states
    assert load_model(saved, states=["h:h_next"]).states == model.states
    assert list(tmp_path.glob(".*")) == []


def test_metadata_travels(tmp_path: Path) -> None:
    proto = _step()
    proto.metadata_props.add(key="author", value="somebody")
    proto.metadata_props.add(key=STATE_KEY, value=json.dumps([{"input": "h", "output": "h_next", "reset": 0.5}]))
    model = load_model(_write(tmp_path / "a.onnx", proto))
    assert model.states == (StatePair("h", "h_next", 0.5),)
    save_model(model, tmp_path / "b.onnx")
    kept = {p.key: p.value for p in onnx.load(tmp_path / "b.onnx").metadata_props}
    assert kept["author"] == "somebody"
    assert json.loads(kept[STATE_KEY]) == [{"input": "h", "output": "h_next", "reset": 0.5}]
    x = {"x": np.ones((1, 4), np.float32), "h": np.full((1, 4), 2, np.float32)}
    assert ort.InferenceSession(tmp_path / "b.onnx").run(["y"], x)[0].tolist() == [[3.0] * 4]


def test_names_with_colons_are_found(tmp_path: Path) -> None:
    proto = _step()
    for old, new in (("h_next", "next:0"), ("h", "h:0")):
        for node in proto.graph.node:
            node.input[:] = [new if n == old else n for n in node.input]
            node.output[:] = [new if n == old else n for n in node.output]
        for value in (*proto.graph.input, *proto.graph.output):
            value.name = new if value.name == old else value.name
    path = _write(tmp_path / "m.onnx", proto)
    assert load_model(path, states=["h:0:next:0"]).states == (StatePair("h:0", "next:0"),)
    _refused(UsageError, path, "names no pair", "'h:0'", states=["h:0:other:0"])


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (["h"], ["not a pair", "input:output"]),
        (["g:h_next"], ["no input 'g'", "'h'", "'x'"]),
        (["h:g"], ["no output 'g'", "'h_next'"]),
        (["h:h_next", "x:h_next"], ["output 'h_next' is in two pairs"]),
        (["h:h_next", "h:y"], ["input 'h' is in two pairs"]),
    ],
)
def test_wrong_states(tmp_path: Path, states: list[str], words: list[str]) -> None:
    _refused(UsageError, _write(tmp_path / "m.onnx", _step()), *words, states=states)


def test_a_state_keeps_its_shape_and_type(tmp_path: Path) -> None:
    _refused(UsageError, _write(tmp_path / "m.onnx", _dense()), "[1, 4]", "[1, 3]", states=["x:y"])


_BAD_RESETS = (
    '[{"input": "h", "output": "h_next", "reset": "NaN"}]',
    '[{"input": "h", "output": "y", "reset": []}]',
)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "{}",
        "[1]",
        '[{"input": "h"}]',
        '[{"input": "h", "output": 3}]',
        "null",
        "[[" * 5000,
        *_BAD_RESETS,
    ],
)
def test_metadata_that_is_no_contract(tmp_path: Path, text: str) -> None:
    proto = _step()
    proto.metadata_props.add(key=STATE_KEY, value=text)
    path = _write(tmp_path / "m.onnx", proto)
    if text == "{}":
        assert load_model(path).states == ()  # an empty mapping holds no pair
    else:
        _refused(UsageError, path, STATE_KEY)


# --- bad files


def test_files_that_are_not_models(tmp_path: Path) -> None:
    _refused(UsageError, tmp_path / "none.onnx", "does not exist")
    _refused(UsageError, tmp_path, "folder")
    for name, content in {
        "empty": b"",
        "text": b"#!/bin/sh\necho hello\n",
        "zip": b"PK\x03\x04" + b"\0" * 99,
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        _refused(UsageError, path, str(path))
    _refused(UsageError, Path("a\0b"), "does not exist")
    _refused(UsageError, _write(tmp_path / "hollow", onnx.ModelProto(ir_version=8)), "no graph")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.onnx", _dense())
    path.chmod(0)
    _refused(UsageError, path, "cannot read")


def test_every_truncation_is_refused_or_loads(tmp_path: Path) -> None:
    content = _dense().SerializeToString()
    path = tmp_path / "m.onnx"
    refused = 0
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            load_model(path)
        except EdgecError:
            refused += 1
    assert refused > 0.9 * len(content)


_SEEDS = [_dense().SerializeToString(), _step().SerializeToString(), _dense("n", 13).SerializeToString()]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_corrupted_bytes_are_refused_or_load(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(_SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]) if data.draw(st.booleans()) else content)
    try:
        model = load_model(path)
    except (UsageError, UnsupportedError):
        return
    assert all(d > 0 for t in model.inputs for d in t.shape)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as stream:
        stream.truncate(2**31)  # sparse: takes no room on the disk
    _refused(UsageError, path, "too large", "2,147,483,647 B", "2,147,483,648 B")
    monkeypatch.setattr(model_file, "MAX_MODEL_BYTES", 100)
    _refused(UsageError, _write(tmp_path / "small.onnx", _dense()), "too large", "100 B")


@pytest.mark.parametrize("opset", [1, 12, 99])
def test_operator_sets(tmp_path: Path, opset: int) -> None:
    proto = _dense()
    proto.opset_import[0].version = opset
    _refused(UnsupportedError, _write(tmp_path / "m.onnx", proto), f"opset {opset}", "opset 13")


def test_no_operator_set(tmp_path: Path) -> None:
    proto = _dense()
    del proto.opset_import[:]
    _refused(UsageError, _write(tmp_path / "m.onnx", proto), "no version")


def test_foreign_operators_are_all_named(tmp_path: Path) -> None:
    proto = _dense()
    for i in range(2):
        proto.graph.node.add(op_type=f"Magic{i}", domain="com.vendor", name=f"n{i}", input=["x"], output=[f"o{i}"])
    proto.opset_import.add(domain="com.vendor", version=1)
    _refused(UnsupportedError, _write(tmp_path / "m.onnx", proto), "com.vendor:Magic0", "com.vendor:Magic1", "'n1'")


def test_functions_of_the_model_are_known_unless_they_never_end(tmp_path: Path) -> None:
    proto = _model(
        [helper.make_node("Twice", ["x"], ["y"], name="t", domain="own")],
        [_info("x", [1, 2])],
        [_info("y", [1, 2])],
    )
    proto.opset_import.add(domain="own", version=1)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    body = helper.make_node("Add", ["a", "a"], ["b"])
    proto.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [body], opsets))
    assert load_model(_write(tmp_path / "m.onnx", proto)).outputs[0].shape == (1, 2)
    proto.functions[0].node[0].CopyFrom(helper.make_node("Twice", ["a"], ["b"], domain="own"))
    _refused(UsageError, _write(tmp_path / "m.onnx", proto), "Twice", "calls itself")


def test_names_must_be_there_and_differ(tmp_path: Path) -> None:
    for kind in ("input", "output", "initializer"):
        proto = _dense()
        getattr(proto.graph, kind)[0].name = ""
        _refused(UsageError, _write(tmp_path / "m.onnx", proto), f"{kind} without a name")
        proto = _dense()
        values = getattr(proto.graph, kind)
        values.add().CopyFrom(values[0])
        _refused(UsageError, _write(tmp_path / "m.onnx", proto), f"{kind} name", "twice")
    proto = _step()
    proto.graph.node[1].output[0] = "h_next"  # two nodes write one value
    _refused(UsageError, _write(tmp_path / "m.onnx", proto), "not a valid ONNX model")


def test_graphs_that_contradict_themselves(tmp_path: Path) -> None:
    proto = _dense()
    proto.graph.node[0].input[0] = "missing"
    _refused(UsageError, _write(tmp_path / "m.onnx", proto), "not a valid ONNX model")
    proto = _dense()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((5, 3), np.float32), "w"))
    _refused(UsageError, _write(tmp_path / "m.onnx", proto))
    path = _write(
        tmp_path / "m.onnx",
        _model(
            [helper.make_node("Add", ["x", "c"], ["y"], name="a")],
            [_info("x", [1, "n"])],
            [_info("y", [1, "n"])],
            {"c": np.zeros(7, np.float32)},
        ),
    )
    _refused(UsageError, path, "contradict", input_shapes={"x": (1, 5)})


@pytest.mark.parametrize("dims", [[2**40, 2**40], [-1], [4, 4]])
def test_tensors_that_lie_about_their_size(tmp_path: Path, dims: list[int]) -> None:
    proto = _dense()
    proto.graph.initializer[0].dims[:] = dims
    _refused(UsageError, _write(tmp_path / "m.onnx", proto), "'w'")


def test_inputs_that_are_not_tensors_of_numbers(tmp_path: Path) -> None:
    proto = _model(
        [helper.make_node("Identity", ["x"], ["y"], name="i")],
        [_info("x", [1], TensorProto.STRING)],
        [_info("y", [1], TensorProto.STRING)],
    )
    _refused(UnsupportedError, _write(tmp_path / "m.onnx", proto), "'x'", "numbers")
    proto = _model([helper.make_node("SequenceAt", ["s", "i"], ["y"], name="a")], [], [_info("y", None)])
    proto.graph.input.append(helper.make_tensor_sequence_value_info("s", FLOAT, None))
    proto.graph.input.append(_info("i", [], TensorProto.INT64))
    _refused(UnsupportedError, _write(tmp_path / "m.onnx", proto), "'s'", "not a tensor")


def test_shapes_that_depend_on_values(tmp_path: Path) -> None:
    proto = _model(
        [helper.make_node("NonZero", ["x"], ["y"], name="n")],
        [_info("x", [1, 4])],
        [_info("y", [2, "n"], TensorProto.INT64)],
    )
    _refused(UnsupportedError, _write(tmp_path / "m.onnx", proto), "'y'", "depends on the input")


# --- external data


def _external(folder: Path, location: str, **entries: str) -> Path:
    proto = _dense()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return _write(folder / "m.onnx", proto)


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    weights = np.arange(12, dtype=np.float32)
    (tmp_path / "sub").mkdir()
    for location in ("m.data", "sub/m.data"):
        (tmp_path / location).write_bytes(b"12345678" + weights.tobytes() + b"rest")
        model = load_model(_external(tmp_path, location, offset="8", length="48"))
        loaded = numpy_helper.to_array(model.proto.graph.initializer[0])
        assert loaded.tolist() == weights.reshape(4, 3).tolist()


def test_external_data_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(48))
    (folder / "link").symlink_to(secret)
    (folder / "links").symlink_to(tmp_path)
    for location in ("../secret", str(secret), "link", "links/secret", "a/../../secret", "", ".", "a\0b"):
        _refused(UsageError, _external(folder, location), "'w'")
    _refused(UsageError, _external(folder, "../secret"), "outside the model's folder")
    _refused(UsageError, _external(folder, "missing"), "no file 'missing'")


@pytest.mark.parametrize(
    "entries",
    [
        {"length": "44"},
        {"offset": "60"},
        {"length": "49"},
        {"offset": "8"} | {"length": "48"},
        {"offset": "-1"},
        {"offset": "x"},
        {"length": "9" * 40},
    ],
)
def test_external_data_of_the_wrong_size(tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "m.data").write_bytes(bytes(48))
    _refused(UsageError, _external(tmp_path, "m.data", **entries), "'w'")


# --- saving


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    model = load_model(_write(tmp_path / "m.onnx", _dense()))
    with pytest.raises(UsageError, match="cannot write"):
        save_model(model, tmp_path / "none" / "m.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        save_model(model, tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "m.onnx"]
