# SPDX-License-Identifier: Apache-2.0
"""Targets: what the shipped files say, and that every wrong file is refused by file, key and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.errors import UsageError
from edgec.resources import targets_dir
from edgec.target import Target, list_targets, load_target

GOOD = (targets_dir() / "stm32f746.toml").read_text()
FLASH = 'flash = { origin = 0x0800_0000, size = "1M",   kind = "flash", wait_states = 7 }'
SRAM2 = 'sram2 = { origin = 0x2004_C000, size = "16K",  kind = "ram",   wait_states = 1 }'


def spans(target: Target) -> list[tuple[str, int, int]]:
    return [(s.name, s.origin, s.size) for s in target.ram_spans()]


def test_the_shipped_targets_are_these() -> None:
    assert list_targets() == [
        "host-c",
        "stm32f207",
        "stm32f407",
        "stm32f746",
        "stm32f746g-disco",
        "stm32g0b1",
        "stm32h743",
        "stm32l552",
    ]
    for name in list_targets():
        assert load_target(name).name == name


def test_adjacent_ram_is_one_span() -> None:
    # Sizes as the reference manuals state them.
    assert spans(load_target("stm32f746")) == [("dtcm+sram1+sram2", 0x20000000, 327_680)]
    assert spans(load_target("stm32l552")) == [("sram1+sram2", 0x20000000, 262_144)]
    assert spans(load_target("stm32f207")) == [("sram", 0x20000000, 131_072)]
    assert spans(load_target("stm32g0b1")) == [("sram", 0x20000000, 147_456)]
    assert spans(load_target("stm32f407")) == [("sram", 0x20000000, 131_072), ("ccm", 0x10000000, 65_536)]
    assert spans(load_target("stm32h743")) == [
        ("dtcm", 0x20000000, 131_072),
        ("axi", 0x24000000, 524_288),
        ("sram1+sram2+sram3", 0x30000000, 294_912),
        ("sram4", 0x38000000, 65_536),
    ]


def test_flash_and_features() -> None:
    disco = load_target("stm32f746g-disco")
    assert [(r.name, r.size, r.controller) for r in disco.flash_regions()] == [
        ("flash", 1 << 20, None),
        ("qspi", 16 << 20, "quadspi"),
    ]
    assert disco.internal_flash().name == "flash"
    assert disco.cpu.has("dsp")
    assert disco.cpu.has("fpu")
    assert not disco.cpu.has("fpv5-dp")
    assert load_target("stm32h743").cpu.has("fpv5-dp")
    assert {name: sorted(load_target(name).cpu.features) for name in ("stm32l552", "stm32f207", "stm32g0b1")} == {
        "stm32l552": ["dsp", "fpv5-sp"],
        "stm32f207": [],
        "stm32g0b1": [],
    }
    assert load_target("host-c").memory == ()


def test_an_unknown_target_names_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        load_target("stm32f764")
    text = str(caught.value)
    assert "unknown target 'stm32f764'" in text
    assert all(name in text for name in list_targets())
    assert "--target stm32f746" in text


def test_a_path_is_a_target_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace('name   = "stm32f746"', 'name = "mine"'))
    assert load_target(path).name == "mine"
    with pytest.raises(UsageError, match="cannot read target file"):
        load_target(tmp_path / "absent.toml")


BAD = {
    "no TOML": ("[memory]", "[memory", "not valid TOML"),
    "no name": ('name   = "stm32f746"', "", "name: missing"),
    "unknown key": ('runner = "sim"', 'runner = "sim"\nruner = "sim"', "runer: unknown key"),
    "odd key in a region": ("wait_states = 7", "wait_states = 7, wait = 1", "memory.flash.wait: unknown key"),
    "unknown family": ('family = "stm32"', 'family = "stm23"', "family: unknown value 'stm23'"),
    "unknown core": ('"cortex-m7"', '"cortex-m8"', "cpu.core: unknown value 'cortex-m8'"),
    "unknown feature": ('"fpv5-sp"', '"fpv4-sp"', "cpu.features: cortex-m7 has no feature 'fpv4-sp'"),
    "bad size": ('"240K"', '"240KB"', "memory.sram1.size: '240KB' is not a size"),
    "size as a float": ('"240K"', "1.5", "memory.sram1.size: 1.5 is not an integer"),
    "zero size": ('"16K"', "0", "memory.sram2.size: 0 is out of range"),
    "boolean": ("wait_states = 7", "wait_states = true", "memory.flash.wait_states: True is not an integer"),
    "odd origin": ("0x2004_C000", "0x2004_C001", "memory.sram2.origin: 0x2004c001 is not a multiple"),
    "beyond 4 GB": ("0x2004_C000", "0xFFFF_FC00", "memory.sram2.size: ends at"),
    "unknown kind": (
        'size = "64K",  kind = "ram"',
        'size = "64K",  kind = "rom"',
        "memory.dtcm.kind: unknown value 'rom'",
    ),
    "no RAM": ('kind = "ram"', 'kind = "flash"', "no region of kind 'ram'"),
    "no flash": (FLASH, "", "no internal region of kind 'flash'"),
    "overlap": ("0x2004_C000", "0x2004_8000", "memory.sram1 and sram2: they overlap"),
    "region over a peripheral": (SRAM2, SRAM2.replace("0x2004_C000", "0x4002_0000"), "they overlap"),
    "unknown peripheral": ('reg = "rcc+0x44"', 'reg = "rc+0x44"', "[peripherals] has no 'rc'"),
    "bad register": ('reg = "rcc+0x44"', 'reg = "0x44"', "is not a register"),
    "unknown model": ('"usart-v2"', '"usart-v3"', "peripherals.usart1.model: unknown value"),
    "step that waits forever": ("equals = 0x8 }", "equals = 0x10 }", "boot.steps[9].equals: has bits"),
    "idle step": ('{ reg = "pwr+0x04", wait = 0x0001_0000 }', '{ reg = "pwr+0x04" }', "does nothing"),
    "no such pin": ('"PA9"', '"A9"', "console.tx.pin: 'A9' is not a pin"),
    "pin of no port": ('"PA10"', '"PC10"', "console.rx.pin: 'PC10' is on gpioc"),
    "alternate function": ('"PA9",  af = 7', '"PA9",  af = 16', "console.tx.af: 16 is out of range"),
    "console is no USART": ('usart    = "usart1"', 'usart = "gpioa"', "console.usart: unknown value"),
    "baud out of reach": ("115_200", "100_000_000", "console.baud: 100000000 cannot be made"),
    "no console": ("[console]", "[consol]", "console: missing"),
    "table is no table": ("[boot]", "[boots]\nx = 1\n[boot2]", "boot: missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_file_is_refused(name: str, tmp_path: Path) -> None:
    old, new, message = BAD[name]
    assert old in GOOD
    path = tmp_path / "bad.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UsageError) as caught:
        load_target(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_overlap_names_both_ranges(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(GOOD.replace("0x2004_C000", "0x2004_8000"))
    with pytest.raises(UsageError) as caught:
        load_target(path)
    assert "sram1 0x20010000..0x2004bfff" in str(caught.value)
    assert "sram2 0x20048000..0x2004bfff" in str(caught.value)
