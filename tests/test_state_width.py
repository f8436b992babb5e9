# SPDX-License-Identifier: Apache-2.0
"""How wide states are: which nodes follow a state, the QDQ form in ONNX Runtime, the choice, host C."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from command_line import done, edgec
from onnx import TensorProto, helper, numpy_helper
from test_quantize import Graph

from edgec.compile import Options, canonical, compile_model
from edgec.errors import UsageError
from edgec.model import FLOAT_KEY, Model, StatePair, save_model
from edgec.models.layers.legendre import legendre_memory
from edgec.quantize import drift_test
from edgec.quantize.calibrate import run_stream
from edgec.quantize.drift import MOST_ERROR, drift_of, measure, repeated
from edgec.quantize.drift_test import test_steps as steps_of_test
from edgec.quantize.options import Recipe, StateWidth
from edgec.quantize.quantize import METADATA_KEY, plan_quantization, quantize
from edgec.quantize.state_regions import Recurrence
from edgec.run import run_artifact
from edgec.target import load_target

Floats = npt.NDArray[np.float32]
STEPS = 240


# --- models: name of the model -> graph, with the samples of its inputs


def smooth(rng: np.random.Generator, *shape: int) -> Floats:
    """[STEPS, *shape] of values in [-1, 1]: three waves each, whose periods go into STEPS."""
    time = np.arange(STEPS).reshape(-1, *(1 for _ in shape))
    turns = np.random.default_rng(7).integers(1, 20, (3, *shape))
    phases = rng.uniform(0, 2 * np.pi, (3, *shape))
    waves = [np.sin(2 * np.pi * n * time / STEPS + p) / 3 for n, p in zip(turns, phases, strict=True)]
    result: Floats = np.sum(waves, axis=0).astype(np.float32)
    return result


def legendre() -> Model:
    """m' = Abar m + Bbar u, read by one layer."""
    g = Graph(1)
    a_bar, b_bar = (t.numpy().astype(np.float32) for t in legendre_memory(12, 40))
    u, m = g.input("u", 1, 1), g.input("m", 1, 12)
    kept = g.op("Gemm", m, g.constant(a_bar), transB=1)
    total = g.op("Add", kept, g.op("Mul", u, g.constant(b_bar)), out="m_next")
    y = g.op("Gemm", total, g.normal(3, 12, scale=0.3), transB=1, out="y")
    return g.model(y, "m_next", states=[StatePair("m", "m_next")])


def leaky(reset: float = 0.0) -> Model:
    """m' = 0.99 m + 0.05 u, eight of them."""
    g = Graph(2)
    u, m = g.input("u", 1, 8), g.input("m", 1, 8)
    kept = g.op("Mul", m, g.constant(np.float32(0.99)))
    total = g.op("Add", kept, g.op("Mul", u, g.constant(np.float32(0.05))), out="m_next")
    y = g.op("Relu", g.op("Gemm", total, g.constant(np.eye(8, dtype=np.float32)), transB=1), out="y")
    return g.model(y, "m_next", states=[StatePair("m", "m_next", reset)])


def gru() -> Model:
    """h' = n + z (h - n), with gates of layers."""
    g = Graph(3)
    x, h = g.input("x", 1, 6), g.input("h", 1, 12)
    z = g.op("Sigmoid", g.op("Add", g.gemm(x, 6, 12), g.gemm(h, 12, 12)))
    n = g.op("Tanh", g.op("Add", g.gemm(x, 6, 12), g.gemm(h, 12, 12)))
    h_next = g.op("Add", n, g.op("Mul", z, g.op("Sub", h, n)), out="h_next")
    return g.model(g.gemm(h_next, 12, 3, out="y"), h_next, states=[StatePair("h", "h_next")])


def running_softmax() -> Model:
    """A softmax over all steps: the largest score, the sum of weights, the weighted sum; y is their quotient."""
    g = Graph(4)
    x = g.input("x", 1, 6)
    m, u, w = g.input("m", 1, 1), g.input("u", 1, 1), g.input("w", 1, 8)
    s, v = g.gemm(x, 6, 1), g.gemm(x, 6, 8)
    m_next = g.op("Max", m, s, out="m_next")
    old, new = g.op("Exp", g.op("Sub", m, m_next)), g.op("Exp", g.op("Sub", s, m_next))
    u_next = g.op("Add", g.op("Mul", u, old), new, out="u_next")
    w_next = g.op("Add", g.op("Mul", w, old), g.op("Mul", v, new), out="w_next")
    g.op("Div", w_next, u_next, out="y")
    pairs = [StatePair("m", "m_next", -4.0), StatePair("u", "u_next"), StatePair("w", "w_next")]
    return g.model("y", "m_next", "u_next", "w_next", states=pairs)


