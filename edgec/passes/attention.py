# SPDX-License-Identifier: Apache-2.0
"""The scale of attention (Vaswani et al. 2017) in one place: after the product of queries and keys."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import GraphEdit, array_of, is_static, only_consumer, scale_factor, shape_of
from edgec.passes.movement_maps import is_movement


def move_scales(edit: GraphEdit) -> None:
    """Gather the scalar factors around a product of two activations into one Mul after it.

    (c q)(d k) e = (c d e)(q k), and a factor passes through data movement unchanged.

    Requires: static shapes; Gemm in normal form, so that MatMul is activation x activation.
    Ensures: neither operand of such a MatMul is a scaled value that nobody else reads; its output goes
        through at most one Mul by a scalar initializer.
    """
    for node in edit.nodes("MatMul"):
        if not is_static(node.outputs[0]) or any(array_of(v) is not None for v in node.inputs):
            continue
        before = [_unscale(edit, node.inputs[i]) for i in range(2)]
        factors, last = _scales_after(node)
        total = float(np.prod([*before, *factors]))
        if all(f == 1.0 for f in before) and _is_canonical(node, last, len(factors)):
            continue
        shape = shape_of(node.outputs[0])
        edit.at = last
        names = [edit.take_name(n) for n in ([node] if last is node else [node, last])]
        product = edit.emit("MatMul", list(node.inputs), shape, names[0])
        if total != 1.0:
            factor = edit.constant(np.float32(total), f"{names[0]}.scale")
            name = names[1] if len(names) == 2 else f"{names[0]}.scale"
            product = edit.emit("Mul", [product, factor], shape, name)
        edit.replace(last.outputs[0], product)


def _is_canonical(node: ir.Node, last: ir.Node, factors: int) -> bool:
    if factors == 0:
        return True
    scalar = array_of(last.inputs[1]) if factors == 1 and last.op_type == "Mul" else None
    return scalar is not None and scalar.ndim == 0 and last.inputs[0] is node.outputs[0]


def _unscale(edit: GraphEdit, value: ir.Value | None) -> float:
    """Take the scalar factors off an operand, through the movement between them and the product."""
    total = 1.0
    while value is not None and only_consumer(value) is not None:
        node = value.producer()
        if node is None:
            break
        found = scale_factor(node)
        if found is not None:
            total *= found[1]
            value = found[0]
            edit.at = node
            edit.replace(node.outputs[0], value)
        elif is_movement(node):
            value = node.inputs[0]
        else:
            break
    return total


def _scales_after(node: ir.Node) -> tuple[list[float], ir.Node]:
    """The scalar factors of the nodes that follow one another after `node`, and the last of them."""
    factors: list[float] = []
    last = node
    while True:
        follower = only_consumer(last.outputs[0])
        found = None if follower is None else scale_factor(follower)
        if follower is None or found is None or found[0] is not last.outputs[0]:
            return factors, last
        factors.append(found[1])
        last = follower
