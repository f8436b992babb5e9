# SPDX-License-Identifier: Apache-2.0
"""Phase 6 of the compile: C files, firmware or host library, header with its figures, manifest."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from edgec.artifact import MANIFEST, TARGET_COPY, write_json
from edgec.device.port import bench_includes, bench_sources, with_board_math
from edgec.device.stack import StackBound, static_stack_bound
from edgec.device.toolchain import Firmware, Source, build_firmware, build_host_library
from edgec.emit.bench import bench_source
from edgec.emit.board_header import board_header
from edgec.emit.constants import kernels_header, kernels_source, weights_header, weights_source
from edgec.emit.header import Figures, header
from edgec.emit.linker import DEFAULT_STACK_BYTES, linker_script
from edgec.emit.model import Built
from edgec.emit.package import Kind, PackageFile, write_cmake
from edgec.emit.source import source
from edgec.errors import FitError
from edgec.manifest import manifest
from edgec.model import Model
from edgec.resources import runtime_dir

BENCH_STACK = 1024
"""Stack bytes that the bench's own frames take beside a run's."""


def build(built: Built, model: Model, folder: Path) -> None:
    """Write the artifact of `built` into `folder`.

    Raises:
        DeviceError: the compiler refuses generated code (a defect of edgec).
        FitError: the linked program does not fit.
    """
    model_id = _write_sources(built, folder)
    if built.target.ram_spans():
        firmware, stack = _firmware(built, folder)
        figures = _sizes(built, firmware, stack)
    else:
        build_host_library(host_sources(folder, built.prefix), includes(folder), folder)
        figures = _sizes(built, None, None)
    (folder / f"{built.prefix}.h").write_text(
        header(built, Figures(figures["flash"]["total_bytes"], figures["ram"]["stack_bytes"]))
    )
    write_cmake(folder, built.prefix, built.program.name, package_files(folder, built.prefix))
    write_json(folder / MANIFEST, manifest(built, model, model_id, figures, folder))


def includes(folder: Path) -> list[Path]:
    """Include folders of an artifact's sources."""
    return [folder, folder / "runtime" / "include", folder / "bench", runtime_dir() / "port"]


def host_sources(folder: Path, prefix: str) -> list[Source]:
    """What the host library of an artifact is made from: model, kernels, glue, the board's functions of <math.h>."""
    return with_board_math(_bench_sources(folder, prefix))


def _bench_sources(folder: Path, prefix: str) -> list[Source]:
    """Model, kernels, glue: what host library and firmware share."""
    return [*_model_sources(folder, prefix), Source(folder / "bench" / "bench.c", "bench")]


def _model_sources(folder: Path, prefix: str) -> list[Source]:
    names = [f"{prefix}_kernels.c", f"{prefix}_weights.c"]
    hand = sorted(p for p in (folder / "runtime" / "kernels").rglob("*") if p.suffix in (".c", ".S"))
    model = [Source(folder / f"{prefix}.c", "model", small=True), *(Source(folder / n, "model") for n in names)]
    return [*model, *(Source(p, "kernels") for p in hand)]


def package_files(folder: Path, prefix: str) -> list[PackageFile]:
    """What a user's project needs of an artifact: its sources and their headers, the bench left out."""
    runtime = folder / "runtime"
    headers = [folder / f"{prefix}{end}.h" for end in ("", "_kernels", "_weights")]
    headers += sorted((runtime / "include").glob("*.h")) + sorted((runtime / "kernels").rglob("*.h"))
    api = {f"{prefix}.h", "edgec.h"}

    def entry(path: Path) -> PackageFile:
        kind: Kind = "source" if path.suffix == ".c" else "assembly"
        if path.suffix == ".h":
            kind = "api" if path.name in api else "header"
        return PackageFile(kind, PurePosixPath(path.relative_to(folder).as_posix()))

    return [entry(path) for path in (*headers, *(s.path for s in _model_sources(folder, prefix)))]


