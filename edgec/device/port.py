# SPDX-License-Identifier: Apache-2.0
"""The C files that turn a model into bench firmware: boot, serial protocol, runtime support."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgec.device.toolchain import APPROXIMATE, Source
from edgec.resources import runtime_dir


def bench_sources() -> list[Source]:
    """What to link beside a model: the Cortex-M port (group `bench`) and the support library (`runtime`)."""
    runtime = runtime_dir()
    port = [Source(path, "bench") for path in sorted((runtime / "port" / "cortex_m").glob("*.c"))]
    support = [Source(path, "runtime") for path in sorted((runtime / "support").rglob("*.c"))]
    return port + support


def with_board_math(sources: Sequence[Source]) -> list[Source]:
    """The sources of a host library, such that its floats are the board's bit for bit.

    What calls <math.h> gets the functions of the support library, under names that this machine's libm has not.
    """
    if not any("#include <math.h>" in source.path.read_text() for source in sources if source.group == "model"):
        return list(sources)
    support = runtime_dir() / "support"
    header = runtime_dir() / "port" / "host" / "board_math.h"  # after this machine's <math.h>, which has more
    renamed = (f"-I{support / 'include'}", *(f"-D{name}=edgec_{name}" for name in APPROXIMATE))
    # All but those that are exact everywhere: APPROXIMATE, and the helpers that they share.
    exact = set(re.findall(r"(\w+)\(", (support / "include" / "math.h").read_text())) - set(APPROXIMATE)
    library = [p for p in sorted((support / "math").glob("*.c")) if p.stem not in exact]
    own = [replace(s, flags=(*s.flags, "-include", str(header))) if s.group == "model" else s for s in sources]
    return [*own, *(Source(path, "runtime", flags=renamed) for path in library)]


def bench_includes() -> list[Path]:
    """Folders to search for the port's headers and for <string.h>; board.h comes from the build's own
    folder.
    """
    runtime = runtime_dir()
    return [runtime / "port", runtime / "port" / "cortex_m", runtime / "support" / "include"]
