# SPDX-License-Identifier: Apache-2.0
"""Elementwise functions of one int8 tensor, as its 256 float64 results: what a table is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

LOGICAL = frozenset("And Equal Greater GreaterOrEqual Less LessOrEqual Not Or Xor".split())
"""Functions whose values are true and false: 1.0 and 0.0 here."""

ELEMENTWISE = LOGICAL | frozenset(
    """Abs Add Cast Ceil Celu Clip Cos Div Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Log Max Min Mish Mul
    Neg Pow PRelu Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Softplus Softsign Sqrt Sub Tanh ThresholdedRelu
    Where""".split()
)

_REAL = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE))


def evaluate(
    node: onnx.NodeProto,
    variables: Mapping[str, npt.NDArray[np.float64]],
    scalars: Mapping[str, float],
    opset: int,
) -> npt.NDArray[np.float64]:
    """Result of an elementwise node for 256 values of its variable inputs, in float64 (ONNX's own reference).

    Raises:
        ValueError: a Cast to integers.
    """
    local = onnx.NodeProto()
    local.CopyFrom(node)
    if node.op_type == "Cast":
        (values,) = variables.values()
        to = next(a.i for a in node.attribute if a.name == "to")
        if to == TensorProto.BOOL:
            return np.asarray(values != 0, np.float64)
        if to not in _REAL:
            raise ValueError("a cast to integers")
        return values
    truths = _truths(node)

    def typed(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
        return np.asarray(values, np.float64) != 0 if name in truths else np.asarray(values, np.float64)

    def info(name: str, logical: bool) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.BOOL if logical else TensorProto.DOUBLE, [256])

    constants = [numpy_helper.from_array(typed(n, v), n) for n, v in scalars.items()]
    model = helper.make_model(
        helper.make_graph(
            [local],
            "table",
            [info(n, n in truths) for n in variables],
            [info(node.output[0], node.op_type in LOGICAL)],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    with np.errstate(all="ignore"):
        (output,) = ReferenceEvaluator(model).run(None, {n: typed(n, v) for n, v in variables.items()})
    # Where the function has no value (the root of a negative number) its table holds 0, on every machine.
    return np.where(np.isnan(output), 0.0, np.asarray(output, np.float64))


def _truths(node: onnx.NodeProto) -> set[str]:
    """Inputs of the node that are true or false."""
    if node.op_type in ("And", "Or", "Xor", "Not"):
        return set(node.input)
    return {node.input[0]} if node.op_type == "Where" else set()