def _write_sources(built: Built, folder: Path) -> str:
    """All C text; returns the digest of it, by which host and firmware recognise each other."""
    p = built.prefix
    texts = {
        f"{p}.c": source(built),
        f"{p}_kernels.h": kernels_header(built),
        f"{p}_kernels.c": kernels_source(built),
        f"{p}_weights.h": weights_header(built),
        f"{p}_weights.c": weights_source(built),
    }
    model_id = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()
    bench = folder / "bench"
    bench.mkdir()
    (bench / "bench.c").write_text(bench_source(built, model_id))
    texts[f"{p}.h"] = header(built, Figures(None, None))
    for name, text in texts.items():
        (folder / name).write_text(text)
    _copy_runtime(built, folder / "runtime")
    shutil.copyfile(built.target.path, folder / TARGET_COPY)
    return model_id


def _copy_runtime(built: Built, folder: Path) -> None:
    shutil.copytree(runtime_dir() / "include", folder / "include")
    for name in dict.fromkeys(s for i in built.implementations for s in i.sources):
        original = runtime_dir() / "kernels" / name
        copy = folder / "kernels" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, copy)
        for private in original.parent.glob("*.h"):
            shutil.copyfile(private, copy.parent / private.name)


def _firmware(built: Built, folder: Path) -> tuple[Firmware, StackBound]:
    bench = folder / "bench"
    (bench / "board.h").write_text(board_header(built.target))
    sources = [*_bench_sources(folder, built.prefix), *bench_sources()]
    paths = [*includes(folder), *bench_includes()]
    reserve = DEFAULT_STACK_BYTES
    while True:
        script = linker_script(built.target, stack_bytes=reserve)
        firmware = build_firmware(built.target, sources, paths, script, folder)
        api = [f"{built.prefix}_run", *([f"{built.prefix}_feed_rows"] if built.program.feed else [])]
        stack = max((static_stack_bound(firmware.elf, symbol) for symbol in api), key=lambda bound: bound.bytes)
        if stack.bytes + BENCH_STACK <= reserve:
            return firmware, stack
        reserve = -(-(stack.bytes + BENCH_STACK) // 8) * 8


def _sizes(built: Built, firmware: Firmware | None, stack: StackBound | None) -> dict[str, Any]:
    """RAM and flash as the manifest states them: the product's bytes, and the bench's apart."""
    weights = sum(-(-p.values.nbytes // 4) * 4 for p in built.constants().values())
    ram: dict[str, Any] = {"arena_bytes": built.plan.arena_bytes, "state_bytes": built.state.bytes}
    if firmware is None or stack is None:
        ram |= {"stack_bytes": None, "static_bytes": None, "total_bytes": None, "bench_bytes": None}
        return {
            "ram": ram,
            "flash": {"code_bytes": None, "weights_bytes": weights, "total_bytes": None, "bench_bytes": None},
        }
    product = [firmware.sizes[g] for g in ("model", "kernels", "runtime")]
    bench = firmware.sizes["bench"]
    code, static = sum(g.flash for g in product), sum(g.ram for g in product)
    ram |= {
        "stack_bytes": stack.bytes,
        "static_bytes": static,
        "total_bytes": built.plan.arena_bytes + built.state.bytes + stack.bytes + static,
        "bench_bytes": bench.ram,
    }
    have = sum(s.size for s in built.target.ram_spans())
    if ram["total_bytes"] > have:
        raise FitError(
            f"the program needs {ram['total_bytes']:,} B of RAM, {built.target.name} has {have:,} B:"
            f" over by {ram['total_bytes'] - have:,} B at {built.plan.peak_at}",
            need=f"arena {ram['arena_bytes']:,} + state {ram['state_bytes']:,} + stack {ram['stack_bytes']:,}"
            f" + static {ram['static_bytes']:,} B",
            hint="a target with more RAM, or a smaller model",
        )
    return {
        "ram": ram,
        "flash": {
            "code_bytes": code,
            "weights_bytes": firmware.weights_bytes,
            "total_bytes": code + firmware.weights_bytes,
            "bench_bytes": bench.flash,
        },
    }
