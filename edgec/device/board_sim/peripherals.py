# SPDX-License-Identifier: Apache-2.0
"""Register models of what boot and the console touch; they hold exactly what boot can get wrong.

Each model is a small register file: `read(offset)`, `write(offset, value)`. Something that hardware would not
forgive raises Misuse, which the board reports as a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Protocol

from edgec.target import Boot


class Misuse(Exception):
    """The program did something to a peripheral that does not work on hardware."""


class Registers:
    """A register file without behaviour."""

    def __init__(self, reset: dict[int, int] | None = None) -> None:
        self.values = dict(reset or {})

    def read(self, offset: int) -> int:
        """The register's value as the core sees it."""
        return self.values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """Store a value."""
        self.values[offset] = value


class Clock(Protocol):
    """The clock tree as the RCC registers describe it."""

    def core_hz(self) -> int:
        """Frequency of the core."""

    def bus_hz(self, enable_offset: int) -> int:
        """Frequency of the bus whose clock-enable register has that offset in the RCC."""


def _follow(value: int, pairs: dict[int, int]) -> int:
    """Ready bits follow their enable bits: {enable bit: ready bit}."""
    for on, ready in pairs.items():
        value = value & ~(1 << ready) | ((value >> on & 1) << ready)
    return value


class RccF4(Registers):
    """Clock tree of STM32F4 and F7 (RM0090 section 7, RM0385 section 5): HSI, HSE, main PLL, prescalers."""

    CR, PLLCFGR, CFGR = 0x00, 0x04, 0x08

    def __init__(self, boot: Boot) -> None:
        super().__init__({self.CR: 0x83, self.PLLCFGR: 0x24003010, 0x30: 0x00100000})
        self._boot = boot

    def write(self, offset: int, value: int) -> None:
        """Store, with the side effects that hardware has."""
        if offset == self.CR:
            if value >> 16 & 1 and self._boot.hse_hz is None:
                raise Misuse("boot waits for a crystal that the target does not have")
            value = _follow(value, {0: 1, 16: 17, 24: 25})
        if offset == self.PLLCFGR and self.values[self.CR] >> 24 & 1:
            raise Misuse("the PLL is configured while it runs")
        if offset == self.CFGR:
            source = value & 3
            if source == 3 or not self.values[self.CR] >> (1, 17, 25)[source] & 1:
                raise Misuse("the system clock is switched to a source that is not ready")
            value = value & ~0xC | source << 2
        super().write(offset, value)

    def core_hz(self) -> int:
        """Frequency of the core."""
        return self._system_hz() >> self._ahb(self.values.get(self.CFGR, 0) >> 4 & 0xF)

    def bus_hz(self, enable_offset: int) -> int:
        """Frequency of that bus."""
        field = {0x40: 10, 0x44: 13}[enable_offset]
        code = self.values.get(self.CFGR, 0) >> field & 7
        return self.core_hz() >> (code - 3 if code >= 4 else 0)

    @staticmethod
    def _ahb(code: int) -> int:
        return (0, 1, 2, 3, 4, 6, 7, 8, 9)[code - 7] if code >= 8 else 0

    def _system_hz(self) -> int:
        source = self.values.get(self.CFGR, 0) & 3
        hsi, hse = self._boot.hsi_hz or 0, self._boot.hse_hz or 0
        if source < 2:
            return (hsi, hse)[source]
        pll = self.values[self.PLLCFGR]
        vco = (hse if pll >> 22 & 1 else hsi) // (pll & 0x3F) * (pll >> 6 & 0x1FF)
        return vco // (2 * (pll >> 16 & 3) + 2)


class RccH7(Registers):
    """Clock tree of STM32H7 (RM0433 section 8): HSI, HSE, PLL1, domain prescalers."""

    CR, CFGR, D1CFGR, D2CFGR, PLLCKSELR, PLLCFGR, PLL1DIVR = 0x00, 0x10, 0x18, 0x1C, 0x28, 0x2C, 0x30

    def __init__(self, boot: Boot) -> None:
        super().__init__(
            {self.CR: 0x05, self.PLLCKSELR: 0x02020200, self.PLLCFGR: 0x01FF0000, self.PLL1DIVR: 0x01010280}
        )
        self._boot = boot

    def write(self, offset: int, value: int) -> None:
        """Store, with the side effects that hardware has."""
        if offset == self.CR:
            if value >> 16 & 1 and self._boot.hse_hz is None:
                raise Misuse("boot waits for a crystal that the target does not have")
            value = _follow(value, {0: 2, 16: 17, 24: 25})
        if offset in (self.PLLCKSELR, self.PLLCFGR, self.PLL1DIVR) and self.values[self.CR] >> 24 & 1:
            raise Misuse("the PLL is configured while it runs")
        if offset == self.CFGR:
            source = value & 7
            ready = {0: 2, 2: 17, 3: 25}.get(source)
            if ready is None or not self.values[self.CR] >> ready & 1:
                raise Misuse("the system clock is switched to a source that is not ready")
            value = value & ~0x38 | source << 3
        super().write(offset, value)

    def core_hz(self) -> int:
        """Frequency of the core."""
        return self._system_hz() >> RccF4._ahb(self.read(self.D1CFGR) >> 8 & 0xF)

    def bus_hz(self, enable_offset: int) -> int:
        """Frequency of that bus."""
        field = {0xE8: 4, 0xF0: 8}[enable_offset]
        code = self.read(self.D2CFGR) >> field & 7
        ahb = self.core_hz() >> RccF4._ahb(self.read(self.D1CFGR) & 0xF)
        return ahb >> (code - 3 if code >= 4 else 0)

    def _system_hz(self) -> int:
        source = self.read(self.CFGR) & 7
        hsi, hse = self._boot.hsi_hz or 0, self._boot.hse_hz or 0
        if source < 3:
            return hse if source == 2 else hsi
        select, divide = self.values[self.PLLCKSELR], self.values[self.PLL1DIVR]
        base = hse if select & 3 == 2 else hsi
        return base // (select >> 4 & 0x3F) * ((divide & 0x1FF) + 1) // ((divide >> 9 & 0x7F) + 1)


