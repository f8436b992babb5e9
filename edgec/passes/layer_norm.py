# SPDX-License-Identifier: Apache-2.0
"""LayerNorm as one node (Ba et al. 2016), however the exporter wrote it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import GraphEdit, array_of, attribute, input_of, is_static, shape_of
from edgec.passes.moments import affine_after, deviation_of, inverse_deviation_of, mean_of, squared_of


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
    pairs = (
        [(a, deviation_of(b))]
        if node.op_type == "Div"
        else [(a, inverse_deviation_of(b)), (b, inverse_deviation_of(a))]
    )
    for d, variance in pairs:
        if d is None or variance is None:
            continue
        center = _centered(d)
        spread = mean_of(variance[0])
        if center is None or spread is None or spread[1] != center[1]:
            continue
        square = squared_of(spread[0])
        again = None if square is None else _centered(square)
        if again is not None and again[0] is center[0] and again[1] == center[1]:
            return _Normalized(center[0], center[1], variance[1])
    return None


def _centered(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """(x, dims) when `value` is x - mean(x)."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Sub":
        return None
    mean = mean_of(node.inputs[1])
    return mean if mean is not None and mean[0] is node.inputs[0] else None


def _fuse(edit: GraphEdit, node: ir.Node, found: _Normalized) -> None:
    shape = shape_of(found.x)
    normalized = shape[len(shape) - found.dims :]
    last, scale = affine_after(node, "Mul", normalized)
    if scale is None:
        scale = np.ones(normalized)
    last, bias = affine_after(last, "Add", normalized)
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
    lead = [1] * (scale.ndim + len(shape))  # scale and bias may have leading axes of 1
    try:
        full = [np.broadcast_to(0.0 if a is None else a, lead + list(normalized)).reshape(size) for a in (scale, bias)]
    except ValueError:
        edit.decline(node, "its scale or bias is not one of its elements")
        return
    edit.at = node
    name = edit.take_name(node)
    flat = edit.reshape(x, (*shape[:axis], size), f"{name}.in")
    y = edit.emit(
        "LayerNormalization",
        [flat, edit.constant(full[0], f"{name}.scale"), edit.constant(full[1], f"{name}.bias")],
        shape_of(flat),
        name,
        {"axis": -1, "epsilon": float(attribute(node, "epsilon", 1e-5))},
    )
    edit.replace(out, edit.reshape(y, shape, f"{name}.out"))
