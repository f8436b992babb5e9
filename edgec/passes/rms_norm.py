# SPDX-License-Identifier: Apache-2.0
"""RMSNorm (Zhang and Sennrich 2019) in one form, however the exporter wrote it."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import GraphEdit, array_of, attribute, input_of, is_float32, is_static, scalar_of, shape_of
from edgec.passes.moments import affine_after, deviation_of, inverse_deviation_of, mean_of, squared_of


def normalize_rms_norm(edit: GraphEdit) -> None:
    """Make every RMSNorm the chain that `rms_norm_form` describes.

    Requires: folded constants, static shapes; LayerNorm is one node already.
    Ensures: x / sqrt(mean(x^2) + epsilon), as a quotient or a product, with the gain behind it if there is one,
        is that chain over the last axis with the gain of that length; so is x over its Euclidean norm
        (LpNormalization; ReduceL2 with or without a lower bound), with the factor in the gain.
    """
    for node in edit.nodes("Div", "Mul", "LpNormalization"):
        if not is_static(node.outputs[0]) or not is_float32(node.outputs[0]):
            continue
        found = _match(node)
        if found is not None:
            _write(edit, node, *found)


def _match(node: ir.Node) -> tuple[ir.Value, int, float, float] | None:
    """(x, dims, epsilon, factor) when `node` is `factor * x / sqrt(mean of x^2 over the last dims + epsilon)`."""
    if node.op_type == "LpNormalization":
        x = node.inputs[0]
        if x is None or attribute(node, "p", 2) != 2 or attribute(node, "axis", -1) not in (-1, len(shape_of(x)) - 1):
            return None
        return x, 1, 0.0, shape_of(x)[-1] ** -0.5
    a, b = node.inputs[0], node.inputs[1]
    if node.op_type == "Div" and a is not None and (epsilon := _length_of(a, b)) is not None:
        return a, 1, epsilon, shape_of(a)[-1] ** -0.5
    pairs = (
        [(a, deviation_of(b))]
        if node.op_type == "Div"
        else [(a, inverse_deviation_of(b)), (b, inverse_deviation_of(a))]
    )
    for x, found in pairs:
        if x is None or found is None:
            continue
        mean = mean_of(found[0])
        if mean is not None and squared_of(mean[0]) is x:
            return x, mean[1], found[1], 1.0
    return None


def _length_of(x: ir.Value, value: ir.Value | None) -> float | None:
    """Epsilon when `value` is the length of the rows of x, kept from 0 by a lower bound or not at all."""
    bound = 0.0
    for _ in range(4):
        node = None if value is None else value.producer()
        if node is None:
            return None
        if node.op_type == "ReduceL2":
            axes = array_of(input_of(node, 1))
            rank = len(shape_of(x))
            last = axes is not None and [int(i) % rank for i in axes.reshape(-1)] == [rank - 1]
            # max(sqrt(S), b) and sqrt(S + b^2) differ where both are tiny alone; epsilon is of the mean.
            return (
                bound**2 / shape_of(x)[-1] if last and node.inputs[0] is x and attribute(node, "keepdims", 1) else None
            )
        if node.op_type in ("Clip", "Max") and (low := scalar_of(input_of(node, 1))) is not None:
            if input_of(node, 2) is not None:
                return None
            bound = max(bound, low)
        elif node.op_type != "Expand":
            return None
        value = node.inputs[0]
    return None


def _write(edit: GraphEdit, node: ir.Node, x: ir.Value, dims: int, epsilon: float, factor: float) -> None:
    shape = shape_of(x)
    last, gain = affine_after(node, "Mul", shape[len(shape) - dims :])
    width = math.prod(shape[len(shape) - dims :])
    if gain is not None or factor != 1.0:
        gain = np.broadcast_to(1.0 if gain is None else gain.reshape(-1), (width,)) * factor
    edit.at = last
    name = f"{node.name}.rms_norm" if node.name else "rms_norm"
    rows = edit.reshape(x, (*shape[: len(shape) - dims], width), f"{name}.in")
    full, reduced = shape_of(rows), (*shape_of(rows)[:-1], 1)
    axes = edit.constant(np.array([len(full) - 1], np.int64), f"{name}.axes")
    square = edit.emit("Mul", [rows, rows], full, f"{name}.square")
    mean = edit.emit("ReduceMean", [square, axes], reduced, f"{name}.mean", {"keepdims": 1})
    shifted = edit.emit(
        "Add", [mean, edit.constant(np.float32(epsilon), f"{name}.epsilon")], reduced, f"{name}.shifted"
    )
    root = edit.emit("Sqrt", [shifted], reduced, f"{name}.root")
    y = edit.emit("Div", [rows, root], full, name if gain is None else f"{name}.quotient")
    if gain is not None:
        y = edit.emit("Mul", [y, edit.constant(gain, f"{name}.gain")], full, name)
    edit.replace(last.outputs[0], edit.reshape(y, shape, f"{name}.out"))
