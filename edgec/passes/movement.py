# SPDX-License-Identifier: Apache-2.0
"""Normal form of data movement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import (
    Array,
    GraphEdit,
    array_of,
    attribute,
    is_static,
    only_consumer,
    scalar_of,
    shape_of,
)
from edgec.passes.movement_maps import AFTER, BEFORE, emit_movement, factor, is_movement, moved

_UNARY = (
    *(
        "Relu",
        "LeakyRelu",
        "Gelu",
        "Tanh",
        "Sigmoid",
        "HardSwish",
        "HardSigmoid",
        "Erf",
        "Exp",
        "Sqrt",
        "Neg",
        "Abs",
    ),
    *("Clip", "Softplus", "Elu", "Selu", "Mish", "Reciprocal", "Log", "Floor", "Ceil", "Round", "Sign"),
)
"""Elementwise operators of one operand (Clip's bounds are scalars)."""


@dataclass
class _Moved:
    """A value as elements of an earlier value: `order` has the value's own shape."""

    value: ir.Value
    base: ir.Value
    order: Array
    reorders: bool


def normalize_movement(edit: GraphEdit) -> None:
    """Bring chains of Reshape, Transpose, Squeeze, Unsqueeze and Flatten into normal form.

    Requires: static shapes, constant operands.
    Ensures: between two other nodes lie at most Reshape, Transpose, Reshape with the fewest axes; one Reshape
        when no element changes place; nothing when the shape stays too. A leading Transpose of a graph input
        from channels-first to channels-last stays a node of its own. Squeeze, Unsqueeze and Flatten are gone.
    """
    sink_reshapes(edit)
    known: dict[int, _Moved] = {}
    for node in edit.nodes():
        if is_movement(node) and not _is_layout_change(node):
            _normalize(edit, node, known)


def sink_reshapes(edit: GraphEdit) -> None:
    """Move Reshapes behind elementwise nodes of one operand, so that they meet the next one and cancel."""
    for node in edit.nodes():
        source = _operand(node)
        reshape = None if source is None else source.producer()
        if reshape is None or source is None or reshape.op_type not in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
            continue
        if not is_movement(reshape) or not is_static(node.outputs[0]):
            continue
        base, out = reshape.inputs[0], node.outputs[0]
        if base is None or shape_of(out) != shape_of(source):
            continue
        edit.at = node
        inputs = [base if v is source else v for v in node.inputs]
        inputs = [_as_scalar(edit, v) if v is not base else v for v in inputs]
        attributes = {a.name: a for a in node.attributes.values()}
        name = edit.take_name(node)
        before = edit.emit(node.op_type, inputs, shape_of(base), name, attributes)
        view = edit.reshape(before, shape_of(source), f"{name}.view")
        edit.replace(out, view)
        edit.swap_names(before, view)


def _operand(node: ir.Node) -> ir.Value | None:
    """The one activation of an elementwise node whose other operands are scalars."""
    if node.op_type in _UNARY and node.domain == "":
        return node.inputs[0]
    if node.op_type in ("Add", "Sub", "Mul", "Div", "Pow") and node.domain == "":
        varying = [v for v in node.inputs if scalar_of(v) is None]
        return varying[0] if len(varying) == 1 and varying[0] is not None else None
    return None


def _as_scalar(edit: GraphEdit, value: ir.Value | None) -> ir.Value | None:
    """A scalar constant without axes, so that it cannot widen the rank of the other operand."""
    array = array_of(value)
    if value is None or array is None or array.ndim == 0:
        return value
    return edit.constant(array.reshape(()), f"{value.name}.scalar")


def _is_layout_change(node: ir.Node) -> bool:
    """Channels-first to channels-last of an image that the caller gives: the layout pass reads it."""
    source = node.inputs[0]
    return (
        node.op_type == "Transpose"
        and source is not None
        and source.is_graph_input()
        and list(attribute(node, "perm", [])) == [0, 2, 3, 1]
    )


def _normalize(edit: GraphEdit, node: ir.Node, known: dict[int, _Moved]) -> None:
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    shape = shape_of(out)
    direct = moved(node, np.arange(int(np.prod(shape_of(source)))).reshape(shape_of(source)))
    earlier = known.get(id(source))
    chosen = _Moved(out, source, direct, _reorders(direct))
    if earlier is not None:
        whole = earlier.order.reshape(-1)[direct]
        composed = _Moved(out, earlier.base, whole, _reorders(whole))
        # A reordered value that somebody else reads too is not reordered twice: go on from it.
        # Nor is every chain one transpose: 3x2 read as 2x3 and transposed again is none.
        once = not earlier.reorders or only_consumer(source) is not None
        if not composed.reorders or (once and factor(whole) is not None):
            chosen = composed
    view = source.producer()
    if chosen.base is source and is_movement(view) and view is not None and view.op_type == "Reshape":
        assert view.inputs[0] is not None
        chosen.base = view.inputs[0]  # a view has the elements of what it views, in the same order
    edit.at = node
    name = edit.take_name(node)
    for suffix in (BEFORE, AFTER):  # of an earlier normal form
        name = name.removesuffix(suffix)
    new = emit_movement(edit, chosen.base, chosen.order, shape, name)
    assert new is not None  # a chain of movements is a movement
    edit.replace(out, new)
    chosen.value = new
    known.setdefault(id(new), chosen)


def _reorders(order: Array) -> bool:
    flat = order.reshape(-1)
    return bool((flat[1:] < flat[:-1]).any())
