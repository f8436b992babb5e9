# SPDX-License-Identifier: Apache-2.0
"""The artifact: a directory with code, binary, header and `manifest.json`; written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.errors import UsageError
from edgec.target import Target, load_target

SCHEMA = "edgec.manifest/1"
MANIFEST = "manifest.json"
TARGET_COPY = "target.toml"


@dataclass(frozen=True)
class ArtifactPort:
    """An input or output as `edgec run` needs it: `dtype` int8 with scale and zero_point, or float32 without."""

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
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        schema = manifest["schema"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{path} is not an edgec artifact", need=f"a directory with {MANIFEST}", hint="edgec compile makes one"
        ) from None
    if schema != SCHEMA:
        raise UsageError(f"{path} has another manifest schema", need=SCHEMA, have=str(schema), hint="compile it again")
    return Artifact(path, manifest)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which takes the place of `path` when the block ends without an error.

    An artifact that is there is replaced; anything else is refused and left alone.
    """
    path = path.resolve()
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or (path / MANIFEST).is_file())):
        raise UsageError(f"{path} exists and is not an edgec artifact", hint="choose another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    try:
        yield part
        part.chmod(0o777 & ~_umask())
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.replace(old / "artifact")
            part.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: object) -> None:
    """JSON for people and programs: indented, keys in the order given."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def _port(entry: dict[str, Any]) -> ArtifactPort:
    return ArtifactPort(
        entry["name"],
        tuple(entry["shape"]),
        tuple(entry["layout"]),
        entry["dtype"],
        entry["scale"],
        entry["zero_point"],
    )
