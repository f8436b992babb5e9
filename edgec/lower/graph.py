# SPDX-License-Identifier: Apache-2.0
"""What lowering knows about values, and the integer graph that it writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgec.errors import UnsupportedError
from edgec.model import value_shapes
from edgec.operators import TensorType, get_operator

Array = npt.NDArray[Any]
DOMAIN = "edgec"
MOST_AXES = 6
"""Axes of a strided copy."""


class NotIntegerError(Exception):
    """A node that has no integer form here; the message says why, for the table of unsupported nodes."""


@dataclass(frozen=True)
class Quant:
    """`real = scale * (q - zero_point)`; scale is float64, a scalar or one per entry of `axis` (weights).

    An activation is int8, or int16 with zero point 0.
    """

    scale: Array
    zero_point: int
    axis: int = 0
    dtype: str = "int8"

    @property
    def pair(self) -> tuple[float, int]:
        """(scale, zero_point) of a per-tensor quantization."""
        if self.scale.ndim:
            raise NotIntegerError("an activation is quantized per channel")
        if not self.scale > 0:
            raise NotIntegerError("an activation is quantized with a scale of zero")
        return float(self.scale), self.zero_point

    def same(self, other: Quant) -> bool:
        """Whether both give every integer the same real value."""
        alike = self.zero_point == other.zero_point and self.dtype == other.dtype
        return alike and np.array_equal(self.scale, other.scale)

    def integers(self, values: Array) -> Array:
        """Nearest integers to real values, halves to even as QuantizeLinear does; saturated."""
        scale, zero_point = self.pair
        limits = np.iinfo(self.dtype)
        q = np.rint(np.asarray(values, np.float64) / scale) + zero_point
        result: Array = np.clip(q, limits.min, limits.max).astype(self.dtype)
        return result


Order = tuple[int, ...]
"""Which ONNX axis lies at each place of a stored tensor: `stored = onnx.transpose(order)`; () = the same."""


class Stored(NamedTuple):
    """Result of a rule that chose the order of axes: the tensor in its stored shape, and the order."""

    tensor: str
    order: Order


@dataclass(frozen=True)
class Value:
    """A float value of the QDQ graph as an int8 tensor of the integer graph that dequantizes to it.

    `tensor` is None for a constant, whose integers are in `data`. A tensor may be stored in another order of axes
    than ONNX has (`order`), so that a Transpose costs nothing until somebody needs the bytes in its order.
    """

    tensor: str | None
    shape: tuple[int, ...]
    quant: Quant
    data: Array | None = None
    order: Order = ()

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the bytes as they lie."""
        return tuple(self.shape[a] for a in self.order) if self.order else self.shape

    def lies_in(self, order: Order) -> bool:
        """Whether the bytes are in this order too: axes of size 1 may lie anywhere."""
        return self._long_axes(self.order) == self._long_axes(order)

    def _long_axes(self, order: Order) -> list[int]:
        return [a for a in order or range(len(self.shape)) if self.shape[a] != 1]

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
        if not (np.isfinite(scale).all() and (scale >= 0).all()):
            raise NotIntegerError(f"scale {node.input[1]} is not a positive number")
        given = len(node.input) > 2 and node.input[2]
        zero = self._constant(node, 2) if given else np.zeros(scale.shape, self._integer_type(node))
        if zero.dtype not in (np.int8, np.uint8, np.int16, np.int32):
            raise NotIntegerError(f"{zero.dtype} quantization; int8, uint8 and int16 are supported")
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if scale.size == 1:  # one-element scales are per-tensor whatever the axis says
            scale, zero = scale.reshape(()), zero.reshape(())
        points = np.unique(zero.astype(np.int64))
        if points.size != 1:
            raise NotIntegerError("zero points differ from channel to channel")
        if zero.dtype == np.int16:
            if points[0]:
                raise NotIntegerError("int16 with a zero point")
            return Quant(scale, 0, axis, "int16")
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
    copies: dict[tuple[str, Order], str] = field(default_factory=dict)
    """Copies of tensors in another order of axes: one serves all who need it."""
    widened: dict[str, str] = field(default_factory=dict)
    """What int8 tensors are as int16 with zero point 0."""
    joined: dict[tuple[str, ...], str] = field(default_factory=dict)
    """Matrices of which the rows of others are side by side, by the names of these."""

    def constant(self, name: str, array: Array) -> str:
        """Add an initializer under a unique name."""
        unique = self._unique(name)
        self.constants[unique] = np.ascontiguousarray(array).reshape(np.shape(array))  # a scalar stays one
        self.types[unique] = TensorType.of(array)
        return unique

    def declare(self, name: str, kind: TensorType) -> str:
        """A unique name for a result of that type."""
        unique = self._unique(name)
        self.types[unique] = kind
        return unique

    def operand(self, value: Value, name: str) -> str:
        """The tensor of `value`, written as an initializer when it is constant."""
        if value.tensor is not None:
            return value.tensor
        assert value.data is not None
        return self.constant(name, value.data.astype(value.quant.dtype))

    def in_order(self, value: Value, order: Order, node: str) -> Value:
        """`value` with its bytes in `order`, copied where they are not (or a constant transposed)."""
        if value.lies_in(order):
            wanted = dataclasses.replace(value, order=order)
            if value.tensor is None:
                return wanted
            return dataclasses.replace(wanted, tensor=self.view(value.tensor, wanted.stored_shape))
        if value.tensor is None:
            raise AssertionError("constants are kept in ONNX order")
        perm = [(value.order or tuple(range(len(value.shape)))).index(a) for a in order or range(len(value.shape))]
        key = (self.bases.get(value.tensor, value.tensor), (*value.stored_shape, *perm))
        if key not in self.copies:
            places = np.arange(int(np.prod(value.shape))).reshape(value.stored_shape).transpose(perm)
            self.copies[key] = self.strided_copy(node, f"{value.tensor}.reordered", places, value.tensor)
        wanted = dataclasses.replace(value, order=order)
        return dataclasses.replace(wanted, tensor=self.view(self.copies[key], wanted.stored_shape))

    def strided_copy(self, node: str, output: str, places: Array, tensor: str) -> str:
        """The elements of `tensor` (flat) at `places`, an int64 view of evenly spaced indices; in their shape."""
        axes = [
            (int(n), int(s) // places.itemsize) for n, s in zip(places.shape, places.strides, strict=True) if n != 1
        ] or [(1, 0)]
        merged = [axes[0]]
        for n, stride in axes[1:]:
            outer, step = merged[-1]
            merged[-1:] = [(outer * n, stride)] if step == stride * n else [(outer, step), (n, stride)]
        if len(merged) > MOST_AXES:
            raise NotIntegerError(f"a movement over {len(merged)} axes, at most {MOST_AXES}")
        flat = self.view(tensor, (int(np.prod(self.types[tensor].shape)),))
        copied = self.emit(
            "strided_copy_s16" if self.types[tensor].dtype == "int16" else "strided_copy_s8",
            node,
            output,
            [flat],
            {},
            offset=int(places.flat[0]),
            shape=[n for n, _ in merged],
            strides=[s for _, s in merged],
        )
        return self.view(copied, places.shape)

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
        if not op.endswith(("_s16", "_f32")) and any(self.types[n].dtype == "int16" for n in inputs):
            raise NotIntegerError("an int16 operand, which sums, products, LayerNormalization and means alone take")
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
        hint="quantize the float model with `edgec quantize`, compile it with --precision float32,"
        " or let these nodes compute in float32: --allow-float",
    )
