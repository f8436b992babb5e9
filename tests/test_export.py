# SPDX-License-Identifier: Apache-2.0
"""Export against torch and ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from edgec.errors import UnsupportedError, UsageError
from edgec.models.registry import get_model

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from edgec.export import export, max_abs_error  # noqa: E402

STEP = "recurrent-16-64-32"  # the smallest model: one export takes about a second


def counts(proto):
    types = [node.op_type for node in proto.graph.node]
    return {op: types.count(op) for op in types}


@pytest.fixture(scope="module")
def step_file(tmp_path_factory):
    return export(STEP, tmp_path_factory.mktemp("export") / "step.onnx", seed=3)


@pytest.fixture(scope="module")
def former_file(tmp_path_factory):
    return export("mcuformer-fashion-mnist", tmp_path_factory.mktemp("export") / "former.onnx", seed=3)


def test_transformer_has_single_norms_and_gelus_and_readable_names(former_file):
    proto = onnx.load(former_file)
    assert [(i.version, i.domain) for i in proto.opset_import] == [(21, "")]
    found = counts(proto)
    assert (found["LayerNormalization"], found["Gelu"], found["Softmax"]) == (9, 4, 4)
    assert [value.name for value in proto.graph.input] == ["image"]
    assert [value.name for value in proto.graph.output] == ["logits"]
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    assert "/blocks.2/attention/qkv/core/MatMul" in names
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    assert all(d.HasField("dim_value") for value in values for d in value.type.tensor_type.shape.dim)
    assert not {value.name for value in proto.graph.value_info} & {i.name for i in proto.graph.initializer}


def test_transformer_equals_torch(former_file):
    image = np.random.default_rng(0).random((1, 1, 28, 28), dtype=np.float32)
    (logits,) = ort.InferenceSession(former_file).run(None, {"image": image})
    with torch.no_grad():
        expected = get_model("mcuformer-fashion-mnist").build(seed=3)(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_stateful_model_equals_torch_over_steps_and_carries_its_contract(step_file):
    proto = onnx.load(step_file)
    (entry,) = [entry for entry in proto.metadata_props if entry.key == "edgec.state"]
    contract = json.loads(entry.value)
    assert contract == [
        {"input": "h", "output": "h_next", "reset": 0.0},
        {"input": "m", "output": "m_next", "reset": 0.0},
    ]
    session = ort.InferenceSession(step_file)
    shapes = {i.name: i.shape for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    state = {pair["input"]: np.full(shapes[pair["input"]], pair["reset"], np.float32) for pair in contract}
    module = get_model(STEP).build(seed=3)
    h, m = torch.zeros(1, 64), torch.zeros(1, 32)
    random = np.random.default_rng(1)
    for _ in range(10):
        x = random.standard_normal((1, 16)).astype(np.float32)
        results = dict(zip(names, session.run(None, {"x": x, **state}), strict=True))
        state = {pair["input"]: results[pair["output"]] for pair in contract}
        with torch.no_grad():
            y, h, m = module(torch.from_numpy(x), h, m)
        np.testing.assert_allclose(results["y"], y.numpy(), atol=1e-5)


def test_same_arguments_same_bytes_and_nothing_of_this_machine(step_file, tmp_path):
    again = export(STEP, tmp_path / "again.onnx", seed=3)
    assert again.read_bytes() == step_file.read_bytes()
    assert export(STEP, tmp_path / "other.onnx", seed=4).read_bytes() != step_file.read_bytes()
    assert b".py" not in step_file.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.onnx", "other.onnx"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_checkpoint_replaces_the_weights(step_file, tmp_path, wrapped):
    state = get_model(STEP).build(seed=3).state_dict()
    torch.save({"model": state, "epoch": 5} if wrapped else state, tmp_path / "weights.pt")
    path = export(STEP, tmp_path / "model.onnx", checkpoint=tmp_path / "weights.pt", seed=9)
    assert path.read_bytes() == step_file.read_bytes()


class Evil:
    def __reduce__(self):
        return (print, ("unpickled code ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"not a checkpoint", "cannot be read as a checkpoint"),
        ({"x": Evil()}, "cannot be read as a checkpoint"),
        ({"wrong": 1}, "does not belong to this model"),
        ([1, 2], "does not belong to this model"),
    ],
)
def test_bad_checkpoint_is_a_usage_error_and_leaves_nothing(content, message, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UsageError, match=message):
        export(STEP, tmp_path / "model.onnx", checkpoint=path)
    assert "unpickled code ran" not in capsys.readouterr().out
    assert not (tmp_path / "model.onnx").exists()


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.drop = torch.nn.Dropout(0.9)

    def forward(self, x):
        return self.drop(self.layer(x)), x + 1


def test_own_module_is_exported_in_evaluation_mode_and_left_as_it_was(tmp_path):
    module = Classifier().train()
    path = export(
        module,
        tmp_path / "own.onnx",
        inputs={"x": (1, 4)},
        outputs=("scores", "x_next"),
        states=[("x", "x_next", 1.5)],
    )
    assert module.training
    proto = onnx.load(path)
    assert counts(proto) == {"Gemm": 1, "Add": 1}
    assert json.loads(proto.metadata_props[0].value) == [{"input": "x", "output": "x_next", "reset": 1.5}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs the names and shapes of its inputs"),
        ({"inputs": {"x": (1, 5)}}, "cannot be called with these inputs"),
        ({"inputs": {"x": (1, 4)}, "outputs": ("a",)}, "output names do not fit"),
        ({"inputs": {"x": (1, 4)}, "outputs": ("x", "y")}, "output names do not fit"),
        ({"inputs": {"x": (1, 4)}, "states": [("x", "z", 0.0)]}, "names no input or no output"),
        ({"inputs": {"x": (1, 4)}, "states": [("x", "y0", 0.0)]}, "changes its shape"),
    ],
)
def test_wrong_names_and_shapes_are_usage_errors(arguments, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        export(Classifier(), tmp_path / "own.onnx", **arguments)
    assert not list(tmp_path.iterdir())


class Named(torch.nn.Module):
    def forward(self, x):
        return {"y": x}


def test_results_that_are_no_tensors_are_refused(tmp_path):
    with pytest.raises(UsageError, match="something else than tensors"):
        export(Named(), tmp_path / "named.onnx", inputs={"x": (1, 4)})


class Branching(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_control_flow_on_values_is_refused_in_one_line(tmp_path):
    with pytest.raises(UnsupportedError, match="cannot export Branching") as caught:
        export(Branching(), tmp_path / "branching.onnx", inputs={"x": (1, 4)})
    assert caught.value.have
    assert "\n" not in caught.value.have
    assert not list(tmp_path.iterdir())


def test_a_file_that_differs_from_the_module_is_refused(step_file):
    with pytest.raises(UnsupportedError, match="does not compute what the module computes"):
        max_abs_error(get_model(STEP).build(seed=4), step_file)
    assert max_abs_error(get_model(STEP).build(seed=3), step_file) < 1e-5


def test_without_torch_the_message_says_what_to_install(tmp_path):
    code = f"""
import sys
sys.modules["torch"] = None                     # what import sees when torch is not installed
from edgec.errors import UsageError
from edgec.export import export                 # importable without torch
try:
    export({STEP!r}, {str(tmp_path / "x.onnx")!r})
except UsageError as error:
    assert error.hints == ("pip install 'edgec[models]'",), error
    print("told")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "told\n"
