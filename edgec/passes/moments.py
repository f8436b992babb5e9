# SPDX-License-Identifier: Apache-2.0
"""Means, squares and deviations in the forms in which exporters write them: what normalizations are made of."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import (
    Array,
    array_of,
    attribute,
    binary,
    input_of,
    is_static,
    only_consumer,
    scalar_of,
    shape_of,
)


def deviation_of(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """(variance, epsilon) when `value` is sqrt(variance + epsilon)."""
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Sqrt" or (node.op_type == "Pow" and scalar_of(node.inputs[1]) == 0.5):
        return _shifted(node.inputs[0])
    return None


def _shifted(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """(v, epsilon) when `value` is v + epsilon."""
    node = None if value is None else value.producer()
    found = binary(node, scalar_of) if node is not None and node.op_type == "Add" else None
    return found if found is not None and found[1] >= 0 else None


def inverse_deviation_of(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """(variance, epsilon) when `value` is 1 / sqrt(variance + epsilon)."""
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Pow" and scalar_of(node.inputs[1]) == -0.5:
        return _shifted(node.inputs[0])
    if node.op_type == "Reciprocal":
        return deviation_of(node.inputs[0])
    if node.op_type == "Div" and scalar_of(node.inputs[0]) == 1.0:
        return deviation_of(node.inputs[1])
    return None


def mean_of(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """(x, dims) when `value` is the mean of x over its last `dims` axes, kept as 1."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "ReduceMean" or node.inputs[0] is None or not is_static(node.inputs[0]):
        return None
    x = node.inputs[0]
    rank = len(shape_of(x))
    axes = array_of(input_of(node, 1))
    if axes is None or not attribute(node, "keepdims", 1):
        return None
    found = sorted(int(i) % rank for i in axes.reshape(-1))
    return (x, len(found)) if found and found == list(range(rank - len(found), rank)) else None


def squared_of(value: ir.Value | None) -> ir.Value | None:
    """x when `value` is x * x."""
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Pow" and scalar_of(node.inputs[1]) == 2.0:
        return node.inputs[0]
    return node.inputs[0] if node.op_type == "Mul" and node.inputs[0] is node.inputs[1] else None


def affine_after(node: ir.Node, op_type: str, normalized: tuple[int, ...]) -> tuple[ir.Node, Array | None]:
    """The following Mul or Add with a constant that varies along the normalized axes only."""
    follower = only_consumer(node.outputs[0])
    if follower is None or follower.op_type != op_type:
        return node, None
    found = binary(follower, array_of)
    if found is None or shape_of(follower.outputs[0]) != shape_of(node.outputs[0]):
        return node, None
    array = found[1]
    lead = array.ndim - len(normalized)
    if lead > 0 and any(d != 1 for d in array.shape[:lead]):
        return node, None
    return follower, np.broadcast_to(array.reshape(array.shape[max(0, lead) :]), normalized).astype(np.float32)
