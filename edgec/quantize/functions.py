# SPDX-License-Identifier: Apache-2.0
"""Chains of elementwise nodes that are one function of one tensor: x * Sigmoid(x), x * Relu6(x + 3) / 6.

Lowering makes such a chain one table, so nothing inside it is quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from edgec.lower.tables import ELEMENTWISE


@dataclass(frozen=True)
class Functions:
    """Values inside such chains, and the names of the nodes that make or read them."""

    inner: frozenset[str]
    nodes: frozenset[str]


def find_functions(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, TensorProto],
    readers: Callable[[str], Sequence[NodeProto]],
    apart: Collection[str],
) -> Functions:
    """The chains of a graph.

    Args:
        nodes: in topological order.
        constants: initializers.
        readers: the nodes that read a value.
        apart: values that belong to other forms, and the graph's outputs: never inside a chain.
    """
    ends: set[str] = set()  # results of chains: quantized, so variables of their own to whoever reads them
    while True:
        variable = _variables(nodes, constants, apart, ends)
        inner = {
            value
            for value, source in variable.items()
            if value not in ends
            and value not in apart
            and (users := readers(value))
            and all(variable.get(u.output[0]) == source for u in users)
        }
        if variable.keys() - inner <= ends:
            break
        ends |= variable.keys() - inner
    involved = {n.name for n in nodes if n.output and (n.output[0] in inner or not inner.isdisjoint(n.input))}
    return Functions(frozenset(inner), frozenset(involved))


def _variables(
    nodes: Sequence[NodeProto], constants: Mapping[str, TensorProto], apart: Collection[str], ends: Collection[str]
) -> dict[str, str]:
    """Result of each elementwise node of one variable (and scalars) -> that variable."""
    found: dict[str, str] = {}
    for node in nodes:
        if node.op_type not in ELEMENTWISE or node.domain or any(name in apart for name in node.input):
            continue
        scalars = all(all(d == 1 for d in constants[n].dims) for n in node.input if n in constants)
        sources = {n if n in ends else found.get(n, n) for n in node.input if n and n not in constants}
        if scalars and len(sources) == 1:
            found[node.output[0]] = sources.pop()
    return found
