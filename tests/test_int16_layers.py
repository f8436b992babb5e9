# SPDX-License-Identifier: Apache-2.0
"""Layers, products and states in int16: exact arithmetic, ONNX Runtime, linear memories over thousands of steps."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from qdq_graph import ort_run, program_of

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model, make_program
from edgec.errors import UnsupportedError
from edgec.lower import lower_to_integers
from edgec.model import Model, StatePair
from edgec.models.layers.legendre import legendre_memory
from edgec.operators import get_operator
from edgec.operators.linear16 import proven_multiplier
from edgec.program import evaluate
from edgec.run import run_artifact
from edgec.target import load_target

Array = np.ndarray[Any, Any]
LARGEST = 32767


class Qdq:
    """A QDQ graph under construction; `states` are pairs of input and output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: dict[str, tuple[int, ...]] = {}
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.states: list[StatePair] = []
        self._quants: dict[str, tuple[str, str]] = {}
        self._names = (f"v{i}" for i in itertools.count())

    def constant(self, array: Array) -> str:
        name = next(self._names)
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, op: str, *inputs: str, **attrs: object) -> str:
        name = next(self._names)
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{op}_{name}", **attrs))
        return name

    def quantize(self, value: str, scale: float, bits: int = 16, zero: int = 0, name: str | None = None) -> str:
        """Q and DQ; as an output called `name`."""
        pair = self.constant(np.float32(scale)), self.constant(np.array(zero, f"int{bits}"))
        result = self.op("DequantizeLinear", self.op("QuantizeLinear", value, *pair), *pair)
        if name is None:
            return result
        self.nodes[-1].output[0] = name
        return name

    def input(self, name: str, shape: tuple[int, ...], scale: float, bits: int = 16, zero: int = 0) -> str:
        self.inputs[name] = shape
        return self.quantize(name, scale, bits, zero)

    def output(self, value: str, name: str, shape: tuple[int, ...], scale: float, bits: int = 16, zero: int = 0) -> str:
        self.outputs[name] = shape
        return self.quantize(value, scale, bits, zero, name)

    def weight(self, w: Array, bits: int = 16) -> str:
        """[N, K], a scale for each row."""
        scale = (np.abs(w).max(axis=1) / (2 ** (bits - 1) - 1)).astype(np.float32)
        q = np.rint(w / scale[:, None].astype(np.float64)).astype(f"int{bits}")
        given = self.constant(q), self.constant(scale), self.constant(np.zeros(len(w), q.dtype))
        return self.op("DequantizeLinear", *given, axis=0)

    def bias(self, b: Array, scale: float) -> str:
        q = np.rint(b / scale).astype(np.int32)
        return self.op("DequantizeLinear", self.constant(q), self.constant(np.float32(scale)))

    def proto(self) -> onnx.ModelProto:
        def infos(shapes: dict[str, tuple[int, ...]]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

        graph = helper.make_graph(self.nodes, "int16", infos(self.inputs), infos(self.outputs), self.constants)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(proto, full_check=True)
        return proto

    def model(self) -> Model:
        return Model(self.proto(), "int16", "0" * 64, tuple(self.states))


# --- definitions


def exact(acc: int, mult: int, shift: int, zero_point: int, bits: int) -> int:
    """`acc * mult / 2^shift` rounded half up, in fractions."""
    rounded = floor(Fraction(acc * mult, 2**shift) + Fraction(1, 2)) + zero_point
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, rounded))


@pytest.mark.parametrize("op", ["linear_s16", "mul_s16"])
def test_definitions_are_exact(op: str) -> None:
    record, rng = get_operator(op), np.random.default_rng(2)
    for case in itertools.islice(record.samples(rng), 60):
        got = record.run(case.inputs, case.attrs)
        if op == "linear_s16":
            x, w, bias, mult, shift, params = (a.tolist() for a in case.inputs)
            for m, n in np.ndindex(got.shape):
                acc = sum(a * b for a, b in zip(x[m], w[n], strict=True)) + bias[n]
                assert got[m, n] == exact(acc, mult[n], shift[n], params[0], case.attrs["y"])
        else:
            a, b, params = case.inputs
            za, zb, mult, shift, zero = params.tolist()
            wide = np.broadcast_to(b, a.shape)
            for at in np.ndindex(got.shape):
                product = (int(a[at]) - za) * (int(wide[at]) - zb)
                assert got[at] == exact(product, mult, shift, zero, case.attrs["y"])


