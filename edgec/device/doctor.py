# SPDX-License-Identifier: Apache-2.0
"""What this machine can do: each check tries the thing itself, cheaply."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgec.device.toolchain import Source, build_host_library
from edgec.errors import DeviceError
from edgec.target import list_targets

_NEEDED = (
    "apache-tvm",
    "onnx",
    "onnxruntime",
    "onnx-ir",
    "onnxscript",
    "numpy",
    "ziglang",
    "pyelftools",
    "pyserial",
)
_EXTRAS = {"unicorn": ("sim", "the simulated board"), "torch": ("models", "export of the zoo")}


@dataclass(frozen=True)
class Check:
    """One finding; `needed` says whether compiling depends on it."""

    name: str
    ok: bool
    needed: bool
    found: str
    hint: str | None = None


def examine() -> list[Check]:
    """All checks, in the order in which a person would ask."""
    checks = [_package(name, needed=True, hint="pip install edgec") for name in _NEEDED]
    for name, (extra, what) in _EXTRAS.items():
        checks.append(_package(name, needed=False, hint=f"pip install 'edgec[{extra}]' for {what}"))
    return [*checks, _compiler(), _targets(), _ports()]


def _package(name: str, needed: bool, hint: str) -> Check:
    try:
        return Check(name, True, needed, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, needed, "not installed", hint)


def _compiler() -> Check:
    try:
        with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
            path = Path(folder) / "probe.c"
            path.write_text("int edgec_probe(void);\nint edgec_probe(void) { return 42; }\n")
            build_host_library([Source(path, "model")], [], Path(folder))
    except DeviceError as error:
        return Check("C compiler", False, True, error.what, "pip install --force-reinstall ziglang")
    return Check("C compiler", True, True, "clang and lld of ziglang build a library")


def _targets() -> Check:
    names = list_targets()
    return Check("targets", bool(names), True, ", ".join(names) or "none")


def _ports() -> Check:
    if importlib.util.find_spec("serial") is None:
        return Check("serial ports", False, False, "pyserial is missing")
    from serial.tools.list_ports import comports

    found = [p.device for p in comports()]
    return Check("serial ports", bool(found), False, ", ".join(found) or "none", None if found else "plug in a board")
