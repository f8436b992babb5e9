# SPDX-License-Identifier: Apache-2.0
"""Targets: one TOML a board in `targets/`, read into frozen dataclasses and validated.

Nothing in edgec asks for a target by name; it asks what the target has (`target.cpu.has("dsp")`,
`target.ram_spans()`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgec.errors import UsageError
from edgec.resources import targets_dir
from edgec.target_fields import Fields, nearest

FAMILIES = ("host", "stm32")
RUNNERS = ("host-c", "sim")
REGION_KINDS = ("ram", "flash")
CORES: dict[str, tuple[str, ...]] = {
    "native": (),
    "cortex-m0plus": (),
    "cortex-m3": (),
    "cortex-m4": ("dsp", "fpv4-sp"),
    "cortex-m7": ("dsp", "fpv5-sp", "fpv5-dp"),
    "cortex-m33": ("dsp", "fpv5-sp"),
}
"""Cores that edgec compiles for, each with the features that a target of that core may state."""
PERIPHERAL_MODELS = (
    "rcc-f4", "rcc-g0", "rcc-h7", "rcc-l5", "flash-f4", "flash-g0", "flash-h7", "flash-l5", "icache",
    "pwr-f4", "pwr-f7", "pwr-h7", "pwr-l5", "gpio", "usart-v1", "usart-v2", "quadspi",
)  # fmt: skip
"""Register layouts that boot and the simulated board know; usart-v1 has SR and DR, usart-v2 ISR, RDR and
TDR.
"""


@dataclass(frozen=True)
class Cpu:
    """Core, features, clock in Hz (None: the host's own) and cache sizes in bytes."""

    core: str
    features: frozenset[str]
    clock_hz: int | None
    icache: int
    dcache: int

    def has(self, feature: str) -> bool:
        """Whether the core has `feature`; "fpu" stands for any floating-point unit."""
        if feature == "fpu":
            return any(f.startswith("fp") for f in self.features)
        return feature in self.features


@dataclass(frozen=True)
class Enable:
    """The clock-enable bit that wakes a peripheral or a memory: register address and bit number."""

    register: int
    bit: int


@dataclass(frozen=True)
class Accelerator:
    """A small cache between the core and its flash: bytes of a line, lines of code and of data, next line ahead."""

    line: int
    code_lines: int
    data_lines: int
    prefetch: bool


@dataclass(frozen=True)
class Region:
    """One memory; sizes in bytes. `controller` names the peripheral behind an external memory, else None.

    `line_cycles` are cycles of the core for one cache line from it, alone and after the line before, where the wait
    states do not tell.
    """

    name: str
    origin: int
    size: int
    kind: str
    wait_states: int
    controller: str | None = None
    enable: Enable | None = None
    line_cycles: tuple[int, int] | None = None
    accelerator: Accelerator | None = None

    @property
    def end(self) -> int:
        """First address after the region."""
        return self.origin + self.size


@dataclass(frozen=True)
class Span:
    """RAM regions without a gap between them: to a plan they are one memory. `wait_states` is the slowest
    part's.
    """

    name: str
    origin: int
    size: int
    wait_states: int
    regions: tuple[Region, ...]

    @property
    def end(self) -> int:
        """First address after the span."""
        return self.origin + self.size

    @property
    def identifier(self) -> str:
        """The name as a C identifier: `dtcm+sram1` becomes `dtcm_sram1`."""
        return self.name.replace("+", "_").replace("-", "_")

    @property
    def arena_section(self) -> str:
        """Linker section for arenas in this span."""
        return f".arena.{self.identifier}"

    @property
    def state_section(self) -> str:
        """Linker section for state in this span."""
        return f".state.{self.identifier}"


@dataclass(frozen=True)
class Peripheral:
    """A peripheral that boot touches: where its registers are, and which register layout it has."""

    name: str
    origin: int
    size: int
    model: str
    enable: Enable | None

    @property
    def end(self) -> int:
        """First address after its registers."""
        return self.origin + self.size


@dataclass(frozen=True)
class Pin:
    """A pin, its GPIO port (a peripheral's name, "gpioa"), number and alternate function."""

    name: str
    port: str
    number: int
    alternate: int


@dataclass(frozen=True)
class BootStep:
    """One register access of boot: `*reg = (*reg & ~clear) | set`, then wait until `(*reg & wait) == equals`.

    A step with `delay_us` only waits that long.
    """

    register: int
    clear: int
    set: int
    wait: int
    equals: int
    delay_us: int = 0


@dataclass(frozen=True)
class Boot:
    """Oscillators in Hz and the steps from reset to full speed; `after_pins` follow the pins' set-up."""

    hsi_hz: int | None
    hse_hz: int | None
    steps: tuple[BootStep, ...]
    pins: tuple[Pin, ...]
    after_pins: tuple[BootStep, ...]


@dataclass(frozen=True)
class Console:
    """The serial line: the USART, its kernel clock in Hz, baud rate and pins."""

    usart: Peripheral
    clock_hz: int
    baud: int
    tx: Pin
    rx: Pin


@dataclass(frozen=True)
class Target:
    """A validated target description."""

    name: str
    family: str
    runner: str
    cpu: Cpu
    memory: tuple[Region, ...]
    peripherals: tuple[Peripheral, ...]
    boot: Boot | None
    console: Console | None
    path: Path

    @cached_property
    def _spans(self) -> tuple[Span, ...]:
        groups: list[list[Region]] = []
        for region in sorted((r for r in self.memory if r.kind == "ram"), key=lambda r: r.origin):
            if groups and groups[-1][-1].end == region.origin:
                groups[-1].append(region)
            else:
                groups.append([region])
        spans = [
            Span(
                "+".join(r.name for r in group),
                group[0].origin,
                sum(r.size for r in group),
                max(r.wait_states for r in group),
                tuple(group),
            )
            for group in groups
        ]
        order = {region.name: i for i, region in enumerate(self.memory)}
        # Fastest first; among equals the order of the file, which lists general-purpose memory before
        # special ones.
        return tuple(sorted(spans, key=lambda s: (min(r.wait_states for r in s.regions), order[s.regions[0].name])))

    def ram_spans(self) -> list[Span]:
        """Address-adjacent RAM merged, fastest first (by its fastest part, then in the order of the file)."""
        return list(self._spans)

    def flash_regions(self) -> list[Region]:
        """Flash regions in the order of the file; the ones with a `controller` are external."""
        return [r for r in self.memory if r.kind == "flash"]

    def internal_flash(self) -> Region:
        """The flash that the core boots from."""
        return next(r for r in self.flash_regions() if r.controller is None)

    def peripheral(self, name: str) -> Peripheral:
        """The peripheral of that name (it exists: the loader checked every reference)."""
        return next(p for p in self.peripherals if p.name == name)


def list_targets() -> list[str]:
    """Names of the targets that ship with edgec, sorted."""
    return sorted(path.stem for path in targets_dir().glob("*.toml"))


def load_target(name_or_path: str | Path) -> Target:
    """Read and validate a target.

    Args:
        name_or_path: a name from `list_targets()` or the path of a TOML file (it ends in `.toml`).

    Raises:
        UsageError: unknown name, unreadable file, or a value that does not hold; names file and key.
    """
    text = str(name_or_path)
    path = Path(text)
    if not text.endswith(".toml"):
        known = list_targets()
        if text not in known:
            close = nearest(text, known)
            raise UsageError(
                f"unknown target {text!r}",
                need="one of " + ", ".join(known),
                hint=f"--target {close}" if close else "the path of a target file that ends in .toml",
            )
        path = targets_dir() / f"{text}.toml"
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read target file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    return _parse(table, path)


def _parse(table: dict[str, Any], path: Path) -> Target:
    top = Fields(table, path, "")
    name = top.string("name")
    family = top.choice("family", FAMILIES)
    runner = top.choice("runner", RUNNERS)
    cpu = _cpu(top.table("cpu"), host=family == "host")
    if family == "host":
        top.finish()
        return Target(name, family, runner, cpu, (), (), None, None, path)
    memory_fields, peripheral_fields = top.table("memory"), top.table("peripherals")
    origins = {key: peripheral_fields.table(key).size("origin") for key in peripheral_fields.keys_left()}
    memory = tuple(_region(memory_fields.table(key), origins) for key in memory_fields.keys_left())
    peripherals = tuple(_peripheral(peripheral_fields.table(key), origins) for key in peripheral_fields.keys_left())
    memory_fields.finish()
    peripheral_fields.finish()
    _check_memory(memory, peripherals, memory_fields)
    by_name = {p.name: p for p in peripherals}
    boot = _boot(top.table("boot"), by_name, origins)
    console = _console(top.table("console"), by_name)
    top.finish()
    return Target(name, family, runner, cpu, memory, peripherals, boot, console, path)


def _cpu(fields: Fields, *, host: bool) -> Cpu:
    core = fields.choice("core", tuple(c for c in CORES if (c == "native") == host))
    features = fields.strings("features", default=())
    for feature in features:
        if feature not in CORES[core]:
            raise fields.error(
                "features", f"{core} has no feature {feature!r}", need=f"some of {', '.join(CORES[core])}"
            )
    clock_hz = None if host else fields.integer("clock_hz", low=1)
    icache, dcache = fields.size("icache", default=0), fields.size("dcache", default=0)
    fields.finish()
    return Cpu(core, frozenset(features), clock_hz, icache, dcache)


def _check_name(fields: Fields) -> None:
    """Names of memories become names of sections and of C: letters, digits, - and _."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", fields.name):
        raise fields.error("", "not a name for a memory", need="letters, digits, - and _")


def _region(fields: Fields, origins: dict[str, int]) -> Region:
    _check_name(fields)
    region = Region(
        fields.name,
        fields.size("origin"),
        fields.size("size", low=1024),
        fields.choice("kind", REGION_KINDS),
        fields.integer("wait_states", low=0),
        fields.choice("controller", tuple(origins), optional=True),
        _enable(fields, origins),
        _line_cycles(fields),
        _accelerator(fields),
    )
    for key, value in (("origin", region.origin), ("size", region.size)):
        if value % 1024:
            raise fields.error(key, f"{value:#x} is not a multiple of 1 KB")
    if region.end > 1 << 32:
        raise fields.error("size", f"ends at {region.end:#x}, beyond the 32-bit address space")
    fields.finish()
    return region


def _line_cycles(fields: Fields) -> tuple[int, int] | None:
    if not fields.has("line_cycles"):
        return None
    inner = fields.table("line_cycles")
    cycles = inner.integer("first", low=0, high=10_000), inner.integer("next", low=0, high=10_000)
    inner.finish()
    return cycles


def _accelerator(fields: Fields) -> Accelerator | None:
    if not fields.has("accelerator"):
        return None
    inner = fields.table("accelerator")
    line = inner.integer("line", low=4, high=64)
    if line & (line - 1):
        raise inner.error("line", f"{line} is not a power of two")
    lines = inner.integer("code_lines", low=1, high=2048), inner.integer("data_lines", low=1, high=2048)
    accelerator = Accelerator(line, *lines, bool(inner.integer("prefetch", low=0, high=1)))
    inner.finish()
    return accelerator


def _peripheral(fields: Fields, origins: dict[str, int]) -> Peripheral:
    origin, size = fields.size("origin"), fields.size("size", low=1024)
    if origin % 1024 or size % 1024:
        raise fields.error("origin", "peripherals start and end at multiples of 1 KB")
    peripheral = Peripheral(
        fields.name, origin, size, fields.choice("model", PERIPHERAL_MODELS), _enable(fields, origins)
    )
    fields.finish()
    return peripheral


def _enable(fields: Fields, origins: dict[str, int]) -> Enable | None:
    if not fields.has("enable"):
        return None
    inner = fields.table("enable")
    enable = Enable(inner.register("reg", origins), inner.integer("bit", low=0, high=31))
    inner.finish()
    return enable


def _check_memory(memory: tuple[Region, ...], peripherals: Iterable[Peripheral], fields: Fields) -> None:
    named: list[Region | Peripheral] = sorted([*memory, *peripherals], key=lambda r: r.origin)
    reach = named[0] if named else None
    for after in named[1:]:
        assert reach is not None
        if after.origin < reach.end:
            raise fields.error(
                f"{reach.name} and {after.name}",
                "they overlap: "
                + " and ".join(f"{r.name} {r.origin:#010x}..{r.end - 1:#010x}" for r in (reach, after)),
                need="regions that share no address",
            )
        reach = max(reach, after, key=lambda r: r.end)
    if not any(r.kind == "ram" for r in memory):
        raise fields.error("", "no region of kind 'ram'", need="at least one")
    if not any(r.kind == "flash" and r.controller is None for r in memory):
        raise fields.error("", "no internal region of kind 'flash'", need="one to boot from")


def _boot(fields: Fields, peripherals: dict[str, Peripheral], origins: dict[str, int]) -> Boot:
    boot = Boot(
        fields.integer("hsi_hz", low=1, optional=True),
        fields.integer("hse_hz", low=1, optional=True),
        tuple(_step(f, origins) for f in fields.tables("steps")),
        tuple(_pin(f, peripherals) for f in fields.tables("pins")),
        tuple(_step(f, origins) for f in fields.tables("after_pins")),
    )
    fields.finish()
    return boot


def _step(fields: Fields, origins: dict[str, int]) -> BootStep:
    if fields.has("delay_us"):
        step = BootStep(0, 0, 0, 0, 0, fields.integer("delay_us", low=1, high=1_000_000))
    else:
        register = fields.register("reg", origins)
        clear, set_, wait = (fields.word(key, default=0) for key in ("clear", "set", "wait"))
        step = BootStep(register, clear, set_, wait, fields.word("equals", default=wait))
        if step.equals & ~step.wait:
            raise fields.error("equals", "has bits that `wait` does not look at: it would wait forever")
        if not (clear or set_ or wait):
            raise fields.error("", "does nothing", need="clear, set or wait")
    fields.finish()
    return step


def _pin(fields: Fields, peripherals: dict[str, Peripheral]) -> Pin:
    text = fields.string("pin")
    port, number = f"gpio{text[1:2].lower()}", text[2:]
    if text[:1] != "P" or not number.isdecimal() or int(number) > 15:
        raise fields.error("pin", f"{text!r} is not a pin", need='a port and a number, like "PA9"')
    if port not in peripherals:
        raise fields.error("pin", f"{text!r} is on {port}, which [peripherals] does not list")
    pin = Pin(text, port, int(number), fields.integer("af", low=0, high=15))
    fields.finish()
    return pin


def _console(fields: Fields, peripherals: dict[str, Peripheral]) -> Console:
    usarts = tuple(p.name for p in peripherals.values() if p.model.startswith("usart"))
    console = Console(
        peripherals[fields.choice("usart", usarts)],
        fields.integer("clock_hz", low=1),
        fields.integer("baud", low=1200),
        _pin(fields.table("tx"), peripherals),
        _pin(fields.table("rx"), peripherals),
    )
    divider = console.clock_hz / console.baud
    if not 16 <= divider < 65536 or abs(round(divider) / divider - 1) > 0.02:
        raise fields.error("baud", f"{console.baud} cannot be made from {console.clock_hz} Hz within 2 %")
    fields.finish()
    return console
