# SPDX-License-Identifier: Apache-2.0
"""Whole convolutional networks with random weights: float close to int8, NumPy = host C = simulated board."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from small_models import Graph, reference

from edgec.compile import Options, compile_model, make_program
from edgec.model import load_model
from edgec.operators.integer import quantize_real
from edgec.passes.canonicalize import canonicalize
from edgec.program import evaluate
from edgec.run import run_artifact
from edgec.target import load_target

IMAGE = (1, 3, 16, 12)
LEAST_COSINE = 0.99


def conv(
    g: Graph, x: str, ins: int, outs: int, kernel: int = 3, stride: int = 1, group: int = 1, norm: bool = True
) -> str:
    """Convolution with batch normalization; small means and uneven deviations, as training leaves them."""
    weight = g.random(outs, ins // group, kernel, kernel)
    pads = [kernel // 2] * 4
    y = g.op("Conv", x, weight, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=group)
    if not norm:
        return y
    gain = g.const(g.rng.uniform(0.5, 1.5, outs).astype(np.float32))
    variance = g.const(g.rng.uniform(0.1, 0.6, outs).astype(np.float32))
    return g.op("BatchNormalization", y, gain, g.random(outs, scale=0.2), g.random(outs, scale=0.1), variance)


def separable(g: Graph) -> str:
    x = g.op("Relu", conv(g, "image", 3, 8))
    for ins, outs, stride in ((8, 16, 2), (16, 16, 1), (16, 24, 2)):
        x = g.op("Clip", conv(g, x, ins, ins, stride=stride, group=ins), g.const(np.float32(0)), g.const(np.float32(6)))
        x = g.op("Relu", conv(g, x, ins, outs, kernel=1))
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    return g.dense(x, 24, 7, out="y")


def residual(g: Graph) -> str:
    x = g.op("Relu", conv(g, "image", 3, 8))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for ins, outs, stride in ((8, 8, 1), (8, 12, 2)):
        y = conv(g, g.op("Relu", conv(g, x, ins, outs, stride=stride)), outs, outs)
        x = x if stride == 1 else conv(g, x, ins, outs, kernel=1, stride=stride)
        x = g.op("Relu", g.op("Add", y, x))
    x = g.op("AveragePool", x, kernel_shape=[2, 2], strides=[1, 1], pads=[1, 0, 0, 1])
    x = g.op("Reshape", g.op("ReduceMean", x, g.integers(2, 3), keepdims=1), g.integers(1, 12))
    return g.dense(x, 12, 7, out="y")


def encoder_decoder(g: Graph) -> str:
    first = g.op("Relu", conv(g, "image", 3, 8))
    second = g.op("Relu", conv(g, first, 8, 12, stride=2))
    third = g.op("Relu", conv(g, second, 12, 16, stride=2))
    up = g.op("ConvTranspose", third, g.random(16, 12, 2, 2, scale=0.15), strides=[2, 2])
    x = g.op("Relu", conv(g, g.op("Concat", up, second, axis=1), 24, 12))
    x = g.op("Resize", x, "", g.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    x = g.op("Relu", conv(g, g.op("Concat", x, first, axis=1), 20, 8))
    return g.op("Conv", x, g.random(2, 8, 1, 1), g.random(2, scale=0.1), out="y")


NETWORKS: dict[str, tuple[Callable[[Graph], str], tuple[int, ...]]] = {
    "separable": (separable, (1, 7)),
    "residual": (residual, (1, 7)),
    "encoder_decoder": (encoder_decoder, (1, 2, 16, 12)),
}


def pictures(count: int, seed: int) -> np.ndarray:
    """Smooth images: sums of a few waves, as photographs are."""
    rng = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 1, IMAGE[2])[:, None], np.linspace(0, 1, IMAGE[3])
    waves = rng.normal(size=(count, IMAGE[1], 6, 4))
    phases = [2 * np.pi * (a * 2 * rows + b * 2 * columns + c) for a, b, c in waves.reshape(-1, 4)[:, :3]]
    shaped = np.sin(np.array(phases)).reshape(count, IMAGE[1], 6, *IMAGE[2:]) * waves[..., 3:, None]
    return shaped.sum(axis=2).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_int8_is_close_to_float_and_the_same_everywhere(name: str, tmp_path: Path) -> None:
    build, shape = NETWORKS[name]
    g = Graph(11)
    build(g)
    path = g.save(tmp_path / f"{name}.onnx", {"image": IMAGE}, {"y": shape})
    model, images = load_model(path), pictures(6, 2)
    options = Options(calibration={"image": pictures(32, 1)})
    board = compile_model(model, load_target("stm32f746"), tmp_path / "board", options)
    host = run_artifact(board, {"image": images}, "host-c", raw=True)["y"]
    np.testing.assert_array_equal(run_artifact(board, {"image": images}, "sim", raw=True)["y"], host)

    program = make_program(model, options)
    port, out = program.inputs[0], program.outputs[0]
    assert port.quantization is not None
    assert port.layout == (0, 2, 3, 1)
    for image, integers in zip(images, host, strict=True):
        q = quantize_real(image[None].transpose(port.layout), port.quantization.scale, port.quantization.zero_point)
        assert np.array_equal(evaluate(program, {port.tensor: q})[out.tensor].ravel(), integers.ravel())

    wanted = reference(path, {"image": images})["y"].ravel()
    real = run_artifact(board, {"image": images}, "host-c")["y"].ravel()
    cosine = wanted @ real / np.linalg.norm(wanted) / np.linalg.norm(real)
    assert cosine >= LEAST_COSINE
    # Every copy has a reason: pixels that a stride skips, rows that Resize repeats, an output in ONNX order.
    reasons = {"separable": 0, "residual": 1, "encoder_decoder": 2}
    copied = [c.name for c in program.calls if c.op == "strided_copy_s8"]
    assert len(copied) == reasons[name], copied


def test_pointwise_convolutions_are_dense_layers(tmp_path: Path) -> None:
    g = Graph(12)
    separable(g)
    model = load_model(g.save(tmp_path / "m.onnx", {"image": IMAGE}, {"y": (1, 7)}))
    ops = [c.op for c in make_program(model, Options(calibration={"image": pictures(8, 1)})).calls]
    assert ops == ["conv2d_s8", *["depthwise_conv2d_s8", "linear_s8"] * 3, "mean_s8", "linear_s8"]


def test_batch_normalization_before_a_padded_convolution_stays(tmp_path: Path) -> None:
    """Zeros around the normalized image are not zeros around the image."""
    g = Graph(13)
    scale = [g.const(g.rng.uniform(0.5, 1.5, 3).astype(np.float32)) for _ in range(4)]
    x = g.op("BatchNormalization", "image", *scale)
    g.op("Conv", x, g.random(5, 3, 3, 3), pads=[1, 1, 1, 1], out="y")
    path = g.save(tmp_path / "m.onnx", {"image": IMAGE}, {"y": (1, 5, 16, 12)})
    model = load_model(path)
    assert "Add" in {n.op_type for n in canonicalize(model).proto.graph.node}
    artifact = compile_model(
        model, load_target("host-c"), tmp_path / "out", Options(calibration={"image": pictures(16, 1)})
    )
    images = pictures(4, 2)
    wanted, real = reference(path, {"image": images})["y"], run_artifact(artifact, {"image": images})["y"]
    cosine = np.vdot(wanted, real) / np.linalg.norm(wanted) / np.linalg.norm(real)
    assert cosine >= LEAST_COSINE
    edge = np.abs(wanted - real.reshape(wanted.shape))
    assert edge[..., 0, :].max() < 0.1 * np.abs(wanted).max()


def test_explicit_padding_becomes_the_convolutions_own(tmp_path: Path) -> None:
    """As TensorFlow's SAME with stride 2 is exported; padding by other than zero, or of channels, stays."""
    g = Graph(16)
    pads = [g.integers(0, 0, *p) for p in ((0, 0, 0, 0, 1, 1), (1, 2, 0, 0, 2, 1), (1, 1, 0, 0, 1, 1))]
    x = g.op("Conv", g.op("Pad", "image", pads[0]), g.random(8, 3, 3, 3), strides=[2, 2])
    x = g.op("Pad", x, pads[1], g.const(np.float32(0)))
    x = g.op("Conv", x, g.random(8, 1, 3, 3), group=8, pads=[0, 1, 0, 1])
    x = g.op("Pad", x, pads[2], g.const(np.float32(0.5)))
    g.op("Conv", x, g.random(4, 8, 3, 3), out="y")
    path = g.save(tmp_path / "m.onnx", {"image": IMAGE}, {"y": (1, 4, 9, 9)})
    canonical = canonicalize(load_model(path))
    assert [n.op_type for n in canonical.proto.graph.node] == ["Conv", "Conv", "Pad", "Conv"]
    images = pictures(4, 2)
    onnx.save(canonical.proto, tmp_path / "canonical.onnx")
    wanted = reference(path, {"image": images})["y"]
    np.testing.assert_allclose(reference(tmp_path / "canonical.onnx", {"image": images})["y"], wanted, atol=1e-5)
    options = Options(calibration={"image": pictures(16, 1)})
    artifact = compile_model(load_model(path), load_target("host-c"), tmp_path / "out", options)
    real = run_artifact(artifact, {"image": images})["y"]
    assert np.vdot(wanted, real) / np.linalg.norm(wanted) / np.linalg.norm(real) >= LEAST_COSINE


