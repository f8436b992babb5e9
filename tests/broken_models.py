# SPDX-License-Identifier: Apache-2.0
"""Models that are wrong in random ways: small good ones, changed by hypothesis where exporters and editors go wrong."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgec.model import load_model
from edgec.passes.canonicalize import canonicalize
from edgec.quantize.quantize import quantize
from edgec.verify import random_samples
from tests.small_models import Graph, attention_block, patch_classifier, step_model

Draw = Callable[[st.SearchStrategy], object]

INTEGERS = st.sampled_from([0, 1, -1, 2, 3, -2, 7, 2**31 - 1, -(2**31), 2**40, 2**63 - 1, -(2**63)])
NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 0.5])
TYPES = st.sampled_from(
    [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8,
     TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING,
     TensorProto.COMPLEX64, TensorProto.UNDEFINED, TensorProto.INT4, TensorProto.FLOAT8E4M3FN]
)  # fmt: skip
TEXTS = st.sampled_from(
    ["", "[]", "{}", "null", "[1]", '{"x": 3}', '{"image": [0, 255]}', '{"x": [0]}', "\x00", "[" * 50]
)


def convolutional(path: Path) -> Path:
    """Convolution, BatchNorm, pooling, a dense layer: what the other small models lack."""
    g = Graph(6)
    t = g.op("Conv", "x", g.random(4, 2, 3, 3), g.random(4, scale=0.1), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    constants = [g.const(np.abs(g.rng.normal(size=4)).astype(np.float32) + 0.5) for _ in range(4)]
    t = g.op("Relu", g.op("BatchNormalization", t, *constants))
    t = g.op("MaxPool", t, kernel_shape=[2, 2], strides=[2, 2])
    t = g.op("Flatten", g.op("Concat", t, g.op("Sigmoid", t), axis=1))
    g.op("Softmax", g.dense(t, 8 * 3 * 2, 5), out="y", axis=-1)
    return g.save(path, {"x": (1, 2, 6, 4)}, {"y": (1, 5)})


@functools.cache
def good_models() -> tuple[bytes, ...]:
    """Serialized models that compile: float ones, and two of them quantized."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        made = [make(path).read_bytes() for make in (patch_classifier, step_model, attention_block, convolutional)]
        for make in (patch_classifier, attention_block):
            model = load_model(make(path))
            quantized = quantize(canonicalize(model), random_samples(model, 2))
            made.append(quantized.proto.SerializeToString())
    return tuple(made)


@functools.cache
def operators() -> tuple[str, ...]:
    """Names of all standard operators."""
    return tuple(sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}))


@st.composite
def broken_models(draw: Draw) -> ModelProto:
    """A good model after one to three changes; it may still be right."""
    proto = ModelProto.FromString(draw(st.sampled_from(good_models())))  # type: ignore[arg-type]
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 2, 3]))):  # type: ignore[call-overload]
        change = draw(st.sampled_from(CHANGES))
        change(draw, proto)  # type: ignore[operator]
    return proto


def _node(draw: Draw, proto: ModelProto) -> NodeProto:
    return proto.graph.node[draw(st.integers(0, len(proto.graph.node) - 1))]  # type: ignore[no-any-return, index]


def _value(draw: Draw, proto: ModelProto) -> str:
    names = [n for node in proto.graph.node for n in (*node.input, *node.output)]
    return str(draw(st.sampled_from(sorted({*names, *(t.name for t in proto.graph.initializer)}))))


def _rewire(draw: Draw, proto: ModelProto) -> None:
    node = _node(draw, proto)
    if node.input:
        node.input[draw(st.integers(0, len(node.input) - 1))] = _value(draw, proto)  # type: ignore[index]


def _drop_input(draw: Draw, proto: ModelProto) -> None:
    node = _node(draw, proto)
    if node.input and draw(st.booleans()):
        node.input[draw(st.integers(0, len(node.input) - 1))] = ""  # type: ignore[index]
    elif node.input:
        del node.input[-1]


def _more_inputs(draw: Draw, proto: ModelProto) -> None:
    _node(draw, proto).input.append(_value(draw, proto))


def _rename_output(draw: Draw, proto: ModelProto) -> None:
    node = _node(draw, proto)
    if node.output:
        node.output[0] = draw(st.sampled_from(["", "x", "/", "y", _value(draw, proto)]))  # type: ignore[assignment]


def _rename_node(draw: Draw, proto: ModelProto) -> None:
    _node(draw, proto).name = draw(st.sampled_from(["", "same", "same", "a/b\n*/", "ü" * 300]))  # type: ignore[assignment]


def _other_operator(draw: Draw, proto: ModelProto) -> None:
    _node(draw, proto).op_type = str(draw(st.sampled_from(operators())))


def _remove_node(draw: Draw, proto: ModelProto) -> None:
    proto.graph.node.remove(_node(draw, proto))
    if not proto.graph.node:
        proto.graph.node.add(op_type="Identity", input=["x"], output=["y"])


