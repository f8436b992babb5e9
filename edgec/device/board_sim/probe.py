# SPDX-License-Identifier: Apache-2.0
"""The native block hook, built with the toolchain at first use: no Python runs between two basic blocks."""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import unicorn
from unicorn import arm_const
from unicorn.unicorn_py3 import unicorn as engine

from edgec.device.elf_image import ElfImage, Function
from edgec.device.toolchain import Source, build_host_library, cache_dir, toolchain_version
from edgec.errors import DeviceError

_OPERATORS_MAX = 4096
_HOOK = Path(__file__).with_name("hook.c")


class _State(ctypes.Structure):
    _fields_ = (
        ("flash_origin", ctypes.c_uint32),
        ("run_start", ctypes.c_uint32),
        ("run_end", ctypes.c_uint32),
        ("fpu_enabled", ctypes.c_uint32),
        ("calls", ctypes.POINTER(ctypes.c_uint16)),
        ("mem_read", ctypes.c_void_p),
        ("reg_read", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
        ("register_lr", ctypes.c_int),
        ("register_sp", ctypes.c_int),
        ("registers", ctypes.POINTER(ctypes.c_int)),
        ("fpu_fault", ctypes.c_uint32),
        ("unaligned_pc", ctypes.c_uint32),
        ("unaligned_address", ctypes.c_uint32),
        ("entry_sp", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("runs", ctypes.c_uint64),
        ("overhead", ctypes.c_uint64),
        ("operators", ctypes.c_uint64 * _OPERATORS_MAX),
        ("active", ctypes.c_uint32),
        ("return_address", ctypes.c_uint32),
        ("current", ctypes.c_uint32),
        ("now_overhead", ctypes.c_uint64),
        ("now", ctypes.c_uint64 * _OPERATORS_MAX),
        ("operator_count", ctypes.c_uint32),
    )


def _library() -> Path:
    digest = hashlib.sha256(_HOOK.read_bytes() + toolchain_version().encode()).hexdigest()[:24]
    path = cache_dir() / "board_sim" / f"hook-{digest}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="part-") as part:
            built = build_host_library([Source(_HOOK, "bench")], [], Path(part))
            os.replace(built, path)
    return path


class Probe:
    """Counts of instructions: all since reset, and those of the last complete call of the run function."""

    def __init__(self, uc: Any, image: ElfImage, run: Function, flash_origin: int, *, alignment: bool) -> None:
        self._library = ctypes.CDLL(str(_library()))
        self._library.probe_state.restype = ctypes.POINTER(_State)
        if self._library.probe_size() != ctypes.sizeof(_State):
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
        state.operator_count = len(self.calls)
        state.calls = self._table
        state.register_lr, state.register_sp = arm_const.UC_ARM_REG_LR, arm_const.UC_ARM_REG_SP
        for name, function in (
            ("mem_read", "uc_mem_read"),
            ("reg_read", "uc_reg_read"),
            ("stop", "uc_emu_stop"),
        ):
            setattr(state, name, ctypes.cast(getattr(native, function), ctypes.c_void_p))
        names = [f"R{i}" for i in range(13)] + ["SP", "LR", "PC"]
        self._registers = (ctypes.c_int * 16)(*(getattr(arm_const, f"UC_ARM_REG_{n}") for n in names))
        state.registers = self._registers
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
            {"index": i, "symbol": self._callee(call.target), "instructions": counts[i]}
            for i, call in enumerate(self.calls)
        ]
        return {
            "runs": state.runs,
            "instructions": state.overhead + sum(counts),
            "overhead": state.overhead,
            "entry_sp": state.entry_sp,
            "operators": operators,
        }

    def _callee(self, target: int | None) -> str:
        function = None if target is None else self._image.function_at(target)
        return "?" if function is None else function.name
