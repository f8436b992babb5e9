# SPDX-License-Identifier: Apache-2.0
"""Integer graph -> integer graph: a front end before the input that it feeds.

The samples of a hop go into a ring that is a state of the program alone, as is its cursor; `log_mel_s8` makes the
features of the newest window in the quantization of the input, whose place it takes.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.errors import UnsupportedError, UsageError
from edgec.front_end import FrontEnd, front_end_of
from edgec.lower.graph import DOMAIN
from edgec.lower.internal import declare_internal
from edgec.lower.lower import INTERFACE_KEY
from edgec.model import Model
from edgec.passes.layout import layouts


def fed_by_samples(model: Model) -> Model:
    """The model with samples in place of the features that its front end makes: its border alone, no nodes."""
    front_end = front_end_of(model)
    if front_end is None:
        return model
    proto = onnx.ModelProto()
    proto.graph.input.extend(_samples(front_end) if i.name == front_end.input else i for i in model.proto.graph.input)
    proto.graph.output.extend(model.proto.graph.output)
    return Model(proto, model.name, model.sha256, model.states, model.notes)


def insert_front_end(model: Model, original: Model) -> Model:
    """The integer graph of a model with its front end.

    Args:
        model: after all other rewriting of integers.
        original: what it was made from, which declares the front end.

    Raises:
        UnsupportedError: the input is not int8, or the front end has no fixed-point form in its quantization.
    """
    front_end = front_end_of(original)
    if front_end is None:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    scale, zero_point = _taken_quantization(model, proto, front_end)
    log_mel, name = front_end.log_mel, front_end.input
    try:
        constants = log_mel.constants(scale, zero_point).arrays()
    except ValueError as error:
        raise UnsupportedError(f"input {name!r}: {error}") from error
    ring, cursor, samples = f"{front_end.samples}.ring", f"{front_end.samples}.cursor", front_end.samples
    written, moved = f"{ring}.next", f"{cursor}.next"
    feature_shape = _shape(next(i for i in proto.graph.input if i.name == name))
    features = name if len(feature_shape) == 2 else f"{name}.frame"
    given = {key: f"{name}.{key}" for key in constants}
    nodes = [
        helper.make_node("ring_cursor_s32", [cursor], [moved], cursor, domain=DOMAIN, rows=log_mel.rows, step=1),
        helper.make_node("ring_write_s16", [ring, samples, moved], [written], ring, domain=DOMAIN),
        helper.make_node("log_mel_s8", [written, moved, *given.values()], [features], name, domain=DOMAIN),
    ]
    nodes[-1].attribute.extend(helper.make_attribute(key, value) for key, value in log_mel.attributes().items())
    graph = proto.graph
    graph.initializer.extend(numpy_helper.from_array(constants[key], given[key]) for key in constants)
    if features != name:
        graph.initializer.append(numpy_helper.from_array(np.array(feature_shape, np.int64), f"{name}.shape"))
        nodes.append(helper.make_node("Reshape", [features, f"{name}.shape"], [name], f"{name}.shaped"))
    later = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *later])
    inputs = [_samples(front_end) if i.name == name else i for i in graph.input]
    del graph.input[:]
    graph.input.extend(inputs)
    ring_shape = (1, log_mel.rows, log_mel.hop)
    declare_internal(proto, ring, written, TensorProto.INT16, ring_shape)
    declare_internal(proto, cursor, moved, TensorProto.INT32, (1,))
    return Model(proto, model.name, model.sha256, model.states, list(model.notes))


def require_integers(model: Model, precision: str) -> None:
    """Raise UsageError when a front end is wanted before a program in float."""
    if precision != "int8" and front_end_of(model) is not None:
        raise UsageError(
            "a front end computes in integers, for a quantized input",
            need="--precision int8",
            have=f"--precision {precision}",
            hint="--front-end none takes the features as the input",
        )


def _taken_quantization(model: Model, proto: onnx.ModelProto, front_end: FrontEnd) -> tuple[float, int]:
    """Scale and zero point of the input, which is no longer one of the program's."""
    interface = json.loads(next(p.value for p in proto.metadata_props if p.key == INTERFACE_KEY))
    entry = next((e for e in interface["inputs"] if e["name"] == front_end.input), None)
    info = next(i for i in proto.graph.input if i.name == front_end.input)
    if entry is None or info.type.tensor_type.elem_type != TensorProto.INT8 or front_end.input in layouts(model):
        raise UnsupportedError(f"input {front_end.input!r} is not quantized to int8: the front end gives int8")
    interface["inputs"].remove(entry)
    metadata = {p.key: p.value for p in proto.metadata_props}
    helper.set_model_props(proto, {**metadata, INTERFACE_KEY: json.dumps(interface)})
    return float(entry["scale"]), int(entry["zero_point"])


def _samples(front_end: FrontEnd) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(front_end.samples, TensorProto.INT16, front_end.info.shape)


def _shape(info: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
