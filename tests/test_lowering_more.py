# SPDX-License-Identifier: Apache-2.0
"""The rarer operators against ONNX Runtime: quotients, choices, searches, lookups, RMSNorm, masked Softmax."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from qdq_graph import Graph, compare, ort_run, program_of, run_program

LARGEST = 1  # steps of the output's scale
SHARE = 0.01  # of all elements may differ at all
Rule = Callable[[Graph], object]
RULES: dict[str, Rule] = {}


def rule(make: Rule) -> Rule:
    RULES[make.__name__] = make
    return make


def floats(*values: object) -> np.ndarray:
    return np.array(values, np.float32)


def positive(g: Graph, *shape: int, high: float = 2.0) -> str:
    """An input of positive values with the zero point of such, none of which rounds to 0."""
    name = g.input(*shape, low=0.05, high=high)
    quantize, dequantize = g.nodes[-2:]
    zero = g.constant(g.dtype.type(np.iinfo(g.dtype).min))
    quantize.input[2] = dequantize.input[2] = zero
    return name


@rule
def quotients(g: Graph) -> None:
    for a, b in (((5, 7, 6), (5, 7, 6)), ((5, 7, 6), (5, 7, 1)), ((5, 7, 6), (6,)), ((5, 7, 6), (1,)), ((6,), (7, 6))):
        g.output(g.op("Div", g.input(*a, low=-1.5, high=2), positive(g, *b)))


@rule
def quotients_of_functions(g: Graph) -> None:
    g.output(g.op("Relu", g.op("Div", g.input(17, 19), positive(g, 17, 19))))
    x = g.input(17, 19)
    g.output(g.op("Div", x, g.op("Add", g.op("Abs", x), g.constant(np.float32(1)))))  # softsign, one table


@rule
def extremes(g: Graph) -> None:
    for op in ("Max", "Min"):
        g.output(g.op(op, g.input(5, 7, 6), g.input(5, 7, 6, low=-1, high=1)))
        g.output(g.op(op, g.input(5, 7, 6), g.input(6)))
        g.output(g.op(op, g.input(7, 1), g.input(1, 6)))
        g.output(g.op(op, g.input(5, 7), g.quantized_constant(7), g.input(5, 1)))
        g.output(g.op(op, g.input(5, 7), g.constant(np.float32(0.3))))


@rule
def reduced_extremes(g: Graph) -> None:
    for op in ("ReduceMax", "ReduceMin"):
        for axes, keep in (([-1], 1), ([1], 0), ([0, 1], 1), ([2, 3], 0), ([1, 3], 0)):
            g.output(g.op(op, g.input(4, 5, 6, 3), g.constant(np.array(axes)), keepdims=keep))
        g.output(g.op(op, g.input(3, 5, 7), keepdims=0))


@rule
def choices(g: Graph) -> None:
    mask = g.constant(g.rng.random((5, 7)) < 0.5)
    row = g.constant(g.rng.random((1, 7)) < 0.5)
    column = g.constant(g.rng.random((5, 1)) < 0.5)
    for condition in (mask, row, column):
        g.output(g.op("Where", condition, g.input(5, 7), g.input(5, 7, low=0, high=1)))
    g.output(g.op("Where", mask, g.input(7), g.input(5, 1)))
    g.output(g.op("Where", mask, g.quantized_constant(1), g.input(5, 7)))
    g.output(g.op("Where", row, g.input(2, 5, 7), g.quantized_constant(7)))
    g.output(g.op("Where", mask, g.input(5, 7), g.constant(np.float32(0))))


@rule
def choices_by_comparison(g: Graph) -> None:
    limit = g.constant(np.float32(0.217))
    for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual"):
        x = g.input(17, 19)
        g.output(g.op("Where", g.op(op, x, limit), g.input(17, 19), g.input(17, 19, low=0, high=1)))
    x = g.input(17, 19)
    both = g.op("And", g.op("Greater", x, limit), g.op("Not", g.op("Less", g.constant(np.float32(1)), x)))
    g.output(g.op("Where", both, x, g.op("Mul", x, g.constant(np.float32(0.1)))))  # one table
    g.output(g.op("Mul", x, g.op("Cast", g.op("Greater", x, limit), to=TensorProto.FLOAT)))


@rule
def running_sums(g: Graph) -> None:
    for axis in (0, 1, -1):
        for exclusive, reverse in ((0, 0), (1, 0), (0, 1), (1, 1)):
            x = g.input(4, 9, 5)
            g.output(g.op("CumSum", x, g.constant(np.array(axis)), exclusive=exclusive, reverse=reverse))


@rule
def gathers_by_a_list(g: Graph) -> None:
    for index, axis in (([0, 3, 1], 1), ([2, 2, 2], 0), ([[0, 4], [1, -1]], 2), ([5, 0, 5, 1], 1)):
        g.output(g.op("Gather", g.input(5, 6, 7), g.constant(np.array(index)), axis=axis))


@rule
def paddings(g: Graph) -> None:
    pads = g.constant(np.array([0, 0, 1, 2, 0, 0, 3, 0]))
    for mode in ("constant", "edge", "reflect"):
        g.output(g.op("Pad", g.input(1, 3, 5, 6), pads, mode=mode))
    value = g.constant(np.float32(0.5))
    g.output(g.op("Pad", g.input(5, 6), g.constant(np.array([1, 2])), value, g.constant(np.array([-1]))))


@rule
def largest_values(g: Graph) -> None:
    for k, axis, largest in ((1, -1, 1), (3, 1, 1), (5, 0, 0), (6, 2, 0)):
        values, _ = g.node("TopK", [g.input(5, 6, 7), g.constant(np.array([k]))], 2, axis=axis, largest=largest)
        g.output(values)


@rule
def rms_norms(g: Graph) -> None:
    for shape, gain in (((1, 21, 48), True), ((40, 20), False), ((3, 5, 7), True)):
        x = g.input(*shape, low=-3, high=1)
        square = g.op("ReduceMean", g.op("Mul", x, x), g.constant(np.array([-1])), keepdims=1)
        root = g.op("Sqrt", g.op("Add", square, g.constant(np.float32(1e-6))))
        y = g.op("Div", x, root)
        g.output(g.op("Mul", y, g.constant(g.rng.normal(1, 0.3, shape[-1]).astype(np.float32))) if gain else y)


@rule
def functions(g: Graph) -> None:
    for op in ("Sign", "Floor", "Ceil", "Round", "Sin", "Cos", "Softsign", "Selu", "Celu", "Shrink"):
        g.output(g.op(op, g.input(17, 19, low=-4, high=3)))
    for op in ("Log", "Reciprocal"):
        g.output(g.op(op, positive(g, 17, 19)))
    g.output(g.op("PRelu", g.input(17, 19), g.constant(floats(0.2))))


@pytest.mark.filterwarnings("error::RuntimeWarning:edgec")
@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    g = Graph(sum(name.encode()))
    for dtype in (np.int8, np.uint8):
        g.dtype = np.dtype(dtype)
        RULES[name](g)
    differences = compare(g.proto(), g.inputs)
    assert max(d.largest for d in differences.values()) <= LARGEST, differences
    total = sum(d.elements for d in differences.values())
    assert sum(d.share * d.elements for d in differences.values()) / total < SHARE, differences


def test_a_small_divisor_counts_as_one_step() -> None:
    """Where ONNX Runtime divides by 0 the result is the largest that a divisor of one step gives, never a trap."""
    g = Graph(3)
    scale, zero = g.constant(np.float32(0.1)), g.constant(np.int8(-128))
    one, middle = g.constant(np.float32(1)), g.constant(np.int8(0))
    g.inputs = {"a": floats(-9, -1, 0, 1, 9), "b": floats(0, 0.04, 0, 0.1, 0.001)}
    parts = [
        g.dequantize(g.op("QuantizeLinear", n, s, z), s, z) for n, s, z in (("a", one, middle), ("b", scale, zero))
    ]
    y = g.op("Div", *parts)
    g.outputs[g.dequantize(g.op("QuantizeLinear", y, one, middle), one, middle)] = (5,)
    (computed,) = run_program(program_of(g.proto()), g.inputs).values()
    assert computed.tolist() == [-90, -10, 0, 10, 90]


def test_searches_give_positions() -> None:
    """On what the model quantized: there the values are few and many are equal."""
    g = Graph(5)
    outputs = []
    for op in ("ArgMax", "ArgMin"):
        for axis, keep, last in ((0, 1, 0), (1, 0, 1), (-1, 0, 0), (2, 1, 1)):
            x = g.op("Identity", g.input(5, 40, 30))
            y = g.op(op, x, axis=axis, keepdims=keep, select_last_index=last)
            outputs.append(y)
    for k, axis, largest in ((1, -1, 1), (4, 1, 0)):
        _, y = g.node("TopK", [g.input(5, 40, 30), g.constant(np.array([k]))], 2, axis=axis, largest=largest)
        outputs.append(y)
    proto = g.proto({})
    proto.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.INT64, None) for n in outputs)
    proto = onnx.shape_inference.infer_shapes(proto)
    program = program_of(proto)
    computed, wanted = run_program(program, g.inputs), ort_run(proto, g.inputs)
    assert {program.tensors[p.tensor].type.dtype for p in program.outputs} == {"int32"}
    assert all(p.quantization is None for p in program.outputs)
    for name, value in wanted.items():
        assert np.array_equal(computed[name], value), name


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_inputs_may_ask_for_rows_of_a_table(dtype: type) -> None:
    g = Graph(7)
    table = g.weight(11, 6)
    g.inputs["ids"] = np.array([[3, 0, 10, -1], [5, 5, 1, -11]], dtype)
    g.output(g.op("Gather", table, "ids", axis=0))
    g.output(g.op("Gather", g.quantized_constant(12, 2, 3), g.op("Reshape", "ids", g.constant(np.array([-1]))), axis=0))
    (a, b) = compare(g.proto(), g.inputs).values()
    assert max(a.largest, b.largest) <= LARGEST


def test_softmax_of_masked_scores() -> None:
    """A constant of 0 and -infinity (or -1e9) before a Softmax hides scores, whatever their scale is."""
    g = Graph(8)
    causal = np.triu(np.full((9, 9), -np.inf, np.float32), 1)
    keys = np.where(np.arange(9) < 6, 0, -1e9).astype(np.float32)
    heads = np.where(g.rng.random((1, 3, 1, 9)) < 0.3, -1e4, 0).astype(np.float32)
    heads[..., 0] = 0
    for mask in (causal, causal[None, None], keys, heads):
        y = g.op("Add", g.input(1, 3, 9, 9, low=-3, high=4), g.constant(mask))
        fixed(g, g.op("Softmax", y, axis=-1))
    seen = g.constant(np.tri(9) > 0)
    y = g.op("Where", seen, g.input(1, 3, 9, 9, low=-3, high=4), g.constant(np.float32(-1e30)))
    fixed(g, g.op("Softmax", y, axis=-1))
    differences = compare(g.proto(), g.inputs)
    assert max(d.largest for d in differences.values()) <= LARGEST, differences
    total = sum(d.elements for d in differences.values())
    assert sum(d.share * d.elements for d in differences.values()) / total < SHARE, differences


def fixed(g: Graph, y: str) -> None:
    """Output of a Softmax in its own scale."""
    quantization = g.constant(np.float32(1 / 256)), g.constant(np.int8(-128))
    g.outputs[g.dequantize(g.op("QuantizeLinear", y, *quantization), *quantization)] = g.values(y).shape


def test_rms_normalization_of_a_foreign_model() -> None:
    """The operator of opset 23, quantized by somebody else."""
    g = Graph(9)
    x = g.input(1, 21, 48, low=-3, high=1)
    gain = g.constant(g.rng.normal(1, 0.3, 48).astype(np.float32))
    y = g.op("RMSNormalization", x, gain, axis=-1, epsilon=1e-5)
    quantization = g.constant(np.float32(0.03)), g.constant(np.int8(4))
    g.outputs[g.dequantize(g.op("QuantizeLinear", y, *quantization), *quantization)] = (1, 21, 48)
    proto = g.proto()
    proto.opset_import[0].version, proto.ir_version = 23, 11
    (difference,) = compare(proto, g.inputs).values()
    assert difference.largest <= LARGEST
    assert difference.share < SHARE
