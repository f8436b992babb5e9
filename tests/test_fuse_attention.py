# SPDX-License-Identifier: Apache-2.0
"""Attention fused on the integer graph: the same integers as unfused, copies only where heads lie otherwise."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.lower.attention import fuse_attention
from edgec.lower.graph import DOMAIN
from edgec.model import Model
from edgec.operators import get_operator
from edgec.operators.softmax import exponentials

TOKENS, HEADS, DEPTH = 6, 3, 4


class Builder:
    """An integer graph by hand."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def constant(self, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, self.name()))
        return str(self.constants[-1].name)

    def view(self, x: str, *shape: int) -> str:
        self.nodes.append(helper.make_node("Reshape", [x, self.constant(np.array(shape, np.int64))], [self.name()]))
        return str(self.nodes[-1].output[0])

    def op(self, op: str, *inputs: str, **attrs: object) -> str:
        node = helper.make_node(op, inputs, [self.name()], name=f"{op} {self.count}", domain=DOMAIN)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attrs.items())
        self.nodes.append(node)
        return str(node.output[0])

    def copy(self, x: str, offset: int, shape: list[int], strides: list[int]) -> str:
        return self.op("strided_copy_s8", x, offset=offset, shape=shape, strides=strides)

    def model(self, sizes: dict[str, int], outputs: list[str]) -> Model:
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT8, [s]) for n, s in sizes.items()]
        results = [helper.make_tensor_value_info(n, TensorProto.INT8, None) for n in outputs]
        graph = helper.make_graph(self.nodes, "g", inputs, results, self.constants)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
        return Model(helper.make_model(graph, opset_imports=opsets), "g", "0" * 64)


def params(za: int, mult: int, zero_point: int) -> np.ndarray:
    return np.array([za, 0, mult, 0, zero_point], np.int32)


