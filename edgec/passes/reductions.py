# SPDX-License-Identifier: Apache-2.0
"""Means and sums over axes in one form."""

from __future__ import annotations

import numpy as np

from edgec.passes.graph_edit import GraphEdit, array_of, attribute, input_of, is_static, shape_of


def normalize_reductions(edit: GraphEdit) -> None:
    """Make pooling over everything a ReduceMean, and state the axes of every reduction.

    Requires: static shapes, folded constants.
    Ensures: GlobalAveragePool is ReduceMean; axes of ReduceMean and ReduceSum are a constant input, ascending
        and not negative, keepdims is stated; a mean over nothing or over axes of size 1 is a Reshape.
    """
    for node in edit.nodes("GlobalAveragePool", "ReduceMean", "ReduceSum"):
        x, out = node.inputs[0], node.outputs[0]
        if x is None or not (is_static(x) and is_static(out)):
            continue
        shape, given = shape_of(x), input_of(node, 1)
        keep = int(attribute(node, "keepdims", 1))
        if node.op_type == "GlobalAveragePool":
            axes = list(range(2, len(shape)))
        elif given is not None:
            constant = array_of(given)
            if constant is None:
                edit.decline(node, "its axes are not constants")
                continue
            axes = sorted(int(i) % len(shape) for i in constant.reshape(-1))
        else:
            axes = [] if attribute(node, "noop_with_empty_axes", 0) else list(range(len(shape)))
        if given is not None and not axes and not attribute(node, "noop_with_empty_axes", 0):
            axes = list(range(len(shape)))
        edit.at = node
        name = edit.take_name(node)
        if all(shape[i] == 1 for i in axes):
            edit.replace(out, edit.reshape(x, shape_of(out), name))
            continue
        op_type = "ReduceSum" if node.op_type == "ReduceSum" else "ReduceMean"
        inputs = [x, edit.constant(np.array(axes, np.int64), f"{name}.axes")]
        edit.replace(out, edit.emit(op_type, inputs, shape_of(out), name, {"keepdims": keep}))