@given(
    reach=st.integers(0, 2**44),
    ratio=st.floats(1e-14, 8.0),
    bits=st.sampled_from([8, 16]),
    zero_point=st.integers(-128, 127),
)
@settings(max_examples=300, deadline=None)
def test_multipliers_are_as_wide_as_sums_allow(reach: int, ratio: float, bits: int, zero_point: int) -> None:
    zero_point = zero_point if bits == 8 else 0

    def fits(mult: int, shift: int) -> bool:
        return mult < 2**30 and reach * mult + 2 ** (shift - 1) + abs(zero_point) * 2**shift < 2**63

    try:
        mult, shift = proven_multiplier(reach, ratio, bits, zero_point)
    except ValueError:
        most = max((s for s in range(1, 63) if fits(round(ratio * 2.0**s), s)), default=0)
        assert Fraction(reach) * abs(Fraction(round(ratio * 2.0**most), 2**most) - Fraction(ratio)) > Fraction(1, 200)
        return
    assert fits(mult, shift)
    assert abs(Fraction(mult, 2**shift) - Fraction(ratio)) <= Fraction(1, 2 ** (shift + 1))
    assert shift == 62 or not fits(round(ratio * 2.0 ** (shift + 1)), shift + 1)
    # What its last bit costs a result that does not saturate, in steps of it.
    result = min(reach * ratio, 2.0 ** (bits - 1) + abs(zero_point))
    assert result / ratio * abs(mult / 2.0**shift - ratio) <= 0.005


# --- lowering


def steps(real: Array, scale: float, zero: int = 0) -> Array:
    return np.rint(real.astype(np.float64) / np.float64(np.float32(scale))).astype(np.int64) + zero


def differences(g: Qdq, feeds: dict[str, Array]) -> dict[str, Array]:
    """Steps by which the program's outputs (NumPy definitions) are off ONNX Runtime's."""
    program = program_of(g.proto())
    given = {}
    for port in program.inputs:
        kind = program.tensors[port.tensor].type.dtype
        info = np.iinfo(kind)
        q = steps(feeds[port.name], port.quantization.scale, port.quantization.zero_point)
        given[port.tensor] = np.clip(q, info.min, info.max).astype(kind)
    got, wanted = evaluate(program, given), ort_run(g.proto(), feeds)
    result = {}
    for port in program.outputs:
        q = steps(wanted[port.name], port.quantization.scale, port.quantization.zero_point)
        result[port.name] = np.abs(got[port.tensor].reshape(port.onnx_shape).astype(np.int64) - q)
    return result


def layers(g: Qdq, rng: np.random.Generator) -> None:
    """x and weights of both widths, to both widths, with and without a bias, transposed or not."""
    x = {16: g.input("x16", (3, 33), 2.0 / LARGEST), 8: g.input("x8", (3, 33), 2.0 / 127, 8, 9)}
    for i, (xb, wb, yb) in enumerate([(16, 16, 16), (16, 16, 8), (16, 8, 16), (8, 16, 16), (8, 8, 16)]):
        w = g.weight(rng.normal(0, 0.2, (7, 33)), wb)
        given = [x[xb], w]
        if i % 2 == 0:
            given.append(g.bias(rng.normal(0, 1, 7), 1e-6))
        reach = 8 / (LARGEST if yb == 16 else 127)
        g.output(g.op("Gemm", *given, transB=1), f"y{i}", (3, 7), reach, yb, 0 if yb == 16 else -5)
    pair = g.constant(np.float32(1e-5)), g.constant(np.int16(0))
    w = g.op("DequantizeLinear", g.constant(rng.integers(-20000, 20000, (33, 4)).astype(np.int16)), *pair)
    g.output(g.op("Relu", g.op("MatMul", x[16], w)), "r", (3, 4), 4 / LARGEST)


