# SPDX-License-Identifier: Apache-2.0
"""Operators that ONNX defines by other operators, replaced by that definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import onnx
import onnx.inliner

_DOMAIN = "edgec.expanded"
_ROUNDS = 8
"""Definitions use operators that have definitions themselves (SwiGLU: Swish); none is deeper."""


def expand_functions(proto: onnx.ModelProto, wanted: Callable[[onnx.NodeProto], bool]) -> onnx.ModelProto:
    """The model with every `wanted` node of the main graph that ONNX defines by others replaced by its definition.

    A node is expanded with its own types and optional inputs, also where one in the middle is left out, which
    onnx.inliner's own expansion of schema functions does not take.
    """
    for _ in range(_ROUNDS):
        version = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
        chosen = [n for n in proto.graph.node if n.domain in ("", "ai.onnx") and wanted(n)]
        if not chosen:
            break
        types = _types(proto)
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        found = False
        for index, node in enumerate(copy.graph.node):
            if not (node.domain in ("", "ai.onnx") and wanted(node)):
                continue
            function = _function(node, version, types)
            if function is None:
                continue
            found = True
            function.domain, function.name = _DOMAIN, f"{node.op_type}_{index}"
            copy.functions.append(function)
            node.domain, node.op_type = function.domain, function.name
        if not found:
            break
        copy.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
        proto = onnx.inliner.inline_local_functions(copy, convert_version=False)
        kept = [o for o in proto.opset_import if o.domain != _DOMAIN]
        del proto.opset_import[:]
        proto.opset_import.extend(kept)
    return proto


def _types(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    values: Iterable[onnx.ValueInfoProto] = (*graph.input, *graph.output, *graph.value_info)
    types = {v.name: v.type for v in values}
    for tensor in graph.initializer:
        types.setdefault(tensor.name, onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims))
    return types


def _function(node: onnx.NodeProto, version: int, types: dict[str, onnx.TypeProto]) -> onnx.FunctionProto | None:
    schema: Any = onnx.defs.get_schema(node.op_type, max_inclusive_version=version)
    stated = {a.name for a in node.attribute}
    node.attribute.extend(
        a.default_value for name, a in schema.attributes.items() if a.default_value.type and name not in stated
    )
    function = onnx.FunctionProto()
    if schema.has_context_dependent_function:
        given = [types[n].SerializeToString() if n in types else b"" for n in node.input]
        opsets = [v for v in schema.context_dependent_function_opset_versions if v <= version]
        if not opsets:
            return None
        standard = onnx.NodeProto()
        standard.CopyFrom(node)
        standard.domain = ""
        text = schema.get_context_dependent_function_with_opset_version(
            max(opsets), standard.SerializeToString(), given
        )
        function.ParseFromString(text)
    elif schema.has_function:
        opsets = [v for v in schema.function_opset_versions if v <= version]
        if not opsets:
            return None
        function.ParseFromString(schema.get_function_with_opset_version(max(opsets)))
    for opset in function.opset_import:  # the inliner wants one version; since the definition, types were only added
        if opset.domain == "":
            opset.version = version
    return function if function.node else None
