# SPDX-License-Identifier: Apache-2.0
"""The C that comes out: no name breaks it, compilers have nothing to say, nothing is global, two uses do not meet."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from edgec.artifact import load_artifact
from edgec.build import host_sources, includes
from edgec.device.toolchain import build_host_library, compile_objects, host_flags, zig_binary
from edgec.resources import runtime_dir
from edgec.run import run_artifact
from edgec.target import load_target
from tests.command_line import done, tree
from tests.conftest import Compiled
from tests.small_models import Graph, attention_block, reference, samples

STRICT = ("-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror", "-pedantic")
# What a model may need from outside: the C library's memory functions, and what is its own.
LIBRARY = {"memset", "memcpy", "memmove"}

HOSTILE = (
    "*/ int broken; /*", "// end \\", "??/", "new\nline", "quo\"te", "it's %s %n", "\\", "ünïcödé →", "日本",
    "int", "class", "run", "init", "reset", "model", "arena", "state", "weights", "w", "m", "memcpy", "a.b",
    "a b", "a/b", "A_B", "a_b_2", "9lives", "_", "x" * 500, "x" * 499 + "y", "x" * 500 + "é", "EDGEC_OK",
    "size_t", "uint8_t", "NULL", "tanhf", "p0", "i1", "i1_", "_Bool", "../../escape", "#define run", "\t",
    "file", "%d", "__LINE__", "table_s8_6x256", "relu", "\\u0041", "\\\n", "trigraph ??/\n", "\x7f\x1b[2J",
)  # fmt: skip


# ---- names --------------------------------------------------------------------------------------------------------


def _hostile_model(folder: Path, names: tuple[str, ...], file: str) -> tuple[Path, Path]:
    """y_i = tanh(x_i) under hostile names of inputs, outputs, nodes, hidden values and constants."""
    g = Graph(4)
    inputs, outputs, arrays = {}, {}, {}
    rng = np.random.default_rng(1)
    for i, name in enumerate(names):
        other = names[(i + 1) % len(names)]
        g.constants[f"{other} weight"] = rng.normal(size=(6, 3)).astype(np.float32)
        hidden = g.op("MatMul", name, f"{other} weight", name=name, out=f"{name} hidden")
        g.op("Tanh", hidden, name=f"{other} tanh", out=f"{other} out")
        inputs[name], outputs[f"{other} out"] = (1, 6), (1, 3)
        arrays[name] = rng.normal(size=(9, 6)).astype(np.float32)
    path = g.save(folder / file, inputs, outputs)
    _savez(folder / "samples.npz", arrays)
    return path, folder / "samples.npz"


def _savez(path: Path, arrays: dict[str, np.ndarray]) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:  # numpy.savez has parameters whose names an array cannot bear
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)


@pytest.mark.parametrize(("precision", "target"), [("int8", "stm32f746"), ("float32", "host-c")])
def test_no_name_of_a_model_breaks_or_changes_its_program(target: str, precision: str, tmp_path: Path) -> None:
    model, given = _hostile_model(tmp_path, HOSTILE, "*|??| \\ 'quo\"te' int.onnx")
    options = ("--calibration", given, "--precision", precision, "--target", target)
    done("compile", model, *options, "--out", tmp_path / "out")
    runs = {"host-c"} | ({"sim"} if target != "host-c" else set())
    expected = reference(model, dict(np.load(given)))
    for runner in runs:
        done("run", tmp_path / "out", "--input", given, "--output", tmp_path / "r.npz", "--runner", runner)
        results = np.load(tmp_path / "r.npz")
        assert set(results.files) == set(expected)
        tolerance = 1e-6 if precision == "float32" else 0.05  # two names mixed up: wrong by about 1
        for name, wanted in expected.items():
            assert np.sqrt(np.mean((results[name] - wanted.reshape(results[name].shape)) ** 2)) < tolerance, name
    assert compile_strictly(tmp_path / "out") == ""


@pytest.mark.parametrize("name", ["string", "stdint", "edgec", "edgec_kernels", "board", "int", "日本"])
def test_a_model_may_have_the_name_of_a_header(name: str, tmp_path: Path) -> None:
    g = Graph(5)
    g.op("Tanh", g.dense("x", 6, 3), out="y")
    model = g.save(tmp_path / f"{name}.onnx", {"x": (1, 6)}, {"y": (1, 3)})
    given = samples(tmp_path / "samples.npz", 8, x=(1, 6))
    done("compile", model, "--target", "stm32f407", "--calibration", given, "--out", tmp_path / "out")
    done("run", tmp_path / "out", "--input", given, "--output", tmp_path / "r.npz")
    wanted = reference(model, dict(np.load(given)))["y"]
    np.testing.assert_allclose(np.load(tmp_path / "r.npz")["y"], wanted, atol=0.05)


def test_an_output_may_have_the_name_of_a_generated_kernel(tmp_path: Path) -> None:
    g = Graph(6)
    t = g.op("Exp", "x", out="exp")
    g.op("Softmax", t, axis=-1, out="softmax")
    model = g.save(tmp_path / "m.onnx", {"x": (1, 6)}, {"exp": (1, 6), "softmax": (1, 6)})
    given = samples(tmp_path / "samples.npz", 3, x=(1, 6))
    done("compile", model, "--target", "host-c", "--precision", "float32", "--out", tmp_path / "out")
    done("run", tmp_path / "out", "--input", given, "--output", tmp_path / "r.npz")
    for name, wanted in reference(model, dict(np.load(given))).items():
        np.testing.assert_allclose(np.load(tmp_path / "r.npz")[name], wanted, rtol=1e-5)


# ---- compilers ----------------------------------------------------------------------------------------------------


def generated(folder: Path) -> list[Path]:
    """Every C file that a user compiles."""
    return [s.path for s in host_sources(folder, json.loads((folder / "manifest.json").read_text())["prefix"])]


def compile_strictly(folder: Path, flags: tuple[str, ...] = host_flags()) -> str:
    """What clang says with every warning that we promise to be free of."""
    paths = [arg for path in includes(folder) for arg in ("-I", str(path))]
    command = [str(zig_binary()), "clang", *flags, *STRICT, "-Wno-unused-command-line-argument", "-fsyntax-only"]
    files = [f for f in generated(folder) if f.suffix == ".c"]
    return subprocess.run([*command, *paths, *map(str, files)], capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("which", ["patches_f746", "step_f746"])
def test_clang_has_nothing_to_say(which: str, request: pytest.FixtureRequest) -> None:
    assert compile_strictly(request.getfixturevalue(which).path) == ""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine")
@pytest.mark.parametrize("which", ["patches_f746", "step_f746"])
def test_gcc_has_nothing_to_say(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(which).path
    paths = [arg for path in includes(folder) for arg in ("-I", str(path))]
    command = ["gcc", "-O2", *STRICT, *paths, "-c"]
    for file in generated(folder):
        told = subprocess.run(
            [*command, str(file), "-o", str(tmp_path / "o.o")], capture_output=True, text=True, check=False
        )
        assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine")
def test_gcc_has_nothing_to_say_about_any_kernel(tmp_path: Path) -> None:
    """On a machine that is no microcontroller, as when a package of a model is built for tests."""
    runtime = runtime_dir()
    kernels = sorted((runtime / "kernels").rglob("*.c"))
    assert kernels
    folders = {runtime / "include", *(path.parent for path in kernels)}
    command = ["gcc", "-O1", *STRICT, *(f"-I{folder}" for folder in sorted(folders)), "-c", *map(str, kernels)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("order", ["patches step", "step patches"])
def test_headers_of_two_models_are_cpp(order: str, patches_f746: Compiled, step_f746: Compiled, tmp_path: Path) -> None:
    folders = {"patches": patches_f746.path, "step": step_f746.path}
    lines = [f'#include "{folders[name] / name}.h"' for name in order.split()]
    lines += ["int main() { patches_model a{}; step_model b{}; (void)a; (void)b; return PATCHES_ARENA_BYTES > 0; }"]
    (tmp_path / "user.cpp").write_text("\n".join(lines))
    command = [str(zig_binary()), "clang", "-x", "c++", *host_flags(), *STRICT, "-std=c++17", "-fsyntax-only"]
    command = [c for c in command if c not in ("-std=c11", "-Wstrict-prototypes")]
    command += ["-Wno-unused-command-line-argument", "-I", str(step_f746.path / "runtime" / "include")]
    told = subprocess.run([*command, str(tmp_path / "user.cpp")], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    for name, folder in folders.items():
        included = set(re.findall(r"#include (\S+)", (folder / f"{name}.h").read_text()))
        assert included == {"<stddef.h>", "<stdint.h>", '"edgec.h"'}


@pytest.mark.parametrize("which", ["patches_f746", "step_f746"])
def test_objects_hold_no_writable_data_and_need_only_memory_functions(
    which: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which).path
    sources = [s for s in host_sources(folder, json.loads((folder / "manifest.json").read_text())["prefix"])
               if s.group in ("model", "kernels")]  # fmt: skip
    defined, needed = set(), set()
    for path in compile_objects(sources, includes(folder), host_flags()):
        with path.open("rb") as file:
            elf = ELFFile(file)
            for section in elf.iter_sections():
                if section["sh_flags"] & 1 and not section.name.startswith(".data.rel.ro"):  # SHF_WRITE
                    assert section["sh_size"] == 0, f"{path.name}: {section.name}"
            for table in elf.iter_sections():
                if isinstance(table, SymbolTableSection):
                    for s in table.iter_symbols():
                        if s["st_info"]["bind"] != "STB_LOCAL":
                            (needed if s["st_shndx"] == "SHN_UNDEF" else defined).add(s.name)
    assert needed - defined <= LIBRARY
    prefix = json.loads((folder / "manifest.json").read_text())["prefix"]
    assert all(name.startswith((f"{prefix}_", "edgec_")) for name in defined)


def test_sources_use_neither_heap_nor_streams(patches_f746: Compiled, step_f746: Compiled) -> None:
    for folder in (patches_f746.path, step_f746.path):
        for file in generated(folder):
            assert not re.search(r"\b(malloc|calloc|realloc|free|printf|puts|FILE|stdio\.h|alloca)\b", file.read_text())


# ---- two uses in one program ----------------------------------------------------------------------------------------

DRIVER = """
#include <string.h>
#include "patches.h"
#include "step.h"

