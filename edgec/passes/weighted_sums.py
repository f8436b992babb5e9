# SPDX-License-Identifier: Apache-2.0
"""A sum over one axis of a tensor times constants is a product or a depthwise convolution: one rounding, not two."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import (
    Array,
    GraphEdit,
    array_of,
    binary,
    is_float32,
    is_static,
    only_consumer,
    shape_of,
)


def lower_weighted_sums(edit: GraphEdit) -> None:
    """Replace Mul by constants and ReduceSum over one axis by MatMul or Conv.

    Requires: reductions in normal form, static shapes.
    Ensures: a ReduceSum over one axis of x * w, x of a batch of 1 and read there alone as a product, is a MatMul where
        w depends on that axis alone, and of three axes a depthwise Conv where it depends on the other one too.
    """
    for node in edit.nodes("ReduceSum"):
        product, out = node.inputs[0], node.outputs[0]
        mul = None if product is None else product.producer()
        axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
        if (
            product is None
            or mul is None
            or mul.op_type != "Mul"
            or axes is None
            or axes.size != 1
            or only_consumer(product) is not node
        ):
            continue
        found = binary(mul, array_of)
        if found is None or not is_float32(found[0]) or not (is_static(found[0]) and is_static(out)):
            continue
        x, weights = found
        shape, axis = shape_of(x), int(axes.reshape(()))
        if shape != shape_of(mul.outputs[0]) or len(shape) < 2 or shape[0] != 1 or not axis:
            continue
        whole = np.moveaxis(np.broadcast_to(weights, shape), axis, -1)
        edit.at = node
        name = edit.take_name(node)
        rest = whole.reshape(-1, shape[axis])
        if (rest == rest[:1]).all():
            result = _product(edit, x, axis, rest[0], name)
        elif len(shape) == 3:
            result = _convolution(edit, x, axis, rest, name)
        else:
            continue
        edit.replace(out, edit.reshape(result, shape_of(out), f"{name}.shaped"))


def _last(edit: GraphEdit, x: ir.Value, axis: int, name: str) -> ir.Value:
    """x with the axis behind all others."""
    rank = len(shape_of(x))
    perm = [*(a for a in range(rank) if a != axis), axis]
    return x if axis == rank - 1 else edit.transpose(x, perm, f"{name}.in")


def _product(edit: GraphEdit, x: ir.Value, axis: int, weights: Array, name: str) -> ir.Value:
    moved = _last(edit, x, axis, name)
    column = edit.constant(weights.astype(np.float32)[:, None], f"{name}.weights")
    return edit.emit("MatMul", [moved, column], (*shape_of(moved)[:-1], 1), name)


def _convolution(edit: GraphEdit, x: ir.Value, axis: int, weights: Array, name: str) -> ir.Value:
    """weights [channels, taps], of which x [1, channels, taps] has as many."""
    moved = _last(edit, x, axis, name)
    channels, taps = weights.shape
    kernel = edit.constant(weights.astype(np.float32)[:, None], f"{name}.weights")
    attributes = {"group": channels, "kernel_shape": [taps]}
    return edit.emit("Conv", [moved, kernel], (1, channels, 1), name, attributes)
