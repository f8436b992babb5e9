# SPDX-License-Identifier: Apache-2.0
"""Quantization is judged by ONNX Runtime running the float model and the QDQ model side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgec.errors import UnsupportedError, UsageError
from edgec.model import Model, StatePair, TensorInfo
from edgec.quantize.calibrate import ValueStatistics, run_stream
from edgec.quantize.dataset import load_samples
from edgec.quantize.groups import INHERITING
from edgec.quantize.options import Recipe
from edgec.quantize.quantize import quantize
from edgec.quantize.scheme import MIN_RATIO, ActivationParams, activation_params, linear_params

INT64 = np.int64


class Graph:
    """Builds a canonical float graph; every method returns the name of its output."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, *shape: int) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def op(self, op: str, *inputs: str, out: str = "", **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out or name], f"/{name}", **attributes))
        return out or name

    def gemm(self, x: str, k: int, n: int, out: str = "") -> str:
        weight, bias = self.normal(n, k, scale=1 / math.sqrt(k)), self.normal(n, scale=0.1)
        return self.op("Gemm", x, weight, bias, transB=1, out=out)

    def norm(self, x: str, d: int) -> str:
        gain = self.constant((1 + 0.1 * self.rng.standard_normal(d)).astype(np.float32))
        return self.op("LayerNormalization", x, gain, self.normal(d, scale=0.1), axis=-1)

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.constant(np.array(shape, INT64)))

    def transpose(self, x: str, *perm: int, out: str = "") -> str:
        return self.op("Transpose", x, perm=perm, out=out)

    def model(self, *outputs: str, states: Sequence[StatePair] = ()) -> Model:
        graph = helper.make_graph(
            self.nodes,
            "test",
            self.inputs,
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
            self.initializers,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
        onnx.checker.check_model(proto, full_check=True)
        return Model(proto, "test", "0" * 64, tuple(states))


def attention(g: Graph, x: str, t: int, d: int, heads: int) -> str:
    def split(perm: tuple[int, ...]) -> str:
        return g.transpose(g.reshape(g.gemm(x, d, d), t, heads, d // heads), *perm)

    q, k, v = split((1, 0, 2)), split((1, 2, 0)), split((1, 0, 2))
    scale = g.constant(np.array(1 / math.sqrt(d // heads), np.float32))
    weights = g.op("Softmax", g.op("Mul", g.op("MatMul", q, k), scale), axis=-1)
    mixed = g.reshape(g.transpose(g.op("MatMul", weights, v), 1, 0, 2), t, d)
    return g.gemm(mixed, d, d)


def vit(seed: int = 0, *, size: int = 16, patch: int = 4, d: int = 32, depth: int = 2) -> Model:
    """Patch embedding, class token, position, attention and MLP blocks, head; NCHW image in, logits out."""
    g = Graph(seed)
    side = size // patch
    t = side * side + 1
    x = g.transpose(g.input("image", 1, 3, size, size), 0, 2, 3, 1)
    x = g.transpose(g.reshape(x, side, patch, side, patch, 3), 0, 2, 1, 3, 4)
    x = g.gemm(g.reshape(x, side * side, patch * patch * 3), patch * patch * 3, d)
    x = g.op("Concat", g.normal(1, d), x, axis=0)
    x = g.op("Add", x, g.normal(t, d, scale=0.2))
    for _ in range(depth):
        x = g.op("Add", x, attention(g, g.norm(x, d), t, d, heads=2))
        x = g.op("Add", x, g.gemm(g.op("Gelu", g.gemm(g.norm(x, d), d, 2 * d)), 2 * d, d))
    x = g.op("ReduceMean", g.norm(x, d), g.constant(np.array([0], INT64)), keepdims=1)
    return g.model(g.gemm(x, d, 10, out="logits"))


def recurrent(reset: float = 0.0) -> Model:
    """h' = tanh(Wx + Uh);  m' = 0.9 m + Bh';  y = Vm'."""
    g = Graph(3)
    x, h, m = g.input("x", 1, 6), g.input("h", 1, 16), g.input("m", 1, 8)
    h_next = g.op("Tanh", g.op("Add", g.gemm(x, 6, 16), g.gemm(h, 16, 16)), out="h_next")
    decay = g.op("Mul", m, g.constant(np.full(8, 0.9, np.float32)))
    m_next = g.op("Add", decay, g.gemm(h_next, 16, 8), out="m_next")
    states = (StatePair("h", "h_next", reset), StatePair("m", "m_next"))
    return g.model(g.gemm(m_next, 8, 4, out="y"), "h_next", "m_next", states=states)


def samples_for(model: Model, count: int, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {i.name: rng.standard_normal((count, *i.shape)).astype(np.float32) for i in model.inputs}


def run(model: Model, samples: Mapping[str, np.ndarray], *, optimize: bool = False) -> dict[str, np.ndarray]:
    steps = list(run_stream(model, samples, optimize=optimize))
    return {name: np.stack([s[name] for s in steps]) for name in steps[0]}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(float), b.ravel().astype(float)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


class Qdq:
    """Questions to a QDQ model that its readers rely on."""

    def __init__(self, model: Model) -> None:
        graph = model.proto.graph
        self.graph = graph
        self.init = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.producer = {o: n for n in graph.node for o in n.output}

    def nodes(self, op: str) -> list[onnx.NodeProto]:
        return [n for n in self.graph.node if n.op_type == op]

    def origin(self, value: str) -> onnx.NodeProto | None:
        """The node that made the value, behind data movement."""
        node = self.producer.get(value)
        while node is not None and node.op_type in INHERITING:
            node = self.producer.get(node.input[0])
        return node

    def params(self, value: str) -> tuple[float, int]:
        """Scale and zero point that a float value is read with (behind a DQ) or written with (before a Q)."""
        node = self.origin(value)
        if node is None or node.op_type != "DequantizeLinear":
            (node,) = [n for n in self.nodes("QuantizeLinear") if n.input[0] == value]
        return float(self.init[node.input[1]]), int(self.init[node.input[2]])


@pytest.mark.parametrize("optimize", [False, True])
def test_vit_stays_close_to_float_in_onnx_runtime(optimize: bool) -> None:
    model = vit()
    quantized = quantize(model, samples_for(model, 16))
    test = samples_for(model, 32, seed=2)
    assert cosine(run(quantized, test, optimize=optimize)["logits"], run(model, test)["logits"]) > 0.99


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_recurrent_step_stays_close_over_50_steps(method: str) -> None:
    model = recurrent()
    quantized = quantize(model, samples_for(model, 200), method=method)
    test = samples_for(model, 50, seed=2)
    got, want = run(quantized, test)["y"], run(model, test)["y"]
    assert cosine(got, want) > 0.99
    assert cosine(got[-10:], want[-10:]) > 0.98


def test_state_input_and_output_share_parameters_that_hold_the_reset_value() -> None:
    model = recurrent(reset=-0.5)
    quantized = quantize(model, samples_for(model, 20))
    q = Qdq(quantized)
    for pair in model.states:
        out = q.producer[pair.output]
        into = next(n for n in q.nodes("QuantizeLinear") if n.input[0] == pair.input)
        assert list(out.input[1:]) == list(into.input[1:])
    assert q.params("h/float" if "h/float" in q.producer else "h") == (1 / 128, 0)  # Tanh's own
    assert json.loads(next(p.value for p in quantized.proto.metadata_props if p.key == "edgec.state")) == [
        {"input": "h", "output": "h_next", "reset": -0.5},
        {"input": "m", "output": "m_next", "reset": 0.0},
    ]


def test_state_is_fed_back_during_calibration() -> None:
    g = Graph()
    total = g.op("Add", g.input("x", 1, 1), g.input("s", 1, 1), out="total")
    model = g.model(total, states=[StatePair("s", "total", 2.0)])
    ones = {"x": np.ones((30, 1, 1), np.float32)}
    scale, zero_point = Qdq(quantize(model, ones, Recipe(state_width="int8"))).params("s")
    assert scale * (127 - zero_point) == pytest.approx(32.0)  # 2 + 30 steps of 1, seen only with feedback
    assert zero_point == -128


def test_every_activation_holds_zero_and_right_operands_are_symmetric() -> None:
    model = vit()
    q = Qdq(quantize(model, samples_for(model, 8)))
    for node in q.nodes("QuantizeLinear"):
        scale, zero_point = q.init[node.input[1]], q.init[node.input[2]]
        assert scale.dtype == np.float32
        assert scale.shape == ()
        assert zero_point.dtype == np.int8
        assert zero_point.shape == ()
        assert scale > 0
    for node in q.nodes("MatMul"):
        assert q.params(node.input[1])[1] == 0
        projection = q.producer[q.origin(node.input[1]).input[0]]  # the Gemm's own Q, behind the movement chain
        assert q.producer[projection.input[0]].op_type == "Gemm"
    for node in q.nodes("Softmax"):
        assert q.params(node.output[0]) == (1 / 256, -128)


def test_right_operands_use_127_for_the_largest_value_seen() -> None:
    g = Graph()
    model = g.model(g.op("MatMul", g.input("a", 1, 2, 3), g.input("b", 1, 3, 2), out="y"))
    samples = samples_for(model, 4)
    scale, zero_point = Qdq(quantize(model, samples)).params("b")
    assert zero_point == 0
    assert scale == pytest.approx(np.abs(samples["b"]).max() / 127, rel=1e-6)


def test_no_quantization_inside_movement_chains_nor_between_fused_nodes() -> None:
    model = vit()
    q = Qdq(quantize(model, samples_for(model, 4)))
    for node in q.nodes("QuantizeLinear"):
        before = q.producer.get(node.input[0])
        assert before is None or before.op_type not in INHERITING
    for node in q.nodes("Mul"):
        assert [q.producer[i].op_type for i in node.input if i in q.producer] == ["MatMul"]
    assert q.nodes("Mul")


def test_weights_and_biases_follow_the_conventions() -> None:
    model = vit()
    q = Qdq(quantize(model, samples_for(model, 4)))
    for node in q.nodes("Gemm"):
        weight, bias = q.producer[node.input[1]], q.producer[node.input[2]]
        w, sw, zw = (q.init[i] for i in weight.input)
        b, sb, zb = (q.init[i] for i in bias.input)
        n = w.shape[0]
        assert (w.dtype, b.dtype, zb.dtype, zw.dtype) == (np.int8, np.int32, np.int32, np.int8)
        assert sw.shape == sb.shape == zw.shape == zb.shape == (n,)
        assert not zw.any()
        assert not zb.any()
        assert weight.attribute[0].name == bias.attribute[0].name == "axis"
        assert weight.attribute[0].i == bias.attribute[0].i == 0
        assert w.min() >= -127
        np.testing.assert_array_equal(np.abs(w).max(1), 127)
        np.testing.assert_array_equal(sb, np.float32(q.params(node.input[0])[0]) * sw)


def test_output_behind_movement_ends_in_q_dq_of_the_same_parameters() -> None:
    g = Graph()
    y = g.gemm(g.input("x", 4, 8), 8, 6)
    g.transpose(y, 1, 0, out="moved")
    model = g.model("moved", g.op("Relu", "moved", out="positive"))
    q = Qdq(quantize(model, samples_for(model, 4)))
    last = q.producer["moved"]
    assert last.op_type == "DequantizeLinear"
    first = q.origin(q.producer[last.input[0]].input[0])
    assert list(last.input[1:]) == list(first.input[1:])
    assert q.origin(q.producer[q.origin("positive").input[0]].input[0]).op_type == "Relu"


def test_relu_range_reaches_back_through_reshape_and_loses_nothing() -> None:
    g = Graph()
    y = g.reshape(g.gemm(g.input("x", 4, 8), 8, 6), 2, 12)
    model = g.model(g.op("Relu", y, out="z"))
    q = Qdq(quantize(model, samples_for(model, 8)))
    (relu,) = q.nodes("Relu")
    assert q.params(relu.input[0]) == q.params("z")
    assert q.params("z")[1] == -128  # all 256 steps for the positive half


@pytest.mark.parametrize(("op", "reach", "step"), [("Sigmoid", 7.0, 1 / 256), ("Tanh", 3.5, 1 / 128)])
def test_steps_are_not_spent_where_a_bounded_function_is_flat(op: str, reach: float, step: float) -> None:
    """Inputs far beyond the bend: the range ends where the result is its bound to a quarter of a step."""
    bound = {"Sigmoid": lambda v: 1 / (1 + math.exp(-v)), "Tanh": math.tanh}[op]
    assert 1 - bound(reach) < step / 4 <= 1 - bound(reach - 0.5)
    for also_read in (False, True):
        g = Graph()
        h = g.gemm(g.input("x", 4, 8), 8, 6)
        results = [g.op(op, h, out="z"), *([g.op("Neg", h, out="n")] if also_read else [])]
        model = g.model(*results)
        samples = {"x": 40 * samples_for(model, 64)["x"]}
        q = Qdq(quantize(model, samples))
        (node,) = q.nodes(op)
        scale, zero_point = q.params(node.input[0])
        low, high = scale * (-128 - zero_point), scale * (127 - zero_point)
        if also_read:  # by something that is not flat
            assert high - low > 4 * reach
        else:
            assert -reach - scale <= low < high <= reach + scale


def test_relu_directly_behind_gemm_is_one_rounding() -> None:
    g = Graph()
    model = g.model(g.op("Relu", g.gemm(g.input("x", 4, 8), 8, 6), out="z"))
    q = Qdq(quantize(model, samples_for(model, 8)))
    (relu,) = q.nodes("Relu")
    assert q.producer[relu.input[0]].op_type == "Gemm"


def test_concat_inputs_share_its_parameters_only_where_they_feed_nothing_else() -> None:
    g = Graph()
    a, b = g.gemm(g.input("x", 4, 8), 8, 6), g.gemm(g.input("y", 4, 8), 8, 6)
    joined = g.op("Concat", a, b, g.normal(1, 6), axis=0, out="joined")
    model = g.model(joined, g.op("Gelu", b, out="other"))
    samples = samples_for(model, 8)
    samples["y"] *= 0.01
    q = Qdq(quantize(model, samples))
    (concat,) = q.nodes("Concat")
    whole = q.params(q.producer[q.producer["joined"].input[0]].input[0])
    assert [q.params(i) == whole for i in concat.input] == [True, False, True]


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e-9])
def test_dead_channels_get_sane_multipliers_and_keep_their_bias(magnitude: float) -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4, 8)).astype(np.float32)
    w[1] = magnitude
    bias = np.array([0.3, -2.5, 0.1, 0.0], np.float32)
    x, y = activation_params(-1, 1), activation_params(-3, 3)
    linear = linear_params(w, bias, x, y, "dense")
    ratio = x.scale * linear.weight_scale.astype(float) / y.scale
    assert (ratio >= MIN_RATIO * 0.999).all()
    assert (ratio < 1).all()
    np.testing.assert_allclose(linear.bias * linear.bias_scale.astype(float), bias, atol=y.scale / 1000)


def test_bias_far_beyond_the_weights_still_fits_32_bits() -> None:
    x, y = ActivationParams(1e-6, 3), ActivationParams(1.0, 0)
    linear = linear_params(np.full((1, 4), 1e-6, np.float32), np.array([100.0], np.float32), x, y, "dense")
    assert linear.bias.astype(float) * linear.bias_scale == pytest.approx(100.0, rel=1e-6)
    assert abs(int(linear.bias[0])) <= 2**30


def test_a_sum_that_cannot_fit_32_bits_is_refused() -> None:
    x = ActivationParams(1.0, -128)
    with pytest.raises(UnsupportedError, match="dense: the sum over 70000 products can overflow"):
        linear_params(np.ones((1, 70_000), np.float32), np.zeros(1, np.float32), x, x, "dense")


def test_dead_activation_runs() -> None:
    g = Graph()
    zeros = g.op("Mul", g.input("x", 4, 8), g.constant(np.zeros((), np.float32)))
    model = g.model(g.gemm(zeros, 8, 6, out="y"))
    test = samples_for(model, 8)
    np.testing.assert_allclose(run(quantize(model, test), test)["y"], run(model, test)["y"], atol=0.01)


def test_division_by_a_constant_becomes_a_product() -> None:
    g = Graph()
    divisor = g.constant(np.array([1e-3, 1.0, 1000.0], np.float32))
    model = g.model(g.op("Div", g.input("x", 1, 3), divisor, out="y"))
    test = {"x": np.array([[[1e-3, 0.5, 1000.0]]], np.float32)}
    got = run(quantize(model, test), test)["y"]
    assert np.isfinite(got).all()


def test_unknown_operators_are_listed_at_once_by_name() -> None:
    g = Graph()
    x = g.op("Hardmax", g.input("x", 1, 4))
    model = g.model(g.op("Asinh", g.op("Gemm", x, g.normal(4, 4), transB=1), out="y"))
    with pytest.raises(UnsupportedError, match=r"/hardmax0: Hardmax; /asinh2: Asinh"):
        quantize(model, samples_for(model, 1))


def test_foreign_qdq_model_is_returned_unchanged_and_half_quantized_refused() -> None:
    model = vit(depth=1)
    quantized = quantize(model, samples_for(model, 2))
    before = quantized.proto.SerializeToString()
    assert quantize(quantized, None).proto.SerializeToString() == before
    half = onnx.ModelProto.FromString(before)
    kept = [n for n in half.graph.node if n.op_type != "QuantizeLinear"]
    del half.graph.node[:]
    half.graph.node.extend(kept)
    with pytest.raises(UnsupportedError, match="partly quantized"):
        quantize(Model(half, "half", ""), None)


def test_result_is_deterministic_and_says_how_it_was_made() -> None:
    model = vit(depth=1)
    samples = samples_for(model, 3)
    a, b = quantize(model, samples), quantize(model, dict(samples))
    assert a.proto.SerializeToString(deterministic=True) == b.proto.SerializeToString(deterministic=True)
    summary = json.loads(next(p.value for p in a.proto.metadata_props if p.key == "edgec.quantization"))
    assert summary["samples"] == 3
    assert summary["scheme"] == "int8"
    assert len(summary["calibration_sha256"]) == 64
    assert [(i.name, i.shape) for i in a.inputs] == [(i.name, i.shape) for i in model.inputs]
    assert [(o.name, o.shape) for o in a.outputs] == [(o.name, o.shape) for o in model.outputs]


def test_a_constant_may_be_quantized_in_one_place_and_float_in_another() -> None:
    g = Graph()
    x = g.input("x", 4, 4)
    half = g.constant(np.array(0.5, np.float32))
    scores = g.op("Mul", g.op("MatMul", g.op("Mul", x, half), x), half)
    model = g.model(g.op("Clip", scores, g.constant(np.array(-9, np.float32)), half, out="y"))
    q = Qdq(quantize(model, samples_for(model, 8)))
    standalone, fused = q.nodes("Mul")
    assert q.producer[standalone.input[1]].op_type == "DequantizeLinear"
    assert fused.input[1] == half
    assert q.nodes("Clip")[0].input[2] == half


def test_hostile_names_do_not_collide() -> None:
    g = Graph()
    x = g.input("x/q", 4, 8)
    y = g.op("Gelu", x, out="x/dq")
    model = g.model(g.op("Add", y, g.op("Relu", x, out="x/scale"), out="x/q/q"))
    test = samples_for(model, 8)
    assert cosine(run(quantize(model, test), test)["x/q/q"], run(model, test)["x/q/q"]) > 0.999


# ---- random canonical graphs ------------------------------------------------------------------------------


@st.composite
def canonical_graphs(draw: st.DrawFn) -> Model:
    """A chain of random operators on [T, D] with residual adds; every value has a magnitude near one."""
    g = Graph(draw(st.integers(0, 1000)))
    t, d = draw(st.sampled_from([1, 3, 7])), draw(st.sampled_from([4, 8, 12]))
    x = g.input("x", t, d)
    kinds = st.sampled_from(["gemm", "norm", "gelu", "relu", "tanh", "attention", "clip", "concat"])
    for kind in draw(st.lists(kinds, min_size=1, max_size=4)):
        if kind == "gemm":
            y = g.gemm(x, d, d)
        elif kind == "norm":
            y = g.norm(x, d)
        elif kind == "gelu":
            y = g.op("Gelu", x)
        elif kind == "relu":
            y = g.op("Relu", g.gemm(x, d, d))
        elif kind == "tanh":
            y = g.op("Tanh", x)
        elif kind == "attention":
            y = attention(g, x, t, d, heads=2)
        elif kind == "clip":
            low, high = (g.constant(np.array(v, np.float32)) for v in (-1, 1))
            y = g.op("Clip", g.gemm(x, d, d), low, high)
        else:
            y = g.gemm(g.op("Concat", g.gemm(x, d, d), x, axis=1), 2 * d, d)
        x = g.op("Add", x, y) if draw(st.booleans()) else y
    return g.model(g.gemm(x, d, 5, out="y"))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(canonical_graphs())
def test_random_graphs_stay_close_to_float(model: Model) -> None:
    """RMS error at most 3 % and every element within 15 % of the output's largest value, for values seen.

    (Of 250 drawn graphs the worst had 2.0 % and 10.1 %.) ONNX Runtime's optimizer keeps the result, but for
    attention over a single token, which ONNX Runtime 1.31 gets wrong.
    """
    samples = samples_for(model, 16)
    quantized = quantize(model, samples)
    want, got = run(model, samples)["y"], run(quantized, samples)["y"]
    assert np.isfinite(got).all()
    peak = np.abs(want).max()
    assert np.sqrt(np.mean((got - want) ** 2)) <= 0.03 * peak
    assert np.abs(got - want).max() <= 0.15 * peak
    if model.inputs[0].shape[0] > 1:
        assert np.abs(run(quantized, samples, optimize=True)["y"] - want).max() <= 0.15 * peak


@given(
    st.floats(-1e6, 1e6, width=32),
    st.floats(-1e6, 1e6, width=32),
    st.booleans(),
)
def test_activation_params_hold_zero_and_both_ends(a: float, b: float, symmetric: bool) -> None:
    low, high = min(a, b), max(a, b)
    p = activation_params(low, high, symmetric=symmetric)
    assert p.scale == float(np.float32(p.scale)) > 0
    assert -128 <= p.zero_point <= 127
    assert p.low <= 0 <= p.high
    assert p.low - 0.51 * p.scale <= low
    assert high <= p.high + 0.51 * p.scale
    assert not symmetric or (p.zero_point == 0 and max(-low, high) <= 127.001 * p.scale)


# ---- statistics --------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20), min_size=1, max_size=6))
@example([[4096.0], [-5e-324]])
def test_statistics_cover_the_extremes_and_do_not_depend_on_order(batches: list[list[float]]) -> None:
    forward, backward = ValueStatistics(), ValueStatistics()
    for batch in batches:
        forward.update(np.array(batch))
    for batch in reversed(batches):
        backward.update(np.array(batch))
    everything = np.concatenate([np.array(b) for b in batches])
    assert forward.range("minmax") == (everything.min(), everything.max())
    assert forward.counts.sum() == everything.size
    assert forward.range("percentile", 100.0) == pytest.approx((everything.min(), everything.max()))
    if forward.width == backward.width:
        np.testing.assert_array_equal(forward.counts, backward.counts)


def test_percentile_agrees_with_numpy() -> None:
    values = np.random.default_rng(0).standard_normal(200_000)
    values[0] = 1000.0
    statistics = ValueStatistics()
    for part in np.array_split(values, 7):
        statistics.update(part)
    low, high = statistics.range("percentile", 99.0)
    want = np.percentile(values, [0.5, 99.5])
    assert (low, high) == pytest.approx(want, abs=1024 * 2 / 4096)  # one bin


# ---- sample files ------------------------------------------------------------------------------------------

IMAGE = TensorInfo("image", (1, 3, 4, 4), np.dtype(np.float32))
STEP = TensorInfo("x", (1, 6), np.dtype(np.float32))


def test_samples_with_and_without_batch_dimension(tmp_path) -> None:
    data = np.arange(5 * 48).reshape(5, 3, 4, 4)
    np.savez(tmp_path / "a.npz", image=data.astype(np.uint8))
    np.savez(tmp_path / "b.npz", image=data.astype(np.uint8).reshape(5, 1, 3, 4, 4).astype(np.float64))
    for name in ("a.npz", "b.npz"):
        samples = load_samples(tmp_path / name, [IMAGE])
        assert samples["image"].shape == (5, 1, 3, 4, 4)
        assert samples["image"].dtype == np.float32
        np.testing.assert_array_equal(samples["image"][:, 0], data)


@pytest.mark.parametrize(
    ("arrays", "message", "need", "have"),
    [
        ({}, r"do not match the model's inputs \(missing image\)", "image", "no array"),
        ({"img": np.zeros((1, 3, 4, 4))}, r"missing image; not inputs of the model: img", "image", "img"),
        (
            {"image": np.zeros((2, 4, 4, 3))},
            "image has the wrong shape",
            "[samples, 3, 4, 4] or [samples, 1, 3, 4, 4]",
            "[2, 4, 4, 3]",
        ),
        ({"image": np.zeros((0, 3, 4, 4))}, "has no sample", "at least 1", "0"),
        (
            {"image": np.full((1, 3, 4, 4), np.nan)},
            "not finite",
            "finite numbers",
            "nan at index [0, 0, 0, 0]",
        ),
        (
            {"image": np.full((1, 3, 4, 4), 1e300)},
            "not finite",
            "finite numbers",
            "inf at index [0, 0, 0, 0]",
        ),
        (
            {"image": np.full((1, 3, 4, 4), 2**24 + 1)},
            "exactly",
            "values that float32 can hold",
            "16777217 (int64) at index [0, 0, 0, 0]",
        ),
        ({"image": np.full((1, 3, 4, 4), "a")}, "is not numeric", "float32", "<U1"),
    ],
)
def test_wrong_samples_name_need_and_have(tmp_path, arrays, message: str, need: str, have: str) -> None:
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(UsageError, match=message) as error:
        load_samples(tmp_path / "c.npz", [IMAGE])
    assert (error.value.need, error.value.have) == (need, have)
    assert "c.npz" in error.value.what


def test_int64_extremes_are_not_exact_in_float32(tmp_path) -> None:
    for value in (2**63 - 1, -(2**63) + 1):
        np.savez(tmp_path / "c.npz", image=np.full((1, 3, 4, 4), value))
        with pytest.raises(UsageError, match="exactly"):
            load_samples(tmp_path / "c.npz", [IMAGE])


def test_different_sample_counts_are_refused(tmp_path) -> None:
    np.savez(tmp_path / "c.npz", image=np.zeros((2, 3, 4, 4)), x=np.zeros((3, 6)))
    with pytest.raises(UsageError, match="different numbers of samples"):
        load_samples(tmp_path / "c.npz", [IMAGE, STEP])


def test_broken_files_give_one_clear_error(tmp_path) -> None:
    good = tmp_path / "good.npz"
    np.savez_compressed(good, image=np.random.default_rng(0).random((4, 3, 4, 4)))
    whole = good.read_bytes()
    path = tmp_path / "bad.npz"
    for cut in (0, 1, 10, 200, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(UsageError, match="not a readable npz file"):
            load_samples(path, [IMAGE])
    path.write_bytes(whole[:120] + bytes(40) + whole[160:])
    with pytest.raises(UsageError, match="not a readable npz file"):
        load_samples(path, [IMAGE])
    np.savez(path, image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UsageError, match="pickled"):
        load_samples(path, [IMAGE])
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UsageError, match="not an npz file"):
        load_samples(tmp_path / "one.npy", [IMAGE])
    with pytest.raises(UsageError, match="does not exist"):
        load_samples(tmp_path / "nothing.npz", [IMAGE])
    with pytest.raises(UsageError):
        load_samples(tmp_path, [IMAGE])


def test_quantize_checks_its_calibration() -> None:
    model = recurrent()
    with pytest.raises(UsageError, match="needs samples of its inputs"):
        quantize(model, None)
    with pytest.raises(UsageError, match="not inputs of the model: h") as error:
        quantize(model, {"x": np.zeros((3, 6)), "h": np.zeros((3, 16))})
    assert "state inputs are not given" in error.value.hints[0]