enum { ARENA = (int)PATCHES_ARENA_BYTES > (int)STEP_ARENA_BYTES ? (int)PATCHES_ARENA_BYTES : (int)STEP_ARENA_BYTES };
static _Alignas(8) unsigned char arena[ARENA + 8], state[2][STEP_STATE_BYTES + 8], saved[STEP_STATE_BYTES];
static patches_model patches;
static step_model step[2];

int driver_init(void);
void driver_patches(const signed char *x, signed char *y);
void driver_step(int stream, const signed char *x, signed char *y);
void driver_save(int stream);
void driver_restore(int stream);
void driver_reset(int stream);
int driver_refusal(int which);

int driver_init(void) {
    memset(arena, 0x55, sizeof arena);
    memset(state, 0x55, sizeof state);
    return (int)patches_init(&patches, arena, PATCHES_ARENA_BYTES, NULL, 0)
        | (int)step_init(&step[0], arena, STEP_ARENA_BYTES, state[0], STEP_STATE_BYTES)
        | (int)step_init(&step[1], arena, STEP_ARENA_BYTES, state[1], STEP_STATE_BYTES);
}

void driver_patches(const signed char *x, signed char *y) {
    memcpy(patches_image(&patches), x, PATCHES_IMAGE_BYTES);
    patches_run(&patches);
    memcpy(y, patches_logits(&patches), PATCHES_LOGITS_BYTES);
}

