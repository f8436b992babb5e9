# SPDX-License-Identifier: Apache-2.0
"""The type of every value of a lowered graph: integer operators say it themselves, float nodes are declared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.lower.graph import DOMAIN
from edgec.operators import TensorType, get_operator


def value_types(graph: onnx.GraphProto) -> dict[str, TensorType]:
    """Types by name, of initializers, inputs and the results of all nodes.

    Args:
        graph: what `lower_to_integers` wrote: operators of the domain `edgec`, Reshapes to constant shapes, and
            standard nodes whose results are outputs or in `value_info`.
    """
    types = {i.name: _declared(i) for i in (*graph.value_info, *graph.output, *graph.input)}
    types |= {t.name: TensorType(tuple(t.dims), _name(t.data_type)) for t in graph.initializer}
    constants = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.domain == DOMAIN or node.op_type == "Reshape":
            types[node.output[0]] = result_type(node, types, constants)
    return types


def result_type(
    node: onnx.NodeProto, types: Mapping[str, TensorType], constants: Mapping[str, onnx.TensorProto]
) -> TensorType:
    """Type of the result of an integer operator or a Reshape, from those of its operands."""
    if node.domain == DOMAIN:
        attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        return get_operator(node.op_type).infer([types[n] for n in node.input], **attrs)
    shape = tuple(int(d) for d in numpy_helper.to_array(constants[node.input[1]]))
    return TensorType(shape, types[node.input[0]].dtype)


def _declared(info: onnx.ValueInfoProto) -> TensorType:
    kind = info.type.tensor_type
    return TensorType(tuple(d.dim_value for d in kind.shape.dim), _name(kind.elem_type))


def _name(elem_type: int) -> str:
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)))
