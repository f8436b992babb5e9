# SPDX-License-Identifier: Apache-2.0
"""Float nodes inside integer programs: as ONNX Runtime over many steps, host and board the same bits, by leave only.

The models are written by hand in QDQ form, as recurrences that keep float32 or int16 states are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from command_line import done, edgec
from onnx import TensorProto, helper
from qdq_graph import Graph, ort_run

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model, make_program
from edgec.errors import UnsupportedError, UsageError
from edgec.lower import lower_to_integers
from edgec.lower.definitions import stream_by_definitions
from edgec.model import FLOAT_KEY, Model, StatePair, float_node_names, load_model, save_model, with_float_nodes
from edgec.run import run_artifact
from edgec.target import load_target
from edgec.verify import compare, subject_of_artifact

Arrays = dict[str, np.ndarray]
STEPS = 200
ELEMENTS = {np.dtype(np.float32): TensorProto.FLOAT}


class Recurrence(Graph):
    """A step under construction: float inputs, states with what replaces them, nodes that compute in float."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.states: list[StatePair] = []
        self.floats: list[str] = []

    def floating(self, op: str, *inputs: str, **attrs: object) -> str:
        """A node that computes in float."""
        result = self.op(op, *inputs, **attrs)
        self.floats.append(self.nodes[-1].name)
        return result

    def state(self, *shape: int, reset: float = 0.0) -> str:
        """A float32 state input."""
        name = self._name("state")
        self.inputs[name] = np.full(shape, reset, np.float32)
        return name

    def replace(self, state: str, by: str, reset: float = 0.0) -> None:
        """Let the value `by` be the state of the next step."""
        self.outputs[by] = self.inputs[state].shape
        self.states.append(StatePair(state, by, reset))

    def stored(self, value: str, scale: float, dtype: type[np.signedinteger] = np.int16) -> str:
        """Q and DQ with zero point 0."""
        pair = self.constant(np.float32(scale)), self.constant(dtype(0))
        return self.dequantize(self.op("QuantizeLinear", value, *pair), *pair)

    def dense(self, x: str, k: int, n: int) -> str:
        """A Gemm with int8 weights, quantized."""
        return self.quantize(self.op("Gemm", x, self.weight(k, n, axis=1)))

    def float_output(self, name: str) -> None:
        """Make a value an output as it is."""
        self.outputs[name] = self.values(name).shape

    def model(self, *, listed: bool = True) -> Model:
        model = Model(self.proto(), "island", "0" * 64, tuple(self.states))
        return with_float_nodes(model, self.floats if listed else [])


def running_softmax() -> Recurrence:
    """m' = max(m, s); u' = u exp(m - m') + exp(s - m'); w' = w exp(m - m') + v exp(s - m'); y = w' / u'."""
    g = Recurrence(1)
    x = g.input(1, 12)
    s, v = g.dense(x, 12, 1), g.dense(x, 12, 10)
    m, u, w = g.state(1, 1, reset=-100.0), g.state(1, 1), g.state(1, 10)
    larger = g.floating("Max", m, s)
    kept = g.floating("Exp", g.floating("Sub", m, larger))
    new = g.floating("Exp", g.floating("Sub", s, larger))
    total = g.floating("Add", g.floating("Mul", u, kept), new)
    mixed = g.floating("Add", g.floating("Mul", w, kept), g.floating("Mul", v, new))
    y = g.quantize(g.floating("Div", mixed, total))
    g.output(g.op("Gemm", y, g.weight(10, 5, axis=1)))
    g.replace(m, larger, -100.0)
    g.replace(u, total)
    g.replace(w, mixed)
    return g


def wide_state() -> Recurrence:
    """h' = tanh(0.97 h + x / sqrt(1 + x^2)) with h stored as int16; a float32 output beside an int8 one."""
    g = Recurrence(2)
    x, h = g.input(1, 33), g.state(1, 33)
    known = g.stored(h, 2.0**-14)
    square = g.floating("Mul", x, x)
    size = g.floating("Sqrt", g.floating("Add", square, g.constant(np.float32(1.0))))
    sum_ = g.floating("Add", g.floating("Mul", known, g.constant(np.float32(0.97))), g.floating("Div", x, size))
    bent = g.floating("Tanh", sum_)
    following = g.stored(bent, 2.0**-14)
    g.output(g.op("Gemm", g.stored(following, 1 / 127, np.int8), g.weight(33, 4, axis=1)))
    g.float_output(bent)
    g.replace(h, following)
    return g


