# SPDX-License-Identifier: Apache-2.0
"""Operators that exporters take apart are put together again: LayerNorm, GELU, softmax, attention."""

from __future__ import annotations

import math

import numpy as np
import pytest
from canonical_form import (
    MOVEMENT,
    attributes_of,
    canonical_form,
    f32,
    hand_model,
    node,
)
from onnx import TensorProto, helper, numpy_helper

from edgec.model import Model


def _layer_norm(variant: str, gamma: bool, beta: bool) -> Model:
    nodes = [node("ReduceMean", "x last", "mu"), node("Sub", "x mu", "d")]
    nodes.append(node("Mul", "d d", "sq") if variant == "mul" else node("Pow", "d two", "sq"))
    nodes += [
        node("ReduceMean", "sq last", "var"),
        node("Add", "eps var" if variant == "mul" else "var eps", "ve"),
    ]
    nodes.append(node("Pow", "ve half", "sd") if variant == "pow" else node("Sqrt", "ve", "sd"))
    if variant == "reciprocal":
        nodes += [node("Reciprocal", "sd", "inv"), node("Mul", "inv d", "n")]
    elif variant == "one_over":
        nodes += [node("Div", "one sd", "inv"), node("Mul", "d inv", "n")]
    else:
        nodes.append(node("Div", "d sd", "n"))
    last = "n"
    if gamma:
        nodes.append(node("Mul", f"{last} g", "scaled"))
        last = "scaled"
    if beta:
        nodes.append(node("Add", f"b {last}", "shifted"))
        last = "shifted"
    nodes.append(node("Relu", last, "y"))
    weights = {"g": f32(12, seed=1), "b": f32(1, 1, 12, seed=2), "last": np.array([-1])}
    weights |= {k: np.float32(v) for k, v in {"two": 2, "eps": 1e-3, "half": 0.5, "one": 1}.items()}
    return hand_model(nodes, {"x": [1, 5, 12]}, ["y"], weights)


@pytest.mark.parametrize("variant", ["pow", "mul", "plain", "reciprocal", "one_over"])
@pytest.mark.parametrize(("gamma", "beta"), [(True, True), (True, False), (False, True), (False, False)])
def test_decomposed_layer_norm(variant: str, gamma: bool, beta: bool) -> None:
    model = canonical_form(_layer_norm(variant, gamma, beta))
    assert model.histogram() == {"LayerNormalization": 1, "Relu": 1}
    assert attributes_of(model.proto.graph.node[0])["epsilon"] == pytest.approx(1e-3)


def test_almost_layer_norm_is_left_alone() -> None:
    """The variance of another value, and a mean over another axis: not LayerNorm."""
    for axis_of_mean in ("last", "other"):
        nodes = [
            node("ReduceMean", f"x {axis_of_mean}", "mu"),
            node("Sub", "x mu", "d"),
            node("Mul", "z z", "sq"),
            node("ReduceMean", "sq last", "var"),
            node("Add", "var eps", "ve"),
            node("Sqrt", "ve", "sd"),
            node("Div", "d sd", "y"),
        ]
        weights = {"last": np.array([-1]), "other": np.array([1]), "eps": np.float32(1e-3)}
        model = canonical_form(hand_model(nodes, {"x": [1, 4, 6], "z": [1, 4, 6]}, ["y"], weights))
        assert "LayerNormalization" not in model.histogram()


def test_layer_norm_without_bias_and_over_two_axes() -> None:
    nodes = [
        node("LayerNormalization", "x g", "a", axis=-1),
        node("LayerNormalization", "a g2 b2", "y", axis=1, epsilon=1e-3),
    ]
    weights = {"g": f32(6), "g2": f32(4, 6), "b2": f32(4, 6, seed=1)}
    model = canonical_form(hand_model(nodes, {"x": [1, 4, 6]}, ["y"], weights, opset=17))
    assert model.histogram() == {"LayerNormalization": 2, "Reshape": 2}


def _gelu(variant: str) -> Model:
    scalars = {"r2": math.sqrt(2), "ir2": 1 / math.sqrt(2), "one": 1, "half": 0.5, "three": 3, "c": 0.044715}
    scalars["k"] = math.sqrt(2 / math.pi)
    forms = {  # "result = operator operands"
        "erf": "a = Div x r2; e = Erf a; f = Add e one; g = Mul x f; y = Mul g half",
        "erf_half_first": "a = Mul x ir2; e = Erf a; f = Add one e; g = Mul half f; y = Mul x g",
        "erf_half_x": "h = Mul x half; a = Mul x ir2; e = Erf a; f = Add one e; y = Mul h f",
        "erf_sum": "h = Mul x half; a = Mul x ir2; e = Erf a; g = Mul h e; y = Add h g",
        "tanh_pow": "p = Pow x three; q = Mul p c; s = Add x q; a = Mul s k; e = Tanh a; f = Add e one; "
        "h = Mul x half; y = Mul h f",
        "tanh_mul": "p2 = Mul x x; p = Mul p2 x; q = Mul c p; s = Add q x; a = Mul k s; e = Tanh a; "
        "f = Add one e; h = Mul f half; y = Mul h x",
    }
    nodes = []
    for line in forms[variant].split("; "):
        output, _, op_type, *operands = line.split()
        nodes.append(node(op_type, " ".join(operands), output))
    return hand_model(nodes, {"x": [3, 40]}, ["y"], {k: np.float32(v) for k, v in scalars.items()})


