# SPDX-License-Identifier: Apache-2.0
"""Images come channels-last on a device: an input's layout is declared, and what that costs taken out of the program.

Requires: the canonical or the quantized graph. Ensures: an input whose only use is one Transpose (through its
QuantizeLinear and DequantizeLinear, if any) has the transposed shape and the Transpose is gone; in a quantized graph
an input whose readers are convolutions, pools and the like has channels-last shape and a Transpose back behind it,
which lowering drops. The metadata `edgec.layout` holds the permutation, so that whoever fills the input knows:
`device = onnx.transpose(perm)`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx

from edgec.model import Model

LAYOUT_KEY = "edgec.layout"


WINDOWED = frozenset(["Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
"""Operators that compute channels-last."""
INDIFFERENT = frozenset(
    """Abs Add Clip Concat DequantizeLinear Div Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Max Min Mul Neg Pad
    Pow QuantizeLinear ReduceMean Relu Resize Sigmoid Softplus Sqrt Sub Tanh""".split()
)
"""Operators that compute in whatever order the bytes lie."""


def device_layout(model: Model) -> Model:
    """The model with inputs in device layout; values are unchanged."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    states = {s.input for s in model.states}
    quantized = any(n.op_type == "DequantizeLinear" for n in proto.graph.node)
    found: dict[str, list[int]] = {}
    for info in proto.graph.input:
        if info.name in states:
            continue
        if (chain := _transpose_of(proto.graph, info.name)) is not None and _permutes(chain[-1], info):
            found[info.name] = _remove(proto.graph, info, chain)
        elif quantized and _wants_channels_last(proto.graph, info):
            found[info.name] = _channels_last(proto.graph, info)
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
            outputs = {o.name for o in graph.output}
            return None if users[0].output[0] in outputs else chain
        name = users[0].output[0]


def _permutes(transpose: onnx.NodeProto, info: onnx.ValueInfoProto) -> bool:
    """Whether the Transpose has as many axes as the input: ONNX's checker does not look."""
    rank = len(info.type.tensor_type.shape.dim)
    return all(sorted(a.ints) == list(range(rank)) for a in transpose.attribute if a.name == "perm")


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


def _wants_channels_last(graph: onnx.GraphProto, info: onnx.ValueInfoProto) -> bool:
    """Whether windows slide over this image or line, and nothing needs its bytes in ONNX order."""
    dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
    if len(dims) not in (3, 4) or dims[1] == 1 or not _dequantized(graph, info.name):
        return False
    names, seen, windows = [info.name], {info.name}, False
    while names:
        name = names.pop()
        for node in graph.node:
            if name not in node.input or (node.op_type in WINDOWED and node.input[0] == name):
                windows |= name in node.input
            elif node.op_type not in INDIFFERENT:
                return False
            else:
                names += [o for o in node.output if o not in seen]
                seen.update(node.output)
    return windows


def _dequantized(graph: onnx.GraphProto, name: str) -> str:
    """The one value into which an input is dequantized, "" when it is read in several ways."""
    for op_type in ("QuantizeLinear", "DequantizeLinear"):
        users = [n for n in graph.node if name in n.input]
        if len(users) == 1 and users[0].op_type == op_type:
            name = users[0].output[0]
        elif op_type == "DequantizeLinear":
            return ""
    return name


def _channels_last(graph: onnx.GraphProto, info: onnx.ValueInfoProto) -> list[int]:
    """Declare the input channels-last, and transpose it back behind its DequantizeLinear."""
    dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
    perm = [0, *range(2, len(dims)), 1]
    for dim, axis in zip(info.type.tensor_type.shape.dim, perm, strict=True):
        dim.dim_value = dims[axis]
    value = _dequantized(graph, info.name)
    back = onnx.helper.make_node(
        "Transpose",
        [value],
        [f"{value}.onnx_order"],
        name=f"{info.name}.onnx_order",
        perm=[perm.index(a) for a in range(len(perm))],
    )
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == value:
                node.input[i] = back.output[0]
    at = next((i + 1 for i, n in enumerate(graph.node) if value in n.output), 0)
    graph.node.insert(at, back)
    return perm
