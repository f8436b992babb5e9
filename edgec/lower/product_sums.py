# SPDX-License-Identifier: Apache-2.0
"""Sums of dense layers as one product: inputs side by side as bytes, weights too, one accumulator, one rounding."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx

from edgec.lower.graph import IntegerGraph, NotIntegerError, Source
from edgec.lower.rules import Product, Site, emit_linear, product_of, transposes
from edgec.lower.rules_int16 import emit_linear16, is_wide, widened
from edgec.lower.weights import requantize_constants
from edgec.passes.product_sum_form import ProductSum, find_product_sums

SAME_SCALE = 1e-6
"""How far apart, relative to them, scales of one accumulator may be: the roundings of float32."""


def sums_of(source: Source) -> list[ProductSum]:
    """The sums of layers of a QDQ graph between which nothing is quantized."""
    constants = {
        node.output[0]
        for node in source.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in source.arrays
    }

    def is_product(node: onnx.NodeProto) -> bool:
        return node.op_type == "Gemm" and not node.domain and node.input[1] in constants

    return find_product_sums(
        source.graph.node, source.shapes, lambda v: source.consumers.get(v, []), source.outputs, is_product
    )


def product_sum(site: Site, layers: Sequence[Site]) -> str:
    """`linear_s8` of the inputs of all layers side by side: int8 as they are, for one accumulator takes any of them.

    The zero point of each input is in the bias; a layer's scale of input and weights, channel by channel, must be
    that of the others. `linear_s16` if an input, weights or the result are int16.

    Raises:
        NotIntegerError: scales that differ, or an accumulator that could leave 32 bits.
        ValueError: of int16, one for which 64 bits are not proven to do.
    """
    int16 = any(is_wide(s) for s in (site, *layers))
    if int16:
        layers = [replace(s, operands=[widened(s, s.value(0)), *s.operands[1:]]) for s in layers]
    products = [product_of(layer, transposes(layer)) for layer in layers]
    n = len(products[0].weights)
    scales = [np.broadcast_to(p.x.quant.pair[0] * p.scale, (n,)) for p in products]
    if not all(np.allclose(scale, scales[0], rtol=SAME_SCALE, atol=0) for scale in scales):
        raise NotIntegerError("the layers of the sum have different scales, so that one accumulator cannot hold them")
    rows = [layer.rows(p.x, p.weights.shape[1]) for layer, p in zip(layers, products, strict=True)]
    order, tensor = side_by_side(site.graph, site.node.name, rows)
    weights = np.concatenate([products[i].weights for i in order], axis=1)
    real_bias = sum((_bias(p, n) for p in products), np.zeros(n))
    if int16:
        return emit_linear16(site, tensor, weights, scales[0], real_bias)
    bias = np.rint(real_bias / scales[0])
    bias -= np.sum([p.x.quant.zero_point * p.weights.sum(axis=1) for p in products], axis=0)
    reach = np.abs(bias) + 128 * np.abs(weights).sum(axis=1)
    vectors, wide = requantize_constants(scales[0], bias, reach, site.quant)
    return emit_linear(site, tensor, weights, vectors, wide)


def _bias(layer: Product, n: int) -> npt.NDArray[np.float64]:
    if layer.bias is None:
        return np.zeros(n)
    if layer.bias.size not in (1, n):
        raise NotIntegerError(f"a bias of {layer.bias.shape} for {n} channels")
    return np.broadcast_to(layer.bias.ravel(), (n,))


def side_by_side(graph: IntegerGraph, node: str, parts: Sequence[str]) -> tuple[list[int], str]:
    """The order in which the parts, [M, K] each, lie side by side, and the tensor; what lies so already is used."""
    left = list(range(len(parts)))

    def taken(names: Collection[str]) -> list[int] | None:
        free, found = list(left), []
        for name in names:
            i = next((i for i in free if parts[i] == name), None)
            if i is None:
                return None
            found.append(i)
            free.remove(i)
        return found

    known = sorted((k for k in graph.joined if taken(k) is not None), key=len)
    order = (taken(known[-1]) or []) if known else [0]
    names = tuple(parts[i] for i in order)
    tensor = graph.joined[names] if known else parts[0]
    for i in left:
        if i in order:
            continue
        order.append(i)
        names = (*names, parts[i])
        op = "concat_s16" if graph.types[tensor].dtype == "int16" else "concat_s8"
        tensor = graph.emit(op, f"{node}.inputs", f"{node}.inputs", [tensor, parts[i]], {})
        graph.joined[names] = tensor
    return order, tensor
