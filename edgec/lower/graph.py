# SPDX-License-Identifier: Apache-2.0
"""What lowering knows about values, and the integer graph that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgec.errors import UnsupportedError
from edgec.model import value_shapes
from edgec.operators import TensorType, get_operator

Array = npt.NDArray[Any]
DOMAIN = "edgec"


class NotIntegerError(Exception):
    """A node that has no integer form here; the message says why, for the table of unsupported nodes."""


@dataclass(frozen=True)
class Quant:
    """`real = scale * (q - zero_point)`; scale is float64, a scalar or one per entry of `axis` (weights)."""

    scale: Array
    zero_point: int
    axis: int = 0

    @property
    def pair(self) -> tuple[float, int]:
        """(scale, zero_point) of a per-tensor quantization."""
        if self.scale.ndim:
            raise NotIntegerError("an activation is quantized per channel")
        return float(self.scale), self.zero_point

    def same(self, other: Quant) -> bool:
        """Whether both give every integer the same real value."""
        return self.zero_point == other.zero_point and np.array_equal(self.scale, other.scale)


@dataclass(frozen=True)
class Value:
    """A float value of the QDQ graph as an int8 tensor of the integer graph that dequantizes to it.

    `tensor` is None for a constant, whose integers are in `data`.
    """

    tensor: str | None
    shape: tuple[int, ...]
    quant: Quant
    data: Array | None = None

    def real(self) -> Array:
        """Float64 values of a constant."""
        if self.data is None:
            raise NotIntegerError("an operand that must be constant is computed")
        scale = self.quant.scale
        if scale.ndim:
            dims = [1] * self.data.ndim
            dims[self.quant.axis % self.data.ndim] = -1
            scale = scale.reshape(dims)
        result: Array = (self.data.astype(np.float64) - self.quant.zero_point) * scale
        return result


class Source:
    """Read-only view of the QDQ graph: initializers, shapes, consumers."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(proto)
        self.graph = proto.graph
        self.opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
        self.arrays: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
        self.shapes = value_shapes(inferred)
        self.dtypes = {
            v.name: helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)
            for v in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info)
        }
        self.outputs = {o.name for o in proto.graph.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in proto.graph.node:
            for name in node.input:
                if name:
                    self.consumers.setdefault(name, []).append(node)

    def quant(self, node: onnx.NodeProto) -> Quant:
        """Parameters of a QuantizeLinear or DequantizeLinear, rebased from uint8 to int8 where needed."""
        scale = self._constant(node, 1).astype(np.float64)
        given = len(node.input) > 2 and node.input[2]
        zero = self._constant(node, 2) if given else np.zeros(scale.shape, self._integer_type(node))
        if zero.dtype not in (np.int8, np.uint8, np.int32):
            raise NotIntegerError(f"{zero.dtype} quantization; int8 and uint8 are supported")
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if scale.size == 1:  # one-element scales are per-tensor whatever the axis says
            scale, zero = scale.reshape(()), zero.reshape(())
        points = np.unique(zero.astype(np.int64))
        if points.size != 1:
            raise NotIntegerError("zero points differ from channel to channel")
        return Quant(scale, int(points[0]) - (128 if zero.dtype == np.uint8 else 0), axis)

    def _integer_type(self, node: onnx.NodeProto) -> np.dtype[Any]:
        """Element type on the integer side, which an absent zero point has too."""
        name = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
        return self.arrays[name].dtype if name in self.arrays else self.dtypes.get(name, np.dtype(np.uint8))

    def _constant(self, node: onnx.NodeProto, index: int) -> Array:
        name = node.input[index]
        if name not in self.arrays:
            raise NotIntegerError(f"{name} must be a constant")
        return self.arrays[name]


@dataclass
class IntegerGraph:
    """The graph being written: nodes of the domain `edgec` and standard Reshapes, all on int8 tensors."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)
    """What each view is a view of; never a view itself."""

    def constant(self, name: str, array: Array) -> str:
        """Add an initializer under a unique name."""
        unique = self._unique(name)
        self.constants[unique] = np.ascontiguousarray(array)
        self.types[unique] = TensorType.of(array)
        return unique

    def operand(self, value: Value, name: str) -> str:
        """The tensor of `value`, written as an initializer when it is constant."""
        if value.tensor is not None:
            return value.tensor
        assert value.data is not None
        return self.constant(name, value.data.astype(np.int8))

    def view(self, tensor: str, shape: Sequence[int]) -> str:
        """`tensor` under another shape, at no cost."""
        wanted = tuple(int(d) for d in shape)
        base = self.bases.get(tensor, tensor)
        for same in (tensor, base, *(v for v, b in self.bases.items() if b == base)):
            if self.types[same].shape == wanted:
                return same
        if tensor in self.constants:
            return self.constant(tensor, self.constants[tensor].reshape(wanted))
        result = self._unique(f"{base}.view")
        dims = self.constant(f"{result}.shape", np.array(wanted, np.int64))
        self.nodes.append(helper.make_node("Reshape", [base, dims], [result], name=result))
        self.bases[result] = base
        self.types[result] = TensorType(wanted, self.types[tensor].dtype)
        return result

    def emit(
        self,
        op: str,
        node: str,
        output: str,
        inputs: Sequence[str],
        constants: dict[str, Array],
        **attrs: Any,
    ) -> str:
        """Append a call of an integer operator.

        Args:
            op: operator record.
            node: name of the ONNX node it computes.
            output: name wanted for its result.
            inputs: activation tensors, already in the operator's shapes.
            constants: its constant inputs by name, in the record's order.
        """
        record = get_operator(op)
        names = [*inputs, *(self.constant(f"{node}.{k}", v) for k, v in constants.items())]
        try:
            kind = record.infer([self.types[n] for n in names], **attrs)
        except ValueError as error:
            raise NotIntegerError(str(error)) from error
        result = self._unique(output)
        self.nodes.append(helper.make_node(op, names, [result], name=node, domain=DOMAIN, **attrs))
        self.types[result] = kind
        return result

    def _unique(self, name: str) -> str:
        candidate, n = name, 1
        while candidate in self.types:
            candidate, n = f"{name}.{n}", n + 1
        return candidate


def unsupported(reasons: Sequence[tuple[str, str, str]]) -> UnsupportedError:
    """One error that lists every node without an integer form: (node, operator, reason)."""
    lines = "".join(f"\n  {name} ({op}): {why}" for name, op, why in reasons)
    return UnsupportedError(
        f"{len(reasons)} node{'s' if len(reasons) != 1 else ''} cannot be computed in int8:{lines}",
        hint="quantize the float model with `edgec quantize`, or compile it with --precision float32",
    )
