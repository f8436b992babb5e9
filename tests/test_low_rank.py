# SPDX-License-Identifier: Apache-2.0
"""Products of factors: folded where one layer is cheaper, kept where it is not, the same function in both cases."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from canonical_form import canonical_form, f32, hand_model, node, run
from onnx import numpy_helper

from edgec.model import Model
from edgec.passes.canonicalize import canonicalize

ROWS = 5


def chain(widths: list[int], bias: bool = True, tail: str = "Relu", **more: np.ndarray) -> Model:
    """Dense layers of these widths in a row, an activation behind them."""
    nodes, weights, value = [], dict(more), "x"
    for i, (k, n) in enumerate(itertools.pairwise(widths)):
        weights[f"w{i}"] = f32(n, k, seed=i) * np.float32(k**-0.5)
        names = f"{value} w{i}"
        if bias:
            weights[f"b{i}"] = f32(n, seed=10 + i)
            names += f" b{i}"
        nodes.append(node("Gemm", names, f"v{i}", transB=1))
        value = f"v{i}"
    return hand_model([*nodes, node(tail, value, "y")], {"x": [ROWS, widths[0]]}, ["y"], weights)


def layers(model: Model) -> list[tuple[int, int]]:
    """(inputs, outputs) of every dense layer."""
    shapes = {t.name: tuple(t.dims) for t in model.proto.graph.initializer}
    return [(shapes[n.input[1]][1], shapes[n.input[1]][0]) for n in model.proto.graph.node if n.op_type == "Gemm"]


def fewest(widths: list[int]) -> int:
    """Multiply-accumulates of a row in the best of all ways to multiply neighbours."""
    inner = widths[1:-1]
    kept = itertools.product([False, True], repeat=len(inner))
    ways = ([widths[0], *itertools.compress(inner, k), widths[-1]] for k in kept)
    return min(sum(a * b for a, b in itertools.pairwise(way)) for way in ways)


@pytest.mark.parametrize(
    "widths",
    [
        [64, 58, 58, 64], [64, 10, 10, 64], [64, 40, 40, 192], [64, 50, 50, 192], [64, 57, 57, 256], [64, 20, 64],
        [64, 40, 64], [64, 32, 64], [7, 5, 3], [96, 4, 50, 3, 80], [16, 24, 96], [10, 1, 10, 1, 10], [3, 9, 9, 9, 2],
    ],
)  # fmt: skip
@pytest.mark.parametrize("bias", [False, True])
def test_the_cheapest_product(widths: list[int], bias: bool) -> None:
    model = canonical_form(chain(widths, bias))  # judged by ONNX Runtime
    found = layers(model)
    assert sum(k * n for k, n in found) == fewest(widths)
    assert found[0][0] == widths[0]
    assert found[-1][1] == widths[-1]
    assert len(model.notes) == 1


@pytest.mark.parametrize(("outputs", "threshold"), [(1000, 0.414), (3000, 0.646), (4000, 0.702)])
def test_break_even_of_three_factors(outputs: int, threshold: float) -> None:
    """The ratios of the paper's three factors at which a product costs as much."""
    for ratio, cheaper in ((threshold - 0.001, False), (threshold + 0.001, True)):
        rank = round(1000 * ratio)
        assert (1000 * outputs < rank * (1000 + rank + outputs)) == cheaper


def test_folded_layer_is_the_product_with_all_biases() -> None:
    model = chain([32, 30, 29, 31])
    given = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.proto.graph.initializer}
    got = canonicalize(model)
    constants = {t.name: numpy_helper.to_array(t) for t in got.proto.graph.initializer}
    (gemm,) = (n for n in got.proto.graph.node if n.op_type == "Gemm")
    product = given["w2"] @ given["w1"] @ given["w0"]
    bias = given["w2"] @ (given["w1"] @ given["b0"] + given["b1"]) + given["b2"]
    np.testing.assert_allclose(constants[gemm.input[1]], product, rtol=0, atol=1e-6)
    np.testing.assert_allclose(constants[gemm.input[2]], bias, rtol=0, atol=1e-5)
    x = f32(ROWS, 32, seed=5)
    np.testing.assert_allclose(run(got.proto, {"x": x})[0], run(model.proto, {"x": x})[0], atol=1e-4)