def ring() -> Model:
    """The last five frames, a layer over all of them."""
    g = Graph(5)
    x, past = g.input("x", 1, 4), g.input("past", 1, 5, 4)
    bounds = [g.constant(np.array([v])) for v in (1, 5, 1)]
    moved = g.op("Slice", past, *bounds)
    past_next = g.op("Concat", moved, g.reshape(g.gemm(x, 4, 4), 1, 1, 4), out="past_next", axis=1)
    y = g.gemm(g.reshape(past_next, 1, 20), 20, 3, out="y")
    return g.model(y, "past_next", states=[StatePair("past", "past_next")])


def tokens() -> Model:
    """Whole numbers come in, a leaky state of their embeddings; the old state leaves as an output."""
    g = Graph(6)
    g.inputs.append(helper.make_tensor_value_info("token", TensorProto.INT32, [1]))
    m = g.input("m", 1, 8)
    x = g.op("Gather", g.normal(11, 8), "token", axis=0)
    m_next = g.op("Add", g.op("Mul", m, g.constant(np.float32(0.8))), x, out="m_next")
    g.op("Relu", m, out="y")
    return g.model("y", m_next, states=[StatePair("m", "m_next")])


MODELS: dict[str, Callable[[], Model]] = {f.__name__: f for f in (legendre, leaky, gru, running_softmax, ring, tokens)}


def samples_of(model: Model, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        i.name: smooth(rng, *i.shape) if i.dtype.kind == "f" else rng.integers(0, 11, (STEPS, *i.shape)).astype(i.dtype)
        for i in model.inputs
    }


def quantized(model: Model, width: StateWidth = "auto", **widths: Any) -> Model:
    return quantize(model, samples_of(model), Recipe(state_width=width, state_widths=widths))


def record(model: Model) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next(p.value for p in model.proto.metadata_props if p.key == METADATA_KEY))
    return found


def float_nodes(model: Model) -> list[str]:
    names = json.loads(next((p.value for p in model.proto.metadata_props if p.key == FLOAT_KEY), "[]"))
    by_name = {node.name: node.op_type for node in model.proto.graph.node}
    return [by_name[name] for name in names]


def borders(model: Model, pair: StatePair) -> tuple[tuple[str, float, int] | None, ...]:
    """Type, scale and zero point of the Q that alone reads the state input, and of the DQ that makes the output."""
    graph = model.proto.graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}

    def described(nodes: list[onnx.NodeProto], op: str) -> tuple[str, float, int] | None:
        if len(nodes) != 1 or nodes[0].op_type != op:
            return None
        scale, zero = arrays[nodes[0].input[1]], arrays[nodes[0].input[2]]
        return str(zero.dtype), float(scale), int(zero)

    readers = [n for n in graph.node if pair.input in n.input]
    maker = [n for n in graph.node if pair.output in n.output]
    return described(readers, "QuantizeLinear"), described(maker, "DequantizeLinear")


# --- regions


def ops(model: Model, names: frozenset[str]) -> list[str]:
    return sorted(node.op_type for node in model.proto.graph.node if node.name in names)


@pytest.mark.parametrize(
    ("name", "states", "wide", "floating"),
    [
        ("legendre", ["m"], ["Add", "Gemm", "Mul"], ["Add", "Gemm", "Mul"]),
        ("leaky", ["m"], ["Add", "Mul"], ["Add", "Mul"]),
        ("gru", ["h"], ["Add", "Mul", "Sub"], ["Add", "Mul", "Sigmoid", "Sub"]),
        ("running_softmax", ["m", "u", "w"], [], ["Add", "Add", "Div", "Exp", "Exp", "Max", "Mul", "Mul", "Mul"]),
        ("ring", [], [], []),
        ("tokens", ["m"], ["Add", "Mul"], ["Add", "Mul"]),
    ],
)
def test_which_nodes_follow_a_state(name: str, states: list[str], wide: list[str], floating: list[str]) -> None:
    model = MODELS[name]()
    found = Recurrence(model)
    assert list(found.accumulating()) == states
    integer = found.regions(dict.fromkeys(states, "int16"))
    real = found.regions(dict.fromkeys(states, "float32"))
    assert ops(model, integer.wide) == wide
    assert ops(model, real.wide) == []
    if name == "running_softmax":
        floating = sorted([*floating, "Sub", "Sub"])
        assert ops(model, integer.floating) == floating
    else:
        assert not integer.floating
    assert ops(model, real.floating) == floating


