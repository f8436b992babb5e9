# SPDX-License-Identifier: Apache-2.0
"""Images come channels-last on a device: take the transpose of an input out of the program and declare it.

Requires: the canonical or the quantized graph. Ensures: an input whose only use is one Transpose (through its
QuantizeLinear and DequantizeLinear, if any) has the transposed shape, the Transpose is gone, and the metadata
`edgec.layout` holds its permutation, so that whoever fills the input knows: `device = onnx.transpose(perm)`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx

from edgec.model import Model

LAYOUT_KEY = "edgec.layout"


def device_layout(model: Model) -> Model:
    """The model with inputs in device layout; values are unchanged."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    states = {s.input for s in model.states}
    found: dict[str, list[int]] = {}
    for info in proto.graph.input:
        if info.name not in states and (chain := _transpose_of(proto.graph, info.name)) is not None:
            found[info.name] = _remove(proto.graph, info, chain)
    if found:
        proto.metadata_props.add(key=LAYOUT_KEY, value=json.dumps(found))
        del proto.graph.value_info[:]  # those between the input and the Transpose have changed
        proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    return Model(proto, model.name, model.sha256, model.states, list(model.notes))


def layouts(model: Model) -> dict[str, tuple[int, ...]]:
    """Permutation from the ONNX axes to the device's, for every input that has one."""
    text = next((p.value for p in model.proto.metadata_props if p.key == LAYOUT_KEY), "{}")
    return {name: tuple(perm) for name, perm in json.loads(text).items()}


def _transpose_of(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto] | None:
    """The nodes from an input to the Transpose that is its only use, or None."""
    chain: list[onnx.NodeProto] = []
    while True:
        users = [n for n in graph.node if name in n.input]
        if len(users) != 1 or users[0].op_type not in ("QuantizeLinear", "DequantizeLinear", "Transpose"):
            return None
        chain.append(users[0])
        if users[0].op_type == "Transpose":
            return chain
        name = users[0].output[0]


def _remove(graph: onnx.GraphProto, info: onnx.ValueInfoProto, chain: Sequence[onnx.NodeProto]) -> list[int]:
    transpose = chain[-1]
    dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
    perm = next((list(a.ints) for a in transpose.attribute if a.name == "perm"), list(range(len(dims)))[::-1])
    for dim, axis in zip(info.type.tensor_type.shape.dim, perm, strict=True):
        dim.dim_value = dims[axis]
    result, feed = transpose.output[0], transpose.input[0]
    graph.node.remove(transpose)
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == result:
                node.input[i] = feed
    return perm
