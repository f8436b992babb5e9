# SPDX-License-Identifier: Apache-2.0
"""Nearest-neighbour Resize (and Upsample): which pixel each result is, then the cheapest copy that does it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgec.lower.graph import NotIntegerError, Stored, Value
from edgec.lower.picking import take
from edgec.lower.rules import Site, requantized, rule
from edgec.operators.integer import Int64, product

Floats = npt.NDArray[np.float32]
ROUNDING: dict[str, Callable[[Floats], Floats]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


@rule("Resize", "Upsample")
def _resize(site: Site) -> Stored:
    x = site.stored(0)
    if x.tensor is None:
        raise NotIntegerError("it is computed from constants alone; fold them")
    if site.attribute("mode", b"nearest") != b"nearest":
        raise NotIntegerError(f"mode {site.attribute('mode', b'').decode()}; nearest is supported")
    picks = _picks(site, x)
    order = x.order or tuple(range(len(x.shape)))
    shape, places = list(x.stored_shape), np.arange(product(x.shape)).reshape(x.stored_shape)
    listed = []
    for at, axis in enumerate(order):
        pick, n = picks[axis], shape[at]
        if n * (times := len(pick) // n) == len(pick) and np.array_equal(pick, np.arange(len(pick)) // times):
            continue  # every element some times: below
        if (cut := _evenly(pick)) is not None:
            places = places[(slice(None),) * at + (cut,)]
        else:
            listed.append(at)
    # An axis whose elements repeat is two: the elements, and a stride of 0.
    sizes = places.shape
    repeats = [1 if at in listed else len(picks[axis]) // sizes[at] for at, axis in enumerate(order)]
    doubled = places.reshape(*(v for n in sizes for v in (n, 1))) if max(repeats) > 1 else places
    if max(repeats) > 1:
        doubled = np.broadcast_to(doubled, [v for n, r in zip(sizes, repeats, strict=True) for v in (n, r)])
    tensor = requantized(site.graph, site.node, x.tensor, x.quant, site.quant)
    if doubled.size != product(x.shape) or max(repeats) > 1:
        tensor = site.graph.strided_copy(site.node.name, site.node.output[0], doubled, tensor)
    lying = tuple(n * r for n, r in zip(sizes, repeats, strict=True))
    tensor = site.graph.view(tensor, lying)
    for at in listed:
        tensor = take(site.graph, site.node, tensor, lying, at, picks[order[at]])
        lying = (*lying[:at], len(picks[order[at]]), *lying[at + 1 :])
    return Stored(tensor, x.order)


def _evenly(pick: Int64) -> slice | None:
    """The slice that takes these elements, if one does."""
    step = int(pick[1] - pick[0]) if len(pick) > 1 else 1
    if step < 1 or (np.diff(pick) != step).any():
        return None
    return slice(int(pick[0]), int(pick[-1]) + 1, step)


def _picks(site: Site, x: Value) -> list[Int64]:
    """For every ONNX axis the element of x that each element of the result is (as ONNX Runtime: in float32)."""
    legacy = site.node.op_type == "Upsample" or len(site.node.input) == 2
    scales = site.real(1 if legacy else 2)
    axes = site.attribute("axes", list(range(len(x.shape))))
    if site.attribute("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise NotIntegerError("keep_aspect_ratio_policy other than stretch")
    mode = "asymmetric" if legacy else site.attribute("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = "floor" if legacy else site.attribute("nearest_mode", b"round_prefer_floor").decode()
    result = []
    for axis, (size, length) in enumerate(zip(x.shape, site.shape, strict=True)):
        scale = np.float32(length / size)
        if scales is not None and scales.size and axis in axes:
            scale = np.float32(scales.ravel()[list(axes).index(axis)])
        if size == length and scale == 1:
            result.append(np.arange(size))
            continue
        at = _coordinates(mode, length, size, scale)
        if rounding not in ROUNDING:
            raise NotIntegerError(f"nearest_mode {rounding}")
        # A coordinate that is whole stays, whatever the mode (as ONNX Runtime has it).
        nearest = np.where(at == np.trunc(at), at, ROUNDING[rounding](at))
        result.append(np.clip(nearest, 0, size - 1).astype(np.int64))
    return result


def _coordinates(mode: str, length: int, size: int, scale: np.float32) -> Floats:
    line, half = np.arange(length, dtype=np.float32), np.float32(0.5)
    match mode:
        case "asymmetric":
            return line / scale
        case "half_pixel":
            return (line + half) / scale - half
        case "pytorch_half_pixel":
            return (line + half) / scale - half if length > 1 else np.zeros(1, np.float32)
        case "half_pixel_symmetric":
            adjustment = np.float32(length) / (scale * np.float32(size))
            center = np.float32(size) / 2
            return center * (1 - adjustment) + (line + half) / scale - half
        case "align_corners":
            return line * np.float32(size - 1) / np.float32(length - 1) if length > 1 else np.zeros(1, np.float32)
    raise NotIntegerError(f"coordinate_transformation_mode {mode}")
