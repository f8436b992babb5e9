# SPDX-License-Identifier: Apache-2.0
"""Runs a rule on the bytes as they lie, where the operator does not care: elementwise pairs, concat, reductions.

Everything else gets its operands in ONNX order, from `Site.value`, which copies what lies in another one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from edgec.lower.graph import Array, NotIntegerError, Order, Stored, Value
from edgec.lower.rules import Rule, Site

BROADCASTING = frozenset(["Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "PRelu"])
REDUCING = frozenset(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])


def in_storage_order(rule: Rule, site: Site) -> Stored:
    """The rule's result: computed in the order in which the operands lie, if the operator allows it."""
    order = _order(site)
    if order and site.node.op_type in BROADCASTING:
        framed = replace(
            site, operands=[_framed(site, o, order) for o in site.operands], shape=_permuted(site.shape, order)
        )
        return Stored(_tensor(rule(framed)), order)
    if order and site.node.op_type == "Concat":
        axis = site.attribute("axis", 0) % len(site.shape)
        framed = replace(
            site,
            node=_with_axis(site.node, order.index(axis)),
            operands=[_framed(site, o, order) for o in site.operands],
            shape=_permuted(site.shape, order),
        )
        return Stored(_tensor(rule(framed)), order)
    if order and site.node.op_type in REDUCING:
        try:
            return _reduced(rule, site, order)
        except NotIntegerError:
            pass  # axes that are adjacent in ONNX order alone
    result = rule(site)
    return result if isinstance(result, Stored) else Stored(result, ())


def _order(site: Site) -> Order:
    """The order in which the first operand of full rank lies that is not in ONNX order; () when there is none."""
    for operand in site.operands:
        whole = isinstance(operand, Value) and (site.node.op_type not in BROADCASTING or operand.shape == site.shape)
        if whole and isinstance(operand, Value) and not operand.lies_in(()):
            return operand.order
    if any(isinstance(o, Value) and not o.lies_in(()) for o in site.operands):
        return tuple(range(len(site.shape)))  # none of full rank: all in ONNX order
    return ()


def _permuted(shape: tuple[int, ...], order: Order) -> tuple[int, ...]:
    return tuple(shape[a] for a in order)


def _framed(site: Site, operand: Value | Array | None, order: Order) -> Value | Array | None:
    """The operand as if its stored shape were its shape."""
    if operand is None:
        return None
    if not isinstance(operand, Value):
        return _widened(operand, len(order)).transpose(order)
    if operand.data is not None:
        data = _widened(operand.data, len(order)).transpose(order)
        return Value(None, data.shape, operand.quant, np.ascontiguousarray(data))
    added = len(order) - len(operand.shape)
    if added:
        shifted = (*range(added), *(a + added for a in operand.order)) if operand.order else ()
        operand = replace(operand, shape=(1,) * added + operand.shape, order=shifted)
    lying = site.graph.in_order(operand, order, site.node.name)
    return Value(lying.tensor, lying.stored_shape, lying.quant)


def _widened(array: Array, rank: int) -> Array:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _reduced(rule: Rule, site: Site, order: Order) -> Stored:
    x, axes = site.stored(0), site.real(1)
    if axes is None and site.attribute("axes", None) is not None:
        axes = np.array(site.attribute("axes", None), np.float64)
    if axes is None or not axes.size:
        raise NotIntegerError("it reduces everything")
    reduced = {int(a) % len(order) for a in axes.ravel()}
    places = np.array(sorted(order.index(a) for a in reduced), np.float64)
    kept = (
        list(range(len(order))) if site.attribute("keepdims", 1) else [a for a in range(len(order)) if a not in reduced]
    )
    result_order = tuple(kept.index(a) for a in order if a in kept)
    node = onnx.NodeProto()
    node.CopyFrom(site.node)
    for attribute in [a for a in node.attribute if a.name == "axes"]:
        node.attribute.remove(attribute)
    framed = replace(
        site, node=node, operands=[_framed(site, x, order), places], shape=_permuted(site.shape, result_order)
    )
    return Stored(_tensor(rule(framed)), result_order)


def _with_axis(node: onnx.NodeProto, axis: int) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for attribute in [a for a in copy.attribute if a.name == "axis"]:
        copy.attribute.remove(attribute)
    copy.attribute.append(helper.make_attribute("axis", axis))
    return copy


def _tensor(result: str | Stored) -> str:
    if isinstance(result, Stored):
        raise AssertionError("a rule of an operator without a preferred order chose one")
    return result
