# SPDX-License-Identifier: Apache-2.0
"""What the int8 road takes after canonicalization: one table, asked before any work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from edgec.errors import UnsupportedError, UsageError
from edgec.lower.movement import MOVEMENT
from edgec.lower.rules import RULES
from edgec.lower.tables import ELEMENTWISE
from edgec.model import Model, value_shapes
from edgec.passes.recurrent_nodes import refusal

PRECISIONS = ("int8", "float32")
"""Precisions that a model can be compiled in."""


class Unsupported(NamedTuple):
    """A node that cannot be compiled: which, why, and the nearest form that can."""

    node: str
    op_type: str
    reason: str
    nearest: str


class Facts:
    """What the rules may ask about a graph: constants, shapes and types of its values."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self.constants = {t.name: t for t in graph.initializer}
        for node in graph.node:  # constants of a quantized model come through DequantizeLinear
            if node.op_type == "DequantizeLinear" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
        self.shapes = value_shapes(proto)
        self.types = {t.name: t.data_type for t in graph.initializer}
        for value in (*graph.input, *graph.output, *graph.value_info):
            self.types[value.name] = value.type.tensor_type.elem_type

    def constant(self, node: NodeProto, index: int) -> bool:
        """Whether input `index` is left out or a constant."""
        return index >= len(node.input) or not node.input[index] or node.input[index] in self.constants

    def given(self, node: NodeProto, index: int) -> bool:
        """Whether input `index` is there and a constant."""
        return index < len(node.input) and node.input[index] in self.constants

    def scalar(self, node: NodeProto, index: int) -> bool:
        """Whether input `index` is a constant of one element."""
        return self.given(node, index) and int(np.prod(self.constants[node.input[index]].dims)) == 1

    def array(self, node: NodeProto, index: int) -> np.ndarray[Any, Any]:
        """The constant at input `index`."""
        return np.asarray(onnx.numpy_helper.to_array(self.constants[node.input[index]]))

    def rank(self, node: NodeProto) -> int:
        """Rank of the first input."""
        return len(self.shapes.get(node.input[0], ()))


Rule = Callable[[NodeProto, Facts], tuple[str, str] | None]


def unsupported_nodes(model: Model) -> list[Unsupported]:
    """Every node of a canonical model that the int8 road does not take, in graph order."""
    facts = Facts(model.proto)
    found: list[Unsupported] = []
    for node in model.proto.graph.node:
        problem = _problem(node, facts)
        if problem is not None:
            found.append(Unsupported(node.name or node.output[0], node.op_type, *problem))
    return found


