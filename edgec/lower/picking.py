# SPDX-License-Identifier: Apache-2.0
"""Copies along an axis by a list of indices: gathers that no strided copy can do, and padding."""

from __future__ import annotations

import numpy as np
import onnx

from edgec.lower.graph import Array, IntegerGraph, NotIntegerError, Source, Value
from edgec.operators.integer import as_int32, product
from edgec.operators.lookup import FILL


def take(
    graph: IntegerGraph,
    node: onnx.NodeProto,
    tensor: str,
    shape: tuple[int, ...],
    axis: int,
    index: Array,
    fill: int = 0,
) -> str:
    """`tensor` with `index` taken along `axis`, `fill` where that is -1."""
    dims = (product(shape[:axis]), shape[axis], product(shape[axis + 1 :]))
    constants = {"index": as_int32("index", index), "params": as_int32("fill", [fill])}
    taken = graph.emit("take_s8", node.name, node.output[0], [graph.view(tensor, dims)], constants)
    return graph.view(taken, (*shape[:axis], len(index), *shape[axis + 1 :]))


def gather(node: onnx.NodeProto, source: Source, value: Value, graph: IntegerGraph) -> Value:
    """A Gather of any constant indices from a computed value."""
    value = graph.in_order(value, (), node.name)
    assert value.tensor is not None
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0) % len(value.shape)
    index = source.arrays[node.input[1]].ravel().astype(np.int64) % value.shape[axis]
    shape = source.shapes[node.output[0]]
    return Value(graph.view(take(graph, node, value.tensor, value.shape, axis, index), shape), shape, value.quant)


def padding_index(mode: str, size: int, before: int, after: int) -> Array:
    """Which element of an axis of `size` each element of the padded axis is; -1 for the padding value."""
    line = np.arange(-before, size + after)
    if mode == "constant":
        return np.where((line >= 0) & (line < size), line, FILL)
    if mode == "edge":
        return np.clip(line, 0, size - 1)
    if mode == "wrap":
        return line % size
    if mode != "reflect":
        raise NotIntegerError(f"Pad of mode {mode}")
    period = max(2 * (size - 1), 1)
    return (size - 1) - np.abs(line % period - (size - 1))
