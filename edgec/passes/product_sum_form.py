# SPDX-License-Identifier: Apache-2.0
"""Sums of dense layers that one accumulator can hold: `Add(Gemm(x), Gemm(h))` and longer ones, nothing between them.

The quantizer rounds nothing inside such a sum, and lowering makes it one product over the inputs side by side. In
the quantized file all products of a sum have one accumulator scale, channel by channel: the scale of their input
times that of their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto


@dataclass(frozen=True)
class ProductSum:
    """One sum.

    Attributes:
        root: the Add that makes its result.
        products: the layers, in the order of the sum.
        inner: results of the layers and partial sums: nobody outside reads them.
    """

    root: NodeProto
    products: tuple[NodeProto, ...]
    inner: frozenset[str]


def find_product_sums(
    nodes: Sequence[NodeProto],
    shapes: Mapping[str, tuple[int, ...]],
    readers: Callable[[str], Sequence[NodeProto]],
    outputs: Collection[str],
    is_product: Callable[[NodeProto], bool],
) -> list[ProductSum]:
    """The sums of a graph, each as long as it can be.

    Args:
        nodes: in topological order.
        shapes: of every value.
        readers: the nodes that read a value, one entry for each operand.
        outputs: values that leave the graph.
        is_product: whether a node is a layer whose result may stay in the accumulator.
    """
    products: dict[str, tuple[NodeProto, ...]] = {}
    partial: dict[str, frozenset[str]] = {}  # result of a sum -> what is inside it
    roots: dict[str, NodeProto] = {}
    for node in nodes:
        if is_product(node):
            products[node.output[0]], partial[node.output[0]] = (node,), frozenset()
        if node.op_type != "Add" or node.domain or not all(name in products for name in node.input):
            continue
        a, b = node.input
        alone = all(len(readers(name)) == 1 and name not in outputs for name in (a, b))
        if alone and shapes.get(a) == shapes.get(b) is not None:
            result = node.output[0]
            products[result] = (*products[a], *products[b])
            partial[result] = partial[a] | partial[b] | {a, b}
            roots[result] = node
            roots.pop(a, None)
            roots.pop(b, None)
    return [ProductSum(root, products[name], partial[name]) for name, root in roots.items()]