def require_supported(model: Model, precision: str = "int8", floats: Collection[str] | None = ()) -> None:
    """Raise one error that lists everything in `model` that cannot be compiled in this precision.

    float32 takes any operator of static shape (TVM legalizes it), so only int8 is looked up here. `floats` names the
    nodes of a quantized model that compute in float32; None: all may.

    Raises:
        UnsupportedError: at least one node is not supported; all of them are in the message.
        UsageError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", need=" or ".join(PRECISIONS))
    if precision == "float32" or floats is None:
        return
    found = [n for n in unsupported_nodes(model) if n.node not in floats]
    if found:
        count = f"{len(found)} node{'s' if len(found) > 1 else ''}"
        lines = [f"\n    {n.op_type} {n.node!r}: {n.reason}; {n.nearest}" for n in found]
        raise UnsupportedError(
            f"{model.name!r} has {count} that int8 does not support",
            have="".join(lines),
            hint="change the model, compile it with --precision float32,"
            " or let these nodes of a quantized model compute in float32: --allow-float",
        )


def _problem(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in SUPPORTED:
        return "no integer form", NEAREST.get(node.op_type, "use operators of the list in the documentation")
    wide = [n for n in (*node.input, *node.output) if facts.types.get(n) in _OTHER_FLOATS]
    if wide:
        return f"{wide[0]!r} is not float32", "export the model in float32"
    return CHECKED.get(node.op_type, _any)(node, facts)


_OTHER_FLOATS = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_INTEGERS = {TensorProto.INT32, TensorProto.INT64}


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _any(_node: NodeProto, _facts: Facts) -> tuple[str, str] | None:
    return None


def _gemm(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if not (facts.given(node, 1) and facts.constant(node, 2)):
        return "its weights are not constants", "MatMul of two activations"
    flags = (_attribute(node, "transA", 0), _attribute(node, "alpha", 1.0), _attribute(node, "beta", 1.0))
    return None if flags == (0, 1.0, 1.0) else ("transA, alpha or beta is set", "transA=0, alpha=beta=1")


def _matmul(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    vectors = [n for n in node.input if len(facts.shapes.get(n, (1, 1))) < 2]
    return ("a product with a vector", "matrices (Unsqueeze)") if vectors else None


def _last_axis(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    axis = int(_attribute(node, "axis", -1))
    if axis not in (-1, facts.rank(node) - 1):
        return f"over axis {axis}", "over the last axis"
    return None


def _layer_norm(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if not (facts.given(node, 1) and facts.constant(node, 2)) or any(node.output[1:]):
        return "scale or bias is computed, or its mean is read", "constant scale and bias, one output"
    width = facts.shapes.get(node.input[0], ())[-1:]  # a quantized file need not tell its shapes
    if (
        width
        and any(n and tuple(facts.constants[n].dims) != width for n in node.input[1:3])
        and _last_axis(node, facts) is None
    ):
        return "scale or bias has another width than the rows", "one scale and one bias for each element of a row"
    return _last_axis(node, facts)


def _power(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    return None if facts.scalar(node, 1) else ("the exponent is computed", "a constant exponent")


def _bounds(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    fixed = facts.constant(node, 1) and facts.constant(node, 2)
    return None if fixed else ("its bounds are computed", "constant bounds")


def _operand(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    fixed = all(facts.constant(node, i) for i in range(1, len(node.input)))
    return None if fixed else ("its shape operand is computed", "a constant")


def _reduce(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    return None if facts.constant(node, 1) else ("its axes are computed", "constant axes")


def _gather(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if facts.given(node, 1) != facts.given(node, 0):
        if facts.given(node, 1) or int(_attribute(node, "axis", 0)) == 0:
            return None
        return "looks up along another axis than the first", "a table of rows, one for each index (axis 0)"
    return "looks up computed indices in a computed tensor", "constant indices, or a constant table"


def _pad(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if not all(facts.constant(node, i) for i in range(1, len(node.input))):
        return "its pads are computed", "constant pads, value and axes"
    return None if (facts.array(node, 1) >= 0).all() else ("it takes elements away", "Slice")


def _top_k(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    return None if facts.scalar(node, 1) else ("its k is computed", "a constant k")


def _compare(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if facts.scalar(node, 0) or facts.scalar(node, 1):
        return None
    return "compares two tensors", "comparison with a scalar constant (of their difference)"


def _cast(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    source, result = (facts.types.get(n) for n in (node.input[0], node.output[0]))
    if source in _INTEGERS and result in _INTEGERS:
        return None
    if source == TensorProto.BOOL and result == TensorProto.FLOAT:
        return None
    return "it changes the type of computed values", "float32 throughout"


def _slope(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    return None if facts.scalar(node, 1) else ("a slope for each channel", "one slope, or LeakyRelu")


def _recurrent(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    """What `unroll_recurrent_nodes` has left."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if "direction" in attributes:
        attributes["direction"] = attributes["direction"].decode()
    if "activations" in attributes:
        attributes["activations"] = [name.decode() for name in attributes["activations"]]
    peepholes = len(node.input) > 7 and bool(node.input[7])
    reason = refusal(node.op_type, attributes, peepholes) or "computed weights or lengths, or a long sequence"
    return reason, "forward direction, default activations, one step with its state as input and output (--state)"


def _resize(node: NodeProto, _facts: Facts) -> tuple[str, str] | None:
    mode = _attribute(node, "mode", b"nearest").decode()
    return None if mode == "nearest" else (f"mode {mode}", "mode nearest")


def _weights(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    fixed = facts.given(node, 1) and facts.constant(node, 2)
    return None if fixed else ("its weights are computed", "constant weights and bias")


CHECKED: Mapping[str, Rule] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Softmax": _last_axis,
    "LayerNormalization": _layer_norm,
    "Pow": _power,
    "Clip": _bounds,
    "Cast": _cast,
    "Gather": _gather,
    "Pad": _pad,
    "PRelu": _slope,
    "TopK": _top_k,
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    **dict.fromkeys(("Conv", "ConvTranspose"), _weights),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), _compare),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduce),
    **dict.fromkeys(("CumSum", "Expand", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze"), _operand),
}
"""What the int8 road asks of some operators: None, or what is wrong and the nearest form that it takes."""

SUPPORTED = frozenset({*CHECKED, *RULES, *ELEMENTWISE, *MOVEMENT, "ArgMax", "ArgMin", "QuantizeLinear"}) | {
    "DequantizeLinear"
}
"""All operators that int8 takes, whatever it asks of them."""

NEAREST: Mapping[str, str] = {
    "Attention": "MatMul, Mul, Softmax, MatMul (export with opset 18 to 21)",
    "BatchNormalization": "inference form with constant statistics",
    "Einsum": "distinct labels in each operand, no broadcasting",
    "GatherElements": "Gather with constant indices",
    "GatherND": "constant indices without batch axes",
    "GroupNormalization": "InstanceNormalization between Reshapes, Mul and Add (export with opset 18 to 20)",
    "If": "a condition that is constant at export",
    "Loop": "one step with its state as input and output (--state)",
    "LpPool": "AveragePool",
    "NonZero": "Where with a constant mask",
    "OneHot": "Gather of a constant table",
    "ReduceL2": "Sqrt of a ReduceSum of squares",
    "ReduceProd": "Mul",
    "Scan": "one step with its state as input and output (--state)",
    "ScatterElements": "constant indices of adjacent whole rows, or Where with a constant mask",
    "ScatterND": "constant indices of adjacent whole rows, or Where with a constant mask",
}
"""For operators that are often asked for: what to use in their place."""
