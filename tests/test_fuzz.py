# SPDX-License-Identifier: Apache-2.0
"""Whatever a file holds, the way ends in integers or in one clear error; and no model changes its meaning."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgec.check import check_model
from edgec.compile import Options, prepare
from edgec.errors import EdgecError
from edgec.lower import lower_to_integers
from edgec.lower.lower import INTERFACE_KEY
from edgec.model import PRIVATE_KEYS, Model, TensorInfo, load_model
from edgec.passes.canonicalize import canonicalize
from edgec.passes.layout import LAYOUT_KEY, device_layout
from edgec.quantize.calibrate import run_stream
from edgec.quantize.dataset import load_samples
from edgec.target import list_targets, load_target
from edgec.verify import random_samples
from tests.broken_models import broken_models, good_models
from tests.small_models import attention_block

FUZZ = settings(max_examples=100, suppress_health_check=list(HealthCheck))


def opened(proto: onnx.ModelProto) -> Model | None:
    """The model as a file of a stranger's comes in; None when the front door refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stranger.onnx"
        path.write_bytes(proto.SerializeToString())
        try:
            return load_model(path)
        except EdgecError:
            return None


@FUZZ
@given(broken_models())
def test_a_broken_model_ends_in_a_program_or_in_a_clear_error(proto: onnx.ModelProto) -> None:
    model = opened(proto)
    if model is None:
        return
    try:
        check_model(model, load_target("stm32f746"))
        quantized = prepare(model, Options(calibration=random_samples(model, 2)))
        lower_to_integers(device_layout(quantized))
    except EdgecError as error:
        told = str(error)
    else:
        told = "done"
    assert told
    assert "Traceback" not in told


@FUZZ
@given(broken_models())
def test_canonical_form_means_what_the_model_means(proto: onnx.ModelProto) -> None:
    """Or it is refused: never another function."""
    model = opened(proto)
    if model is None:
        return
    try:
        samples = random_samples(model, 2)
        wanted = list(run_stream(model, samples))
        again = list(run_stream(model, samples))
    except Exception:  # ONNX Runtime does not take it, whatever its reason
        return
    try:
        canonical = canonicalize(model)
    except EdgecError:
        return
    got = list(run_stream(canonical, samples))
    for mine, theirs, before in zip(got, wanted, again, strict=True):
        for name, value in theirs.items():
            drawn = not np.array_equal(value, before[name])  # by Bernoulli and its like
            if np.isfinite(value).all() and not drawn:
                scale = max(1.0, float(np.abs(value).max(initial=0.0)))
                np.testing.assert_allclose(mine[name] / scale, value / scale, atol=1e-4)


def lines_of_targets() -> list[str]:
    return [line for name in list_targets() for line in load_target(name).path.read_text().splitlines()]


@FUZZ
@given(st.data())
def test_a_broken_target_file_ends_in_a_target_or_in_a_clear_error(data: st.DataObject) -> None:
    lines = load_target(data.draw(st.sampled_from(list_targets()))).path.read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["drop", "copy", "value", "foreign", "text", "key"]))
        key, equals, _ = lines[at].partition("=")
        values = [
            "0",
            "-1",
            "1e999",
            "nan",
            "[]",
            "{}",
            '""',
            "true",
            '"64K"',
            "0x7fffffffffffffffffff",
            "1979-05-27",
            "[[1]]",
        ]
        if change == "drop":
            del lines[at]
            lines = lines or [""]
        elif change == "copy":
            lines.insert(at, lines[data.draw(st.integers(0, len(lines) - 1))])
        elif change == "value" and equals:
            lines[at] = f"{key}= {data.draw(st.sampled_from(values))}"
        elif change == "foreign":
            lines.insert(at, data.draw(st.sampled_from(lines_of_targets())))
        elif change == "text":
            lines[at] = data.draw(st.text(max_size=20))
        elif change == "key" and equals:
            lines[at] = f"{data.draw(st.sampled_from(['a.b', 'memory', 'name', 'x y']))} ={lines[at].partition('=')[2]}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "board.toml"
        path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
        with contextlib.suppress(EdgecError):
            load_target(path)


