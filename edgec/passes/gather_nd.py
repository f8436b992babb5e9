# SPDX-License-Identifier: Apache-2.0
"""GatherND with constant indices is Gather of the leading axes taken together."""

from __future__ import annotations

import math

import numpy as np

from edgec.passes.graph_edit import GraphEdit, array_of, attribute, is_static, shape_of


def lower_gather_nd(edit: GraphEdit) -> None:
    """Replace GatherND by Reshape and Gather.

    Requires: folded constants, static shapes.
    Ensures: no GatherND with constant indices and batch_dims 0 is left.
    """
    for node in edit.nodes("GatherND"):
        x, indices, out = node.inputs[0], array_of(node.inputs[1]), node.outputs[0]
        if x is None or not (is_static(x) and is_static(out)):
            continue
        if indices is None or attribute(node, "batch_dims", 0):
            edit.decline(node, "its indices are computed, or it has batch axes")
            continue
        shape, depth = shape_of(x), indices.shape[-1]
        lead = np.array(shape[:depth], np.int64)
        strides = np.array([math.prod(shape[i + 1 : depth]) for i in range(depth)], np.int64)
        flat = (np.where(indices < 0, indices + lead, indices) * strides).sum(axis=-1)
        edit.at = node
        name = edit.take_name(node)
        rows = edit.reshape(x, (math.prod(shape[:depth]), *shape[depth:]), f"{name}.in")
        picked = edit.constant(flat.astype(np.int64), f"{name}.indices")
        edit.replace(out, edit.emit("Gather", [rows, picked], shape_of(out), name, {"axis": 0}))
