# SPDX-License-Identifier: Apache-2.0
"""The float32 road: what TVM makes of standard operators agrees with ONNX Runtime, on this machine and on a board."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.resources import runtime_dir
from tests.command_line import done
from tests.small_models import IMAGE, Graph, attention_block, patch_classifier, reference, samples, step_model

STATES = (("h", "h_next", 0.25), ("m", "m_next", 0.0))
TARGETS = ["host-c", pytest.param("stm32f746", marks=pytest.mark.skipif(
    not (runtime_dir() / "support" / "math").is_dir(), reason="no expf for a board"))]  # fmt: skip


def _mlp(path: Path) -> Path:
    """Gelu in both forms, Tanh, Sigmoid, Relu and a Softmax, each behind a dense layer."""
    g = Graph(7)
    exact = g.op("Gelu", g.dense("x", 9, 11))
    close = g.op("Gelu", g.dense(exact, 11, 8), approximate="tanh")
    sigmoid, tanh = g.op("Sigmoid", g.dense(close, 8, 8)), g.op("Tanh", g.dense(close, 8, 8))
    mixed = g.op("Relu", g.op("Concat", g.op("Mul", sigmoid, tanh), close, axis=1))
    g.op("Softmax", g.dense(mixed, 16, 5), axis=-1, out="y")
    return g.save(path, {"x": (1, 9)}, {"y": (1, 5)})


def _transcendental(path: Path) -> Path:
    """Functions of the C library, one result each, far from zero and near it."""
    g = Graph(8)
    wide = g.op("Mul", "x", g.const(np.array(3.0, np.float32)))
    positive = g.op("Add", g.op("Abs", wide), g.const(np.array(1e-3, np.float32)))
    shapes: dict[str, tuple[int, ...]] = {}
    for kind, source in (("Exp", wide), ("Erf", wide), ("Tanh", wide), ("Sin", wide), ("Cos", wide), ("Floor", wide),
                         ("Ceil", wide), ("Log", positive), ("Sqrt", positive), ("Reciprocal", positive)):  # fmt: skip
        shapes[g.op(kind, source, out=f"out {kind}")] = (1, 40)
    shapes[g.op("Pow", positive, g.const(np.array(0.3, np.float32)), out="out Pow")] = (1, 40)
    return g.save(path, {"x": (1, 40)}, shapes)


CASES: dict[str, tuple[Callable[[Path], Path], dict[str, tuple[int, ...]]]] = {
    "mlp": (_mlp, {"x": (1, 9)}),
    "transcendental": (_transcendental, {"x": (1, 40)}),
    "attention": (attention_block, {"x": (1, 7, 12)}),
    "patches": (patch_classifier, {"image": IMAGE}),
    "step": (step_model, {"x": (1, 6)}),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_float_programs_agree_with_onnx_runtime(case: str, target: str, tmp_path: Path) -> None:
    build, inputs = CASES[case]
    model, given = build(tmp_path / f"{case}.onnx"), samples(tmp_path / "samples.npz", 25, **inputs)
    options = ("--target", target, "--precision", "float32", "--json")
    manifest = done("compile", model, *options, "--out", tmp_path / "out").json
    done("run", tmp_path / "out", "--input", given, "--output", tmp_path / "result.npz")
    results, states = np.load(tmp_path / "result.npz"), STATES if case == "step" else ()
    for name, wanted in reference(model, dict(np.load(given)), states).items():
        assert results[name].dtype == np.float32
        difference = np.abs(results[name] - wanted.reshape(results[name].shape)).max()
        assert difference <= 1e-5 * np.ptp(wanted), name
    assert all(p["scale"] is None for p in (*manifest["inputs"], *manifest["outputs"]))


def test_weights_keep_every_bit(tmp_path: Path) -> None:
    """Denormal, tiny, huge and odd weights come back exactly through one product with 1."""
    bits = np.random.default_rng(9).integers(0, 2**32, 500, dtype=np.uint32).view(np.float32)
    special = np.array([1e-45, -1.17549435e-38, 3.4028235e38, 0.1, 1 / 3, 16777217, -0.0], np.float32)
    weights = np.concatenate([bits[np.isfinite(bits)], special])
    g = Graph()
    g.op("Mul", "x", g.const(weights.reshape(1, -1), "weights"), out="y")
    model = g.save(tmp_path / "m.onnx", {"x": (1, len(weights))}, {"y": (1, len(weights))})
    np.savez(tmp_path / "x.npz", x=np.ones((1, len(weights)), np.float32))
    done("compile", model, "--target", "host-c", "--precision", "float32", "--out", tmp_path / "out")
    done("run", tmp_path / "out", "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["y"].ravel().view(np.uint32), weights.view(np.uint32))


def test_integer_inputs_of_a_float_model_keep_their_type(tmp_path: Path) -> None:
    g = Graph(10)
    g.op("Gather", g.random(50, 8), "tokens", axis=0, out="rows")
    g.op("ReduceMean", "rows", g.integers(1), keepdims=0, out="y")
    model = g.save(tmp_path / "m.onnx", {"tokens": (1, 5)}, {"y": (1, 8)})
    proto = onnx.load(model)
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    onnx.save(proto, model)
    tokens = np.random.default_rng(11).integers(0, 50, (6, 5))
    np.savez(tmp_path / "x.npz", tokens=tokens)
    done("compile", model, "--target", "host-c", "--precision", "float32", "--out", tmp_path / "out")
    done("run", tmp_path / "out", "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    wanted = reference(model, {"tokens": tokens})["y"]
    np.testing.assert_allclose(np.load(tmp_path / "y.npz")["y"], wanted, rtol=1e-5, atol=1e-6)
    assert done("profile", tmp_path / "out", "--json").json["seconds"] > 0


def test_scalars_in_the_code_keep_every_bit(tmp_path: Path) -> None:
    """Constants of one element become literals of the generated C; a product with 1 gives each back."""
    bits = np.random.default_rng(12).integers(0, 2**32, 40, dtype=np.uint32).view(np.float32)
    special = np.array([1e-42, -3.4028235e38, 16777217, 1 / 3, np.inf, -np.inf], np.float32)
    scalars = np.concatenate([bits[np.isfinite(bits)], special])
    g = Graph()
    shapes: dict[str, tuple[int, ...]] = {}
    for i, value in enumerate(scalars):
        shapes[g.op("Mul", "x", g.const(np.array(value)), out=f"y{i}")] = (1, 2)
    model = g.save(tmp_path / "m.onnx", {"x": (1, 2)}, shapes)
    np.savez(tmp_path / "x.npz", x=np.ones((1, 2), np.float32))
    done("compile", model, "--target", "host-c", "--precision", "float32", "--out", tmp_path / "out")
    done("run", tmp_path / "out", "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    results = np.load(tmp_path / "y.npz")
    found = np.array([results[f"y{i}"].ravel()[1] for i in range(len(scalars))])
    np.testing.assert_array_equal(found.view(np.uint32), scalars.view(np.uint32))


def test_the_largest_of_nothing_but_minus_infinity(tmp_path: Path) -> None:
    g = Graph()
    low = g.op(
        "Where", g.op("Greater", "x", g.const(np.array(9, np.float32))), "x", g.const(np.array(-np.inf, np.float32))
    )
    g.op("ReduceMax", low, g.integers(1), keepdims=0, out="top")
    g.op("Greater", "x", g.const(np.array(0, np.float32)), out="sign")
    model = g.save(tmp_path / "m.onnx", {"x": (1, 5)}, {"top": (1,), "sign": (1, 5)})
    proto = onnx.load(model)
    proto.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.BOOL
    onnx.save(proto, model)
    given = np.random.default_rng(13).normal(size=(4, 5)).astype(np.float32)
    given[1, 2] = 10
    np.savez(tmp_path / "x.npz", x=given)
    done("compile", model, "--target", "host-c", "--precision", "float32", "--out", tmp_path / "out")
    done("run", tmp_path / "out", "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    results = np.load(tmp_path / "y.npz")
    np.testing.assert_array_equal(results["top"].ravel(), [-np.inf, 10, -np.inf, -np.inf])
    assert results["sign"].dtype == np.bool_
    np.testing.assert_array_equal(results["sign"].reshape(4, 5), given > 0)
