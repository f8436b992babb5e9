# SPDX-License-Identifier: Apache-2.0
"""Calibration methods, bias correction, equalization and the report, each against NumPy or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import done, edgec
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from test_quantize import Graph, Qdq, cosine, run, samples_for, vit

from edgec.errors import UsageError
from edgec.model import Model, save_model
from edgec.passes.canonicalize import canonicalize
from edgec.quantize.calibrate import ValueStatistics
from edgec.quantize.equalize import equalize, factors, sites
from edgec.quantize.fidelity import decibels, noise_of
from edgec.quantize.groups import Grouping
from edgec.quantize.options import Recipe
from edgec.quantize.plan import Plan, make_plan
from edgec.quantize.quantize import plan_quantization, quantize
from edgec.quantize.report import diagnose, headline, render
from edgec.quantize.scheme import activation_params, rounded

# --- ranges


def statistics_of(values: np.ndarray) -> ValueStatistics:
    statistics = ValueStatistics()
    statistics.update(values)
    return statistics


def squared_error(values: np.ndarray, ends: tuple[float, float], symmetric: bool) -> float:
    return float(np.mean((rounded(values, activation_params(*ends, symmetric=symmetric)) - values) ** 2))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shape", ["heavy tails", "one outlier", "positive", "uniform"])
def test_mse_has_no_larger_error_than_any_other_method(shape: str, symmetric: bool) -> None:
    rng = np.random.default_rng(0)
    values = {
        "heavy tails": rng.standard_t(3, 50_000),
        "one outlier": np.append(rng.standard_normal(50_000), 60.0),
        "positive": np.maximum(rng.standard_normal(50_000), 0) ** 2,
        "uniform": rng.uniform(-3, 5, 50_000),
    }[shape]
    statistics = statistics_of(values)
    best = squared_error(values, statistics.range("mse", symmetric=symmetric), symmetric)
    for method, percentile in (("minmax", 100.0), ("percentile", 99.99), ("percentile", 99.0), ("entropy", 100.0)):
        ends = statistics.range(method, percentile, symmetric=symmetric)
        assert best <= 1.03 * squared_error(values, ends, symmetric), (method, percentile)


def test_entropy_gives_up_an_outlier_but_no_part_of_an_even_spread() -> None:
    rng = np.random.default_rng(1)
    spread = np.append(rng.standard_normal(100_000), 100.0)
    low, high = statistics_of(spread).range("entropy")
    assert high < 50
    assert -6 < low < -1
    even = rng.uniform(0, 1, 100_000)
    assert statistics_of(even).range("entropy")[1] > 0.95
    rectified = np.maximum(rng.uniform(-1, 1, 100_000), 0)  # half of it exactly zero, which costs nothing
    assert statistics_of(rectified).range("entropy")[1] > 0.95


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    st.sampled_from(["percentile", "mse", "entropy"]),
    st.booleans(),
)
def test_no_method_leaves_what_was_seen(values: list[float], method: str, symmetric: bool) -> None:
    low, high = statistics_of(np.array(values)).range(method, symmetric=symmetric)
    assert min(values) <= max(low, min(values))
    assert min(*values, 0.0) <= low <= max(high, 0.0) + 1e-6
    assert high <= max(*values, 0.0)


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_every_method_quantizes_a_vit(method: str) -> None:
    model = vit(depth=1)
    test = samples_for(model, 32, seed=2)
    quantized = quantize(model, samples_for(model, 16), method=method)
    assert cosine(run(quantized, test)["logits"], run(model, test)["logits"]) > 0.98


# --- convolutions


def convolutional(*, groups: int = 1, transposed: bool = False) -> Model:
    g = Graph(5)
    x = g.op("Conv", g.input("x", 1, 4, 8, 6), g.normal(8, 4, 3, 3, scale=0.2), g.normal(8), pads=[1, 1, 1, 1])
    x = g.op("Relu", x)
    x = g.op("Relu", g.op("Conv", x, g.normal(8, 1, 3, 3, scale=0.4), g.normal(8, scale=0.1), group=8))
    x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    kind, shape = ("ConvTranspose", (8, 6 // groups, 2, 2)) if transposed else ("Conv", (6, 8 // groups, 1, 1))
    x = g.op(kind, x, g.normal(*shape, scale=0.3), g.normal(6, scale=0.1), group=groups)
    return g.model(g.op("GlobalAveragePool", x, out="y"))


@pytest.mark.parametrize(("groups", "transposed"), [(1, False), (2, False), (1, True), (2, True)])
def test_convolutions_are_quantized_per_channel_and_stay_close(groups: int, transposed: bool) -> None:
    model = convolutional(groups=groups, transposed=transposed)
    test = samples_for(model, 24)
    for optimize in (False, True):
        quantized = quantize(model, test)
        assert cosine(run(quantized, test, optimize=optimize)["y"], run(model, test)["y"]) > 0.998
    q = Qdq(quantized)
    for node in (*q.nodes("Conv"), *q.nodes("ConvTranspose")):
        weight, bias = q.producer[node.input[1]], q.producer[node.input[2]]
        axis = 1 if node.op_type == "ConvTranspose" else 0
        w, scale = q.init[weight.input[0]], q.init[weight.input[1]]
        assert weight.attribute[0].i == axis
        assert scale.shape == (w.shape[axis],)
        np.testing.assert_array_equal(np.abs(w).max(axis=tuple(i for i in range(4) if i != axis)), 127)
        step = np.float32(q.params(node.input[0])[0])
        wanted = np.tile(step * scale, groups if axis else 1)
        np.testing.assert_array_equal(q.init[bias.input[1]], wanted)


def test_a_maximum_and_what_it_reads_have_the_same_parameters() -> None:
    model = convolutional()
    q = Qdq(quantize(model, samples_for(model, 4)))
    (pool,) = q.nodes("MaxPool")
    assert q.params(pool.input[0]) == q.params(pool.output[0])


# --- bias correction


def test_bias_correction_makes_the_mean_of_each_channel_that_of_float() -> None:
    """The layer's own product, in NumPy from the written integers, before its result is rounded."""
    g = Graph(4)
    rng = np.random.default_rng(0)
    weight = g.constant(rng.standard_normal((6, 16)).astype(np.float32) ** 3)
    model = g.model(g.op("Gemm", g.input("x", 5, 16), weight, g.normal(6), transB=1, out="y"))
    samples = {"x": np.abs(rng.standard_normal((40, 5, 16))).astype(np.float32)}  # a mean far from zero
    want = run(model, samples)["y"].mean(axis=(0, 1))
    errors = {}
    for corrected in (False, True):
        q = Qdq(quantize(model, samples, Recipe(bias_correction=corrected, equalize="off")))
        (gemm,) = q.nodes("Gemm")
        real = {}
        for i in (1, 2):
            array, scale, _ = (q.init[n].astype(np.float64) for n in q.producer[gemm.input[i]].input)
            real[i] = array * (scale[:, None] if i == 1 else scale)
        scale, zero = q.params(gemm.input[0])
        x = (np.clip(np.rint(samples["x"] / np.float32(scale)) + zero, -128, 127) - zero) * scale
        errors[corrected] = np.abs((x @ real[1].T + real[2]).mean(axis=(0, 1)) - want).max()
    assert errors[True] < 0.51 * q.init[q.producer[gemm.input[2]].input[1]].max()  # the integer bias's own rounding
    assert errors[True] < errors[False] / 5