def products(g: Qdq, rng: np.random.Generator) -> None:
    """Gates times states, both ways round, broadcast, times constants and single numbers."""
    gate, other = g.input("gate", (4, 9), 1 / 256, 8, -128), g.input("other", (4, 9), 1 / 127, 8)
    state, row = g.input("state", (4, 9), 4 / LARGEST), g.input("row", (9,), 1 / LARGEST)
    kept = g.op("Mul", gate, state)
    added = g.op("Mul", gate, other)
    g.output(g.op("Add", g.quantize(kept, 4 / LARGEST), g.quantize(added, 1 / LARGEST)), "c", (4, 9), 5 / LARGEST)
    for i, operands in enumerate([(state, gate), (row, state), (state, state), (gate, row)]):
        g.output(g.op("Mul", *operands), f"p{i}", (4, 9), 4 / LARGEST)
    g.output(g.op("Mul", state, gate), "narrow", (4, 9), 4 / 127, 8, 3)
    decay = g.weight(rng.uniform(0.9, 1, (1, 9)))
    g.output(g.op("Mul", state, decay), "decayed", (4, 9), 4 / LARGEST)
    for i, factor in enumerate([0.37, -1.5, 1.0]):
        g.output(g.op("Mul", g.constant(np.float32(factor)), state), f"s{i}", (4, 9), 7 / LARGEST)


def joined(g: Qdq, rng: np.random.Generator) -> None:
    """[m, u] of int16, m and u in scales of their own, times one matrix; and u of int8."""
    m, u = g.input("m", (1, 12), 1.5 / LARGEST), g.input("u", (1, 1), 0.7 / LARGEST)
    narrow = g.input("v", (1, 2), 0.7 / 127, 8, 11)
    scale = 1.6 / LARGEST
    both = g.quantize(g.op("Concat", m, u, narrow, axis=1), scale)
    g.output(g.op("Gemm", both, g.weight(rng.normal(0, 0.3, (12, 15))), transB=1), "y", (1, 12), 3 / LARGEST)


@pytest.mark.parametrize("make", [layers, products, joined])
def test_lowered_operators_are_within_one_step_of_onnx_runtime(make: Any) -> None:
    rng = np.random.default_rng(5)
    g = Qdq()
    make(g, rng)
    feeds = {n: rng.uniform(-1.4, 1.4, s).astype(np.float32) for n, s in g.inputs.items()}
    off = differences(g, feeds)
    assert max(d.max() for d in off.values()) <= 1, {n: int(d.max()) for n, d in off.items()}
    # ONNX Runtime's own sums are float32, whose last bits are not nothing beside 16.
    assert np.mean([d.mean() for d in off.values()]) < 0.03


def test_layers_of_one_sum_share_an_accumulator() -> None:
    """Two layers between which nothing is quantized, in scales that agree: one `linear_s16`, one rounding."""
    rng, g = np.random.default_rng(6), Qdq()
    m, u = g.input("m", (1, 8), 2.0**-14), g.input("u", (1, 3), 2.0**-7, 8, 4)
    parts = []
    for name, shape, scale in ((m, (8, 8), 2.0**-15), (u, (8, 3), 2.0**-22)):
        q = rng.integers(-LARGEST, LARGEST + 1, shape).astype(np.int16)
        w = g.op("DequantizeLinear", g.constant(q), g.constant(np.float32(scale)), g.constant(np.int16(0)))
        parts.append(g.op("Gemm", name, w, transB=1))
    g.output(g.op("Add", *parts), "y", (1, 8), 2.0**-13)
    feeds = {n: rng.uniform(-1, 1, s).astype(np.float32) for n, s in g.inputs.items()}
    assert differences(g, feeds)["y"].max() <= 1
    ops = [c.op for c in program_of(g.proto()).calls]
    assert ops.count("linear_s16") == 1
    assert "add_s16" not in ops