void driver_step(int stream, const signed char *x, signed char *y) {
    memcpy(step_x(&step[stream]), x, STEP_X_BYTES);
    step_run(&step[stream]);
    memcpy(y, step_y(&step[stream]), STEP_Y_BYTES);
}

void driver_save(int stream) { step_save(&step[stream], saved); }
void driver_restore(int stream) { step_restore(&step[stream], saved); }
void driver_reset(int stream) { step_reset(&step[stream]); }

int driver_refusal(int which) {
    step_model m;
    switch (which) {
    case 0: return (int)step_init(NULL, arena, sizeof arena, state[0], sizeof state[0]);
    case 1: return (int)step_init(&m, NULL, sizeof arena, state[0], sizeof state[0]);
    case 2: return (int)step_init(&m, arena, STEP_ARENA_BYTES - 1, state[0], sizeof state[0]);
    case 3: return (int)step_init(&m, arena + 1, STEP_ARENA_BYTES, state[0], sizeof state[0]);
    case 4: return (int)step_init(&m, arena, sizeof arena, NULL, sizeof state[0]);
    case 5: return (int)step_init(&m, arena, sizeof arena, state[0], STEP_STATE_BYTES - 1);
    case 6: return (int)step_init(&m, arena, sizeof arena, state[0] + 4, STEP_STATE_BYTES);
    case 7: return (int)step_init(&m, arena, sizeof arena, state[0], sizeof state[0]);
    default: return (int)patches_init(&patches, arena, PATCHES_ARENA_BYTES, NULL, 0);
    }
}
"""


@pytest.fixture(scope="module")
def driver(patches_f746: Compiled, step_f746: Compiled, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Both models and two streams of one of them in one C program with one arena."""
    from edgec.device.toolchain import Source

    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    sources, paths = [Source(folder / "driver.c", "bench")], []
    for compiled in (patches_f746, step_f746):
        prefix = compiled.answer.json["prefix"]
        own = [s for s in host_sources(compiled.path, prefix) if s.group in ("model", "kernels")]
        known = {s.path.name for s in sources}
        sources += [s for s in own if s.path.name not in known]  # the kernels are the same files
        paths += includes(compiled.path)
    library = ctypes.CDLL(str(build_host_library(sources, paths, folder)))
    for name in ("driver_patches", "driver_step", "driver_save", "driver_restore", "driver_reset"):
        getattr(library, name).restype = None
    return library