# --- equalization


def gemm_chain() -> Model:
    g = Graph(6)
    x = g.op("Relu", g.gemm(g.input("x", 5, 8), 8, 12))
    x = g.op("LeakyRelu", g.gemm(x, 12, 10), alpha=0.1)
    return g.model(g.gemm(g.gemm(x, 10, 7), 7, 4, out="y"))


def normalized_chain() -> Model:
    g = Graph(7)
    x = g.op("LayerNormalization", g.input("x", 1, 5, 8), g.normal(8), g.normal(8), axis=-1)
    flat = g.reshape(x, 5, 8)
    parts = [g.gemm(flat, 8, 6) for _ in range(3)]
    total = g.op("Add", g.op("Mul", parts[0], parts[1]), parts[2])
    return g.model(g.gemm(g.op("LayerNormalization", total, g.normal(6), axis=-1), 6, 4, out="y"))


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (gemm_chain, 3),
        (normalized_chain, 2),
        (convolutional, 2),
        (lambda: convolutional(groups=2), 2),
        (lambda: convolutional(groups=2, transposed=True), 2),
        (lambda: vit(depth=1), 2),
    ],
)
def test_equalization_changes_nothing_in_float(make: Callable[[], Model], count: int) -> None:
    model = unbalanced(make())
    assert len(sites(model, Grouping(model))) == count
    samples = samples_for(model, 6)
    changed = equalize(model, samples)
    before = {t.name: numpy_helper.to_array(t) for t in model.proto.graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in changed.proto.graph.initializer}
    assert sum(not np.array_equal(before[n], after[n]) for n in before) >= 2 * count
    for name, want in run(model, samples).items():
        np.testing.assert_allclose(run(changed, samples)[name], want, atol=1e-5 * np.abs(want).max(), rtol=0)


