# SPDX-License-Identifier: Apache-2.0
"""Float nodes of an integer graph: standard ONNX nodes, with `dequantize_f32` and `quantize_f32` at their borders.

A node computes in float32 where one of its operands is a float value that nothing quantizes, or its result is not
quantized. Which nodes may is said by the model's metadata (`edgec.float`), or is asked for. Everything that such a node
reads is brought into ONNX order and into float; a value that nobody wrote yet is written on demand, with its node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.errors import UnsupportedError
from edgec.lower.graph import DOMAIN, Array, IntegerGraph, NotIntegerError, Quant, Source, Value
from edgec.model import Model
from edgec.operators import TensorType
from edgec.operators.float_border import dequantize_params, quantize_params
from edgec.operators.integer import product
from edgec.passes.float_form import EXPANDED, RULES, float_form
from edgec.program import C_TYPES

BORDER = frozenset(["dequantize_f32", "quantize_f32"])
"""Operators of the domain `edgec` at the borders of islands."""


RENAMING = frozenset(["Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"])


def float_nodes(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Those of a lowered graph's nodes that compute in float32: all standard ones but views."""
    return [n for n in nodes if n.domain != DOMAIN and n.op_type != "Reshape"]


def name_of(node: onnx.NodeProto) -> str:
    """Name of a node in the list of float nodes: its own, or that of its first result."""
    return str(node.name or node.output[0])


