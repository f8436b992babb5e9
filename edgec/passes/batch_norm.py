# SPDX-License-Identifier: Apache-2.0
"""BatchNorm at inference: a scale and a shift per channel, folded into the Conv before it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import (
    Array,
    GraphEdit,
    array_of,
    attribute,
    input_of,
    is_static,
    only_consumer,
    shape_of,
)


def fold_batch_norm(edit: GraphEdit) -> None:
    """Fold every BatchNormalization into the Conv or Gemm that feeds it, else make it Mul and Add.

    Requires: folded constants, static shapes.
    Ensures: no BatchNormalization in inference form with constant statistics is left.
    """
    for node in edit.nodes("BatchNormalization"):
        x = node.inputs[0]
        parameters = [array_of(v) for v in node.inputs[1:5]]
        if x is None or not is_static(x) or attribute(node, "training_mode", 0) or len(parameters) != 4:
            edit.decline(node, "not in inference form")
            continue
        if any(p is None for p in parameters):
            edit.decline(node, "its statistics are not constants")
            continue
        scale, bias, mean, variance = (np.asarray(p, np.float64) for p in parameters)
        gain = scale / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
        edit.at = node
        if not _into_producer(edit, node, gain, bias - mean * gain):
            name = edit.take_name(node)
            shape = shape_of(x)
            wide = (-1, *([1] * (len(shape) - 2)))
            scaled = edit.emit("Mul", [x, edit.constant(gain.reshape(wide), f"{name}.scale")], shape, f"{name}.scale")
            shift = edit.constant((bias - mean * gain).reshape(wide), f"{name}.bias")
            edit.replace(node.outputs[0], edit.emit("Add", [scaled, shift], shape, name))


def _into_producer(edit: GraphEdit, node: ir.Node, gain: Array, shift: Array) -> bool:
    x = node.inputs[0]
    before = None if x is None else x.producer()
    if x is None or before is None or only_consumer(x) is not node or before.op_type not in ("Conv", "Gemm"):
        return False
    weight = array_of(before.inputs[1])
    given = input_of(before, 2)
    bias = np.zeros(len(gain)) if given is None else array_of(given)
    if weight is None or bias is None:
        return False
    if before.op_type == "Gemm":
        if not attribute(before, "transB", 0) or attribute(before, "alpha", 1.0) != 1.0:
            return False
        if attribute(before, "beta", 1.0) != 1.0 or attribute(before, "transA", 0):
            return False
        bias = np.broadcast_to(bias, (len(gain),)) if bias.ndim < 2 else bias
    name = edit.take_name(before)
    inputs = [
        before.inputs[0],
        edit.constant(weight * gain.reshape(-1, *([1] * (weight.ndim - 1))), f"{name}.weight"),
        edit.constant(bias * gain + shift, f"{name}.bias"),
    ]
    attributes = {a.name: a for a in before.attributes.values()}
    edit.replace(node.outputs[0], edit.emit(before.op_type, inputs, shape_of(node.outputs[0]), name, attributes))
    return True