class RccG0(Registers):
    """Clock tree of STM32G0 (RM0444 section 5): HSI16, HSE, PLL output R, one AHB and one APB."""

    CR, CFGR, PLLCFGR = 0x00, 0x08, 0x0C
    RESET = MappingProxyType({CR: 0x500, CFGR: 0, PLLCFGR: 0x1000, 0x34: 0})
    SOURCES = MappingProxyType({0: 10, 1: 17, 2: 25})
    """What the system clock may come from: code in CFGR -> ready bit in CR."""
    STATUS, AHB, BUSES = 3, 8, MappingProxyType({0x3C: 12, 0x40: 12})
    """Bits of CFGR: the source in use, the AHB prescaler, and the bus prescaler of each clock-enable register."""

    def __init__(self, boot: Boot) -> None:
        super().__init__(dict(self.RESET))
        self._boot = boot

    def write(self, offset: int, value: int) -> None:
        """Store, with the side effects that hardware has."""
        if offset == self.CR:
            if value >> 16 & 1 and self._boot.hse_hz is None:
                raise Misuse("boot waits for a crystal that the target does not have")
            value = _follow(value, {0: 1, 8: 10, 16: 17, 24: 25})
            if value >> 24 & 1 and not value >> {2: 10, 3: 17}.get(self.values[self.PLLCFGR] & 3, 1) & 1:
                raise Misuse("the PLL is switched on before its source is ready")
        if offset == self.PLLCFGR and self.values[self.CR] >> 24 & 1:
            raise Misuse("the PLL is configured while it runs")
        if offset == self.CFGR:
            width = (1 << self.STATUS) - 1
            ready = self.SOURCES.get(value & width)
            if ready is None or not self.values[self.CR] >> ready & 1:
                raise Misuse("the system clock is switched to a source that is not ready")
            value = value & ~(width << self.STATUS) | (value & width) << self.STATUS
        super().write(offset, value)

    def core_hz(self) -> int:
        """Frequency of the core."""
        return self._system_hz() >> RccF4._ahb(self.values[self.CFGR] >> self.AHB & 0xF)

    def bus_hz(self, enable_offset: int) -> int:
        """Frequency of that bus."""
        code = self.values[self.CFGR] >> self.BUSES[enable_offset] & 7
        return self.core_hz() >> (code - 3 if code >= 4 else 0)

    def _system_hz(self) -> int:
        ready = self.SOURCES[self.values[self.CFGR] & (1 << self.STATUS) - 1]
        return {1: 4_000_000, 10: self._boot.hsi_hz or 0, 17: self._boot.hse_hz or 0, 25: self._pll_hz()}[ready]

    def _base_hz(self) -> int:
        """What comes into the PLL."""
        pll = self.values[self.PLLCFGR]
        return {2: self._boot.hsi_hz or 0, 3: self._boot.hse_hz or 0}.get(pll & 3, 0)

    def _pll_hz(self) -> int:
        pll = self.values[self.PLLCFGR]
        if not pll >> 28 & 1:
            return 0
        return self._base_hz() // ((pll >> 4 & 7) + 1) * (pll >> 8 & 0x7F) // ((pll >> 29 & 7) + 1)


class RccL5(RccG0):
    """Clock tree of STM32L5 (RM0438 section 9), laid out as in L4: MSI of 4 MHz, HSI16, HSE, PLL output R, two APBs."""

    RESET = MappingProxyType({0x00: 0x63, 0x08: 0, 0x0C: 0x1000})
    SOURCES = MappingProxyType({0: 1, 1: 10, 2: 17, 3: 25})
    STATUS, AHB, BUSES = 2, 4, MappingProxyType({0x58: 8, 0x60: 11})

    def _base_hz(self) -> int:
        return 4_000_000 if self.values[self.PLLCFGR] & 3 == 1 else super()._base_hz()

    def _pll_hz(self) -> int:
        pll = self.values[self.PLLCFGR]
        if not pll >> 24 & 1:
            return 0
        return self._base_hz() // ((pll >> 4 & 0xF) + 1) * (pll >> 8 & 0x7F) // (2 * (pll >> 25 & 3) + 2)