def matrix_state(heads: int = 2, d: int = 8) -> Recurrence:
    """S' = g S + k v^T for every head with a gate of its own, y = q S'; k normalized, v through a LayerNorm."""
    g = Recurrence(3)
    x, s = g.input(1, 12), g.state(heads, d, d)
    q, k, v = (g.dense(x, 12, heads * d) for _ in range(3))
    gate = g.quantize(g.op("Sigmoid", g.dense(x, 12, heads)))

    def shaped(value: str, *shape: int) -> str:
        return g.op("Reshape", value, g.constant(np.array(shape, np.int64)))

    # q lies heads innermost: what a float node reads is brought into ONNX order first.
    q = g.op("Transpose", shaped(q, d, heads, 1), perm=[1, 2, 0])
    k = g.floating("Softmax", shaped(k, heads, d), axis=-1)
    k = g.floating("Reshape", k, g.constant(np.array((heads, d, -1), np.int64)))
    ones = g.constant(np.ones(d, np.float32)), g.constant(np.zeros(d, np.float32))
    v = g.floating("LayerNormalization", shaped(v, heads, 1, d), *ones, axis=-1, epsilon=1e-3)
    gate = shaped(gate, heads, 1, 1)
    following = g.floating("Add", g.floating("Mul", s, gate), g.floating("MatMul", k, v))
    g.output(shaped(g.floating("MatMul", q, following), 1, heads * d))
    g.floats.append(g.nodes[-3].name)  # the Reshape of a float value, before its QuantizeLinear
    g.replace(s, following)
    return g


MODELS = {"running softmax": running_softmax, "int16 state": wide_state, "matrix state": matrix_state}


def frames(model: Model, steps: int = STEPS) -> Arrays:
    rng = np.random.default_rng(7)
    return {i.name: rng.uniform(-2, 2, (steps, *i.shape)).astype(np.float32) for i in model.inputs}


