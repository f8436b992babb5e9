# SPDX-License-Identifier: Apache-2.0
"""Constant folding and static shapes."""

from __future__ import annotations

import logging

import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import _constant_folding as folding

from edgec.errors import UnsupportedError

MAX_FOLDED_BYTES = 256 * 2**20
"""No constant larger than this is made by folding (a small file can ask for terabytes)."""

_KEPT = ("QuantizeLinear", "DequantizeLinear")  # folding these would lose a quantized model's integers
_GENERATORS = ("ConstantOfShape", "Expand", "Tile", "Range")  # small operands, any output


def fold_constants(model: ir.Model) -> None:
    """Evaluate what does not depend on the inputs, shape arithmetic included.

    Requires: opset 21, static input shapes.
    Ensures: constants are initializers, no Constant nodes; shapes known where they follow from the inputs'.
    """
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    for _ in range(8):
        before = (len(model.graph), len(model.graph.initializers))
        infer_shapes(model)
        folding.FoldConstantsPass(
            shape_inference=True,
            input_size_limit=MAX_FOLDED_BYTES,
            output_size_limit=MAX_FOLDED_BYTES,
            should_fold=_should_fold,
        )(model)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        remove_dead(model)
        if (len(model.graph), len(model.graph.initializers)) == before:
            return


def remove_dead(model: ir.Model) -> None:
    """Drop nodes and initializers that no output depends on."""
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)


def infer_shapes(model: ir.Model) -> None:
    """Fill in the shape and type of every value.

    Raises:
        UnsupportedError: two shapes contradict each other.
    """
    try:
        common.ShapeInferencePass(check_type=True, strict_mode=True, data_prop=True)(model)
    except Exception as error:  # ONNX raises several types here
        raise UnsupportedError(
            f"the shapes of the model contradict each other: {' '.join(str(error).split())[:300]}",
            hint="check the shapes given by --input-shape",
        ) from error


def with_folded_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which shape arithmetic is folded, for a model whose output shapes hang on it."""
    model = ir.from_proto(proto)
    fold_constants(model)
    return ir.to_proto(model)


def _should_fold(node: ir.Node) -> bool | None:
    """False: never; True: whatever the folder's own size rules say; None: by its rules."""
    static = all(o.shape is not None and o.shape.is_static() for o in node.outputs)
    if node.op_type in _KEPT or (static and any(ir_bytes(o) > MAX_FOLDED_BYTES for o in node.outputs)):
        return False
    if node.op_type in _GENERATORS:
        return static and all(v is not None and v.const_value is not None for v in node.inputs)
    return None


def ir_bytes(value: ir.Value) -> int:
    """Bytes of a value of static shape (4 per element where its type is unknown)."""
    assert value.shape is not None
    size = 4 if value.dtype is None else max(1, value.dtype.itemsize)
    count = 1
    for d in value.shape:
        count *= int(d)  # type: ignore[arg-type]
    return int(count * size)
