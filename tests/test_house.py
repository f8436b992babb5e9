# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that no linter knows, each checked on the files as they are."""

from __future__ import annotations

import ast
import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 500
C_SUFFIXES = {".c", ".h", ".S"}

# Who may import what, as path prefixes. Heavy or copyleft libraries each have one door.
DOORS = {
    "tvm": ("edgec/tvm_bridge/",),
    "torch": ("edgec/models/", "edgec/search/", "edgec/export.py", "examples/", "tests/"),
    # The fixture is a process of its own too: a bare core for tests of single kernels.
    "unicorn": ("edgec/device/board_sim", "tests/fixtures/kernel_core.py"),
}


def project_files() -> list[Path]:
    """Every file that is or could be committed: what git tracks, and what is new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return sorted(p for name in listed.stdout.decode().split("\0") if name and (p := ROOT / name).is_file())


FILES = project_files()
PYTHON = [p for p in FILES if p.suffix == ".py"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_are_short_enough_to_read_in_one_go() -> None:
    code = [p for p in FILES if relative(p).startswith(("edgec/", "runtime/")) and p.suffix in {".py", *C_SUFFIXES}]
    assert code
    lines = {relative(p): len(p.read_text().splitlines()) for p in code}
    assert {name: n for name, n in lines.items() if n > MAX_LINES} == {}


def test_every_source_file_states_its_license() -> None:
    def states_license(path: Path) -> bool:
        head = path.read_text().splitlines()[:2]  # the second line where the first is #!
        return any("SPDX-License-Identifier: Apache-2.0" in line for line in head)

    scripts = [p for p in FILES if p.parent.name in {"scripts", "lib", ".ci"}]
    sources = PYTHON + [p for p in FILES if p.suffix in C_SUFFIXES] + scripts
    assert [relative(p) for p in sources if not states_license(p)] == []


def test_nobody_asks_for_a_target_by_name() -> None:
    """A board is data: code asks what the target can do, never which one it is."""

    def is_target_name(node: ast.expr) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "name" and ast.unparse(node.value).endswith("target")

    asked = [
        f"{relative(path)}:{node.lineno}"
        for path in PYTHON
        if relative(path).startswith("edgec/")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and any(map(is_target_name, [node.left, *node.comparators]))
    ]
    assert asked == []


def imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", DOORS)
def test_heavy_libraries_come_in_through_their_door_only(package: str) -> None:
    importers = [relative(path) for path in PYTHON if package in imported_packages(path)]
    assert [name for name in importers if not name.startswith(DOORS[package])] == []


def test_no_file_holds_a_path_of_somebodys_machine() -> None:
    """Binary files too: exporters like to write stack traces into models."""
    somewhere = re.compile(rb"(?<![\w.$}~])/(?:home|work|root|Users|tmp/w)/[\w.-]")
    found = [f"{relative(path)}: {hit.group()!r}" for path in FILES if (hit := somewhere.search(path.read_bytes()))]
    assert found == []


def test_help_imports_nothing_heavy() -> None:
    program = """
import json, sys
from edgec.cli import main
sys.argv = ["edgec", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = ["torch", "tvm", "onnx", "onnxruntime", "onnx_ir", "onnxscript", "numpy", "unicorn", "ziglang"]
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_help_answers_within_three_tenths_of_a_second() -> None:
    """Processor time, the best of five, so that a busy machine does not decide."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        program = "import sys; from edgec.cli import main; sys.argv = ['edgec', '--help']; main()"
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3
