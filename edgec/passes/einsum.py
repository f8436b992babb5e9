# SPDX-License-Identifier: Apache-2.0
"""Einsum as transposes, products and sums."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import GraphEdit, array_of, attribute, is_float32, is_static, shape_of


@dataclass(frozen=True)
class _Term:
    """A value whose axes have labels, each label once."""

    value: ir.Value
    labels: str

    def size(self, labels: str) -> list[int]:
        shape = shape_of(self.value)
        return [shape[self.labels.index(c)] for c in labels]


def lower_einsum(edit: GraphEdit) -> None:
    """Replace Einsum by Transpose, Reshape, MatMul, Mul and ReduceSum.

    Requires: folded constants, static shapes.
    Ensures: no float32 Einsum of distinct labels in each operand and sizes that agree is left (a diagonal stays one).
        Operands are contracted from left to right; a matrix of weights is the right operand.
    """
    for node in edit.nodes("Einsum"):
        if not all(v is not None and is_static(v) and is_float32(v) for v in (*node.inputs, node.outputs[0])):
            continue
        parsed = _parse(node)
        if parsed is None:
            edit.decline(node, "it takes a diagonal, or broadcasts sizes that differ")
            continue
        terms, result = parsed
        edit.at = node
        name = edit.take_name(node)
        for i in range(1, len(terms)):
            later = set(result).union(*(t.labels for t in terms[i + 1 :]))
            terms[i] = _contract(edit, terms[i - 1], terms[i], later, f"{name}.{i}")
        done = _arranged(edit, _summed(edit, terms[-1], set(result), name), result, f"{name}.out")
        edit.replace(node.outputs[0], done.value)


def _parse(node: ir.Node) -> tuple[list[_Term], str] | None:
    """Operands with their labels and the labels of the result; None for what has no such form."""
    equation = "".join(str(attribute(node, "equation", "")).split())
    left, arrow, result = equation.partition("->")
    values = [v for v in node.inputs if v is not None]
    subscripts = left.split(",")
    if len(subscripts) != len(values):
        return None
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in equation]
    widest = max(len(shape_of(v)) - len(s.replace("...", "")) for v, s in zip(values, subscripts, strict=True))
    ellipsis = "".join(spare[: max(widest, 0)])
    if not arrow:
        once = sorted(c for c in set(left) - set(".,") if left.count(c) == 1)
        result = ("..." if "..." in left else "") + "".join(once)
    terms = []
    for value, subscript in zip(values, subscripts, strict=True):
        more = len(shape_of(value)) - len(subscript.replace("...", ""))
        if more < 0 or (more > 0 and "..." not in subscript):
            return None
        terms.append(_Term(value, subscript.replace("...", ellipsis[len(ellipsis) - more :])))
    result = result.replace("...", ellipsis)
    sizes: dict[str, int] = {}
    for term in terms:
        if len(set(term.labels)) != len(term.labels):
            return None
        for label, size in zip(term.labels, shape_of(term.value), strict=True):
            if sizes.setdefault(label, size) != size:
                return None
    return (terms, result) if set(result) <= set(sizes) and len(set(result)) == len(result) else None


def _contract(edit: GraphEdit, a: _Term, b: _Term, later: set[str], name: str) -> _Term:
    """The product of two terms, summed over the labels that nothing later needs."""
    a = _summed(edit, a, later | set(b.labels), f"{name}.a")
    b = _summed(edit, b, later | set(a.labels), f"{name}.b")
    if array_of(a.value) is not None:  # weights go to the right
        a, b = b, a
    shared = [c for c in a.labels if c in b.labels]
    batch = "".join(c for c in shared if c in later)
    summed = "".join(c for c in shared if c not in later)
    rows = "".join(c for c in a.labels if c not in shared)
    columns = "".join(c for c in b.labels if c not in shared)
    if not summed:
        return _multiplied(edit, a, b, batch + rows, columns, name)
    sizes = [a.size(batch), a.size(rows), a.size(summed), b.size(columns)]
    lead = [math.prod(sizes[0])] if batch else []
    m, k, n = (math.prod(s) for s in sizes[1:])
    left = edit.reshape(_arranged(edit, a, batch + rows + summed, f"{name}.a").value, (*lead, m, k), f"{name}.a.rows")
    right = _arranged(edit, b, batch + summed + columns, f"{name}.b").value
    right = _constant_reshaped(edit, right, (*lead, k, n), f"{name}.b.columns")
    product = edit.emit("MatMul", [left, right], (*lead, m, n), name)
    shape = (*sizes[0], *sizes[1], *sizes[3])
    return _Term(edit.reshape(product, shape, f"{name}.axes"), batch + rows + columns)


def _multiplied(edit: GraphEdit, a: _Term, b: _Term, lead: str, columns: str, name: str) -> _Term:
    """An elementwise product: a over `lead`, b spread over the labels that it lacks."""
    sizes = dict(zip(a.labels, shape_of(a.value), strict=True)) | dict(zip(b.labels, shape_of(b.value), strict=True))
    labels = lead + columns
    parts = []
    for term, which in ((a, "a"), (b, "b")):
        ordered = "".join(c for c in labels if c in term.labels)
        value = _arranged(edit, term, ordered, f"{name}.{which}").value
        spread = [sizes[c] if c in term.labels else 1 for c in labels]
        parts.append(_constant_reshaped(edit, value, spread, f"{name}.{which}.axes"))
    return _Term(edit.emit("Mul", parts, [sizes[c] for c in labels], name), labels)


def _summed(edit: GraphEdit, term: _Term, kept: set[str], name: str) -> _Term:
    axes = [i for i, c in enumerate(term.labels) if c not in kept]
    if not axes:
        return term
    labels = "".join(c for c in term.labels if c in kept)
    constant = edit.constant(np.array(axes, np.int64), f"{name}.axes")
    value = edit.emit("ReduceSum", [term.value, constant], term.size(labels), f"{name}.sum", {"keepdims": 0})
    return _Term(value, labels)


def _arranged(edit: GraphEdit, term: _Term, labels: str, name: str) -> _Term:
    """The term with its axes in the order of `labels`."""
    if term.labels == labels:
        return term
    perm = [term.labels.index(c) for c in labels]
    array = array_of(term.value)
    if array is not None:
        return _Term(edit.constant(np.ascontiguousarray(array.transpose(perm)), f"{name}.transposed"), labels)
    return _Term(edit.transpose(term.value, perm, f"{name}.transposed"), labels)


def _constant_reshaped(edit: GraphEdit, value: ir.Value, shape: tuple[int, ...] | list[int], name: str) -> ir.Value:
    array = array_of(value)
    if array is None or array.shape == tuple(shape):
        return edit.reshape(value, shape, name)
    return edit.constant(array.reshape(shape), name)
