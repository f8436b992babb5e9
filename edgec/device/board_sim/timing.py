# SPDX-License-Identifier: Apache-2.0
"""The simulator's native part: built with the toolchain at first use, and its structures as ctypes."""

from __future__ import annotations

import ctypes
from pathlib import Path

from edgec.device.cycles import Cache, TimingModel
from edgec.device.toolchain import Source, cached_host_library
from edgec.errors import DeviceError

_FOLDER = Path(__file__).parent
_SOURCES = ("hook.c", "decode.c", "isa.c", "pipeline.c", "memory.c")
_HEADERS = ("timing.h",)
_REGIONS_MAX, _FLASH_MAX = 16, 4
ALL, ARMV7M, ARMV6M = range(3)
"""Instruction sets (`instruction_set` of timing.h): with the DSP set, without, and the small one."""


class _Region(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint32) for name in ("origin", "end", "flash", "cached", "first", "next")
    )  # fmt: skip


class _Cache(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("line", "sets", "ways"))


class Machine(ctypes.Structure):
    """`timing_machine` of timing.h."""

    _fields_ = (
        ("core", ctypes.c_uint32),
        ("prefetch", ctypes.c_uint32),
        ("region_count", ctypes.c_uint32),
        ("regions", _Region * _REGIONS_MAX),
        ("code", _Cache),
        ("data", _Cache),
    )


class Cost(ctypes.Structure):
    """`timing_cost` of timing.h."""

    _fields_ = (
        ("issue", ctypes.c_uint64),
        ("branch", ctypes.c_uint64),
        ("memory", ctypes.c_uint64),
        ("read", ctypes.c_uint64 * _FLASH_MAX),
        ("fetched", ctypes.c_uint64 * _FLASH_MAX),
    )


def machine(model: TimingModel) -> Machine:
    """The model as the native part reads it.

    Raises:
        DeviceError: more memories than it has room for.
    """
    if len(model.regions) > _REGIONS_MAX or len(flash_names(model)) > _FLASH_MAX:
        raise DeviceError("too many memories to time", need=f"{_REGIONS_MAX}, {_FLASH_MAX} of them flash")
    made = Machine(int(model.core), int(model.prefetch), len(model.regions))
    numbers = {name: i + 1 for i, name in enumerate(flash_names(model))}
    for slot, r in zip(made.regions, model.regions, strict=False):
        slot.origin, slot.end, slot.cached, slot.first, slot.next = r.origin, r.end, r.cached, r.first, r.following
        slot.flash = numbers.get(r.name, 0)
    made.code, made.data = _cache(model.code), _cache(model.data)
    return made


def flash_names(model: TimingModel) -> list[str]:
    """Flash regions in the order in which `Cost` counts them."""
    return [r.name for r in model.regions if r.flash]


def _cache(cache: Cache | None) -> _Cache:
    return _Cache(cache.line, cache.sets, cache.ways) if cache else _Cache(0, 0, 0)


def native_library() -> Path:
    """The shared library of the simulator's native part."""
    return cached_host_library([Source(_FOLDER / name, "bench") for name in _SOURCES], "board_sim", [_FOLDER])
