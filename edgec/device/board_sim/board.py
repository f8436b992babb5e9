# SPDX-License-Identifier: Apache-2.0
"""The simulated board: exactly the target's memories, its peripherals, a core; all else is a fault."""

from __future__ import annotations

import bisect
from typing import Any

import unicorn
from unicorn import arm_const

from edgec.device.board_sim.peripherals import (
    Misuse,
    Quadspi,
    RccF4,
    RccG0,
    RccH7,
    RccL5,
    Registers,
    Usart,
    power,
)
from edgec.device.board_sim.probe import Probe
from edgec.device.board_sim.serial_line import SerialLine
from edgec.device.board_sim.timing import ALL, ARMV6M, ARMV7M
from edgec.device.cycles import timing_model
from edgec.device.elf_image import ElfImage
from edgec.errors import DeviceError
from edgec.target import Cpu, Enable, Peripheral, Region, Target

_PAGE = 4096
_CPU_MODELS = {
    "cortex-m0plus": arm_const.UC_CPU_ARM_CORTEX_M0,
    "cortex-m3": arm_const.UC_CPU_ARM_CORTEX_M3,
    "cortex-m4": arm_const.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm_const.UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": arm_const.UC_CPU_ARM_CORTEX_M33,
}
_Rcc = RccF4 | RccG0 | RccH7
_RCC_MODELS: dict[str, type[_Rcc]] = {"rcc-f4": RccF4, "rcc-g0": RccG0, "rcc-h7": RccH7, "rcc-l5": RccL5}
_SYSTEM, _DWT = 0xE000E000, 0xE0001000
_CPACR, _CCSIDR, _CYCCNT = 0xE000ED88, 0xE000ED80, 0xE0001004
_RAM_AT_RESET = b"\xcd"  # RAM holds anything at reset; the same anything every time keeps runs repeatable
_ACCESS = {
    unicorn.UC_MEM_READ_UNMAPPED: "read",
    unicorn.UC_MEM_WRITE_UNMAPPED: "write",
    unicorn.UC_MEM_FETCH_UNMAPPED: "fetch",
    unicorn.UC_MEM_READ_PROT: "read",
    unicorn.UC_MEM_WRITE_PROT: "write",
    unicorn.UC_MEM_FETCH_PROT: "fetch",
}
_EXCEPTIONS = {
    1: "undefined instruction",
    2: "SVC",
    3: "fetch abort",
    4: "data abort",
    7: "breakpoint",
    18: "Arm state",
}


def _instruction_set(cpu: Cpu) -> int:
    if cpu.core == "cortex-m0plus":
        return ARMV6M
    return ALL if cpu.has("dsp") else ARMV7M


