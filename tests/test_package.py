# SPDX-License-Identifier: Apache-2.0
"""The library in its user's project: CMake builds and runs it, and the other build systems' folders are whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from edgec.artifact import load_artifact
from edgec.device.toolchain import Source, compile_objects, cpu_flags, zig_binary
from edgec.emit.package import LAYOUTS, PackageFile
from edgec.run import run_artifact
from edgec.target import load_target
from tests.command_line import Answer, done, edgec, tree

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
STEP = "recurrent_16_64_32"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two artifacts of examples/cmake, for a board: their hand-written kernels are in both."""
    out = tmp_path_factory.mktemp("cmake") / "models"
    script = EXAMPLES / "cmake" / "make_models.py"
    subprocess.run([sys.executable, script, "--target", "stm32f746", "--out", out], check=True, cwd=EXAMPLES.parent)
    return out


def compilers() -> list[str]:
    return [name for name in ("gcc", "clang") if shutil.which(name)] + ["zig cc"]


def tool(name: str) -> str:
    """A tool of the `dev` extra, or the system's."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"no {name} here: pip install 'edgec[dev]'")
    return found


@pytest.mark.parametrize("compiler", compilers())
def test_cmake_builds_two_models_that_share_an_arena(models: Path, tmp_path: Path, compiler: str) -> None:
    cmake, ninja = tool("cmake"), tool("ninja")
    given: str = shutil.which(compiler) or ""
    if not given:  # CMake wants one executable
        wrapper = tmp_path / "zig-cc"
        wrapper.write_text(f'#!/bin/sh\nexec "{zig_binary()}" cc "$@"\n')
        wrapper.chmod(0o755)
        given = str(wrapper)
    build = tmp_path / "build"
    options = [f"-DMODELS={models}", f"-DCMAKE_C_COMPILER={given}", f"-DCMAKE_ASM_COMPILER={given}"]
    options += [
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
        "-DCMAKE_C_FLAGS=-O2 -Wall -Wextra -Wconversion -Werror",
    ]
    for command in ([cmake, "-S", EXAMPLES / "cmake", "-B", build, *options], [cmake, "--build", build]):
        told = subprocess.run(command, capture_output=True, text=True)
        assert told.returncode == 0, told.stdout + told.stderr
    with np.load(EXAMPLES / "streaming" / "stream.npz") as file:
        stream = file["x"][:50].astype(np.float32)
    answer = subprocess.run([build / "two_models"], input=stream.tobytes(), capture_output=True, check=True)
    got = np.frombuffer(answer.stdout, np.int8).reshape(len(stream), -1)

    # The runner runs each model alone, each in an arena of its own.
    step, head = load_artifact(models / "step"), load_artifact(models / "classifier")
    y = run_artifact(step, {"x": stream.reshape(-1, 1, 16)}, "host-c", raw=True)["y"]
    port = step.outputs[0]
    assert port.scale is not None
    features = ((y.astype(np.float32) - (port.zero_point or 0)) * np.float32(port.scale)).astype(np.float32)
    classes = run_artifact(head, {"features": features}, "host-c", raw=True)["probabilities"]
    np.testing.assert_array_equal(got, np.concatenate([y, classes], axis=-1).reshape(len(stream), -1))
    assert len(np.unique(got[:, 10:], axis=0)) > 5  # and they say something


@pytest.fixture(scope="module")
def packaged(patch_model: Path) -> tuple[Path, Answer]:
    """An artifact with every package in it, and what the command said."""
    out = patch_model / "packaged"
    options = [argument for kind in LAYOUTS for argument in ("--package", kind)]
    files = patch_model / "patches.onnx", "--calibration", patch_model / "samples.npz"
    return out, done("compile", *files, "--target", "stm32f407", "--out", out, *options)


def sources(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in (".c", ".S"))


def include_folders(package: Path, kind: str) -> list[Path]:
    """Where the build system will look for headers: what its own files say."""
    if kind == "platformio":
        build = json.loads((package / "library.json").read_text())["build"]
        flags = [flag.removeprefix("-I") for flag in build["flags"] if flag.startswith("-I")]
        return [package / name for name in (build["includeDir"], *flags)]
    if kind == "zephyr":
        text = (package / "CMakeLists.txt").read_text()
        found = re.findall(r"zephyr(?:_library)?_include_directories\((.*?)\)", text)
        return [package / name for group in found for name in group.split()]
    if kind == "cube":
        line = next(x for x in (package / ".extSettings").read_text().splitlines() if x.startswith("HeaderPath="))
        return [package / name for name in line.removeprefix("HeaderPath=").split(";") if name]
    return [package / "src"]  # Arduino's library specification: src, and nothing else


def listed_sources(package: Path, kind: str) -> list[Path]:
    """The sources that the build system's own files name; PlatformIO and Arduino take all below src."""
    if kind == "zephyr":
        text = (package / "CMakeLists.txt").read_text()
        inner = re.search(r"zephyr_library_sources\((.*?)\)", text, re.DOTALL)
        assert inner
        return sorted(package / name for name in inner.group(1).split())
    if kind == "cube":
        line = next(x for x in (package / ".extSettings").read_text().splitlines() if x.startswith("edgec/"))
        return sorted(package / name for name in line.partition("=")[2].split(";") if name)
    return sources(package / "src")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_package_compiles_from_its_own_folder_alone(packaged: tuple[Path, Answer], kind: str, tmp_path: Path) -> None:
    out, _ = packaged
    package = tmp_path / "elsewhere"
    shutil.copytree(out / f"package-{kind}", package)
    assert listed_sources(package, kind) == sources(package)
    folders = include_folders(package, kind)
    assert all(folder.is_dir() for folder in folders)
    headers = zig_binary().parent / "lib" / "include"
    strings = EXAMPLES.parent / "runtime" / "support" / "include"  # the user's C library
    flags = [*cpu_flags(load_target("stm32f407").cpu), "-std=c11", "-O2", "-nostdlibinc", "-isystem", str(headers)]
    flags += ["-isystem", str(strings)]
    objects = compile_objects([Source(p, "model") for p in sources(package)], folders, flags)
    assert len(objects) == len(sources(package)) >= 4


