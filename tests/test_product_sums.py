# SPDX-License-Identifier: Apache-2.0
"""Sums of dense layers in one accumulator: gathered in float, one scale in the QDQ file, one product in the program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from canonical_form import canonical_form
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from qdq_graph import Graph, compare, model_of, program_of
from test_passes_recurrent import recurrent

from edgec.compile import Options, compile_model, prepare
from edgec.errors import UnsupportedError
from edgec.lower import lower_to_integers
from edgec.model import Model, TensorInfo, load_model
from edgec.quantize import groups
from edgec.quantize.calibrate import run_stream
from edgec.quantize.dataset import load_samples
from edgec.quantize.fidelity import Fidelity, decibels, noise_of
from edgec.quantize.options import Recipe
from edgec.quantize.quantize import plan_quantization, quantize
from edgec.quantize.report import diagnose
from edgec.run import profile_artifact
from edgec.target import load_target

STREAMING = Path(__file__).resolve().parents[1] / "examples" / "streaming"
RNG = np.random.default_rng(7)


def float_model(
    nodes: list[str],
    inputs: dict[str, list[int]],
    outputs: list[str],
    weights: Mapping[str, np.ndarray | tuple[int, ...]],
) -> Model:
    """Nodes as "Op in in -> out [-> transB]"; `weights` by name, arrays or shapes to be drawn."""
    made = []
    for i, text in enumerate(nodes):
        left, result = text.split(" -> ")
        op, *names = left.split()
        made.append(helper.make_node(op, names, [result], f"/n{i}"))
        if op == "Gemm":
            made[-1].attribute.append(helper.make_attribute("transB", 1))
    arrays = {
        name: w if isinstance(w, np.ndarray) else RNG.normal(0, 0.3, w).astype(np.float32)
        for name, w in weights.items()
    }
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    model = Model(proto, "g", "0" * 64)
    assert isinstance(model.inputs[0], TensorInfo)
    return model


def step_model() -> Model:
    """m + A m + B u with u = ex x + eh h; the residual first, as people write it."""
    return float_model(
        [
            "Gemm x ex -> a", "Gemm h eh -> b", "Add a b -> u", "Gemm m A -> am", "Add m am -> part",
            "Gemm u B -> bu", "Add part bu -> m_next", "Gemm m_next W -> y",
        ],
        {"x": [1, 5], "h": [1, 12], "m": [1, 8]},
        ["y", "m_next"],
        {"ex": (1, 5), "eh": (1, 12), "A": (8, 8), "B": (8, 1), "W": (3, 8)},
    )  # fmt: skip


def operands_of(model: Model) -> dict[str, list[str]]:
    """Result of each Add -> the operators that make its operands."""
    makers = {n.output[0]: n.op_type for n in model.proto.graph.node}
    return {
        n.output[0]: [makers.get(v, "given") for v in n.input] for n in model.proto.graph.node if n.op_type == "Add"
    }


# --- the float form


def test_layers_come_first_and_the_residual_last() -> None:
    sums = operands_of(canonical_form(step_model()))
    assert sorted(sums.values()) == [["Gemm", "Gemm"], ["Gemm", "Gemm"], ["given", "Add"]]
    assert sums["m_next"] == ["given", "Add"]


def test_views_behind_each_layer_become_one_behind_the_sum() -> None:
    model = float_model(
        ["MatMul x a -> p", "MatMul h b -> q", "Add p q -> s", "Add s r -> t", "Relu t -> y"],
        {"x": [1, 6, 5], "h": [1, 6, 4], "r": [1, 6, 7]},
        ["y"],
        {"a": (5, 7), "b": (4, 7)},
    )
    canonical = canonical_form(model)
    assert ["Gemm", "Gemm"] in operands_of(canonical).values()


@pytest.mark.parametrize("case", ["read twice", "an output", "rows that are spread", "one layer"])
def test_left_alone(case: str) -> None:
    nodes = ["Gemm x a -> p", "Add r p -> s", "Gemm h b -> q", "Add s q -> y"]
    inputs, outputs = {"x": [3, 5], "h": [3, 4], "r": [3, 7]}, ["y"]
    if case == "read twice":
        nodes.append("Relu p -> z")
        outputs.append("z")
    if case == "an output":
        outputs.append("s")
    if case == "rows that are spread":
        inputs["h"] = [1, 4]
    if case == "one layer":
        nodes[2] = "Relu h -> q"
        inputs["h"] = [3, 7]
    weights: dict[str, np.ndarray | tuple[int, ...]] = {"a": (7, 5), "b": (7, 4)}
    if case == "one layer":
        del weights["b"]
    model = canonical_form(float_model(nodes, inputs, outputs, weights))
    assert ["Gemm", "Gemm"] not in operands_of(model).values()


# --- the quantized form


def samples_of(model: Model, scales: Mapping[str, float] | None = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        i.name: (rng.normal(0.3, 1.0, (24, *i.shape)) * (scales or {}).get(i.name, 1.0)).astype(np.float32)
        for i in model.inputs
    }


def quantized_by(proto: onnx.ModelProto) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Dequantized value -> (scale, zero point)."""
    arrays = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    return {
        n.output[0]: (arrays[n.input[1]], arrays[n.input[2]])
        for n in proto.graph.node
        if n.op_type == "DequantizeLinear"
    }


