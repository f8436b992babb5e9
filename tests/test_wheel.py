# SPDX-License-Identifier: Apache-2.0
"""What users install: the wheel alone, in an environment of its own, away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "image_classification"


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed, without this process's import path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the source distribution, and the wheel built from it (not from the checkout)."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(packages: Path) -> Path:
    (found,) = packages.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an empty environment with the wheel, which borrows its dependencies by a path file."""
    home = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    # Path files are not followed from here, so an editable edgec in this environment stays out of reach.
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def shipped(folder: str) -> set[str]:
    """Files of a top-level folder of the checkout, as posix paths below it."""
    files = (p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(ROOT / folder).as_posix() for p in files}


def test_wheel_holds_the_package_the_targets_and_the_runtime(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, inside in [
        ("edgec", "edgec/"),
        ("targets", "edgec/_data/targets/"),
        ("runtime", "edgec/_data/runtime/"),
    ]:
        assert {inside + name for name in shipped(folder)} <= names
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"edgec"}


def test_source_distribution_holds_what_its_tests_need(packages: Path) -> None:
    (source,) = packages.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "scripts/test", "tests/test_wheel.py"} <= names


def test_installed_edgec_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import edgec; print(edgec.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)


def test_installed_edgec_knows_the_targets(installed: Path, tmp_path: Path) -> None:
    listed = json.loads(run(installed / "edgec", "targets", "--json", cwd=tmp_path))
    assert {path.stem for path in (ROOT / "targets").glob("*.toml")} <= {entry["name"] for entry in listed["targets"]}


def test_installed_edgec_compiles_for_a_board(installed: Path, tmp_path: Path) -> None:
    report = json.loads(
        run(
            *(installed / "edgec", "compile", EXAMPLE / "mcuformer_fashion_mnist.onnx"),
            *("--calibration", EXAMPLE / "calibration.npz", "--target", "stm32f746"),
            *("--out", "artifact", "--json"),
            cwd=tmp_path,
        )
    )
    assert report["target"] == "stm32f746"
    assert 0 < report["ram"]["total_bytes"] <= 320 * 1024
    assert 0 < report["flash"]["total_bytes"] <= 1024 * 1024
    assert json.loads((tmp_path / "artifact" / "manifest.json").read_text())["model"] == report["model"]
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
