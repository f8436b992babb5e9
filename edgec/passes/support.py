# SPDX-License-Identifier: Apache-2.0
"""What the int8 road takes after canonicalization: one table, asked before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from edgec.errors import UnsupportedError, UsageError
from edgec.model import Model, value_shapes

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


def require_supported(model: Model, precision: str = "int8") -> None:
    """Raise one error that lists everything in `model` that cannot be compiled in this precision.

    float32 takes any operator of static shape (TVM legalizes it), so only int8 is looked up here.

    Raises:
        UnsupportedError: at least one node is not supported; all of them are in the message.
        UsageError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", need=" or ".join(PRECISIONS))
    if precision == "float32":
        return
    found = unsupported_nodes(model)
    if found:
        count = f"{len(found)} node{'s' if len(found) > 1 else ''}"
        lines = [f"\n    {n.op_type} {n.node!r}: {n.reason}; {n.nearest}" for n in found]
        raise UnsupportedError(
            f"{model.name!r} has {count} that int8 does not support",
            have="".join(lines),
            hint="change the model, or compile with --precision float32",
        )


def _problem(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in SUPPORTED:
        return "no integer form", NEAREST.get(node.op_type, "use operators of the list in the documentation")
    wide = [n for n in (*node.input, *node.output) if facts.types.get(n) in _OTHER_FLOATS]
    if wide:
        return f"{wide[0]!r} is not float32", "export the model in float32"
    return SUPPORTED[node.op_type](node, facts)


_OTHER_FLOATS = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _any(_node: NodeProto, _facts: Facts) -> tuple[str, str] | None:
    return None


def _gemm(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if not (facts.given(node, 1) and facts.given(node, 2)):
        return "its weights are not constants", "MatMul of two activations"
    flags = (_attribute(node, "transA", 0), _attribute(node, "alpha", 1.0), _attribute(node, "beta", 1.0))
    return None if flags == (0, 1.0, 1.0) else ("transA, alpha or beta is set", "transA=0, alpha=beta=1")


def _matmul(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    weights = [facts.constants[n] for n in node.input if n in facts.constants]
    if weights and len(weights[0].dims) <= 2:
        return "its weights are quantized, but not in a dense layer", "Gemm with transB=1"
    if weights:
        return "a stack of constant matrices", "one weight matrix for all (a dense layer), or two activations"
    return None


def _last_axis(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    axis = int(_attribute(node, "axis", -1))
    if axis not in (-1, facts.rank(node) - 1):
        return f"over axis {axis}", "over the last axis"
    return None


def _layer_norm(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if not (facts.given(node, 1) and facts.constant(node, 2)) or any(node.output[1:]):
        return "scale or bias is computed, or its mean is read", "constant scale and bias, one output"
    return _last_axis(node, facts)


def _divide(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    return None if facts.scalar(node, 1) else ("divides by a tensor", "division by a scalar constant")


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


def _slice(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if not all(facts.constant(node, i) for i in range(1, 5)):
        return "its bounds are computed", "constant bounds"
    if len(node.input) > 4 and node.input[4] and (facts.array(node, 4) < 1).any():
        return "a negative step", "positive steps"
    return None


def _gather(node: NodeProto, facts: Facts) -> tuple[str, str] | None:
    if facts.given(node, 0) or not facts.given(node, 1):
        return "looks up computed indices", "constant indices with equal steps"
    index = facts.array(node, 1).reshape(-1)
    axis = int(_attribute(node, "axis", 0))
    size = facts.shapes.get(node.input[0], (0,))[axis]
    steps = np.diff(np.where(index < 0, index + size, index))
    if steps.size and ((steps != steps[0]).any() or steps[0] <= 0):
        return "a list of indices that is not evenly spaced", "constant indices with equal, positive steps"
    return None


_UNARY = (
    "Abs",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Neg",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Sqrt",
    "Tanh",
)

SUPPORTED: Mapping[str, Rule] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Softmax": _last_axis,
    "LayerNormalization": _layer_norm,
    "Add": _any,
    "Sub": _any,
    "Mul": _any,
    "Div": _divide,
    "Pow": _power,
    "Clip": _bounds,
    "ReduceMean": _reduce,
    "Reshape": _operand,
    "Transpose": _any,
    "Squeeze": _operand,
    "Unsqueeze": _operand,
    "Flatten": _any,
    "Slice": _slice,
    "Gather": _gather,
    "Split": _operand,
    "Concat": _any,
    "Expand": _operand,
    "QuantizeLinear": _any,
    "DequantizeLinear": _any,
    **dict.fromkeys(_UNARY, _any),
}
"""The rule of each operator that int8 takes: None, or what is wrong and the nearest form taken."""

NEAREST: Mapping[str, str] = {
    "Conv": "a patch embedding: kernel = stride, no padding, one group",
    "ConvTranspose": "a dense layer and a reshape",
    "GroupNormalization": "LayerNormalization over the last axis",
    "InstanceNormalization": "LayerNormalization over the last axis",
    "BatchNormalization": "inference form with constant statistics",
    "RMSNormalization": "LayerNormalization over the last axis",
    "LogSoftmax": "Softmax",
    "MaxPool": "ReduceMean over the spatial axes",
    "AveragePool": "ReduceMean over the spatial axes",
    "ReduceSum": "ReduceMean and a scalar factor",
    "LSTM": "one step with its state as input and output (--state)",
    "GRU": "one step with its state as input and output (--state)",
    "RNN": "one step with its state as input and output (--state)",
    "Loop": "one step with its state as input and output (--state)",
    "Scan": "one step with its state as input and output (--state)",
    "If": "a condition that is constant at export",
    "Einsum": "MatMul with Transpose",
    "Where": "Mul by a constant mask, or Add of a constant one",
    "Attention": "MatMul, Mul, Softmax, MatMul (export with opset 18 to 21)",
    "Cast": "float32 throughout",
    "PRelu": "LeakyRelu",
    "Selu": "Elu",
    "Mish": "Gelu",
}
"""For operators that are often asked for: what to use in their place."""
