# SPDX-License-Identifier: Apache-2.0
"""Builds the hand-written toy model of tests/fixtures/toy as firmware or host library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgec.device.port import bench_includes, bench_sources
from edgec.device.toolchain import Firmware, Source, build_firmware, build_host_library
from edgec.emit.board_header import board_header
from edgec.emit.linker import linker_script
from edgec.resources import runtime_dir
from edgec.target import Target

TOY = Path(__file__).parent / "fixtures" / "toy"
BYTES = 300


def toy_sources() -> list[Source]:
    """The toy's own C files."""
    return [
        Source(TOY / "toy.c", "model"),
        Source(TOY / "negate.c", "kernels"),
        Source(TOY / "accumulate.c", "kernels"),
    ]


def build_toy(
    target: Target,
    out: Path,
    *,
    defines: Mapping[str, str] | None = None,
    replace: Mapping[str, Path] | None = None,
    extra: Sequence[Source] = (),
    stack_bytes: int = 4096,
    model: Path = TOY / "toy.c",
) -> Firmware:
    """Firmware of the toy; `defines` go into a header, `replace` exchanges bench sources by file name."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "board.h").write_text(board_header(target))
    given = {"TOY_ARENA": f'"{target.ram_spans()[-1].arena_section}"', **(defines or {})}
    own = model.read_text()
    (out / "toy.c").write_text("".join(f"#define {k} {v}\n" for k, v in given.items()) + own)
    replaced = replace or {}
    sources = [Source(out / "toy.c", "model"), *toy_sources()[1:], *extra]
    sources += [Source(replaced.get(s.path.name, s.path), s.group) for s in bench_sources()]
    return build_firmware(
        target, sources, [out, TOY, *bench_includes()], linker_script(target, stack_bytes=stack_bytes), out
    )


def build_toy_library(out: Path) -> Path:
    """Host library of the toy."""
    return build_host_library(toy_sources(), [TOY, runtime_dir() / "port"], out)


def toy_steps(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the toy must answer to a stream of inputs, in NumPy."""
    state = np.zeros(BYTES, np.int64)
    outputs = []
    for x in inputs:
        y = (-x.astype(np.int64)).astype(np.int8)
        state = (state + y).astype(np.int8).astype(np.int64)
        outputs.append(state.astype(np.int8))
    return outputs