def test_a_pointwise_convolution_that_became_a_gemm_is_reached_through_the_movement_around_it() -> None:
    g = Graph(9)
    x = g.op("Relu", g.op("Conv", g.input("x", 1, 4, 8, 6), g.normal(8, 4, 3, 3, scale=0.2), g.normal(8)))
    x = g.op("Relu", g.op("Conv", x, g.normal(12, 8, 1, 1, scale=0.3), g.normal(12)))
    x = g.op("ReduceMean", x, g.constant(np.array([2, 3])), keepdims=0)
    model = canonicalize(unbalanced(g.model(g.op("Gemm", x, g.normal(5, 12), g.normal(5), transB=1, out="y"))))
    assert [n.op_type for n in model.proto.graph.node].count("Gemm") == 2
    assert len(sites(model, Grouping(model))) == 2
    samples = samples_for(model, 4)
    want = run(model, samples)["y"]
    got = run(equalize(model, samples), samples)["y"]
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max(), rtol=0)


def unbalanced(model: Model) -> Model:
    """The model with every weight's rows of very different size."""
    rng = np.random.default_rng(8)
    for tensor in model.proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim in (2, 4) and array.dtype == np.float32:
            spread = 10.0 ** rng.uniform(-0.7, 0.7, (len(array), *[1] * (array.ndim - 1)))
            tensor.CopyFrom(numpy_helper.from_array((array * spread).astype(np.float32), tensor.name))
    return model


def test_values_that_others_see_and_bounded_functions_are_not_equalized() -> None:
    g = Graph()
    shown = g.op("Relu", g.gemm(g.input("x", 4, 8), 8, 8), out="shown")
    clipped = g.op("Clip", g.gemm(shown, 8, 8), g.constant(np.float32(0)), g.constant(np.float32(6)))
    both = g.op("Relu", g.gemm(clipped, 8, 8))
    curved = g.op("Gelu", g.gemm(both, 8, 8))
    model = g.model(shown, g.op("Add", g.gemm(curved, 8, 8), both, out="y"))
    assert sites(model, Grouping(model)) == []
    assert equalize(model, samples_for(model, 2)) is model


def test_tied_weights_are_not_equalized() -> None:
    g = Graph()
    weight, bias = g.normal(8, 8), g.normal(8)
    x = g.op("Relu", g.op("Gemm", g.input("x", 4, 8), weight, bias, transB=1))
    model = g.model(g.op("Gemm", x, weight, bias, transB=1, out="y"))
    assert sites(model, Grouping(model)) == []


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=20), st.booleans())
def test_factors_are_positive_and_even_out(pairs: list[tuple[float, float]], free: bool) -> None:
    activation, weight = (np.array(v) for v in zip(*pairs, strict=True))
    s = factors(activation, weight, free=free)
    assert (s > 0).all()
    live = (activation > 0) & (weight > 0)
    assert (s[~live] == 1).all()
    if live.sum() > 1 and free and activation[live].max() < 4000 * activation[live].min():
        even = activation[live] / s[live]
        assert even.max() / even.min() < 1.001


# --- the report


def with_outlier(kind: str) -> Model:
    """A model with one channel 200 times the others, which the next layer takes back."""
    g, d, out = Graph(1), 16, 5
    x = g.input("x", 4, d)
    second = g.rng.standard_normal((d, d)).astype(np.float32) / 4
    second[:, out] /= 200
    if kind == "norm":
        gain = np.ones(d, np.float32)
        gain[out] = 200
        y = g.op("LayerNormalization", x, g.constant(gain), g.normal(d, scale=0.1), axis=-1, out="loud")
    elif kind == "gemm":
        first = g.rng.standard_normal((d, d)).astype(np.float32) / 4
        first[out] *= 200
        y = g.op("Gemm", x, g.constant(first), g.normal(d, scale=0.1), transB=1)
        y = g.op("Relu", y, out="loud")
    else:
        first = g.rng.standard_normal((d, 4, 3, 3)).astype(np.float32) / 4
        first[out] *= 200
        g.inputs.clear()
        second = np.repeat(second[:, :, None, None], 2, axis=3)
        y = g.op("Conv", g.input("x", 1, 4, 6, 6), g.constant(first), g.normal(d, scale=0.1))
        y = g.op("Relu", y, out="loud")
        g.op("Conv", y, g.constant(second), g.normal(d, scale=0.1), out="mixed")
        return g.model(g.op("GlobalAveragePool", "mixed", out="y"))
    y = g.op("Tanh", g.op("Gemm", y, g.constant(second), g.normal(d, scale=0.1), transB=1))
    return g.model(g.gemm(y, d, 4, out="y"))