def feeds(compiled: Compiled, seed: int, count: int) -> np.ndarray:
    port = load_artifact(compiled.path).inputs[0]
    return np.random.default_rng(seed).integers(-128, 128, (count, int(np.prod(port.shape)))).astype(np.int8)


def alone(compiled: Compiled, xs: np.ndarray) -> np.ndarray:
    """The same integers in a run of the artifact by itself."""
    artifact = load_artifact(compiled.path)
    port = artifact.inputs[0]
    device = [port.shape[a] for a in port.layout] or list(port.shape)
    layout = [int(a) + 1 for a in np.argsort(port.layout)] or list(range(1, len(device) + 1))
    real = (xs.reshape(-1, *device).transpose(0, *layout).astype(np.float32) - (port.zero_point or 0)) * port.scale
    return run_artifact(artifact, {port.name: real}, "host-c", raw=True)[artifact.outputs[0].name].reshape(len(xs), -1)


def call(function: object, x: np.ndarray, size: int, *before: int) -> np.ndarray:
    y = np.zeros(size, np.int8)
    function(*before, x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p))  # type: ignore[operator]
    return y


def test_two_models_and_two_streams_share_one_arena(
    driver: ctypes.CDLL, patches_f746: Compiled, step_f746: Compiled
) -> None:
    images, first, second = feeds(patches_f746, 1, 12), feeds(step_f746, 2, 12), feeds(step_f746, 3, 12)
    wanted = alone(patches_f746, images), alone(step_f746, first), alone(step_f746, second)
    assert driver.driver_init() == 0
    for i in range(12):  # every run spoils the arena for the next one, of another model or stream
        np.testing.assert_array_equal(call(driver.driver_step, first[i], 3, 0), wanted[1][i])
        np.testing.assert_array_equal(call(driver.driver_patches, images[i], 5), wanted[0][i])
        np.testing.assert_array_equal(call(driver.driver_step, second[i], 3, 1), wanted[2][i])


def test_saved_state_continues_bit_for_bit_also_in_another_stream(driver: ctypes.CDLL, step_f746: Compiled) -> None:
    xs, others = feeds(step_f746, 4, 20), feeds(step_f746, 5, 20)
    wanted = alone(step_f746, xs)
    assert driver.driver_init() == 0
    for i in range(8):
        np.testing.assert_array_equal(call(driver.driver_step, xs[i], 3, 0), wanted[i])
    driver.driver_save(0)
    for stream in (0, 1, 0):
        for x in others:
            call(driver.driver_step, x, 3, stream)
        driver.driver_restore(stream)
        for i in range(8, 20):
            np.testing.assert_array_equal(call(driver.driver_step, xs[i], 3, stream), wanted[i])
    driver.driver_reset(1)
    for i in range(20):
        np.testing.assert_array_equal(call(driver.driver_step, xs[i], 3, 1), wanted[i])


