# SPDX-License-Identifier: Apache-2.0
"""Integers that mean themselves: positions found by ArgMax and TopK, and rows that an input asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from edgec.lower.graph import IntegerGraph, NotIntegerError, Source, Value
from edgec.lower.rules import in_three
from edgec.operators.integer import product

INTEGER_TYPES = frozenset(np.dtype(t) for t in (np.int32, np.int64))
"""Types of model inputs and outputs that become int32 on the device."""

_VIEWS = frozenset("Cast Flatten Identity Reshape Squeeze Unsqueeze".split())


def lower_indices(
    node: onnx.NodeProto,
    source: Source,
    values: dict[str, Value],
    indices: dict[str, str],
    graph: IntegerGraph,
) -> bool:
    """Lower a node that makes or reads indices; False when it is none.

    Args:
        node: any node.
        source: the quantized graph.
        values: dequantized values; a table lookup and TopK add one.
        indices: names of index values in the quantized graph -> int32 tensors; what the node makes is added.
        graph: where to write.
    """
    if node.op_type in ("ArgMax", "ArgMin", "TopK"):
        _search(node, source, values, indices, graph)
    elif node.op_type in _VIEWS and node.input[0] in indices:
        shape = source.shapes[node.output[0]]
        if node.op_type == "Cast" and np.dtype(source.dtypes[node.output[0]]) not in INTEGER_TYPES:
            raise NotIntegerError("it makes real values from indices")
        indices[node.output[0]] = graph.view(indices[node.input[0]], shape)
    elif node.op_type == "Gather" and node.input[1] in indices:
        _look_up(node, source, values, indices, graph)
    else:
        return False
    return True


def _search(
    node: onnx.NodeProto,
    source: Source,
    values: dict[str, Value],
    indices: dict[str, str],
    graph: IntegerGraph,
) -> None:
    attrs = _attributes(node)
    value = values.get(node.input[0])
    if value is None or value.tensor is None:
        raise NotIntegerError(f"input {node.input[0]} is not quantized")
    top = node.op_type == "TopK"
    axis = attrs.get("axis", -1 if top else 0) % len(value.shape)
    value = graph.in_order(value, (), node.name)
    x = [graph.view(str(value.tensor), in_three(value.shape, {axis}))]
    if not top:
        smallest, last = int(node.op_type == "ArgMin"), attrs.get("select_last_index", 0)
        found = graph.emit("arg_extreme_s8", node.name, node.output[0], x, {}, smallest=smallest, last=last)
        indices[node.output[0]] = graph.view(found, source.shapes[node.output[0]])
        return
    if node.input[1] not in source.arrays:
        raise NotIntegerError("its k must be constant")
    flags = {"k": int(source.arrays[node.input[1]].reshape(())), "smallest": 1 - attrs.get("largest", 1)}
    shape = (*value.shape[:axis], flags["k"], *value.shape[axis + 1 :])
    for output, where in zip(node.output, (0, 1), strict=False):
        if output:
            tensor = graph.view(graph.emit("top_k_s8", node.name, output, x, {}, indices=where, **flags), shape)
            if where:
                indices[output] = tensor
            else:
                values[output] = Value(tensor, shape, value.quant)


def _look_up(
    node: onnx.NodeProto,
    source: Source,
    values: dict[str, Value],
    indices: Mapping[str, str],
    graph: IntegerGraph,
) -> None:
    table = values.get(node.input[0])
    if table is None or table.data is None or _attributes(node).get("axis", 0) % len(table.shape) != 0:
        raise NotIntegerError("computed indices look up rows of a quantized constant table only")
    _ = table.quant.pair  # raises when rows have scales of their own
    rows = table.data.astype(np.int8).reshape(len(table.data), -1)
    asked = indices[node.input[1]]
    flat = graph.view(asked, (product(graph.types[asked].shape),))
    shape = source.shapes[node.output[0]]
    found = graph.emit("embedding_s8", node.name, node.output[0], [flat], {"table": rows})
    values[node.output[0]] = Value(graph.view(found, shape), shape, table.quant)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