@pytest.mark.parametrize("kind", ["gemm", "norm", "conv"])
def test_one_outlier_channel_is_named_by_the_first_line_and_repaired_by_equalization(kind: str, tmp_path: Path) -> None:
    model = with_outlier(kind)
    save_model(model, tmp_path / "m.onnx")
    samples = samples_for(model, 32)
    np.savez(tmp_path / "c.npz", **samples)
    given = (tmp_path / "m.onnx", "--calibration", tmp_path / "c.npz", "--report")
    first, header, *table = done("quantize", *given, "--equalize", "off").out.splitlines()
    culprit = next(n.name for n in model.proto.graph.node if "loud" in n.input)
    assert culprit in first
    assert "operand loud: channel 5 of axis 1" in first
    assert first.endswith("try --equalize on")
    assert header.split()[:2] == ["node", "operator"]
    assert table[0].startswith(culprit)
    repaired = done("quantize", *given, "--out", tmp_path / "q.onnx").out  # auto does it unasked
    assert "loud: channel" not in repaired.splitlines()[0]
    want = run(model, samples)["y"]
    got = {}
    for choice in ("off", "on", "auto"):
        quantized = quantize(model, samples, Recipe(equalize=choice))
        got[choice] = cosine(run(quantized, samples)["y"], want)
    assert got["off"] < 0.97
    assert got["on"] > 0.999
    assert got["auto"] == got["on"]


def test_the_report_is_sorted_and_agrees_with_onnx_runtime() -> None:
    model = vit(depth=1)
    samples = samples_for(model, 16)
    decision = plan_quantization(model, samples, Recipe())
    rows = diagnose(decision.plan, samples)
    assert [r.own_db for r in rows] == sorted(r.own_db for r in rows)
    last = next(r for r in rows if r.node == model.proto.graph.node[-1].name)
    want, got = run(model, samples)["logits"], run(quantize(model, samples), samples)["logits"]
    assert last.total_db == pytest.approx(decibels(noise_of(got, want)), abs=1e-6)
    assert last.cosine == pytest.approx(cosine(got, want), abs=1e-9)
    assert len(render(rows).splitlines()) == 2 + len(rows)
    assert rows[0].node in headline(rows)
    computing = [n.name for n in model.proto.graph.node if n.op_type not in ("Reshape", "Transpose", "Mul")]
    assert sorted(r.node for r in rows) == sorted(computing)


def test_one_operator_alone_has_its_own_noise() -> None:
    g = Graph()
    model = g.model(g.gemm(g.input("x", 4, 8), 8, 6, out="y"))
    samples = samples_for(model, 16)
    (row,) = diagnose(single_plan(model, samples), samples)
    assert row.own_db == pytest.approx(row.total_db, abs=0.05)
    assert row.own_db > 30
    assert row.culprit in ("x", "weights", "result")


def single_plan(model: Model, samples: dict[str, np.ndarray]) -> Plan:
    return make_plan(model, samples, "minmax", 100.0)


def test_a_cut_range_is_named_with_its_remedy() -> None:
    g = Graph()
    model = g.model(g.op("Gelu", g.gemm(g.input("x", 4, 8), 8, 6), out="y"))
    samples = samples_for(model, 16)
    samples["x"][0, 0, 0] = 500.0
    decision = plan_quantization(model, samples, Recipe(method="percentile", percentile=98.0))
    (worst, *_) = diagnose(decision.plan, samples)
    assert "cut at" in worst.why or "reaches 500" in worst.why
    assert worst.remedy


def test_report_as_json_and_its_errors(tmp_path: Path) -> None:
    model = with_outlier("gemm")
    save_model(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", **samples_for(model, 8))
    given = (tmp_path / "m.onnx", "--calibration", tmp_path / "c.npz")
    answer = done("quantize", *given, "--report", "--json", "--equalize", "off").json
    assert answer["report"][0]["remedy"] == "--equalize on"
    assert {"node", "op_type", "own_db", "total_db", "cosine", "culprit", "why", "remedy"} == set(answer["report"][0])
    assert answer["onnx"] is None
    assert "--out FILE" in edgec("quantize", *given).err
    done("quantize", *given, "--out", tmp_path / "q.onnx")
    again = edgec("quantize", tmp_path / "q.onnx", "--report")
    assert again.code == 2
    assert "float model" in again.err
    assert edgec("quantize", tmp_path / "m.onnx", "--report").code == 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"method": "best"}, "minmax or percentile or mse or entropy"),
        ({"equalize": "maybe"}, "auto or on or off"),
        ({"percentile": 10.0}, "above 50"),
        ({"max_loss": -1.0}, ">= 0"),
        ({"max_loss": float("nan")}, ">= 0"),
        ({"labels": np.zeros(3)}, None),
    ],
)
def test_a_wrong_recipe_says_what_is_right(wrong: dict[str, object], says: str | None) -> None:
    with pytest.raises(UsageError) as error:
        Recipe(**wrong)
    assert says is None or says in (error.value.need or "")
