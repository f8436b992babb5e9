# SPDX-License-Identifier: Apache-2.0
"""The native block hook, built with the toolchain at first use: no Python runs between two basic blocks."""

from __future__ import annotations

import ctypes
from typing import Any

import unicorn
from unicorn import arm_const
from unicorn.unicorn_py3 import unicorn as engine

from edgec.device.board_sim.timing import ALL, Cost, Machine, flash_names, machine, native_library
from edgec.device.cycles import TimingModel
from edgec.device.elf_image import ElfImage, Function
from edgec.errors import DeviceError

_OPERATORS_MAX = 4096


class _State(ctypes.Structure):
    _fields_ = (
        ("flash_origin", ctypes.c_uint32),
        ("run_start", ctypes.c_uint32),
        ("run_end", ctypes.c_uint32),
        ("fpu_enabled", ctypes.c_uint32),
        ("entries", ctypes.c_uint32),
        ("instruction_set", ctypes.c_uint32),
        ("calls", ctypes.POINTER(ctypes.c_uint16)),
        ("mem_read", ctypes.c_void_p),
        ("reg_read", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
        ("register_lr", ctypes.c_int),
        ("register_sp", ctypes.c_int),
        ("register_xpsr", ctypes.c_int),
        ("registers", ctypes.POINTER(ctypes.c_int)),
        ("timing", ctypes.POINTER(Machine)),
        ("fpu_fault", ctypes.c_uint32),
        ("lacking_pc", ctypes.c_uint32),
        ("unaligned_pc", ctypes.c_uint32),
        ("unaligned_address", ctypes.c_uint32),
        ("entry_sp", ctypes.c_uint32),
        ("first_sp", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("runs", ctypes.c_uint64),
        ("overhead", ctypes.c_uint64),
        ("operators", ctypes.c_uint64 * _OPERATORS_MAX),
        ("active", ctypes.c_uint32),
        ("entry", ctypes.c_uint32),
        ("return_address", ctypes.c_uint32),
        ("current", ctypes.c_uint32),
        ("now_overhead", ctypes.c_uint64),
        ("now", ctypes.c_uint64 * _OPERATORS_MAX),
        ("operator_count", ctypes.c_uint32),
    )


class Probe:
    """Counts of instructions: all since reset, and those of the last complete inference.

    One enters the run function `entries` times; the function's second argument counts them, from 0.

    With a timing model also the bytes of data that a run reads from flash, and its cycles, as an estimate.
    """

    def __init__(
        self,
        uc: Any,
        image: ElfImage,
        run: Function,
        flash_origin: int,
        *,
        entries: int = 1,
        instruction_set: int = ALL,
        alignment: bool,
        timing: TimingModel | None = None,
    ) -> None:
        self._library = ctypes.CDLL(str(native_library()))
        self._library.probe_state.restype = ctypes.POINTER(_State)
        self._library.probe_costs.restype = ctypes.POINTER(Cost)
        sizes = self._library.probe_size(), self._library.probe_machine_size()
        if sizes != (ctypes.sizeof(_State), ctypes.sizeof(Machine)):
            raise DeviceError("the simulator's hook does not match its description")
        self.calls = image.calls(run)
        if len(self.calls) > _OPERATORS_MAX:
            raise DeviceError(f"{run.name} has {len(self.calls)} calls", need=f"at most {_OPERATORS_MAX}")
        self._image = image
        self._table = (ctypes.c_uint16 * (run.size // 2 + 2))()
        for i, call in enumerate(self.calls):
            self._table[(call.address - run.address) // 2] = i + 1
        native = engine.uclib
        self.state = state = self._library.probe_state().contents
        state.flash_origin, state.run_start, state.run_end = flash_origin, run.address, run.end
        state.operator_count, state.entries = len(self.calls), entries
        state.instruction_set = instruction_set
        state.calls = self._table
        state.register_lr, state.register_sp = arm_const.UC_ARM_REG_LR, arm_const.UC_ARM_REG_SP
        state.register_xpsr = arm_const.UC_ARM_REG_XPSR
        for name, function in (
            ("mem_read", "uc_mem_read"),
            ("reg_read", "uc_reg_read"),
            ("stop", "uc_emu_stop"),
        ):
            setattr(state, name, ctypes.cast(getattr(native, function), ctypes.c_void_p))
        names = [f"R{i}" for i in range(13)] + ["SP", "LR", "PC"]
        self._registers = (ctypes.c_int * 16)(*(getattr(arm_const, f"UC_ARM_REG_{n}") for n in names))
        state.registers = self._registers
        self._flash: list[str] | None = None
        if timing is not None:
            self._machine, self._flash = machine(timing), flash_names(timing)
            state.timing = ctypes.pointer(self._machine)
            self._attach(uc, unicorn.UC_HOOK_CODE, self._library.probe_access)
        self._attach(uc, unicorn.UC_HOOK_BLOCK, self._library.probe_block)
        if alignment:
            self._attach(uc, unicorn.UC_HOOK_CODE, self._library.probe_instruction)

    def _attach(self, uc: Any, kind: int, function: Any) -> None:
        # The binding's own hook_add takes only Python functions; begin 1 > end 0 means every address.
        handle, callback = ctypes.c_size_t(), ctypes.cast(function, ctypes.c_void_p)
        begin, end = ctypes.c_uint64(1), ctypes.c_uint64(0)
        native = ctypes.CDLL(engine.uclib._name)
        status = native.uc_hook_add(uc._uch, ctypes.byref(handle), ctypes.c_int(kind), callback, None, begin, end)
        if status:
            raise DeviceError(f"the simulator cannot attach its instruction counter (status {status})")

    def profile(self) -> dict[str, Any]:
        """The last complete run: instructions in total, per call of the run function, and of that function
        itself.
        """
        state = self.state
        counts = state.operators[: len(self.calls)]
        operators = [
            {"index": i, "symbol": self._callee(call.target), "instructions": counts[i], "cost": self._cost(i + 1)}
            for i, call in enumerate(self.calls)
        ]
        return {
            "runs": state.runs,
            "instructions": state.overhead + sum(counts),
            "overhead": state.overhead,
            "overhead_cost": self._cost(0),
            "entry_sp": state.entry_sp,
            "first_sp": state.first_sp,
            "operators": operators,
        }

    def _cost(self, place: int) -> dict[str, Any] | None:
        """Estimate and flash traffic of the run function itself (place 0) or of one of its calls."""
        if self._flash is None:
            return None
        cost = self._library.probe_costs()[place]
        return {
            "issue": cost.issue,
            "branch": cost.branch,
            "memory": cost.memory,
            "flash": {name: [cost.read[i], cost.fetched[i]] for i, name in enumerate(self._flash)},
        }

    def _callee(self, target: int | None) -> str:
        function = None if target is None else self._image.function_at(target)
        return "?" if function is None else function.name