def test_notes_count_both() -> None:
    def numbers(note: str) -> list[int]:
        return [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:MAC|B)\b", note)]

    (note,) = canonicalize(chain([64, 58, 58, 64])).notes
    assert "folded to one dense layer" in note
    before = 64 * 58 * 2 + 58 * 58
    assert numbers(note) == [ROWS * 4096, 4096 + 8 * 64, ROWS * before, before + 8 * (58 + 58 + 64)]
    (note,) = canonicalize(chain([64, 20, 64])).notes
    assert "left as 2 layers" in note
    assert numbers(note) == [ROWS * 2560, 2560 + 8 * 84, ROWS * 4096, 4096 + 8 * 64]
    (note,) = canonicalize(chain([64, 20, 20, 64])).notes
    assert "folded to 2 dense layers" in note


def test_factors_that_others_read_stay() -> None:
    weights = {"a": f32(30, 32), "b": f32(32, 30, seed=1), "c": f32(31, 30, seed=2)}
    for second in ("Relu", "Gemm"):
        nodes = [node("Gemm", "x a", "h", transB=1), node("Gemm", "h b", "p", transB=1)]
        nodes.append(node("Gemm", "h c", "q", transB=1) if second == "Gemm" else node("Relu", "h", "q"))
        model = canonical_form(hand_model([*nodes, node("Relu", "p", "y")], {"x": [ROWS, 32]}, ["y", "q"], weights))
        assert (32, 30) in layers(model)
        assert not model.notes


def test_an_output_between_them_stays() -> None:
    nodes = [node("Gemm", "x a", "h", transB=1), node("Gemm", "h b", "y", transB=1)]
    model = hand_model(nodes, {"x": [ROWS, 32]}, ["h", "y"], {"a": f32(30, 32), "b": f32(32, 30)})
    assert len(layers(canonical_form(model))) == 2


def test_weights_that_are_used_twice_stay() -> None:
    """Their bytes would remain beside the product's."""
    nodes = [node("Gemm", "x w", "h", transB=1), node("Gemm", "h w", "y", transB=1)]
    assert len(layers(canonical_form(hand_model(nodes, {"x": [ROWS, 32]}, ["y"], {"w": f32(32, 32)})))) == 2


def test_an_activation_between_them_stays() -> None:
    nodes = [node("Gemm", "x a", "h", transB=1), node("Relu", "h", "r"), node("Gemm", "r b", "y", transB=1)]
    model = hand_model(nodes, {"x": [ROWS, 32]}, ["y"], {"a": f32(30, 32), "b": f32(32, 30)})
    assert len(layers(canonical_form(model))) == 2


def test_products_of_stacks_and_sequences() -> None:
    nodes = [node("MatMul", "x a", "h"), node("Add", "h c", "k"), node("MatMul", "k b", "p"), node("Relu", "p", "y")]
    weights = {"a": f32(32, 30), "b": f32(30, 32, seed=1), "c": f32(30, seed=2)}
    model = canonical_form(hand_model(nodes, {"x": [2, 3, 32]}, ["y"], weights))
    assert layers(model) == [(32, 32)]


@pytest.mark.parametrize(("inner", "count"), [(12, 1), (2, 2)])
def test_pointwise_convolutions(inner: int, count: int) -> None:
    nodes = [node("Conv", "x a p", "h"), node("Conv", "h b q", "r"), node("Relu", "r", "y")]
    weights = {"a": f32(inner, 8, 1, 1), "b": f32(9, inner, 1, 1, seed=1), "p": f32(inner), "q": f32(9)}
    model = canonical_form(hand_model(nodes, {"x": [1, 8, 5, 4]}, ["y"], weights))
    assert len(layers(model)) == count


def test_rows_that_move_between_them_stay() -> None:
    nodes = [
        node("Gemm", "x a", "h", transB=1),
        node("Transpose", "h", "t", perm=[1, 0]),
        node("Gemm", "t b", "y", transB=1),
    ]
    model = hand_model(nodes, {"x": [32, 32]}, ["y"], {"a": f32(32, 32), "b": f32(32, 32, seed=1)})
    assert len(layers(canonical_form(model))) == 2


def test_a_product_that_float32_cannot_hold_stays() -> None:
    weights = {"a": f32(30, 32) * np.float32(1e-30), "b": f32(32, 30, seed=1) * np.float32(1e30)}
    nodes = [node("Gemm", "x a", "h", transB=1), node("Gemm", "h b", "y", transB=1)]
    model = hand_model(nodes, {"x": [ROWS, 32]}, ["y"], weights)
    assert len(layers(canonical_form(model))) == 1
    huge = {"a": f32(30, 32) * np.float32(1e25), "b": f32(32, 30, seed=1) * np.float32(1e25)}
    model = hand_model(nodes, {"x": [ROWS, 32]}, ["y"], huge)
    assert len(layers(canonicalize(model))) == 2
