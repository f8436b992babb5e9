# SPDX-License-Identifier: Apache-2.0
"""Elementwise functions of one int8 tensor, as its 256 float64 results: what a table is made from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

ELEMENTWISE = frozenset(
    """Abs Add Clip Div Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Mish Mul Neg Pow Relu Sigmoid Softplus Sqrt
    Sub Tanh""".split()
)


def evaluate(
    node: onnx.NodeProto,
    variables: Mapping[str, npt.NDArray[np.float64]],
    scalars: Mapping[str, float],
    opset: int,
) -> npt.NDArray[np.float64]:
    """Result of an elementwise node for 256 values of its variable inputs, in float64 (ONNX's own reference)."""
    local = onnx.NodeProto()
    local.CopyFrom(node)
    info = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, [256]) for n in variables]
    result = helper.make_tensor_value_info(node.output[0], TensorProto.DOUBLE, [256])
    constants = [numpy_helper.from_array(np.array(v, np.float64), n) for n, v in scalars.items()]
    model = helper.make_model(
        helper.make_graph([local], "table", info, [result], constants),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    with np.errstate(all="ignore"):
        (output,) = ReferenceEvaluator(model).run(None, dict(variables))
    # Where the function has no value (the root of a negative number) its table holds 0, on every machine.
    return np.where(np.isnan(output), 0.0, np.asarray(output, np.float64))
