# SPDX-License-Identifier: Apache-2.0
"""Brings the dense layers of a sum together: m + A m + B u becomes m + (A m + B u), for one accumulator."""

from __future__ import annotations

import onnx_ir as ir

from edgec.passes.graph_edit import GraphEdit, array_of, is_float32, is_static, only_consumer, shape_of


def gather_products(edit: GraphEdit) -> None:
    """In every sum of two or more layers with constant weights add those first, then the rest.

    Requires: dense layers in their one form, static shapes.
    Ensures: such layers are added to one another in the shape that they have, [rows, outputs], with one Reshape
        behind their sum where the model had one behind each; the other terms follow, in their order. Terms that
        somebody else reads too are left alone. Only the order of additions changes.
    """
    for node in edit.nodes("Add"):
        user = only_consumer(node.outputs[0])
        if node.graph is not edit.graph or not _adds(node):
            continue
        if user is not None and _adds(user) and shape_of(user.outputs[0]) == shape_of(node.outputs[0]):
            continue  # a part of a longer sum
        _gather(edit, node)


def _adds(node: ir.Node) -> bool:
    values = (*node.inputs, *node.outputs)
    return node.op_type == "Add" and node.domain == "" and all(is_static(v) and is_float32(v) for v in values)


def _gather(edit: GraphEdit, root: ir.Node) -> None:
    out = root.outputs[0]
    shape = shape_of(out)
    terms = _terms(root)
    found = [(term, _layer(term) if shape_of(term) == shape else None) for term in terms]
    layers = [layer for _, layer in found if layer is not None]
    others = [term for term, layer in found if layer is None]
    if len(layers) < 2 or len({shape_of(layer) for layer in layers}) > 1:
        return
    if all(layer is term for term, layer in found if layer is not None) and (not others or _together(root, layers)):
        return
    edit.at = root
    name = edit.take_name(root)
    total = layers[0]
    for layer in layers[1:]:
        total = edit.emit("Add", [total, layer], shape_of(total), f"{name}.products" if others else name)
    total = edit.reshape(total, shape, f"{name}.out")
    for i, term in enumerate(others):
        total = edit.emit("Add", [term, total], shape, name if i == len(others) - 1 else f"{name}.part")
    edit.replace(out, total)


def _terms(node: ir.Node) -> list[ir.Value]:
    """The terms of a sum, through sums of the same shape that nobody else reads."""
    found: list[ir.Value] = []
    for value in node.inputs:
        assert value is not None
        inner = _inner_sum(value, node)
        found += [value] if inner is None else _terms(inner)
    return found


def _inner_sum(value: ir.Value, reader: ir.Node) -> ir.Node | None:
    """The sum of the reader's shape that makes `value` for it alone."""
    node = value.producer()
    same = node is not None and _adds(node) and shape_of(value) == shape_of(reader.outputs[0])
    return node if same and only_consumer(value) is reader else None


def _layer(value: ir.Value) -> ir.Value | None:
    """The result of a layer with constant weights, which `value` is or is a view of, and nobody else reads it."""
    node = value.producer()
    if node is None or only_consumer(value) is None:
        return None
    if node.op_type == "Reshape" and node.inputs[0] is not None and only_consumer(node.inputs[0]) is node:
        value = node.inputs[0]
        node = value.producer()
    found = node is not None and node.op_type == "Gemm" and is_static(value) and array_of(node.inputs[1]) is not None
    return value if found else None


def _together(root: ir.Node, layers: list[ir.Value]) -> bool:
    """Whether one partial sum holds the layers and nothing else."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        terms = _terms(node)
        if len(terms) == len(layers) and all(any(term is layer for layer in layers) for term in terms):
            return True
        inner = [_inner_sum(value, node) for value in node.inputs if value is not None]
        waiting += [n for n in inner if n is not None]
    return False
