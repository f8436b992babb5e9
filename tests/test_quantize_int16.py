# SPDX-License-Identifier: Apache-2.0
"""int16 activations: lowering against ONNX Runtime, which tensors may have them, and the choice under --max-loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import done, edgec
from onnx import TensorProto
from qdq_graph import Graph as QdqGraph
from qdq_graph import compare, model_of
from test_quantize import Graph, cosine, run, samples_for, vit

from edgec.compile import Options, compile_model
from edgec.errors import UnsupportedError, UsageError
from edgec.lower import lower_to_integers
from edgec.model import Model, StatePair, save_model
from edgec.quantize.fidelity import Fidelity, noise_of
from edgec.quantize.options import Recipe
from edgec.quantize.plan import make_plan
from edgec.quantize.quantize import quantize
from edgec.quantize.report import diagnose
from edgec.quantize.widen import more_bytes, widen
from edgec.run import run_artifact
from edgec.target import load_target

# --- lowering, an operator at a time


def wide(g: QdqGraph, name: str, scale: float | None = None) -> str:
    """Q and DQ in int16, over all of its range or in steps of `scale`."""
    reach = float(np.abs(g.values(name)).max())
    quantization = g.constant(np.float32(scale or reach / 32767)), g.constant(np.int16(0))
    return g.dequantize(g.op("QuantizeLinear", name, *quantization), *quantization)


def fine(g: QdqGraph, name: str, scale: float) -> None:
    """An int8 output in such small steps that it shows single steps of an int16 tensor."""
    quantization = g.constant(np.float32(scale)), g.constant(np.int8(0))
    result = g.dequantize(g.op("QuantizeLinear", name, *quantization), *quantization)
    g.outputs[result] = g.values(result).shape


def sums(g: QdqGraph) -> None:
    a, b = g.input(9, 24), g.input(9, 24, low=-1, high=5)
    both = wide(g, g.op("Add", a, b))
    g.output(both)
    less = wide(g, g.op("Sub", both, g.input(24)))  # int16 and int8
    g.output(g.op("Add", less, wide(g, g.op("Add", g.input(24), g.quantized_constant(24)))))
    g.output(g.op("Sub", g.input(1, 24), both))  # the smaller operand first: they change places
    step = float(np.abs(g.values(less)).max()) / 100
    fine(g, wide(g, g.op("Add", less, both), step), step)


def rectified(g: QdqGraph) -> None:
    total = g.op("Add", g.input(9, 24), g.input(9, 24))
    g.output(wide(g, g.op("Relu", total)))
    other = g.op("Clip", g.op("Add", g.input(9, 24), g.input(9, 24)), g.constant(np.float32(-0.3)))
    g.output(wide(g, other))


def normalized(g: QdqGraph) -> None:
    for width in (1, 7, 64, 515):
        total = wide(g, g.op("Add", g.input(5, width), g.input(width, low=-30, high=40)))
        gain, shift = (g.constant(g.rng.normal(1, 0.5, width).astype(np.float32)) for _ in range(2))
        g.output(g.op("LayerNormalization", total, gain, shift, axis=-1))


def normalized_with_little_variance(g: QdqGraph) -> None:
    total = wide(g, g.op("Add", g.input(5, 64, low=-0.01, high=0.01), g.input(5, 1, low=-3, high=3)))
    g.output(g.op("LayerNormalization", total, g.constant(np.ones(64, np.float32)), axis=-1, epsilon=1e-3))


def means(g: QdqGraph) -> None:
    total = wide(g, g.op("Add", g.input(2, 9, 24), g.input(2, 9, 24)))
    for axis, keep in ((1, 0), (2, 1), (0, 1)):
        g.output(g.op("ReduceMean", total, g.constant(np.array([axis])), keepdims=keep))
    g.output(g.op("ReduceSum", total, g.constant(np.array([1])), keepdims=0))


def moved(g: QdqGraph) -> None:
    total = wide(g, g.op("Add", g.input(4, 6, 8), g.input(4, 6, 8)))
    turned = g.op("Reshape", g.op("Transpose", total, perm=[2, 0, 1]), g.constant(np.array([8, 24])))
    g.output(g.op("Add", turned, g.input(24)))
    part = g.op("Slice", total, *(g.constant(np.array([v])) for v in (1, 5, 1)))
    g.output(g.op("Add", part, g.input(8)))
    row = wide(g, g.op("Add", g.input(8), g.input(8)))
    g.output(g.op("Add", part, g.op("Expand", row, g.constant(np.array([4, 4, 8])))))


@pytest.mark.parametrize("make", [sums, rectified, normalized, normalized_with_little_variance, means, moved])
def test_lowered_operators_are_within_one_step_of_onnx_runtime(make) -> None:
    g = QdqGraph(sum(make.__name__.encode()))
    make(g)
    differences = compare(g.proto(), g.inputs)
    assert max(d.largest for d in differences.values()) <= 1, differences
    total = sum(d.elements for d in differences.values())
    assert sum(d.share * d.elements for d in differences.values()) / total < 0.01, differences


@pytest.mark.parametrize(
    ("op", "says"),
    [
        ("Gelu", "Gelu"),
        ("MatMul", "an int16 operand"),
        ("Softmax", "an int16 operand"),
    ],
)
def test_what_has_no_int16_form_is_refused(op: str, says: str) -> None:
    g = QdqGraph(3)
    total = wide(g, g.op("Add", g.input(4, 4), g.input(4, 4)))
    g.output(g.op(op, total, g.input(4, 4)) if op == "MatMul" else g.op(op, total))
    with pytest.raises(UnsupportedError, match=says):
        lower_to_integers(model_of(g.proto()))


def test_an_int16_result_of_two_activations_is_refused() -> None:
    g = QdqGraph(3)
    product = wide(g, g.op("MatMul", g.input(4, 4), g.input(4, 4)))
    g.output(g.op("Add", product, g.input(4, 4)))
    with pytest.raises(UnsupportedError, match="an int16 result"):
        lower_to_integers(model_of(g.proto()))


# --- which tensors


def candidates(model: Model) -> list[str]:
    plan = make_plan(model, samples_for(model, 4), "minmax", 100.0)
    return [group.name for group in plan.grouping.groups if plan.grouping.can_widen(group)]


def test_the_residual_stream_may_be_int16_and_inputs_outputs_states_may_not() -> None:
    g = Graph()
    stream = g.op("Add", g.input("x", 4, 8), g.gemm("x", 8, 8), out="stream")
    narrow = g.op("Add", g.gemm(stream, 8, 8), stream, out="last")
    state = g.op("Add", g.input("s", 4, 8), narrow, out="s_next")
    lonely = g.op("Add", narrow, state, out="lonely")  # a product alone reads it
    model = g.model(g.gemm(lonely, 8, 3, out="y"), "s_next", states=[StatePair("s", "s_next")])
    assert candidates(model) == ["stream", "last"]
    shown = Graph()
    total = shown.op("Add", shown.input("x", 4, 8), shown.gemm("x", 8, 8), out="total")
    assert candidates(shown.model(total, shown.op("Add", total, "x", out="y"))) == []


def test_products_read_the_int16_tensor_rounded_to_int8() -> None:
    model = vit(depth=1)
    plan = make_plan(model, samples_for(model, 8), "minmax", 100.0)
    proto = plan.widened(candidates(model)).write().proto
    opset = next(o.version for o in proto.opset_import if o.domain == "")
    assert opset == 21  # int16 came with it
    onnx.checker.check_model(proto, full_check=True)
    kinds = {t.name: t.data_type for t in proto.graph.initializer}
    producers = {o: n for n in proto.graph.node for o in n.output}
    for node in proto.graph.node:
        if node.op_type in ("Gemm", "MatMul"):
            source = producers[node.input[0]]
            while source.op_type in ("Reshape", "Transpose"):
                source = producers[source.input[0]]
            if source.op_type == "DequantizeLinear":
                assert kinds[source.input[2]] == TensorProto.INT8
    assert TensorProto.INT16 in {kinds[n.input[2]] for n in proto.graph.node if n.op_type == "QuantizeLinear"}


def test_functions_and_rms_norms_read_the_int16_stream_rounded(tmp_path: Path) -> None:
    g = Graph(3)
    d = 16
    x = g.op("Add", g.input("x", 4, d), g.gemm("x", d, d), out="stream")
    mean = g.op("ReduceMean", g.op("Mul", x, x), g.constant(np.array([-1])), keepdims=1)
    root = g.op("Sqrt", g.op("Add", mean, g.constant(np.array(1e-5, np.float32))))
    rms = g.op("Mul", g.op("Div", x, root), g.normal(d))
    gated = g.op("Mul", x, g.op("Sigmoid", x))
    x = g.op("Add", g.op("Add", g.gemm(rms, d, d), gated), x, out="second")
    model = g.model(g.gemm(g.norm(x, d), d, 3, out="y"))
    samples = samples_for(model, 16)
    plan = make_plan(model, samples, "minmax", 100.0)
    names = [group.name for group in plan.grouping.groups if plan.grouping.can_widen(group)]
    assert {"stream", "second"} <= set(names)
    quantized = plan.widened(names).write()
    artifact = compile_model(quantized, load_target("host-c"), tmp_path / "a", Options())
    got = run_artifact(artifact, samples, "host-c")["y"]
    runtime, want = run(quantized, samples)["y"], run(model, samples)["y"]
    assert cosine(got.reshape(runtime.shape), runtime) > 0.9995
    assert cosine(runtime, want) > 0.999
    rows = diagnose(plan.widened(names), samples)
    assert len({r.node for r in rows}) == len(rows)
    assert min(r.own_db for r in rows) > 25


# --- choice


def loud_stream() -> Model:
    """A residual stream under a large constant, beside which int8 steps swallow what the branches say."""
    g = Graph(2)
    d = 16
    x = g.input("x", 4, d)
    loud = g.constant((50 * np.sign(g.rng.standard_normal((4, d)))).astype(np.float32))
    x = g.op("Add", x, loud)
    for _ in range(3):
        x = g.op("Add", x, g.gemm(g.op("Gelu", g.gemm(g.norm(x, d), d, d)), d, d))
    x = g.norm(g.op("Sub", x, loud), d)
    return g.model(g.gemm(x, d, 5, out="y"))


def test_int16_is_chosen_until_the_loss_is_within_the_budget_and_no_further() -> None:
    model = loud_stream()
    samples = samples_for(model, 32)
    plan = make_plan(model, samples, "minmax", 100.0)
    fidelity = Fidelity(model, samples)
    all_wide = fidelity.loss(plan.widened(candidates(model)).write())
    budget = (fidelity.loss(plan.write()) + all_wide) / 2
    choice = widen(plan, fidelity, budget)
    assert choice.before > budget >= choice.after
    assert 0 < len(choice.names) <= len(candidates(model))
    want, got = run(model, samples)["y"], run(choice.plan.write(), samples)["y"]
    assert 100 * (1 - cosine(got, want)) == pytest.approx(choice.after, abs=1e-6)
    for name in choice.names:  # each of them is needed
        fewer = plan.widened([n for n in choice.names if n != name])
        assert fidelity.loss(fewer.write()) > budget
    activations = [n for n in choice.names if n in plan.grouping.producer]
    assert choice.more_bytes == more_bytes(plan, list(choice.names)) == 64 * len(activations)
    assert widen(plan, fidelity, 100.0).names == ()


def test_a_budget_that_int16_cannot_meet_is_an_error_that_says_what_it_can() -> None:
    model = loud_stream()
    with pytest.raises(UnsupportedError, match="more than --max-loss") as error:
        quantize(model, samples_for(model, 16), Recipe(max_loss=0.0))
    assert "in int8" in (error.value.have or "")
    assert any("--report" in hint for hint in error.value.hints)


def test_with_labels_the_loss_is_of_accuracy() -> None:
    model = loud_stream()
    samples = samples_for(model, 64)
    plan = make_plan(model, samples, "minmax", 100.0)
    want, got = run(model, samples)["y"], run(plan.write(), samples)["y"]
    labels = want.reshape(64, -1).argmax(axis=1)
    labels[:10] = -1  # not counted
    fidelity = Fidelity(model, samples, labels)
    right = got.reshape(64, -1).argmax(axis=1)[10:] == labels[10:]
    assert fidelity.loss(plan.write()) == pytest.approx(100 * (1 - right.mean()))
    with pytest.raises(UsageError, match="labels do not match"):
        Fidelity(model, samples, labels[1:])


def test_the_compiled_program_gains_what_int16_gains_in_onnx_runtime(tmp_path: Path) -> None:
    model = loud_stream()
    samples, test = samples_for(model, 32), samples_for(model, 32, seed=7)
    want = run(model, test)["y"]
    noise = {}
    for name, recipe in (("int8", Recipe()), ("int16", Recipe(max_loss=0.2))):
        quantized = quantize(model, samples, recipe)
        artifact = compile_model(quantized, load_target("host-c"), tmp_path / name, Options())
        got = run_artifact(artifact, test, "host-c")["y"].reshape(want.shape)
        runtime = run(quantized, test)["y"]
        assert cosine(got, runtime) > 0.999
        noise[name] = noise_of(got, want)
        operators = {o["op"] for o in artifact.manifest["operators"]}
        assert ("add_s16" in operators) == (name == "int16")
    assert noise["int16"] < 0.5 * noise["int8"]


def test_compile_chooses_under_max_loss_and_says_what_it_costs(tmp_path: Path) -> None:
    model = loud_stream()
    save_model(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", **samples_for(model, 16))
    given = (tmp_path / "m.onnx", "--calibration", tmp_path / "c.npz", "--max-loss", "0.2")
    answer = done("compile", *given, "--target", "host-c", "--out", tmp_path / "a")
    assert "int16" in answer.out
    assert "B together" in answer.out
    written = done("quantize", *given, "--out", tmp_path / "q.onnx", "--json").json
    assert any("int16" in note for note in written["notes"])
    properties = {p.key: p.value for p in onnx.load(tmp_path / "q.onnx").metadata_props}
    record = json.loads(properties["edgec.quantization"])
    assert record["int16"]
    assert record["loss_points"] <= 0.2
    again = done("compile", tmp_path / "q.onnx", "--target", "host-c", "--out", tmp_path / "b", "--json").json
    assert "add_s16" in {o["op"] for o in again["operators"]}


def test_labels_without_a_budget_are_refused(tmp_path: Path) -> None:
    model = loud_stream()
    save_model(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", **samples_for(model, 4))
    np.savez(tmp_path / "l.npz", classes=np.zeros(4, np.int64))
    answer = edgec("quantize", tmp_path / "m.onnx", "--calibration", tmp_path / "c.npz", "--labels", tmp_path / "l.npz",
                   "--out", tmp_path / "q.onnx")  # fmt: skip
    assert answer.code == 2
    assert "--max-loss" in answer.err
