# SPDX-License-Identifier: Apache-2.0
"""The command line from outside: help, the one JSON object, exit codes; bad input says one thing and leaves nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgec.target import load_target
from tests.command_line import Answer, done, edgec, tree
from tests.conftest import Compiled
from tests.small_models import IMAGE, Graph, attention_block, patch_classifier, samples

VERBS = ("doctor", "models", "targets", "export", "quantize", "compile", "run", "profile", "bench", "plan")

# The interface that scripts rely on; a key may be added, none may go.
COMPILE_KEYS = {
    "": {"schema", "model", "target", "ram", "flash", "plan", "kernels"},
    "model": {"name", "sha256", "macs"},
    "ram": {"arena_bytes", "state_bytes", "stack_bytes", "static_bytes", "total_bytes", "bench_bytes"},
    "flash": {"code_bytes", "weights_bytes", "total_bytes", "bench_bytes"},
    "plan": {"arena_bytes", "placement_bound_bytes", "order_bound_bytes", "schedule_bound_bytes", "peak_at"},
}
PROFILE_KEYS = {"measured_on", "instructions", "flash_bytes_read", "stack_bytes", "operators"}
OPERATOR_KEYS = {"name", "op", "instructions", "macs", "kernel", "flash_bytes_read", "cycles_estimate"}


# ---- help and JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    answer = done(verb, "--help")
    assert f"Example: edgec {verb}" in " ".join(answer.out.split())


def test_help_names_every_verb_and_exit_code() -> None:
    text = " ".join(done("--help").out.split())
    assert all(verb in text for verb in VERBS)
    assert "0 done, 2 usage, 3 model not supported, 4 does not fit, 5 device" in text


def test_compile_prints_the_manifest_as_one_object_with_the_promised_keys(patches_f746: Compiled) -> None:
    printed = patches_f746.answer.json
    assert patches_f746.answer.out == (patches_f746.path / "manifest.json").read_text()
    for part, keys in COMPILE_KEYS.items():
        assert keys <= (printed[part] if part else printed).keys()
    assert set(printed["kernels"].values()) <= {"tvm", "hand"}
    assert printed["model"]["name"] == "patches"
    assert printed["target"] == "stm32f746"
    ram, flash = printed["ram"], printed["flash"]
    assert ram["total_bytes"] == sum(ram[f"{k}_bytes"] for k in ("arena", "state", "stack", "static"))
    assert flash["total_bytes"] == flash["code_bytes"] + flash["weights_bytes"]
    assert printed["plan"]["placement_bound_bytes"] <= printed["plan"]["arena_bytes"] == ram["arena_bytes"]


def test_profile_prints_one_object_with_the_promised_keys(patches_f746: Compiled) -> None:
    printed = done("profile", patches_f746.path, "--json").json
    assert printed.keys() >= PROFILE_KEYS
    assert all(o.keys() >= OPERATOR_KEYS for o in printed["operators"])
    assert printed["measured_on"] == "simulator"
    assert sum(o["instructions"] for o in printed["operators"]) + printed["overhead"] == printed["instructions"]
    assert 0 < printed["stack_bytes"] <= patches_f746.answer.json["ram"]["stack_bytes"]
    manifest = patches_f746.answer.json
    assert {o["name"]: o["kernel"] for o in printed["operators"]} == manifest["kernels"]
    assert sum(o["macs"] for o in printed["operators"]) == manifest["model"]["macs"]


def test_profile_on_this_machine_measures_seconds_and_claims_no_more(patches_f746: Compiled) -> None:
    printed = done("profile", patches_f746.path, "--runner", "host-c", "--json").json
    assert printed["measured_on"] == "host"
    assert printed["seconds"] > 0
    assert printed["instructions"] is printed["stack_bytes"] is None
    assert "host" in done("profile", patches_f746.path, "--runner", "host-c").out


@pytest.mark.parametrize("verb", ["doctor", "models", "targets"])
def test_lists_as_one_object_and_as_a_table(verb: str) -> None:
    assert isinstance(done(verb, "--json").json, dict)
    assert len(done(verb).out.splitlines()) > 3


def test_kernels_tvm_builds_without_a_hand_written_one_and_with_equal_bits(
    patches_f746: Compiled, tmp_path: Path
) -> None:
    out, argument = tmp_path / "tvm", ("--calibration", patches_f746.samples, "--target", "stm32f746")
    manifest = done("compile", patches_f746.model, *argument, "--kernels", "tvm", "--out", out, "--json").json
    assert set(manifest["kernels"].values()) == {"tvm"}
    assert "hand" in patches_f746.answer.json["kernels"].values()
    for folder in (out, patches_f746.path):
        done("run", folder, "--input", patches_f746.samples, "--output", tmp_path / f"{folder.name}.npz", "--raw")
    a, b = np.load(tmp_path / "tvm.npz")["logits"], np.load(tmp_path / "stm32f746.npz")["logits"]
    np.testing.assert_array_equal(a, b)


def test_dump_holds_what_each_phase_hands_on(step_f746: Compiled, tmp_path: Path) -> None:
    argument = ("--calibration", step_f746.samples, "--target", "host-c", "--out", tmp_path / "out")
    done("compile", step_f746.model, *argument, "--dump", tmp_path / "dump")
    names = sorted(p.name for p in (tmp_path / "dump").iterdir())
    assert names == ["1-canonical.onnx", "2-quantized.onnx", "3-integer.onnx", "4-relax.py", "5-plan.txt"]
    onnx.checker.check_model(onnx.load(tmp_path / "dump" / "2-quantized.onnx"))


def test_a_quantized_file_compiles_to_the_same_bits_as_its_float_model(step_host: Compiled, tmp_path: Path) -> None:
    quantized = tmp_path / "deep" / "er" / "step.onnx"
    report = done("quantize", step_host.model, "--calibration", step_host.samples, "--out", quantized, "--json").json
    assert report["bytes"] == quantized.stat().st_size
    done("compile", quantized, "--target", "host-c", "--out", tmp_path / "q")
    for folder, name in ((tmp_path / "q", "a"), (step_host.path, "b")):
        done("run", folder, "--input", step_host.samples, "--output", tmp_path / f"{name}.npz", "--raw")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["y"], np.load(tmp_path / "b.npz")["y"])


def test_compiling_again_replaces_an_artifact(step_host: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for precision in ("int8", "float32"):
        argument = ("--calibration", step_host.samples, "--precision", precision)
        done("compile", step_host.model, "--target", "host-c", "--out", out, *argument)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert json.loads((out / "manifest.json").read_text())["inputs"][0]["dtype"] == "float32"


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, patch_model: Path) -> Path:
    """A folder with a good model and good samples, to spoil."""
    for name in ("patches.onnx", "samples.npz"):
        shutil.copy(patch_model / name, tmp_path)
    return tmp_path


def refused(desk: Path, code: int, *arguments: object) -> Answer:
    """The command fails with this code, one message (as JSON too), no traceback; the desk is as it was."""
    before = tree(desk)
    answer = edgec(*arguments, "--json")
    assert (answer.code, answer.err[:7]) == (code, "error: "), answer.err
    assert answer.json["exit_code"] == code
    assert answer.err.startswith(f"error: {answer.json['error']['what']}")
    assert tree(desk) == before
    plain = edgec(*arguments)
    assert (plain.code, plain.out) == (code, "")
    assert plain.err.startswith("error: ")
    assert tree(desk) == before
    return plain


def compiling(desk: Path, **changes: object) -> list[object]:
    """Arguments of a good compile, with changes by option; None takes an option away."""
    options: dict[str, object] = {
        "target": "stm32f746", "calibration": desk / "samples.npz", "out": desk / "new" / "out"
    }  # fmt: skip
    model = changes.pop("model", desk / "patches.onnx")
    options.update(changes)
    given = {f"--{key.replace('_', '-')}": value for key, value in options.items() if value is not None}
    return ["compile", model, *(part for pair in given.items() for part in pair)]


def other_model(desk: Path, graph: Graph, **kwargs: object) -> Path:
    return graph.save(desk / "other.onnx", **kwargs)  # type: ignore[arg-type]


BAD_ARGUMENTS: dict[str, tuple[dict[str, object], str]] = {
    "an unknown target": ({"target": "stm32f747"}, "--target stm32f746"),
    "a target file that is not there": ({"target": "none.toml"}, "none.toml"),
    "an unknown precision": ({"precision": "int4"}, "int4"),
    "an unknown kernel choice": ({"kernels": "fast"}, "fast"),
    "an unknown option": ({"speed": "9"}, "--speed"),
    "no target": ({"target": None}, "--target"),
    "no output": ({"out": None}, "--out"),
    "no model file": ({"model": "none.onnx"}, "none.onnx"),
    "a folder as model": ({"model": "/"}, "folder"),
    "no calibration": ({"calibration": None}, "--calibration"),
    "no calibration file": ({"calibration": "none.npz"}, "none.npz"),
    "a folder as calibration": ({"calibration": "/"}, "npz"),
    "no shape": ({"input_shape": "image"}, "--input-shape"),
    "a shape of letters": ({"input_shape": "image=a,b"}, "--input-shape"),
    "a shape of another rank": ({"input_shape": "image=1,3,12"}, "image"),
    "a shape for no input": ({"input_shape": "picture=1,3,12,8"}, "picture"),
    "a state of no name": ({"state": "image"}, "--state"),
    "a state of unequal shapes": ({"state": "image:logits"}, "differ"),
    "a state that is not there": ({"state": "h:h_next"}, "h"),
    "an output below a file": ({"out": "/dev/null/out"}, "cannot write"),
    "an output where nobody may write": ({"out": "/proc/out"}, "cannot write"),
    "an output name that is too long": ({"out": "/tmp/" + 300 * "x"}, "cannot write"),
    "a dump below a file": ({"dump": "/dev/null/dump"}, "--dump"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_ARGUMENTS)
def test_a_wrong_argument_is_a_usage_error(what: str, desk: Path) -> None:
    changes, told = BAD_ARGUMENTS[what]
    assert told in refused(desk, 2, *compiling(desk, **changes)).err


def _npz(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


GOOD = np.zeros((2, *IMAGE[1:]), np.float32)
BAD_SAMPLES: dict[str, tuple[Callable[[Path], None], str]] = {
    "another name": (lambda p: _npz(p, picture=GOOD), "picture"),
    "one name too many": (lambda p: _npz(p, image=GOOD, picture=GOOD), "picture"),
    "channels last": (lambda p: _npz(p, image=GOOD.transpose(0, 2, 3, 1)), "[2, 12, 8, 3]"),
    "no sample": (lambda p: _npz(p, image=GOOD[:0]), "sample"),
    "not a number": (lambda p: _npz(p, image=np.full_like(GOOD, np.nan)), "finite"),
    "infinite": (lambda p: _npz(p, image=np.full_like(GOOD, np.inf)), "finite"),
    "text": (lambda p: _npz(p, image=np.full(GOOD.shape, "x")), "numeric"),
    "objects": (lambda p: _npz(p, image=np.full(GOOD.shape, None)), "pickle"),
    "no archive": (lambda p: p.write_bytes(b"PK\x03\x04 not really") and None, "npz"),
    "half an archive": (lambda p: p.write_bytes(p.read_bytes()[:1000]) and None, "npz"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_SAMPLES)
def test_wrong_samples_are_usage_errors_when_calibrating_and_when_running(
    what: str, desk: Path, patches_f746: Compiled
) -> None:
    spoil, told = BAD_SAMPLES[what]
    spoil(desk / "samples.npz")
    assert told in refused(desk, 2, *compiling(desk)).err
    run = ("run", patches_f746.path, "--input", desk / "samples.npz", "--output", desk / "out.npz")
    assert told in refused(desk, 2, *run).err
    profile = ("profile", patches_f746.path, "--input", desk / "samples.npz")
    assert told in refused(desk, 2, *profile).err


def test_a_truncated_model_is_a_usage_error_wherever_it_ends(desk: Path) -> None:
    whole = (desk / "patches.onnx").read_bytes()
    for size in (0, 1, 17, len(whole) // 2, len(whole) - 1):
        (desk / "patches.onnx").write_bytes(whole[:size])
        refused(desk, 2, *compiling(desk))
        refused(desk, 2, "quantize", desk / "patches.onnx", "--out", desk / "q.onnx")


def test_external_data_outside_the_folder_is_never_read(desk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "weights.bin"
    outside.write_bytes(bytes(1 << 16))
    proto = onnx.load(desk / "patches.onnx")
    tensor = proto.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for location in (str(outside), os.path.relpath(outside, desk)):
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value=str(size))
        (desk / "patches.onnx").write_bytes(proto.SerializeToString())
        assert "outside the model's folder" in refused(desk, 2, *compiling(desk)).err


def _unsupported(desk: Path) -> Path:
    g = Graph()
    t = g.op("ReduceProd", "x", g.integers(1), keepdims=1, name="blocks.0.product")
    t = g.op("Add", "x", t)
    t = g.op("Hardmax", t, name="blocks.1.hardmax")
    g.op("LpPool", t, kernel_shape=[2, 2], strides=[2, 2], name="blocks.2.pool", out="y")
    return other_model(desk, g, inputs={"x": (1, 2, 4, 4)}, outputs={"y": (1, 2, 2, 2)})


def test_unsupported_operators_are_all_named_at_once_before_any_work(desk: Path) -> None:
    model = _unsupported(desk)
    samples(desk / "samples.npz", 2, x=(1, 2, 4, 4))
    start = time.monotonic()
    for verb in (compiling(desk, model=model), compiling(desk, model=model, calibration=None),
                 ["quantize", model, "--calibration", desk / "samples.npz", "--out", desk / "q.onnx"]):  # fmt: skip
        error = refused(desk, 3, *verb).err
        assert all(name in error for name in ("blocks.0.product", "blocks.1.hardmax", "blocks.2.pool"))
        assert all(op in error for op in ("ReduceProd", "Hardmax", "LpPool"))
    assert time.monotonic() - start < 10


def _double(g: Graph) -> None:
    g.op("Cast", g.op("Exp", g.op("Cast", "x", to=TensorProto.DOUBLE), name="the node"), to=TensorProto.FLOAT, out="y")


def _six_axes(g: Graph) -> None:
    t = g.op("Reshape", "x", g.integers(1, 1, 2, 2, 2, 3))
    t = g.op("Conv", t, g.random(1, 1, 1, 1, 1, 1), name="the node")
    g.op("Reshape", t, g.integers(1, 4, 6), out="y")


@pytest.mark.parametrize("build", [_double, _six_axes])
def test_what_float32_cannot_compute_is_named(build: Callable[[Graph], None], desk: Path) -> None:
    g = Graph()
    build(g)
    model = other_model(desk, g, inputs={"x": (1, 4, 6)}, outputs={"y": (1, 4, 6)})
    error = refused(desk, 3, *compiling(desk, model=model, precision="float32", calibration=None)).err
    assert "the node" in error


def test_a_type_that_tvm_brings_in_is_told(desk: Path) -> None:
    g = Graph()
    depth, ends = g.const(np.array(3, np.int64)), g.const(np.array([0, 1], np.float32))
    g.op("OneHot", g.op("Cast", "x", to=TensorProto.INT64), depth, ends, out="y")
    model = other_model(desk, g, inputs={"x": (1, 4)}, outputs={"y": (1, 4, 3)})
    error = refused(desk, 3, *compiling(desk, model=model, precision="float32", calibration=None)).err
    assert "float64" in error


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_an_output_that_nothing_computes_is_named(precision: str, desk: Path) -> None:
    g = Graph()
    g.op("Relu", "x", out="y")
    g.op("Mul", g.random(2), g.random(2), out="fixed")
    model = other_model(desk, g, inputs={"x": (1, 4)}, outputs={"y": (1, 4), "fixed": (2,)})
    samples(desk / "samples.npz", 2, x=(1, 4))
    assert "'fixed'" in refused(desk, 3, *compiling(desk, model=model, precision=precision)).err
    g = Graph()
    g.op("Slice", "x", g.integers(0), g.integers(0), g.integers(1), out="none")
    model = other_model(desk, g, inputs={"x": (1, 4)}, outputs={"none": (1, 0)})
    assert "'none'" in refused(desk, 3, *compiling(desk, model=model, precision=precision)).err


def test_a_custom_operator_is_not_supported(desk: Path) -> None:
    proto = onnx.load(desk / "patches.onnx")
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(proto, desk / "patches.onnx")
    assert "com.example" in refused(desk, 3, *compiling(desk)).err


def _target(desk: Path, *changes: tuple[str, str]) -> Path:
    text = load_target("stm32f407").path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (desk / "board.toml").write_text(text)
    return desk / "board.toml"


def test_a_target_with_overlapping_regions_is_a_usage_error(desk: Path) -> None:
    target = _target(desk, ("origin = 0x1000_0000", "origin = 0x2001_0000"))
    error = refused(desk, 2, *compiling(desk, target=target)).err
    assert "sram" in error
    assert "ccm" in error
    assert "overlap" in error


@pytest.mark.parametrize("name", ['"c c"', "'a\"; } /*'", '"../x"', '"*"', '""'])
def test_a_memory_whose_name_would_break_out_of_the_linker_script(name: str, desk: Path) -> None:
    target = _target(desk, ("ccm   =", f"{name} ="))
    assert "not a name" in refused(desk, 2, *compiling(desk, target=target)).err


def test_a_target_may_be_called_anything(desk: Path) -> None:
    target = _target(desk, ('"stm32f407"', '"x */ #error \\n \\\\ %n"'))
    done(*compiling(desk, target=target))


def test_a_model_that_does_not_fit_ram_says_need_have_over_where_and_what_to_try(desk: Path) -> None:
    target = _target(desk, ('size = "64K",  kind = "ram"', 'size = "1K",  kind = "ram"'), ('"128K"', '"8K"'))
    model = attention_block(desk / "other.onnx", tokens=64, width=32)
    samples(desk / "samples.npz", 2, x=(1, 64, 32))
    error = refused(desk, 4, *compiling(desk, model=model, target=target)).err
    told = re.match(r"error: arena needs ([\d,]+) B, stm32f407.* has ([\d,]+) B: over by ([\d,]+) B at (.+)\n", error)
    assert told, error
    needs, has, over = (int(number.replace(",", "")) for number in told.groups()[:3])
    assert needs - has == over > 0
    nodes = told[4].split(" head ")[0].split("+")  # a step may do several nodes' work, for one head at a time
    assert set(nodes) <= {n.name for n in onnx.load(model).graph.node}
    assert "try    --target stm32" in error


def test_weights_that_do_not_fit_flash_say_need_have_and_over(desk: Path) -> None:
    target = _target(desk, ('size = "1M"', 'size = "64K"'))
    model = patch_classifier(desk / "other.onnx", width=256)
    error = refused(desk, 4, *compiling(desk, model=model, target=target)).err
    assert "flash" in error
    assert "over by" in error


def test_code_that_does_not_fit_flash_is_told_by_the_linker(desk: Path) -> None:
    target = _target(desk, ('size = "1M"', 'size = "4K"'))
    error = refused(desk, 4, *compiling(desk, target=target)).err
    assert "flash" in error
    assert "over by" in error


def test_an_output_that_is_no_artifact_is_left_alone(desk: Path) -> None:
    (desk / "site").mkdir()
    (desk / "site" / "manifest.json").write_text('{"name": "a web application"}')
    (desk / "notes").mkdir()
    (desk / "notes" / "mine.txt").write_text("mine")
    for out in (desk / "site", desk / "notes", desk / "patches.onnx", desk):
        assert "not an edgec artifact" in refused(desk, 2, *compiling(desk, out=out)).err


def test_quantize_writes_no_file_where_a_folder_is_or_nobody_may(desk: Path) -> None:
    (desk / "q.onnx").mkdir()
    arguments = ("quantize", desk / "patches.onnx", "--calibration", desk / "samples.npz", "--out")
    for out in (desk / "q.onnx", "/dev/null/q.onnx", "/proc/new/q.onnx"):
        assert "cannot write" in refused(desk, 2, *arguments, out).err


def test_export_writes_no_file_where_a_folder_is_or_nobody_may(desk: Path) -> None:
    for out in (desk, "/dev/null/m.onnx", "/proc/new/m.onnx"):
        assert "cannot write" in refused(desk, 2, "export", "recurrent-16-64-32", "--out", out).err
    assert "no model named" in refused(desk, 2, "export", "recurrent", "--out", desk / "m.onnx").err
    checkpoint = ("--checkpoint", desk / "samples.npz")
    assert "checkpoint" in refused(desk, 2, "export", "recurrent-16-64-32", "--out", desk / "m.onnx", *checkpoint).err
    printed = done("export", "recurrent-16-64-32", "--out", desk / "new" / "m.onnx", "--json").json
    assert printed["bytes"] == (desk / "new" / "m.onnx").stat().st_size


def test_a_cache_that_cannot_be_written_is_told(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert "XDG_CACHE_HOME" in refused(desk, 5, *compiling(desk)).err


def test_run_writes_no_file_where_a_folder_is_or_nobody_may(desk: Path, patches_f746: Compiled) -> None:
    arguments = ("run", patches_f746.path, "--input", desk / "samples.npz", "--output")
    for out in (desk, "/dev/null/r.npz", "/proc/new/r.npz"):
        assert "cannot write" in refused(desk, 2, *arguments, out).err


def test_run_makes_the_folder_of_its_output(desk: Path, patches_f746: Compiled) -> None:
    out = desk / "deep" / "er" / "r.npz"
    printed = done("run", patches_f746.path, "--input", desk / "samples.npz", "--output", out, "--json").json
    assert printed == {"output": str(out), "samples": 12, "outputs": {"logits": [12, 1, 5]}}


# ---- artifacts that are not what they seem ------------------------------------------------------------------------


@pytest.fixture
def copy(desk: Path, patches_f746: Compiled) -> Path:
    """A copy of an artifact, to spoil."""
    return Path(shutil.copytree(patches_f746.path, desk / "artifact"))


def running(desk: Path, artifact: Path, *more: object) -> list[object]:
    return ["run", artifact, "--input", desk / "samples.npz", "--output", desk / "out.npz", *more]


def test_a_folder_that_is_no_artifact(desk: Path, copy: Path) -> None:
    for text in (None, "", "[]", "{}", '{"schema": 7}', "\udcff"):
        (copy / "manifest.json").unlink(missing_ok=True)
        if text is not None:
            (copy / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
        assert "not an edgec artifact" in refused(desk, 2, *running(desk, copy)).err
        refused(desk, 2, "profile", copy)
    refused(desk, 2, *running(desk, desk / "none"))
    refused(desk, 2, *running(desk, desk / "patches.onnx"))


def test_a_manifest_of_another_schema_or_with_parts_missing(desk: Path, copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "schema": "edgec.manifest/99"}))
    assert "another manifest schema" in refused(desk, 2, *running(desk, copy)).err
    for key in ("inputs", "prefix", "ram", "model_id"):
        (copy / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != key}))
        assert f"{key} is missing" in refused(desk, 2, *running(desk, copy)).err
    for changes in ({"inputs": [{"name": "image"}]}, {"inputs": 7}, {"states": None}, {"operators": [1]}, {"ram": 1}):
        (copy / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        assert "damaged" in refused(desk, 2, *running(desk, copy)).err
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / "target.toml").unlink()
    assert "target.toml is missing" in refused(desk, 2, *running(desk, copy)).err


@pytest.mark.parametrize("damage", ["missing", "empty", "no ELF", "half", "another program"])
def test_a_damaged_firmware_is_a_device_error(damage: str, desk: Path, copy: Path, step_f746: Compiled) -> None:
    elf = copy / "firmware.elf"
    whole = elf.read_bytes()
    elf.unlink()
    if damage != "missing":
        other = (step_f746.path / "firmware.elf").read_bytes()
        elf.write_bytes(
            {"empty": b"", "no ELF": b"x" * 5000, "half": whole[: len(whole) // 2], "another program": other}[damage]
        )
    refused(desk, 5, *running(desk, copy))
    refused(desk, 5, "profile", copy)


def test_firmware_that_jumps_off_memory_is_a_device_error_that_says_where(desk: Path, copy: Path) -> None:
    from elftools.elf.elffile import ELFFile

    elf = copy / "firmware.elf"
    with elf.open("rb") as file:
        image = ELFFile(file)
        symbol = image.get_section_by_name(".symtab").get_symbol_by_name("patches_run")[0]
        text = image.get_section(symbol["st_shndx"])
        at = text["sh_offset"] + (symbol["st_value"] & ~1) - text["sh_addr"]
    code = bytearray(elf.read_bytes())
    code[at : at + 4] = bytes.fromhex("00 20 00 68")  # movs r0, #0; ldr r0, [r0]: flash is not mirrored there
    code[at + 4 : at + 6] = bytes.fromhex("00 de")  # udf
    elf.write_bytes(code)
    assert "patches_run" in refused(desk, 5, *running(desk, copy)).err


def test_a_damaged_host_library_is_a_device_error(desk: Path, step_host: Compiled) -> None:
    copy = Path(shutil.copytree(step_host.path, desk / "host"))
    samples(desk / "samples.npz", 3, x=(1, 6))
    (copy / "host.so").write_bytes(b"\x7fELF")
    refused(desk, 5, *running(desk, copy))
    (copy / "host.so").unlink()
    refused(desk, 5, *running(desk, copy))


def test_a_host_program_does_not_run_on_a_board(desk: Path, step_host: Compiled) -> None:
    samples(desk / "samples.npz", 3, x=(1, 6))
    assert "--runner host-c" in refused(desk, 2, *running(desk, step_host.path, "--runner", "sim")).err


def test_host_library_of_generated_code_that_does_not_compile(desk: Path, copy: Path) -> None:
    shutil.rmtree(copy / "host", ignore_errors=True)  # what an earlier run has made
    (copy / "patches.c").write_text("#error broken\n")
    refused(desk, 5, *running(desk, copy, "--runner", "host-c"))


def test_two_runs_to_one_file_leave_the_second(desk: Path, copy: Path) -> None:
    done(*running(desk, copy))
    first = np.load(desk / "out.npz")["logits"]
    done(*running(desk, copy, "--raw"))
    second = np.load(desk / "out.npz")["logits"]
    assert (first.dtype, second.dtype) == (np.float32, np.int8)


# ---- the installed program, in a process of its own ------------------------------------------------------------------


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgec.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_exit_codes_and_silence_of_the_program(desk: Path, patches_f746: Compiled) -> None:
    assert process("targets").returncode == 0
    bad = process(*compiling(desk, target="stm32f747"))
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "Traceback" not in bad.stderr
    listed = process("profile", patches_f746.path, "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    json.loads(listed.stdout)


def test_without_unicorn_the_simulator_says_what_to_install(desk: Path, patches_f746: Compiled) -> None:
    block = "import sys\nsys.modules['unicorn'] = None\n"
    (desk / "block").mkdir()
    (desk / "block" / "sitecustomize.py").write_text(block)
    path = os.pathsep.join([str(desk / "block"), str(Path(__file__).resolve().parents[1])])
    answer = process(*running(desk, patches_f746.path), PYTHONPATH=path)
    assert answer.returncode == 5
    assert "edgec[sim]" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (desk / "out.npz").exists()
    host = process(*running(desk, patches_f746.path, "--runner", "host-c"), PYTHONPATH=path)
    assert host.returncode == 0, host.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_compile_leaves_nothing_behind(sent: signal.Signals, desk: Path) -> None:
    before = tree(desk)
    command = [sys.executable, "-m", "edgec.cli", *map(str, compiling(desk))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as begun:
        deadline = time.monotonic() + 60
        while not any((desk / "new").glob(".out.*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        begun.send_signal(sent)
        _, errors = begun.communicate(timeout=60)
    assert begun.returncode == 130, errors
    assert errors.strip() == "interrupted; nothing was left half-written"
    assert tree(desk) == before