@dataclass
class Islands:
    """What is computed in float, and how the rest of the graph comes to it and by it.

    Attributes:
        source: the QDQ graph.
        graph: where to write.
        values: its quantized values by name, as lowering knows them.
        indices: its whole numbers by name.
        functions: those of its values that are tables, rounded ones, where they are quantized, and else unwritten.
        listed: names of the nodes that compute in float.
        allowed: whether any other node may that has no integer form.
        tensors: float (and bool) values of the QDQ graph by name -> the tensor that holds them.
    """

    source: Source
    graph: IntegerGraph
    values: Mapping[str, Value]
    indices: Mapping[str, str]
    functions: Collection[str]
    listed: frozenset[str]
    allowed: bool
    tensors: dict[str, str] = field(default_factory=dict)
    _dequantized: dict[tuple[object, ...], str] = field(default_factory=dict)
    _makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._makers.update({o: n for n in self.source.graph.node for o in n.output if o})

    def bind_inputs(self, names: Sequence[str]) -> None:
        """Take the inputs that a float node reads as they are."""
        for name in names:
            readers = [n for n in self.source.consumers.get(name, []) if n.op_type != "QuantizeLinear"]
            if np.dtype(self.source.dtypes[name]) == np.float32 and any(self.permits(n) for n in readers):
                self.graph.types[name] = TensorType(self.source.shapes[name], "float32")
                self.tensors[name] = name

    def takes(self, node: onnx.NodeProto) -> bool:
        """Whether `node`, which has no integer form, is written in float; not unless any node may be."""
        if not self.allowed:
            return False
        try:
            self.write(node)
        except (NotIntegerError, ValueError):
            return False
        return True

    def written(self) -> list[str]:
        """Names of the nodes that compute in float, in the order of the QDQ graph."""
        return [name for n in self.source.graph.node if (name := name_of(n)) in self._written]

    def knows(self, name: str) -> bool:
        """Whether `name` is a float value, or may become one on demand."""
        return name in self.tensors or self.allowed

    def permits(self, node: onnx.NodeProto) -> bool:
        """Whether `node` may compute in float."""
        return self.allowed or name_of(node) in self.listed

    def write(self, node: onnx.NodeProto) -> None:
        """Write `node` in float.

        Raises:
            NotIntegerError: it may not, or one of its operands has no float form.
        """
        if not self.permits(node) or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise NotIntegerError(f"{name_of(node)} ({node.op_type}) would be computed in float32")
        if node.output[0] in self.tensors:
            return
        self._written.add(name_of(node))
        operands = [self.operand(name, node.name) if name else "" for name in node.input]
        outputs = {o: self._kind(o, node) for o in node.output if o}
        if node.op_type in RENAMING:
            self.tensors[node.output[0]] = self.graph.view(operands[0], outputs[node.output[0]].shape)
            return
        if node.op_type in RULES or node.op_type in EXPANDED:
            self._write_form(node, operands, outputs)
            return
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        self.tensors.update(zip(node.output, self._append(copy, operands, outputs), strict=True))
        self.tensors.pop("", None)

    def operand(self, name: str, reader: str) -> str:
        """The tensor with the float (or bool, or whole) values of `name`, in ONNX order; written where there is none.

        Raises:
            NotIntegerError: it has no float form, or its node may not compute in float.
        """
        if name in self.tensors:
            return self.tensors[name]
        if name in self.source.arrays:
            self.tensors[name] = self.graph.constant(name, self.source.arrays[name])
        elif name in self.indices:
            kind = self._kind(name, None)
            cast = helper.make_node("Cast", [""], [name], name=f"{name}.cast", to=_onnx_type(kind.dtype))
            self.tensors[name] = self._append(cast, [self.indices[name]], {name: kind})[0]
        elif name in self.values and name not in self.functions:
            return self._real(self.values[name], name, reader)
        elif name in self._makers:
            self.write(self._makers[name])
        else:
            raise NotIntegerError(f"input {name} is not quantized")
        return self.tensors[name]

    def quantize(self, name: str, quant: Quant, reader: str) -> Value:
        """The float value `name` in `quant`."""
        tensor = self.operand(name, reader)
        shape, bits = self.graph.types[tensor].shape, np.iinfo(quant.dtype).bits
        flat = self.graph.view(tensor, (product(shape),))
        params = quantize_params(*quant.pair, bits)
        result = self.graph.emit("quantize_f32", reader, f"{name}.quantized", [flat], {"params": params}, y=bits)
        return Value(self.graph.view(result, shape), shape, quant)

    def _real(self, value: Value, name: str, reader: str) -> str:
        """A quantized value in float."""
        if value.tensor is None:
            real = np.broadcast_to(value.real(), value.shape).astype(np.float32)
            self.tensors[name] = self.graph.constant(f"{name}.real", real)
            return self.tensors[name]
        value = self.graph.in_order(value, (), reader)
        assert value.tensor is not None
        scale, zero_point = value.quant.pair
        root = self.graph.bases.get(value.tensor, value.tensor)
        key = (root, scale, zero_point)
        if key not in self._dequantized:
            flat = self.graph.view(value.tensor, (product(value.shape),))
            bits = np.iinfo(value.quant.dtype).bits
            params = dequantize_params(scale, zero_point)
            self._dequantized[key] = self.graph.emit(
                "dequantize_f32", reader, f"{name}.real", [flat], {"params": params}, x=bits
            )
        return self.graph.view(self._dequantized[key], value.shape)

    def _kind(self, name: str, node: onnx.NodeProto | None) -> TensorType:
        """Shape and type of a value of the QDQ graph."""
        dtype, shape = self.source.dtypes.get(name), self.source.shapes.get(name)
        if dtype is None or shape is None or str(np.dtype(dtype)) not in C_TYPES:
            told = f"{node.op_type} {node.name}" if node else name
            raise NotIntegerError(f"{told}: {dtype} {shape} is no tensor that C holds")
        return TensorType(shape, str(np.dtype(dtype)))

    def _append(self, node: onnx.NodeProto, operands: Sequence[str], outputs: Mapping[str, TensorType]) -> list[str]:
        """Append a standard node, which becomes this graph's own; the tensors of its results."""
        results = [self.graph.declare(o, outputs[o]) if o else "" for o in node.output]
        node.input[:] = operands
        node.output[:] = results
        self.graph.nodes.append(node)
        return results

    def _write_form(self, node: onnx.NodeProto, operands: Sequence[str], outputs: Mapping[str, TensorType]) -> None:
        """Write `node` in the operators of which TVM makes the right code."""
        types, arrays = self.graph.types, self.graph.constants
        given = list(dict.fromkeys(n for n in operands if n))
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = operands
        graph = helper.make_graph(
            [copy],
            "island",
            [_info(n, types[n]) for n in given if n not in arrays],
            [_info(n, kind) for n, kind in outputs.items()],
            [numpy_helper.from_array(arrays[n], n) for n in given if n in arrays],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.source.opset)], ir_version=10)
        try:
            made = float_form(Model(onnx.shape_inference.infer_shapes(proto), node.name, ""))
        except UnsupportedError as error:
            raise NotIntegerError(str(error)) from error
        names = {n: n for n in given}
        names |= {
            t.name: self.graph.constant(t.name, _array(t)) for t in made.proto.graph.initializer if t.name not in names
        }
        kinds = {i.name: _kind_of(i) for i in (*made.proto.graph.value_info, *made.proto.graph.output)}
        for part in made.proto.graph.node:
            parts = onnx.NodeProto()
            parts.CopyFrom(part)
            results = self._append(parts, [names[n] if n else "" for n in part.input], kinds)
            names |= {o: r for o, r in zip(part.output, results, strict=True) if o}
        self.tensors.update({o: names[o] for o in outputs})


def _array(tensor: onnx.TensorProto) -> Array:
    return numpy_helper.to_array(tensor)


def _onnx_type(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _info(name: str, kind: TensorType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _onnx_type(kind.dtype), kind.shape)


def _kind_of(info: onnx.ValueInfoProto) -> TensorType:
    tensor: Any = info.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorType(tuple(d.dim_value for d in tensor.shape.dim), str(np.dtype(dtype)))
