# SPDX-License-Identifier: Apache-2.0
"""What the cycle estimate assumes of a target: its pipeline, its caches, how long its memories keep the core waiting.

The method, every rule and its source: docs/cycles.md. The model itself runs in the simulator (`board_sim/*.c`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from edgec.target import Region, Target


class Pipeline(IntEnum):
    """What one instruction costs: `core` of timing.h. Every core that `PIPELINES` does not name is a SINGLE."""

    SINGLE = 0
    DUAL = 1
    M3 = 2
    M0PLUS = 3


PIPELINES = {"cortex-m7": Pipeline.DUAL, "cortex-m3": Pipeline.M3, "cortex-m0plus": Pipeline.M0PLUS}
_L1_LINE, _L1_CODE_WAYS, _L1_DATA_WAYS = 32, 2, 4
_BUS_BYTES = 8


@dataclass(frozen=True)
class Cache:
    """A cache of `sets` times `ways` lines of `line` bytes."""

    line: int
    sets: int
    ways: int


@dataclass(frozen=True)
class TimedRegion:
    """One memory: what a cache line (or an access, where nothing caches it) from it costs in cycles of the core.

    `first` is the cost of one line or access alone, `following` of the line after the line that was filled last.
    """

    name: str
    origin: int
    end: int
    flash: bool
    cached: bool
    first: int
    following: int


@dataclass(frozen=True)
class TimingModel:
    """All that an estimate depends on, beside the program."""

    core: Pipeline
    prefetch: bool
    regions: tuple[TimedRegion, ...]
    code: Cache | None
    data: Cache | None


def timing_model(target: Target) -> TimingModel:
    """The model of a board, from its target file alone."""
    core = PIPELINES.get(target.cpu.core, Pipeline.SINGLE)
    accelerator = target.internal_flash().accelerator
    if accelerator is not None:
        code = Cache(accelerator.line, 1, accelerator.code_lines)
        data = Cache(accelerator.line, 1, accelerator.data_lines)
        return TimingModel(
            core,
            accelerator.prefetch,
            tuple(_region(r, cached=r.accelerator is not None, wait=r.wait_states) for r in target.memory),
            code,
            data,
        )
    regions = tuple(_behind_l1(r, target.cpu.dcache > 0) for r in target.memory)
    code_cache = _l1(target.cpu.icache, _L1_CODE_WAYS)
    return TimingModel(core, False, regions, code_cache, _l1(target.cpu.dcache, _L1_DATA_WAYS))


def _l1(size: int, ways: int) -> Cache | None:
    return Cache(_L1_LINE, size // (_L1_LINE * ways), ways) if size else None


def _behind_l1(region: Region, caches: bool) -> TimedRegion:
    """Memory without wait states is tightly coupled: no cache holds it. A line comes over a bus of 64 bits."""
    cached = caches and region.wait_states > 0
    return _region(region, cached=cached, wait=region.wait_states + (_L1_LINE // _BUS_BYTES if cached else 0))


def _region(region: Region, *, cached: bool, wait: int) -> TimedRegion:
    first, following = region.line_cycles or (wait, wait)
    flash = region.kind == "flash"
    return TimedRegion(region.name, region.origin, region.end, flash, cached, first, following)