def in_onnx_runtime(model: Model, given: Mapping[str, np.ndarray]) -> tuple[Arrays, Arrays]:
    """Outputs of every step, and the states after the last."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.proto.SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    infos = zip(model.states, model.state_inputs, strict=True)
    state = {s.input: np.full(i.shape, s.reset, np.float32) for s, i in infos}
    rows: dict[str, list[np.ndarray]] = {o.name: [] for o in model.outputs}
    for step in range(len(next(iter(given.values())))):
        made = dict(zip(names, session.run(names, {**{n: a[step] for n, a in given.items()}, **state}), strict=True))
        for name, row in rows.items():
            row.append(made[name])
        state = {s.input: made[s.output] for s in model.states}
    return {name: np.stack(row) for name, row in rows.items()}, state


def states_of(artifact: Artifact, data: bytes) -> Arrays:
    """Real values of the states by name."""
    found = {}
    for s in artifact.manifest["states"]:
        size = int(np.prod(s["shape"])) * np.dtype(s["dtype"]).itemsize
        values = np.frombuffer(data[s["offset"] : s["offset"] + size], s["dtype"]).reshape(s["shape"])
        found[s["name"]] = values if s["scale"] is None else (values - np.float32(s["zero_point"])) * s["scale"]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_float_islands_agree_with_onnx_runtime_and_host_with_board(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().model()
    given = frames(model)
    artifact = compile_model(model, load_target("stm32f746"), tmp_path / "out", Options())
    wanted, wanted_state = in_onnx_runtime(model, given)
    kept: dict[str, bytes] = {}
    host, board, again = (
        run_artifact(artifact, given, runner, raw=True, save=lambda state, at=at: kept.update({at: state}))
        for runner, at in (("host-c", "host"), ("sim", "board"), ("host-c", "again"))
    )
    ports = {p["name"]: p for p in artifact.manifest["outputs"]}
    for output, real in wanted.items():
        assert host[output].tobytes() == board[output].tobytes() == again[output].tobytes()
        scale, zero = ports[output]["scale"], ports[output]["zero_point"]
        if scale is None:
            assert host[output].dtype == np.float32
            np.testing.assert_allclose(host[output].reshape(real.shape), real, rtol=0, atol=2e-4)
        else:
            steps = np.rint(real / scale) + zero
            apart = np.abs(host[output].reshape(real.shape) - steps)
            assert apart.max() <= 1, output
            assert (apart > 0).mean() < 0.02
            assert np.ptp(steps) > 20  # and it is no constant
    ends = {at: states_of(artifact, data) for at, data in kept.items()}
    for state, real in ends["host"].items():
        assert real.tobytes() == ends["board"][state].tobytes() == ends["again"][state].tobytes()
        np.testing.assert_allclose(real, wanted_state[state], rtol=1e-4, atol=1e-4)
    kinds = {s["dtype"] for s in artifact.manifest["states"]}
    assert kinds == ({"int16"} if name == "int16 state" else {"float32"})
    assert artifact.manifest["float_nodes"] == list(float_node_names(model.proto))
    assert {o["op"] for o in artifact.manifest["operators"]} >= {"dequantize_f32", "quantize_f32", "linear_s8"}


def test_verify_compares_host_and_board_bit_for_bit_and_numpy_by_distance(tmp_path: Path) -> None:
    model = running_softmax().model()
    compile_model(model, load_target("stm32f746"), tmp_path / "out", Options())
    result = compare(subject_of_artifact(tmp_path / "out"), frames(model, 20))
    assert list(result.raw) == ["host C", "board"]
    assert result.faults() == []
    output = model.outputs[0].name
    step = max(d.largest for form in result.real if form != result.reference for d in [result.distance(form, output)])
    assert 0 <= step < 0.1
    result.raw["board"][output] = result.raw["board"][output] ^ 1
    assert result.faults()


def test_the_definitions_are_those_of_onnx_runtime(tmp_path: Path) -> None:
    model = matrix_state().model()
    given = frames(model, 12)
    program = make_program(model, Options())
    port = program.inputs[0].quantization
    assert port is not None
    integers = {n: np.clip(np.rint(a / port.scale) + port.zero_point, -128, 127) for n, a in given.items()}
    states = {s.name: (s.output, s.reset) for s in program.states}
    rows = list(stream_by_definitions(lower_to_integers(model), states, integers))
    wanted, _ = in_onnx_runtime(model, given)
    (output,) = wanted
    quant = program.outputs[0].quantization
    assert quant is not None
    steps = np.rint(wanted[output] / quant.scale) + quant.zero_point
    assert np.abs(np.stack([r[output] for r in rows]).reshape(steps.shape) - steps).max() <= 1


def test_without_leave_float_nodes_are_refused_one_by_one(tmp_path: Path) -> None:
    g = running_softmax()
    with pytest.raises(UnsupportedError, match="cannot be computed in int8") as caught:
        make_program(g.model(listed=False), Options())
    for name in (g.floats[0], g.floats[3]):
        assert name in str(caught.value)
    assert "--allow-float" in str(caught.value)
    some = with_float_nodes(g.model(), g.floats[1:])  # one of them not
    with pytest.raises(UnsupportedError, match=g.floats[0]):
        make_program(some, Options())


def test_what_is_allowed_is_told_and_written_into_the_copy_of_the_model(tmp_path: Path) -> None:
    g = running_softmax()
    save_model(g.model(listed=False), tmp_path / "m.onnx")
    options = ("compile", tmp_path / "m.onnx", "--target", "stm32f746")
    refused = edgec(*options, "--out", tmp_path / "no")
    assert refused.code == 3
    assert "--allow-float" in refused.err
    told = done(*options, "--allow-float", "--out", tmp_path / "out").out
    assert f"{len(g.floats)} nodes in float32 on the state path" in told
    copy = load_model(tmp_path / "out" / "model.onnx")
    assert json.loads(next(p.value for p in copy.proto.metadata_props if p.key == FLOAT_KEY)) == g.floats
    artifact = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert artifact["float_nodes"] == g.floats
    # What was allowed gives the program that the list gives.
    allowed = make_program(g.model(listed=False), Options(allow_float=True))
    listed = make_program(g.model(), Options())
    assert [(c.name, c.op, c.inputs, c.outputs) for c in allowed.calls] == [
        (c.name, c.op, c.inputs, c.outputs) for c in listed.calls
    ]


@pytest.mark.parametrize("text", ["{", "[1]", '"all"', '{"a": 1}'])
def test_a_list_that_is_none_is_an_error(text: str) -> None:
    model = running_softmax().model(listed=False)
    helper.set_model_props(model.proto, {FLOAT_KEY: text})
    with pytest.raises(UsageError, match=FLOAT_KEY):
        make_program(model, Options())


def _one(build: object) -> tuple[Model, Arrays]:
    g = Recurrence(11)
    build(g)  # type: ignore[operator]
    return Model(g.proto(), "one", "0" * 64), g.inputs


def _check(model: Model, given: Arrays, at_least: set[str], **options: bool) -> None:
    """The program by definitions equals ONNX Runtime: floats nearly, integers to a step."""
    program = make_program(model, Options(allow_float=True))
    wanted = ort_run(model.proto, given)
    feeds = {}
    for port in program.inputs:
        array = given[port.name]
        q = port.quantization
        feeds[port.name] = (array if q is None else np.clip(np.rint(array / q.scale) + q.zero_point, -128, 127))[None]
    lowered = lower_to_integers(model, allow_float=True)
    assert {n.op_type for n in lowered.proto.graph.node} >= at_least
    (made,) = stream_by_definitions(lowered, {}, feeds)
    for port in program.outputs:
        real, q = wanted[port.name], port.quantization
        got = made[port.name].reshape(real.shape)
        if q is None:
            np.testing.assert_allclose(got, real, rtol=1e-4, atol=1e-5)
        else:
            assert np.abs(got - (np.rint(real / q.scale) + q.zero_point)).max() <= 1


def test_a_float_input_may_be_read_as_it_is_and_quantized() -> None:
    def build(g: Recurrence) -> None:
        g.inputs["x"] = g.rng.uniform(-2, 2, (1, 6)).astype(np.float32)
        g.output(g.op("Gemm", g.quantize("x"), g.weight(6, 3)))
        g.float_output(g.op("Sin", "x"))

    _check(*_one(build), {"quantize_f32", "linear_s8", "Sin"})


def test_a_float_value_may_be_read_as_it_is_and_quantized() -> None:
    def build(g: Recurrence) -> None:
        x, y = g.input(1, 6), g.input(1, 6)
        both = g.op("Atan", g.op("Mul", x, y))
        g.float_output(g.op("Sin", both))
        g.output(g.op("Gemm", g.quantize(both), g.weight(6, 3)))

    _check(*_one(build), {"quantize_f32", "dequantize_f32", "linear_s8", "Sin", "Atan"})


def test_an_integer_result_may_be_read_in_float_through_its_dequantization() -> None:
    def build(g: Recurrence) -> None:
        inner = g.quantize(g.op("Gemm", g.input(1, 6), g.weight(6, 5)))
        g.output(g.op("Gemm", inner, g.weight(5, 3)))
        g.float_output(g.op("Sin", inner))
        g.float_output(g.op("Cos", inner))

    model, given = _one(build)
    _check(model, given, {"linear_s8", "dequantize_f32"})
    ops = [n.op_type for n in lower_to_integers(model, allow_float=True).proto.graph.node]
    assert ops.count("dequantize_f32") == 1  # one for both readers


def test_an_elementwise_function_may_have_a_table_and_a_float_reader() -> None:
    def build(g: Recurrence) -> None:
        bent = g.op("Sigmoid", g.op("Neg", g.input(1, 9)))
        g.output(g.op("Gemm", g.quantize(bent), g.weight(9, 3)))
        g.float_output(g.op("Sin", bent))

    _check(*_one(build), {"linear_s8", "Sigmoid", "Sin"})


def test_composite_nodes_come_in_the_form_that_tvm_takes() -> None:
    def build(g: Recurrence) -> None:
        x = g.input(1, 3, 5)
        g.float_output(g.op("CumSum", g.op("Sin", x), g.constant(np.array(1, np.int64))))
        g.float_output(g.op("Pow", g.op("Abs", x), g.constant(np.array(2, np.int64))))
        g.float_output(g.op("MeanVarianceNormalization", g.op("Cos", x), axes=[1, 2]))

    _check(*_one(build), {"dequantize_f32", "CumSum"})


def test_images_are_read_in_onnx_order() -> None:
    """Convolutions compute channels-last; a float node behind one reads what ONNX says."""

    def build(g: Recurrence) -> None:
        image = g.quantize(g.op("Conv", g.input(1, 3, 6, 5), g.weight(4, 3, 3, 3), pads=[1, 1, 1, 1]))
        g.float_output(g.op("Mul", image, g.constant(np.arange(4 * 6 * 5, dtype=np.float32).reshape(1, 4, 6, 5))))

    _check(*_one(build), {"conv2d_s8", "dequantize_f32", "strided_copy_s8"})


def test_a_program_without_state_is_scheduled_around_its_islands(tmp_path: Path) -> None:
    """Images in blocks of rows before and behind a float node, which takes its operands whole."""
    g = Recurrence(12)
    x = g.input(1, 3, 24, 24)
    before = g.quantize(g.op("Conv", x, g.weight(24, 3, 3, 3), pads=[1, 1, 1, 1]))
    before = g.quantize(g.op("Conv", before, g.weight(4, 24, 1, 1), strides=[2, 2]))
    size = g.floating("Sqrt", g.floating("Add", g.floating("Mul", before, before), g.constant(np.float32(1.0))))
    behind = g.quantize(g.floating("Div", before, size))
    behind = g.quantize(g.op("Conv", behind, g.weight(4, 4, 3, 3), pads=[1, 1, 1, 1]))
    g.output(g.op("Gemm", g.op("Flatten", behind), g.weight(4 * 12 * 12, 5, axis=1)))
    model = g.model()
    artifact = compile_model(model, load_target("stm32f746"), tmp_path / "out", Options(optimize="ram"))
    given = frames(model, 5)
    host, board = (run_artifact(artifact, given, runner, raw=True) for runner in ("host-c", "sim"))
    wanted, _ = in_onnx_runtime(model, given)
    (port,) = artifact.outputs
    assert host[port.name].tobytes() == board[port.name].tobytes()
    steps = np.rint(wanted[port.name] / port.scale) + port.zero_point
    assert np.abs(host[port.name].reshape(steps.shape) - steps).max() <= 2  # layers on top of each other
    assert artifact.manifest["plan"]["loops"]
