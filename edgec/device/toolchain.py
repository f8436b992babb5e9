# SPDX-License-Identifier: Apache-2.0
"""C to firmware and C to host library, with the clang and lld of the `ziglang` wheel.

Objects are cached by content under `$XDG_CACHE_HOME/edgec/objects`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgec.device.elf_image import ElfImage
from edgec.device.link_map import SectionSizes, read_link_map
from edgec.errors import DeviceError, FitError
from edgec.target import Cpu, Region, Target

GROUPS = ("model", "kernels", "runtime", "bench")
"""Who a source belongs to; sizes are told apart by it. Only `bench` is not part of the product."""

APPROXIMATE = tuple("cosf erff exp2f expf expm1f log1pf logf powf sinf tanhf".split())
"""Functions of <math.h> whose last bits differ from one library to the next."""

_COMPILE_JOBS = 2
_CORE_FLAGS = {
    "cortex-m0plus": ("--target=thumbv6m-none-eabi", "-mcpu=cortex-m0plus"),
    "cortex-m3": ("--target=thumbv7m-none-eabi", "-mcpu=cortex-m3"),
    "cortex-m4": ("--target=thumbv7em-none-eabihf", "-mcpu=cortex-m4"),
    "cortex-m7": ("--target=thumbv7em-none-eabihf", "-mcpu=cortex-m7"),
    "cortex-m33": ("--target=thumbv8m.main-none-eabi", "-mcpu=cortex-m33"),
}
_FPU_FLAGS = {"fpv4-sp": "-mfpu=fpv4-sp-d16", "fpv5-sp": "-mfpu=fpv5-sp-d16", "fpv5-dp": "-mfpu=fpv5-d16"}
_WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
_COMMON = (
    "-std=c11",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-math-errno",
    "-fno-common",
    "-ffp-contract=off",
)
_FIRMWARE = (
    "-O3", "-nostdlibinc", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables",
    "-fno-exceptions", "-fomit-frame-pointer", "-fstack-size-section", "-fno-jump-tables",
)  # fmt: skip
# -fno-jump-tables: a table of code addresses is an indirect jump, which the static stack bound cannot follow.
_HOST = ("-O3", "-fPIC")
# No call is doubled, nor are two made one, nor is one left to be the caller's.
_SMALL = (
    "-O1", "-fno-unroll-loops", "-fno-optimize-sibling-calls", "-mllvm", "-enable-tail-merge=false",
    "-mllvm", "-sink-common-insts=false",
)  # fmt: skip
# Freestanding, or clang would turn memcpy's own loop into a call of memcpy; models and kernels keep the
# builtins.
_GROUP_FLAGS = {
    # What the compiler knows of expf it would compute by itself here and there, in bits of its own.
    "model": tuple(f"-fno-builtin-{name}" for name in APPROXIMATE),
    "runtime": ("-ffreestanding",),
    "bench": ("-ffreestanding",),
}


@dataclass(frozen=True)
class Source:
    """A C or assembly file and the group that its bytes are counted under."""

    path: Path
    group: str
    warnings: bool = True
    """Whether our own warnings apply as errors (not to C that another tool generates)."""
    small: bool = False
    """Compiled for size: a run only calls. A call stays one place in the program, which profiles count by."""
    flags: tuple[str, ...] = ()
    """Compiler flags of its own."""


@dataclass(frozen=True)
class Firmware:
    """A linked image.

    `sizes` maps each group to {code, rodata, data, bss} in bytes; `weights_bytes` is what the `.weights*`
    sections
    hold; `sections` maps every section of the image to its size (arenas and state among them).
    """

    elf: Path
    bin: Path
    external_bins: dict[str, Path]
    """One more image per external flash region that holds something, by region name."""
    sizes: dict[str, SectionSizes]
    weights_bytes: int
    sections: dict[str, int]


@functools.cache
def zig_binary() -> Path:
    """The `zig` executable of the ziglang wheel.

    Raises:
        DeviceError: ziglang is not installed.
    """
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not spec.submodule_search_locations:
        raise DeviceError("the C compiler is missing", need="the Python package ziglang", hint="pip install ziglang")
    return Path(next(iter(spec.submodule_search_locations))) / "zig"


@functools.cache
def toolchain_version() -> str:
    """Name and version of the toolchain, for manifests."""
    return f"ziglang {importlib.metadata.version('ziglang')}"


def cpu_flags(cpu: Cpu) -> tuple[str, ...]:
    """Compiler flags for a microcontroller core, from its core and features alone."""
    fpu = [flag for feature, flag in _FPU_FLAGS.items() if cpu.has(feature)]
    triple, core = _CORE_FLAGS[cpu.core]
    optional = cpu.core == "cortex-m33" and not cpu.has("dsp")  # elsewhere the DSP set comes with the core
    return (
        triple,
        f"{core}+nodsp" if optional else core,
        *(fpu or ("-mfpu=none",)),
        "-mfloat-abi=hard" if fpu else "-mfloat-abi=soft",
    )


def cache_dir() -> Path:
    """Where edgec keeps what it can rebuild."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgec"


