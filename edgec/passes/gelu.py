# SPDX-License-Identifier: Apache-2.0
"""GELU as one node (Hendrycks and Gimpel 2016), however the exporter wrote it.

The many ways to write it (the factor before or after, x*(1+erf), x*0.5*(1+erf), Pow or Mul for the cube) are
not listed: a region of elementwise nodes with one input and scalar constants is a function of one variable,
and it is GELU when its values are.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import Array, GraphEdit, is_static, scalar_of, shape_of

_GRID = np.linspace(-8.0, 8.0, 257)
_TOLERANCE = 1e-5  # constants are float32; the erf and the tanh form differ by 5e-4
_ERF = np.array([math.erf(v) for v in _GRID / math.sqrt(2.0)])
_FORMS = {
    "none": 0.5 * _GRID * (1.0 + _ERF),
    "tanh": 0.5 * _GRID * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (_GRID + 0.044715 * _GRID**3))),
}
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "Erf", "Tanh", "Neg")
_MAX_STEPS = 12


def fuse_gelu(edit: GraphEdit) -> None:
    """Make every GELU one Gelu node.

    Requires: folded constants, static shapes.
    Ensures: Gelu with approximate "none" or "tanh" in place of each region around Erf or Tanh that computes
        it.
    """
    for node in edit.nodes("Erf", "Tanh"):
        match = _match(node)
        if match is not None:
            x, out, form = match
            edit.at = out.producer()
            name = f"{node.name}.gelu" if node.name else "gelu"
            attributes = {"approximate": form}
            edit.replace(out, edit.emit("Gelu", [x], shape_of(x), name, attributes))
        elif node.op_type == "Erf":
            edit.decline(node, "the nodes around it do not compute GELU")


def _match(node: ir.Node) -> tuple[ir.Value, ir.Value, str] | None:
    for out in _descendants(node.outputs[0]):
        if is_static(out):
            for x in _ancestors(node.inputs[0]):
                if is_static(x) and shape_of(x) == shape_of(out):
                    form = _form(x, out)
                    if form is not None:
                        return x, out, form
    return None


def _descendants(value: ir.Value) -> list[ir.Value]:
    """Values computed elementwise from `value`, nearest first."""
    found, producer = [value], value.producer()
    for v in found:
        for use in v.uses():
            node = use.node
            reached = node.op_type in _ELEMENTWISE and producer is not None and node.graph is producer.graph
            if reached and len(found) < _MAX_STEPS and node.outputs[0] not in found:
                found.append(node.outputs[0])
    return found[1:]


def _ancestors(value: ir.Value | None) -> list[ir.Value]:
    """Values from which `value` is computed elementwise, nearest first."""
    found = [] if value is None else [value]
    for v in found:
        node = v.producer()
        if node is not None and node.op_type in _ELEMENTWISE and len(found) < _MAX_STEPS:
            for i in node.inputs:
                if i is not None and scalar_of(i) is None and i not in found:
                    found.append(i)
    return found


def _form(x: ir.Value, out: ir.Value) -> str | None:
    values = _evaluate(out, {id(x): _GRID}, 3 * _MAX_STEPS)
    if values is None:
        return None
    return next((form for form, exact in _FORMS.items() if np.abs(values - exact).max() < _TOLERANCE), None)


def _evaluate(value: ir.Value | None, known: dict[int, Array], steps: int) -> Array | None:
    """`value` over the grid as a function of the known ones; None when it depends on anything else."""
    if value is None or steps <= 0:
        return None
    if id(value) in known:
        return known[id(value)]
    constant, node = scalar_of(value), value.producer()
    if constant is not None:
        return np.full_like(_GRID, constant)
    if node is None or node.op_type not in _ELEMENTWISE:
        return None
    inputs: list[Array] = []
    for v in node.inputs:
        evaluated = _evaluate(v, known, steps - 1)
        if evaluated is None:
            return None
        inputs.append(evaluated)
    with np.errstate(all="ignore"):
        known[id(value)] = result = _apply(node.op_type, inputs)
    return result


def _apply(op_type: str, inputs: list[Array]) -> Array:
    match op_type:
        case "Add":
            return np.asarray(inputs[0] + inputs[1])
        case "Sub":
            return np.asarray(inputs[0] - inputs[1])
        case "Mul":
            return np.asarray(inputs[0] * inputs[1])
        case "Div":
            return np.asarray(inputs[0] / inputs[1])
        case "Pow":
            return np.asarray(inputs[0] ** inputs[1])
        case "Tanh":
            return np.tanh(inputs[0])
        case "Neg":
            return np.asarray(-inputs[0])
        case _:
            return np.array([math.erf(v) if math.isfinite(v) else math.nan for v in inputs[0]])
