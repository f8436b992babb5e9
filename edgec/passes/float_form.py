# SPDX-License-Identifier: Apache-2.0
"""Float32 programs and islands: standard operators that TVM lacks or takes for others, by ones that it computes right.

Each rule exists because tests of the ONNX project fail without it (tests/test_onnx_backend.py), that of outer products
for their cost; what no rule repairs is refused here, before it becomes a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from edgec.errors import UnsupportedError
from edgec.model import Model
from edgec.passes.canonicalize import to_proto
from edgec.passes.fold_constants import fold_constants, infer_shapes, remove_dead
from edgec.passes.functions import expand_functions
from edgec.passes.graph_edit import GraphEdit, array_of, attribute, input_of, scalar_of, shape_of
from edgec.passes.resize import lower_resize

Rule = Callable[[GraphEdit, ir.Node], None]

EXPANDED = frozenset(
    """Celu CenterCropPad GroupNormalization MeanVarianceNormalization NegativeLogLikelihoodLoss
    SoftmaxCrossEntropyLoss""".split()
)
"""Operators that TVM does not import and ONNX defines by others."""


def float_form(model: Model) -> Model:
    """The canonical model in operators that TVM's import computes rightly; same inputs, outputs and values.

    Raises:
        UnsupportedError: a node that would come out wrong; all are listed.
    """
    _refuse_wrong(model.proto)
    proto = expand_functions(model.proto, lambda node: node.op_type in EXPANDED)
    graph = ir.from_proto(proto)
    if proto is not model.proto:
        fold_constants(graph)
    edit = GraphEdit(graph, [])
    for node in edit.nodes(*RULES):
        edit.at = node
        RULES[node.op_type](edit, node)
    remove_dead(graph)
    infer_shapes(graph)
    return Model(to_proto(graph, model), model.name, model.sha256, model.states, list(model.notes))


# ---- refusals ----------------------------------------------------------------------------------------------------


def _refuse_wrong(proto: onnx.ModelProto) -> None:
    read = {name for node in proto.graph.node for name in node.input} | {o.name for o in proto.graph.output}
    found = []
    for node in proto.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        reason = next((why for op, wrong, why in REFUSED if node.op_type == op and wrong(node, attributes)), None)
        limit = ONE_OUTPUT.get(node.op_type)
        if limit is not None and any(name in read for name in node.output[1:]):
            reason = limit
        if reason is not None:
            found.append(f"\n    {node.op_type} {node.name!r}: {reason}")
    if found:
        raise UnsupportedError("nodes that float32 programs do not support", have="".join(found))


REFUSED: tuple[tuple[str, Callable[[onnx.NodeProto, Mapping[str, object]], bool], str], ...] = (
    ("BatchNormalization", lambda n, a: bool(a.get("training_mode", 0)), "training mode"),
    ("Dropout", lambda n, a: len(n.input) > 2 and bool(n.input[2]), "training mode"),
    ("RoiAlign", lambda n, a: a.get("mode") == b"max", "mode max"),
)  # fmt: skip
"""Operator, whether TVM would compute something else, and what to tell."""

ONE_OUTPUT: Mapping[str, str] = {
    "BatchNormalization": "training mode",
    "MaxPool": "its second output, the indices, is read",
}
"""Operators of which only the first output is computed."""


# ---- rules -------------------------------------------------------------------------------------------------------


def _resize(edit: GraphEdit, node: ir.Node) -> None:
    edit.replace(node.outputs[0], lower_resize(edit, node))


def _layer_norm(edit: GraphEdit, node: ir.Node) -> None:
    """Mean and inverse deviation, where they are read, from their definitions; TVM makes constants of them."""
    x = node.inputs[0]
    read = [i for i in (1, 2) if i < len(node.outputs) and _is_read(node.outputs[i])]
    if not read or x is None:
        return
    shape = shape_of(x)
    axis = int(attribute(node, "axis", -1)) % len(shape)
    small = (*shape[:axis], *[1] * (len(shape) - axis))
    name = node.name
    axes = edit.constant(np.arange(axis, len(shape), dtype=np.int64), f"{name}.axes")
    mean = edit.emit("ReduceMean", [x, axes], small, f"{name}.mean", {"keepdims": 1})
    centred = edit.emit("Sub", [x, mean], shape, f"{name}.centred")
    square = edit.emit("Mul", [centred, centred], shape, f"{name}.square")
    variance = edit.emit("ReduceMean", [square, axes], small, f"{name}.variance", {"keepdims": 1})
    epsilon = edit.constant(np.float32(attribute(node, "epsilon", 1e-5)), f"{name}.epsilon")
    shifted = edit.emit("Add", [variance, epsilon], small, f"{name}.shifted")
    deviation = edit.emit("Sqrt", [shifted], small, f"{name}.deviation")
    inverse = edit.emit("Reciprocal", [deviation], small, f"{name}.inverse")
    for i, value in ((1, mean), (2, inverse)):
        if i in read:
            edit.replace(node.outputs[i], value)


def _modulo(edit: GraphEdit, node: ir.Node) -> None:
    """Floats: the remainder with the divisor's sign from C's; TVM's own is x - floor(x / y) * y, NaN at infinity."""
    x, y = node.inputs
    out = node.outputs[0]
    if attribute(node, "fmod", 0) or x is None or y is None or x.dtype != ir.DataType.FLOAT:
        return
    name, shape = edit.take_name(node), shape_of(out)
    zero = edit.constant(np.float32(0), f"{name}.zero")
    rest = edit.emit("Mod", [x, y], shape, f"{name}.rest", {"fmod": 1})
    signs = [_boolean(edit.emit("Less", [v, zero], shape_of(v), f"{name}.sign")) for v in (rest, y)]
    other = _boolean(edit.emit("Xor", signs, shape, f"{name}.other"))
    there = _boolean(edit.emit("Less", [zero, edit.emit("Abs", [rest], shape, f"{name}.size")], shape, f"{name}.there"))
    both = _boolean(edit.emit("And", [other, there], shape, f"{name}.both"))
    moved = edit.emit("Add", [rest, y], shape, f"{name}.moved")
    result = edit.emit("Where", [both, moved, rest], shape, name)
    result.type = x.type
    edit.replace(out, result)


