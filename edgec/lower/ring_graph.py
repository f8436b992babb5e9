# SPDX-License-Identifier: Apache-2.0
"""The integer graph as rings look at it: what makes and reads a value, and which elements data movement put where."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgec.lower.graph import DOMAIN
from edgec.model import value_shapes
from edgec.operators import TensorType, get_operator
from edgec.operators.integer import product

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
"""Elements by number, over all values of the graph that are more than other ones' elements moved."""

_MOVES = ("Reshape", "strided_copy_s8", "strided_copy_s16", "concat_s8", "concat_s16", "take_s8")


class RingGraph:
    """A copy of an integer graph that is changed node by node.

    Attributes:
        proto: the copy; `finish` writes the nodes back.
        nodes: in any order in which `finish` finds one that runs.
        arrays: the constants.
        types: of every value whose type is known.
        ids: for every value, flat, which elements it consists of.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        graph = self.proto.graph
        self.nodes = list(graph.node)
        self.arrays: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.types = {name: TensorType.of(array) for name, array in self.arrays.items()}
        shapes = value_shapes(self.proto)
        for info in (*graph.input, *graph.value_info, *graph.output):
            dtype = str(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
            if info.name in shapes:
                self.types.setdefault(info.name, TensorType(shapes[info.name], dtype))
        self.makers = {o: n for n in self.nodes for o in n.output}
        for node in self.nodes:
            self._infer(node)
        self.ids: dict[str, Ids] = {}
        self._count = 0
        for name in [i.name for i in graph.input if i.name not in self.arrays]:
            self._new_elements(name)
        for node in self.nodes:
            self._place(node)
        self.rank = {id(n): float(i) for i, n in enumerate(self.nodes)}

    # ---- what is there ----

    def outputs(self) -> list[str]:
        """Names of the graph's outputs."""
        return [o.name for o in self.proto.graph.output]

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Nodes that read `name`."""
        return [n for n in self.nodes if name in n.input]

    def ancestors(self, name: str) -> set[int]:
        """`id` of every node that `name` is computed from."""
        found: set[int] = set()
        queue = [name]
        while queue:
            node = self.makers.get(queue.pop())
            if node is not None and id(node) not in found:
                found.add(id(node))
                queue += node.input
        return found

    def moves(self, node: onnx.NodeProto) -> bool:
        """Whether the elements of the node's result are all elements of its operands."""
        return node.op_type in _MOVES and node.output[0] in self.ids and node.input[0] in self.ids

    # ---- what is added ----

    def constant(self, name: str, array: Array) -> str:
        """Add an initializer."""
        unique = self.name(name)
        self.arrays[unique] = np.ascontiguousarray(array)
        self.types[unique] = TensorType.of(array)
        return unique

    def name(self, stem: str) -> str:
        """A name that no value has."""
        candidate, n = stem, 1
        while candidate in self.types or candidate in self.makers:
            candidate, n = f"{stem}.{n}", n + 1
        return candidate

    def add(self, op: str, inputs: Sequence[str], node: str, result: str, at: float, **attrs: Any) -> str:
        """Add an integer operator, which computes a part of the ONNX node `node`, or a Reshape.

        `result` is a name that no other node makes; `at` says between which ranks of others it runs where nothing
        else decides.
        """
        domain = "" if op == "Reshape" else DOMAIN
        added = helper.make_node(op, list(inputs), [result], name=node, domain=domain, **attrs)
        self.nodes.append(added)
        self.makers[result] = added
        self.rank[id(added)] = at
        self._infer(added)
        return result

    def view(self, name: str, shape: Sequence[int], at: float) -> str:
        """`name` under another shape."""
        wanted = tuple(int(d) for d in shape)
        if self.types[name].shape == wanted:
            return name
        if name in self.arrays:
            return self.constant(name, self.arrays[name].reshape(wanted))
        while (maker := self.makers.get(name)) is not None and maker.op_type == "Reshape":
            name = maker.input[0]
        if self.types[name].shape == wanted:
            return name
        result = self.name(f"{name}.as")
        return self.add("Reshape", [name, self._dims(name, wanted)], result, result, at)

    def rename(self, name: str, shape: Sequence[int], result: str, at: float) -> None:
        """Make `result`, whose own node is gone, the view of `name` with this shape."""
        self.add("Reshape", [name, self._dims(name, shape)], result, result, at)

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out."""
        self.nodes = [n for n in self.nodes if n is not node]

    def finish(self, before: Sequence[tuple[str, onnx.NodeProto]]) -> onnx.ModelProto:
        """The model with the nodes that are needed, in an order in which they run.

        Args:
            before: values whose readers, of views too, have to run before a node: it replaces their bytes.
        """
        graph = self.proto.graph
        for node in self.nodes:  # a view of a view is one of what lies below: TVM would copy between the two
            while node.op_type == "Reshape" and (below := self.makers.get(node.input[0])) is not None:
                if below.op_type != "Reshape":
                    break
                node.input[0] = below.input[0]
        nodes = self._needed()
        order = self._sorted(nodes, before)
        del graph.node[:]
        graph.node.extend(order)
        read = {name for n in order for name in n.input} | set(self.outputs())
        del graph.initializer[:]
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in self.arrays.items() if n in read)
        # What ONNX says of float nodes stays, for those that have none but this to know their results by.
        touched = {name for n in order for name in (*n.input, *n.output)} - {t.name for t in graph.initializer}
        told = [v.name for v in graph.value_info if v.name in touched - set(self.outputs())]
        graph.value_info.extend(
            helper.make_tensor_value_info(v, helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype)), kind.shape)
            for v, kind in ((v, self.types[v]) for v in told)
        )
        return self.proto

    def _needed(self) -> list[onnx.NodeProto]:
        queue, kept = self.outputs(), set()
        while queue:
            node = self.makers.get(queue.pop())
            if node is not None and id(node) not in kept:
                kept.add(id(node))
                queue += node.input
        return [n for n in self.nodes if id(n) in kept]

    def _sorted(
        self, nodes: Sequence[onnx.NodeProto], before: Sequence[tuple[str, onnx.NodeProto]]
    ) -> list[onnx.NodeProto]:
        waits = {id(n): {id(m) for i in n.input if (m := self.makers.get(i)) is not None} for n in nodes}
        for value, last in before:
            values = {value}
            for node in [*nodes, *nodes] if id(last) in waits else []:  # views first
                if node is not last and values.intersection(node.input):
                    waits[id(last)].add(id(node))
                    values.update(node.output if node.op_type == "Reshape" else [])
        held: dict[int, list[int]] = {}
        for reader, others in waits.items():
            for other in others:
                held.setdefault(other, []).append(reader)
        ready = [(self.rank[id(n)], i) for i, n in enumerate(nodes) if not waits[id(n)]]
        place, order = {id(n): i for i, n in enumerate(nodes)}, []
        heapq.heapify(ready)
        while ready:
            _, i = heapq.heappop(ready)
            order.append(nodes[i])
            for reader in held.get(id(nodes[i]), []):
                waits[reader].discard(id(nodes[i]))
                if not waits[reader]:
                    heapq.heappush(ready, (self.rank[reader], place[reader]))
        if len(order) != len(nodes):
            raise AssertionError("a ring is written before all that reads its past")
        return order

    # ---- types and elements ----

    def _dims(self, name: str, shape: Sequence[int]) -> str:
        return self.constant(f"{name}.shape", np.array(list(shape), np.int64))

    def _infer(self, node: onnx.NodeProto) -> None:
        if any(name and name not in self.types for name in node.input):
            return
        if node.op_type == "Reshape" and node.input[1] in self.arrays:
            shape = tuple(int(d) for d in self.arrays[node.input[1]])
            self.types[node.output[0]] = TensorType(shape, self.types[node.input[0]].dtype)
        elif node.domain == DOMAIN:
            types = [self.types[name] for name in node.input]
            self.types[node.output[0]] = get_operator(node.op_type).infer(types, **attributes(node))

    def _new_elements(self, name: str) -> None:
        if name in self.types:
            size = product(self.types[name].shape)
            self.ids[name] = np.arange(self._count, self._count + size, dtype=np.int64)
            self._count += size

    def _place(self, node: onnx.NodeProto) -> None:
        if node.op_type.startswith("concat_s"):
            for name in node.input:  # a constant may be what comes new
                if name in self.arrays and name not in self.ids:
                    self._new_elements(name)
        known = [self.ids.get(name) for name in node.input[:2]]
        if node.op_type == "Reshape" and known[0] is not None:
            self.ids[node.output[0]] = known[0]
        elif node.op_type.startswith("strided_copy_s") and known[0] is not None:
            moved = get_operator(node.op_type).reference(known[0], **attributes(node))
            self.ids[node.output[0]] = np.asarray(moved, np.int64).ravel()
        elif node.op_type.startswith("concat_s") and known[0] is not None and known[1] is not None:
            parts = [i.reshape(self.types[n].shape) for i, n in zip(known, node.input, strict=True) if i is not None]
            self.ids[node.output[0]] = np.concatenate(parts, axis=1).ravel()
        elif node.op_type == "take_s8" and known[0] is not None and (self.arrays[node.input[1]] >= 0).all():
            taken = known[0].reshape(self.types[node.input[0]].shape)[:, self.arrays[node.input[1]]]
            self.ids[node.output[0]] = taken.ravel()
        else:
            for name in node.output:
                self._new_elements(name)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
