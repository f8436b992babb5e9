# SPDX-License-Identifier: Apache-2.0
"""The canonical float form: ONNX Runtime says that the function stayed, the graph says that the form is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from canonical_models import ViT, export
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgec.errors import UnsupportedError, UsageError
from edgec.model import Model, load_model, value_shapes
from edgec.passes.canonicalize import PASSES, canonicalize
from edgec.passes.movement_maps import factor
from edgec.passes.support import require_supported, unsupported_nodes

MOVEMENT = ("Reshape", "Transpose")
FORM = {
    "Gemm",
    "MatMul",
    "Mul",
    "Softmax",
    "LayerNormalization",
    "Gelu",
    "Add",
    "ReduceMean",
    "Concat",
    "Gather",
}
FORM |= set(MOVEMENT)


def _run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds))


def _feeds(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=t.shape).astype(t.dtype) for t in (*model.inputs, *model.state_inputs)}


def _canonical(model: Model) -> Model:
    """Canonicalize; after every single pass ONNX Runtime must still compute the same, to 1e-5 of the range."""
    feeds = _feeds(model)
    want = _run(model.proto, feeds)

    def observe(name: str, proto: onnx.ModelProto) -> None:
        onnx.checker.check_model(proto, full_check=True)
        for a, b in zip(want, _run(proto, feeds), strict=True):
            assert a.shape == b.shape, name
            error = np.abs(a - b).max() / max(float(np.ptp(a)), 1e-6)
            assert error <= 1e-5, f"after {name}: {error:.2e} of the range"

    canonical = canonicalize(model, observe=observe)
    _check_form(canonical)
    assert [t.name for t in canonical.inputs] == [t.name for t in model.inputs]
    assert [(t.name, t.shape) for t in canonical.outputs] == [(t.name, t.shape) for t in model.outputs]
    assert canonical.states == model.states
    return canonical


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _check_form(model: Model) -> None:
    """The guarantees that hold for every model."""
    graph = model.proto.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    shapes = value_shapes(model.proto)
    assert [(o.domain, o.version) for o in model.proto.opset_import] == [("", 21)]
    names = [n.name for n in graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert not {"Identity", "Dropout", "Constant", "Squeeze", "Unsqueeze", "Flatten"} & {
        n.op_type for n in graph.node
    }
    producers = {o: n for n in graph.node for o in n.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        assert all(o in shapes for o in node.output), node.name
        attributes = _attributes(node)
        if node.op_type == "Gemm":
            weight, bias = (constants[n] for n in node.input[1:])
            assert weight.ndim == 2
            assert bias.shape == weight.shape[:1]
            assert attributes == {"transB": 1}
        if node.op_type == "MatMul":
            assert not set(node.input) & set(constants)
            follower = readers.get(node.output[0], [])
            if len(follower) == 1 and follower[0].op_type in ("Mul", "Div"):
                assert follower[0].op_type == "Mul"
                others = [constants.get(n) for n in follower[0].input if n != node.output[0]]
                assert others[0] is None or others[0].ndim == 0 or others[0].size > 1
        if node.op_type == "Softmax":
            assert attributes["axis"] == -1
        if node.op_type == "LayerNormalization":
            assert attributes["axis"] == -1
            assert (
                constants[node.input[1]].shape == constants[node.input[2]].shape == shapes[node.input[0]][-1:]
            )
        if node.op_type == "Reshape":
            assert shapes[node.input[0]] != shapes[node.output[0]]
            before = producers.get(node.input[0])
            if (
                before is not None and before.op_type == "Reshape"
            ):  # two views in a row only where both are read
                assert len(readers[node.input[0]]) > 1


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    outputs: list[str],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 21,
) -> Model:
    initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        initializers,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    return Model(proto, "hand", "0" * 64)


def _node(op_type: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(
        op_type, inputs.split(), output.split(), name=f"{output.split()[0]}_node", **attributes
    )


def _f32(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# --- whole models


@pytest.mark.parametrize(
    ("kind", "cls", "opset", "dynamo", "open_batch"),
    [
        ("unbind", False, 18, False, False),
        ("gather", True, 16, False, False),
        ("sdpa", True, 18, False, True),
        ("chunk", False, 14, False, True),
        ("split", False, 13, False, True),
        ("scaled_q", True, 17, False, False),
        ("sdpa", True, 18, True, False),
        ("unbind", False, 20, True, True),
        ("sdpa", False, 23, True, False),  # exported as ONNX's own Attention
    ],
)
def test_plain_vit(tmp_path: Path, kind: str, cls: bool, opset: int, dynamo: bool, open_batch: bool) -> None:
    torch.manual_seed(0)
    module = ViT(kind, cls=cls)
    image = torch.randn(1, 3, 64, 64)
    path = export(
        module, {"x": image}, tmp_path / "v.onnx", opset=opset, dynamo=dynamo, open_batch=open_batch
    )
    model = _canonical(load_model(path))
    histogram = model.histogram()
    tail = {"Concat": 1, "Gather": 1} if cls else {"ReduceMean": 1}
    computing = {op: n for op, n in histogram.items() if op not in MOVEMENT}
    expected = {
        "Gemm": 2 + 4 * 6,
        "MatMul": 8,
        "Mul": 4,
        "Softmax": 4,
        "LayerNormalization": 9,
        "Gelu": 4,
        "Add": 9,
    }
    assert computing == expected | tail, histogram
    assert histogram["Transpose"] == 2 + 4 * 4, histogram  # image, patches; q, k, v in, heads out
    tokens = 64 + int(cls)
    dense = 64 * 192 * 96 + 4 * tokens * 96 * (3 * 96 + 96 + 2 * 192) + 96 * 10
    assert model.macs() == dense + 4 * 2 * tokens * tokens * 96
    assert unsupported_nodes(model) == []
    with torch.no_grad():
        want = module(image).numpy()
    got = _run(model.proto, {"x": image.numpy()})[0]
    assert np.abs(want - got).max() <= 1e-5 * np.ptp(want)
    again = canonicalize(model)  # the form is a fixed point
    assert again.histogram() == histogram


def test_low_rank_layers(tmp_path: Path) -> None:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(32)
            self.a, self.b = nn.Linear(32, 8, bias=False), nn.Linear(8, 96)
            self.c, self.d = nn.Linear(32, 8, bias=False), nn.Linear(8, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(x)
            q, k, v = self.b(self.a(y)).reshape(1, 9, 3, 4, 8).permute(2, 0, 3, 1, 4)
            o = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return x + self.d(self.c(o.transpose(1, 2).reshape(1, 9, 32)))

    torch.manual_seed(1)
    path = export(LowRank(), {"x": torch.randn(1, 9, 32)}, tmp_path / "m.onnx")
    model = _canonical(load_model(path))
    histogram = model.histogram()
    assert histogram["Gemm"] == 1 + 3 + 2, histogram
    assert set(histogram) <= FORM, histogram


@pytest.mark.parametrize("dynamo", [False, True])
def test_recurrent_step(tmp_path: Path, dynamo: bool) -> None:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.v, self.u = (nn.Parameter(torch.randn(64, n) * 0.1) for n in (16, 64, 32))
            self.b, self.a = nn.Parameter(torch.randn(64)), nn.Linear(64, 32, bias=False)
            self.out = nn.Linear(64, 10)

        def forward(
            self, x: torch.Tensor, h: torch.Tensor, m: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            h_next = torch.tanh(x @ self.w.T + h @ self.v.T + m @ self.u.T + self.b)
            m_next = 0.9 * m + self.a(h_next)
            return self.out(h_next), h_next, m_next

    torch.manual_seed(2)
    inputs = {"x": torch.randn(1, 16), "h": torch.randn(1, 64), "m": torch.randn(1, 32)}
    names = ["y", "h_next", "m_next"]
    path = export(Step(), inputs, tmp_path / "m.onnx", outputs=names, dynamo=dynamo)
    model = _canonical(load_model(path, states=["h:h_next", "m:m_next"]))
    histogram = model.histogram()
    assert histogram["Gemm"] == 5, histogram
    assert set(histogram) <= {"Gemm", "Add", "Mul", "Tanh"}, histogram
    assert model.macs() == 64 * (16 + 64 + 32) + 64 * 32 + 64 * 10


def test_the_names_of_the_model_stay_readable(tmp_path: Path) -> None:
    module = ViT("unbind", cls=False, depth=1, dim=24, size=16)
    model = canonicalize(load_model(export(module, {"x": torch.randn(1, 3, 16, 16)}, tmp_path / "v.onnx")))
    gemms = [n.name for n in model.proto.graph.node if n.op_type == "Gemm"]
    assert gemms == [
        "/patches/Conv",
        "/blocks/blocks.0/attn/qkv/MatMul.q",
        "/blocks/blocks.0/attn/qkv/MatMul.k",
        "/blocks/blocks.0/attn/qkv/MatMul.v",
        "/blocks/blocks.0/attn/proj/MatMul",
        "/blocks/blocks.0/fc1/MatMul",
        "/blocks/blocks.0/fc2/MatMul",
        "/head/Gemm",
    ]
    first = model.proto.graph.node[0]
    assert (first.op_type, list(first.input), list(_attributes(first)["perm"])) == (
        "Transpose",
        ["x"],
        [0, 2, 3, 1],
    )


def test_every_pass_has_a_contract() -> None:
    for step in PASSES:
        assert len(step.contract) > 20, step.name
    assert len({p.name for p in PASSES}) == len(PASSES)


# --- LayerNorm


def _layer_norm(variant: str, gamma: bool, beta: bool) -> Model:
    nodes = [_node("ReduceMean", "x last", "mu"), _node("Sub", "x mu", "d")]
    nodes.append(_node("Mul", "d d", "sq") if variant == "mul" else _node("Pow", "d two", "sq"))
    nodes += [
        _node("ReduceMean", "sq last", "var"),
        _node("Add", "eps var" if variant == "mul" else "var eps", "ve"),
    ]
    nodes.append(_node("Pow", "ve half", "sd") if variant == "pow" else _node("Sqrt", "ve", "sd"))
    if variant == "reciprocal":
        nodes += [_node("Reciprocal", "sd", "inv"), _node("Mul", "inv d", "n")]
    elif variant == "one_over":
        nodes += [_node("Div", "one sd", "inv"), _node("Mul", "d inv", "n")]
    else:
        nodes.append(_node("Div", "d sd", "n"))
    last = "n"
    if gamma:
        nodes.append(_node("Mul", f"{last} g", "scaled"))
        last = "scaled"
    if beta:
        nodes.append(_node("Add", f"b {last}", "shifted"))
        last = "shifted"
    nodes.append(_node("Relu", last, "y"))
    weights = {"g": _f32(12, seed=1), "b": _f32(1, 1, 12, seed=2), "last": np.array([-1])}
    weights |= {k: np.float32(v) for k, v in {"two": 2, "eps": 1e-3, "half": 0.5, "one": 1}.items()}
    return _model(nodes, {"x": [1, 5, 12]}, ["y"], weights)


@pytest.mark.parametrize("variant", ["pow", "mul", "plain", "reciprocal", "one_over"])
@pytest.mark.parametrize(("gamma", "beta"), [(True, True), (True, False), (False, True), (False, False)])
def test_decomposed_layer_norm(variant: str, gamma: bool, beta: bool) -> None:
    model = _canonical(_layer_norm(variant, gamma, beta))
    assert model.histogram() == {"LayerNormalization": 1, "Relu": 1}
    assert _attributes(model.proto.graph.node[0])["epsilon"] == pytest.approx(1e-3)


def test_almost_layer_norm_is_left_alone() -> None:
    """The variance of another value, and a mean over another axis: not LayerNorm."""
    for axis_of_mean in ("last", "other"):
        nodes = [
            _node("ReduceMean", f"x {axis_of_mean}", "mu"),
            _node("Sub", "x mu", "d"),
            _node("Mul", "z z", "sq"),
            _node("ReduceMean", "sq last", "var"),
            _node("Add", "var eps", "ve"),
            _node("Sqrt", "ve", "sd"),
            _node("Div", "d sd", "y"),
        ]
        weights = {"last": np.array([-1]), "other": np.array([1]), "eps": np.float32(1e-3)}
        model = _canonical(_model(nodes, {"x": [1, 4, 6], "z": [1, 4, 6]}, ["y"], weights))
        assert "LayerNormalization" not in model.histogram()


def test_layer_norm_without_bias_and_over_two_axes() -> None:
    nodes = [
        _node("LayerNormalization", "x g", "a", axis=-1),
        _node("LayerNormalization", "a g2 b2", "y", axis=1, epsilon=1e-3),
    ]
    weights = {"g": _f32(6), "g2": _f32(4, 6), "b2": _f32(4, 6, seed=1)}
    model = _canonical(_model(nodes, {"x": [1, 4, 6]}, ["y"], weights, opset=17))
    assert model.histogram() == {"LayerNormalization": 2, "Reshape": 2}


# --- GELU


def _gelu(variant: str) -> Model:
    scalars = {"r2": math.sqrt(2), "ir2": 1 / math.sqrt(2), "one": 1, "half": 0.5, "three": 3, "c": 0.044715}
    scalars |= {"k": math.sqrt(2 / math.pi), "two": 2.0}
    forms = {
        "erf": [("Div", "x r2", "a"), ("Erf", "a", "e"), ("Add", "e one", "f"), ("Mul", "x f", "g"), ("Mul", "g half", "y")],
        "erf_half_first": [("Mul", "x ir2", "a"), ("Erf", "a", "e"), ("Add", "one e", "f"), ("Mul", "half f", "g"), ("Mul", "x g", "y")],
        "erf_half_x": [("Mul", "x half", "h"), ("Mul", "x ir2", "a"), ("Erf", "a", "e"), ("Add", "one e", "f"), ("Mul", "h f", "y")],
        "erf_sum": [("Mul", "x half", "h"), ("Mul", "x ir2", "a"), ("Erf", "a", "e"), ("Mul", "h e", "g"), ("Add", "h g", "y")],
        "tanh_pow": [("Pow", "x three", "p"), ("Mul", "p c", "q"), ("Add", "x q", "s"), ("Mul", "s k", "a"), ("Tanh", "a", "e"), ("Add", "e one", "f"), ("Mul", "x half", "h"), ("Mul", "h f", "y")],
        "tanh_mul": [("Mul", "x x", "p2"), ("Mul", "p2 x", "p"), ("Mul", "c p", "q"), ("Add", "q x", "s"), ("Mul", "k s", "a"), ("Tanh", "a", "e"), ("Add", "one e", "f"), ("Mul", "f half", "h"), ("Mul", "h x", "y")],
    }  # fmt: skip
    nodes = [_node(op, i, o) for op, i, o in forms[variant]]
    return _model(nodes, {"x": [3, 40]}, ["y"], {k: np.float32(v) for k, v in scalars.items()})


@pytest.mark.parametrize(
    "variant", ["erf", "erf_half_first", "erf_half_x", "erf_sum", "tanh_pow", "tanh_mul"]
)
def test_decomposed_gelu(variant: str) -> None:
    model = _canonical(_gelu(variant))
    assert model.histogram() == {"Gelu": 1}
    form = b"tanh" if variant.startswith("tanh") else b"none"
    assert _attributes(model.proto.graph.node[0])["approximate"] == form


def test_almost_gelu_is_left_alone_and_says_so() -> None:
    model = _gelu("erf")
    factor_ = next(t for t in model.proto.graph.initializer if t.name == "r2")
    factor_.CopyFrom(numpy_helper.from_array(np.float32(1.5), "r2"))
    canonical = _canonical(model)
    assert "Gelu" not in canonical.histogram()
    assert any("e_node" in note and "GELU" in note for note in canonical.notes)


def test_gelu_whose_inside_is_read_elsewhere_keeps_what_is_read() -> None:
    model = _gelu("erf")
    model.proto.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, [3, 40]))
    assert _canonical(model).histogram()["Gelu"] == 1


def test_silu_stays_two_nodes() -> None:
    nodes = [_node("Sigmoid", "x", "s"), _node("Mul", "x s", "y")]
    assert _canonical(_model(nodes, {"x": [1, 8]}, ["y"])).histogram() == {"Sigmoid": 1, "Mul": 1}


# --- dense layers


@pytest.mark.parametrize("shape", [[7], [1, 7], [5, 7], [1, 5, 7], [2, 3, 5, 7]])
@pytest.mark.parametrize("bias", ["", "3", "1 3", "1 1", "1"])
def test_matmul_with_weights(shape: list[int], bias: str) -> None:
    nodes = [_node("MatMul", "x w", "p")]
    weights = {"w": _f32(7, 3)}
    if bias:
        dims = [int(d) for d in bias.split()]
        nodes.append(_node("Add", "p b", "q"))
        weights["b"] = _f32(*dims, seed=1)
    nodes.append(_node("Relu", nodes[-1].output[0], "y"))
    histogram = _canonical(_model(nodes, {"x": shape}, ["y"], weights)).histogram()
    assert histogram["Gemm"] == 1
    widens = len(shape) == 1 and len(bias.split()) == 2  # [3] + [1, 3] has another rank
    assert ("Add" in histogram) == widens, histogram


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c", [None, (), (1,), (3,), (1, 3), (5, 3), (5, 1)])
def test_gemm_flags(trans_a: int, trans_b: int, c: tuple[int, ...] | None) -> None:
    weights = {"w": _f32(*((3, 7) if trans_b else (7, 3)))}
    if c is not None:
        weights["c"] = _f32(*c, seed=1)
    names = "x w c" if c is not None else "x w"
    flags = {"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 2.0}
    model = _model([_node("Gemm", names, "y", **flags)], {"x": [7, 5] if trans_a else [5, 7]}, ["y"], weights)
    histogram = _canonical(model).histogram()
    assert histogram["Gemm"] == 1
    assert histogram.get("Add", 0) == (c in ((5, 3), (5, 1))), histogram


def test_gemm_of_two_activations() -> None:
    nodes = [_node("Gemm", "a b c", "y", transA=1, transB=1, alpha=0.5, beta=2.0)]
    model = _canonical(_model(nodes, {"a": [7, 5], "b": [3, 7], "c": [3]}, ["y"]))
    assert model.histogram() == {"Transpose": 2, "Mul": 2, "MatMul": 1, "Add": 1}


def test_weights_on_the_left() -> None:
    for shape in ([7, 4], [1, 7, 4], [2, 3, 7, 4]):
        model = _canonical(_model([_node("MatMul", "w x", "y")], {"x": shape}, ["y"], {"w": _f32(5, 7)}))
        assert model.histogram()["Gemm"] == 1


def test_stacked_weights_are_not_supported() -> None:
    model = _canonical(_model([_node("MatMul", "x w", "y")], {"x": [2, 4, 7]}, ["y"], {"w": _f32(2, 7, 3)}))
    assert model.histogram() == {"MatMul": 1}
    assert [u.op_type for u in unsupported_nodes(model)] == ["MatMul"]
    assert any("y_node" in note for note in model.notes)


# --- patch embedding and convolutions


@pytest.mark.parametrize(
    ("size", "kernel", "channels"),
    [((8, 8), (4, 4), 3), ((6, 8), (3, 2), 1), ((9, 11), (4, 4), 2), ((5, 5), (1, 1), 4)],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_patch_embedding(size: tuple[int, int], kernel: tuple[int, int], channels: int, batch: int) -> None:
    weights = {"w": _f32(6, channels, *kernel), "b": _f32(6, seed=1)}
    nodes = [_node("Conv", "x w b", "c", strides=list(kernel)), _node("Relu", "c", "y")]
    model = _canonical(_model(nodes, {"x": [batch, channels, *size]}, ["y"], weights))
    histogram = model.histogram()
    assert histogram["Gemm"] == 1, histogram
    assert "Conv" not in histogram, histogram
    assert model.proto.graph.node[0].op_type == "Transpose"


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"strides": [1, 1]}, "stride"),
        ({"strides": [3, 3], "pads": [1, 1, 1, 1]}, "padded"),
        ({"strides": [3, 3], "auto_pad": "SAME_UPPER"}, "padded"),
        ({"strides": [3, 3], "dilations": [2, 2]}, "dilated"),
    ],
)
def test_other_convolutions_stay_and_say_why(attributes: dict[str, object], why: str) -> None:
    nodes = [_node("Conv", "x w", "y", **attributes)]
    model = _canonical(_model(nodes, {"x": [1, 2, 10, 10]}, ["y"], {"w": _f32(4, 2, 3, 3)}))
    assert model.histogram() == {"Conv": 1}
    assert any("y_node" in n and why in n for n in model.notes), model.notes
    assert [u.node for u in unsupported_nodes(model)] == ["y_node"]


@pytest.mark.parametrize("before", ["conv", "patches", "gemm", "none"])
def test_batch_norm(before: str) -> None:
    statistics = {"s": _f32(6), "t": _f32(6, seed=1), "m": _f32(6, seed=2), "v": np.abs(_f32(6, seed=3))}
    stride = [2, 2] if before == "patches" else [1, 1]
    first = {
        "conv": [_node("Conv", "x w", "a", strides=stride)],
        "patches": [_node("Conv", "x w", "a", strides=stride)],
        "gemm": [_node("Gemm", "x g", "a", transB=1)],
        "none": [_node("Relu", "x", "a")],
    }[before]
    shape = [3, 7] if before == "gemm" else [1, 6, 4, 4]
    nodes = [*first, _node("BatchNormalization", "a s t m v", "y")]
    weights = {**statistics, "w": _f32(6, 6, 2, 2), "g": _f32(6, 7)}
    expected = {"conv": {"Conv"}, "patches": {"Gemm"}, "gemm": {"Gemm"}, "none": {"Relu", "Mul", "Add"}}[
        before
    ]
    histogram = _canonical(_model(nodes, {"x": shape}, ["y"], weights)).histogram()
    assert set(histogram) - set(MOVEMENT) == expected, histogram


def test_global_pooling() -> None:
    nodes = [_node("GlobalAveragePool", "x", "p"), _node("Flatten", "p", "f"), _node("Relu", "f", "y")]
    assert _canonical(_model(nodes, {"x": [1, 6, 3, 5]}, ["y"])).histogram()["ReduceMean"] == 1


@pytest.mark.parametrize(
    ("axes", "keep"), [([1], 0), ([-1], 1), ([-1, 1], 0), (None, 0), (None, 1), ([0], 1)]
)
@pytest.mark.parametrize("op_type", ["ReduceMean", "ReduceSum"])
def test_reductions(op_type: str, axes: list[int] | None, keep: int) -> None:
    weights = {} if axes is None else {"axes": np.array(axes)}
    node = _node(op_type, "x axes" if axes else "x", "y", keepdims=keep)
    model = _canonical(_model([node], {"x": [1, 4, 6]}, ["y"], weights))
    for n in model.proto.graph.node:
        if n.op_type == op_type:
            (constant,) = (
                numpy_helper.to_array(t) for t in model.proto.graph.initializer if t.name == n.input[1]
            )
            assert (constant >= 0).all()


# --- attention


def test_scales_meet_after_the_product() -> None:
    nodes = [
        _node("Mul", "q c", "q1"),
        _node("Transpose", "k", "k1", perm=[0, 1, 3, 2]),
        _node("Div", "k1 e", "k2"),
        _node("MatMul", "q1 k2", "s"),
        _node("Div", "s e", "s1"),
        _node("Mul", "c1 s1", "s2"),
        _node("Softmax", "s2", "y", axis=3),
    ]
    weights = {"c": np.float32(0.5), "e": np.float32(3), "c1": np.full((1, 1), 0.25, np.float32)}
    model = _canonical(_model(nodes, {"q": [1, 2, 5, 4], "k": [1, 2, 5, 4]}, ["y"], weights))
    assert model.histogram()["Mul"] == 1
    assert "Div" not in model.histogram()
    (mul,) = (n for n in model.proto.graph.node if n.op_type == "Mul")
    (scale,) = (numpy_helper.to_array(t) for t in model.proto.graph.initializer if t.name == mul.input[1])
    assert scale == pytest.approx(0.5 / 3 / 3 * 0.25)


def test_a_scaled_value_that_others_read_stays() -> None:
    nodes = [_node("Mul", "q c", "q1"), _node("MatMul", "q1 k", "s"), _node("Relu", "q1", "y")]
    model = _model(nodes, {"q": [1, 5, 4], "k": [1, 4, 5]}, ["s", "y"], {"c": np.float32(0.5)})
    assert _canonical(model).histogram() == {"Mul": 1, "MatMul": 1, "Relu": 1}


@pytest.mark.parametrize("mask", ["none", "finite", "hides", "input"])
def test_nan_guards_go_where_nothing_can_be_nan(mask: str) -> None:
    nodes = [_node("MatMul", "q k", "s")]
    weights = {"zero": np.float32(0), "m": np.zeros((5, 5), np.float32) - np.arange(5, dtype=np.float32)}
    inputs = {"q": [1, 5, 4], "k": [1, 4, 5]}
    if mask == "hides":
        weights["m"][2] = -np.inf
    if mask == "input":
        inputs["m"] = [5, 5]
        del weights["m"]
    if mask != "none":
        nodes.append(_node("Add", "m s", "masked"))
    nodes += [
        _node("Softmax", nodes[-1].output[0], "p", axis=-1),
        _node("IsNaN", "p", "nan"),
        _node("Where", "nan zero p", "y"),
    ]
    histogram = _canonical(_model(nodes, inputs, ["y"], weights)).histogram()
    assert ("Where" in histogram) == (mask in ("hides", "input")), histogram


@pytest.mark.parametrize("maximum", [False, True])
@pytest.mark.parametrize("axis", [-1, 1])
def test_decomposed_softmax(maximum: bool, axis: int) -> None:
    nodes = [_node("ReduceMax", "x axis", "top"), _node("Sub", "x top", "z")] if maximum else []
    source = "z" if maximum else "x"
    nodes += [_node("Exp", source, "e"), _node("ReduceSum", "e axis", "t"), _node("Div", "e t", "y")]
    histogram = _canonical(_model(nodes, {"x": [1, 4, 6]}, ["y"], {"axis": np.array([axis])})).histogram()
    assert histogram["Softmax"] == 1
    assert set(histogram) <= {"Softmax", *MOVEMENT}, histogram


# --- fused layers


def _fused(cut: Callable[[str], tuple[list[onnx.NodeProto], list[str]]]) -> Model:
    nodes, outputs = cut("p")
    weights: dict[str, np.ndarray] = {"w": _f32(12, 8), "b": _f32(12, seed=1)}
    for name, value in {
        "i0": 0,
        "i1": 1,
        "i2": 2,
        "list": [3, 1],
        "four": [4],
        "ax": [1],
        "big": [99],
        "z": [0],
    }.items():
        weights[name] = np.array(value)
    weights |= {"sizes": np.array([3, 9]), "five": np.array([1, 5, 3, 4]), "six": np.array([1, 5, 12])}
    relus = [_node("Relu", o, f"y{i}") for i, o in enumerate(outputs)]
    dense = _node("Gemm", "x w b", "p", transB=1)
    return _model([dense, *nodes, *relus], {"x": [5, 8]}, [f"y{i}" for i in range(len(outputs))], weights)


def test_fused_layers_are_split() -> None:
    uneven = _fused(lambda p: ([_node("Split", f"{p} sizes", "a b1", axis=1)], ["a", "b1"]))
    assert _canonical(uneven).histogram() == {"Gemm": 2, "Relu": 2}

    def gathers(p: str) -> tuple[list[onnx.NodeProto], list[str]]:
        nodes = [_node("Reshape", f"{p} five", "r"), _node("Transpose", "r", "t", perm=[2, 0, 1, 3])]
        return nodes + [_node("Gather", f"t i{i}", f"g{i}", axis=0) for i in range(3)], ["g0", "g1", "g2"]

    model = _canonical(_fused(gathers))
    assert model.histogram() == {"Gemm": 3, "Relu": 3, "Reshape": 3}
    one = _canonical(_fused(lambda p: ([_node("Slice", f"{p} four big ax", "s")], ["s"])))  # dead columns go
    assert one.histogram() == {"Gemm": 1, "Relu": 1}
    assert one.macs() == 5 * 8 * 8


def test_fused_layers_that_cannot_be_split_say_why() -> None:
    both = _fused(lambda p: ([_node("Slice", f"{p} four big ax", "s")], ["s", p]))
    overlap = _canonical(both)
    assert overlap.histogram()["Gemm"] == 1
    assert any("p_node" in n and "share" in n for n in overlap.notes)
    rows = _canonical(_fused(lambda p: ([_node("Gather", f"{p} i1", "g", axis=0)], ["g"])))
    assert any("p_node" in n and "rows" in n for n in rows.notes)
    swapped = _canonical(_fused(lambda p: ([_node("Gather", f"{p} list", "g", axis=1)], ["g"])))
    assert any("p_node" in n and "transpose" in n for n in swapped.notes)


# --- data movement


@st.composite
def _chains(draw: st.DrawFn) -> tuple[list[int], list[tuple[str, list[int]]]]:
    """A start shape and a chain of reshapes and transposes."""
    primes = draw(st.lists(st.sampled_from([1, 2, 2, 3, 5]), min_size=1, max_size=5))
    shape, steps = list(primes), []
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            perm = draw(st.permutations(range(len(shape))))
            shape = [shape[p] for p in perm]
            steps.append(("Transpose", list(perm)))
        else:
            factors = draw(st.permutations([p for d in shape for p in _primes(d)] + [1]))
            cuts = sorted(draw(st.lists(st.integers(0, len(factors)), max_size=4)))
            shape = [math.prod(factors[a:b]) for a, b in zip([0, *cuts], [*cuts, len(factors)], strict=True)]
            steps.append(("Reshape", shape))
    return list(primes), steps


def _primes(n: int) -> list[int]:
    found = []
    for p in (2, 3, 5):
        while n % p == 0:
            found.append(p)
            n //= p
    return found


@settings(max_examples=60, deadline=None)
@given(_chains())
def test_movement_becomes_its_normal_form(chain: tuple[list[int], list[tuple[str, list[int]]]]) -> None:
    shape, steps = chain
    nodes, weights, last = [_node("Relu", "x", "v")], {}, "v"
    for i, (op_type, operand) in enumerate(steps):
        if op_type == "Transpose":
            nodes.append(_node(op_type, last, f"m{i}", perm=operand))
        else:
            weights[f"shape{i}"] = np.array(operand)
            nodes.append(_node(op_type, f"{last} shape{i}", f"m{i}"))
        last = f"m{i}"
    nodes.append(_node("Softmax", last, "y", axis=-1))
    model = _canonical(_model(nodes, {"x": shape}, ["y"], weights))
    middle = [n.op_type for n in model.proto.graph.node if n.op_type in MOVEMENT]
    assert middle in ([], ["Reshape"], ["Transpose"], ["Reshape", "Transpose"], ["Transpose", "Reshape"]) or (
        middle == ["Reshape", "Transpose", "Reshape"]
    )
    elements = np.arange(math.prod(shape)).reshape(shape)  # the obvious method, in NumPy
    for op_type, operand in steps:
        elements = elements.transpose(operand) if op_type == "Transpose" else elements.reshape(operand)
    in_order = bool((np.diff(elements.reshape(-1)) > 0).all())
    assert ("Transpose" in middle) == (not in_order)


@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_factor_finds_the_fewest_axes(perm: list[int], shape: list[int]) -> None:
    order = np.arange(math.prod(shape)).reshape(shape).transpose(perm)
    axes = factor(order)
    assert axes is not None
    rebuilt = np.zeros([s for s, _ in axes], int)
    for axis, (size, stride) in enumerate(axes):
        rebuilt += (np.arange(size) * stride).reshape([-1 if i == axis else 1 for i in range(len(axes))])
    assert rebuilt.reshape(-1).tolist() == order.reshape(-1).tolist()
    fewest = 0  # slow: axes of size above 1 that do not continue the one before them
    kept = [p for p in perm if shape[p] > 1]
    alive = sorted(kept)
    for i, p in enumerate(kept):
        fewest += i == 0 or alive.index(p) != alive.index(kept[i - 1]) + 1
    assert len(axes) == fewest


def test_factor_knows_what_is_no_transpose() -> None:
    assert factor(np.array([1, 0])) is None
    assert factor(np.array([0, 1, 3, 2])) is None
    assert factor(np.array([0, 2, 4, 1, 3, 5])) == [(2, 1), (3, 2)]


def test_a_reordered_value_with_two_readers_is_reordered_once() -> None:
    nodes = [
        _node("Relu", "x", "v"),
        _node("Transpose", "v", "t", perm=[0, 2, 1]),
        _node("Softmax", "t", "y0", axis=-1),
        _node("Reshape", "t flat", "r"),
        _node("Softmax", "r", "y1", axis=-1),
    ]
    model = _canonical(_model(nodes, {"x": [1, 4, 6]}, ["y0", "y1"], {"flat": np.array([3, 8])}))
    assert model.histogram()["Transpose"] == 1


def test_movement_straight_from_input_to_output() -> None:
    nodes = [_node("Unsqueeze", "x ax", "u"), _node("Squeeze", "u ax", "y"), _node("Identity", "x", "z")]
    model = _model(nodes, {"x": [2, 3]}, ["y", "z"], {"ax": np.array([0])})
    feeds = _feeds(model)
    got = _run(canonicalize(model).proto, feeds)
    assert all((g == feeds["x"]).all() for g in got)


# --- the rest


def test_constants_are_folded_and_quantized_ones_kept() -> None:
    nodes = [
        _node("Constant", "", "c", value=numpy_helper.from_array(_f32(4))),
        _node("Mul", "c c", "c2"),
        _node("DequantizeLinear", "wq s", "w"),
        _node("Add", "x c2", "a"),
        _node("Mul", "a w", "y"),
    ]
    weights = {"wq": np.arange(4, dtype=np.int8), "s": np.float32(0.5)}
    model = _canonical(_model(nodes, {"x": [1, 4]}, ["y"], weights))
    assert model.histogram() == {"DequantizeLinear": 1, "Add": 1, "Mul": 1}


def test_a_bomb_of_constants_is_not_evaluated() -> None:
    nodes = [
        _node("ConstantOfShape", "dims", "huge"),
        _node("ReduceSum", "huge", "sum", keepdims=0),
        _node("Add", "x sum", "y"),
    ]
    model = _model(nodes, {"x": [1, 4]}, ["y"], {"dims": np.array([1 << 16, 1 << 16, 8])})
    with pytest.raises(UnsupportedError, match="too large"):
        canonicalize(model)


def test_no_ops_vanish() -> None:
    nodes = [
        _node("Dropout", "x", "a"),
        _node("Cast", "a", "b", to=TensorProto.FLOAT),
        _node("Add", "b zeros", "c"),
        _node("Mul", "one c", "d"),
        _node("Slice", "d z big z", "e"),
        _node("Expand", "e dims", "f"),
        _node("Identity", "f", "g"),
        _node("Relu", "g", "y"),
    ]
    weights = {
        "zeros": np.zeros((3, 4), np.float32),
        "one": np.ones((1, 1), np.float32),
        "dims": np.array([3, 4]),
    }
    weights |= {"z": np.array([0]), "big": np.array([99])}
    assert _canonical(_model(nodes, {"x": [3, 4]}, ["y"], weights)).histogram() == {"Relu": 1}


def test_names_are_given_and_made_unique() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Abs", ["a"], ["b"], name="n")]
    nodes += [helper.make_node("Neg", ["b"], ["c"], name="n"), helper.make_node("Relu", ["c"], ["y"])]
    _canonical(_model(nodes, {"x": [3, 4]}, ["y"]))


def test_input_shapes_reach_the_passes() -> None:
    proto = _model([_node("Relu", "x", "y")], {"x": [1, 4]}, ["y"]).proto
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[1].dim_param = "n"
    model = Model(proto, "m", "0" * 64)
    assert canonicalize(model, {"x": (1, 9)}).outputs[0].shape == (1, 9)
    with pytest.raises(UsageError, match="'z'"):
        canonicalize(model, {"z": (1, 9)})


def test_everything_unsupported_is_listed_at_once() -> None:
    nodes = [
        _node("Conv", "x w", "a"),
        _node("MaxPool", "a", "b0", kernel_shape=[2, 2]),
        _node("Div", "b0 b0", "c"),
        _node("Gather", "c list", "d", axis=1),
        _node("Relu", "d", "y"),
    ]
    model = _canonical(
        _model(nodes, {"x": [1, 2, 8, 8]}, ["y"], {"w": _f32(4, 2, 3, 3), "list": np.array([0, 1, 3])})
    )
    found = unsupported_nodes(model)
    assert [(u.node, u.op_type) for u in found] == [
        ("a_node", "Conv"),
        ("b0_node", "MaxPool"),
        ("c_node", "Div"),
        ("d_node", "Gather"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        require_supported(model, "int8")
    text = str(caught.value)
    assert caught.value.exit_code == 3
    for u in found:
        assert u.node in text
        assert u.nearest in text
    assert "4 nodes" in text
    require_supported(model, "float32")
    with pytest.raises(UsageError, match="int4"):
        require_supported(model, "int4")


def test_half_precision_is_refused() -> None:
    nodes = [_node("Cast", "x", "h", to=TensorProto.FLOAT16), _node("Relu", "h", "r")]
    nodes.append(_node("Cast", "r", "y", to=TensorProto.FLOAT))
    found = unsupported_nodes(canonicalize(_model(nodes, {"x": [1, 4]}, ["y"])))
    assert [u.op_type for u in found] == ["Cast", "Relu", "Cast"]
    assert "float32" in found[1].nearest
