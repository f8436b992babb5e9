# SPDX-License-Identifier: Apache-2.0
"""What every pass needs to change a graph: read constants, add nodes with readable names, replace values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]

WISH = "edgec.name"
"""Where values and nodes keep the name that their maker asked for; it may be free again in the end."""


class GraphEdit:
    """A graph being rewritten, and the notes of the rules that declined.

    New nodes go before the node named by `at` (set it to the node being replaced), so that the order stays
    topological. Names are made unique here and nowhere else.
    """

    def __init__(self, model: ir.Model, notes: list[str]) -> None:
        self.model = model
        self.graph = model.graph
        self.at: ir.Node | None = None
        self._notes = notes
        self._values = {v.name for v in (*self.graph.inputs, *self.graph.initializers.values())}
        self._values |= {o.name for n in self.graph for o in n.outputs}
        self._nodes = {n.name for n in self.graph}
        self._fresh: dict[int, ir.Value] = {}  # the values are kept, so that an id means one of them

    def nodes(self, *op_types: str) -> Iterator[ir.Node]:
        """The nodes of these types (all when none is named) in order, without those removed meanwhile."""
        for node in list(self.graph):
            if node.graph is self.graph and node.domain == "" and (not op_types or node.op_type in op_types):
                yield node

    def decline(self, node: ir.Node, why: str) -> None:
        """Note why a rule left `node` as it is."""
        self._notes.append(f"{node.op_type} {node.name}: {why}")

    def note(self, text: str) -> None:
        """Note what was decided, for people."""
        self._notes.append(text)

    def constant(self, array: npt.ArrayLike, name: str) -> ir.Value:
        """A new initializer; float arrays become float32, integers keep their dtype."""
        data = np.asarray(array)
        data = np.ascontiguousarray(data, np.float32) if data.dtype.kind == "f" else np.ascontiguousarray(data)
        tensor = ir.Tensor(data.reshape(np.shape(array)), name=self._unique(name, self._values))
        value = ir.Value(name=tensor.name, shape=ir.Shape(data.shape), type=ir.TensorType(tensor.dtype))
        value.meta[WISH] = name
        value.const_value = tensor
        self.graph.register_initializer(value)
        return value

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[int],
        name: str,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """A new node of one output with this shape; its dtype is that of its first input."""
        first = inputs[0]
        assert first is not None
        assert self.at is not None
        out = ir.Value(name=self._unique(name, self._values), shape=ir.Shape(list(shape)), type=first.type)
        out.meta[WISH] = name
        self._fresh[id(out)] = out
        node = ir.node(
            op_type,
            inputs,
            attributes=dict(attributes or {}),
            outputs=[out],
            name=self._unique(name, self._nodes),
        )
        node.meta[WISH] = name
        self.graph.insert_before(self.at, node)
        return out

    def reshape(self, x: ir.Value, shape: Sequence[int], name: str) -> ir.Value:
        """`x` itself when it has this shape already, else a Reshape of it."""
        if shape_of(x) == tuple(shape):
            return x
        return self.emit("Reshape", [x, self.constant(np.array(shape, np.int64), f"{name}.dims")], shape, name)

    def transpose(self, x: ir.Value, perm: Sequence[int], name: str) -> ir.Value:
        """A Transpose of `x`."""
        shape = shape_of(x)
        return self.emit("Transpose", [x], [shape[p] for p in perm], name, {"perm": list(perm)})

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Every use of `old` becomes `new`, which takes over its name where it was made by an edit.

        What nobody uses any more is removed, `at` too: this is the last step of a rewrite.
        """
        if old is new:
            return
        name = old.name
        for use in list(old.uses()):
            use.node.replace_input_with(use.idx, new)
        outputs = [i for i, o in enumerate(self.graph.outputs) if o is old]
        if outputs and (new.producer() is None or new.is_graph_output()):
            new = self.emit("Identity", [new], shape_of(new), f"{name}.copy")
        if outputs or id(new) in self._fresh:
            old.name = self._unique(f"{name}.replaced", self._values)
            new.name = name
            new.meta[WISH] = old.meta.get(WISH, name)
            self._fresh.pop(id(new), None)
        for i in outputs:
            self.graph.outputs[i] = new
        self._sweep(old.producer())

    def _sweep(self, node: ir.Node | None) -> None:
        """Remove `node` when nobody uses it any more, and then what only it used: rules count consumers."""
        if node is None or node.graph is not self.graph:
            return
        if any(o.uses() or o.is_graph_output() for o in node.outputs):
            return
        before = [v.producer() for v in node.inputs if v is not None]
        self.graph.remove(node, safe=True)
        for producer in before:
            self._sweep(producer)

    def swap_names(self, a: ir.Value, b: ir.Value) -> None:
        """Exchange the names of two values, unless one is an output of the graph."""
        if a.is_graph_output() or b.is_graph_output():
            return
        for v in (a, b):
            self._fresh.pop(id(v), None)
        a_name, b_name = a.name, b.name
        a.name = self._unique(f"{a_name}.swapped", self._values)
        b.name, a.name = a_name, b_name
        a.meta[WISH], b.meta[WISH] = b.meta.get(WISH, b_name), a.meta.get(WISH, a_name)

    def take_name(self, node: ir.Node) -> str:
        """The name of `node`, given up by it: for the node that carries on its work."""
        name: str = node.meta.get(WISH, node.name) or node.op_type
        self._nodes.discard(node.name)
        node.name = self._unique(f"{name}.replaced", self._nodes)
        return name

    @staticmethod
    def _unique(name: str, taken: set[str | None]) -> str:
        candidate, n = name, 1
        while candidate in taken:
            n += 1
            candidate = f"{name}.{n}"
        taken.add(candidate)
        return candidate


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of `value`; shape inference ran before, so it is known."""
    assert value.shape is not None, value.name
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def is_static(value: ir.Value | None) -> bool:
    """Whether the whole shape of `value` is known."""
    return value is not None and value.shape is not None and value.shape.is_static()


def is_float32(value: ir.Value | None) -> bool:
    """Whether `value` is known to be float32: other floats are left as they are."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def array_of(value: ir.Value | None) -> Array | None:
    """The array of a constant, None for an activation."""
    tensor = None if value is None or value.is_graph_input() else value.const_value
    return None if tensor is None else np.asarray(tensor.numpy())