@pytest.mark.parametrize("variant", ["erf", "erf_half_first", "erf_half_x", "erf_sum", "tanh_pow", "tanh_mul"])
def test_decomposed_gelu(variant: str) -> None:
    model = canonical_form(_gelu(variant))
    assert model.histogram() == {"Gelu": 1}
    form = b"tanh" if variant.startswith("tanh") else b"none"
    assert attributes_of(model.proto.graph.node[0])["approximate"] == form


def test_almost_gelu_is_left_alone_and_says_so() -> None:
    model = _gelu("erf")
    factor_ = next(t for t in model.proto.graph.initializer if t.name == "r2")
    factor_.CopyFrom(numpy_helper.from_array(np.float32(1.5), "r2"))
    canonical = canonical_form(model)
    assert "Gelu" not in canonical.histogram()
    assert any("e_node" in note and "GELU" in note for note in canonical.notes)


def test_gelu_whose_inside_is_read_elsewhere_keeps_what_is_read() -> None:
    model = _gelu("erf")
    model.proto.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, [3, 40]))
    assert canonical_form(model).histogram()["Gelu"] == 1


def test_silu_stays_two_nodes() -> None:
    nodes = [node("Sigmoid", "x", "s"), node("Mul", "x s", "y")]
    assert canonical_form(hand_model(nodes, {"x": [1, 8]}, ["y"])).histogram() == {"Sigmoid": 1, "Mul": 1}


def test_scales_meet_after_the_product() -> None:
    nodes = [
        node("Mul", "q c", "q1"),
        node("Transpose", "k", "k1", perm=[0, 1, 3, 2]),
        node("Div", "k1 e", "k2"),
        node("MatMul", "q1 k2", "s"),
        node("Div", "s e", "s1"),
        node("Mul", "c1 s1", "s2"),
        node("Softmax", "s2", "y", axis=3),
    ]
    weights = {"c": np.float32(0.5), "e": np.float32(3), "c1": np.full((1, 1), 0.25, np.float32)}
    model = canonical_form(hand_model(nodes, {"q": [1, 2, 5, 4], "k": [1, 2, 5, 4]}, ["y"], weights))
    assert model.histogram()["Mul"] == 1
    assert "Div" not in model.histogram()
    (mul,) = (n for n in model.proto.graph.node if n.op_type == "Mul")
    (scale,) = (numpy_helper.to_array(t) for t in model.proto.graph.initializer if t.name == mul.input[1])
    assert scale == pytest.approx(0.5 / 3 / 3 * 0.25)


def test_a_scaled_value_that_others_read_stays() -> None:
    nodes = [node("Mul", "q c", "q1"), node("MatMul", "q1 k", "s"), node("Relu", "q1", "y")]
    model = hand_model(nodes, {"q": [1, 5, 4], "k": [1, 4, 5]}, ["s", "y"], {"c": np.float32(0.5)})
    assert canonical_form(model).histogram() == {"Mul": 1, "MatMul": 1, "Relu": 1}


@pytest.mark.parametrize("mask", ["none", "finite", "hides", "input"])
def test_nan_guards_go_where_nothing_can_be_nan(mask: str) -> None:
    nodes = [node("MatMul", "q k", "s")]
    weights = {"zero": np.float32(0), "m": np.zeros((5, 5), np.float32) - np.arange(5, dtype=np.float32)}
    inputs = {"q": [1, 5, 4], "k": [1, 4, 5]}
    if mask == "hides":
        weights["m"][2] = -np.inf
    if mask == "input":
        inputs["m"] = [5, 5]
        del weights["m"]
    if mask != "none":
        nodes.append(node("Add", "m s", "masked"))
    nodes += [
        node("Softmax", nodes[-1].output[0], "p", axis=-1),
        node("IsNaN", "p", "nan"),
        node("Where", "nan zero p", "y"),
    ]
    histogram = canonical_form(hand_model(nodes, inputs, ["y"], weights)).histogram()
    assert ("Where" in histogram) == (mask in ("hides", "input")), histogram


@pytest.mark.parametrize("maximum", [False, True])
@pytest.mark.parametrize("axis", [-1, 1])
def test_decomposed_softmax(maximum: bool, axis: int) -> None:
    nodes = [node("ReduceMax", "x axis", "top"), node("Sub", "x top", "z")] if maximum else []
    source = "z" if maximum else "x"
    nodes += [node("Exp", source, "e"), node("ReduceSum", "e axis", "t"), node("Div", "e t", "y")]
    histogram = canonical_form(hand_model(nodes, {"x": [1, 4, 6]}, ["y"], {"axis": np.array([axis])})).histogram()
    assert histogram["Softmax"] == 1
    assert set(histogram) <= {"Softmax", *MOVEMENT}, histogram
