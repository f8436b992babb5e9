# SPDX-License-Identifier: Apache-2.0
"""Where the data that ships with edgec lies: `targets/` and `runtime/`.

In a checkout they are top-level folders; in an installed wheel they are packaged below `edgec/_data`.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _data(name: str) -> Path:
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def targets_dir() -> Path:
    """Folder of the target descriptions, one TOML a board."""
    return _data("targets")


def runtime_dir() -> Path:
    """Folder of the C sources that run on the device: include/, kernels/, port/."""
    return _data("runtime")