def scalar_of(value: ir.Value | None) -> float | None:
    """The number in a constant of one element, else None."""
    array = array_of(value)
    return None if array is None or array.size != 1 or array.dtype.kind not in "fiu" else float(array.reshape(()))


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """The value of an attribute, or its default."""
    attr = node.attributes.get(name)
    return default if attr is None else attr.value


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index` of `node`, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, once; None when there are several or it is an output of the graph.

    A reader in the body of an If or a Loop does not count as one: rules do not reach into bodies.
    """
    uses, producer = list(value.uses()), value.producer()
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader = uses[0].node
    return reader if producer is None or reader.graph is producer.graph else None


def binary(node: ir.Node, constant: Callable[[ir.Value | None], Any]) -> tuple[ir.Value, Any] | None:
    """(activation, constant) of a commutative node of which one input is a constant that `constant` reads."""
    a, b = node.inputs[0], node.inputs[1]
    for x, c in ((a, b), (b, a)):
        found = constant(c)
        if x is not None and found is not None and array_of(x) is None:
            return x, found
    return None


def scale_factor(node: ir.Node) -> tuple[ir.Value, float] | None:
    """(x, c) when `node` computes c*x, by Mul or Div with a scalar constant, without changing the shape."""
    found: tuple[ir.Value, float] | None = None
    if node.op_type == "Mul":
        found = binary(node, scalar_of)
    elif node.op_type == "Div" and node.inputs[0] is not None and array_of(node.inputs[0]) is None:
        divisor = scalar_of(node.inputs[1])
        found = None if not divisor else (node.inputs[0], 1.0 / divisor)
    if found is None or not math.isfinite(found[1]) or shape_of(found[0]) != shape_of(node.outputs[0]):
        return None
    return found
