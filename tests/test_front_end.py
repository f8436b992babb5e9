# SPDX-License-Identifier: Apache-2.0
"""A model of frames that is given samples: the front end in the program, its states, its metadata, its errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_log_mel import speech_like

from edgec.artifact import Artifact, load_artifact
from edgec.compile import Options, compile_model, make_program
from edgec.errors import UnsupportedError, UsageError
from edgec.front_end import FRONT_END_KEY, features_alone, front_end_of, given_inputs, with_front_end
from edgec.model import Model, StatePair, load_model, save_model
from edgec.operators.integer import quantize_real
from edgec.operators.log_mel import log_mel_frames
from edgec.operators.mel import LogMel
from edgec.program import evaluate
from edgec.run import open_artifact, run_artifact
from edgec.target import load_target
from edgec.verify import compare, random_samples, subject_of_artifact
from tests.command_line import done

BINS, HIDDEN, STEPS = 40, 6, 12
SHAPE = (1, BINS)


def step_model(shape: tuple[int, ...] = SHAPE, name: str = "frame", more: bool = False) -> Model:
    """h' = tanh(wx x + wh h), logits = wo h', of frames; with `more` a second input is added to the logits."""
    rng = np.random.default_rng(0)
    bins = shape[-1]
    sizes = {"wx": (HIDDEN, bins), "wh": (HIDDEN, HIDDEN), "wo": (3, HIDDEN)}
    constants = {n: rng.normal(0, 0.7 / np.sqrt(s[1]), s).astype(np.float32) for n, s in sizes.items()}
    constants["row"] = np.array([1, bins], np.int64)
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Reshape", [name, "row"], ["x"], "as_row"),
        helper.make_node("Gemm", ["x", "wx"], ["x_wx"], "x@wx", transB=1),
        helper.make_node("Gemm", ["h", "wh"], ["h_wh"], "h@wh", transB=1),
        helper.make_node("Add", ["x_wx", "h_wh"], ["sum"], "sum"),
        helper.make_node("Tanh", ["sum"], ["h2"], "tanh"),
        helper.make_node("Gemm", ["h2", "wo"], ["scores" if more else "logits"], "h2@wo", transB=1),
    ]
    inputs = [info(name, TensorProto.FLOAT, list(shape)), info("h", TensorProto.FLOAT, [1, HIDDEN])]
    if more:
        nodes.append(helper.make_node("Add", ["scores", "bias"], ["logits"], "more"))
        inputs.append(info("bias", TensorProto.FLOAT, [1, 3]))
    outputs = [info("logits", TensorProto.FLOAT, [1, 3]), info("h2", TensorProto.FLOAT, [1, HIDDEN])]
    arrays = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "step", inputs, outputs, arrays)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    return Model(proto, "step", "0" * 64, (StatePair("h", "h2"),))


def pcm(steps: int = STEPS, hop: int = 80, rate: int = 8000) -> np.ndarray:
    return speech_like(np.random.default_rng(5), steps * hop, rate).reshape(steps, 1, hop)


def calibrated(model: Model) -> Options:
    front_end = front_end_of(model)
    assert front_end is not None
    samples = pcm(60, front_end.log_mel.hop, front_end.log_mel.rate)
    return Options(calibration=features_alone(model, {front_end.samples: samples}))


FRONTS = {
    "frame=log-mel": (1, 1, BINS),
    "log-mel:rate=16000,window=400,hop=160,fft=512,bins=24,highest=7600,floor=1e-5": (1, 24),
}


@pytest.mark.parametrize(("text", "shape"), FRONTS.items(), ids=range(len(FRONTS)))
def test_samples_go_in_on_host_and_board(text: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """The program is the one without a front end, of frames that the definition makes of the whole signal."""
    plain = step_model(shape)
    model = with_front_end(plain, text)
    front_end = front_end_of(model)
    assert front_end is not None
    log_mel = front_end.log_mel
    options, samples = calibrated(model), pcm(STEPS, log_mel.hop, log_mel.rate)
    program = make_program(plain, options)
    quant = program.inputs[0].quantization
    assert quant is not None
    frames = log_mel_frames(log_mel.framed(samples.ravel()), log_mel.constants(quant.scale, quant.zero_point))
    wanted, state = [], {s.source: quantize_real(np.zeros((1, HIDDEN)), *pair(s.quantization)) for s in program.states}
    for frame in frames:
        values = evaluate(program, {program.inputs[0].tensor: frame.reshape(shape), **state})
        wanted.append(values[program.outputs[0].tensor])
        state = {s.source: values[s.result] for s in program.states}
    artifact = compile_model(model, load_target("stm32f746"), tmp_path / "f746", options)
    (port,) = artifact.inputs
    assert (port.name, port.shape, port.dtype, port.scale) == ("pcm", (1, log_mel.hop), "int16", None)
    for runner in ("host-c", "sim"):
        got = run_artifact(artifact, {"pcm": samples}, runner, raw=True)["logits"]
        np.testing.assert_array_equal(got, np.stack(wanted), err_msg=runner)


def pair(quantization: object) -> tuple[float, int]:
    return quantization.scale, quantization.zero_point  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    model = with_front_end(step_model(), "log-mel")
    folder = tmp_path_factory.mktemp("front_end") / "f746"
    return compile_model(model, load_target("stm32f746"), folder, calibrated(model))


def test_what_the_manifest_and_the_header_say(artifact: Artifact) -> None:
    states = {s["name"]: s for s in artifact.manifest["states"]}
    assert list(states) == ["h", "pcm.ring", "pcm.cursor"]
    ring, cursor = states["pcm.ring"], states["pcm.cursor"]
    assert (ring["shape"], ring["dtype"], ring["reset"], ring["in_place"]) == ([1, 3, 80], "int16", 0, True)
    assert (cursor["shape"], cursor["dtype"], cursor["reset"], cursor["in_place"]) == ([1], "int32", 0, True)
    operators = [o["op"] for o in artifact.manifest["operators"]]
    assert operators[:3] == ["ring_cursor_s32", "ring_write_s16", "log_mel_s8"]
    assert not any("copy" in op for op in operators)
    header = (artifact.path / "step.h").read_text()
    assert "int16_t *step_pcm(step_model *m);" in header
    assert "#define STEP_PCM_BYTES 160" in header
    text = (artifact.path / "step.c").read_text()
    assert "i < 240" in text[text.index("void step_reset") :]


def test_reset_save_and_restore_hold_the_samples(artifact: Artifact) -> None:
    feeds = [p.tobytes() for p in pcm(9)]
    with open_artifact(artifact, "host-c") as device:
        device.reset()
        first = [device.run([f])[0] for f in feeds]
        assert [device.run([f])[0] for f in feeds] != first
        device.reset()
        assert [device.run([f])[0] for f in feeds[:4]] == first[:4]
        kept = device.save_state()
        assert len(kept) == artifact.manifest["ram"]["state_bytes"]
        device.reset()
        device.restore_state(kept)
        assert [device.run([f])[0] for f in feeds[4:]] == first[4:]


def test_all_forms_side_by_side(artifact: Artifact) -> None:
    """Float and QDQ get the frames of the float front end; the integer forms get the samples and are equal."""
    subject = subject_of_artifact(artifact.path)
    assert [i.name for i in given_inputs(subject.graph)] == ["pcm"]
    result = compare(subject, {"pcm": pcm()})
    assert list(result.real) == ["QDQ", "definitions", "host C", "board"]
    assert not result.faults()
    assert result.distance("board", "logits").cosine > 0.999
    noise = random_samples(subject.graph, 5)["pcm"]
    assert noise.shape == (5, 1, 80)
    assert noise.std() > 500


def test_the_command_line(tmp_path: Path) -> None:
    save_model(step_model(), tmp_path / "step.onnx")
    np.savez(tmp_path / "pcm.npz", pcm=pcm(30)[:, 0])
    files = tmp_path / "step.onnx", "--calibration", tmp_path / "pcm.npz"
    done("compile", *files, "--front-end", "log-mel", "--target", "host-c", "--out", tmp_path / "out")
    done("run", tmp_path / "out", "--input", tmp_path / "pcm.npz", "--output", tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz") as results:
        assert results["logits"].shape == (30, 1, 3)
    answer = done(
        "verify", *files, "--input", tmp_path / "pcm.npz", "--front-end", "log-mel", "--target", "host-c", "--json"
    ).json
    assert answer["equal"] is True
    assert [f["form"] for f in answer["outputs"]["logits"]] == ["float", "QDQ", "definitions", "host C"]
    told = done("verify", tmp_path / "out", "--json", "--steps", "3").json
    assert told["equal"] is True


def test_a_file_may_bring_its_front_end(tmp_path: Path) -> None:
    """Metadata alone is enough, also of a quantized file, and `none` takes frames all the same."""
    model = with_front_end(step_model(), "log-mel:hop=100")
    save_model(model, tmp_path / "step.onnx")
    loaded = load_model(tmp_path / "step.onnx")
    assert front_end_of(loaded) == front_end_of(model)
    compile_model(loaded, load_target("host-c"), tmp_path / "out", calibrated(model))
    artifact = load_artifact(tmp_path / "out")
    assert [p.name for p in artifact.inputs] == ["pcm"]
    quantized = load_model(tmp_path / "out" / "model.onnx")
    assert [p.tensor for p in make_program(quantized, Options()).inputs] == ["pcm"]
    assert [p.tensor for p in make_program(with_front_end(quantized, "none"), Options()).inputs] == ["frame"]
    with pytest.raises(UsageError, match="computes in integers"):
        make_program(model, Options(precision="float32"))
    assert make_program(with_front_end(model, "none"), Options(precision="float32")).inputs[0].tensor == "frame"


def test_several_inputs() -> None:
    model = step_model(more=True)
    with pytest.raises(UsageError, match="which input"):
        with_front_end(model, "log-mel")
    fed = with_front_end(model, "frame=log-mel")
    assert [i.name for i in given_inputs(fed)] == ["pcm", "bias"]
    samples = {"pcm": pcm(20), "bias": np.random.default_rng(0).normal(size=(20, 1, 3)).astype(np.float32)}
    program = make_program(fed, Options(calibration=features_alone(fed, samples)))
    assert [p.name for p in program.inputs] == ["pcm", "bias"]


def test_an_input_called_pcm() -> None:
    model = with_front_end(step_model(name="pcm"), "log-mel")
    program = make_program(model, calibrated(model))
    assert [(p.name, program.tensors[p.tensor].type.dtype) for p in program.inputs] == [("pcm_", "int16")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mfcc", "is not a front end"),
        ("log-mel:", "is not a front end"),
        ("frame:log-mel", "is not a front end"),
        ("sound=log-mel", "'sound', which the model has not"),
        ("h=log-mel", "'h', which the model has not"),
        ("log-mel:bins=32", "32 bins a step"),
        ("log-mel:windows=400", "no 'windows'"),
        ("log-mel:window", "not name=value"),
        ("log-mel:window=x", "not name=value"),
        ("log-mel:fft=100", "fft 100"),
    ],
)
def test_options_that_are_wrong(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        with_front_end(step_model(), text)


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"frame": {}}', '{"frame": {"kind": "mfcc"}}', '{"frame": 1}',
        '{"frame": {"kind": "log-mel"}, "h": 1}', '{"frame": {"kind": "log-mel", "hop": "80"}}',
        '{"other": {"kind": "log-mel"}}',
        '{"frame": {"kind": "log-mel", "bins": 39}}',
    ],
)  # fmt: skip
def test_metadata_that_are_wrong(text: str) -> None:
    model = step_model()
    model.proto.metadata_props.add(key=FRONT_END_KEY, value=text)
    with pytest.raises(UsageError, match="front end"):
        front_end_of(model)


def test_a_setting_without_a_fixed_point_form() -> None:
    model = with_front_end(step_model(), "log-mel:floor=1e-30")
    with pytest.raises(UnsupportedError, match=r"input 'frame': .*no fixed-point form of a floor of 1e-30"):
        make_program(model, calibrated(model))


def test_the_description_goes_around() -> None:
    log_mel = dataclasses.replace(LogMel(), hop=100, floor=1e-5)
    assert LogMel.of(json.loads(json.dumps(dataclasses.asdict(log_mel)))) == log_mel
