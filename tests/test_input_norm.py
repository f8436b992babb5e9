# SPDX-License-Identifier: Apache-2.0
"""Images of 0..255 as the model's input, against ONNX Runtime with the normalization done outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgec.artifact import load_artifact
from edgec.errors import UsageError
from edgec.model import Model, load_model
from edgec.passes.canonicalize import canonicalize
from edgec.passes.input_norm import normalized_inputs
from edgec.quantize.calibrate import run_stream
from edgec.quantize.quantize import quantize
from edgec.run import run_artifact
from tests.command_line import done, edgec
from tests.small_models import IMAGE, Graph, patch_classifier, reference

IMAGENET = "0.485,0.456,0.406/0.229,0.224,0.225"
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def images(count: int, shape: tuple[int, ...] = IMAGE, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def outside(pixels: np.ndarray, axis: int = 1) -> np.ndarray:
    """What a user's own code does before the model: [S, 1, 3, H, W] with the channels at `axis` of each image."""
    wide = [3 if a == axis + 1 else 1 for a in range(pixels.ndim)]
    return ((pixels / 255 - MEAN.reshape(wide)) / DEVIATION.reshape(wide)).astype(np.float32)


def run(model: Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    (name,) = [o.name for o in model.outputs]
    return np.stack([row[name] for row in run_stream(model, feeds)])


def kinds(model: Model) -> list[str]:
    return [node.op_type for node in model.proto.graph.node]


def convolution(path: Path, **attributes: object) -> Path:
    g = Graph(7)
    t = g.op("Conv", "image", g.random(6, 3 // int(attributes.get("group", 1)), 3, 3), g.random(6, scale=0.1),
             kernel_shape=[3, 3], name="first", **attributes)  # fmt: skip
    g.op("ReduceMean", t, g.integers(2, 3), out="logits", keepdims=0)
    return g.save(path, {"image": IMAGE}, {"logits": (1, 6)})


def test_compiled_and_run_on_bytes(tmp_path: Path) -> None:
    """The whole way: uint8 samples, the integers of the input, the header's words, results near the float model's."""
    model = patch_classifier(tmp_path / "m.onnx")
    pixels = images(24)
    np.savez(tmp_path / "pixels.npz", image=pixels[:, 0])
    files = "--calibration", tmp_path / "pixels.npz", "--input-norm", IMAGENET
    done("compile", model, *files, "--target", "stm32f746", "--out", tmp_path / "a")
    artifact = load_artifact(tmp_path / "a")
    (port,) = artifact.inputs
    assert (port.scale, port.zero_point, port.dtype) == (1.0, -128, "int8")
    header = (tmp_path / "a" / "m.h").read_text()
    assert "M_IMAGE_SCALE 1.0f" in header
    assert "M_IMAGE_ZERO_POINT (-128)" in header
    assert "channels-last (N, H, W, C)" in header
    got = run_artifact(artifact, {"image": pixels}, "sim")["logits"].reshape(24, -1)
    wanted = reference(model, {"image": outside(pixels)})["logits"].reshape(24, -1)
    cosine = (got * wanted).sum() / np.linalg.norm(got) / np.linalg.norm(wanted)
    assert cosine > 0.999
    kinds = {o["op"] for o in artifact.manifest["operators"]}
    assert not kinds & {"add_s8", "mul_s8"}  # nothing is left of the normalization


def test_verify_takes_it_too(tmp_path: Path) -> None:
    model = patch_classifier(tmp_path / "m.onnx")
    np.savez(tmp_path / "pixels.npz", image=images(6)[:, 0])
    arguments = "--input", tmp_path / "pixels.npz", "--input-norm", IMAGENET, "--target", "host-c"
    answer = done("verify", model, *arguments, "--json").json
    assert answer["equal"] is True
    assert min(f["cosine"] for f in answer["outputs"]["logits"]) > 0.999
    assert "random samples" in done("verify", model, *arguments[2:], "--steps", "2").out  # within 0..255, or refused


@pytest.mark.parametrize(
    "attributes",
    [{}, {"strides": [2, 1]}, {"auto_pad": "VALID"}, {"group": 3}, {"dilations": [2, 2]}],
    ids=str,
)
def test_an_unpadded_convolution_takes_all_of_it(tmp_path: Path, attributes: dict[str, object]) -> None:
    path = convolution(tmp_path / "m.onnx", **attributes)
    canonical = canonicalize(normalized_inputs(load_model(path), [IMAGENET]))
    assert not {"Mul", "Add", "Sub", "Div"} & set(kinds(canonical))
    pixels = images(5)
    got = run(canonical, {"image": pixels.astype(np.float32)})
    np.testing.assert_allclose(got, run(load_model(path), {"image": outside(pixels)}), atol=2e-5)


@pytest.mark.parametrize("attributes", [{"pads": [1, 1, 1, 1]}, {"auto_pad": "SAME_UPPER"}, {"pads": [0, 1, 0, 0]}])
def test_before_a_padded_convolution_the_shift_stays(tmp_path: Path, attributes: dict[str, object]) -> None:
    """Zeros around a normalized image are the mean colour: only the scale may go into the weights."""
    path = convolution(tmp_path / "m.onnx", **attributes)
    canonical = canonicalize(normalized_inputs(load_model(path), [IMAGENET]))
    assert kinds(canonical).count("Add") == 1
    assert "Mul" not in kinds(canonical)
    pixels = images(5)
    got = run(canonical, {"image": pixels.astype(np.float32)})
    np.testing.assert_allclose(got, run(load_model(path), {"image": outside(pixels)}), atol=2e-5)


@given(
    st.integers(1, 4),
    st.sampled_from(["flat", "rows", "transposed", "patches"]),
    st.lists(st.sampled_from(["Mul", "Add", "Sub", "Div", "Rsub"]), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_any_scales_and_shifts_before_a_dense_layer(
    channels: int, form: str, steps: list[str], per_channel: bool, seed: int
) -> None:
    """The canonical model computes what the given one computes, however the constants lie before the first layer."""
    import tempfile

    rng, g, x = np.random.default_rng(seed), Graph(seed), "x"
    shape = (1, channels, 2, 3)
    for step in steps:
        wide = (1, channels, 1, 1) if per_channel else (1, 1, 1, 1)
        constant = g.const((rng.uniform(0.5, 2, wide) * rng.choice([-1, 1], wide)).astype(np.float32))
        x = g.op("Sub", constant, x) if step == "Rsub" else g.op(step, x, constant)
    if form == "flat":
        t, width, rows = g.op("Reshape", x, g.integers(1, -1)), channels * 6, 1
    elif form == "rows":  # one channel a row: foldable when the channels agree
        t, width, rows = g.op("Reshape", x, g.integers(channels, 6)), 6, channels
    elif form == "transposed":
        t, width, rows = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 3, 1]), g.integers(6, channels)), channels, 6
    else:
        t = g.op("Reshape", x, g.integers(channels, 2, 3))
        t, width, rows = (
            g.op("Reshape", g.op("Transpose", t, perm=[2, 0, 1]), g.integers(3, 2 * channels)),
            2 * channels,
            3,
        )
    g.dense(t, width, 4, out="y")
    with tempfile.TemporaryDirectory() as folder:
        path = g.save(Path(folder) / "m.onnx", {"x": shape}, {"y": (rows, 4)})
        model = load_model(path)
    canonical = canonicalize(model)
    if not (form == "rows" and per_channel and channels > 1):
        assert not {"Mul", "Add", "Sub", "Div"} & set(kinds(canonical))
    feeds = {"x": rng.normal(size=(3, *shape)).astype(np.float32)}
    np.testing.assert_allclose(run(canonical, feeds), run(model, feeds), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("attributes", [{}, {"pads": [1, 1, 1, 1]}], ids=str)
def test_a_convolution_behind_the_transpose_of_a_channels_last_image(
    tmp_path: Path, attributes: dict[str, object]
) -> None:
    g = Graph(8)
    t = g.op("Transpose", "image", perm=[0, 3, 1, 2])
    t = g.op("Conv", t, g.random(4, 3, 3, 3), g.random(4, scale=0.1), kernel_shape=[3, 3], **attributes)
    g.op("ReduceMean", t, g.integers(2, 3), out="y", keepdims=0)
    path = g.save(tmp_path / "m.onnx", {"image": (1, 8, 12, 3)}, {"y": (1, 4)})
    canonical = canonicalize(normalized_inputs(load_model(path), [IMAGENET]))
    assert kinds(canonical).count("Add") == (1 if attributes else 0)
    assert "Mul" not in kinds(canonical)
    pixels = images(4, (1, 8, 12, 3))
    got = run(canonical, {"image": pixels.astype(np.float32)})
    np.testing.assert_allclose(got, run(load_model(path), {"image": outside(pixels, axis=3)}), atol=2e-5)


def test_a_scale_alone_goes_into_a_padded_convolution(tmp_path: Path) -> None:
    path = convolution(tmp_path / "m.onnx", pads=[1, 1, 1, 1])
    canonical = canonicalize(normalized_inputs(load_model(path), ["0/1"]))
    assert not {"Mul", "Add"} & set(kinds(canonical))
    pixels = images(5)
    got = run(canonical, {"image": pixels.astype(np.float32)})
    np.testing.assert_allclose(got, run(load_model(path), {"image": (pixels / 255).astype(np.float32)}), atol=2e-5)


def test_channels_last_images(tmp_path: Path) -> None:
    g = Graph(9)
    t = g.op("Transpose", "image", perm=[0, 3, 1, 2])
    t = g.op("Conv", t, g.random(4, 3, 4, 4), g.random(4, scale=0.1), kernel_shape=[4, 4], strides=[4, 4])
    g.op("ReduceMean", t, g.integers(2, 3), out="y", keepdims=0)
    path = g.save(tmp_path / "m.onnx", {"image": (1, 8, 12, 3)}, {"y": (1, 4)})
    canonical = canonicalize(normalized_inputs(load_model(path), [IMAGENET]))
    assert not {"Mul", "Add"} & set(kinds(canonical))
    pixels = images(4, (1, 8, 12, 3))
    got = run(canonical, {"image": pixels.astype(np.float32)})
    np.testing.assert_allclose(got, run(load_model(path), {"image": outside(pixels, axis=3)}), atol=2e-5)


def test_a_model_of_two_readers_keeps_the_normalization_and_its_values(tmp_path: Path) -> None:
    g = Graph(4)
    flat = g.op("Reshape", "image", g.integers(1, 288))
    g.op("Add", g.dense(flat, 288, 3), g.dense(g.op("Relu", flat), 288, 3), out="y")
    path = g.save(tmp_path / "m.onnx", {"image": IMAGE}, {"y": (1, 3)})
    canonical = canonicalize(normalized_inputs(load_model(path), [f"image={IMAGENET}"]))
    pixels = images(4)
    got = run(canonical, {"image": pixels.astype(np.float32)})
    np.testing.assert_allclose(got, run(load_model(path), {"image": outside(pixels)}), atol=2e-5)


def bytes_model(path: Path, cast: int = TensorProto.FLOAT) -> Path:
    """The patch classifier behind a uint8 input, cast and scaled inside, as image models are often exported."""
    proto = onnx.load(patch_classifier(path))
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    scale = onnx.numpy_helper.from_array(np.float32(1 / 255), "scale")
    proto.graph.initializer.append(scale)
    nodes = [
        helper.make_node("Cast", ["image"], ["as_float"], name="cast", to=cast),
        helper.make_node("Mul", ["as_float", "scale"], ["small"], name="scaled"),
    ]
    for node in proto.graph.node:
        node.input[:] = ["small" if n == "image" else n for n in node.input]
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    onnx.save(proto, path)
    return path


def test_a_uint8_input_that_is_cast_is_an_image(tmp_path: Path) -> None:
    path = bytes_model(tmp_path / "m.onnx")
    pixels = images(16)
    np.savez(tmp_path / "pixels.npz", image=pixels[:, 0])
    arguments = "--input", tmp_path / "pixels.npz", "--target", "host-c", "--json"
    answer = done("verify", path, *arguments).json
    forms = {f["form"]: f for f in answer["outputs"]["logits"]}
    assert answer["reference"] == "float"
    assert forms["host C"]["cosine"] > 0.999
    done("compile", path, "--calibration", tmp_path / "pixels.npz", "--target", "host-c", "--out", tmp_path / "a")
    artifact = load_artifact(tmp_path / "a")
    assert (artifact.inputs[0].scale, artifact.inputs[0].zero_point) == (1.0, -128)
    got = run_artifact(artifact, {"image": pixels})["logits"]
    wanted = run(load_model(path), {"image": pixels})
    assert (got * wanted).sum() / np.linalg.norm(got) / np.linalg.norm(wanted) > 0.999


def test_the_range_is_the_declared_one_whatever_calibration_saw(tmp_path: Path) -> None:
    model = normalized_inputs(load_model(patch_classifier(tmp_path / "m.onnx")), [IMAGENET])
    dark = images(4).astype(np.float32) / 8
    quantized = quantize(canonicalize(model), {"image": np.rint(dark)})
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.proto.graph.initializer}
    first = next(n for n in quantized.proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "image")
    assert arrays[first.input[1]] == 1.0
    assert arrays[first.input[2]] == -128


def test_samples_that_are_normalized_already_are_refused(tmp_path: Path) -> None:
    model = patch_classifier(tmp_path / "m.onnx")
    np.savez(tmp_path / "normal.npz", image=outside(images(4))[:, 0])
    answer = edgec(
        "quantize",
        model,
        "--calibration",
        tmp_path / "normal.npz",
        "--input-norm",
        IMAGENET,
        "--out",
        tmp_path / "q.onnx",
    )
    assert answer.code == 2
    assert "0 to 255" in answer.err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.5",
        "0.5/0",
        "a/b",
        "0.5/0.5/0.5",
        "0.1,0.2/0.1,0.2",
        "0.1,0.2/0.1,0.2,0.3",
        "nan/1",
        "1/inf",
        "nobody=0.5/0.5",
    ],
)
def test_what_is_no_normalization_is_refused(tmp_path: Path, text: str) -> None:
    model = load_model(patch_classifier(tmp_path / "m.onnx"))
    with pytest.raises(UsageError, match="input-norm"):
        normalized_inputs(model, [text])


def test_one_number_stands_for_all_channels(tmp_path: Path) -> None:
    path = patch_classifier(tmp_path / "m.onnx")
    pixels = images(3)
    got = run(canonicalize(normalized_inputs(load_model(path), ["0.5/0.25"])), {"image": pixels.astype(np.float32)})
    wanted = run(load_model(path), {"image": ((pixels / 255 - 0.5) / 0.25).astype(np.float32)})
    np.testing.assert_allclose(got, wanted, atol=2e-5)