def test_nothing_is_rounded_inside_a_sum_and_its_scales_agree() -> None:
    canonical = canonical_form(step_model())
    model = quantize(canonical, samples_of(canonical, {"h": 40.0, "m": 0.02}))
    graph, scales = model.proto.graph, quantized_by(model.proto)
    rounded = {n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    makers = {n.output[0]: n for n in graph.node}
    layers = [n for n in graph.node if n.op_type == "Gemm"]
    assert len(layers) == 5
    assert sum(n.output[0] in rounded for n in layers) == 1  # the last, which nothing is added to
    for node in (n for n in graph.node if n.op_type == "Add"):
        pair = [makers[v] for v in node.input if makers[v].op_type == "Gemm"]
        if len(pair) != 2:
            continue
        assert node.output[0] in rounded or node.output[0] + "/float" in rounded
        a, b = (scales[g.input[0]][0].astype(np.float64) * scales[g.input[1]][0] for g in pair)
        np.testing.assert_allclose(a, b, rtol=3e-7)
        largest = [
            np.abs(numpy_helper.to_array(t)).max(axis=1)
            for t in graph.initializer
            for g in pair
            if t.name == makers[g.input[1]].input[0]
        ]
        assert (np.maximum(*largest) == 127).all()  # each channel of one of the two uses all of int8


def test_weights_that_two_layers_share_are_not_summed() -> None:
    model = float_model(
        ["Gemm x w -> p", "Gemm h w -> q", "Add p q -> y"], {"x": [1, 6], "h": [1, 6]}, ["y"], {"w": (4, 6)}
    )
    canonical = canonical_form(model)
    graph = quantize(canonical, samples_of(canonical)).proto.graph
    assert sum(n.op_type == "QuantizeLinear" for n in graph.node) == 5


@pytest.mark.parametrize("loud", [0, 1])
@pytest.mark.parametrize("ratio", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("widths", [(32, 32), (32, 1), (512, 2)])
def test_one_accumulator_costs_no_accuracy(
    widths: tuple[int, int], ratio: float, loud: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the same model with every product rounded; two loud inputs beside 512 quiet ones lose 5 dB together."""
    rng = np.random.default_rng(11)
    weights = {f"w{i}": rng.normal(size=(24, k)).astype(np.float32) for i, k in enumerate(widths)}
    nodes = ["Gemm x0 w0 -> p", "Gemm x1 w1 -> q", "Add p q -> y"]
    model = canonical_form(float_model(nodes, {f"x{i}": [1, k] for i, k in enumerate(widths)}, ["y"], weights))
    samples = {
        f"x{i}": (rng.normal(size=(200, 1, k)) * (ratio if i == loud else 1)).astype(np.float32)
        for i, k in enumerate(widths)
    }
    fidelity = Fidelity(model, samples)
    together = quantize(model, samples)
    monkeypatch.setattr(groups, "find_product_sums", lambda *_: [])
    apart = quantize(model, samples)
    assert decibels(fidelity.noise(together)) >= decibels(fidelity.noise(apart)) - 0.5
    same = len(together.proto.graph.node) == len(apart.proto.graph.node)
    assert same == (widths == (512, 2) and loud == 1 and ratio > 1)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    rows=st.integers(1, 3),
    outputs=st.integers(1, 20),
    shared=st.booleans(),
    clamp=st.booleans(),
)
def test_float_sums_end_as_one_product_that_follows_onnx_runtime(
    seed: int, widths: list[int], rows: int, outputs: int, shared: bool, clamp: bool
) -> None:
    """Through the quantizer: equals ONNX Runtime on the QDQ file, and as near to float as rounding of 8 bits allows."""
    rng = np.random.default_rng(seed)
    if shared:
        widths = [widths[0]] * len(widths)
    names = ["x0" if shared else f"x{i}" for i in range(len(widths))]
    nodes = [f"Gemm {name} w{i} b{i} -> p{i}" for i, name in enumerate(names)]
    total = "p0"
    for i in range(1, len(widths)):
        nodes.append(f"Add p{i} {total} -> s{i}")
        total = f"s{i}"
    nodes.append(f"{'Relu' if clamp else 'Tanh'} {total} -> y")
    weights: dict[str, np.ndarray | tuple[int, ...]] = {}
    for i, k in enumerate(widths):
        weights[f"w{i}"] = (rng.normal(size=(outputs, k)) * 10 ** rng.uniform(-1, 1, (outputs, 1))).astype(np.float32)
        weights[f"b{i}"] = rng.normal(size=outputs).astype(np.float32)
    inputs = {name: [rows, k] for name, k in zip(names, widths, strict=True)}
    model = canonical_form(float_model(nodes, inputs, ["y"], weights))
    data = samples_of(model, {name: float(10 ** rng.uniform(-2, 2)) for name in inputs})
    quantized = quantize(model, data)
    program = program_of(quantized.proto)
    ops = [c.op for c in program.calls]
    assert ops.count("linear_s8") == 1
    assert "add_s8" not in ops
    for sample in range(3):
        found = compare(quantized.proto, {n: a[sample] for n, a in data.items()})["y"]
        # A rounding of the product that falls the other way is one step, and up to two of the table behind it.
        assert found.largest <= (1 if clamp else 2)
        assert found.share <= 0.01 or found.share * found.elements <= 1


# --- lowering


def layers_of(
    g: Graph, widths: list[int], rows: int, outputs: int, shared: bool = False, bias: bool = True
) -> list[str]:
    """Layers with one accumulator scale on inputs of random scales and zero points; the float results."""
    accumulator = 10.0 ** g.rng.uniform(-3.5, -2.5, outputs)
    results, x = [], ""
    for i, k in enumerate(widths):
        if i == 0 or not shared:
            high = float(10.0 ** g.rng.uniform(-2, 2))
            x = g.input(rows, k, low=-high * g.rng.uniform(0, 2), high=high)
        given = [g.constant((g.rng.normal(0, 2000, outputs) * accumulator).astype(np.float32))] if bias else []
        results.append(layer_on(g, x, k, accumulator, *given))
    return results


def layer_on(g: Graph, x: str, k: int, accumulator: np.ndarray, *bias: str) -> str:
    """A layer on the dequantized x whose scale of input and weights is `accumulator`."""
    maker = next(n for n in g.nodes if n.output[0] == x)
    input_scale = next(float(numpy_helper.to_array(c)) for c in g.constants if c.name == maker.input[1])
    q = g.constant(g.rng.integers(-127, 128, (len(accumulator), k)).astype(np.int8), "w")
    scale = g.constant((accumulator / input_scale).astype(np.float32), "scale")
    w = g.dequantize(q, scale, g.constant(np.zeros(len(accumulator), np.int8)), axis=0)
    return g.op("Gemm", x, w, *bias, transB=1)


def add_all(g: Graph, terms: list[str]) -> str:
    total = terms[0]
    for term in terms[1:]:
        total = g.op("Add", total, term)
    return total


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    widths=st.lists(st.integers(1, 70), min_size=2, max_size=4),
    shared=st.booleans(),
    bias=st.booleans(),
    unsigned=st.booleans(),
)
def test_a_sum_follows_onnx_runtime(seed: int, widths: list[int], shared: bool, bias: bool, unsigned: bool) -> None:
    g = Graph(seed)
    g.dtype = np.dtype([np.int8, np.uint8][unsigned])
    if shared:
        widths = [widths[0]] * len(widths)
    y = add_all(g, layers_of(g, widths, rows=9, outputs=31, shared=shared, bias=bias))
    g.output(g.op("Relu", y) if seed % 3 == 0 else y)
    proto = g.proto()
    computing = [c.op for c in program_of(proto).calls if c.op != "concat_s8"]
    assert computing == ["linear_s8"] or (seed % 3 == 0 and computing == ["linear_s8", "table_s8"])
    (found,) = compare(proto, g.inputs).values()
    assert found.largest <= 1
    assert found.share < 0.01


def test_a_sum_of_sums() -> None:
    g = Graph(5)
    a, b, c, d = layers_of(g, [5, 6, 7, 8], rows=9, outputs=31)
    g.output(add_all(g, [add_all(g, [a, b]), add_all(g, [c, d])]))
    assert [c.op for c in program_of(g.proto()).calls].count("linear_s8") == 1
    (found,) = compare(g.proto(), g.inputs).values()
    assert found.largest <= 1
    assert found.share < 0.01


def test_sums_of_the_same_inputs_share_their_bytes() -> None:
    g = Graph(2)
    g.output(add_all(g, layers_of(g, [16, 24], rows=1, outputs=8)))
    first, second = (n.input[0] for n in g.nodes if n.op_type == "Gemm")
    accumulator = np.full(6, 1e-3)
    inputs = ((g.input(1, 5), 5), (second, 24), (first, 16))
    g.output(add_all(g, [layer_on(g, x, k, accumulator) for x, k in inputs]))
    calls = program_of(g.proto()).calls
    assert [c.op for c in calls].count("concat_s8") == 2  # 16 + 24, and that + 5
    for found in compare(g.proto(), g.inputs).values():
        assert found.largest <= 1


def test_layers_of_different_scales_are_refused() -> None:
    g = Graph(3)
    y = g.op("Add", *(g.op("Gemm", g.input(2, 6), g.weight(4, 6, axis=0), transB=1) for _ in range(2)))
    g.output(y)
    with pytest.raises(UnsupportedError, match="different scales"):
        lower_to_integers(model_of(g.proto()))


def test_partial_sums_that_are_quantized_keep_their_meaning() -> None:
    g = Graph(4)
    parts = [g.quantize(g.op("Gemm", g.input(2, 6), g.weight(4, 6, axis=0), transB=1)) for _ in range(2)]
    g.output(g.op("Add", *parts))
    assert [c.op for c in program_of(g.proto()).calls] == ["linear_s8", "linear_s8", "add_s8"]


# --- whole models


@pytest.mark.parametrize(
    ("kind", "attributes", "products", "sums"),
    [("RNN", {}, 1, 0), ("LSTM", {}, 4, 1), ("GRU", {"linear_before_reset": 1}, 4, 3), ("GRU", {}, 3, 2)],
)
def test_a_step_of_a_recurrent_node(kind: str, attributes: dict[str, int], products: int, sums: int) -> None:
    """One product a gate; what else is added is c = f c + i g, n + r (R h) and n + z (h - n)."""
    initial, outputs = ("h0 c0", "- h c") if kind == "LSTM" else ("h0", "- h")
    model = canonical_form(recurrent(kind, 1, initial=initial, outputs=outputs, **attributes))
    calls = program_of(quantize(model, samples_of(model)).proto).calls
    ops = [c.op for c in calls]
    assert ops.count("linear_s8") == products
    assert ops.count("add_s8") == sums
    assert ops.count("concat_s8") == (2 if kind == "GRU" and not attributes else 1)  # r * h is an input of its own


def test_the_report_knows_sums() -> None:
    canonical = canonical_form(step_model())
    samples = samples_of(canonical)
    rows = diagnose(plan_quantization(canonical, samples, Recipe()).plan, samples)
    assert len(rows) == 4  # u, the products of m_next, m_next, y
    assert all(row.own_db > 20 for row in rows)


@pytest.fixture(scope="module")
def streaming() -> tuple[Model, dict[str, np.ndarray]]:
    model = load_model(STREAMING / "recurrent_16_64_32.onnx")
    return model, dict(load_samples(STREAMING / "stream.npz", model.inputs))


def test_drift_over_a_stream(streaming: tuple[Model, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float, over the example stream there and back twice: no worse than with every partial sum rounded."""
    model, samples = streaming
    long = {n: np.concatenate([a, a[::-1], a, a[::-1]]) for n, a in samples.items()}
    wanted = np.stack([step["y"] for step in run_stream(model, long)]).astype(np.float64)

    def reached() -> list[float]:
        quantized = prepare(model, Options(calibration=samples))
        got = np.stack([step["y"] for step in run_stream(quantized, long)]).astype(np.float64)
        return [decibels(noise_of(g, w)) for g, w in zip(np.split(got, 4), np.split(wanted, 4), strict=True)]

    together = reached()
    monkeypatch.setattr(groups, "find_product_sums", lambda *_: [])
    apart = reached()
    print("dB by quarter of the stream, one accumulator:", np.round(together, 1), "rounded apart:", np.round(apart, 1))
    assert min(together) >= min(apart)
    assert together[-1] >= together[0] - 1.0  # it does not drift away


def test_recurrent_step_on_the_simulated_board(streaming: tuple[Model, dict[str, np.ndarray]], tmp_path: Path) -> None:
    model, samples = streaming
    artifact = compile_model(
        dataclasses.replace(model),
        load_target("stm32f746"),
        tmp_path / "step",
        Options(calibration=samples, recipe=Recipe(state_width="int8")),
    )
    profile = profile_artifact(artifact, samples)
    operators = [o["op"] for o in profile["operators"]]
    assert sum(op.startswith("linear") for op in operators) == 4
    assert profile["instructions"] <= 15_000
    assert artifact.manifest["ram"]["total_bytes"] <= 1_600
    assert artifact.manifest["flash"]["total_bytes"] <= 18_000
