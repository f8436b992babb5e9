# SPDX-License-Identifier: Apache-2.0
"""What int8 takes, and the one error that lists all that it does not."""

from __future__ import annotations

import numpy as np
import pytest
from canonical_form import (
    canonical_form,
    f32,
    hand_model,
    node,
)
from onnx import TensorProto, helper

from edgec.errors import UnsupportedError, UsageError
from edgec.passes.canonicalize import canonicalize
from edgec.passes.support import require_supported, unsupported_nodes


def test_everything_unsupported_is_listed_at_once() -> None:
    nodes = [
        node("LpPool", "x", "a", kernel_shape=[2, 2]),
        node("GatherElements", "a list", "c", axis=1),
        node("Hardmax", "c", "d"),
        node("Relu", "d", "y"),
    ]
    weights = {"list": np.zeros((1, 2, 3, 3), np.int64)}
    model = canonical_form(hand_model(nodes, {"x": [1, 2, 8, 8]}, ["y"], weights))
    found = unsupported_nodes(model)
    assert [(u.node, u.op_type) for u in found] == [
        ("a_node", "LpPool"),
        ("c_node", "GatherElements"),
        ("d_node", "Hardmax"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        require_supported(model, "int8")
    text = str(caught.value)
    assert caught.value.exit_code == 3
    for u in found:
        assert u.node in text
        assert u.nearest in text
    assert "3 nodes" in text
    require_supported(model, "float32")
    with pytest.raises(UsageError, match="int4"):
        require_supported(model, "int4")


def test_half_precision_is_refused() -> None:
    nodes = [node("Cast", "x", "h", to=TensorProto.FLOAT16), node("Relu", "h", "r")]
    nodes.append(node("Cast", "r", "y", to=TensorProto.FLOAT))
    found = unsupported_nodes(canonicalize(hand_model(nodes, {"x": [1, 4]}, ["y"])))
    assert [u.op_type for u in found] == ["Cast", "Relu", "Cast"]
    assert "float32" in found[1].nearest


def test_bodies_of_control_flow_are_left_alone_and_listed() -> None:
    """What an If reads from outside is not rewritten in its bodies; the If is one unsupported node."""
    bodies = {
        name: helper.make_graph(
            [helper.make_node("Mul", ["n", "g"], ["m"]), helper.make_node(op_type, ["m"], ["r"])],
            name,
            [],
            [helper.make_tensor_value_info("r", TensorProto.FLOAT, [5, 12])],
        )
        for name, op_type in {"then_branch": "Relu", "else_branch": "Neg"}.items()
    }
    nodes = [
        node("Gemm", "x w", "p", transB=1),
        node("Sigmoid", "p", "n"),
        node("ReduceMax", "p", "top", keepdims=0),
        node("Cast", "top", "choice", to=TensorProto.BOOL),
        node("If", "choice", "i", **bodies),
        node("Slice", "p from to last", "s"),
        node("Add", "i p", "y"),
    ]
    weights = {
        "w": f32(12, 8),
        "g": f32(12),
        "from": np.array([4]),
        "to": np.array([8]),
        "last": np.array([1]),
    }
    model = canonical_form(hand_model(nodes, {"x": [5, 8]}, ["y", "s"], weights))
    assert model.histogram()["If"] == 1
    assert [u.op_type for u in unsupported_nodes(model)] == ["Cast", "If"]