@FUZZ
@given(st.binary(max_size=200))
def test_a_target_file_of_bytes(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "board.toml"
        path.write_bytes(data)
        with pytest.raises(EdgecError):
            load_target(path)


@FUZZ
@given(st.data())
def test_a_broken_sample_file_ends_in_samples_or_in_a_clear_error(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(3, 1, 6), (3, 6), (0, 6), (6,), (), (3, 7)]))
    kind = data.draw(st.sampled_from(["f4", "f8", "f2", "i8", "u1", "?", "c8", "U3", "O", "V4", "M8[s]", ">f4"]))
    array = np.zeros(shape, kind)
    if array.size and kind in ("f4", "f8"):
        array.reshape(-1)[0] = data.draw(st.sampled_from([0.0, np.nan, np.inf, 1e300, -0.0]))
    file = io.BytesIO()
    np.savez(file, **{data.draw(st.sampled_from(["x", "y", "x.npy", "../x"])): array})  # type: ignore[arg-type]
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.npz"
        path.write_bytes(content)
        infos = [TensorInfo("x", (1, 6), np.dtype(np.float32))]
        try:
            samples = load_samples(path, infos)
        except EdgecError:
            return
        assert samples["x"].shape[1:] == (1, 6)
        assert np.isfinite(samples["x"]).all()


def test_an_array_header_that_asks_for_terabytes_is_refused(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 6), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(EdgecError):
        load_samples(tmp_path / "huge.npz", [TensorInfo("x", (1, 6), np.dtype(np.float32))])


def test_the_fuzzer_reaches_every_room() -> None:
    """A fuzzer whose models are all refused at the door would prove nothing: of 200, some must get all the way."""
    reached = {"opened": 0, "canonical": 0, "lowered": 0}

    @settings(max_examples=200, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(broken_models())
    def count(proto: onnx.ModelProto) -> None:
        model = opened(proto)
        if model is None:
            return
        reached["opened"] += 1
        try:
            canonicalize(model)
            reached["canonical"] += 1
            lower_to_integers(device_layout(prepare(model, Options(calibration=random_samples(model, 2)))))
            reached["lowered"] += 1
        except EdgecError:
            return

    count()
    assert reached["opened"] > 25, reached
    assert reached["lowered"] > 10, reached


@pytest.mark.parametrize("key", PRIVATE_KEYS)
def test_what_phases_tell_each_other_is_not_believed_of_a_file(key: str, tmp_path: Path) -> None:
    path = attention_block(tmp_path / "m.onnx")
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {key: '{"x": [2, 0, 1]}', "author": "somebody"})
    onnx.save(proto, path)
    model = load_model(path)
    assert {p.key: p.value for p in model.proto.metadata_props} == {"author": "somebody"}
    assert {INTERFACE_KEY, LAYOUT_KEY} == set(PRIVATE_KEYS)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e-45, 1e38])
def test_a_scale_that_is_none_is_refused(scale: float, tmp_path: Path) -> None:
    """In each place of a quantized model; below zero and not finite never pass, the others may be of a dead weight."""
    good = onnx.ModelProto.FromString(good_models()[-1])
    names = {n.input[1] for n in good.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    assert len(names) > 10
    lowered = 0
    for name in sorted(names):
        proto = onnx.ModelProto.FromString(good_models()[-1])
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        array = onnx.numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[0] = scale
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
        onnx.save(proto, tmp_path / "m.onnx")
        with contextlib.suppress(EdgecError):
            lower_to_integers(device_layout(prepare(load_model(tmp_path / "m.onnx"), Options())))
            lowered += 1
    assert lowered == 0 or (scale >= 0 and np.isfinite(scale) and lowered < len(names))
