# SPDX-License-Identifier: Apache-2.0
"""Resize in every mode as what it is: along each axis, a weighted sum of a few elements that are known beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgec.errors import UnsupportedError
from edgec.passes.graph_edit import GraphEdit, array_of, attribute, input_of, shape_of

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """One axis to be resized: sizes before and after, how many results go to one element, the region of interest."""

    size: int
    length: int
    scale: float
    region: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Taps:
    """`y[i] = sum over k of weights[k, i] * x[picks[k, i]] + offset[i]`; picks and weights are [taps, length]."""

    picks: Integers
    weights: Floats
    offset: Floats


def lower_resize(edit: GraphEdit, node: ir.Node) -> ir.Value:
    """The result of a Resize node by Gather, Mul and Add, an axis at a time.

    Requires: constant scales or sizes, static shapes.

    Raises:
        UnsupportedError: scales, sizes or region are computed, or the mode is unknown.
    """
    x, out = node.inputs[0], node.outputs[0]
    assert x is not None
    name = edit.take_name(node)
    options = {a: attribute(node, a, None) for a in node.attributes}
    for index, axis in _axes(node, shape_of(x), shape_of(out)).items():
        found = taps(axis, options)
        if axis.size == axis.length and found.picks.shape[0] == 1 and _keeps(found, axis.size):
            continue
        x = _apply(edit, x, index, found, f"{name}.{index}")
    return x


def taps(axis: Axis, options: dict[str, Any]) -> Taps:
    """Which elements, with which weights, make each result along an axis; in float32, as ONNX Runtime does."""
    mode = str(options.get("mode", "nearest"))
    at = _coordinates(str(options.get("coordinate_transformation_mode", "half_pixel")), axis)
    zeros = np.zeros(axis.length, np.float32)
    if mode == "nearest":
        pick = np.clip(_nearest(at, str(options.get("nearest_mode", "round_prefer_floor"))), 0, axis.size - 1)
        found = Taps(pick[None].astype(np.int64), np.ones((1, axis.length), np.float32), zeros)
    else:
        found = _weighted(at, axis, mode, options)
    if options.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        outside = (at < 0) | (at > axis.size - 1)
        value = np.float32(options.get("extrapolation_value", 0.0))
        found = Taps(found.picks, np.where(outside, np.float32(0), found.weights), np.where(outside, value, zeros))
    return found


def _axes(node: ir.Node, before: tuple[int, ...], after: tuple[int, ...]) -> dict[int, Axis]:
    arrays = [array_of(input_of(node, i)) for i in (1, 2, 3)]
    if any(input_of(node, i) is not None and a is None for i, a in zip((1, 2, 3), arrays, strict=True)):
        raise UnsupportedError(f"{node.name} (Resize): its scales or sizes are computed", need="constants")
    region, scales, sizes = (a if a is not None and a.size else None for a in arrays)
    axes = [int(a) % len(before) for a in attribute(node, "axes", None) or range(len(before))]
    policy = str(attribute(node, "keep_aspect_ratio_policy", "stretch"))
    if sizes is not None:
        ratios = [int(s) / before[a] for s, a in zip(sizes.reshape(-1), axes, strict=True)]
        common = {"not_larger": min, "not_smaller": max}.get(policy)
        scales = np.array([common(ratios)] * len(ratios) if common else ratios)
    if scales is None:
        raise UnsupportedError(f"{node.name} (Resize): it has neither scales nor sizes")
    regions = np.array([[0.0, 1.0]] * len(axes)) if region is None else region.reshape(2, -1).T
    return {
        a: Axis(before[a], after[a], float(s), (float(r[0]), float(r[1])))
        for a, s, r in zip(axes, scales.reshape(-1), regions, strict=True)
    }


def _coordinates(mode: str, axis: Axis) -> Floats:
    line, half, scale = np.arange(axis.length, dtype=np.float32), np.float32(0.5), np.float32(axis.scale)
    length = scale * np.float32(axis.size)  # of the result, before it is rounded to a whole number
    last = np.float32(axis.size - 1)
    plain = (line + half) / scale - half
    match mode:
        case "asymmetric":
            return line / scale
        case "half_pixel":
            return plain
        case "pytorch_half_pixel":
            return plain if length != 1 else np.full(axis.length, -0.5, np.float32)
        case "half_pixel_symmetric":
            center = np.float32(axis.size) / 2
            return center * (1 - np.float32(axis.length) / length) + plain
        case "align_corners":
            return line * last / (length - 1) if length != 1 else np.zeros(axis.length, np.float32)
        case "tf_crop_and_resize":
            start, end = (np.float32(r) for r in axis.region)
            if length == 1:
                return np.full(axis.length, (start + end) * last / 2, np.float32)
            return start * last + line * (end - start) * last / (length - 1)
    raise UnsupportedError(f"Resize with coordinate_transformation_mode {mode}")


def _nearest(at: Floats, rounding: str) -> Floats:
    half = np.float32(0.5)
    rounded: dict[str, Floats] = {"round_prefer_floor": np.ceil(at - half), "round_prefer_ceil": np.floor(at + half)}
    rounded |= {"floor": np.floor(at), "ceil": np.ceil(at)}
    if rounding not in rounded:
        raise UnsupportedError(f"Resize with nearest_mode {rounding}")
    return rounded[rounding]


def _weighted(at: Floats, axis: Axis, mode: str, options: dict[str, Any]) -> Taps:
    """Linear and cubic: the nearest elements, those beyond the edges being the edge's (or left out)."""
    reach = {"linear": 1.0, "cubic": 2.0}.get(mode)
    if reach is None:
        raise UnsupportedError(f"Resize with mode {mode}")
    # Antialiasing widens the kernel where elements are lost.
    shrink = min(axis.scale, 1.0) if options.get("antialias", 0) else 1.0
    n = -2 * int(np.floor(-reach / shrink) + 1) + 2
    before = np.ceil(at) - 1  # a whole coordinate counts as one to the right of its left neighbour
    start = np.clip(before + 1 - n // 2, -(n // 2), axis.size + n // 2 - n).astype(np.int64)
    picks = start + np.arange(n)[:, None]
    distance = np.abs(np.arange(1 - n // 2, n // 2 + 1)[:, None] - (at - before).astype(np.float64)) * shrink
    if mode == "linear":
        weights = np.clip(1 - distance, 0, None)
    else:
        weights = _cubic(distance, float(options.get("cubic_coeff_a", -0.75)))
    if options.get("exclude_outside", 0):
        weights = np.where((picks < 0) | (picks >= axis.size), 0, weights)
    weights = weights / weights.sum(axis=0)
    used = np.abs(weights).max(axis=1) > 0
    return Taps(
        np.clip(picks, 0, axis.size - 1)[used], weights[used].astype(np.float32), np.zeros(axis.length, np.float32)
    )


def _cubic(d: npt.NDArray[np.float64], a: float) -> npt.NDArray[np.float64]:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _keeps(found: Taps, size: int) -> bool:
    return bool((found.picks[0] == np.arange(size)).all() and (found.weights == 1).all() and not found.offset.any())


def _apply(edit: GraphEdit, x: ir.Value, index: int, found: Taps, name: str) -> ir.Value:
    shape = [len(found.offset) if i == index else d for i, d in enumerate(shape_of(x))]
    column = [-1] + [1] * (len(shape) - index - 1)
    total: ir.Value | None = None
    for k, (pick, weight) in enumerate(zip(found.picks, found.weights, strict=True)):
        part = edit.emit(
            "Gather", [x, edit.constant(pick, f"{name}.pick{k}")], shape, f"{name}.tap{k}", {"axis": index}
        )
        if (weight != 1).any():
            factor = edit.constant(weight.reshape(column), f"{name}.weight{k}")
            part = edit.emit("Mul", [part, factor], shape, f"{name}.part{k}")
        total = part if total is None else edit.emit("Add", [total, part], shape, f"{name}.sum{k}")
    assert total is not None
    if found.offset.any():
        total = edit.emit("Add", [total, edit.constant(found.offset.reshape(column), f"{name}.offset")], shape, name)
    return total