def _outer_product(edit: GraphEdit, node: ir.Node) -> None:
    """A product that sums one term each as Mul, which TVM fuses with what follows; its MatMul fills an array first."""
    a, b = node.inputs
    if a is None or b is None or min(len(shape_of(a)), len(shape_of(b))) < 2 or shape_of(a)[-1] != 1:
        return
    out, name = node.outputs[0], edit.take_name(node)
    edit.replace(out, edit.emit("Mul", [a, b], shape_of(out), name))


def _infinite(edit: GraphEdit, node: ir.Node) -> None:
    """IsInf for one sign, which TVM takes for both."""
    x, out = node.inputs[0], node.outputs[0]
    signs = [bool(attribute(node, f"detect_{sign}", 1)) for sign in ("positive", "negative")]
    if x is None or all(signs) or not any(signs):
        return
    name = edit.take_name(node)
    infinity = edit.constant(np.float32("inf" if signs[0] else "-inf"), f"{name}.infinity")
    edit.replace(out, _boolean(edit.emit("Equal", [x, infinity], shape_of(out), name)))


def _extreme_of_bools(edit: GraphEdit, node: ir.Node) -> None:
    """By way of integers: TVM has no least bool to start from."""
    x, out = node.inputs[0], node.outputs[0]
    if x is None or x.dtype != ir.DataType.BOOL:
        return
    keep = {k: int(attribute(node, k, d)) for k, d in (("keepdims", 1), ("noop_with_empty_axes", 0))}
    name = edit.take_name(node)
    number = edit.emit("Cast", [x], shape_of(x), f"{name}.number", {"to": int(ir.DataType.INT32)})
    number.type = ir.TensorType(ir.DataType.INT32)
    found = edit.emit(node.op_type, [number, *node.inputs[1:]], shape_of(out), f"{name}.found", keep)
    edit.replace(out, _boolean(edit.emit("Cast", [found], shape_of(out), name, {"to": int(ir.DataType.BOOL)})))


def _power(edit: GraphEdit, node: ir.Node) -> None:
    """The exponent in the type of the base, which TVM wants."""
    x, y = node.inputs
    if x is None or y is None or x.dtype != ir.DataType.FLOAT or y.dtype == x.dtype:
        return
    constant = array_of(y)
    name = f"{node.name}.exponent"
    if constant is not None:
        exponent = edit.constant(constant.astype(np.float32), name)
    else:
        exponent = edit.emit("Cast", [y], shape_of(y), name, {"to": int(ir.DataType.FLOAT)})
        exponent.type = x.type
    node.replace_input_with(1, exponent)


