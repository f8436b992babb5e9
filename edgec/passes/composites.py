# SPDX-License-Identifier: Apache-2.0
"""Operators that are others put together: LogSoftmax, norms of instances, rarer sums, Tile, PRelu."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import Array, GraphEdit, array_of, attribute, is_float32, is_static, shape_of


def expand_composites(edit: GraphEdit) -> None:
    """Replace operators that have a form in simpler ones.

    Requires: folded constants, static shapes.
    Ensures: none of the operators in `_FORMS` on float32 with constant parameters is left.
    """
    for node in edit.nodes(*_FORMS):
        known = all(v is None or is_static(v) for v in node.inputs) and is_static(node.outputs[0])
        if known and is_float32(node.inputs[0]):
            edit.at = node
            made = _FORMS[node.op_type](edit, node)
            if made is not None:
                edit.replace(node.outputs[0], made)


def _axis(edit: GraphEdit, axis: int, name: str) -> ir.Value:
    return edit.constant(np.array([axis], np.int64), f"{name}.axes")


def _kept(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])


def _log_softmax(edit: GraphEdit, node: ir.Node) -> ir.Value | None:
    """d - log(sum(exp(d))) of d = x - max(x): between 0 and the logits' spread, which is what int8 can hold."""
    x = node.inputs[0]
    assert x is not None
    name, shape = edit.take_name(node), shape_of(x)
    axis = int(attribute(node, "axis", -1)) % len(shape)
    kept, axes = _kept(shape, axis), _axis(edit, axis, name)
    largest = edit.emit("ReduceMax", [x, axes], kept, f"{name}.max", {"keepdims": 1})
    below = edit.emit("Sub", [x, largest], shape, f"{name}.below")
    powers = edit.emit("Exp", [below], shape, f"{name}.exp")
    total = edit.emit("ReduceSum", [powers, axes], kept, f"{name}.sum", {"keepdims": 1})
    return edit.emit("Sub", [below, edit.emit("Log", [total], kept, f"{name}.log")], shape, name)


def _instance_norm(edit: GraphEdit, node: ir.Node) -> ir.Value | None:
    """LayerNormalization of each channel as a row, then its scale and shift."""
    x, scale, bias = node.inputs[0], array_of(node.inputs[1]), array_of(node.inputs[2])
    if x is None or scale is None or bias is None:
        edit.decline(node, "scale or bias is computed")
        return None
    name, shape = edit.take_name(node), shape_of(x)
    width = math.prod(shape[2:])
    rows = edit.reshape(x, (shape[0] * shape[1], width), f"{name}.rows")
    ones, zeros = edit.constant(np.ones(width), f"{name}.ones"), edit.constant(np.zeros(width), f"{name}.zeros")
    attributes = {"axis": -1, "epsilon": float(attribute(node, "epsilon", 1e-5))}
    y = edit.emit("LayerNormalization", [rows, ones, zeros], shape_of(rows), f"{name}.normalized", attributes)
    y = edit.reshape(y, shape, f"{name}.image")
    wide = (-1, *([1] * (len(shape) - 2)))
    y = edit.emit("Mul", [y, edit.constant(scale.reshape(wide), f"{name}.scale")], shape, f"{name}.scaled")
    return edit.emit("Add", [y, edit.constant(bias.reshape(wide), f"{name}.bias")], shape, name)


def _reduced(before: str, after: str) -> Callable[[GraphEdit, ir.Node], ir.Value | None]:
    """after(ReduceSum(before(x))); "" leaves a function out, "Square" is x * x."""

    def form(edit: GraphEdit, node: ir.Node) -> ir.Value | None:
        x, out = node.inputs[0], node.outputs[0]
        assert x is not None
        name = edit.take_name(node)
        if before:
            operands = [x, x] if before == "Square" else [x]
            x = edit.emit("Mul" if before == "Square" else before, operands, shape_of(x), f"{name}.terms")
        names = ("keepdims", "noop_with_empty_axes")
        attributes = {n: attribute(node, n, None) for n in names if attribute(node, n, None) is not None}
        total = edit.emit("ReduceSum", [x, *node.inputs[1:]], shape_of(out), f"{name}.sum", attributes)
        return edit.emit(after, [total], shape_of(out), name) if after else total

    return form


def _prelu(edit: GraphEdit, node: ir.Node) -> ir.Value | None:
    """max(x, 0) + slope * min(x, 0); LeakyRelu where all slopes are equal."""
    x, slope = node.inputs[0], array_of(node.inputs[1])
    if x is None or slope is None:
        edit.decline(node, "its slope is computed")
        return None
    name, shape = edit.take_name(node), shape_of(x)
    if (slope == slope.reshape(-1)[0]).all():
        return edit.emit("LeakyRelu", [x], shape, name, {"alpha": float(slope.reshape(-1)[0])})
    above = edit.emit("Relu", [x], shape, f"{name}.above")
    below = edit.emit("Min", [x, edit.constant(np.float32(0), f"{name}.zero")], shape, f"{name}.below")
    bent = edit.emit("Mul", [below, edit.constant(slope, f"{name}.slope")], shape, f"{name}.bent")
    return edit.emit("Add", [above, bent], shape, name)


def _tile(edit: GraphEdit, node: ir.Node) -> ir.Value | None:
    """Every repeated axis as an axis of its own, expanded."""
    x, repeats = node.inputs[0], array_of(node.inputs[1])
    if x is None or repeats is None:
        edit.decline(node, "its repeats are computed")
        return None
    name, shape = edit.take_name(node), shape_of(x)
    apart: list[int] = []
    spread: list[int] = []
    for size, times in zip(shape, _whole(repeats), strict=True):
        if times != 1:
            apart, spread = [*apart, 1], [*spread, times]
        apart, spread = [*apart, size], [*spread, size]
    rows = edit.reshape(x, apart, f"{name}.apart")
    dims = edit.constant(np.array(spread, np.int64), f"{name}.repeats")
    wide = edit.emit("Expand", [rows, dims], spread, f"{name}.spread")
    return edit.reshape(wide, shape_of(node.outputs[0]), name)


def _whole(array: Array) -> list[int]:
    return [int(v) for v in array.reshape(-1)]


def _sum(edit: GraphEdit, node: ir.Node) -> ir.Value | None:
    """Add of two at a time; Mean divides by their number."""
    values = [v for v in node.inputs if v is not None]
    name, shape = edit.take_name(node), shape_of(node.outputs[0])
    total = values[0]
    for i, value in enumerate(values[1:]):
        total = edit.emit("Add", [total, value], np.broadcast_shapes(shape_of(total), shape_of(value)), f"{name}.{i}")
    if node.op_type == "Mean":
        total = edit.emit("Mul", [total, edit.constant(np.float32(1 / len(values)), f"{name}.share")], shape, name)
    return total


_FORMS: dict[str, Callable[[GraphEdit, ir.Node], ir.Value | None]] = {
    "LogSoftmax": _log_softmax,
    "InstanceNormalization": _instance_norm,
    "ReduceL1": _reduced("Abs", ""),
    "ReduceSumSquare": _reduced("Square", ""),
    "ReduceLogSum": _reduced("", "Log"),
    "PRelu": _prelu,
    "Tile": _tile,
    "Sum": _sum,
    "Mean": _sum,
}
