# SPDX-License-Identifier: Apache-2.0
"""Toolchain: sizes agree with the ELF file, errors carry the compiler's words, objects are cached, bits are
right.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from edgec.device.toolchain import (
    Source,
    build_firmware,
    build_host_library,
    cache_dir,
    compile_objects,
    cpu_flags,
    host_flags,
)
from edgec.emit.linker import linker_script
from edgec.errors import DeviceError, FitError
from edgec.resources import runtime_dir
from edgec.target import load_target
from tests.toy_model import build_toy

F746 = load_target("stm32f746")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_sizes_by_group_add_up_to_the_sections(tmp_path: Path) -> None:
    firmware = build_toy(F746, tmp_path)
    with firmware.elf.open("rb") as file:
        elf = ELFFile(file)
        sections = {s.name: s["sh_size"] for s in elf.iter_sections() if s["sh_flags"] & 2}
    assert {k: v for k, v in firmware.sections.items() if v} == {k: v for k, v in sections.items() if v}
    for kind, names in (("code", (".text", ".vectors")), ("rodata", (".rodata",)), ("bss", (".bss",))):
        total = sum(getattr(sizes, kind) for sizes in firmware.sizes.values())
        padding = sum(sections[name] for name in names) - total
        assert 0 <= padding < 64
    assert firmware.weights_bytes == 64
    assert firmware.sizes["model"].bss == 0  # arena and state have sections of their own
    assert firmware.sections[".state.dtcm_sram1_sram2"] == 300
    assert firmware.sections[".arena.dtcm_sram1_sram2"] == 600


def test_the_image_starts_with_the_vectors(tmp_path: Path) -> None:
    firmware = build_toy(F746, tmp_path, stack_bytes=2048)
    vectors = firmware.bin.read_bytes()[:8]
    stack, reset = int.from_bytes(vectors[:4], "little"), int.from_bytes(vectors[4:], "little")
    assert stack == 0x20000000 + 2048  # the stack lies at the bottom: an overflow leaves RAM
    assert reset & 1
    assert 0x08000000 < reset < 0x08000000 + firmware.bin.stat().st_size


def test_external_weights_get_their_own_image(tmp_path: Path) -> None:
    weights = write(tmp_path / "w.c", '__attribute__((section(".weights.qspi"))) const volatile char w[5] = "ABCD";\n')
    code = write(
        tmp_path / "m.c",
        "extern const volatile char w[5];\nvoid Reset_Handler(void);\nvoid Reset_Handler(void) { (void)w[1]; }\n",
    )
    disco = load_target("stm32f746g-disco")
    sources = [Source(weights, "model"), Source(code, "model")]
    firmware = build_firmware(disco, sources, [], linker_script(disco), tmp_path / "out")
    assert firmware.external_bins["qspi"].read_bytes() == b"ABCD\0"
    assert firmware.bin.stat().st_size < 1000
    assert firmware.weights_bytes == 5


def test_a_section_that_does_not_fit_is_told_in_bytes(tmp_path: Path) -> None:
    big = write(
        tmp_path / "big.c",
        '__attribute__((section(".arena.dtcm_sram1_sram2"))) volatile char a[330000];\n'
        "void Reset_Handler(void);\nvoid Reset_Handler(void) { a[0] = 1; }\n",
    )
    with pytest.raises(FitError, match=r"dtcm_sram1_sram2 over by 6,\d\d\d B"):
        build_firmware(F746, [Source(big, "model")], [], linker_script(F746), tmp_path / "out")


def test_the_compilers_message_reaches_the_user(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.c", "int f(void) { return undeclared_thing; }\n")
    with pytest.raises(DeviceError, match="undeclared_thing"):
        build_host_library([Source(bad, "model")], [], tmp_path / "out")
    narrowing = write(tmp_path / "n.c", "signed char f(int x);\nsigned char f(int x) { return x; }\n")
    with pytest.raises(DeviceError, match="Wimplicit-int-conversion"):
        build_host_library([Source(narrowing, "model")], [], tmp_path / "out")
    build_host_library([Source(narrowing, "model", warnings=False)], [], tmp_path / "out")
    missing = write(
        tmp_path / "m.c",
        "void absent(void);\nvoid Reset_Handler(void);\nvoid Reset_Handler(void) { absent(); }\n",
    )
    with pytest.raises(DeviceError, match="absent"):
        build_firmware(F746, [Source(missing, "model")], [], linker_script(F746), tmp_path / "out")


def test_objects_are_cached_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "inc").mkdir()
    header = write(tmp_path / "inc" / "v.h", "#define V 1\n")
    source = Source(write(tmp_path / "a.c", '#include "v.h"\nint a(void);\nint a(void) { return V; }\n'), "model")

    def build() -> Path:
        return compile_objects([source], [tmp_path / "inc"], host_flags())[0]

    first = build()
    assert first.is_relative_to(cache_dir())
    stamp = first.stat().st_mtime_ns
    assert build() == first
    assert first.stat().st_mtime_ns == stamp
    header.write_text("#define V 2\n")
    assert build() != first
    assert not [p for p in cache_dir().rglob("part-*")]


def test_flags_follow_core_and_features() -> None:
    assert "-mfpu=fpv5-sp-d16" in cpu_flags(F746.cpu)
    assert "-mfpu=fpv5-d16" in cpu_flags(load_target("stm32h743").cpu)
    assert {"-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16"} <= set(cpu_flags(load_target("stm32f407").cpu))
    l552 = load_target("stm32l552").cpu
    assert {"-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"} <= set(cpu_flags(l552))
    assert "-mcpu=cortex-m33+nodsp" in cpu_flags(replace(l552, features=frozenset({"fpv5-sp"})))
    for name, core in (("stm32f207", "cortex-m3"), ("stm32g0b1", "cortex-m0plus")):
        assert {f"-mcpu={core}", "-mfpu=none", "-mfloat-abi=soft"} <= set(cpu_flags(load_target(name).cpu))


@pytest.fixture(scope="module")
def divide(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    # The naked wrappers are ARM; the arithmetic under them is plain C.
    text = (runtime_dir() / "support" / "divide64.c").read_text()
    folder = tmp_path_factory.mktemp("divide")
    source = write(folder / "divide.c", text[: text.index("/* The ABI returns")])
    library = ctypes.CDLL(str(build_host_library([Source(source, "runtime")], [], folder)))
    library.edgec_divide_u64.restype, library.edgec_divide_s64.restype = ctypes.c_uint64, ctypes.c_int64
    return library


edges = st.sampled_from([0, 1, 2, 3, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])


@given(a=edges | st.integers(0, (1 << 64) - 1), b=edges | st.integers(0, (1 << 64) - 1) | st.integers(0, 1 << 20))
def test_unsigned_division_is_pythons(divide: ctypes.CDLL, a: int, b: int) -> None:
    rest = ctypes.c_uint64()
    quotient = divide.edgec_divide_u64(ctypes.c_uint64(a), ctypes.c_uint64(b), ctypes.byref(rest))
    assert (quotient, rest.value) == ((a // b, a % b) if b else (0, a))


@given(a=st.integers(-(1 << 63), (1 << 63) - 1), b=st.integers(-(1 << 63), (1 << 63) - 1).filter(bool))
def test_signed_division_truncates(divide: ctypes.CDLL, a: int, b: int) -> None:
    rest = ctypes.c_int64()
    quotient = divide.edgec_divide_s64(ctypes.c_int64(a), ctypes.c_int64(b), ctypes.byref(rest))
    want = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    assert (quotient, rest.value) == (ctypes.c_int64(want).value, a - want * b)