def test_states_that_pass_each_other_on() -> None:
    """a' = b, b' = 0.9 a + x: neither is its own successor, together they are."""
    g = Graph()
    x, a, b = g.input("x", 1, 4), g.input("a", 1, 4), g.input("b", 1, 4)
    g.op("Identity", b, out="a_next")
    g.op("Add", g.op("Mul", a, g.constant(np.float32(0.9))), x, out="b_next")
    g.gemm(b, 4, 2, out="y")
    model = g.model("y", "a_next", "b_next", states=[StatePair("a", "a_next"), StatePair("b", "b_next")])
    assert Recurrence(model).accumulating() == ("a", "b")
    for width in ("int8", "int16", "float32"):
        drift = drift_of(model, quantized(model, width), samples_of(model))
        assert drift.steps == STEPS
        assert drift.worst.error < 0.1
    both = quantized(model, "int8", a="int16", b="float32")
    assert [borders(both, pair) for pair in model.states] == [(borders(both, model.states[0])[0],) * 2, (None, None)]


# --- the QDQ form


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("width", ["int8", "int16", "float32"])
def test_one_scale_in_and_out(name: str, width: StateWidth) -> None:
    model = MODELS[name]()
    written = quantize(
        model, samples_of(model), Recipe(state_width="int8", state_widths=dict.fromkeys(_states(model), width))
    )
    opset = next(o.version for o in written.proto.opset_import if o.domain == "")
    assert opset == (21 if width == "int16" else 20)
    for pair in model.states:
        before, after = borders(written, pair)
        if width == "float32":
            assert before is None
            assert after is None
            continue
        assert before is not None
        assert before == after
        assert before[0] == width
        assert width == "int8" or before[2] == 0
    assert record(written)["states"] == dict.fromkeys(_states(model), width)
    kinds = {t.data_type for t in written.proto.graph.initializer if t.dims}
    assert (TensorProto.INT16 in kinds) == (width == "int16" and name == "legendre")  # weights
    drift = drift_of(model, written, samples_of(model, 1))
    worst = {"int8": 1.0, "int16": 0.05, "float32": 0.05}[width]
    assert drift.worst.error < worst, drift.worst


def _states(model: Model) -> list[str]:
    return [pair.input for pair in model.states]


def test_integer_and_float_regions() -> None:
    assert float_nodes(quantized(legendre(), "int16")) == []
    assert sorted(float_nodes(quantized(legendre(), "float32"))) == ["Add", "Gemm", "Mul"]
    found = float_nodes(quantized(running_softmax(), "int16"))
    assert {"Max", "Exp", "Div"} <= set(found)
    assert "Gemm" not in found
    mixed = quantized(gru(), "int8", h="float32")
    assert sorted(float_nodes(mixed)) == ["Add", "Mul", "Sigmoid", "Sub"]


def test_reset_other_than_zero() -> None:
    """The reset lies in the range of the state, whatever its width, and the stream begins with it."""
    model = leaky(reset=1.5)
    for width in ("int8", "int16", "float32"):
        written = quantized(model, width)
        drift = drift_of(model, written, {"u": np.zeros((1, 1, 8), np.float32)})
        assert drift.states["m_next"].error(0, 1) < 0.01


def test_what_float_reaches_on_to() -> None:
    """A difference of wide values is nothing in int8; a Relu at the end of a sum is integer in int16."""
    g = Graph(7)
    x, m = g.input("x", 1, 8), g.input("m", 1, 8)
    m_next = g.op("Relu", g.op("Add", m, g.op("Mul", x, g.constant(np.float32(0.1)))), out="m_next")
    model = g.model(g.op("Sub", m_next, m, out="y"), "m_next", states=[StatePair("m", "m_next", 0.5)])
    wide, real = quantized(model, "int16"), quantized(model, "float32")
    assert not float_nodes(wide)
    assert sorted(float_nodes(real)) == ["Add", "Relu", "Sub"]
    errors = [drift_of(model, q, samples_of(model)).worst.error for q in (quantized(model, "int8"), wide, real)]
    assert errors[0] > 0.05 > 0.01 > max(errors[1:])