def _swap_nodes(draw: Draw, proto: ModelProto) -> None:
    a, b = _node(draw, proto), _node(draw, proto)
    copy = NodeProto.FromString(a.SerializeToString())
    a.CopyFrom(b)
    b.CopyFrom(copy)


def _copy_node(draw: Draw, proto: ModelProto) -> None:
    proto.graph.node.append(_node(draw, proto))


def _attribute(draw: Draw, proto: ModelProto) -> None:
    node = _node(draw, proto)
    names = [a.name for a in node.attribute] + ["axis", "perm", "pads", "group", "alpha", "to", "keepdims", "epsilon"]
    name = str(draw(st.sampled_from(names)))
    kept = [a for a in node.attribute if a.name != name]
    value = draw(
        st.one_of(
            INTEGERS,
            NUMBERS,
            st.lists(INTEGERS, max_size=5),
            st.sampled_from(["", "SAME_UPPER", "tanh", "NaN"]),
            st.none(),
        )
    )
    made: list[AttributeProto] = []
    if value is not None:
        made = [helper.make_attribute(name, value, attr_type=AttributeProto.INTS if value == [] else None)]
    copies = [AttributeProto.FromString(a.SerializeToString()) for a in (*kept, *made)]
    del node.attribute[:]
    node.attribute.extend(copies)


def _weights(draw: Draw, proto: ModelProto) -> None:
    tensor = proto.graph.initializer[draw(st.integers(0, len(proto.graph.initializer) - 1))]  # type: ignore[index]
    array = numpy_helper.to_array(tensor).copy()
    kind = draw(st.sampled_from(["value", "all", "type", "empty", "scalar", "transposed", "rank", "integers"]))
    if kind == "value" and array.size and array.dtype.kind == "f":
        array.reshape(-1)[draw(st.integers(0, array.size - 1))] = draw(NUMBERS)  # type: ignore[call-overload]
    elif kind == "all" and array.dtype.kind == "f":
        array = np.full_like(array, draw(NUMBERS))
    elif kind == "type":
        array = array.astype(draw(st.sampled_from([np.float64, np.float16, np.int64, np.int8, np.bool_])))  # type: ignore[call-overload]
    elif kind == "empty":
        array = array[:0] if array.ndim else array.reshape(1)[:0]
    elif kind == "scalar" and array.size:
        array = array.reshape(-1)[0]
    elif kind == "transposed":
        array = array.T
    elif kind == "rank":
        array = array[None]
    elif kind == "integers" and array.dtype == np.int64 and array.size:
        array.reshape(-1)[0] = draw(INTEGERS)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), tensor.name))


def _port(draw: Draw, proto: ModelProto) -> None:
    ports = [*proto.graph.input, *proto.graph.output]
    tensor = ports[draw(st.integers(0, len(ports) - 1))].type.tensor_type  # type: ignore[index, call-overload]
    kind = draw(st.sampled_from(["dim", "type", "rank", "open", "none"]))
    if kind == "dim" and tensor.shape.dim:
        size = draw(st.one_of(INTEGERS, st.integers(0, 9)))
        tensor.shape.dim[draw(st.integers(0, len(tensor.shape.dim) - 1))].dim_value = size  # type: ignore[index]
    elif kind == "type":
        tensor.elem_type = draw(TYPES)
    elif kind == "rank":
        tensor.shape.dim.add(dim_value=1)
    elif kind == "open" and tensor.shape.dim:
        tensor.shape.dim[0].dim_param = "batch"
    elif kind == "none":
        tensor.ClearField("shape")


def _outputs(draw: Draw, proto: ModelProto) -> None:
    if draw(st.booleans()):
        proto.graph.output.append(proto.graph.output[0])
    else:
        proto.graph.output.append(helper.make_tensor_value_info(_value(draw, proto), TensorProto.FLOAT, None))


def _metadata(draw: Draw, proto: ModelProto) -> None:
    key = str(
        draw(
            st.sampled_from(
                ["edgec.state", "edgec.input_range", "edgec.interface", "edgec.layout", "edgec.quantization"]
            )
        )
    )
    proto.metadata_props.add(key=key, value=str(draw(TEXTS)))


def _versions(draw: Draw, proto: ModelProto) -> None:
    if draw(st.booleans()):
        proto.opset_import[0].version = draw(st.integers(-1, 40))  # type: ignore[assignment]
    else:
        proto.ir_version = draw(st.integers(0, 20))  # type: ignore[assignment]


CHANGES = [
    _rewire, _drop_input, _more_inputs, _rename_output, _rename_node, _other_operator, _remove_node, _swap_nodes,
    _copy_node, _attribute, _attribute, _weights, _weights, _port, _outputs, _metadata, _versions,
]  # fmt: skip
