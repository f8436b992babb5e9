# SPDX-License-Identifier: Apache-2.0
"""Dense layers in one form: Gemm on [rows, inputs] with weights [outputs, inputs] and a bias."""

from __future__ import annotations

import math

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
    shape_of,
)


def normalize_dense(edit: GraphEdit) -> None:
    """Make products with constant weights Gemm in one form, and Gemm of two activations MatMul.

    Requires: folded constants, static shapes.
    Ensures: Gemm has transA=0, transB=1, alpha=beta=1, weight initializer [N, K], bias initializer [N] (zeros
        when there was none), with Reshapes around it where the model had more axes; a constant added to its
        output is in its bias.
    """
    for node in edit.nodes("MatMul"):
        _from_matmul(edit, node)
    for node in edit.nodes("Gemm"):
        _from_gemm(edit, node)
    for node in edit.nodes("Add", "Sub"):
        _absorb_bias(edit, node)


def _from_matmul(edit: GraphEdit, node: ir.Node) -> None:
    a, b, out = node.inputs[0], node.inputs[1], node.outputs[0]
    if a is None or b is None or not (is_static(a) and is_static(b) and is_static(out)):
        return
    left, right = array_of(a), array_of(b)
    if right is not None and left is None:
        weight = _matrix(right)
        if weight is None:
            edit.decline(node, "its constant operand differs along the batch axes")
            return
        edit.at = node
        name = edit.take_name(node)
        edit.replace(out, edit.reshape(_dense(edit, a, weight.T, None, name), shape_of(out), f"{name}.out"))
    elif left is not None and right is None:
        weight = _matrix(left)
        if weight is None or len(shape_of(b)) < 2:
            edit.decline(node, "its constant operand differs along the batch axes")
            return
        edit.at = node  # W x = (x^T W^T)^T
        name = edit.take_name(node)
        rank = len(shape_of(b))
        swap = [*range(rank - 2), rank - 1, rank - 2]
        turned = edit.transpose(b, swap, f"{name}.columns")
        wide = edit.reshape(
            _dense(edit, turned, weight, None, name), [*shape_of(turned)[:-1], len(weight)], f"{name}.wide"
        )
        back = edit.transpose(wide, swap, f"{name}.rows")
        edit.replace(out, edit.reshape(back, shape_of(out), f"{name}.out"))


def _matrix(array: Array) -> Array | None:
    """A constant operand of MatMul as [K, N]; None when it is a stack of different matrices."""
    if array.ndim == 1:
        return array.reshape(-1, 1)
    return array.reshape(array.shape[-2:]) if math.prod(array.shape[:-2]) == 1 else None


def _dense(edit: GraphEdit, x: ir.Value, weight: Array, bias: Array | None, name: str) -> ir.Value:
    """Gemm of x [..., K] by weight [N, K]: the output is [rows, N]."""
    outputs, inputs = weight.shape
    rows = math.prod(shape_of(x)[:-1])
    operands = [
        edit.reshape(x, [rows, inputs], f"{name}.in"),
        edit.constant(weight, f"{name}.weight"),
        edit.constant(np.zeros(outputs) if bias is None else bias, f"{name}.bias"),
    ]
    return edit.emit("Gemm", operands, [rows, outputs], name, {"transB": 1})


def _from_gemm(edit: GraphEdit, node: ir.Node) -> None:
    a, b, c, out = node.inputs[0], node.inputs[1], input_of(node, 2), node.outputs[0]
    if a is None or b is None or not (is_static(a) and is_static(out)):
        return
    weight, addend = array_of(b), array_of(c)
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    trans_a, trans_b = attribute(node, "transA", 0), attribute(node, "transB", 0)
    rows, outputs = shape_of(out)
    if array_of(a) is not None or not (math.isfinite(alpha) and math.isfinite(beta)):
        edit.decline(node, "its first operand is a constant, or alpha or beta is not finite")
        return
    if weight is None and _is_quantized(b):
        edit.decline(node, "its weights are quantized already")
        return
    edit.at = node
    if weight is None:
        name = edit.take_name(node)
        left = edit.transpose(a, [1, 0], f"{name}.a") if trans_a else a
        right = edit.transpose(b, [1, 0], f"{name}.b") if trans_b else b
        y = edit.emit("MatMul", [left, right], [rows, outputs], name)
        y = _scaled(edit, y, alpha, f"{name}.alpha")
    else:
        folds = c is None or (addend is not None and (addend.ndim < 2 or addend.shape[0] == 1))
        bias = np.zeros(outputs)
        if folds and addend is not None:
            bias = np.broadcast_to(beta * addend.reshape(-1), (outputs,))
        same = alpha == beta == 1 and not trans_a and trans_b and addend is not None and addend.shape == (outputs,)
        if same:
            for default in ("alpha", "beta", "transA"):
                node.attributes.pop(default, None)
            return
        name = edit.take_name(node)
        left = edit.transpose(a, [1, 0], f"{name}.a") if trans_a else a
        y = _dense(edit, left, alpha * (weight if trans_b else weight.T), bias, name)
        if folds:
            c = None
    if c is not None:
        y = edit.emit("Add", [y, _scaled(edit, c, beta, f"{name}.beta")], [rows, outputs], f"{name}.sum")
    edit.replace(out, y)


def _is_quantized(value: ir.Value) -> bool:
    """Whether `value` is a constant behind DequantizeLinear: the weights of a quantized model."""
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear" and array_of(node.inputs[0]) is not None


def _scaled(edit: GraphEdit, x: ir.Value, factor: float, name: str) -> ir.Value:
    if factor == 1.0:
        return x
    return edit.emit("Mul", [x, edit.constant(np.float32(factor), f"{name}.factor")], shape_of(x), name)


def _absorb_bias(edit: GraphEdit, node: ir.Node) -> None:
    """y + c with y the output of a Gemm (behind a Reshape, maybe) and c constant along the rows."""
    found = binary(node, array_of) if node.op_type == "Add" else None
    if node.op_type == "Sub" and node.inputs[0] is not None and array_of(node.inputs[1]) is not None:
        negative = array_of(node.inputs[1])
        found = None if negative is None else (node.inputs[0], -negative)
    if found is None:
        return
    y, addend = found
    if not is_static(y) or shape_of(y) != shape_of(node.outputs[0]):
        return
    outputs = shape_of(y)[-1] if shape_of(y) else 1
    if addend.size not in (1, outputs) or (addend.size > 1 and addend.shape[-1] != outputs):
        return
    source, view = y, y.producer()
    if view is not None and view.op_type == "Reshape" and view.inputs[0] is not None:
        source = view.inputs[0]
        if only_consumer(y) is not node or shape_of(source)[-1:] != (outputs,):
            return
    gemm = source.producer()
    if gemm is None or gemm.op_type != "Gemm" or only_consumer(source) is None or not attribute(gemm, "transB", 0):
        return
    bias, weight = array_of(input_of(gemm, 2)), array_of(gemm.inputs[1])
    if bias is None or weight is None or bias.shape != (outputs,) or weight.shape[0] != outputs:
        return
    edit.at = gemm
    name = edit.take_name(gemm)
    total = edit.constant(bias + np.broadcast_to(addend.reshape(-1), (outputs,)), f"{name}.bias")
    summed = edit.emit("Gemm", [gemm.inputs[0], gemm.inputs[1], total], shape_of(source), name, {"transB": 1})
    edit.at = node
    edit.replace(node.outputs[0], edit.reshape(summed, shape_of(y), f"{name}.out"))