def test_a_line_of_samples(tmp_path: Path) -> None:
    """conv1d, dilated and causal, grouped; MaxPool; a recurrent-free keyword spotter."""
    g = Graph(14)
    x = g.op("Relu", g.op("Conv", "wave", g.random(8, 2, 5), strides=[2], pads=[4, 0]))
    x = g.op("Relu", g.op("Conv", x, g.random(8, 4, 3), dilations=[3], pads=[6, 0], group=2))
    x = g.op("MaxPool", x, kernel_shape=[2], strides=[2])
    x = g.op("Relu", g.op("ConvTranspose", x, g.random(8, 4, 4, scale=0.2), strides=[2], pads=[1, 1]))
    x = g.op("Reshape", g.op("ReduceMean", x, g.integers(2), keepdims=0), g.integers(1, 4))
    g.dense(x, 4, 3, out="y")
    path = g.save(tmp_path / "m.onnx", {"wave": (1, 2, 64)}, {"y": (1, 3)})
    rng = np.random.default_rng(3)
    waves = np.cumsum(rng.normal(0, 0.4, (40, 2, 64)), axis=2).astype(np.float32)
    artifact = compile_model(
        load_model(path), load_target("stm32f407"), tmp_path / "out", Options(calibration={"wave": waves[8:]})
    )
    wanted = reference(path, {"wave": waves[:8]})["y"]
    board = run_artifact(artifact, {"wave": waves[:8]}, "sim")["y"]
    np.testing.assert_array_equal(board, run_artifact(artifact, {"wave": waves[:8]}, "host-c")["y"])
    cosine = np.vdot(wanted, board) / np.linalg.norm(wanted) / np.linalg.norm(board)
    assert cosine >= LEAST_COSINE


