# SPDX-License-Identifier: Apache-2.0
"""Lowering against ONNX Runtime: every rule on single operators with random scales and zero points, and whole models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgec.errors import UnsupportedError
from edgec.lower import lower_to_integers
from qdq_graph import Graph, compare, model_of, program_of

LARGEST = 1  # steps of the output's scale
SHARE = 0.01  # of all elements may differ at all
REPEATS = 3  # graphs of one rule in one model, each with its own scales and zero points

Rule = Callable[[Graph], object]
RULES: dict[str, Rule] = {}


def rule(make: Rule) -> Rule:
    RULES[make.__name__] = make
    return make


# --- dense layers and products


@rule
def gemm_per_channel(g: Graph) -> None:
    x, w = g.input(9, 24), g.weight(31, 24, axis=0)
    g.output(g.op("Gemm", x, w, g.constant(g.rng.normal(0, 0.5, 31).astype(np.float32)), transB=1))


@rule
def gemm_per_tensor_without_bias(g: Graph) -> None:
    g.output(g.op("Gemm", g.input(9, 24), g.weight(31, 24), transB=1))


@rule
def gemm_not_transposed(g: Graph) -> None:
    x, w = g.input(9, 24), g.weight(24, 31, axis=1)
    g.output(g.op("Gemm", x, w, g.constant(g.rng.normal(0, 0.5, (1, 31)).astype(np.float32))))


@rule
def gemm_with_quantized_bias(g: Graph) -> None:
    x, w = g.input(9, 24), g.weight(31, 24, axis=0)
    find = {c.name: onnx.numpy_helper.to_array(c) for c in g.constants}
    producers = {n.output[0]: n for n in g.nodes}
    scale = (find[producers[x].input[1]] * find[producers[w].input[1]]).astype(np.float32)
    bias = g.constant(g.rng.integers(-4000, 4000, 31).astype(np.int32))
    zeros = g.constant(np.zeros(31, np.int32))
    g.output(g.op("Gemm", x, w, g.dequantize(bias, g.constant(scale), zeros, axis=0), transB=1))


@rule
def gemm_then_relu(g: Graph) -> None:
    g.output(g.op("Relu", g.op("Gemm", g.input(9, 24), g.weight(31, 24, axis=0), transB=1)))


@rule
def gemm_then_clip(g: Graph) -> None:
    y = g.op("Gemm", g.input(9, 24), g.weight(31, 24), transB=1)
    g.output(g.op("Clip", y, g.constant(np.float32(-0.3)), g.constant(np.float32(1.1))))


@rule
def gemm_then_clip_then_relu(g: Graph) -> None:
    y = g.op("Gemm", g.input(9, 24), g.weight(31, 24), transB=1)
    clipped = g.op("Clip", y, g.constant(np.float32(-0.7)), g.constant(np.float32(0.4)))
    moved = g.op("Relu", clipped)
    scale, zero = g.draw(np.array([-1.5, 1.5]))  # a range that shows what was not clipped
    result = g.dequantize(g.op("QuantizeLinear", moved, scale, zero), scale, zero)
    g.outputs[result] = (9, 31)


@rule
def matmul_by_a_matrix(g: Graph) -> None:
    g.output(g.op("MatMul", g.input(2, 7, 24), g.weight(24, 13, axis=1)))


@rule
def matmul_by_a_transposed_matrix(g: Graph) -> None:
    w = g.op("Transpose", g.weight(24, 24, axis=0), perm=[1, 0])
    g.output(g.op("MatMul", g.input(1, 20, 24), w))


@rule
def matmul_of_activations(g: Graph) -> None:
    g.output(g.op("MatMul", g.input(2, 3, 9, 8), g.input(2, 3, 8, 11)))


@rule
def matmul_of_activations_scaled(g: Graph) -> None:
    y = g.op("MatMul", g.input(3, 9, 8, low=-3, high=1), g.input(3, 8, 11, low=0, high=5))
    g.output(g.op("Mul", g.constant(np.float32(0.35)), y))


@rule
def matmul_of_activations_divided(g: Graph) -> None:
    y = g.op("MatMul", g.input(3, 9, 8), g.input(3, 8, 11))
    g.output(g.op("Div", y, g.constant(np.array([2.8], np.float32))))


@rule
def matmul_with_a_constant_on_the_left(g: Graph) -> None:
    g.output(g.op("MatMul", g.quantized_constant(2, 9, 8), g.input(2, 8, 11)))


# --- normalization


@rule
def softmax(g: Graph) -> None:
    g.output(g.op("Softmax", g.input(2, 6, 31, low=-6, high=6), axis=-1))


@rule
def softmax_in_its_own_scale(g: Graph) -> None:
    y = g.op("Softmax", g.input(12, 50, low=-4, high=7), axis=1)
    s, z = g.constant(np.float32(1 / 256)), g.constant(np.int8(-128) if g.dtype == np.int8 else np.uint8(0))
    g.outputs[g.dequantize(g.op("QuantizeLinear", y, s, z), s, z)] = (12, 50)


@rule
def layer_normalization(g: Graph) -> None:
    gamma, beta = (g.constant(g.rng.normal(m, 0.3, 48).astype(np.float32)) for m in (1.0, 0.0))
    g.output(g.op("LayerNormalization", g.input(1, 21, 48, low=-3, high=1), gamma, beta, axis=-1, epsilon=1e-5))


@rule
def layer_normalization_without_bias(g: Graph) -> None:
    gamma = g.constant(g.rng.normal(1.0, 0.3, 20).astype(np.float32))
    g.output(g.op("LayerNormalization", g.input(40, 20), gamma, epsilon=1e-2))


# --- functions of one tensor


@rule
def functions(g: Graph) -> None:
    for op in ("Relu", "Tanh", "Sigmoid", "Gelu", "HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "Erf", "Exp", "Neg"):
        g.output(g.op(op, g.input(17, 19, low=-4, high=3)))
    g.output(g.op("Gelu", g.input(17, 19, low=-4, high=3), approximate="tanh"))
    for op in ("Abs", "Softplus", "Mish"):
        g.output(g.op(op, g.input(17, 19, low=-3, high=4)))
    g.output(g.op("Clip", g.input(17, 19), g.constant(np.float32(-0.4)), g.constant(np.float32(0.9))))
    g.output(g.op("Clip", g.input(17, 19), "", g.constant(np.float32(0.9))))


@rule
def functions_of_scalars(g: Graph) -> None:
    half, two = g.constant(np.float32(0.5)), g.constant(np.array([2.0], np.float32))
    g.output(g.op("Pow", g.input(17, 19), two))
    g.output(g.op("Sub", half, g.input(17, 19)))
    g.output(g.op("Div", g.input(17, 19), two))
    g.output(g.op("Mul", g.input(17, 19), g.constant(np.float32(-1.5))))
    g.output(g.op("Add", g.quantized_constant(1), g.input(17, 19)))
    g.output(g.op("Add", g.input(19), g.constant(np.full((1, 1, 1), 0.25, np.float32))))


@rule
def chains_without_quantization(g: Graph) -> None:
    x = g.input(17, 19, low=-5, high=5)
    g.output(g.op("Mul", x, g.op("Sigmoid", x)))
    x = g.input(17, 19, low=-5, high=5)
    inner = g.op("Add", g.op("Erf", g.op("Div", x, g.constant(np.float32(2**0.5)))), g.constant(np.float32(1)))
    g.output(g.op("Mul", g.op("Mul", x, inner), g.constant(np.float32(0.5))))


@rule
def a_function_quantized_in_two_ways(g: Graph) -> None:
    y = g.op("Tanh", g.input(17, 19))
    for top in (0.3, 2.0):
        scale, zero = g.draw(np.array([-top, top]))
        g.outputs[g.dequantize(g.op("QuantizeLinear", y, scale, zero), scale, zero)] = (17, 19)


@rule
def a_function_that_is_moved(g: Graph) -> None:
    g.output(g.op("Transpose", g.op("Relu", g.input(17, 19)), perm=[1, 0]))


# --- two tensors


BROADCASTS = [
    ((5, 7, 6), (5, 7, 6)),
    ((5, 7, 6), (6,)),
    ((6,), (5, 7, 6)),
    ((5, 7, 6), (1, 7, 6)),
    ((5, 7, 6), (5, 1, 1)),
    ((5, 7, 6), (5, 7, 1)),
    ((5, 7, 6), (1, 1, 1)),
    ((5, 7, 1), (5, 7, 6)),
    ((5, 7, 6), (1, 7, 1)),
    ((5, 7, 6), (5, 1, 6)),
    ((5, 1, 6), (1, 7, 6)),
    ((7, 1), (1, 6)),
    ((1, 6), (2, 3, 7, 1)),
]


def _two(op: str) -> Rule:
    def make(g: Graph) -> None:
        for a, b in BROADCASTS:
            g.output(g.op(op, g.input(*a, low=-1.5, high=2), g.input(*b, low=-1, high=1)))
        for b in ((6,), (7, 6), (5, 1, 1), (7, 1)):
            g.output(g.op(op, g.input(5, 7, 6), g.quantized_constant(*b)))
        g.output(g.op(op, g.quantized_constant(7, 6), g.input(5, 7, 6)))

    return make


for _op in ("Add", "Sub", "Mul"):
    RULES[_op.lower()] = _two(_op)


@rule
def an_operator_then_a_scale(g: Graph) -> None:
    """A scalar Mul without quantization in between belongs to whatever it follows."""
    third = g.constant(np.float32(1 / 3))
    gamma = g.constant(np.ones(19, np.float32))
    for y in (
        g.op("Add", g.input(17, 19), g.input(17, 19)),
        g.op("Mul", g.input(17, 19), g.input(17, 19)),
        g.op("Softmax", g.input(17, 19)),
        g.op("LayerNormalization", g.input(17, 19), gamma),
        g.op("Gemm", g.input(17, 19), g.weight(23, 19, axis=0), transB=1),
        g.op("ReduceMean", g.input(17, 19, 11), g.constant(np.array([1])), keepdims=0),
        g.op("Concat", g.input(17, 19), g.input(17, 3), axis=1),
    ):
        g.output(g.op("Relu", g.op("Mul", y, third)))


# --- reductions


@rule
def reductions(g: Graph) -> None:
    for op in ("ReduceMean", "ReduceSum"):
        for axes, keep in (([-1], 1), ([1], 0), ([0, 1], 1), ([1, 2], 0), ([2, 3], 0), ([0], 0), ([1, 2, 3], 1)):
            x = g.input(4, 5, 6, 3) if axes != [1, 2, 3] else g.input(70, 2, 3, 2)
            g.output(g.op(op, x, g.constant(np.array(axes)), keepdims=keep))
        g.output(g.op(op, g.input(1, 31, 1, 41), g.constant(np.array([0, 1, 2])), keepdims=0))
        g.output(g.op(op, g.input(3, 41, 7), keepdims=0))


# --- movement


@rule
def transposes(g: Graph) -> None:
    for dims, perm in (((7, 11), [1, 0]), ((2, 3, 4, 5), [0, 2, 1, 3]), ((2, 3, 4, 5), [3, 1, 0, 2])):
        g.output(g.op("Transpose", g.input(*dims), perm=perm))
    g.output(g.op("Transpose", g.input(3, 4, 5)))
    g.output(g.op("Transpose", g.input(2, 3, 2, 3, 2, 3), perm=[5, 3, 1, 4, 2, 0]))
    g.output(g.op("Transpose", g.input(1, 2, 3, 2, 1, 3, 2, 3), perm=[7, 4, 5, 3, 0, 1, 6, 2]))


@rule
def slices(g: Graph) -> None:
    big = 2**31 - 1
    for starts, ends, axes, steps in (
        ([1], [5], [0], [1]),
        ([0, 2], [-1, big], [1, 2], [1, 2]),
        ([-1], [-big], [1], [-1]),
        ([big, -2], [0, 1], [0, -1], [-2, -1]),
        ([-99], [99], [2], [3]),
    ):
        x = g.input(6, 7, 8)
        g.output(g.op("Slice", x, *(g.constant(np.array(v)) for v in (starts, ends, axes, steps))))
    g.output(g.op("Slice", g.input(6, 7), g.constant(np.array([1, 2])), g.constant(np.array([4, 6]))))


@rule
def gathers(g: Graph) -> None:
    for index, axis in ((2, 1), (-1, 0), ([0], 1), ([1, 3, 5], 1), ([4, 3, 2], 2), ([[0, 1], [2, 3]], 1), ([-2], 2)):
        g.output(g.op("Gather", g.input(5, 6, 7), g.constant(np.array(index)), axis=axis))


@rule
def splits(g: Graph) -> None:
    for part in g.node("Split", [g.input(5, 7), g.constant(np.array([1, 4, 2]))], 3, axis=1):
        g.output(part)
    for part in g.node("Split", [g.input(5, 7, 6)], 3, axis=-1, num_outputs=3):
        g.output(part)
    for part in g.node("Split", [g.input(5, 7)], 3, axis=1, num_outputs=3):  # 3, 3, 1
        g.output(part)


@rule
def shapes(g: Graph) -> None:
    g.output(g.op("Expand", g.input(1, 7, 1), g.constant(np.array([5, 1, 6]))))
    g.output(g.op("Expand", g.input(7), g.constant(np.array([2, 3, 7]))))
    g.output(g.op("Reshape", g.input(6, 8), g.constant(np.array([-1, 4]))))
    g.output(g.op("Unsqueeze", g.input(6, 8), g.constant(np.array([0, 3]))))
    g.output(g.op("Squeeze", g.input(1, 6, 1, 8), g.constant(np.array([0, 2]))))
    g.output(g.op("Flatten", g.input(2, 3, 4), axis=2))


@rule
def a_chain_of_movements(g: Graph) -> None:
    x = g.op("Reshape", g.input(4, 6, 10), g.constant(np.array([4, 6, 2, 5])))
    y = g.op("Transpose", x, perm=[2, 0, 1, 3])
    g.output(g.op("Relu", g.op("Gather", y, g.constant(np.array(1)), axis=0)))


@rule
def concats(g: Graph) -> None:
    g.output(g.op("Concat", g.input(4, 5), g.input(3, 5, low=-1, high=0.1), axis=0))
    g.output(g.op("Concat", g.input(2, 4, 5), g.quantized_constant(2, 1, 5), g.input(2, 3, 5, high=9), axis=1))
    g.output(g.op("Concat", g.quantized_constant(2, 4, 3), g.input(2, 4, 5), axis=-1))
    x = g.input(6, 8)
    g.output(g.op("Concat", x, x, axis=-1))


# --- forms of quantization


@rule
def inputs_that_are_quantized(g: Graph) -> None:
    g.output(g.op("Gemm", g.input(9, 24, quantized=True), g.weight(31, 24, axis=0), transB=1))
    g.output(g.op("Add", g.input(9, 24, quantized=True), g.input(9, 24)))


@rule
def zero_points_left_out(g: Graph) -> None:
    """An absent zero point is 0 in the type of what is (de)quantized."""
    scale = g.constant(np.float32(0.02))
    q = g.op("QuantizeLinear", g.input(9, 24), scale, output_dtype=TensorProto.INT8)
    w = g.dequantize(g.constant(g.rng.integers(-127, 128, (31, 24)).astype(np.int8)), g.constant(np.float32(0.01)))
    g.output(g.op("Gemm", g.dequantize(q, scale), w, transB=1))
    q = g.op("QuantizeLinear", g.input(9, 24, low=0, high=5), scale)
    g.output(g.op("Relu", g.dequantize(q, scale)))


@rule
def requantization_between_scales(g: Graph) -> None:
    g.output(g.quantize(g.quantize(g.input(17, 19))))


@pytest.mark.parametrize("unsigned", [False, True], ids=["int8", "uint8"])
@pytest.mark.parametrize("name", RULES)
def test_rule(name: str, unsigned: bool) -> None:
    g = Graph(sum(name.encode()) + unsigned, unsigned=unsigned)
    for _ in range(REPEATS if name not in ("functions", "add", "sub", "mul") else 1):
        RULES[name](g)
    differences = compare(g.proto(), g.inputs)
    assert max(d.largest for d in differences.values()) <= LARGEST, differences
    total = sum(d.elements for d in differences.values())
    assert sum(d.share * d.elements for d in differences.values()) / total < SHARE, differences
