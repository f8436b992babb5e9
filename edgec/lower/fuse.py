# SPDX-License-Identifier: Apache-2.0
"""Integer graph -> integer graph: a dense layer takes the table or the sum behind it into its own call.

A result that one operator alone reads need not exist: it is looked up, or added to, before it leaves the registers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.lower.graph import DOMAIN
from edgec.lower.value_types import value_types
from edgec.model import Model
from edgec.operators.linear import scaled_sum


def fuse_dense(model: Model) -> Model:
    """The integer graph of `lower_to_integers` with `linear_s8` and what follows it fused; the same bits.

    `linear_s8` -> `table_s8` becomes `linear_table_s8`, `linear_s8` -> `add_s8` of two equal shapes becomes
    `linear_add_s8`, where nothing else reads the dense layer's result. Views between them only rename.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    _Fusion(proto.graph, {s.input for s in model.states}).run()
    return Model(proto, model.name, model.sha256, model.states, list(model.notes))


@dataclass(frozen=True)
class _Layer:
    """A `linear_s8` that one node alone reads, and the views between the two."""

    node: onnx.NodeProto
    shape: tuple[int, ...]
    views: tuple[str, ...]


class _Fusion:
    def __init__(self, graph: onnx.GraphProto, states: set[str]) -> None:
        self.graph = graph
        self.states = states
        self.outputs = {o.name for o in graph.output}
        self.arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.makers = {o: n for n in graph.node for o in n.output}
        self.steps = {n.output[0]: i for i, n in enumerate(graph.node)}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.shapes = self._shapes()
        self.gone: set[str] = set()

    def run(self) -> None:
        nodes: list[onnx.NodeProto] = []
        for node in self.graph.node:
            nodes += self._table(node) or self._sum(node) or [node]
        del self.graph.node[:]
        self.graph.node.extend(n for n in nodes if n.output[0] not in self.gone)
        used = {name for n in self.graph.node for name in n.input} | self.outputs
        del self.graph.initializer[:]
        self.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in self.arrays.items() if n in used)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: kind.shape for name, kind in value_types(self.graph).items()}

    def _table(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        layer = self._layer(node.input[0]) if node.op_type == "table_s8" else None
        if layer is None:
            return []
        x, *constants = layer.node.input
        return self._written("linear_table_s8", layer, node, [x, *constants, node.input[1]])

    def _sum(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        if node.op_type != "add_s8" or self.shapes[node.input[0]] != self.shapes[node.input[1]]:
            return []
        found = [(layer, i) for i in (0, 1) if (layer := self._layer(node.input[i])) is not None]
        # Of two layers the later one: the other's result is there by then.
        for layer, i in sorted(found, key=lambda pair: self.steps[pair[0].node.output[0]], reverse=True):
            residual, base = node.input[1 - i], self._base(node.input[1 - i])
            if base in self.states:  # rather replaced in place, by add_s8
                continue
            a_mult, b_mult, offset, shift = self.arrays[node.input[2]]
            sum_params = np.array([b_mult, a_mult, offset, shift] if i else [a_mult, b_mult, offset, shift], np.int32)
            if scaled_sum(sum_params) is None:
                continue
            x, *constants = layer.node.input
            params = self._constant(
                f"{node.name}.sum", np.concatenate([self.arrays[constants[-1]], sum_params]).astype(np.int32)
            )
            before: list[onnx.NodeProto] = []
            if base in self.arrays:
                residual = self._constant(f"{base}.rows", self.arrays[base].reshape(layer.shape))
            elif self.shapes[residual] != layer.shape:
                before, residual = self._view(base, layer.shape)
            inputs = [x, residual, *constants[:-1], params]
            return [*before, *self._written("linear_add_s8", layer, node, inputs)]
        return []

    def _layer(self, name: str) -> _Layer | None:
        """The dense layer whose result `name` is, where that has one reader and is no output."""
        views: list[str] = []
        while len(self.readers.get(name, [])) == 1 and name not in self.outputs:
            maker = self.makers.get(name)
            if maker is None or name in self.gone:
                return None
            if maker.op_type == "linear_s8":
                return _Layer(maker, self.shapes[name], tuple(views))
            if maker.op_type != "Reshape":
                return None
            views.append(name)
            name = maker.input[0]
        return None

    def _base(self, name: str) -> str:
        """What `name` is a view of."""
        while (maker := self.makers.get(name)) is not None and maker.op_type == "Reshape":
            name = maker.input[0]
        return name

    def _written(self, op: str, layer: _Layer, last: onnx.NodeProto, inputs: list[str]) -> list[onnx.NodeProto]:
        """The fused call, in the place of `last`; its result takes the name of the last one's."""
        self.gone.update([layer.node.output[0], *layer.views])
        name, shape = last.output[0], self.shapes[last.output[0]]
        viewed = all(n.op_type == "Reshape" for n in self.readers.get(name, [])) and name not in self.outputs
        same = viewed or shape == layer.shape
        result = name if same else self._unique(f"{name}.rows")
        node = helper.make_node(op, inputs, [result], name=f"{layer.node.name}+{last.name}", domain=DOMAIN)
        node.attribute.extend(layer.node.attribute)
        self.shapes[result] = layer.shape
        return [node] if same else [node, *self._view(result, shape, name)[0]]

    def _view(self, base: str, shape: tuple[int, ...], name: str = "") -> tuple[list[onnx.NodeProto], str]:
        result = name or self._unique(f"{base}.view")
        dims = self._constant(f"{result}.shape", np.array(shape, np.int64))
        self.shapes[result] = shape
        return [helper.make_node("Reshape", [base, dims], [result], name=result)], result

    def _constant(self, name: str, array: np.ndarray) -> str:
        unique = self._unique(name)
        self.arrays[unique], self.shapes[unique] = array, tuple(array.shape)
        return unique

    def _unique(self, name: str) -> str:
        candidate, n = name, 1
        while candidate in self.shapes:
            candidate, n = f"{name}.{n}", n + 1
        return candidate