def build_firmware(
    target: Target, sources: Sequence[Source], includes: Sequence[Path], script: str, out_dir: Path
) -> Firmware:
    """Compile and link `sources` with the linker script `script` into `out_dir`/firmware.elf and .bin.

    `includes` are searched in order; `board.h` (edgec.emit.board_header) must lie in one of them.

    Raises:
        DeviceError: the compiler or linker complains; carries its message.
        FitError: a section does not fit its memory.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    flags = (
        *cpu_flags(target.cpu),
        *_COMMON,
        *_FIRMWARE,
        "-isystem",
        str(zig_binary().parent / "lib/include"),
    )
    objects = compile_objects(sources, includes, flags)
    script_path, elf, map_path = out_dir / "firmware.ld", out_dir / "firmware.elf", out_dir / "firmware.map"
    script_path.write_text(script)
    # -O0 is the linker's: it keeps equal strings apart, so that every byte of the map has an owner.
    _link(["--gc-sections", "-O0", "-T", script_path, f"-Map={map_path}", *dict.fromkeys(objects), "-o", elf])
    groups = {str(obj): source.group for obj, source in zip(objects, sources, strict=True)}
    sizes, sections = read_link_map(map_path, groups, GROUPS)
    _name_objects_by_source(map_path, objects, sources)
    image = ElfImage(elf)
    binary = out_dir / "firmware.bin"
    binary.write_bytes(_flash_image(image, target.internal_flash()))
    external_bins = {}
    for region in target.flash_regions():
        data = _flash_image(image, region)
        if region.controller is not None and data:
            external_bins[region.name] = out_dir / f"firmware.{region.name}.bin"
            external_bins[region.name].write_bytes(data)
    weights = sum(size for name, size in sections.items() if name.startswith(".weights"))
    return Firmware(elf, binary, external_bins, sizes, weights, sections)


def _name_objects_by_source(map_path: Path, objects: Sequence[Path], sources: Sequence[Source]) -> None:
    """The cache's names differ from build to build, the firmware does not: neither shall its map."""
    text = map_path.read_text()
    for made, source in zip(objects, sources, strict=True):
        text = text.replace(str(made), f"{source.group}/{source.path.name}.o")
    map_path.write_text(text)


