# SPDX-License-Identifier: Apache-2.0
"""Rules of convolutions, pools and resizes: they take and give channels-last bytes, whatever order ONNX has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.lower.graph import Array, NotIntegerError, Order, Stored, Value
from edgec.lower.rules import Site, requantized, rule, scalar_multiplier
from edgec.lower.weights import channel_constants
from edgec.operators.integer import Int64, as_int32, multipliers, needs_wide, product


def channels_last(rank: int) -> Order:
    """The order of axes of an image [N, C, ...] whose channels lie together."""
    return (0, *range(2, rank), 1)


@dataclass(frozen=True)
class Window:
    """How windows slide, always in two axes (a line of samples is an image of height 1)."""

    kernel: list[int]
    strides: list[int]
    pads: list[int]
    dilations: list[int]

    @property
    def sliding(self) -> dict[str, list[int]]:
        """The attributes that every operator with windows has."""
        return {"strides": self.strides, "pads": self.pads, "dilations": self.dilations}


def _window(site: Site, image: Sequence[int], kernel: Sequence[int], result: Sequence[int]) -> Window:
    """The window of a node; `image`, `kernel` and `result` are spatial sizes, one or two."""
    spatial = len(image)
    strides = list(site.attribute("strides", [1] * spatial))
    dilations = list(site.attribute("dilations", [1] * spatial))
    pads = list(site.attribute("pads", [0] * 2 * spatial))
    auto = site.attribute("auto_pad", b"NOTSET").decode()
    reach = [(result[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - image[i] for i in range(spatial)]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [max(r, 0) for r in reach]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
    elif auto == "VALID":
        pads = [0] * 2 * spatial
    elif auto != "NOTSET":
        raise NotIntegerError(f"auto_pad {auto}")
    for i in range(spatial):  # ceil_mode: the last window reaches beyond the padding
        pads[spatial + i] = max(pads[spatial + i], reach[i] - pads[i])
    if spatial == 1:
        return Window([1, *kernel], [1, *strides], [0, pads[0], 0, pads[1]], [1, *dilations])
    return Window(list(kernel), strides, pads, dilations)


def _image(site: Site) -> Value:
    """The first operand, channels last: one picture or one line."""
    x = site.stored(0)
    if x.tensor is None:
        raise NotIntegerError("it is computed from constants alone; fold them")
    if len(x.shape) not in (3, 4):
        raise NotIntegerError(f"{len(x.shape) - 2} spatial axes; one and two are supported")
    if x.shape[0] != 1:
        raise NotIntegerError(f"a batch of {x.shape[0]}")
    return site.graph.in_order(x, channels_last(len(x.shape)), site.node.name)


def _plane(site: Site, x: Value) -> str:
    """The image as [H, W, C]."""
    assert x.tensor is not None
    height = x.shape[2] if len(x.shape) == 4 else 1
    return site.graph.view(x.tensor, (height, x.shape[-1], x.shape[1]))


def _emit(site: Site, op: str, inputs: list[str], constants: dict[str, Array], **attrs: object) -> Stored:
    """Write the call; its result lies channels last."""
    result = site.graph.emit(op, site.node.name, site.node.output[0], inputs, constants, **attrs)
    order = channels_last(len(site.shape))
    return Stored(site.graph.view(result, tuple(site.shape[a] for a in order)), order)


def _weights(site: Site, axis: int) -> tuple[Int64, Array]:
    """The constant weights with two spatial axes, int64, and their scales along `axis` or one for all."""
    w = site.stored(1)
    if w.data is None:
        raise NotIntegerError("the weight is not constant")
    if w.quant.zero_point:
        raise NotIntegerError("the weights are not symmetric (zero point 0)")
    if w.quant.scale.ndim and w.quant.axis % w.data.ndim != axis:
        raise NotIntegerError("the weights' scales run along the wrong axis")
    data = w.data.astype(np.int64)
    return (data[:, :, None] if data.ndim == 3 else data), w.quant.scale


@rule("Conv")
def _conv(site: Site) -> Stored:
    x, (weights, scale) = _image(site), _weights(site, 0)
    group, (n, c, *kernel) = site.attribute("group", 1), weights.shape
    spatial = len(x.shape) - 2
    window = _window(site, x.shape[2:], kernel[-spatial:], site.shape[2:])
    vectors, wide = channel_constants(weights.reshape(n, -1), scale, site.real(2), x.quant, site.quant)
    small = weights.astype(np.int8)
    whole = list(x.shape[2:]) == kernel[-spatial:]
    if group == 1 and not any(window.pads) and (kernel == [1, 1] or whole):
        picked = x if whole else _every(site, x, window.strides)
        constants = {"w": small.transpose(0, 2, 3, 1).reshape(n, -1), **vectors}
        constants["params"] = as_int32("params", [site.quant.zero_point])
        rows = site.graph.view(str(picked.tensor), (product(site.shape[2:]), constants["w"].shape[1]))
        return _emit(site, "linear_s8", [rows], constants, wide=wide)
    params = {"params": as_int32("params", [x.quant.zero_point, site.quant.zero_point])}
    if group == x.shape[1] and c == 1 and group > 1:
        constants = {"w": small[:, 0].transpose(1, 2, 0), **vectors, **params}
        return _emit(site, "depthwise_conv2d_s8", [_plane(site, x)], constants, **window.sliding, wide=wide)
    constants = {"w": small.transpose(0, 2, 3, 1), **vectors, **params}
    return _emit(site, "conv2d_s8", [_plane(site, x)], constants, **window.sliding, group=group, wide=wide)


def _every(site: Site, x: Value, strides: Sequence[int]) -> Value:
    """Every stride-th pixel of a channels-last image, from the first."""
    steps = strides[-(len(x.shape) - 2) :]
    if all(s == 1 for s in steps):
        return x
    assert x.tensor is not None
    places = np.arange(product(x.shape)).reshape(x.stored_shape)
    places = places[(slice(None), *(slice(None, None, s) for s in steps))]
    shape = (1, x.shape[1], *places.shape[1:-1])
    tensor = site.graph.strided_copy(site.node.name, f"{site.node.name}.pixels", places, x.tensor)
    return dataclasses.replace(x, tensor=tensor, shape=shape)


@rule("ConvTranspose")
def _conv_transpose(site: Site) -> Stored:
    x, (weights, scale) = _image(site), _weights(site, 1)
    group, (c, n, *kernel) = site.attribute("group", 1), weights.shape
    # [C, N/group, h, w] -> [N, h, w, C/group]
    split = weights.reshape(group, c // group, n, *kernel).transpose(0, 2, 3, 4, 1)
    rows = split.reshape(group * n, *kernel, c // group)
    scales = np.tile(scale, group) if scale.ndim else scale
    vectors, wide = channel_constants(
        rows.reshape(group * n, -1), scales, site.real(2), x.quant, site.quant, fold=False
    )
    constants = {
        "w": rows.astype(np.int8),
        **vectors,
        "params": as_int32("params", [x.quant.zero_point, site.quant.zero_point]),
    }
    attrs = _spread_window(site, x.shape[2:], kernel[-(len(x.shape) - 2) :])
    return _emit(site, "conv_transpose2d_s8", [_plane(site, x)], constants, **attrs, group=group, wide=wide)


def _spread_window(site: Site, image: Sequence[int], kernel: Sequence[int]) -> dict[str, list[int]]:
    """Strides, pads, output_padding and dilations of a ConvTranspose, in two axes."""
    spatial, result = len(image), site.shape[2:]
    strides = list(site.attribute("strides", [1] * spatial))
    dilations = list(site.attribute("dilations", [1] * spatial))
    pads = list(site.attribute("pads", [0] * 2 * spatial))
    added = list(site.attribute("output_padding", [0] * spatial))
    auto = site.attribute("auto_pad", b"NOTSET").decode()
    given = site.attribute("output_shape", None)
    for i in range(spatial):
        full = (image[i] - 1) * strides[i] + added[i] + (kernel[i] - 1) * dilations[i] + 1
        if given is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
            total = full - result[i]
            first = total // 2 if auto == "SAME_UPPER" else total - total // 2
            pads[i], pads[spatial + i] = first, total - first
        elif auto == "VALID":
            pads[i] = pads[spatial + i] = 0
        if pads[i] < 0:
            raise NotIntegerError("an output larger than its windows reach")
        # What the end lacks (or padding below 0) is output that no tap reaches.
        added[i] += result[i] - (full - pads[i] - pads[spatial + i])
        if pads[spatial + i] < 0:
            added[i], pads[spatial + i] = added[i] - pads[spatial + i], 0
    if spatial == 1:
        return {
            "strides": [1, *strides],
            "pads": [0, pads[0], 0, pads[1]],
            "output_padding": [0, *added],
            "dilations": [1, *dilations],
        }
    return {"strides": strides, "pads": pads, "output_padding": added, "dilations": dilations}


@rule("MaxPool")
def _max_pool(site: Site) -> Stored:
    if len(site.node.output) > 1 and site.node.output[1]:
        raise NotIntegerError("MaxPool whose indices are read")
    x = _image(site)
    window = _window(site, x.shape[2:], site.attribute("kernel_shape", []), site.shape[2:])
    pooled = _emit(site, "max_pool_s8", [_plane(site, x)], {}, kernel=window.kernel, **window.sliding)
    return Stored(requantized(site.graph, site.node, pooled.tensor, x.quant, site.quant), pooled.order)


@rule("AveragePool")
def _average_pool(site: Site) -> Stored:
    x = _image(site)
    kernel = list(site.attribute("kernel_shape", []))
    spatial = len(kernel)
    window = _window(site, x.shape[2:], kernel, site.shape[2:])
    if kernel == list(x.shape[2:]) and not any(window.pads):
        return _mean(site, x)
    counted = [0, 0, 0, 0]
    if site.attribute("count_include_pad", 0):  # the padding counts, what ceil_mode adds does not
        given = [int(p) for p in site.attribute("pads", [])] or [0] * 2 * spatial
        if site.attribute("auto_pad", b"NOTSET") != b"NOTSET":
            given = window.pads if spatial == 2 else [window.pads[1], window.pads[3]]
        counted = given if spatial == 2 else [0, given[0], 0, given[1]]
    (sx, zx), (sy, zy) = x.quant.pair, site.quant.pair
    ratios = sx / sy / np.arange(1, product(window.kernel) + 1)
    wide = needs_wide(ratios, np.minimum(128.0, 255 * sx / sy))
    mult, shift = multipliers(ratios, wide)
    constants: dict[str, Array] = {"mult": mult, "shift": shift, "params": as_int32("params", [zx, zy])}
    attrs = {"kernel": window.kernel, **window.sliding, "counted": counted, "wide": int(wide)}
    return _emit(site, "avg_pool_s8", [_plane(site, x)], constants, **attrs)


def _mean(site: Site, x: Value) -> Stored:
    """The mean over all pixels of a channels-last image."""
    (sx, zx), (sy, zy) = x.quant.pair, site.quant.pair
    pixels, channels = product(x.shape[2:]), x.shape[1]
    mult, shift, wide = scalar_multiplier(sx / sy / pixels, min(128.0, 255 * sx / sy))
    constants: dict[str, Array] = {"params": as_int32("params", [zx, mult, shift, zy])}
    return _emit(site, "mean_s8", [site.graph.view(str(x.tensor), (1, pixels, channels))], constants, wide=wide)


@rule("GlobalAveragePool")
def _global_average_pool(site: Site) -> Stored:
    return _mean(site, _image(site))


@rule("GlobalMaxPool")
def _global_max_pool(site: Site) -> Stored:
    x = _image(site)
    rows = site.graph.view(str(x.tensor), (1, product(x.shape[2:]), x.shape[1]))
    found = _emit(site, "reduce_extreme_s8", [rows], {}, smallest=0)
    return Stored(requantized(site.graph, site.node, found.tensor, x.quant, site.quant), found.order)


@rule("DepthToSpace", "SpaceToDepth")
def _depth_and_space(site: Site) -> Stored:
    """One strided copy, channels last before and after."""
    x, block = _image(site), int(site.attribute("blocksize", 1))
    _, channels, height, width = x.shape
    places = np.arange(product(x.shape))
    if site.node.op_type == "SpaceToDepth":
        split = places.reshape(height // block, block, width // block, block, channels).transpose(0, 2, 1, 3, 4)
    elif site.attribute("mode", b"DCR") == b"DCR":
        split = places.reshape(height, width, block, block, -1).transpose(0, 2, 1, 3, 4)
    else:
        split = places.reshape(height, width, -1, block, block).transpose(0, 3, 1, 4, 2)
    order = channels_last(4)
    tensor = site.graph.strided_copy(site.node.name, site.node.output[0], split, str(x.tensor))
    tensor = site.graph.view(tensor, tuple(site.shape[a] for a in order))
    return Stored(requantized(site.graph, site.node, tensor, x.quant, site.quant), order)
