# SPDX-License-Identifier: Apache-2.0
"""Exported files of the zoo, each made once in a test run."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from edgec.export import export


@cache
def exported(name: str) -> bytes:
    """The ONNX file of a registered model with fresh weights of seed 1."""
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        return export(name, Path(folder) / "step.onnx", seed=1).read_bytes()