def test_a_streaming_convolution_keeps_its_past_in_a_state(tmp_path: Path) -> None:
    """A causal conv1d over the last frames: the state is [1, C, T] as ONNX has it, on the device as well."""
    g = Graph(17)
    window = g.op("Concat", "past", "frames", axis=2)
    g.op("Slice", window, g.integers(2), g.integers(6), g.integers(2), out="past_next")
    x = g.op("Relu", g.op("Conv", window, g.random(6, 3, 3), dilations=[2]))
    g.op("Conv", x, g.random(2, 6, 1), out="y")
    states = [("past", "past_next", 0.0)]
    shapes = {"frames": (1, 3, 2), "past": (1, 3, 4)}
    path = g.save(tmp_path / "m.onnx", shapes, {"y": (1, 2, 2), "past_next": (1, 3, 4)}, states)
    frames = np.cumsum(np.random.default_rng(4).normal(0, 0.3, (30, 3, 2)), axis=0).astype(np.float32)
    options = Options(calibration={"frames": frames})
    artifact = compile_model(load_model(path), load_target("stm32f407"), tmp_path / "out", options)
    wanted = reference(path, {"frames": frames}, states)["y"]
    board = run_artifact(artifact, {"frames": frames}, "sim")["y"]
    np.testing.assert_array_equal(board, run_artifact(artifact, {"frames": frames}, "host-c")["y"])
    assert np.vdot(wanted, board) / np.linalg.norm(wanted) / np.linalg.norm(board) >= LEAST_COSINE


class _Samples(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._rest = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._rest, None)
        return None if image is None else {"image": image[None]}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8], ids=["uint8", "int8"])
def test_networks_that_the_runtime_quantized(name: str, activations: QuantType, tmp_path: Path) -> None:
    """As near to the float network as ONNX Runtime is with the same integers."""
    build, shape = NETWORKS[name]
    g = Graph(15)
    build(g)
    path = g.save(tmp_path / "float.onnx", {"image": IMAGE}, {"y": shape})
    prepared, quantized = tmp_path / "prepared.onnx", tmp_path / "int8.onnx"
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        quantized,
        _Samples(pictures(24, 1)),
        quant_format=QuantFormat.QDQ,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    images = pictures(6, 2)
    program = make_program(load_model(quantized), Options())
    port, out = program.inputs[0], program.outputs[0]
    assert port.quantization is not None
    assert out.quantization is not None
    real = []
    for image in images:
        q = quantize_real(image[None].transpose(port.layout), port.quantization.scale, port.quantization.zero_point)
        integers = evaluate(program, {port.tensor: q})[out.tensor].astype(np.float64)
        real.append(out.quantization.scale * (integers.reshape(shape) - out.quantization.zero_point))
    exact, runtime = reference(path, {"image": images})["y"], reference(quantized, {"image": images})["y"]
    ours, theirs = (np.square(np.asarray(v) - exact).mean() for v in (real, runtime))
    assert ours < 1.1 * theirs
