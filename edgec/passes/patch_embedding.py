# SPDX-License-Identifier: Apache-2.0
"""Patch embedding (Dosovitskiy et al. 2021): a convolution whose kernels do not overlap is a dense layer."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import Array, GraphEdit, array_of, attribute, input_of, is_static, shape_of


def embed_patches(edit: GraphEdit) -> None:
    """Make a Conv with kernel = stride, no padding, one group, no dilation a Gemm over patches.

    Requires: folded constants, static shapes.
    Ensures: image -> channels-last -> [patches, height*width*channels] -> Gemm -> the Conv's channels-first
        output. Pointwise (1x1) convolutions are patches of one pixel.
    """
    for node in edit.nodes("Conv"):
        weight, given = array_of(node.inputs[1]), input_of(node, 2)
        bias = np.zeros(0) if given is None else array_of(given)
        if weight is None or bias is None or not is_static(node.inputs[0]):
            edit.decline(node, "its weights are not constants")
            continue
        why = _not_patches(node, weight)
        if why:
            edit.decline(node, f"not a patch embedding: {why}")
            continue
        _rewrite(edit, node, weight, bias if bias.size else np.zeros(len(weight)))


def _not_patches(node: ir.Node, weight: Array) -> str:
    if weight.ndim != 4:
        return f"{weight.ndim - 2} spatial axes"
    kernel = list(weight.shape[2:])
    strides = list(attribute(node, "strides", [1, 1]))
    if strides != kernel:
        return f"kernel {kernel}, stride {strides}"
    if attribute(node, "group", 1) != 1:
        return f"{attribute(node, 'group', 1)} groups"
    if any(d != 1 and k != 1 for d, k in zip(attribute(node, "dilations", [1, 1]), kernel, strict=True)):
        return "dilated"
    auto_pad = attribute(node, "auto_pad", "NOTSET")
    x = node.inputs[0]
    assert x is not None
    exact = all(d % k == 0 for d, k in zip(shape_of(x)[2:], kernel, strict=True))
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return "" if exact else "padded"
    return "padded" if any(attribute(node, "pads", [0])) else ""


def _rewrite(edit: GraphEdit, node: ir.Node, weight: Array, bias: Array) -> None:
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    batch, channels, height, width = shape_of(x)
    features, _, ph, pw = weight.shape
    rows, columns = height // ph, width // pw
    edit.at = node
    name = edit.take_name(node)
    image = edit.transpose(x, [0, 2, 3, 1], f"{name}.channels_last")
    if (rows * ph, columns * pw) != (height, width):  # what the stride leaves over at the bottom and right
        bounds = [
            edit.constant(np.array(v, np.int64), f"{name}.cut") for v in ([0, 0], [rows * ph, columns * pw], [1, 2])
        ]
        image = edit.emit("Slice", [image, *bounds], [batch, rows * ph, columns * pw, channels], f"{name}.cut")
    blocks = edit.reshape(image, [batch * rows, ph, columns, pw, channels], f"{name}.blocks")
    patches = edit.transpose(blocks, [0, 2, 1, 3, 4], f"{name}.patches")
    flat = edit.reshape(patches, [batch * rows * columns, ph * pw * channels], f"{name}.rows")
    dense = edit.emit(
        "Gemm",
        [
            flat,
            edit.constant(weight.transpose(0, 2, 3, 1).reshape(features, -1), f"{name}.weight"),
            edit.constant(bias.reshape(-1), f"{name}.bias"),
        ],
        [batch * rows * columns, features],
        name,
        {"transB": 1},
    )
    tokens = edit.reshape(dense, [batch, rows, columns, features], f"{name}.grid")
    edit.replace(out, edit.transpose(tokens, [0, 3, 1, 2], f"{name}.channels_first"))
