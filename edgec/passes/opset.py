# SPDX-License-Identifier: Apache-2.0
"""Bring a model to the one operator set in which the passes think."""

from __future__ import annotations

import onnx
import onnx.inliner
import onnx.version_converter

from edgec.errors import UnsupportedError
from edgec.model import value_shapes
from edgec.passes.functions import expand_functions

OPSET = 21
"""The operator set of every model after canonicalization."""


def to_opset_21(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Inline the model's functions and convert to opset 21.

    Requires: opset 13 or newer, standard domain or functions of the model (the front door saw to it).
    Ensures: opset 21, no local functions, same inputs and outputs; metadata is the caller's to carry.
    """
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    version = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    try:
        if version < OPSET:
            proto = onnx.version_converter.convert_version(proto, OPSET)
        elif version > OPSET:
            proto = _relabelled(proto, version)
    except Exception as error:  # the converter raises RuntimeError, ValueError and its own types
        raise UnsupportedError(
            f"the model cannot be converted from opset {version} to {OPSET}",
            have=" ".join(str(error).split())[:300],
            hint="export again with opset 18 to 21",
        ) from error
    standard = onnx.helper.make_opsetid("", OPSET)
    del proto.opset_import[:]
    proto.opset_import.append(standard)
    for node in proto.graph.node:
        if node.domain == "ai.onnx":
            node.domain = ""
    return proto


def _is_newer(node: onnx.NodeProto) -> bool:
    return not onnx.defs.has(node.op_type, max_inclusive_version=OPSET, domain="")


def _relabelled(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """After 21, operator sets widened types and added operators: the rest means the same."""
    # ONNX defines most new operators by older ones: Attention, RMSNormalization, Swish.
    proto = expand_functions(proto, _is_newer)
    if new := sorted({node.op_type for node in proto.graph.node if _is_newer(node)}):
        raise ValueError(f"{', '.join(new)} came after opset {OPSET}")
    older = onnx.ModelProto()
    older.CopyFrom(proto)
    older.ir_version = min(older.ir_version, 10)
    _round_pools_down(older)
    for opset in older.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = OPSET
    onnx.checker.check_model(older, full_check=True)
    return older


def _round_pools_down(proto: onnx.ModelProto) -> None:
    """Take ceil_mode from pools where it adds no window: since 22, none starts behind the data; before, one might."""
    pools = [n for n in proto.graph.node if n.op_type in ("AveragePool", "MaxPool") and _ints(n, "ceil_mode", [0])[0]]
    if not pools:
        return
    shapes = value_shapes(onnx.shape_inference.infer_shapes(proto))
    for node in pools:
        x, y, kernel = shapes.get(node.input[0]), shapes.get(node.output[0]), _ints(node, "kernel_shape", [])
        if x is None or y is None or any(a.name == "auto_pad" and a.s != b"NOTSET" for a in node.attribute):
            continue
        rank = len(kernel)
        strides, dilations = (_ints(node, name, [1] * rank) for name in ("strides", "dilations"))
        pads = _ints(node, "pads", [0] * (2 * rank))
        rounded_down = tuple(
            (x[2 + i] + pads[i] + pads[i + rank] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
            for i in range(rank)
        )
        if rounded_down == y[2:]:
            next(a for a in node.attribute if a.name == "ceil_mode").i = 0


def _ints(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else list(found.ints) or [int(found.i)]
