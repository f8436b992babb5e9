# SPDX-License-Identifier: Apache-2.0
"""Images as they come, 0 to 255: what a model wants done to them first becomes part of its first layer.

`normalized_inputs` puts `(x / 255 - mean) / std` before the model and declares that the input is 0 to 255, so that its
quantization is scale 1, zero point -128. `float_images` does the same for models that take uint8 and cast it.
`fold_input_norm` then folds any such scale and shift into the layer that reads it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from edgec.errors import UsageError
from edgec.model import Model, TensorInfo
from edgec.passes.graph_edit import Array, GraphEdit, array_of, attribute, input_of, is_static, only_consumer, shape_of

RANGE_KEY = "edgec.input_range"
"""metadata_props key: JSON of {input: [low, high]}, the real values that an input takes whatever calibration saw."""

PIXEL_RANGE = (0.0, 255.0)
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Identity")


# ---- before canonicalization: what the command line says, what the file's types say ------------------------------


def normalized_inputs(model: Model, texts: Sequence[str]) -> Model:
    """The model whose named inputs are images of 0 to 255, normalized inside by the given means and deviations.

    Args:
        model: a float model, or one that casts uint8 images.
        texts: `MEANS/DEVIATIONS` or `INPUT=MEANS/DEVIATIONS`, each one number or one for each channel, for images
            scaled to 0..1; the input may be left out when there is only one.

    Raises:
        UsageError: not of that form, or no such input, or another number of channels.
    """
    if not texts:
        return model
    model = float_images(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    infos = {info.name: info for info in model.inputs}
    given: dict[str, tuple[Array, Array]] = {}
    for text in texts:
        name, mean, deviation = _parsed(text, infos)
        if name in given:
            raise UsageError(f"--input-norm: input {name!r} is given twice")
        given[name] = mean, deviation
        _insert(proto.graph, infos[name], 1 / (255 * deviation), -mean / deviation)
    _declare(proto, declared_ranges(model) | dict.fromkeys(given, PIXEL_RANGE))
    return dataclasses.replace(model, proto=onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def float_images(model: Model) -> Model:
    """uint8 inputs that are only moved and cast to float become float inputs of 0 to 255."""
    graph = model.proto.graph
    states = {s.input for s in model.states}
    images = [
        value.name
        for value in graph.input
        if value.type.tensor_type.elem_type == TensorProto.UINT8
        and value.name not in states
        and _only_cast(graph, value.name)
    ]
    if not images:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for value in proto.graph.input:
        if value.name in images:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del proto.graph.value_info[:]
    _declare(proto, declared_ranges(model) | dict.fromkeys(images, PIXEL_RANGE))
    return dataclasses.replace(model, proto=onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def declared_ranges(model: Model) -> dict[str, tuple[float, float]]:
    """Ranges that inputs have by declaration, by input name.

    Raises:
        UsageError: the metadata is not of that form.
    """
    text = next((p.value for p in model.proto.metadata_props if p.key == RANGE_KEY), "{}")
    try:
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in json.loads(text).items()}
        if not all(math.isfinite(low) and math.isfinite(high) and low < high for low, high in ranges.values()):
            raise ValueError("a range is two finite numbers, the smaller first")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"the model's metadata {RANGE_KEY!r} is no table of ranges: {error}",
            need='JSON such as {"image": [0, 255]}',
            have=repr(text[:80]),
        ) from error
    names = {info.name for info in model.inputs}
    return {name: pair for name, pair in ranges.items() if name in names}


def check_ranges(model: Model, samples: Mapping[str, Array]) -> None:
    """Raise UsageError when samples leave the declared range of their input: they are normalized already."""
    for name, (low, high) in declared_ranges(model).items():
        found = float(samples[name].min()), float(samples[name].max())
        if found[0] < low or found[1] > high:
            raise UsageError(
                f"the samples of input {name!r} are outside its range",
                need=f"{low:g} to {high:g}",
                have=f"{found[0]:g} to {found[1]:g}",
                hint="with --input-norm, samples are the images before normalization, 0 to 255",
            )


def _parsed(text: str, infos: Mapping[str, TensorInfo]) -> tuple[str, Array, Array]:
    name, equals, numbers = text.rpartition("=")
    parts = [[_number(n, text) for n in part.split(",")] for part in numbers.split("/")]
    if len(parts) != 2:
        raise _wrong(text)
    if not equals:
        if len(infos) != 1:
            raise UsageError(
                f"--input-norm {text!r} names no input", need="INPUT=MEANS/DEVIATIONS", have=", ".join(infos)
            )
        name = next(iter(infos))
    if name not in infos:
        raise UsageError(f"--input-norm: the model has no input {name!r}", have=", ".join(infos) or "none")
    mean, deviation = (np.array(part, np.float64) for part in parts)
    if 0.0 in deviation:
        raise UsageError(f"--input-norm {text!r}: a deviation is zero")
    info, count = infos[name], max(mean.size, deviation.size)
    if info.dtype != np.float32:
        raise UsageError(f"--input-norm: input {name!r} is {info.dtype}", need="float32, or uint8 that is cast to it")
    if not {mean.size, deviation.size} <= {1, count}:
        raise _wrong(text)
    if count == 1:
        return name, mean.reshape(()), deviation.reshape(())
    axis = next((a for a in (1, len(info.shape) - 1, 0) if a < len(info.shape) and info.shape[a] == count), None)
    if axis is None:
        raise UsageError(
            f"--input-norm {text!r}: input {name!r} has no axis of {count} channels", have=str(list(info.shape))
        )
    wide = [count if a == axis else 1 for a in range(len(info.shape))]
    return name, np.broadcast_to(mean, count).reshape(wide), np.broadcast_to(deviation, count).reshape(wide)


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _wrong(whole) from None
    if not math.isfinite(value):
        raise _wrong(whole)
    return value


def _wrong(text: str) -> UsageError:
    return UsageError(
        f"--input-norm {text!r} is not a normalization",
        need="MEANS/DEVIATIONS, for example 0.485,0.456,0.406/0.229,0.224,0.225 (of images scaled to 0..1)",
    )


def _insert(graph: onnx.GraphProto, info: TensorInfo, scale: Array, shift: Array) -> None:
    taken = {n for node in graph.node for n in (*node.input, *node.output, node.name)}
    taken |= {v.name for v in (*graph.input, *graph.output, *graph.initializer)}

    def unique(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    scaled, normal = unique(f"{info.name}/scaled"), unique(f"{info.name}/normal")
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == info.name:
                node.input[i] = normal
    nodes = []
    for op, source, array, result in (("Mul", info.name, scale, scaled), ("Add", scaled, shift, normal)):
        constant = unique(f"{result}/{op.lower()}")
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), constant))
        nodes.append(helper.make_node(op, [source, constant], [result], name=unique(f"{result}/{op}")))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _declare(proto: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> None:
    present = {p.key: p.value for p in proto.metadata_props}
    helper.set_model_props(proto, present | {RANGE_KEY: json.dumps({n: list(r) for n, r in ranges.items()})})


def _only_cast(graph: onnx.GraphProto, name: str) -> bool:
    """Whether every use of a value is movement, and in the end a Cast to float32."""
    readers = [node for node in graph.node if name in node.input]
    if not readers or any(value.name == name for value in graph.output):
        return False
    for node in readers:
        if node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute):
            continue
        moved = node.op_type in _MOVES and node.input[0] == name and name not in node.input[1:]
        if not moved or not _only_cast(graph, node.output[0]):
            return False
    return True


# ---- in canonicalization ---------------------------------------------------------------------------------------


def fold_input_norm(edit: GraphEdit) -> None:
    """Fold the scales and shifts that an input passes first into the dense layer or convolution that reads it.

    Requires: dense layers in canonical form, static shapes.
    Ensures: where one layer reads the result, all input elements that meet one of its weights have one scale and
    shift, and it pads with nothing, both are in its weights and bias. With padding, only the shift stays before
    it: the layer's zeros mean the shifted zero.
    """
    for value in list(edit.graph.inputs):
        if is_static(value) and value.dtype == ir.DataType.FLOAT:
            _fold(edit, value)


def _fold(edit: GraphEdit, source: ir.Value) -> None:
    shape = shape_of(source)
    scale, shift, last = np.ones(shape), np.zeros(shape), source
    while (node := only_consumer(last)) is not None and (step := _affine(node, last)) is not None:
        factor, term = step
        scale, shift, last = scale * factor, shift * factor + term, node.outputs[0]
    if last is source or not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return
    normal, term = last, np.divide(shift, scale, out=np.zeros(shape), where=scale != 0)
    while (node := only_consumer(last)) is not None and node.op_type in _MOVES[:5] and node.inputs[0] is last:
        if not is_static(node.outputs[0]):
            return
        to = shape_of(node.outputs[0])
        if node.op_type == "Transpose":
            perm = attribute(node, "perm", list(range(scale.ndim))[::-1])
            scale, shift = scale.transpose(perm), shift.transpose(perm)
        scale, shift, last = scale.reshape(to), shift.reshape(to), node.outputs[0]
    if node is None or node.inputs[0] is not last:
        return
    edit.at = node
    if node.op_type == "Gemm":
        _into_gemm(edit, node, scale, shift, source, normal)
    elif node.op_type == "Conv":
        _into_conv(edit, node, scale, shift, source, normal, _compact(term))


def _affine(node: ir.Node, x: ir.Value) -> tuple[Array, Array] | None:
    """(factor, term) when `node` is `factor * x + term` with constants and keeps the shape."""
    if node.op_type not in ("Mul", "Add", "Sub", "Div") or shape_of(node.outputs[0]) != shape_of(x):
        return None
    left = node.inputs[0] is x
    constant = array_of(node.inputs[1 if left else 0])
    if constant is None or constant.dtype != np.float32:
        return None
    value, one, none = constant.astype(np.float64), np.array(1.0), np.array(0.0)
    if node.op_type == "Mul":
        return value, none
    if node.op_type == "Add":
        return one, value
    if node.op_type == "Sub":
        return (one, -value) if left else (-one, value)
    return (1 / value, none) if left and value.all() else None


def _into_gemm(edit: GraphEdit, node: ir.Node, scale: Array, shift: Array, source: ir.Value, normal: ir.Value) -> None:
    weight, bias = array_of(node.inputs[1]), array_of(input_of(node, 2))
    plain = attribute(node, "transB", 0) and not attribute(node, "transA", 0)
    plain = plain and attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
    if weight is None or bias is None or not plain or bias.shape != weight.shape[:1]:
        return
    if (scale != scale[:1]).any() or (shift != shift[:1]).any():  # rows that differ need weights that differ
        return
    wide = weight.astype(np.float64)
    _replace(edit, node, wide * scale[0], bias + wide @ shift[0], source, normal)


def _into_conv(
    edit: GraphEdit, node: ir.Node, scale: Array, shift: Array, source: ir.Value, normal: ir.Value, term: Array
) -> None:
    weight = array_of(node.inputs[1])
    given = input_of(node, 2)
    bias = np.zeros(0 if weight is None else len(weight)) if given is None else array_of(given)
    channels = scale.shape[1]
    s, t = scale.reshape(channels, -1), shift.reshape(channels, -1)
    if weight is None or bias is None or (s != s[:, :1]).any() or (t != t[:, :1]).any():
        return
    inner = channels // int(attribute(node, "group", 1))
    outputs = len(weight) // int(attribute(node, "group", 1))
    reads = [(m // outputs) * inner + np.arange(inner) for m in range(len(weight))]
    wide = weight.astype(np.float64)
    of_weights = (len(wide), inner, *[1] * (wide.ndim - 2))
    scaled = wide * np.stack([s[r, 0] for r in reads]).reshape(of_weights)
    if not _pads(node) or not t.any():
        moved = wide * np.stack([t[r, 0] for r in reads]).reshape(of_weights)
        _replace(edit, node, scaled, bias + moved.reshape(len(wide), -1).sum(axis=1), source, normal)
    elif s.all() and not _is_shift(normal, source):
        edit.at = normal.producer()
        shift_by = edit.constant(term, f"{source.name}/shift")
        shifted = edit.emit("Add", [source, shift_by], shape_of(source), f"{source.name}/shifted")
        edit.at = node
        _replace(edit, node, scaled, bias, shifted, normal)


def _compact(array: Array) -> Array:
    """The smallest array that broadcasts to this one."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if array.size and (array == first).all():
            array = first
    return array


def _is_shift(normal: ir.Value, source: ir.Value) -> bool:
    """Whether all that happens is one Add: nothing is won by writing it anew."""
    node = normal.producer()
    return node is not None and node.op_type == "Add" and source in node.inputs


def _pads(node: ir.Node) -> bool:
    automatic = attribute(node, "auto_pad", "NOTSET")
    return automatic not in ("NOTSET", "VALID") or (automatic == "NOTSET" and any(attribute(node, "pads", [0])))


def _replace(edit: GraphEdit, node: ir.Node, weight: Array, bias: Array, source: ir.Value, normal: ir.Value) -> None:
    """The layer with other weights, reading `source` where it (or the movement before it) read `normal`."""
    name = edit.take_name(node)
    inputs = [node.inputs[0], edit.constant(weight, f"{name}.weight"), edit.constant(bias, f"{name}.bias")]
    attributes = {a.name: a for a in node.attributes.values()}
    made = edit.emit(node.op_type, inputs, shape_of(node.outputs[0]), name, attributes)
    edit.replace(node.outputs[0], made)
    edit.replace(normal, source)