def _middle_axis(edit: GraphEdit, node: ir.Node) -> None:
    """CumSum and TopK along axis 1 of three."""
    x = node.inputs[0]
    if x is None:
        return
    shape = shape_of(x)
    given = scalar_of(input_of(node, 1)) if node.op_type == "CumSum" else attribute(node, "axis", -1)
    if given is None or not shape:
        raise UnsupportedError(f"{node.op_type} {node.name!r}: its axis is computed", need="a constant")
    axis = int(given) % len(shape)
    outer, inner = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    name = edit.take_name(node)
    flat = edit.reshape(x, (outer, shape[axis], inner), f"{name}.rows")
    results = [shape_of(o) for o in node.outputs]
    operands: list[ir.Value | None]
    if node.op_type == "CumSum":
        attributes = {k: int(attribute(node, k, 0)) for k in ("exclusive", "reverse")}
        operands = [flat, edit.constant(np.array(1, np.int64), f"{name}.axis")]
    else:
        attributes = {"axis": 1, "largest": int(attribute(node, "largest", 1)), "sorted": 1}
        operands = [flat, input_of(node, 1)]
    made = ir.node(node.op_type, operands, attributes=attributes, num_outputs=len(results), name=name)
    edit.graph.insert_before(node, made)
    for i, (old, new) in enumerate(zip(node.outputs, made.outputs, strict=True)):
        new.name, new.type = f"{name}.{i}.rows", old.type
        new.shape = ir.Shape([outer, results[i][axis], inner])
    replacements = [
        edit.reshape(new, shape, f"{name}.{i}")
        for i, (new, shape) in enumerate(zip(made.outputs, results, strict=True))
    ]
    for old, new in zip(list(node.outputs), replacements, strict=True):
        edit.replace(old, new)


def _concat(edit: GraphEdit, node: ir.Node) -> None:
    """Without operands of no elements, for which TVM allocates arrays of no size."""
    operands = [v for v in node.inputs if v is not None and 0 not in shape_of(v)]
    if 0 < len(operands) < len(node.inputs):
        out, name = node.outputs[0], edit.take_name(node)
        axis = int(attribute(node, "axis", 0))
        edit.replace(out, edit.emit("Concat", operands, shape_of(out), name, {"axis": axis}))


def _transposed_convolution(edit: GraphEdit, node: ir.Node) -> None:
    """`output_shape` as pads: TVM ignores it."""
    wanted, x, w = attribute(node, "output_shape", None), node.inputs[0], node.inputs[1]
    if not wanted or x is None or w is None:
        return
    spatial, kernel = shape_of(x)[2:], shape_of(w)[2:]
    ones = [1] * len(spatial)
    strides, dilations = (list(attribute(node, k, None) or ones) for k in ("strides", "dilations"))
    extra = list(attribute(node, "output_padding", None) or [0] * len(spatial))
    upper = str(attribute(node, "auto_pad", "NOTSET")) != "SAME_LOWER"
    begin, end = [], []
    for i, length in enumerate(list(wanted)[-len(spatial) :]):
        total = strides[i] * (spatial[i] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1 - length
        if total < 0:  # more results than there are: those beyond have no sum but the bias
            extra[i] -= total
            total = 0
        small, large = total // 2, total - total // 2
        begin.append(small if upper else large)
        end.append(large if upper else small)
    for key in ("output_shape", "auto_pad"):
        node.attributes.pop(key, None)
    node.attributes["pads"] = ir.AttrInt64s("pads", begin + end)
    node.attributes["output_padding"] = ir.AttrInt64s("output_padding", extra)


def _boolean(value: ir.Value) -> ir.Value:
    value.type = ir.TensorType(ir.DataType.BOOL)
    return value


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


RULES: Mapping[str, Rule] = {
    "Resize": _resize,
    "LayerNormalization": _layer_norm,
    "MatMul": _outer_product,
    "IsInf": _infinite,
    "Mod": _modulo,
    "Pow": _power,
    "CumSum": _middle_axis,
    "ReduceMax": _extreme_of_bools,
    "ReduceMin": _extreme_of_bools,
    "TopK": _middle_axis,
    "Concat": _concat,
    "ConvTranspose": _transposed_convolution,
}
"""The rule of each operator, applied to every node of it in order."""
