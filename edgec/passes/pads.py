# SPDX-License-Identifier: Apache-2.0
"""Explicit zero padding before a convolution (as TensorFlow's SAME is exported) becomes the convolution's own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import GraphEdit, array_of, attribute, input_of, is_static, only_consumer, shape_of


def fold_pads(edit: GraphEdit) -> None:
    """Fold a Pad by zeros along spatial axes into the Conv that is its only reader.

    Requires: folded constants, static shapes.
    Ensures: no such Pad before a Conv without auto_pad is left.
    """
    for node in edit.nodes("Conv"):
        x = node.inputs[0]
        pad = None if x is None else x.producer()
        if x is None or pad is None or pad.op_type != "Pad" or only_consumer(x) is not node:
            continue
        added = _zero_pads(pad)
        if added is None or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            continue
        spatial = len(added) // 2
        own = [0] * 2 * spatial
        if attribute(node, "auto_pad", "NOTSET") == "NOTSET":
            own = list(attribute(node, "pads", own))
        attributes = {a.name: a for a in node.attributes.values() if a.name not in ("pads", "auto_pad")}
        edit.at = node
        name, out = edit.take_name(node), node.outputs[0]
        pads = [a + b for a, b in zip(own, added, strict=True)]
        inputs = [pad.inputs[0], *node.inputs[1:]]
        edit.replace(out, edit.emit("Conv", inputs, shape_of(out), name, {**attributes, "pads": pads}))


def _zero_pads(pad: ir.Node) -> list[int] | None:
    """Pads of the spatial axes, all starts and then all ends; None for a Pad that does anything else."""
    x, amounts, value, given = pad.inputs[0], array_of(pad.inputs[1]), input_of(pad, 2), input_of(pad, 3)
    if attribute(pad, "mode", "constant") != "constant" or amounts is None or not is_static(x):
        return None
    fill = 0.0 if value is None else array_of(value)
    if fill is None or np.any(np.asarray(fill) != 0) or (amounts < 0).any():
        return None
    assert x is not None
    rank = len(shape_of(x))
    axes = np.arange(rank) if given is None else array_of(given)
    if axes is None:
        return None
    both = np.zeros((2, rank), np.int64)
    both[:, axes.astype(np.int64) % rank] = amounts.reshape(2, -1)
    return None if both[:, :2].any() else [int(v) for v in both[:, 2:].ravel()]