def test_what_cannot_be_proven_is_refused_with_the_reason() -> None:
    g = Qdq()
    x = g.input("x", (1, 16384), 1.0)
    w = g.constant(np.full((2, 16384), LARGEST, np.int16))
    w = g.op("DequantizeLinear", w, g.constant(np.float32(1e-3)), g.constant(np.int16(0)))
    g.output(g.op("Gemm", x, w, transB=1), "y", (1, 2), 5.47e5)
    with pytest.raises(UnsupportedError, match="bits, too few for int16"):
        lower_to_integers(g.model())
    g = Qdq()
    x = g.input("x", (1, 2), 1.0)
    w = g.constant(np.full((2, 2), -32768, np.int16))
    w = g.op("DequantizeLinear", w, g.constant(np.float32(1e-3)), g.constant(np.int16(0)))
    g.output(g.op("Gemm", x, w, transB=1), "y", (1, 2), 1.0)
    with pytest.raises(UnsupportedError, match="a weight of 32768"):
        lower_to_integers(g.model())


# --- linear memories


def memory(order: int, window: float, bits: int, m_scale: float, u_scale: float) -> Qdq:
    """m' = [Abar | Bbar] [m, u] with the state, u and the weights in so many bits."""
    a, b = (t.numpy() for t in legendre_memory(order, window))
    g = Qdq()
    m, u = g.input("m", (1, order), m_scale, bits), g.input("u", (1, 1), u_scale, bits)
    both = g.quantize(g.op("Concat", m, u, axis=1), m_scale, bits)
    weights = g.weight(np.concatenate([a, b[:, None]], axis=1), bits)
    product = g.op("Gemm", both, weights, transB=1)
    for name in ("m_next", "y"):
        g.output(product, name, (1, order), m_scale, bits)
    g.states.append(StatePair("m", "m_next"))
    return g


def increments(order: int, window: float, m_scale: float, u_scale: float, reach: float) -> Qdq:
    """m' = m + [Abar - 1 | Bbar] [m, u]: the same memory, whose increments reach `reach`."""
    a, b = (t.numpy() for t in legendre_memory(order, window))
    g = Qdq()
    m, u = g.input("m", (1, order), m_scale), g.input("u", (1, 1), u_scale)
    both = g.quantize(g.op("Concat", m, u, axis=1), m_scale)
    weights = g.weight(np.concatenate([a - np.eye(order), b[:, None]], axis=1))
    total = g.op("Add", m, g.quantize(g.op("Gemm", both, weights, transB=1), reach / LARGEST))
    for name in ("m_next", "y"):
        g.output(total, name, (1, order), m_scale)
    g.states.append(StatePair("m", "m_next"))
    return g


def signal(rng: np.random.Generator, count: int) -> Array:
    """Noise without its high frequencies, in [-1, 1]."""
    noise = np.convolve(rng.normal(size=count + 40), np.hanning(40), "valid")[:count]
    return (noise / np.abs(noise).max()).astype(np.float64)


def in_float64(order: int, window: float, u: Array) -> Array:
    a, b = (t.numpy() for t in legendre_memory(order, window))
    m, states = np.zeros(order), []
    for value in u:
        m = a @ m + b * value
        states.append(m)
    return np.array(states)


def compiled(g: Qdq, folder: Path, target: str = "host-c") -> Artifact:
    return compile_model(g.model(), load_target(target), folder / target, Options())


def by_quotients(order: int, window: float, u: Array, m_scale: float, u_scale: float) -> Array:
    """The stream in int16 with each accumulator times its quotient of scales in float64, rounded half up."""
    a, b = (t.numpy() for t in legendre_memory(order, window))
    w = np.concatenate([a, b[:, None]], axis=1)
    row = (np.abs(w).max(axis=1) / LARGEST).astype(np.float32).astype(np.float64)
    q, step = np.rint(w / row[:, None]), float(np.float32(m_scale))
    m, states = np.zeros(order), []
    for value in np.rint(u.astype(np.float64) / np.float32(u_scale).astype(np.float64)):
        joined = np.append(m, np.floor(value * (float(np.float32(u_scale)) / step) + 0.5))
        m = np.clip(np.floor(q @ joined * row + 0.5), -LARGEST - 1, LARGEST)  # the state's scale cancels
        states.append(m)
    return np.array(states)


