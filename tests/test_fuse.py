# SPDX-License-Identifier: Apache-2.0
"""Dense layers with the table or the sum behind them: the same integers as apart, fused where nothing else looks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.lower.fuse import fuse_dense
from edgec.lower.graph import DOMAIN
from edgec.model import Model, StatePair
from edgec.operators import get_operator
from edgec.operators.elementwise import add_params
from edgec.operators.linear import SUM_POINT, scaled_sum

M, K, N = 5, 6, 4
RNG = np.random.default_rng(11)


class Builder:
    """An integer graph by hand; inputs are int8 [M, K], or as declared."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: dict[str, tuple[int, ...]] = {}

    def input(self, *shape: int) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs[name] = shape
        return name

    def constant(self, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def op(self, op: str, *inputs: str) -> str:
        name = f"{op} {len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"t{len(self.nodes)}"], name=name, domain=DOMAIN))
        return self.nodes[-1].output[0]

    def view(self, x: str, *shape: int) -> str:
        dims = self.constant(np.array(shape, np.int64))
        self.nodes.append(helper.make_node("Reshape", [x, dims], [f"t{len(self.nodes)}"]))
        return self.nodes[-1].output[0]

    def dense(self, x: str, k: int = K, n: int = N) -> str:
        w, bias = RNG.integers(-127, 128, (n, k)).astype(np.int8), RNG.integers(-999, 999, n).astype(np.int32)
        mult, shift = RNG.integers(2**21, 2**23, n).astype(np.int32), np.zeros(n, np.uint8)
        return self.op("linear_s8", x, *map(self.constant, (w, bias, mult, shift, np.array([3], np.int32))))

    def table(self, x: str) -> str:
        return self.op("table_s8", x, self.constant(RNG.integers(-128, 128, 256).astype(np.int8)))

    def sum(self, a: str, b: str) -> str:
        return self.op("add_s8", a, b, self.constant(add_params((0.7, 5), (0.4, -9), (0.9, 2), -1)))

    def model(self, *outputs: str, states: tuple[StatePair, ...] = ()) -> Model:
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT8, s) for n, s in self.inputs.items()]
        results = [helper.make_tensor_value_info(n, TensorProto.INT8, None) for n in outputs]
        graph = helper.make_graph(self.nodes, "g", inputs, results, self.constants)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
        return Model(helper.make_model(graph, opset_imports=opsets), "g", "0" * 64, states)


