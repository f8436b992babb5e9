# SPDX-License-Identifier: Apache-2.0
"""Where the data sets of the examples lie: EDGEC_DATA, or shared/data beside the checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

DEFAULT = Path(os.environ.get("EDGEC_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def data_file(folder: Path, name: str) -> Path:
    """`folder`/`name`; the program ends with what to do where there is no such file."""
    path = folder / name
    if not path.is_file():
        sys.exit(f"error: {path} is not there\n  try    --data DIR or EDGEC_DATA=DIR")
    return path
