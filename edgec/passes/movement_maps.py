# SPDX-License-Identifier: Apache-2.0
"""What data movement does, by the obvious method: push element numbers through it and see where they end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import Array, GraphEdit, array_of, attribute, input_of, is_static, shape_of

MOVEMENT = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that keep every element and change order or shape only."""

SELECTION = ("Slice", "Gather", "Split")
"""Operators that keep some of the elements."""


BEFORE, AFTER = ".axes", ".shape"
"""Suffixes of the Reshapes around a Transpose, whose name is that of the movement."""


def is_movement(node: ir.Node | None) -> bool:
    """Whether `node` is a movement of static shapes whose second operand, if any, is a constant."""
    return (
        node is not None
        and node.op_type in MOVEMENT
        and node.domain == ""
        and is_static(node.inputs[0])
        and is_static(node.outputs[0])
        and (input_of(node, 1) is None or array_of(input_of(node, 1)) is not None)
    )


def moved(node: ir.Node, elements: Array) -> Array:
    """The elements after a movement node."""
    if node.op_type == "Transpose":
        perm = attribute(node, "perm", None)
        return elements.transpose(None if perm is None else [int(p) for p in perm])
    return elements.reshape(shape_of(node.outputs[0]))


def selected(node: ir.Node, elements: Array) -> list[Array] | None:
    """The elements of each output of a selection node; None when its operands are not constants."""
    constants = [array_of(v) for v in node.inputs[1:]]
    if any(c is None and v is not None for c, v in zip(constants, node.inputs[1:], strict=True)):
        return None
    if node.op_type == "Gather" and constants[0] is not None:
        return [np.take(elements, constants[0], axis=int(attribute(node, "axis", 0)))]
    if node.op_type == "Split":
        axis = int(attribute(node, "axis", 0))
        sizes = [shape_of(o)[axis] for o in node.outputs] if all(is_static(o) for o in node.outputs) else None
        return None if sizes is None else np.split(elements, np.cumsum(sizes)[:-1], axis=axis)
    if node.op_type == "Slice" and constants[0] is not None and constants[1] is not None:
        rank = elements.ndim
        starts, ends = constants[0], constants[1]
        axes = constants[2] if len(constants) > 2 and constants[2] is not None else np.arange(len(starts))
        steps = constants[3] if len(constants) > 3 and constants[3] is not None else np.ones(len(starts), np.int64)
        cut = [slice(None)] * rank
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            if step < 0:
                return None
            cut[int(axis) % rank] = slice(int(start), int(end), int(step))
        return [elements[tuple(cut)]]
    return None


def factor(order: Array) -> list[tuple[int, int]] | None:
    """Write an order of elements as a transpose: the fewest axes (size, stride in the input), outermost
    first.

    `order` holds, for each output element in turn, the number of the input element that it takes. None when
    no reshape, transpose, reshape makes that order.
    """
    rest = np.asarray(order).reshape(-1)
    axes: list[tuple[int, int]] = []
    while rest.size > 1:
        stride = int(rest[1] - rest[0])
        breaks = np.flatnonzero(np.diff(rest) != stride)
        size = int(breaks[0]) + 1 if breaks.size else rest.size
        if (
            stride <= 0
            or rest.size % size
            or not (rest.reshape(-1, size) == rest[::size, None] + stride * np.arange(size)).all()
        ):
            return None
        axes.append((size, stride))
        rest = rest[::size]
    if rest.size and rest[0] != 0:
        return None
    return axes[::-1]


def emit_movement(edit: GraphEdit, x: ir.Value, order: Array, shape: Sequence[int], name: str) -> ir.Value | None:
    """`x` in another order and shape: nothing, one Reshape, or Reshape, Transpose, Reshape."""
    axes = factor(order)
    if axes is None or math.prod(s for s, _ in axes) != math.prod(shape_of(x)):
        return None
    by_stride = sorted(range(len(axes)), key=lambda i: -axes[i][1])
    if by_stride == list(range(len(axes))):
        return edit.reshape(x, shape, name)
    flat = edit.reshape(x, [axes[i][0] for i in by_stride], f"{name}{BEFORE}")
    turned = edit.transpose(flat, [by_stride.index(i) for i in range(len(axes))], name)
    return edit.reshape(turned, shape, f"{name}{AFTER}")
