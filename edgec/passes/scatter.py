# SPDX-License-Identifier: Apache-2.0
"""Scatter nodes that replace whole rows at known places are concatenations: what index assignment in torch becomes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgec.passes.graph_edit import GraphEdit, array_of, attribute, is_static, shape_of

Int64 = npt.NDArray[np.int64]
_KEPT = -1


def lower_scatter(edit: GraphEdit) -> None:
    """Replace ScatterElements and ScatterND by a Concat of what stays and what is written.

    Requires: folded constants, static shapes.
    Ensures: none is left that with constant indices and without a reduction writes adjacent rows of one axis, whole
    and in their order.
    """
    for node in edit.nodes("ScatterElements", "ScatterND"):
        data, updates, out = node.inputs[0], node.inputs[2], node.outputs[0]
        indices = array_of(node.inputs[1])
        if data is None or updates is None or not (is_static(data) and is_static(updates) and is_static(out)):
            continue
        if indices is None or attribute(node, "reduction", "none") != "none":
            edit.decline(node, "its indices are computed, or it reduces")
            continue
        found = _rows(_written(node, indices, shape_of(data), shape_of(updates)))
        if found is None:
            edit.decline(node, "it does not write adjacent rows of one axis")
            continue
        _concatenate(edit, node, *found)


def _written(node: ir.Node, indices: Int64, shape: tuple[int, ...], updates: tuple[int, ...]) -> Int64:
    """For each element of the result which of the updates it is, or `_KEPT`."""
    result = np.full(shape, _KEPT, np.int64)
    numbers = np.arange(math.prod(updates)).reshape(updates)
    if node.op_type == "ScatterND":
        depth = indices.shape[-1]
        wrapped = np.where(indices < 0, indices + np.array(shape[:depth]), indices)
        result[tuple(np.moveaxis(wrapped, -1, 0))] = numbers
        return result
    axis = attribute(node, "axis", 0) % len(shape)
    places = list(np.indices(indices.shape))
    places[axis] = np.where(indices < 0, indices + shape[axis], indices)
    result[tuple(places)] = numbers
    return result


def _rows(written: Int64) -> tuple[int, int, int] | None:
    """(axis, first row, end) when exactly these rows are written, with the updates in their order."""
    for axis, size in enumerate(written.shape):
        rows = np.moveaxis(written, axis, 0).reshape(size, -1) != _KEPT
        places = np.flatnonzero(rows.all(axis=1))
        if not places.size or not np.array_equal(rows.any(axis=1), rows.all(axis=1)):
            continue
        first, end = int(places[0]), int(places[-1]) + 1
        part = np.take(written, range(first, end), axis)
        if end - first == places.size and np.array_equal(part.ravel(), np.arange(part.size)):
            return axis, first, end
    return None


def _concatenate(edit: GraphEdit, node: ir.Node, axis: int, first: int, end: int) -> None:
    data, updates, out = node.inputs[0], node.inputs[2], node.outputs[0]
    assert data is not None
    assert updates is not None
    shape = shape_of(data)
    edit.at = node
    name = edit.take_name(node)

    def rows(count: int) -> tuple[int, ...]:
        return (*shape[:axis], count, *shape[axis + 1 :])

    def kept(start: int, stop: int, part: str) -> list[ir.Value]:
        if start == stop:
            return []
        bounds = [edit.constant(np.array([v], np.int64), f"{part}.{i}") for i, v in enumerate((start, stop, axis))]
        return [edit.emit("Slice", [data, *bounds], rows(stop - start), part)]

    parts = kept(0, first, f"{name}.before")
    parts += [edit.reshape(updates, rows(end - first), f"{name}.rows")]
    parts += kept(end, shape[axis], f"{name}.behind")
    edit.replace(out, parts[0] if len(parts) == 1 else edit.emit("Concat", parts, shape, name, {"axis": axis}))
