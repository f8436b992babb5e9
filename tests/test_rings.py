# SPDX-License-Identifier: Apache-2.0
"""Windows over the past become rings: the same bits as the shifted copy, which is within 1 of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ring_streams import PUSHES, Push, Stream, border_of, feeds_of, ops, ort_stream, ringed, same_bits, stream

from edgec.compile import Options, make_program
from edgec.lower.lower import lower_to_integers
from edgec.model import Model, load_model
from edgec.operators import get_operator
from edgec.quantize.options import Recipe


def mean_of(g: Stream, window: str, axis: int) -> str:
    return g.op("ReduceMean", window, g.ints(axis), keepdims=0)


@pytest.mark.parametrize("shape", [(1, 5, 6), (1, 6, 5), (1, 4, 2, 3), (1, 7)], ids=str)
@pytest.mark.parametrize("push", PUSHES.values(), ids=PUSHES)
def test_every_writing_of_a_push_is_a_ring(push: Push, shape: tuple[int, ...]) -> None:
    """On any axis; both the window with the new row and the successor are read."""
    for axis in range(1, len(shape)):
        g = Stream(axis)
        s, new = g.state(*shape), tuple(1 if a == axis else d for a, d in enumerate(shape))
        x = g.given(*new, quant=g.quants[s])
        window, kept = push(g, s, x, axis)
        results = [mean_of(g, g.read(window, s), axis)]
        successor = g.successor(s, kept)
        results.append(mean_of(g, g.quantize(g.op("Relu", successor)), axis))
        model = g.finished(*results)
        rings = same_bits(model, 3 * shape[axis] + 2)
        assert ops(rings).count("ring_write_s8") == 1, ops(rings)
        assert rings.notes == []
        within_one_of_ort(model, 2 * shape[axis])


def within_one_of_ort(model: Model, steps: int) -> None:
    feeds = feeds_of(model, steps, 1)
    integers = lower_to_integers(model)
    ours, wanted = stream(ringed(model), feeds), ort_stream(model, feeds)
    apart, count = 0, 0
    scales = quantizations(integers)
    for mine, theirs in zip(ours, wanted, strict=True):
        for name, real in theirs.items():
            scale, zero = scales[name]
            steps_apart = np.abs(mine[name] - (np.rint(real.ravel().astype(np.float64) / scale) + zero))
            assert steps_apart.max() <= 1
            apart, count = apart + int((steps_apart > 0).sum()), count + real.size
    assert apart <= max(2, 0.02 * count)


def quantizations(model: Model) -> dict[str, tuple[float, int]]:
    return {e["name"]: (e["scale"], e["zero_point"]) for e in border_of(model)["outputs"]}


def refused(g: Stream, successor: str, s: str, *results: str) -> Model:
    """The integer graph of a window that becomes no ring; the same bits."""
    g.successor(s, successor)
    rings = same_bits(g.finished(*results), 15)
    assert not any(op.startswith("ring_") for op in ops(rings))
    return rings


def test_rows_that_do_not_divide_the_window() -> None:
    g = Stream(1)
    s = g.state(1, 5, 3)
    _, kept = PUSHES["slice_concat"](g, s, g.given(1, 2, 3, quant=g.quants[s]), 1)
    (note,) = refused(g, kept, s, mean_of(g, s, 1)).notes
    assert "2 new rows a step do not divide its 5 rows" in note
    assert "shifted as a copy" in note


def test_a_window_that_turns() -> None:
    """The oldest row comes back as the newest."""
    g = Stream(2)
    s = g.state(1, 5, 3)
    kept = g.op("Concat", g.cut(s, 1, 1), g.cut(s, 1, 0, 1), axis=1)
    (note,) = refused(g, kept, s, g.op("Add", g.quantize(mean_of(g, s, 1)), g.given(1, 3))).notes
    assert "what comes new is a part of the state itself" in note


def test_a_window_that_forgets_in_the_middle() -> None:
    g = Stream(3)
    s = g.state(1, 5, 3)
    x = g.given(1, 1, 3, quant=g.quants[s])
    kept = g.op("Concat", g.cut(s, 1, 0, 2), g.cut(s, 1, 3), x, axis=1)
    (note,) = refused(g, kept, s, mean_of(g, s, 1)).notes
    assert "not by whole steps along one axis" in note


def test_what_comes_new_repeats_itself() -> None:
    g = Stream(4)
    s = g.state(1, 5, 3)
    x = g.op("Expand", g.given(1, 1, 1, quant=g.quants[s]), g.ints(1, 1, 3))
    _, kept = PUSHES["slice_concat"](g, s, x, 1)
    (note,) = refused(g, kept, s, mean_of(g, s, 1)).notes
    assert "what comes new repeats elements" in note


def test_another_scale_is_no_ring() -> None:
    """The window is requantized every step: each row has been rounded as often as it is old."""
    g = Stream(5)
    s = g.state(1, 5, 3)
    other = g.drawn()
    window = g.snap(g.op("Concat", s, g.given(1, 1, 3), axis=1), other)
    rings = refused(g, g.cut(window, 1, 1), s, mean_of(g, window, 1))
    assert rings.notes == []


def test_other_states_are_left_alone() -> None:
    g = Stream(6)
    s = g.state(1, 5)
    new = g.op("Add", s, g.given(1, 5))
    assert refused(g, new, s, g.op("Relu", s)).notes == []


def foreign(path: Path, rows: int, heads: int, width: int) -> Path:
    """A float file of somebody else: one step of attention with a cache of keys and of values, heads first."""
    d, rng = heads * width, np.random.default_rng(0)
    constants = {n: rng.normal(0, d**-0.5, (d, d)).astype(np.float32) for n in ("wq", "wk", "wv")}
    constants |= {
        "split": np.array([0, 0, heads, width], np.int64), "join": np.array([1, d], np.int64),
        "first": np.array([1], np.int64), "end": np.array([2**63 - 1], np.int64), "axis": np.array([2], np.int64),
        "scale": np.float32(width**-0.5),
    }  # fmt: skip
    nodes = []
    for name in "qkv":
        nodes += [
            helper.make_node("MatMul", ["x", f"w{name}"], [f"{name}0"]),
            helper.make_node("Reshape", [f"{name}0", "split"], [f"{name}1"]),
            helper.make_node("Transpose", [f"{name}1"], [f"{name}2"], perm=[0, 2, 1, 3]),
        ]
    for name in "kv":
        nodes += [
            helper.make_node("Slice", [f"past_{name}", "first", "end", "axis"], [f"{name}_kept"]),
            helper.make_node("Concat", [f"{name}_kept", f"{name}2"], [f"present_{name}"], axis=-2),
        ]
    nodes += [
        helper.make_node("Transpose", ["present_k"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q2", "kt"], ["s0"]),
        helper.make_node("Mul", ["s0", "scale"], ["s1"]),
        helper.make_node("Softmax", ["s1"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "present_v"], ["m0"]),
        helper.make_node("Transpose", ["m0"], ["m1"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["m1", "join"], ["y"]),
    ]
    shapes = {"x": (1, 1, d), "y": (1, d)} | {
        f"{side}_{n}": (1, heads, rows, width) for n in "kv" for side in ("past", "present")
    }
    ends = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "cache",
        [ends[n] for n in ("x", "past_k", "past_v")],
        [ends[n] for n in ("y", "present_k", "present_v")],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_cache_of_somebody_elses_file(tmp_path: Path) -> None:
    """`--state in:out` pairs, no metadata, float: quantized here, and no byte of the cache is moved."""
    file = foreign(tmp_path / "cache.onnx", 6, 2, 4)
    model = load_model(file, states=["past_k:present_k", "past_v:present_v"])
    rng = np.random.default_rng(1)
    samples = {"x": rng.normal(0, 1, (30, 1, 1, 8)).astype(np.float32)}
    program = make_program(model, Options(calibration=samples, recipe=Recipe(layer_width="int8")))
    made = [c.op for c in program.calls]
    assert made.count("ring_write_s8") == 2
    assert "attention_s8" in made
    assert not {"concat_s8", "strided_copy_s8", "ring_read_s8"} & set(made)
    assert all(s.in_place for s in program.states)
    assert [program.tensors[s.source].type.dtype for s in program.states] == ["int8", "int8", "int32"]


def test_a_window_of_int16() -> None:
    """Wider rows, the same ring: a mean over them, and the oldest one."""
    g = Stream(7)
    quant = g.constant(np.float32(2 / 30000)), g.constant(np.int16(0))
    s = g.state(1, 5, 3, quant=quant)
    window, kept = PUSHES["concat_slice"](g, s, g.given(1, 1, 3, quant=quant), 1)
    g.successor(s, kept)
    made = ops(same_bits(g.finished(mean_of(g, window, 1), g.cut(window, 1, 0, 1)), 17))
    assert {"ring_write_s16", "mean_s16", "ring_read_s16"} <= set(made)
    assert "concat_s16" not in made


def test_reading_undoes_rotating() -> None:
    rng = np.random.default_rng(8)
    for rows in (1, 2, 7):
        for at in (-1, 0, 3, 2**31 - 1):
            x, cursor = rng.integers(-128, 128, (2, rows, 3)).astype(np.int8), np.array([at], np.int32)
            turned = get_operator("ring_rotate_s8").run((x, cursor), {})
            np.testing.assert_array_equal(get_operator("ring_read_s8").run((turned, cursor), {"rows": rows}), x)
            np.testing.assert_array_equal(turned[:, at % rows], x[:, -1])
