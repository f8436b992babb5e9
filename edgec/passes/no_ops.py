# SPDX-License-Identifier: Apache-2.0
"""Nodes that hand on their input unchanged."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import GraphEdit, array_of, attribute, input_of, is_static, scalar_of, shape_of


def remove_no_ops(edit: GraphEdit) -> None:
    """Remove Identity, Dropout, casts to the same type, neutral constants, full slices, NaN guards.

    Requires: folded constants.
    Ensures: none of these nodes is left, except an Identity whose input is an input of the graph.
    """
    for node in edit.nodes():
        x = _passed_on(node)
        if x is None or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
            continue
        out = node.outputs[0]
        if out.is_graph_output() and (x.producer() is None or x.is_graph_output()):
            continue  # an output needs a node of its own
        edit.at = node
        edit.replace(out, x)


def _passed_on(node: ir.Node) -> ir.Value | None:
    """The input that `node` hands on, None when it computes something."""
    x, out = input_of(node, 0), node.outputs[0]
    if x is None:
        return None
    if node.op_type == "Identity":
        return x
    if node.op_type == "Dropout":
        training = input_of(node, 2)
        flag = array_of(training)
        return x if training is None or (flag is not None and not flag.any()) else None
    if node.op_type == "Where":
        return _chosen(node)
    if node.op_type in ("Max", "Min", "Sum", "Mean", "Concat") and len(node.inputs) == 1:
        return x
    if not (is_static(x) and is_static(out)):
        return None
    if node.op_type == "CastLike":
        like = input_of(node, 1)
        return x if like is not None and x.dtype is not None and x.dtype == like.dtype else None
    if node.op_type == "Cast":
        return x if x.dtype is not None and int(x.dtype) == int(attribute(node, "to", 0)) else None
    if node.op_type in ("Add", "Sub", "Mul", "Div"):
        return _without_neutral(node, out)
    if shape_of(x) != shape_of(out):
        return None
    if node.op_type in ("Expand", "Tile", "Reshape", "Squeeze", "Unsqueeze", "Flatten"):
        return x
    if node.op_type == "Slice":
        steps = array_of(input_of(node, 4)) if input_of(node, 4) is not None else np.ones(1)
        return x if steps is not None and (steps == 1).all() else None
    if node.op_type == "Pad":
        pads = array_of(input_of(node, 1))
        return x if pads is not None and not pads.any() else None
    if node.op_type == "Transpose":
        perm = attribute(node, "perm", None)
        return x if perm is not None and list(perm) == sorted(perm) else None
    return None


def _without_neutral(node: ir.Node, out: ir.Value) -> ir.Value | None:
    neutral = 0 if node.op_type in ("Add", "Sub") else 1
    sides = [(0, 1)] if node.op_type in ("Sub", "Div") else [(0, 1), (1, 0)]
    for i, j in sides:
        x, array = node.inputs[i], array_of(node.inputs[j])
        if x is not None and array is not None and array.size and is_static(x) and (array == neutral).all():
            return x if shape_of(x) == shape_of(out) else None
    return None


def _chosen(node: ir.Node) -> ir.Value | None:
    """The operand that a Where always takes.

    Either its condition is constant, or it guards a softmax that cannot be NaN: exporters write
    Where(IsNaN(Softmax(s)), 0, Softmax(s)) for masks that hide whole rows, and s is finite without one.
    """
    condition, other, value = node.inputs
    constant, test = array_of(condition), None if condition is None else condition.producer()
    if constant is not None and (constant.all() or not constant.any()):
        taken = other if constant.all() else value
        same = is_static(taken) and is_static(node.outputs[0]) and taken is not None
        return taken if same and taken is not None and shape_of(taken) == shape_of(node.outputs[0]) else None
    softmax = None if value is None else value.producer()
    if test is None or test.op_type != "IsNaN" or test.inputs[0] is not value or scalar_of(other) != 0.0:
        return None
    return value if softmax is not None and softmax.op_type == "Softmax" and _finite(softmax.inputs[0]) else None


def _finite(value: ir.Value | None) -> bool:
    """Whether `value` is finite for finite inputs as far as its nearest producers say (no -inf mask)."""
    for _ in range(16):
        node = None if value is None else value.producer()
        if node is None or node.op_type in ("MatMul", "Gemm"):
            return value is not None
        if node.op_type not in ("Add", "Mul", "Div", "Sub", "Reshape", "Transpose", "Unsqueeze", "Squeeze"):
            return False
        constants = [array_of(v) for v in node.inputs]
        if any(c is not None and c.dtype.kind == "f" and not np.isfinite(c).all() for c in constants):
            return False
        activations = [v for v in node.inputs if v is not None and array_of(v) is None]
        if len(activations) != 1:
            return False
        value = activations[0]
    return False