def run(model: Model, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The graph by the operators' definitions."""
    graph = model.proto.graph
    env = {t.name: numpy_helper.to_array(t) for t in graph.initializer} | values
    for node in graph.node:
        given = [env[n] for n in node.input]
        if node.op_type == "Reshape":
            env[node.output[0]] = given[0].reshape(given[1])
        else:
            attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            env[node.output[0]] = get_operator(node.op_type).run(given, attrs)
    return [env[o.name].ravel() for o in graph.output]


def attention(
    b: Builder, q: str, k: str, v: str, *, keys: int = TOKENS, wide: int = 0, joined: int = 0, back: bool = True
) -> tuple[str, str]:
    """Head-splitting copies, the three operators and the copy back; `joined`: width of a fused qkv layer."""
    row = joined or HEADS * DEPTH
    part = HEADS * DEPTH if joined else 0
    by_head = b.copy(q, 0, [HEADS, TOKENS, DEPTH], [DEPTH, row, 1])
    columns = b.copy(k, part, [HEADS, DEPTH, keys], [DEPTH, 1, row])
    values = b.copy(v, 2 * part, [HEADS, keys, DEPTH], [DEPTH, row, 1])
    scores = b.op("matmul_s8", by_head, columns, b.constant(params(3, 2**24, 1)), wide=wide)
    flat = b.view(scores, HEADS * TOKENS, keys)
    soft = b.view(b.op("softmax_s8", flat, b.constant(exponentials(0.05))), HEADS, TOKENS, keys)
    mixed = b.op("matmul_s8", soft, values, b.constant(params(-128, 2**23, 0)), wide=0)
    if not back:
        return mixed, scores
    size = TOKENS * DEPTH
    rows = b.copy(b.view(mixed, HEADS * size), 0, [TOKENS, HEADS, DEPTH], [DEPTH, size, 1])
    return b.view(rows, TOKENS, HEADS * DEPTH), scores


def ops(model: Model) -> Counter[str]:
    return Counter(n.op_type for n in model.proto.graph.node if n.op_type != "Reshape")


def check(model: Model, sizes: dict[str, int]) -> Counter[str]:
    """Fuse; the integers must be the same. Which operators are left."""
    fused = fuse_attention(copy.deepcopy(model))
    rng = np.random.default_rng(0)
    for _ in range(3):
        values = {n: rng.integers(-128, 128, s).astype(np.int8) for n, s in sizes.items()}
        for wanted, result in zip(run(model, values), run(fused, values), strict=True):
            np.testing.assert_array_equal(result, wanted)
    return ops(fused)


SIZES = dict.fromkeys("qkv", TOKENS * HEADS * DEPTH)


def test_layers_on_both_sides_need_no_copies() -> None:
    b = Builder()
    result, _ = attention(b, "q", "k", "v")
    assert check(b.model(SIZES, [result]), SIZES) == {"attention_s8": 1}


def test_more_keys_than_queries() -> None:
    sizes = {**SIZES, "k": 9 * HEADS * DEPTH, "v": 9 * HEADS * DEPTH}
    b = Builder()
    result, _ = attention(b, "q", "k", "v", keys=9)
    assert check(b.model(sizes, [result]), sizes) == {"attention_s8": 1}


def test_parts_of_a_joined_layer_are_copied_once_each() -> None:
    sizes = {"qkv": 3 * TOKENS * HEADS * DEPTH}
    b = Builder()
    result, _ = attention(b, "qkv", "qkv", "qkv", joined=3 * HEADS * DEPTH)
    assert check(b.model(sizes, [result]), sizes) == {"attention_s8": 1, "strided_copy_s8": 3}


def test_a_result_wanted_by_heads_is_copied() -> None:
    b = Builder()
    result, _ = attention(b, "q", "k", "v", back=False)
    assert check(b.model(SIZES, [result]), SIZES) == {"attention_s8": 1, "strided_copy_s8": 1}


def test_readers_of_both_orders() -> None:
    b = Builder()
    mixed, _ = attention(b, "q", "k", "v", back=False)
    size = TOKENS * DEPTH
    rows = b.copy(b.view(mixed, HEADS * size), 0, [TOKENS, HEADS, DEPTH], [DEPTH, size, 1])
    table = b.constant(np.arange(-128, 128, dtype=np.int8)[::-1].copy())
    by_head = b.op("table_s8", b.view(mixed, HEADS * size), table)
    kept = check(b.model(SIZES, [rows, by_head]), SIZES)
    assert kept == {"attention_s8": 1, "strided_copy_s8": 1, "table_s8": 1}


@pytest.mark.parametrize("reason", ["scores are read", "wide"])
def test_what_does_not_fit_stays(reason: str) -> None:
    b = Builder()
    result, scores = attention(b, "q", "k", "v", wide=int(reason == "wide"))
    outputs = [result, scores] if reason == "scores are read" else [result]
    kept = check(b.model(SIZES, outputs), SIZES)
    assert kept == {"matmul_s8": 2, "softmax_s8": 1, "strided_copy_s8": 4}


@pytest.mark.parametrize("keys", [7, 1])
def test_a_transposed_right_operand_is_read_as_it_lies(keys: int) -> None:
    sizes = {"a": 2 * 5 * DEPTH, "b": 2 * keys * DEPTH}
    b = Builder()
    left, columns = b.view("a", 2, 5, DEPTH), b.copy("b", 0, [2, DEPTH, keys], [keys * DEPTH, 1, DEPTH])
    model = b.model(sizes, [b.op("matmul_s8", left, columns, b.constant(params(3, 2**24, 1)), wide=0)])
    assert check(model, sizes) == {"matmul_s8": 1}


def test_a_right_operand_that_is_not_transposed_stays() -> None:
    sizes = {"a": 2 * 5 * DEPTH, "b": 2 * 7 * DEPTH}
    b = Builder()
    left, right = b.view("a", 2, 5, DEPTH), b.view("b", 2, DEPTH, 7)
    model = b.model(sizes, [b.op("matmul_s8", left, right, b.constant(params(3, 2**24, 1)), wide=0)])
    assert check(model, sizes) == {"matmul_s8": 1}
    (node,) = [n for n in fuse_attention(model).proto.graph.node if n.op_type == "matmul_s8"]
    assert [a.name for a in node.attribute] == ["wide"]