class Board:
    """One board with one image, from reset until a fault.

    Raises:
        DeviceError: the image has no `symbol`, or does not lie in the target's flash.
    """

    def __init__(
        self,
        target: Target,
        image: ElfImage,
        symbol: str,
        line: SerialLine,
        *,
        entries: int = 1,
        alignment: bool = False,
        timing: bool = False,
    ) -> None:
        self.target, self.image = target, image
        self.fault: dict[str, Any] | None = None
        self._line = line
        self._uc = uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        uc.ctl_set_cpu_model(_CPU_MODELS[target.cpu.core])
        self._check_segments()
        self._system: dict[int, int] = {}
        self._rcc: _Rcc | None = None
        self._models = {p.name: self._model(p) for p in target.peripherals}
        self._asleep = {r.name for r in target.memory if r.enable is not None and not self._enabled(r.enable)}
        for region in target.memory:
            if region.controller is None and region.name not in self._asleep:
                self._map(region)
        self._map_registers()
        uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_invalid)
        uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        model = timing_model(target) if timing else None
        origin = target.internal_flash().origin
        run = image.function(symbol)
        self.probe = Probe(
            uc,
            image,
            run,
            origin,
            entries=entries,
            instruction_set=_instruction_set(target.cpu),
            alignment=alignment,
            timing=model,
        )

    def run(self) -> dict[str, Any]:
        """Start at the reset vector; returns the fault that ended it."""
        origin = self.target.internal_flash().origin
        stack, reset = (int.from_bytes(self._uc.mem_read(origin + 4 * i, 4), "little") for i in (0, 1))
        self._uc.reg_write(arm_const.UC_ARM_REG_SP, stack)
        try:
            self._uc.emu_start(reset | 1, 0xFFFFFFFE)
        except unicorn.UcError as error:
            self._report("execution", str(error))
        if self.probe.state.fpu_fault:
            self.fault = None
            pc = self.probe.state.fpu_fault
            self._report("fpu", "the FPU is used while CPACR has it switched off", pc=pc)
        if self.probe.state.lacking_pc:
            self.fault = None
            core = self.target.cpu.core
            self._report("exception", f"an instruction that {core} does not have", pc=self.probe.state.lacking_pc)
        if self.probe.state.unaligned_pc:
            self.fault = None
            address = self.probe.state.unaligned_address
            text = f"LDRD, STRD, LDM, STM, VLDR or VSTR at {address:#010x}, which is not a multiple of 4"
            if _instruction_set(self.target.cpu) == ARMV6M:
                text = f"access at {address:#010x}, which is not a multiple of its size"
            self._report("unaligned", text, address=address, pc=self.probe.state.unaligned_pc)
        if self.fault is None:
            self._report("execution", "the core stopped")
        assert self.fault is not None
        return self.fault

    def profile(self) -> dict[str, Any]:
        """Counts of the last complete run."""
        return self.probe.profile()

    def _map(self, region: Region) -> None:
        ram = region.kind == "ram"
        rights = unicorn.UC_PROT_READ | (unicorn.UC_PROT_WRITE if ram else unicorn.UC_PROT_EXEC)
        if region.controller is not None:
            rights = unicorn.UC_PROT_READ
        if region.origin % _PAGE or region.size % _PAGE:
            raise DeviceError(f"the simulator cannot map {region.name}", need=f"a multiple of {_PAGE} B")
        self._uc.mem_map(region.origin, region.size, rights)
        self._uc.mem_write(region.origin, (_RAM_AT_RESET if ram else b"\xff") * region.size)
        for address, data in self.image.segments:
            if region.origin <= address < region.end:
                self._uc.mem_write(address, data)

    def _check_segments(self) -> None:
        for address, data in self.image.segments:
            if not any(
                r.kind == "flash" and r.origin <= address and address + len(data) <= r.end for r in self.target.memory
            ):
                raise DeviceError(
                    f"{self.image.path} has {len(data):,} B at {address:#010x}, "
                    f"which is not in the flash of {self.target.name}"
                )

    def _model(self, peripheral: Peripheral) -> Registers:
        assert self.target.boot is not None
        model = peripheral.model
        if model.startswith("rcc"):
            self._rcc = _RCC_MODELS[model](self.target.boot)
            return self._rcc
        if model.startswith("pwr"):
            return power(model)
        if model.startswith("usart"):
            line = self._line
            return Usart(model, line.receive, line.transmit, line.wait, lambda brr: self._check_clock(peripheral, brr))
        if model == "quadspi":
            region = next(r for r in self.target.memory if r.controller == peripheral.name)
            return Quadspi(region.size, lambda: self._map(region))
        return Registers()

    def _map_registers(self) -> None:
        pages = {p.origin & -_PAGE for p in self.target.peripherals}
        pages |= {a & -_PAGE for p in self.target.peripherals for a in range(p.origin, p.end, 1024)}
        for page in sorted(pages):
            self._uc.mmio_map(page, _PAGE, self._read_register, page, self._write_register, page)
        for page in (_SYSTEM, _DWT):
            self._uc.mmio_map(page, _PAGE, self._read_system, page, self._write_system, page)

    def _owner(self, address: int, access: str) -> tuple[Peripheral, Registers] | None:
        for peripheral in self.target.peripherals:
            if peripheral.origin <= address < peripheral.end:
                if peripheral.enable is not None and not self._enabled(peripheral.enable):
                    self._report(
                        "peripheral",
                        f"{peripheral.name} is used before its clock is enabled",
                        access,
                        address,
                    )
                    return None
                return peripheral, self._models[peripheral.name]
        self._report("unmapped", f"{access} at {address:#010x}: no peripheral of the target is there", access, address)
        return None

    def _enabled(self, enable: Enable) -> bool:
        rcc = next(p for p in self.target.peripherals if p.model.startswith("rcc"))
        assert self._rcc is not None
        return bool(self._rcc.read(enable.register - rcc.origin) >> enable.bit & 1)

    def _read_register(self, _uc: Any, offset: int, _size: int, page: int) -> int:
        owner = self._owner(page + offset, "read")
        if owner is None:
            return 0
        try:
            return owner[1].read(page + offset - owner[0].origin)
        except Misuse as error:
            self._report("peripheral", str(error), "read", page + offset)
            return 0

    def _write_register(self, _uc: Any, offset: int, _size: int, value: int, page: int) -> None:
        owner = self._owner(page + offset, "write")
        if owner is None:
            return
        try:
            owner[1].write(page + offset - owner[0].origin, value & 0xFFFFFFFF)
        except Misuse as error:
            self._report("peripheral", str(error), "write", page + offset)
        if owner[1] is self._rcc:
            for region in self.target.memory:
                if region.name in self._asleep and region.enable is not None and self._enabled(region.enable):
                    self._asleep.remove(region.name)
                    self._map(region)

    def _read_system(self, _uc: Any, offset: int, _size: int, page: int) -> int:
        address = page + offset
        if address == _CYCCNT:  # the simulator knows no cycles; instructions keep the register moving and repeatable
            return int(self.probe.state.total) & 0xFFFFFFFF
        if address == _CCSIDR:
            return (self.target.cpu.dcache // 128 - 1) << 13 | 3 << 3 | 1
        return self._system.get(address, 0)

    def _write_system(self, _uc: Any, offset: int, _size: int, value: int, page: int) -> None:
        self._system[page + offset] = value & 0xFFFFFFFF
        if page + offset == _CPACR:
            self.probe.state.fpu_enabled = int(value >> 20 & 0xF == 0xF)

    def _check_clock(self, usart: Peripheral, divider: int) -> None:
        """At the console's start the whole clock set-up is judged: core, wait states, baud rate."""
        rcc, cpu, console = self._rcc, self.target.cpu, self.target.console
        assert rcc is not None
        assert console is not None
        assert usart.enable is not None
        if rcc.core_hz() != cpu.clock_hz:
            raise Misuse(f"boot leaves the core at {rcc.core_hz():,} Hz, the target says {cpu.clock_hz:,} Hz")
        flash = next(self._models[p.name] for p in self.target.peripherals if p.model.startswith("flash"))
        need = self.target.internal_flash().wait_states
        if flash.read(0) & 0xF != need:
            raise Misuse(f"boot leaves the flash at {flash.read(0) & 0xF} wait states, the target says {need}")
        origin = next(p.origin for p in self.target.peripherals if p.model.startswith("rcc"))
        baud = rcc.bus_hz(usart.enable.register - origin) / max(divider, 1)
        if abs(baud / console.baud - 1) > 0.02:
            raise Misuse(f"the console runs at {baud:,.0f} baud, the target says {console.baud:,}")
        for pin in (console.tx, console.rx):
            port, n = self._models[pin.port], pin.number
            if (port.read(0) >> 2 * n & 3, port.read(0x20 + 4 * (n // 8)) >> 4 * (n % 8) & 0xF) != (
                2,
                pin.alternate,
            ):
                raise Misuse(f"pin {pin.name} is not switched to alternate function {pin.alternate}")

    def _on_invalid(self, _uc: Any, access: int, address: int, size: int, _value: int, _data: Any) -> bool:
        kind = _ACCESS.get(access, "access")
        where = self._nearest(address)
        if access == unicorn.UC_MEM_WRITE_PROT:
            self._report("write to flash", f"write of {size} B to flash at {address:#010x} ({where})", kind, address)
        elif access == unicorn.UC_MEM_FETCH_PROT:
            self._report("fetch", f"code is fetched from RAM at {address:#010x} ({where})", kind, address)
        else:
            self._report(
                "unmapped",
                f"{kind} of {size} B at {address:#010x}, where there is no memory ({where})",
                kind,
                address,
            )
        return False

    def _on_exception(self, _uc: Any, number: int, _data: Any) -> None:
        self._report("exception", _EXCEPTIONS.get(number, f"exception {number}"))

    def _nearest(self, address: int) -> str:
        regions = sorted(self.target.memory, key=lambda r: r.origin)
        i = bisect.bisect_right([r.origin for r in regions], address) - 1
        told: list[tuple[int, str]] = []
        if i >= 0:
            below = regions[i]
            if address < below.end:
                asleep = ", which boot has not enabled" if below.name in self._asleep or below.controller else ""
                return f"in {below.name}{asleep}"
            past = address - below.end
            told.append((past, f"{past:,} B past the end of {below.name}"))
        if i + 1 < len(regions):
            before = regions[i + 1].origin - address
            told.append((before, f"{before:,} B before {regions[i + 1].name}"))
        return min(told)[1]

    def _report(
        self,
        kind: str,
        text: str,
        access: str | None = None,
        address: int | None = None,
        pc: int | None = None,
    ) -> None:
        """Note the first fault and stop the core."""
        if self.fault is None:
            at = int(self._uc.reg_read(arm_const.UC_ARM_REG_PC)) if pc is None else pc
            symbol = self.image.name_at(at)
            self.fault = {
                "kind": kind,
                "text": f"{text}; pc {at:#010x} in {symbol}",
                "access": access,
                "address": address,
                "pc": at,
                "symbol": symbol,
                "nearest": None if address is None else self._nearest(address),
            }
        self._uc.emu_stop()