def build_host_library(sources: Sequence[Source], includes: Sequence[Path], out_dir: Path) -> Path:
    """Compile `sources` for this machine into `out_dir`/host.so; libc and libm resolve in the Python process.

    Raises:
        DeviceError: the compiler or linker complains; carries its message.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    objects = compile_objects(sources, includes, host_flags())
    library = out_dir / "host.so"
    _link(["-shared", "--gc-sections", "-Bsymbolic", *dict.fromkeys(objects), "-o", library])
    return library


def cached_host_library(sources: Sequence[Source], folder: str, includes: Sequence[Path] = ()) -> Path:
    """`build_host_library` for a library of the tool's own: kept in the cache's `folder`, built if anything changed.

    Raises:
        DeviceError: as `build_host_library`, or the cache cannot be written.
    """
    recipe = "\0".join([toolchain_version(), *host_flags(), _headers_digest(includes)])
    digest = hashlib.sha256(recipe.encode())
    for source in sources:
        digest.update(b"\0" + source.path.read_bytes())
    path = cache_dir() / folder / f"{sources[0].path.stem}-{digest.hexdigest()[:24]}.so"
    if not path.exists():
        with _workplace(path.parent) as part:
            build_host_library(sources, includes, Path(part)).replace(path)
    return path


@functools.cache
def host_flags() -> tuple[str, ...]:
    """Compiler flags for this machine."""
    machine = platform.machine()
    if machine not in ("x86_64", "aarch64") or platform.system() != "Linux":
        raise DeviceError(
            f"no host compiler set-up for {platform.system()} on {platform.machine()}",
            need="Linux on x86-64 or aarch64",
        )
    lib = zig_binary().parent / "lib"
    system = [lib / "include"]
    folder = {"x86_64": "x86", "aarch64": "aarch64"}[machine]
    libc = (f"{folder}-linux-gnu", "generic-glibc", f"{folder}-linux-any", "any-linux-any")
    system += [lib / "libc/include" / name for name in libc]
    # LLVM 22 vectorizes some copies for AVX-512 into wrong ones (the test of `Tile` in tests/test_onnx_backend.py).
    native = ("-march=native", "-mno-avx512f") if machine == "x86_64" else ("-mcpu=native",)
    includes = [arg for path in system if path.is_dir() for arg in ("-isystem", str(path))]
    return (f"--target={machine}-linux-gnu", *native, *_COMMON, *_HOST, "-nostdlibinc", *includes)


def compile_objects(sources: Sequence[Source], includes: Sequence[Path], flags: Sequence[str]) -> list[Path]:
    """Objects of `sources`, in order, from the cache where nothing that they are made from has changed."""
    headers = _headers_digest(includes)
    with ThreadPoolExecutor(_COMPILE_JOBS) as pool:
        return list(pool.map(lambda source: _compile(source, includes, flags, headers), sources))


def _compile(source: Source, includes: Sequence[Path], flags: Sequence[str], headers: str) -> Path:
    flags = [
        *flags,
        *_GROUP_FLAGS.get(source.group, ()),
        *source.flags,
        *(_SMALL if source.small else ()),
        *(_WARNINGS if source.warnings else ("-w",)),
    ]
    try:
        text = source.path.read_bytes()
    except OSError as error:
        raise DeviceError(f"cannot read {source.path}: {error.strerror}") from None
    own = "" if source.path.parent in includes else _headers_digest([source.path.parent])
    recipe = "\0".join([toolchain_version(), *flags, *map(str, includes), headers, own, str(source.path), source.group])
    digest = hashlib.sha256(recipe.encode() + b"\0" + text).hexdigest()
    folder = cache_dir() / "objects" / digest[:2]
    cached = folder / f"{source.path.stem}-{digest[:24]}.o"
    if cached.exists():
        return cached
    with _workplace(folder) as part:
        made = Path(part) / cached.name
        args: list[str | Path] = [*flags, *(f"-I{path}" for path in includes), "-c", source.path, "-o", made]
        result = _run_zig("clang", args)
        if result.returncode:
            raise DeviceError(f"cannot compile {source.path}\n{result.stderr.rstrip()}")
        made.replace(cached)
    return cached


def _workplace(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder to write in, in the cache."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder, prefix="part-")
    except OSError as error:
        raise DeviceError(
            f"cannot write the cache {cache_dir()}: {error.strerror}",
            hint="set XDG_CACHE_HOME to a folder where you may write",
        ) from None


def _headers_digest(folders: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".h", ".inc") and p.is_file()):
            digest.update(str(path).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _link(args: Sequence[str | Path]) -> None:
    result = _run_zig("ld.lld", args)
    if result.returncode == 0:
        return
    overflows = re.findall(r"section '(\S+)' will not fit in region '(\S+)': overflowed by (\d+) bytes", result.stderr)
    if overflows:
        worst: dict[str, int] = {}
        for _, region, over in overflows:
            worst[region] = max(worst.get(region, 0), int(over))
        told = "; ".join(f"{region} over by {over:,} B" for region, over in worst.items())
        first = overflows[0][0]
        raise FitError(f"the program does not fit: {told} (first at section {first})")
    raise DeviceError(f"cannot link\n{result.stderr.rstrip()}")


def _flash_image(image: ElfImage, region: Region) -> bytes:
    """What a programmer writes from the region's origin on; gaps read as erased flash."""
    data = bytearray()
    for address, part in sorted(image.segments):
        if region.origin <= address < region.end:
            data += b"\xff" * (address - region.origin - len(data)) + part
    return bytes(data)


def _run_zig(tool: str, args: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(zig_binary()), tool, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
