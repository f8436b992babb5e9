# SPDX-License-Identifier: Apache-2.0
"""Sums of a tensor times constants become products and convolutions: ONNX Runtime computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from canonical_form import feeds_of, run
from onnx import TensorProto, helper, numpy_helper

from edgec.model import Model
from edgec.passes.canonicalize import canonicalize


def weighted(
    shape: tuple[int, ...], weights: tuple[int, ...], axes: list[int], keep: int, *, twice: bool = False
) -> Model:
    """y = sum over axes of x * w; with `twice` the product is an output too."""
    rng = np.random.default_rng(len(shape) + sum(axes))
    result = np.zeros(shape).sum(axis=tuple(axes), keepdims=bool(keep)).shape
    nodes = [
        helper.make_node("Mul", ["w", "x"], ["p"]),
        helper.make_node("ReduceSum", ["p", "axes"], ["y"], keepdims=keep),
    ]
    ends = {"y": result, **({"p": shape} if twice else {})}
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ends.items()],
        [
            numpy_helper.from_array(rng.normal(size=weights).astype(np.float32), "w"),
            numpy_helper.from_array(np.array(axes, np.int64), "axes"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    return Model(proto, "sum", "0" * 64)


def operators_after(model: Model) -> set[str]:
    canonical, feeds = canonicalize(model), feeds_of(model)
    for got, want in zip(run(canonical.proto, feeds), run(model.proto, feeds), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    return {n.op_type for n in canonical.proto.graph.node} - {"Reshape", "Transpose", "Squeeze", "Unsqueeze"}


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize(
    ("shape", "weights", "axis", "becomes"),
    [
        ((1, 5, 3), (5, 3), 1, "Conv"),
        ((1, 3, 5), (3, 5), -1, "Conv"),
        ((1, 5, 3), (1, 5, 1), 1, "MatMul"),
        ((1, 3, 5), (5,), 2, "MatMul"),
        ((1, 2, 5, 3), (5, 1), 2, "MatMul"),
        ((1, 6), (6,), 1, "MatMul"),
        ((1, 5, 1), (5, 1), 1, "MatMul"),
    ],
    ids=str,
)
def test_one_axis(shape: tuple[int, ...], weights: tuple[int, ...], axis: int, becomes: str, keep: int) -> None:
    found = operators_after(weighted(shape, weights, [axis], keep))
    assert found <= ({"Conv"} if becomes == "Conv" else {"MatMul", "Gemm"})


@pytest.mark.parametrize(
    ("shape", "weights", "axes"),
    [((2, 5, 3), (5, 3), [1]), ((1, 2, 5, 3), (2, 5, 3), [2]), ((1, 5, 3), (5, 3), [1, 2])],
)
def test_what_stays(shape: tuple[int, ...], weights: tuple[int, ...], axes: list[int]) -> None:
    assert operators_after(weighted(shape, weights, axes, 0)) == {"Mul", "ReduceSum"}


def test_a_product_that_others_read_stays() -> None:
    assert operators_after(weighted((1, 5, 3), (5, 3), [1], 0, twice=True)) == {"Mul", "ReduceSum"}
