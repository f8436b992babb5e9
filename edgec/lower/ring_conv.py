# SPDX-License-Identifier: Apache-2.0
"""Weighted sums over a window (dense layers and convolutions of one place) as causal convolutions over its ring."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx

from edgec.lower.ring_form import RingForm
from edgec.lower.ring_graph import Array, Ids, RingGraph, attributes
from edgec.lower.ring_layout import Layout
from edgec.operators.integer import Int64

_MOST_ZEROS = 2
"""How many times as many weights as the layer has a convolution over whole rows may have."""


@dataclass(frozen=True)
class Causal:
    """A causal convolution: operator, weights [N, k, C] or [k, C], distance of taps, row of its last tap."""

    op: str
    weights: Array
    dilation: int
    last: int


def causal(graph: RingGraph, node: onnx.NodeProto, form: RingForm, at: Ids, layout: Layout) -> Causal | None:
    """The convolution over the ring in this layout that `node` is, `at` being its operand's places in the window."""
    if node.op_type == "linear_s8":
        found = at.reshape(graph.types[node.input[0]].shape), graph.arrays[node.input[1]].astype(np.int64)
        return _dense(form, *found, layout)
    taps = _taps(graph, node, at)
    if taps is None:
        return None
    weights = graph.arrays[node.input[1]]
    if node.op_type == "conv2d_s8":
        if attributes(node).get("group", 1) != 1:
            return None
        return _dense(form, taps.reshape(1, -1), weights.reshape(len(weights), -1).astype(np.int64), layout)
    return _depthwise(form, taps, weights.reshape(-1, weights.shape[2]), layout)


def _taps(graph: RingGraph, node: onnx.NodeProto, at: Ids) -> Ids | None:
    """Places [taps, C] that a convolution reads when it has one place of its result and no padding in it."""
    if node.op_type not in ("conv2d_s8", "depthwise_conv2d_s8") or graph.types[node.output[0]].shape[:2] != (1, 1):
        return None
    (height, width, _), w = graph.types[node.input[0]].shape, graph.types[node.input[1]].shape
    kernel = w[1:3] if node.op_type == "conv2d_s8" else w[:2]
    attrs = attributes(node)
    rows, columns = (
        np.arange(k) * int(d) - int(p) for k, d, p in zip(kernel, attrs["dilations"], attrs["pads"][:2], strict=True)
    )
    if rows[0] < 0 or columns[0] < 0 or rows[-1] >= height or columns[-1] >= width:
        return None
    image = at.reshape(height, width, -1)
    return image[rows][:, columns].reshape(len(rows) * len(columns), -1)


def _dense(form: RingForm, at: Ids, weights: Int64, layout: Layout) -> Causal | None:
    """Outputs n of stream m: the sum of `weights[n]` times the elements `at[m]`."""
    streams, rows, channels = layout.of(form, at)
    if len(at) != layout.streams or not (streams == np.arange(len(at))[:, None]).all():
        return None
    if not ((rows == rows[0]).all() and (channels == channels[0]).all()):
        return None
    first, dilation, count = _spacing(rows[0])
    channels_of_row = layout.channels(form)
    if count * channels_of_row > _MOST_ZEROS * at.shape[1]:
        return None
    slots = (rows[0] - first) // dilation * channels_of_row + channels[0]
    if np.unique(slots).size != slots.size:
        return None
    spread = np.zeros((len(weights), count * channels_of_row), np.int8)
    spread[:, slots] = weights
    taps = spread.reshape(len(weights), count, channels_of_row)
    return Causal("causal_conv1d_s8", taps, dilation, first + dilation * (count - 1))


def _depthwise(form: RingForm, at: Ids, weights: Array, layout: Layout) -> Causal | None:
    """Channel c: the sum of `weights[:, c]` times the elements `at[:, c]`."""
    streams, rows, channels = layout.of(form, at)
    if weights.shape != at.shape or layout.streams != 1 or layout.channels(form) != at.shape[1]:
        return None
    if streams.any() or not (rows == rows[:, :1]).all() or not (channels == np.arange(at.shape[1])).all():
        return None
    first, dilation, count = _spacing(rows[:, 0])
    slots = (rows[:, 0] - first) // dilation
    if count > _MOST_ZEROS * len(at) or np.unique(slots).size != slots.size:
        return None
    spread = np.zeros((count, at.shape[1]), np.int8)
    spread[slots] = weights
    return Causal("causal_depthwise_s8", spread, dilation, first + dilation * (count - 1))


def _spacing(rows: Ids) -> tuple[int, int, int]:
    """(first row, distance, number) of the evenly spaced rows that these are among."""
    first = int(rows.min())
    distance = math.gcd(*(int(r) - first for r in np.unique(rows))) or 1
    return first, distance, int(rows.max() - first) // distance + 1