@pytest.mark.parametrize(("order", "window"), [(64, 256.0), (128, 512.0)])
def test_a_linear_memory_lasts_in_int16_and_not_in_int8(order: int, window: float, tmp_path: Path) -> None:
    """10,000 steps stay within 0.7 % of the range of float64's state; int8 loses it at once.

    What is lost in int16 is lost to the rounding of weights and states: the multipliers cost not a single step.
    """
    u = signal(np.random.default_rng(order), 10_000)
    wanted = in_float64(order, window, u)
    reach = np.abs(wanted).max()
    m_scale, u_scale = reach * 1.05 / LARGEST, 1 / LARGEST
    artifact = compiled(memory(order, window, 16, m_scale, u_scale), tmp_path / "16")
    got = run_artifact(artifact, {"u": u.reshape(-1, 1, 1).astype(np.float32)}, "host-c", raw=True)["y"]
    assert got.dtype == np.int16
    states = got.reshape(wanted.shape)
    assert np.abs(states * m_scale - wanted).max() < 0.007 * reach
    np.testing.assert_array_equal(states, by_quotients(order, window, u.astype(np.float32), m_scale, u_scale))

    # Weights of what is added keep more of their digits than those of what stays.
    change = np.abs(np.diff(wanted, axis=0)).max() * 1.05
    added = compiled(increments(order, window, m_scale, u_scale, change), tmp_path / "increments")
    finer = run_artifact(added, {"u": u.reshape(-1, 1, 1).astype(np.float32)}, "host-c")["y"].reshape(wanted.shape)
    assert np.abs(finer - wanted).max() < 0.001 * reach

    few = 1000
    artifact = compiled(memory(order, window, 8, reach * 1.05 / 127, 1 / 127), tmp_path / "8")
    narrow = run_artifact(artifact, {"u": u[:few].reshape(-1, 1, 1).astype(np.float32)}, "host-c")["y"]
    assert np.abs(narrow.reshape(few, order) - wanted[:few]).max() > 0.2 * reach


# --- states and the program's border


def cell(width: int) -> Qdq:
    """c' = f * c + i * g of int8 gates and an int16 state, h = o * tanh(c') in int8."""
    g = Qdq()
    f, i, o = (g.input(name, (1, width), 1 / 256, 8, -128) for name in "fio")
    candidate, c = g.input("g", (1, width), 1 / 127, 8), g.input("c", (1, width), 4 / LARGEST)
    kept, added = g.quantize(g.op("Mul", f, c), 4 / LARGEST), g.quantize(g.op("Mul", i, candidate), 1 / LARGEST)
    total = g.op("Add", kept, added)
    g.output(total, "c_next", (1, width), 4 / LARGEST)
    g.output(total, "y", (1, width), 4 / LARGEST)
    narrow = g.quantize("c_next", 4 / 127, 8)
    g.output(g.op("Mul", o, g.quantize(g.op("Tanh", narrow), 1 / 127, 8)), "h", (1, width), 1 / 127, 8)
    g.states.append(StatePair("c", "c_next", 0.25))
    return g


def total(width: int) -> Qdq:
    """c' = x + c, which reads the state element by element as its second operand."""
    g = Qdq()
    x, c = g.input("x", (1, width), 0.1 / LARGEST), g.input("c", (1, width), 1 / LARGEST)
    both = g.op("Add", x, c)
    g.output(both, "c_next", (1, width), 1 / LARGEST)
    g.output(both, "y", (1, width), 1 / LARGEST)
    g.states.append(StatePair("c", "c_next", -0.5))
    return g