def test_init_refuses_what_it_cannot_use(driver: ctypes.CDLL) -> None:
    text = (Path(__file__).parents[1] / "runtime" / "include" / "edgec.h").read_text()
    code = {name: int(value) for name, value in re.findall(r"EDGEC_(\w+) = (\d)", text)}
    expected = ["ERROR_ARGUMENT", "ERROR_ARENA", "ERROR_ARENA", "ERROR_ALIGNMENT", "ERROR_STATE", "ERROR_STATE",
                "ERROR_ALIGNMENT", "OK", "OK"]  # fmt: skip
    assert [driver.driver_refusal(i) for i in range(9)] == [code[name] for name in expected]


# ---- the same again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["patches_f746", "step_f746"])
def test_the_same_input_gives_the_same_bytes(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    compiled: Compiled = request.getfixturevalue(which)
    out = tmp_path / "a longer way" / "to" / "another.place"
    options = ("--target", "stm32f746", "--calibration", compiled.samples)
    done("compile", compiled.model, *options, "--out", out)
    first, second = tree(compiled.path), tree(out)
    kinds = (".c", ".h", ".json", ".bin", ".ld", ".toml", ".S")
    names = {n for n in first if n.endswith(kinds) and not n.startswith("host/")}
    assert names == {n for n in second if n.endswith(kinds)}
    assert [n for n in sorted(names) if first[n] != second[n]] == []
    assert "firmware.bin" in names


@pytest.mark.parametrize("which", ["patches_f746", "step_f746"])
def test_the_linked_image_agrees_with_the_plan(which: str, request: pytest.FixtureRequest) -> None:
    compiled: Compiled = request.getfixturevalue(which)
    manifest, target = compiled.answer.json, load_target("stm32f746")
    with (compiled.path / "firmware.elf").open("rb") as file:
        sections = {s.name: (s["sh_addr"], s["sh_size"]) for s in ELFFile(file).iter_sections() if s["sh_size"]}
    spans = target.ram_spans()
    arenas = {s.name: sections[s.arena_section] for s in spans if s.arena_section in sections}
    assert sum(size for _, size in arenas.values()) == manifest["plan"]["arena_bytes"]
    for span in spans:
        if span.name in arenas:
            address, size = arenas[span.name]
            assert span.origin <= address
            assert address + size <= span.origin + span.size
    states = sum(sections.get(s.state_section, (0, 0))[1] for s in spans)
    assert states == manifest["ram"]["state_bytes"]
    weights = sum(size for name, (_, size) in sections.items() if name.startswith(".weights"))
    assert weights == manifest["flash"]["weights_bytes"]


def test_a_program_over_two_memories_has_an_arena_in_each(tmp_path: Path) -> None:
    text = load_target("stm32f407").path.read_text()
    (tmp_path / "small.toml").write_text(text.replace('"128K"', '"8K"').replace('size = "64K",', 'size = "4K",'))
    model = attention_block(tmp_path / "a.onnx", tokens=64, width=32)
    given = samples(tmp_path / "samples.npz", 3, x=(1, 64, 32))
    options = ("--target", tmp_path / "small.toml", "--calibration", given, "--out", tmp_path / "out", "--json")
    manifest = done("compile", model, *options).json
    header = (tmp_path / "out" / "a.h").read_text()
    sizes = {name: int(size) for name, size in re.findall(r"#define A_(ARENA\w*)_BYTES (\d+)", header)}
    assert sizes.keys() == {"ARENA", "ARENA_CCM"}
    assert sum(sizes.values()) == manifest["plan"]["arena_bytes"]
    results = {}
    for runner in ("sim", "host-c"):
        out = tmp_path / f"{runner}.npz"
        done("run", tmp_path / "out", "--input", given, "--output", out, "--raw", "--runner", runner)
        results[runner] = np.load(out)["y"]
    np.testing.assert_array_equal(results["sim"], results["host-c"])
    assert compile_strictly(tmp_path / "out") == ""
