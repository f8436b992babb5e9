# SPDX-License-Identifier: Apache-2.0
"""`exact.c`, built with the toolchain at first use; without it the search runs in Python."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edgec.device.toolchain import Source, cached_host_library
from edgec.errors import DeviceError
from edgec.schedule import exact_search
from edgec.schedule.exact_search import Outcome, Shapes

_SOURCE = Path(__file__).with_name("exact.c")
_I32, _I64 = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int64)

_Array = ctypes.Array[ctypes.c_int32] | ctypes.Array[ctypes.c_int64]
Search = Callable[[Shapes, Sequence[int], int, int], Outcome]


class _Search(ctypes.Structure):
    _fields_ = (
        ("groups", ctypes.c_int32),
        ("sections", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("capacity", "roof", "node_limit", "nodes")),
        *((name, _I64) for name in ("modulus", "residue", "height")),
        *((name, _I32) for name in ("rank", "first", "last", "order", "part_begin", "part_first", "part_last")),
        *((name, _I64) for name in ("part_low", "part_high")),
        *((name, _I32) for name in ("near_begin", "near")),
        *((name, _I64) for name in ("near_distance", "lowest", "offset", "section_low", "section_left", "weight")),
        *((name, _I32) for name in ("placed", "barred", "lists")),
        ("values", _I64),
    )


@functools.cache
def searcher() -> tuple[Search, str]:
    """The search to use, and a note where that is the slow one (else empty)."""
    try:
        library = ctypes.CDLL(str(cached_host_library([Source(_SOURCE, "bench")], "schedule")))
    except (DeviceError, OSError) as error:
        reason = str(error).splitlines()[0]
        return exact_search.search, f"placement is searched in Python, the same plans but slower: {reason}"
    if library.edgec_place_size() != ctypes.sizeof(_Search):
        raise DeviceError("the native search does not match its description")
    return functools.partial(_search, library), ""


def _search(library: ctypes.CDLL, shapes: Shapes, rank: Sequence[int], capacity: int, node_limit: int) -> Outcome:
    count = len(shapes.height)
    offsets, weights = _i64([0] * count), _i64([0] * count)
    work: dict[str, _Array] = {
        "rank": _i32(rank),
        "offset": offsets,
        "weight": weights,
        "lowest": _i64([0] * count),
        "section_low": _i64([0] * shapes.sections),
        "section_left": _i64([0] * shapes.sections),
        "placed": _i32([0] * count),
        "barred": _i32([0] * count),
        "lists": (ctypes.c_int32 * (4 * count * (count + 2)))(),
        "values": (ctypes.c_int64 * (3 * count * (count + 2)))(),
    }
    state = _Search()
    for name, array in (_constants(shapes) | work).items():
        setattr(state, name, array)
    state.groups, state.sections = count, shapes.sections
    state.capacity, state.roof, state.node_limit = capacity, shapes.roof(capacity), node_limit
    status = library.edgec_place(ctypes.byref(state))
    return Outcome(status, offsets[:count], state.nodes, weights[:count])


@functools.lru_cache(maxsize=4)
def _constants(shapes: Shapes) -> dict[str, _Array]:
    parts = [part for found in shapes.parts for part in found]
    near = [pair for found in shapes.near for pair in found]
    return {
        "modulus": _i64(shapes.modulus),
        "residue": _i64(shapes.residue),
        "height": _i64(shapes.height),
        "first": _i32(shapes.first),
        "last": _i32(shapes.last),
        "order": _i32(shapes.order),
        "part_begin": _i32(_begins(shapes.parts)),
        "part_first": _i32(p[0] for p in parts),
        "part_last": _i32(p[1] for p in parts),
        "part_low": _i64(p[2] for p in parts),
        "part_high": _i64(p[3] for p in parts),
        "near_begin": _i32(_begins(shapes.near)),
        "near": _i32(pair[0] for pair in near),
        "near_distance": _i64(pair[1] for pair in near),
    }


def _begins(rows: Sequence[Sequence[object]]) -> list[int]:
    found = [0]
    for row in rows:
        found.append(found[-1] + len(row))
    return found


def _i32(values: Iterable[int]) -> ctypes.Array[ctypes.c_int32]:
    listed = list(values) or [0]
    return (ctypes.c_int32 * len(listed))(*listed)


def _i64(values: Iterable[int]) -> ctypes.Array[ctypes.c_int64]:
    listed = list(values) or [0]
    return (ctypes.c_int64 * len(listed))(*listed)