STREAMS = {
    "linear_s16": lambda: memory(32, 100.0, 16, 2.0 / LARGEST, 1 / LARGEST),
    "mul_s16": lambda: cell(21),
    "add_s16": lambda: total(21),
}
"""By the operator that they are about."""


def test_a_cell_keeps_small_increments(tmp_path: Path) -> None:
    """2,000 steps of c' = f c + i g with gates near 1 and 0, whose increments are below a step of int8."""
    width, count, rng = 21, 2000, np.random.default_rng(8)
    artifact = compiled(cell(width), tmp_path)
    gates = {n: rng.integers(0, 256, (count, 1, width)).astype(np.float32) / 256 for n in "fio"}
    gates["f"] = np.float32(255 / 256) - (gates["f"] < 0.1) / np.float32(256)
    gates["i"] = np.floor(gates["i"] * 4) / np.float32(256)
    gates["g"] = rng.integers(-127, 128, (count, 1, width)).astype(np.float32) / 127
    got = run_artifact(artifact, gates, "host-c")
    c, wanted = np.full((1, width), 0.25), []
    for f, i, candidate in zip(gates["f"], gates["i"], gates["g"], strict=True):
        c = f.astype(np.float64) * c + i.astype(np.float64) * candidate
        wanted.append(c)
    assert np.abs(got["y"] - np.array(wanted)).max() < 100 * 4 / LARGEST
    assert np.abs(np.array(wanted)[-1]).max() > 0.01
    assert np.abs(got["h"] - gates["o"] * np.tanh(np.array(wanted))).max() < 0.04
    (state,) = artifact.manifest["states"]
    assert (state["dtype"], state["reset"]) == ("int16", round(0.25 * LARGEST / 4))
    ports = {p["name"]: p["dtype"] for p in (*artifact.manifest["inputs"], *artifact.manifest["outputs"])}
    assert ports == {"f": "int8", "i": "int8", "o": "int8", "g": "int8", "y": "int16", "h": "int8"}
    (header,) = artifact.path.glob("int16.h")
    assert re.search(r"const int16_t \*\w+_y\(const \w+ \*m\);", header.read_text())


@pytest.mark.parametrize(("op", "kernels"), [("linear_s16", "auto"), ("mul_s16", "auto"), ("add_s16", "tvm")])
def test_the_board_computes_what_the_host_and_the_definitions_do(op: str, kernels: Any, tmp_path: Path) -> None:
    """int16 inputs, states and outputs; K is odd."""
    rng = np.random.default_rng(9)
    g = STREAMS[op]()
    artifact = compile_model(g.model(), load_target("stm32f746"), tmp_path / "a", Options(kernels=kernels))
    used = {o["op"]: o["kernel"] for o in artifact.manifest["operators"]}
    assert used[op] == (f"{op}_dsp" if kernels == "auto" else op)
    assert not any("->" in o["name"] for o in artifact.manifest["operators"])  # the successor is written in place
    feeds = {n: rng.uniform(-1, 1, (12, *s)).astype(np.float32) for n, s in g.inputs.items() if n not in ("m", "c")}
    host = run_artifact(artifact, feeds, "host-c", raw=True)
    board = run_artifact(artifact, feeds, "sim", raw=True)
    assert {n: str(a.dtype) for n, a in board.items()}["y"] == "int16"
    program = make_program(g.model(), Options())
    state = {s.source: np.full(program.tensors[s.source].type.shape, s.reset, np.int16) for s in program.states}
    for step in range(12):
        given = {}
        for port in program.inputs:
            kind = program.tensors[port.tensor].type.dtype
            q = steps(feeds[port.name][step], port.quantization.scale, port.quantization.zero_point)
            given[port.tensor] = np.clip(q, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)
        values = evaluate(program, {**given, **state})
        for port in program.outputs:
            wanted = values[port.tensor].reshape(port.onnx_shape)
            np.testing.assert_array_equal(host[port.name][step], wanted)
            np.testing.assert_array_equal(board[port.name][step], wanted)
        state = {s.source: values[s.result] for s in program.states}