def run(model: Model, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The graph's outputs by the operators' definitions, node by node as they stand."""
    graph = model.proto.graph
    env = {**values, **{t.name: numpy_helper.to_array(t) for t in graph.initializer}}
    for node in graph.node:
        inputs = [env[n] for n in node.input]
        made = inputs[0].reshape(inputs[1]) if node.op_type == "Reshape" else get_operator(node.op_type).run(inputs, {})
        assert node.output[0] not in env
        env[node.output[0]] = made
    return [env[o.name] for o in graph.output]


def fused(model: Model) -> Counter[str]:
    """What the fused graph computes with, after a check that its results are those of the given one."""
    result = fuse_dense(model)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.proto.graph.input}
    for _ in range(3):
        values = {name: RNG.integers(-128, 128, shape).astype(np.int8) for name, shape in shapes.items()}
        for was, now in zip(run(model, values), run(result, values), strict=True):
            assert was.shape == now.shape
            assert np.array_equal(was, now)
    assert {t.name for t in result.proto.graph.initializer} == {
        n for node in result.proto.graph.node for n in node.input if n.startswith("c") or "." in n
    } - {o for node in result.proto.graph.node for o in node.output}
    return Counter(n.op_type for n in result.proto.graph.node if n.domain == DOMAIN)


def test_a_table_is_looked_up_in_the_layer() -> None:
    b = Builder()
    flat = b.table(b.view(b.dense(b.input(M, K)), M * N))
    assert fused(b.model(b.view(flat, M, N))) == {"linear_table_s8": 1}
    assert fused(b.model(flat)) == {"linear_table_s8": 1}  # an output keeps its shape


def test_a_chain_of_layers() -> None:
    b = Builder()
    x = b.input(M, K)
    y = b.dense(b.view(b.table(b.view(b.dense(x, K, 9), M * 9)), M, 9), 9, K)
    assert fused(b.model(b.view(b.sum(b.view(x, 1, M * K), b.view(y, 1, M * K)), M, K))) == {
        "linear_table_s8": 1,
        "linear_add_s8": 1,
    }


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_a_residual_is_added_in_the_layer(first: bool, flat: bool) -> None:
    b = Builder()
    y, residual = b.dense(b.input(M, K)), b.input(M, N)
    if flat:
        y, residual = b.view(y, 1, M * N), b.view(residual, 1, M * N)
    assert fused(b.model(b.sum(y, residual) if first else b.sum(residual, y))) == {"linear_add_s8": 1}


def test_of_two_layers_the_later_one_adds() -> None:
    b = Builder()
    x = b.input(M, K)
    early, late = b.dense(x), b.dense(x)
    model = b.model(b.sum(late, early))
    assert fused(model) == {"linear_s8": 1, "linear_add_s8": 1}
    node = fuse_dense(model).proto.graph.node[-1]
    assert node.input[1] == early


def test_a_constant_is_added_in_the_layer() -> None:
    b = Builder()
    y = b.view(b.dense(b.input(M, K)), 1, M * N)
    constant = b.constant(RNG.integers(-128, 128, (1, M * N)).astype(np.int8))
    assert fused(b.model(b.sum(y, constant))) == {"linear_add_s8": 1}


def test_what_others_read_stays() -> None:
    b = Builder()
    y = b.dense(b.input(M, K))
    looked = b.table(b.view(y, M * N))
    assert fused(b.model(looked, y)) == {"linear_s8": 1, "table_s8": 1}  # an output of the model
    b = Builder()
    y = b.dense(b.input(M, K))
    twice = b.sum(y, y)
    assert fused(b.model(twice)) == {"linear_s8": 1, "add_s8": 1}
    b = Builder()
    y = b.dense(b.input(M, K))
    flat = b.view(y, M * N)
    assert fused(b.model(b.table(flat), b.table(flat))) == {"linear_s8": 1, "table_s8": 2}
    assert fused(b.model(b.table(b.view(y, M * N)), b.op("mean_s8", b.view(y, 1, M, N), b.constant(MEAN)))) == {
        "linear_s8": 1, "table_s8": 3, "mean_s8": 1,
    }  # fmt: skip


MEAN = np.array([0, 2**28, 0, 0], np.int32)


def test_a_broadcast_sum_stays() -> None:
    b = Builder()
    assert fused(b.model(b.sum(b.dense(b.input(M, K)), b.input(1, N)))) == {"linear_s8": 1, "add_s8": 1}


def test_a_state_is_replaced_in_place_by_the_sum() -> None:
    b = Builder()
    x, state = b.input(M, K), b.input(M, N)
    result = b.sum(state, b.dense(x))
    assert fused(b.model(result)) == {"linear_add_s8": 1}
    assert fused(b.model(result, states=(StatePair(state, result, 0.0),))) == {"linear_s8": 1, "add_s8": 1}


def test_scaled_sums_are_the_same_sums() -> None:
    every = np.arange(-128, 128)
    a, c = np.meshgrid(every, every)
    kept = 0
    for _ in range(300):
        quants = [(float(10.0 ** RNG.uniform(-2, 1)), int(RNG.integers(-128, 128))) for _ in range(3)]
        try:
            params = add_params(*quants, int(RNG.choice([-1, 1])))
        except ValueError:
            continue
        scaled = scaled_sum(params)
        ma, mb, offset, shift = (int(v) for v in params)
        exact = (a * ma + c * mb + offset) >> shift
        if scaled is None:
            assert shift > SUM_POINT or np.abs(exact).max() >= 2**12
            continue
        kept += 1
        wrapped = (a * int(scaled[0]) + c * int(scaled[1]) + int(scaled[2])).astype(np.int32)
        assert np.array_equal(wrapped >> SUM_POINT, exact)
    assert kept >= 50