def test_spikes_of_a_float_potential() -> None:
    """v' = 0 where v + x reaches the threshold, and a spike that layers read: truth of float is made where float is."""
    g = Graph(9)
    x, v = g.input("x", 1, 8), g.input("v", 1, 8)
    total = g.op("Add", v, g.gemm(x, 8, 8))
    fires = g.op("GreaterOrEqual", total, g.constant(np.float32(1.0)))
    decayed = g.op("Mul", total, g.constant(np.float32(0.9)))
    g.op("Where", fires, g.constant(np.float32(0.0)), decayed, out="v_next")
    spikes = g.op("Cast", fires, to=TensorProto.FLOAT)
    model = g.model(g.gemm(spikes, 8, 3, out="y"), "v_next", states=[StatePair("v", "v_next")])
    assert Recurrence(model).accumulating() == ("v",)
    for width in ("int16", "float32"):
        written = quantized(model, width)
        assert sorted(float_nodes(written)) == ["Add", "Cast", "GreaterOrEqual", "Mul", "Where"]
        assert drift_of(model, written, samples_of(model)).outputs["y"].agreement(0, STEPS) > 0.9  # type: ignore[operator]


def test_state_that_nobody_reads() -> None:
    g = Graph()
    x = g.input("x", 1, 4)
    g.input("s", 1, 4)
    g.op("Relu", x, out="y")
    model = g.model("y", g.op("Tanh", x, out="s_next"), states=[StatePair("s", "s_next")])
    before, after = borders(quantized(model), model.states[0])
    assert before == after == ("int8", 1 / 128, 0)


# --- the choice


def test_steps() -> None:
    model = leaky()
    assert [steps_of_test(model, n) for n in (1, 5, 240, 400, 900, 5000)] == [1000, 1000, 1200, 1200, 2700, 6000]


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("legendre", {"m": "int16"}),
        ("leaky", {"m": "int16"}),
        ("ring", {"past": "int8"}),
        ("tokens", {"m": "int8"}),
    ],
)
def test_the_narrowest_that_passes(name: str, states: Mapping[str, str]) -> None:
    model = MODELS[name]()
    chosen = quantized(model)
    assert record(chosen)["states"] == states
    narrow = quantized(model, "int8")
    if set(states.values()) == {"int8"}:
        assert drift_of(model, chosen, samples_of(model), 3 * STEPS).passes
        assert _without_metadata(chosen) == _without_metadata(narrow), "what passes stays as it is"
    else:
        others = samples_of(model, 9)  # which the choice has not seen
        assert drift_of(model, chosen, others, 3 * STEPS).worst.error <= MOST_ERROR
        drift = drift_of(model, narrow, others, 3 * STEPS)
        assert not drift.passes
        assert drift.worst.error > 2 * MOST_ERROR
        assert any("int8 drifts" in note for note in chosen.notes), chosen.notes


def test_running_softmax_is_wider_than_int8() -> None:
    model = running_softmax()
    chosen = quantized(model)
    found = record(chosen)
    assert found["drift"]["passes"]
    assert found["states"] == {"m": "int8", "u": "float32", "w": "float32"}  # u and w grow on and on
    assert {"Mul", "Add", "Div"} <= set(float_nodes(chosen))
    assert not drift_of(model, quantized(model, "int8"), samples_of(model), 3 * STEPS).passes


def test_sum_without_end_needs_float() -> None:
    """What only grows leaves every range that calibration saw: the stream is repeated, so that the test sees it."""
    g = Graph()
    x, s, n = g.input("x", 1, 4), g.input("s", 1, 4), g.input("n", 1, 1)
    s_next = g.op("Add", s, g.op("Relu", x), out="s_next")
    n_next = g.op("Add", n, g.constant(np.ones((1, 1), np.float32)), out="n_next")
    g.op("Div", s_next, n_next, out="mean")
    pairs = [StatePair("s", "s_next"), StatePair("n", "n_next")]
    model = g.model("mean", "s_next", "n_next", states=pairs)
    chosen = quantized(model)
    assert record(chosen)["states"] == {"s": "float32", "n": "float32"}
    assert drift_of(model, chosen, samples_of(model), 3000).worst.error < 0.01


