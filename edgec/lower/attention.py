# SPDX-License-Identifier: Apache-2.0
"""Attention on the integer graph: product, softmax and product become one `attention_s8`, without the copies around it.

The lowering writes `matmul_s8 -> softmax_s8 -> matmul_s8` on copies that bring the heads outermost. `attention_s8`
takes heads as dense layers leave them, so q, k and v come from where the copies read, and y goes where they wrote. An
operand that does not lie so is copied, once, as before. What does not fit stays, but a copy that only transposes a
right operand becomes the attribute `transpose_b`. The bits are the same in every case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgec.lower.graph import DOMAIN
from edgec.lower.value_types import result_type, value_types
from edgec.model import Model
from edgec.operators import TensorType, get_operator
from edgec.operators.integer import product

Places = npt.NDArray[np.int64]
"""Where each element of a tensor lies in another one, flat, in the shape of the first."""


def fuse_attention(model: Model) -> Model:
    """The integer graph of `model` with attention fused and transposed right operands taken as they lie; in place."""
    graph = _Graph(model.proto.graph)
    for mix in graph.of("matmul_s8"):
        found = _match(graph, mix)
        if found is not None:
            _fuse(graph, found)
    for node in graph.of("matmul_s8"):
        _take_transposed(graph, node)
    graph.finish()
    return model


@dataclass(frozen=True)
class _Found:
    """One attention: the three nodes, and (tensor, places in it as [rows, heads, width]) of q, k and v."""

    score: onnx.NodeProto
    softmax: onnx.NodeProto
    mix: onnx.NodeProto
    operands: tuple[tuple[str, Places], ...]


class _Graph:
    """The proto's graph with the type of every value, and who makes and reads it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes = list(graph.node)
        self.constants = {t.name: t for t in graph.initializer}
        self.outputs = {o.name for o in graph.output}
        self.producers = {o: n for n in self.nodes for o in n.output}
        self.types = value_types(graph)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Nodes that read `name`."""
        return [n for n in self.nodes if name in n.input]

    def of(self, op: str) -> list[onnx.NodeProto]:
        """Nodes of an operator."""
        return [n for n in self.nodes if n.op_type == op]

    def made_by(self, name: str, op: str) -> onnx.NodeProto | None:
        """The node `op` of which `name` is the result, under whatever shape; None where anybody else reads it."""
        while True:
            node = self.producers.get(name)
            if node is None or name in self.outputs or len(self.readers(name)) != 1:
                return None
            if node.op_type != "Reshape":
                return node if node.op_type == op else None
            name = node.input[0]

    def origin(self, name: str) -> tuple[str, Places]:
        """The tensor that `name` is a moved part of, and where its elements lie there."""
        shape, chain = self.types[name].shape, []
        while (node := self.producers.get(name)) is not None and node.op_type in ("Reshape", "strided_copy_s8"):
            chain.append(node)
            name = node.input[0]
        places = np.arange(product(self.types[name].shape), dtype=np.int64)
        for node in reversed(chain):
            if node.op_type != "Reshape":
                moved = get_operator(node.op_type).reference(places.ravel(), **attributes(node))
                places = np.asarray(moved, np.int64)
        return name, places.reshape(shape)

    def insert(self, before: onnx.NodeProto, node: onnx.NodeProto) -> str:
        """Put `node` before another; the name of its result."""
        self.nodes.insert(next(i for i, n in enumerate(self.nodes) if n is before), node)
        self.producers[node.output[0]] = node
        self.types[node.output[0]] = result_type(node, self.types, self.constants)
        return str(node.output[0])

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        """Add an initializer."""
        tensor = numpy_helper.from_array(array, self._unique(name))
        self.graph.initializer.append(tensor)
        self.constants[tensor.name] = tensor
        self.types[tensor.name] = TensorType.of(array)
        return str(tensor.name)

    def view(self, before: onnx.NodeProto, name: str, shape: tuple[int, ...], output: str = "") -> str:
        """`name` under another shape."""
        if self.types[name].shape == shape and not output:
            return name
        result = output or self._unique(f"{name}.as")
        dims = self.constant(f"{result}.shape", np.array(shape, np.int64))
        return self.insert(before, helper.make_node("Reshape", [name, dims], [result], name=result))

    def moved(self, before: onnx.NodeProto, name: str, places: Places, output: str = "") -> str:
        """The elements of `name` at `places`, as they lie or copied; the result has the shape of `places`."""
        if is_identity(places, product(self.types[name].shape)):
            return self.view(before, name, places.shape, output)
        offset, strides = evenly_spaced(places) or (0, ())
        flat = self.view(before, name, (product(self.types[name].shape),))
        result = output or self._unique(f"{name}.moved")
        copy = helper.make_node(
            "strided_copy_s8", [flat], [result], name=before.name, domain=DOMAIN,
            offset=offset, shape=list(places.shape), strides=list(strides),
        )  # fmt: skip
        return self.insert(before, copy)

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out: another one makes its result."""
        self.nodes = [n for n in self.nodes if n is not node]

    def finish(self) -> None:
        """Write the graph without what nobody reads."""
        read = set(self.outputs)
        kept = []
        for node in self.of("Reshape"):  # a view of a view is one of what lies below: TVM would copy between the two
            while (below := self.producers.get(node.input[0])) is not None and below.op_type == "Reshape":
                node.input[0] = below.input[0]
        for node in reversed(self.nodes):
            if read.intersection(node.output):
                read.update(node.input)
                kept.append(node)
        del self.graph.node[:]
        self.graph.node.extend(reversed(kept))
        tensors = [t for t in self.graph.initializer if t.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(tensors)

    def _unique(self, name: str) -> str:
        candidate, n = name, 1
        while candidate in self.types:
            candidate, n = f"{name}.{n}", n + 1
        return candidate


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of an integer operator."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def is_identity(places: Places, size: int) -> bool:
    """Whether the elements at `places` are all `size` elements of a tensor, as they lie."""
    return places.size == size and np.array_equal(places.ravel(), np.arange(size))


def evenly_spaced(places: Places) -> tuple[int, tuple[int, ...]] | None:
    """(offset, stride of each axis) when `places` is evenly spaced along every axis."""
    offset, strides = int(places.flat[0]), []
    for axis, size in enumerate(places.shape):
        second = [0] * places.ndim
        second[axis] = min(1, size - 1)
        strides.append(int(places[tuple(second)]) - offset)
    grid = np.full((), offset, np.int64)
    for size, stride in zip(places.shape, strides, strict=True):
        grid = grid[..., None] + np.arange(size) * stride
    return (offset, tuple(strides)) if np.array_equal(grid, places) else None


def _match(graph: _Graph, mix: onnx.NodeProto) -> _Found | None:
    """The attention that ends at `mix`."""
    if any(attributes(mix).values()):  # wide, or b transposed
        return None
    softmax = graph.made_by(mix.input[0], "softmax_s8")
    score = graph.made_by(softmax.input[0], "matmul_s8") if softmax is not None else None
    if softmax is None or score is None or any(attributes(score).values()):
        return None
    heads, rows, keys = graph.types[score.output[0]].shape
    if graph.types[softmax.output[0]].shape[1] != keys or graph.types[mix.input[0]].shape != (heads, rows, keys):
        return None
    operands = []
    for name, order in ((score.input[0], (1, 0, 2)), (score.input[1], (2, 0, 1)), (mix.input[1], (1, 0, 2))):
        tensor, places = graph.origin(name)
        places = places.transpose(order)
        if tensor in graph.constants or graph.types[tensor].dtype != "int8":
            return None
        if not is_identity(places, product(graph.types[tensor].shape)) and evenly_spaced(places) is None:
            return None
        operands.append((tensor, places))
    return _Found(score, softmax, mix, tuple(operands))


def _fuse(graph: _Graph, found: _Found) -> None:
    """Write `attention_s8` before the mix, and what reads the mix on its result."""
    mix = found.mix
    q, k, v = (graph.moved(mix, tensor, places) for tensor, places in found.operands)
    node = helper.make_node(
        "attention_s8",
        [q, k, v, found.score.input[2], found.softmax.input[1], mix.input[2]],
        [f"{mix.output[0]}.rows"],
        name="+".join(dict.fromkeys(n.name for n in (found.score, found.softmax, mix))),
        domain=DOMAIN,
    )
    result = graph.insert(mix, node)
    rows, heads, width = graph.types[result].shape
    # Where element [head, row, i] of the mix lies in the result.
    lies = np.arange(rows * heads * width).reshape(rows, heads, width).transpose(1, 0, 2)
    for reader in _copies_of(graph, mix.output[0]):
        places = lies.ravel()[graph.origin(reader.output[0])[1]]
        if is_identity(places, lies.size):
            graph.remove(reader)
            graph.view(mix, result, places.shape, reader.output[0])
    graph.moved(mix, result, lies, mix.output[0])
    graph.remove(mix)


def _copies_of(graph: _Graph, name: str) -> list[onnx.NodeProto]:
    """Strided copies that read `name` itself, under whatever shape."""
    found = []
    for node in graph.readers(name):
        if node.op_type == "Reshape":
            found += _copies_of(graph, node.output[0])
        elif node.op_type == "strided_copy_s8":
            found.append(node)
    return found


def _take_transposed(graph: _Graph, node: onnx.NodeProto) -> None:
    """Read a right operand that was transposed for `node` from where it was not."""
    if attributes(node).get("transpose_b", 0):
        return
    tensor, places = graph.origin(node.input[1])
    places = places.transpose(0, 2, 1)
    # A matrix of one row or column is its own transpose: then nothing was copied for it.
    if tensor in graph.constants or not is_identity(places, product(graph.types[tensor].shape)):
        return
    node.input[1] = graph.view(node, tensor, places.shape)
    node.attribute.append(helper.make_attribute("transpose_b", 1))
