# SPDX-License-Identifier: Apache-2.0
"""State that persists between runs: streams equal the oracle bit for bit, reset, independence, copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model, make_program
from edgec.errors import UnsupportedError
from edgec.model import Model, StatePair
from edgec.operators.integer import quantize_real
from edgec.program import Program, evaluate
from edgec.quantize.calibrate import run_stream
from edgec.run import open_artifact, run_artifact
from edgec.target import load_target

STEPS = 60


def _weights(rng: np.random.Generator, rows: int, columns: int, gain: float = 0.6) -> np.ndarray[Any, Any]:
    return (rng.normal(0, gain / np.sqrt(columns), (rows, columns))).astype(np.float32)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, int],
    outputs: dict[str, int],
    constants: dict[str, np.ndarray[Any, Any]],
    states: tuple[StatePair, ...],
) -> Model:
    def infos(sizes: dict[str, int]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, d]) for n, d in sizes.items()]

    initializers = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "stream", infos(inputs), infos(outputs), initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    return Model(proto, "stream", "0" * 64, states)


def two_states(reset: float = 0.0) -> Model:
    """u = ex x + eh h; m' = m + A m + B u; h' = tanh(wx x + wm m' + wh h); y = out h' (x 5, h 7, m 6, y 3)."""
    rng = np.random.default_rng(3)
    x, h, m, y = 5, 7, 6, 3
    decay = (-np.diag(rng.uniform(0.1, 0.6, m))).astype(np.float32)
    constants = {
        "ex": _weights(rng, 1, x), "eh": _weights(rng, 1, h), "A": decay, "B": _weights(rng, m, 1),
        "wx": _weights(rng, h, x), "wm": _weights(rng, h, m), "wh": _weights(rng, h, h), "out": _weights(rng, y, h),
    }  # fmt: skip
    products = [("x", "ex"), ("h", "eh"), ("m", "A"), ("u", "B"), ("x", "wx"), ("m2", "wm"), ("h", "wh")]
    nodes = [helper.make_node("Gemm", [a, w], [f"{a}_{w}"], f"{a}@{w}", transB=1) for a, w in products]
    sums = [
        ("x_ex", "h_eh", "u"),
        ("m", "m_A", "mA"),
        ("mA", "u_B", "m2"),
        ("x_wx", "m2_wm", "s"),
        ("s", "h_wh", "t"),
    ]
    nodes += [helper.make_node("Add", [a, b], [o], f"{a}+{b}") for a, b, o in sums]
    nodes += [
        helper.make_node("Tanh", ["t"], ["h2"], "tanh"),
        helper.make_node("Gemm", ["h2", "out"], ["y"], "h2@out", transB=1),
    ]
    order = ["x_ex", "h_eh", "u", "m_A", "mA", "u_B", "m2", "x_wx", "m2_wm", "s", "h_wh", "t", "h2", "y"]
    nodes.sort(key=lambda n: order.index(n.output[0]))
    states = (StatePair("h", "h2", reset), StatePair("m", "m2", 0.0))
    return _model(nodes, {"x": x, "h": h, "m": m}, {"y": y, "h2": h, "m2": m}, constants, states)


def read_after_write() -> Model:
    """h' = tanh(w h + x); y = h + h': the old state is read after its successor exists, so it must be copied."""
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("Gemm", ["h", "w"], ["hw"], "h@w", transB=1),
        helper.make_node("Add", ["hw", "x"], ["s"], "sum"),
        helper.make_node("Tanh", ["s"], ["h2"], "tanh"),
        helper.make_node("Add", ["h", "h2"], ["y"], "mix"),
    ]
    return _model(nodes, {"x": 9, "h": 9}, {"y": 9, "h2": 9}, {"w": _weights(rng, 9, 9)}, (StatePair("h", "h2"),))


def _samples(model: Model, seed: int = 0, steps: int = STEPS) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {i.name: rng.normal(0, 1, (steps, *i.shape)).astype(np.float32) for i in model.inputs}


def _oracle(program: Program, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Outputs of a stream by the operators' NumPy definitions."""
    types = {s.source: program.tensors[s.source].type for s in program.states}
    state = {s.source: np.full(types[s.source].shape, s.reset, types[s.source].dtype) for s in program.states}
    port, results = program.inputs[0], []
    assert port.quantization is not None
    for sample in x:
        given = {port.tensor: quantize_real(sample, port.quantization.scale, port.quantization.zero_point)}
        values = evaluate(program, {**state, **given})
        results.append(values[program.outputs[0].tensor])
        state = {s.source: values[s.result].reshape(state[s.source].shape) for s in program.states}
    return np.array(results)


def _compiled(model: Model, folder: Path, target: str = "stm32f746") -> Artifact:
    return compile_model(model, load_target(target), folder / target, Options(calibration=_samples(model, seed=1)))


@pytest.mark.parametrize("make", [two_states, read_after_write])
def test_stream_is_the_oracles_on_host_and_board(make: Any, tmp_path: Path) -> None:
    model = make()
    program = make_program(model, Options(calibration=_samples(model, seed=1)))
    artifact = _compiled(model, tmp_path)
    x = _samples(model)
    wanted = _oracle(program, x["x"])
    for runner in ("host-c", "sim"):
        got = run_artifact(artifact, x, runner, raw=True)["y"]
        np.testing.assert_array_equal(got.reshape(wanted.shape), wanted, err_msg=runner)


def test_stream_follows_the_float_model(tmp_path: Path) -> None:
    model = two_states()
    x = _samples(model, steps=200)
    wanted = np.array([step["y"] for step in run_stream(model, x)]).reshape(200, -1)
    # Calibrated on this very stream: a state beyond its range would be cut, whatever the arithmetic.
    artifact = compile_model(model, load_target("host-c"), tmp_path / "host-c", Options(calibration=x))
    got = run_artifact(artifact, x)["y"].reshape(wanted.shape)
    cosine = float((got * wanted).sum() / (np.linalg.norm(got) * np.linalg.norm(wanted)))
    assert cosine >= 0.999


def test_states_are_in_place_where_order_allows_and_copied_where_not() -> None:
    for make, in_place in ((two_states, True), (read_after_write, False)):
        model = make()
        program = make_program(model, Options(calibration=_samples(model)))
        assert [s.in_place for s in program.states] == [in_place] * len(program.states)
        assert (program.calls[-1].name == "h2 -> h") is not in_place


def test_reset_begins_the_stream_anew(tmp_path: Path) -> None:
    model = two_states(reset=0.25)
    artifact = _compiled(model, tmp_path)
    program = make_program(model, Options(calibration=_samples(model, seed=1)))
    x = _samples(model, steps=10)
    port = program.inputs[0]
    assert port.quantization is not None
    feeds = [quantize_real(s, port.quantization.scale, port.quantization.zero_point).tobytes() for s in x["x"]]
    for runner in ("host-c", "sim"):
        with open_artifact(artifact, runner) as device:
            device.reset()
            first = [device.run([f])[0] for f in feeds]
            assert [device.run([f])[0] for f in feeds] != first
            device.reset()
            assert [device.run([f])[0] for f in feeds] == first
    np.testing.assert_array_equal(np.frombuffer(b"".join(first), np.int8), _oracle(program, x["x"]).ravel())


def test_two_streams_do_not_touch_each_other(tmp_path: Path) -> None:
    artifact = _compiled(two_states(), tmp_path)
    rng = np.random.default_rng(9)
    streams = rng.integers(-128, 128, (2, 30, 5)).astype(np.int8)

    def alone(stream: np.ndarray[Any, Any]) -> list[bytes]:
        with open_artifact(artifact, "host-c") as device:
            return [device.run([s.tobytes()])[0] for s in stream]

    wanted = [alone(s) for s in streams]
    with open_artifact(artifact, "host-c") as a, open_artifact(artifact, "sim") as b:
        mixed = [(a.run([s.tobytes()])[0], b.run([t.tobytes()])[0]) for s, t in zip(*streams, strict=True)]
    assert [m[0] for m in mixed] == wanted[0]
    assert [m[1] for m in mixed] == wanted[1]


def test_states_that_change_places_are_refused() -> None:
    """a' = b and b' = a would need both old values at once."""
    nodes = [
        helper.make_node("Identity", ["b"], ["a2"], "a_from_b"),
        helper.make_node("Identity", ["a"], ["b2"], "b_from_a"),
        helper.make_node("Add", ["a", "x"], ["y"], "sum"),
    ]
    states = (StatePair("a", "a2"), StatePair("b", "b2"))
    model = _model(nodes, {"x": 4, "a": 4, "b": 4}, {"y": 4, "a2": 4, "b2": 4}, {}, states)
    with pytest.raises(UnsupportedError, match="replaced by another state"):
        make_program(model, Options(calibration=_samples(model)))