def test_what_hardly_passes_becomes_wider() -> None:
    """On a stream that the choice has not seen the error may be larger: a share of the limit is kept free."""
    model, others = gru(), samples_of(gru(), 9)
    narrow, chosen = quantized(model, "int8"), quantized(model)
    error = drift_of(model, narrow, samples_of(model), 3 * STEPS).worst.error
    assert 0.8 * MOST_ERROR < error < MOST_ERROR
    assert record(chosen)["states"] == {"h": "int16"}
    assert drift_of(model, chosen, others, 3 * STEPS).worst.error < MOST_ERROR
    assert drift_of(model, narrow, others, 3 * STEPS).worst.error > MOST_ERROR


def test_a_width_without_integer_form_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiles(model: Model) -> bool:
        return TensorProto.INT16 not in {t.data_type for t in model.proto.graph.initializer}

    monkeypatch.setattr(drift_test, "_compiles", compiles)
    assert record(quantized(leaky()))["states"] == {"m": "float32"}


def test_overrides() -> None:
    model = gru()
    assert record(quantized(model, "auto", h_next="int16"))["states"] == {"h": "int16"}
    assert record(quantized(model, "int8", h="int16")).get("drift") is None, "nothing is left to choose"
    with pytest.raises(UsageError, match="no such state"):
        quantized(model, "auto", c="int16")
    with pytest.raises(UsageError, match="width of states"):
        Recipe(state_width="int4")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="width of state h"):
        Recipe(state_widths={"h": "auto"})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="width of layers"):
        Recipe(layer_width="int4")  # type: ignore[arg-type]
    decision = plan_quantization(canonical(ring()), samples_of(ring()), Recipe(state_widths={"past": "int16"}))
    assert decision.notes == ["state past: int16, as asked"]


def test_models_without_state_are_not_tested() -> None:
    g = Graph()
    model = g.model(g.gemm(g.input("x", 1, 6), 6, 3, out="y"))
    assert "states" not in record(quantized(model))
    assert not quantized(model).notes


def test_command_line(tmp_path: Path) -> None:
    model = leaky()
    save_model(model, tmp_path / "leaky.onnx")
    np.savez(tmp_path / "c.npz", **samples_of(model))
    common = ("quantize", tmp_path / "leaky.onnx", "--calibration", tmp_path / "c.npz", "--out", tmp_path / "q.onnx")
    assert "state m: int16 (int8 drifts: top-1" in done(*common, "--state-width", "auto").out
    one = done(*common, "--state-width", "int8", "--state-width", "m=float32").out
    assert "state m: float32, as asked" in one
    assert edgec(*common, "--state-width", "k=int16").code == UsageError.exit_code


def _without_metadata(model: Model) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto)
    del copy.metadata_props[:]
    return copy.SerializeToString(deterministic=True)


# --- on the device's program


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("legendre", "int16"),
        ("running_softmax", "int16"),
        pytest.param("leaky", "int16", marks=pytest.mark.slow),
        pytest.param("gru", "int16", marks=pytest.mark.slow),
        pytest.param("leaky", "float32", marks=pytest.mark.slow),
    ],
)
def test_host_c_is_close_to_the_file(name: str, width: StateWidth, tmp_path: Path) -> None:
    model = MODELS[name]()
    options = Options(calibration=samples_of(model), recipe=Recipe(state_width=width))
    artifact = compile_model(model, load_target("stm32f746"), tmp_path / "out", options)
    widths = {state["name"]: state["dtype"] for state in artifact.manifest["states"]}
    assert widths == dict.fromkeys(_states(model), width)
    stream = repeated(samples_of(model, 2), 2 * STEPS)
    host = run_artifact(artifact, stream, "host-c")
    wanted = list(run_stream(quantized(model, width), stream))
    rows = ({"y": row} for row in host["y"])
    trace = measure(iter(wanted), {"host": rows})["host"].outputs["y"]
    assert trace.error(0, 2 * STEPS) < 0.02
    if name in ("leaky", "gru"):
        few = {n: a[:20] for n, a in stream.items()}
        for output, raw in run_artifact(artifact, few, "host-c", raw=True).items():
            np.testing.assert_array_equal(run_artifact(artifact, few, "sim", raw=True)[output], raw)
