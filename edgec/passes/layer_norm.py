# SPDX-License-Identifier: Apache-2.0
"""LayerNorm as one node (Ba et al. 2016), however the exporter wrote it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import (
    Array,
    GraphEdit,
    array_of,
    attribute,
    binary,
    input_of,
    is_static,
    only_consumer,
    scalar_of,
    shape_of,
)


@dataclass
class _Normalized:
    x: ir.Value
    dims: int  # how many trailing axes are normalized over
    epsilon: float


def fuse_layer_norm(edit: GraphEdit) -> None:
    """Make every LayerNorm one LayerNormalization over the last axis with scale and bias initializers.

    Requires: folded constants, static shapes.
    Ensures: decomposed forms (mean, difference, variance, square root, quotient, scale, shift) are single
        nodes; axis is -1 (more axes are flattened by Reshape), scale and bias are initializers of that
        length.
    """
    for node in edit.nodes("Div", "Mul"):
        if is_static(node.outputs[0]):
            found = _match(node)
            if found is not None:
                _fuse(edit, node, found)
    for node in edit.nodes("LayerNormalization"):
        _normalize(edit, node)


def _match(node: ir.Node) -> _Normalized | None:
    """`node` is d / sqrt(v + eps) or d * (1 / sqrt(v + eps)), d = x - mean(x), v = mean(d*d)."""
    a, b = node.inputs[0], node.inputs[1]
    pairs = [(a, _std(b))] if node.op_type == "Div" else [(a, _inverse_std(b)), (b, _inverse_std(a))]
    for d, variance in pairs:
        if d is None or variance is None:
            continue
        center = _centered(d)
        spread = _mean(variance[0])
        if center is None or spread is None or spread[1] != center[1]:
            continue
        square = _squared(spread[0])
        again = None if square is None else _centered(square)
        if again is not None and again[0] is center[0] and again[1] == center[1]:
            return _Normalized(center[0], center[1], variance[1])
    return None


def _std(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """(variance, epsilon) when `value` is sqrt(variance + epsilon)."""
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Sqrt" or (node.op_type == "Pow" and scalar_of(node.inputs[1]) == 0.5):
        inner = None if node.inputs[0] is None else node.inputs[0].producer()
        found = binary(inner, scalar_of) if inner is not None and inner.op_type == "Add" else None
        return found if found is not None and found[1] >= 0 else None
    return None


def _inverse_std(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Reciprocal":
        return _std(node.inputs[0])
    if node.op_type == "Div" and scalar_of(node.inputs[0]) == 1.0:
        return _std(node.inputs[1])
    return None


def _mean(value: ir.Value | None) -> tuple[ir.Value, int] | None:
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


def _centered(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """(x, dims) when `value` is x - mean(x)."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Sub":
        return None
    mean = _mean(node.inputs[1])
    return mean if mean is not None and mean[0] is node.inputs[0] else None


def _squared(value: ir.Value | None) -> ir.Value | None:
    node = None if value is None else value.producer()
    if node is None:
        return None
    if node.op_type == "Pow" and scalar_of(node.inputs[1]) == 2.0:
        return node.inputs[0]
    return node.inputs[0] if node.op_type == "Mul" and node.inputs[0] is node.inputs[1] else None


def _fuse(edit: GraphEdit, node: ir.Node, found: _Normalized) -> None:
    shape = shape_of(found.x)
    normalized = shape[len(shape) - found.dims :]
    last, scale = _affine(node, "Mul", normalized)
    if scale is None:
        scale = np.ones(normalized)
    last, bias = _affine(last, "Add", normalized)
    if bias is None:
        bias = np.zeros(normalized)
    edit.at = last
    name = f"{node.name}.layer_norm" if node.name else "layer_norm"
    out = edit.emit(
        "LayerNormalization",
        [found.x, edit.constant(scale, f"{name}.scale"), edit.constant(bias, f"{name}.bias")],
        shape,
        name,
        {"axis": -found.dims, "epsilon": found.epsilon},
    )
    edit.replace(last.outputs[0], out)


def _affine(node: ir.Node, op_type: str, normalized: tuple[int, ...]) -> tuple[ir.Node, Array | None]:
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


def _normalize(edit: GraphEdit, node: ir.Node) -> None:
    x, out = node.inputs[0], node.outputs[0]
    scale, bias = array_of(input_of(node, 1)), array_of(input_of(node, 2))
    if x is None or not is_static(x):
        return
    if scale is None or (bias is None and input_of(node, 2) is not None):
        edit.decline(node, "scale or bias is not a constant")
        return
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        edit.decline(node, "its mean or deviation is read by another node")
        return
    shape = shape_of(x)
    axis = int(attribute(node, "axis", -1)) % len(shape)
    normalized = shape[axis:]
    size = math.prod(normalized)
    canonical = bias is not None and scale.shape == bias.shape == (size,) and attribute(node, "axis", None) == -1
    if canonical and len(node.outputs) == 1:
        return
    edit.at = node
    name = edit.take_name(node)
    full = [np.broadcast_to(0.0 if a is None else a, normalized).reshape(size) for a in (scale, bias)]
    flat = edit.reshape(x, (*shape[:axis], size), f"{name}.in")
    y = edit.emit(
        "LayerNormalization",
        [flat, edit.constant(full[0], f"{name}.scale"), edit.constant(full[1], f"{name}.bias")],
        shape_of(flat),
        name,
        {"axis": -1, "epsilon": float(attribute(node, "epsilon", 1e-5))},
    )
    edit.replace(out, edit.reshape(y, shape, f"{name}.out"))
