# SPDX-License-Identifier: Apache-2.0
"""What the tests of the passes share: hand-made models, ONNX Runtime as the judge, the form."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgec.model import Model, value_shapes
from edgec.passes.canonicalize import canonicalize

MOVEMENT = ("Reshape", "Transpose")
FORM = {
    "Gemm",
    "MatMul",
    "Mul",
    "Softmax",
    "LayerNormalization",
    "Gelu",
    "Add",
    "ReduceMean",
    "Concat",
    "Gather",
}
FORM |= set(MOVEMENT)


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds))


def feeds_of(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=t.shape).astype(t.dtype) for t in (*model.inputs, *model.state_inputs)}


def canonical_form(model: Model) -> Model:
    """Canonicalize; after every pass ONNX Runtime must compute the same, to 1e-5 of the range."""
    feeds = feeds_of(model)
    want = run(model.proto, feeds)

    def observe(name: str, proto: onnx.ModelProto) -> None:
        onnx.checker.check_model(proto, full_check=True)
        for a, b in zip(want, run(proto, feeds), strict=True):
            assert a.shape == b.shape, name
            error = np.abs(a - b).max() / max(float(np.ptp(a)), 1e-6)
            assert error <= 1e-5, f"after {name}: {error:.2e} of the range"

    canonical = canonicalize(model, observe=observe)
    check_form(canonical)
    assert [t.name for t in canonical.inputs] == [t.name for t in model.inputs]
    assert [(t.name, t.shape) for t in canonical.outputs] == [(t.name, t.shape) for t in model.outputs]
    assert canonical.states == model.states
    return canonical


def attributes_of(node: onnx.NodeProto) -> dict[str, object]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def check_form(model: Model) -> None:
    """The guarantees that hold for every model."""
    graph = model.proto.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    shapes = value_shapes(model.proto)
    assert [(o.domain, o.version) for o in model.proto.opset_import] == [("", 21)]
    names = [n.name for n in graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    gone = {"Dropout", "Constant", "Squeeze", "Unsqueeze", "Flatten"}
    assert not gone & {n.op_type for n in graph.node}
    given = {t.name for t in graph.input}
    assert all(n.input[0] in given for n in graph.node if n.op_type == "Identity")  # an output needs a node
    producers = {o: n for n in graph.node for o in n.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        assert all(o in shapes for o in node.output), node.name
        attributes = attributes_of(node)
        if node.op_type == "Gemm":
            weight, bias = (constants[n] for n in node.input[1:])
            assert weight.ndim == 2
            assert bias.shape == weight.shape[:1]
            assert attributes == {"transB": 1}
        if node.op_type == "MatMul":
            stacks = [constants[n] for n in node.input if n in constants]
            assert all(math.prod(s.shape[:-2]) > 1 for s in stacks)
            follower = readers.get(node.output[0], [])
            if len(follower) == 1 and follower[0].op_type in ("Mul", "Div"):
                assert follower[0].op_type == "Mul"
                others = [constants.get(n) for n in follower[0].input if n != node.output[0]]
                assert others[0] is None or others[0].ndim == 0 or others[0].size > 1
        if node.op_type == "Softmax":
            assert attributes["axis"] == -1
        if node.op_type == "LayerNormalization":
            assert attributes["axis"] == -1
            assert constants[node.input[1]].shape == constants[node.input[2]].shape == shapes[node.input[0]][-1:]
        if node.op_type == "Reshape":
            assert shapes[node.input[0]] != shapes[node.output[0]]
            before = producers.get(node.input[0])
            if before is not None and before.op_type == "Reshape":  # two views in a row only where both are read
                assert len(readers[node.input[0]]) > 1


def hand_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    outputs: list[str],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 21,
) -> Model:
    initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        initializers,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    return Model(proto, "hand", "0" * 64)


def node(op_type: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), output.split(), name=f"{output.split()[0]}_node", **attributes)


def f32(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
