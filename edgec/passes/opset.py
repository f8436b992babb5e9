# SPDX-License-Identifier: Apache-2.0
"""Bring a model to the one operator set in which the passes think."""

from __future__ import annotations

import onnx
import onnx.inliner
import onnx.version_converter

from edgec.errors import UnsupportedError

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


def _newer(proto: onnx.ModelProto) -> list[str]:
    """Operators of the graph that opset 21 does not have."""
    types = {node.op_type for node in proto.graph.node}
    return sorted(t for t in types if not onnx.defs.has(t, max_inclusive_version=OPSET, domain=""))


def _relabelled(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """After 21, operator sets widened types and added operators: the rest means the same."""
    if new := _newer(proto):  # ONNX defines most of them by older operators: Attention, RMSNormalization
        ids = [(domain, name) for name in new for domain in ("", "ai.onnx")]
        proto = onnx.inliner.inline_selected_functions(proto, ids, exclude=False, inline_schema_functions=True)
    if new := _newer(proto):
        raise ValueError(f"{', '.join(new)} came after opset {OPSET}")
    older = onnx.ModelProto()
    older.CopyFrom(proto)
    older.ir_version = min(older.ir_version, 10)
    for opset in older.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = OPSET
    onnx.checker.check_model(older, full_check=True)
    return older
