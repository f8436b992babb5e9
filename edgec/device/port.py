# SPDX-License-Identifier: Apache-2.0
"""The C files that turn a model into bench firmware: boot, serial protocol, runtime support."""

from __future__ import annotations

from pathlib import Path

from edgec.device.toolchain import Source
from edgec.resources import runtime_dir


def bench_sources() -> list[Source]:
    """What to link beside a model: the Cortex-M port (group `bench`) and the support library (`runtime`)."""
    runtime = runtime_dir()
    port = [Source(path, "bench") for path in sorted((runtime / "port" / "cortex_m").glob("*.c"))]
    support = [Source(path, "runtime") for path in sorted((runtime / "support").rglob("*.c"))]
    return port + support


def bench_includes() -> list[Path]:
    """Folders to search for the port's headers and for <string.h>; board.h comes from the build's own
    folder.
    """
    runtime = runtime_dir()
    return [runtime / "port", runtime / "port" / "cortex_m", runtime / "support" / "include"]
