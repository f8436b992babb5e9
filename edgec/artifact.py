# SPDX-License-Identifier: Apache-2.0
"""The artifact: a directory with code, binary, header and `manifest.json`; written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.errors import UsageError
from edgec.json_text import json_text
from edgec.target import Target, load_target

SCHEMA = "edgec.manifest/1"
MANIFEST = "manifest.json"
TARGET_COPY = "target.toml"
MODEL_COPY = "model.onnx"
"""The graph that was compiled: quantized, or canonical float32."""

_BYTES = int | None
_PORT = {"name": str, "shape": [int], "layout": [int], "dtype": str, "scale": float | None, "zero_point": int | None}
_FORM = {
    "model": {"name": str, "sha256": str, "macs": int},
    "target": str,
    "ram": {"arena_bytes": int, "state_bytes": int, "stack_bytes": _BYTES},
    "flash": {"code_bytes": _BYTES, "weights_bytes": int, "total_bytes": _BYTES},
    "plan": {"arena_bytes": int},
    "kernels": {},
    "operators": [{"name": str, "op": str, "macs": int, "symbol": str}],
    "inputs": [_PORT],
    "outputs": [_PORT],
    "states": [],
    "prefix": str,
    "run_symbol": str,
    "model_id": str,
}
"""What `edgec run` and `edgec profile` read: keys with the form of their values; a list holds values of one form."""


@dataclass(frozen=True)
class ArtifactPort:
    """An input or output as `edgec run` needs it: int8 or int16 with scale and zero_point, or float32 without."""

    name: str
    shape: tuple[int, ...]
    layout: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class Artifact:
    """A compiled program on disk."""

    path: Path
    manifest: dict[str, Any]

    @property
    def target(self) -> Target:
        """The target it was compiled for, from the copy that it carries."""
        return load_target(self.path / TARGET_COPY)

    @property
    def inputs(self) -> list[ArtifactPort]:
        """Inputs that a caller gives."""
        return [_port(p) for p in self.manifest["inputs"]]

    @property
    def outputs(self) -> list[ArtifactPort]:
        """Outputs that a caller reads."""
        return [_port(p) for p in self.manifest["outputs"]]

    @property
    def stateful(self) -> bool:
        """Whether runs are steps of one stream."""
        return bool(self.manifest["states"])


def load_artifact(path: Path) -> Artifact:
    """Open the directory that `edgec compile` wrote.

    Raises:
        UsageError: it is no artifact, or one of another schema.
    """
    manifest = _manifest(path)
    if manifest is None:
        raise UsageError(
            f"{path} is not an edgec artifact",
            need=f"a directory with {MANIFEST}",
            hint="edgec compile makes one",
        )
    if manifest["schema"] != SCHEMA:
        raise UsageError(
            f"{path} has another manifest schema",
            need=SCHEMA,
            have=str(manifest["schema"]),
            hint="compile it again",
        )
    fault = _fault(manifest, _FORM, "") or (None if (path / TARGET_COPY).is_file() else f"{TARGET_COPY} is missing")
    if fault:
        raise UsageError(f"{path} is damaged: {fault}", hint="compile it again")
    return Artifact(path, manifest)


def _fault(value: Any, form: Any, where: str) -> str | None:
    """What is wrong in a manifest, or None."""
    if isinstance(form, dict) and isinstance(value, dict):
        for key, inner in form.items():
            name = f"{where}.{key}".lstrip(".")
            fault = f"{name} is missing" if key not in value else _fault(value[key], inner, name)
            if fault:
                return fault
        return None
    if isinstance(form, list) and isinstance(value, list):
        faults = (_fault(v, inner, f"{where}[{i}]") for inner in form for i, v in enumerate(value))
        return next(filter(None, faults), None)
    fits = not isinstance(form, dict | list) and isinstance(value, form)
    return None if fits else f"{where} is {value!r:.40}"


def _manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in a directory, of whatever schema of edgec's; None if it is no artifact."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(manifest, dict) and str(manifest.get("schema", "")).startswith(SCHEMA.partition("/")[0])
    return manifest if ours else None


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which takes the place of `path` when the block ends without an error.

    An artifact that is there is replaced; anything else is refused and left alone.
    """
    made: list[Path] = []
    part: Path | None = None
    done = False
    try:
        try:
            path = path.resolve()
            if path.exists() and not _replaceable(path):
                raise UsageError(f"{path} exists and is not an edgec artifact", hint="choose another --out")
            made = _make_parents(path.parent)
            part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")  # known before it is there: see finally
            part.mkdir(0o700)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from None
        yield part
        part.chmod(0o777 & ~_umask())
        _put_in_place(part, path)
        done = True
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
        if not done:
            _remove(made)


def _replaceable(path: Path) -> bool:
    return path.is_dir() and (not any(path.iterdir()) or _manifest(path) is not None)


def _make_parents(folder: Path) -> list[Path]:
    """Make the folder and those above it; returns the new ones, innermost first."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        _remove(missing)
        raise
    return missing


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # somebody else may have put something there
            folder.rmdir()


def _put_in_place(part: Path, path: Path) -> None:
    try:
        if not path.exists():
            part.replace(path)
            return
        old = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.old.", dir=path.parent))
        try:
            path.replace(old / "artifact")
            try:
                part.replace(path)
            except OSError:
                (old / "artifact").replace(path)
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path to write, beside `path`, which takes its place when the block ends without an error.

    Raises:
        UsageError: it cannot be written there; nothing is left behind.
    """
    made: list[Path] = []
    part, done = path.with_name(f".{path.name[:100]}.{os.getpid()}.part"), False
    try:
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a folder")
        made = _make_parents(path.parent)
        yield part
        part.replace(path)
        done = True
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if not done:
            _remove(made)


def write_json(path: Path, value: object) -> None:
    """Write `json_text` of a value."""
    path.write_text(json_text(value) + "\n")


def _port(entry: dict[str, Any]) -> ArtifactPort:
    return ArtifactPort(
        entry["name"],
        tuple(entry["shape"]),
        tuple(entry["layout"]),
        entry["dtype"],
        entry["scale"],
        entry["zero_point"],
    )
