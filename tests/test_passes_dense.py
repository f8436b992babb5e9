# SPDX-License-Identifier: Apache-2.0
"""Everything that is a dense layer becomes one form of it: Gemm flags, fused layers, patches, BatchNorm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from canonical_form import (
    MOVEMENT,
    canonical_form,
    f32,
    hand_model,
    node,
)
from onnx import numpy_helper

from edgec.model import Model
from edgec.passes.support import unsupported_nodes


@pytest.mark.parametrize("shape", [[7], [1, 7], [5, 7], [1, 5, 7], [2, 3, 5, 7]])
@pytest.mark.parametrize("bias", ["", "3", "1 3", "1 1", "1"])
def test_matmul_with_weights(shape: list[int], bias: str) -> None:
    nodes = [node("MatMul", "x w", "p")]
    weights = {"w": f32(7, 3)}
    if bias:
        dims = [int(d) for d in bias.split()]
        nodes.append(node("Add", "p b", "q"))
        weights["b"] = f32(*dims, seed=1)
    nodes.append(node("Relu", nodes[-1].output[0], "y"))
    histogram = canonical_form(hand_model(nodes, {"x": shape}, ["y"], weights)).histogram()
    assert histogram["Gemm"] == 1
    widens = len(shape) == 1 and len(bias.split()) == 2  # [3] + [1, 3] has another rank
    assert ("Add" in histogram) == widens, histogram


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c", [None, (), (1,), (3,), (1, 3), (5, 3), (5, 1)])
def test_gemm_flags(trans_a: int, trans_b: int, c: tuple[int, ...] | None) -> None:
    weights = {"w": f32(*((3, 7) if trans_b else (7, 3)))}
    if c is not None:
        weights["c"] = f32(*c, seed=1)
    names = "x w c" if c is not None else "x w"
    flags = {"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 2.0}
    model = hand_model([node("Gemm", names, "y", **flags)], {"x": [7, 5] if trans_a else [5, 7]}, ["y"], weights)
    histogram = canonical_form(model).histogram()
    assert histogram["Gemm"] == 1
    assert histogram.get("Add", 0) == (c in ((5, 3), (5, 1))), histogram


def test_gemm_of_two_activations() -> None:
    nodes = [node("Gemm", "a b c", "y", transA=1, transB=1, alpha=0.5, beta=2.0)]
    model = canonical_form(hand_model(nodes, {"a": [7, 5], "b": [3, 7], "c": [3]}, ["y"]))
    assert model.histogram() == {"Transpose": 2, "Mul": 2, "MatMul": 1, "Add": 1}


def test_weights_on_the_left() -> None:
    for shape in ([7, 4], [1, 7, 4], [2, 3, 7, 4]):
        model = canonical_form(hand_model([node("MatMul", "w x", "y")], {"x": shape}, ["y"], {"w": f32(5, 7)}))
        assert model.histogram()["Gemm"] == 1


def test_stacked_weights_stay_one_product() -> None:
    model = canonical_form(hand_model([node("MatMul", "x w", "y")], {"x": [2, 4, 7]}, ["y"], {"w": f32(2, 7, 3)}))
    assert model.histogram() == {"MatMul": 1}
    assert not unsupported_nodes(model)
    assert any("y_node" in note for note in model.notes)


@pytest.mark.parametrize(
    ("size", "kernel", "channels"),
    [((8, 8), (4, 4), 3), ((6, 8), (3, 2), 1), ((9, 11), (4, 4), 2), ((5, 5), (1, 1), 4)],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_patch_embedding(size: tuple[int, int], kernel: tuple[int, int], channels: int, batch: int) -> None:
    weights = {"w": f32(6, channels, *kernel), "b": f32(6, seed=1)}
    nodes = [node("Conv", "x w b", "c", strides=list(kernel)), node("Relu", "c", "y")]
    model = canonical_form(hand_model(nodes, {"x": [batch, channels, *size]}, ["y"], weights))
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
    nodes = [node("Conv", "x w", "y", **attributes)]
    model = canonical_form(hand_model(nodes, {"x": [1, 2, 10, 10]}, ["y"], {"w": f32(4, 2, 3, 3)}))
    assert model.histogram() == {"Conv": 1}
    assert any("y_node" in n and why in n for n in model.notes), model.notes
    assert not unsupported_nodes(model)


@pytest.mark.parametrize("before", ["conv", "patches", "gemm", "none"])
def test_batch_norm(before: str) -> None:
    statistics = {"s": f32(6), "t": f32(6, seed=1), "m": f32(6, seed=2), "v": np.abs(f32(6, seed=3))}
    stride = [2, 2] if before == "patches" else [1, 1]
    first = {
        "conv": [node("Conv", "x w", "a", strides=stride)],
        "patches": [node("Conv", "x w", "a", strides=stride)],
        "gemm": [node("Gemm", "x g", "a", transB=1)],
        "none": [node("Relu", "x", "a")],
    }[before]
    shape = [3, 7] if before == "gemm" else [1, 6, 4, 4]
    nodes = [*first, node("BatchNormalization", "a s t m v", "y")]
    weights = {**statistics, "w": f32(6, 6, 2, 2), "g": f32(6, 7)}
    expected = {"conv": {"Conv"}, "patches": {"Gemm"}, "gemm": {"Gemm"}, "none": {"Relu", "Mul", "Add"}}[before]
    histogram = canonical_form(hand_model(nodes, {"x": shape}, ["y"], weights)).histogram()
    assert set(histogram) - set(MOVEMENT) == expected, histogram


def test_global_pooling() -> None:
    nodes = [node("GlobalAveragePool", "x", "p"), node("Flatten", "p", "f"), node("Relu", "f", "y")]
    assert canonical_form(hand_model(nodes, {"x": [1, 6, 3, 5]}, ["y"])).histogram()["ReduceMean"] == 1


@pytest.mark.parametrize(("axes", "keep"), [([1], 0), ([-1], 1), ([-1, 1], 0), (None, 0), (None, 1), ([0], 1)])
@pytest.mark.parametrize("op_type", ["ReduceMean", "ReduceSum"])
def test_reductions(op_type: str, axes: list[int] | None, keep: int) -> None:
    weights = {} if axes is None else {"axes": np.array(axes)}
    reduction = node(op_type, "x axes" if axes else "x", "y", keepdims=keep)
    model = canonical_form(hand_model([reduction], {"x": [1, 4, 6]}, ["y"], weights))
    for n in model.proto.graph.node:
        if n.op_type == op_type:
            (constant,) = (numpy_helper.to_array(t) for t in model.proto.graph.initializer if t.name == n.input[1])
            assert (constant >= 0).all()


def _fused(cut: Callable[[str], tuple[list[onnx.NodeProto], list[str]]]) -> Model:
    nodes, outputs = cut("p")
    weights: dict[str, np.ndarray] = {"w": f32(12, 8), "b": f32(12, seed=1)}
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
    relus = [node("Relu", o, f"y{i}") for i, o in enumerate(outputs)]
    dense = node("Gemm", "x w b", "p", transB=1)
    return hand_model([dense, *nodes, *relus], {"x": [5, 8]}, [f"y{i}" for i in range(len(outputs))], weights)


def test_fused_layers_are_split() -> None:
    uneven = _fused(lambda p: ([node("Split", f"{p} sizes", "a b1", axis=1)], ["a", "b1"]))
    assert canonical_form(uneven).histogram() == {"Gemm": 2, "Relu": 2}

    def gathers(p: str) -> tuple[list[onnx.NodeProto], list[str]]:
        nodes = [node("Reshape", f"{p} five", "r"), node("Transpose", "r", "t", perm=[2, 0, 1, 3])]
        return nodes + [node("Gather", f"t i{i}", f"g{i}", axis=0) for i in range(3)], ["g0", "g1", "g2"]

    model = canonical_form(_fused(gathers))
    assert model.histogram() == {"Gemm": 3, "Relu": 3, "Reshape": 3}
    one = canonical_form(_fused(lambda p: ([node("Slice", f"{p} four big ax", "s")], ["s"])))  # dead columns go
    assert one.histogram() == {"Gemm": 1, "Relu": 1}
    assert one.macs() == 5 * 8 * 8


def test_fused_layers_that_cannot_be_split_say_why() -> None:
    both = _fused(lambda p: ([node("Slice", f"{p} four big ax", "s")], ["s", p]))
    overlap = canonical_form(both)
    assert overlap.histogram()["Gemm"] == 1
    assert any("p_node" in n and "share" in n for n in overlap.notes)
    rows = canonical_form(_fused(lambda p: ([node("Gather", f"{p} i1", "g", axis=0)], ["g"])))
    assert any("p_node" in n and "rows" in n for n in rows.notes)
    swapped = canonical_form(_fused(lambda p: ([node("Gather", f"{p} list", "g", axis=1)], ["g"])))
    assert any("p_node" in n and "transpose" in n for n in swapped.notes)
