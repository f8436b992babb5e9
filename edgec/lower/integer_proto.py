# SPDX-License-Identifier: Apache-2.0
"""The integer graph as ONNX: the live nodes in order, and the types that nobody could infer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.lower.graph import DOMAIN, IntegerGraph
from edgec.lower.islands import float_nodes


def integer_proto(
    graph: IntegerGraph, name: str, opset: int, inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """What `outputs` (tensors of the graph, which may occur twice) are computed from.

    Args:
        graph: all that lowering wrote.
        name: of the ONNX graph.
        opset: of the standard nodes.
        inputs: of the model, in order.
        outputs: tensors, in order.
    """
    live, kept = set(outputs), []
    for node in reversed(graph.nodes):
        if live.intersection(node.output):
            kept.append(node)
            live.update(node.input)
    # So that what TVM makes of float nodes is compared with what ONNX says of them.
    floats = dict.fromkeys(v for n in float_nodes(kept) for v in (*n.input, *n.output) if v)
    declared = {*inputs, *outputs, *graph.constants}
    made = helper.make_graph(
        kept[::-1],
        name or "model",
        [_info(graph, n) for n in inputs],
        [_info(graph, n) for n in dict.fromkeys(outputs)],
        [numpy_helper.from_array(a, n) for n, a in graph.constants.items() if n in live],
        value_info=[_info(graph, v) for v in floats if v not in declared],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def _info(graph: IntegerGraph, name: str) -> onnx.ValueInfoProto:
    kind = graph.types[name]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype)), kind.shape)