@pytest.mark.parametrize("kind", LAYOUTS)
def test_no_name_of_a_model_hides_a_kernel(kind: str) -> None:
    """A model may be called as a kernel is: no two files take one place."""
    runtime = EXAMPLES.parent / "runtime"
    kernels = [p.relative_to(runtime.parent) for p in (runtime / "kernels").rglob("*.[chS]")]
    own = [Path(f"{p.stem}{end}{suffix}") for p in kernels for end in ("", "_kernels") for suffix in (".c", ".h")]
    shared = [p.relative_to(runtime.parent) for p in (runtime / "include").glob("*.h")]
    kinds = {".c": "source", ".S": "assembly", ".h": "header"}
    files = [PackageFile(kinds[p.suffix], PurePosixPath(p)) for p in {*kernels, *own, *shared}]  # type: ignore[arg-type]
    assert len({LAYOUTS[kind].place(f) for f in files}) == len(files) > 15


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_package_holds_the_files_of_the_artifact_unchanged(packaged: tuple[Path, Answer], kind: str) -> None:
    out, _ = packaged
    wanted = {p.name: p.read_bytes() for p in (*out.glob("*.[ch]"), *(out / "runtime").rglob("*.[chS]"))}
    package = out / f"package-{kind}"
    got = {p.name: p.read_bytes() for p in package.rglob("*.[chS]")}
    assert got == wanted
    assert not [p for p in package.rglob("*") if "bench" in p.name]


def test_the_manifests_of_packages_are_what_their_tools_read(packaged: tuple[Path, Answer]) -> None:
    out, _ = packaged
    library = json.loads((out / "package-platformio" / "library.json").read_text())
    assert library["name"] == "patches"
    assert re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
    properties = dict(
        line.split("=", 1) for line in (out / "package-arduino" / "library.properties").read_text().splitlines()
    )
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert required <= properties.keys()  # Arduino library specification 1.5
    assert (out / "package-arduino" / "src" / properties["includes"]).is_file()
    module = list(yaml_of_two_levels((out / "package-zephyr" / "zephyr" / "module.yml").read_text()))
    assert module == [("name", "patches"), ("build.cmake", "."), ("build.kconfig", "Kconfig")]
    kconfig = (out / "package-zephyr" / "Kconfig").read_text()
    assert "config EDGEC_PATCHES\n" in kconfig
    assert "CONFIG_EDGEC_PATCHES" in (out / "package-zephyr" / "CMakeLists.txt").read_text()


def test_cmake_reads_the_zephyr_module(packaged: tuple[Path, Answer], tmp_path: Path) -> None:
    """With Zephyr's functions stood in for by ones that repeat what they are given."""
    package = packaged[0] / "package-zephyr"
    names = ["named", "sources", "include_directories", "compile_options"]
    functions = [f"zephyr_library_{n}" for n in names] + ["zephyr_include_directories"]
    script = "".join(f'function({f})\n  message("{f} ${{ARGN}}")\nendfunction()\n' for f in functions)
    include = f'include("{package}/CMakeLists.txt")\n'
    (tmp_path / "on.cmake").write_text(f"set(CONFIG_EDGEC_PATCHES y)\n{script}{include}")
    (tmp_path / "off.cmake").write_text(script + include)
    told = [
        subprocess.run([tool("cmake"), "-P", tmp_path / name], capture_output=True, text=True, check=True).stderr
        for name in ("on.cmake", "off.cmake")
    ]
    given = dict(line.split(" ", 1) for line in told[0].splitlines())
    assert given["zephyr_library_named"] == "edgec_patches"
    assert sorted(package / name for name in given["zephyr_library_sources"].split(";")) == sources(package)
    assert given["zephyr_include_directories"] == "include"
    assert not told[1]  # nothing when Kconfig says no


def yaml_of_two_levels(text: str) -> Iterator[tuple[str, str]]:
    """The part of YAML that a Zephyr module file uses: `key: value`, once indented by two spaces."""
    section = ""
    for line in text.splitlines():
        match = re.fullmatch(r"(  )?(\w+):(?: (\S+))?", line)
        assert match, line
        indent, key, value = match.groups()
        if value is None:
            section = key
        else:
            yield (f"{section}.{key}" if indent else key), value


def test_packages_do_not_change_the_artifact_beside_them(packaged: tuple[Path, Answer], patch_model: Path) -> None:
    out, _ = packaged
    plain = patch_model / "plain"
    files = patch_model / "patches.onnx", "--calibration", patch_model / "samples.npz"
    done("compile", *files, "--target", "stm32f407", "--out", plain)
    with_packages = {name: data for name, data in tree(out).items() if not name.startswith("package-")}
    assert with_packages == tree(plain)


def test_an_unknown_package_is_refused_with_the_known_ones(tmp_path: Path, patch_model: Path) -> None:
    model = patch_model / "patches.onnx"
    answer = edgec("compile", model, "--target", "stm32f746", "--out", tmp_path / "a", "--package", "keil")
    assert answer.code == 2
    assert "zephyr" in answer.err