class Power(Registers):
    """Regulator and over-drive: ready bits follow at once. `follows`: register -> (bit, status register,
    status bit).
    """

    def __init__(self, reset: dict[int, int], follows: dict[tuple[int, int], tuple[int, int]]) -> None:
        super().__init__(reset)
        self._follows = follows

    def write(self, offset: int, value: int) -> None:
        """Store, with the side effects that hardware has."""
        super().write(offset, value)
        for (register, bit), (status, ready) in self._follows.items():
            if register == offset:
                on = value >> bit & 1
                self.values[status] = self.read(status) & ~(1 << ready) | on << ready


def power(model: str) -> Power:
    """The power controller of an STM32 family."""
    if model == "pwr-f4":  # RM0090 section 5.4
        return Power({0x00: 0x4000}, {(0x00, 14): (0x04, 14)})
    if model == "pwr-f7":  # RM0385 section 4.4
        return Power({0x00: 0xC000, 0x04: 0x4000}, {(0x00, 16): (0x04, 16), (0x00, 17): (0x04, 17)})
    if model == "pwr-l5":  # RM0438 section 7.6: range 2 after reset; a change is complete at once
        return Power({0x00: 0x400}, {})
    return Power({0x0C: 0x46}, {(0x0C, 1): (0x04, 13), (0x18, 15): (0x18, 13)})  # RM0433 section 6.8


class Usart(Registers):
    """A USART; `receive` gives a byte or None, `transmit` takes one, `wait` blocks until a byte may be
    there.
    """

    def __init__(
        self,
        model: str,
        receive: Callable[[], int | None],
        transmit: Callable[[int], None],
        wait: Callable[[], None],
        on_enable: Callable[[int], None],
    ) -> None:
        super().__init__()
        v2 = model == "usart-v2"
        self._status, self._rdr, self._tdr = (0x1C, 0x24, 0x28) if v2 else (0x00, 0x04, 0x04)
        self._brr, self._cr1 = (0x0C, 0x00) if v2 else (0x08, 0x0C)
        self._on = 0x0D if v2 else 0x200C
        self._receive, self._transmit, self._wait, self._on_enable = receive, transmit, wait, on_enable
        self._next: int | None = None
        self._looked = False

    def _check_on(self) -> None:
        if self.read_raw(self._cr1) & self._on != self._on:
            raise Misuse("the USART is used before it is enabled")

    def read_raw(self, offset: int) -> int:
        """The stored value, without side effects."""
        return self.values.get(offset, 0)

    def read(self, offset: int) -> int:
        """The value, with the side effects of reading it."""
        if offset == self._status:
            self._check_on()
            if self._next is None:
                self._next = self._receive()
            # A single look may be for room to transmit; only a program that looks again is waiting for a
            # byte.
            if self._next is None and self._looked:
                self._wait()
                self._next = self._receive()
            self._looked = self._next is None
            return 0xC0 | (0x20 if self._next is not None else 0)
        if offset == self._rdr:
            byte, self._next = self._next, None
            return byte or 0
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        """Store, with the side effects that hardware has."""
        if offset == self._tdr:
            self._check_on()
            self._looked = False
            self._transmit(value & 0xFF)
            return
        super().write(offset, value)
        if offset == self._cr1 and value & self._on == self._on:
            self._on_enable(self.read_raw(self._brr))


class Quadspi(Registers):
    """QUADSPI (RM0385 section 14): single commands complete at once; memory-mapped mode calls `on_mapped`."""

    CR, DCR, SR, FCR, CCR = 0x00, 0x04, 0x08, 0x0C, 0x14

    def __init__(self, size: int, on_mapped: Callable[[], None]) -> None:
        super().__init__()
        self._size, self._on_mapped = size, on_mapped

    def write(self, offset: int, value: int) -> None:
        """Store, with the side effects that hardware has."""
        if offset == self.FCR:
            self.values[self.SR] = self.read(self.SR) & ~value
            return
        super().write(offset, value)
        if offset != self.CCR:
            return
        if not self.read(self.CR) & 1:
            raise Misuse("the QUADSPI gets a command before it is enabled")
        if value >> 26 & 3 != 3:
            self.values[self.SR] = self.read(self.SR) | 2
            return
        if 2 << (self.read(self.DCR) >> 16 & 0x1F) != self._size:
            raise Misuse("the QUADSPI's FSIZE is not the size of the memory")
        if (value & 0xFF, value >> 24 & 3, value >> 12 & 3, value >> 18 & 0x1F) != (0x6B, 3, 2, 8):
            raise Misuse("the QUADSPI's read command is not quad output fast read, 24-bit address, 8 dummy cycles")
        self._on_mapped()
