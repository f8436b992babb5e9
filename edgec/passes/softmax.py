# SPDX-License-Identifier: Apache-2.0
"""Softmax as one node over the last axis, however the exporter wrote it."""

from __future__ import annotations

import onnx_ir as ir

from edgec.passes.graph_edit import GraphEdit, array_of, attribute, input_of, is_static, shape_of


def normalize_softmax(edit: GraphEdit) -> None:
    """Make every softmax one Softmax with axis -1.

    Requires: folded constants, static shapes.
    Ensures: exp(x) / sum(exp(x)), with or without x - max(x), is one Softmax; another axis than the last is
        turned to the end by Transposes.
    """
    for node in edit.nodes("Div"):
        found = _match(node)
        if found is not None:
            x, axis = found
            edit.at = node
            name = edit.take_name(node)
            edit.replace(node.outputs[0], edit.emit("Softmax", [x], shape_of(x), name, {"axis": axis}))
    for node in edit.nodes("Softmax"):
        source = node.inputs[0]
        if source is None or not is_static(source):
            continue
        rank = len(shape_of(source))
        axis = int(attribute(node, "axis", -1))
        if "axis" in node.attributes and axis == -1:
            continue
        edit.at = node
        name = edit.take_name(node)
        swap = list(range(rank))
        swap[axis % rank], swap[-1] = swap[-1], swap[axis % rank]
        last = axis % rank == rank - 1
        turned = source if last else edit.transpose(source, swap, f"{name}.in")
        y = edit.emit("Softmax", [turned], shape_of(turned), name, {"axis": -1})
        edit.replace(node.outputs[0], y if last else edit.transpose(y, swap, f"{name}.out"))


def _match(node: ir.Node) -> tuple[ir.Value, int] | None:
    """(x, axis) when `node` divides exp(x) by its own sum along one axis."""
    exp, total = (None if v is None else v.producer() for v in node.inputs)
    if exp is None or total is None or exp.op_type != "Exp" or total.op_type != "ReduceSum":
        return None
    axes = array_of(input_of(total, 1))
    if total.inputs[0] is not node.inputs[0] or axes is None or axes.size != 1 or not attribute(total, "keepdims", 1):
        return None
    x = exp.inputs[0]
    if x is None or not is_static(x):
        return None
    axis = int(axes.reshape(-1)[0]) % len(shape_of(x))
    return _without_maximum(x, axis), axis


def _without_maximum(x: ir.Value, axis: int) -> ir.Value:
    """z when `x` is z - max(z) along the axis: softmax subtracts the maximum by itself."""
    node = x.producer()
    if node is None or node.op_type != "Sub" or node.inputs[0] is None or node.inputs[1] is None:
        return x
    maximum = node.inputs[1].producer()
    if maximum is None or maximum.op_type != "ReduceMax" or maximum.inputs[0] is not node.inputs[0]:
        return x
    axes = array_of(input_of(maximum, 1))
    same = axes is not None and [int(a) % len(shape_of(x)) for a in axes.reshape(-1)] == [axis]
    return node.inputs[0] if same and attribute(maximum, "keepdims", 1) else x
