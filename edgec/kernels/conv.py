# SPDX-License-Identifier: Apache-2.0
"""Convolutions on cores with DSP instructions: windows side by side are rows of a dense layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgec.kernels.linear import LinearS8Dsp
from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators import get_operator
from edgec.operators.integer import INT32_MAX
from edgec.operators.record import TensorType

_CHANNELS = 4
MOST_TAPS = 25
"""EDGEC_DEPTHWISE_TAPS of edgec_kernels.h."""
_LINEAR = LinearS8Dsp()


@hand_kernel
class Conv2dS8Dsp(HandKernel):
    """conv2d_s8 of one group by linear_s8_dsp: its proof, its packing."""

    name = "conv2d_s8_dsp"
    op = "conv2d_s8"
    needs = LinearS8Dsp.needs
    function = "edgec_conv2d_s8_dsp"
    sources = ("conv/conv2d_s8_dsp.c", *LinearS8Dsp.sources)

    def accepts(self, call: Call) -> str | None:
        """What the dense layer accepts; groups are left to the generated kernel."""
        if call.attrs.get("group", 1) != 1:
            return f"{call.attrs['group']} groups"
        return _LINEAR.accepts(_as_linear(call))

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Weights and requantization of the dense layer, and the geometry."""
        return (*_LINEAR.pack(_as_linear(call)), _geometry(call, self.op, call.types["w"].shape[1:3]))

    def overlap_block_rows(self, call: Call) -> int | None:
        """A panel of windows, whole blocks of four, is packed before it is multiplied."""
        return _LINEAR.overlap_block_rows(call)

    def scratch_bytes(self, call: Call) -> int:
        """The panel of the dense layer, and a window of bytes where words would hold channels of two taps."""
        linear, in_bytes = _as_linear(call), call.types["x"].shape[2] % 4 != 0
        return _LINEAR.scratch_bytes(linear) + (4 * -(-linear.types["x"].shape[1] // 4) if in_bytes else 0)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        panel_rows = _LINEAR.panel_rows(_as_linear(call))
        return ("x", "weights", "requantize", "geometry", "y", "first_row", "rows", panel_rows, "scratch")


@hand_kernel
class PointwiseConv2dS8Dsp(HandKernel):
    """conv2d_s8 of one tap at every pixel: linear_s8_dsp itself, whose rows are the pixels."""

    name = "conv2d_1x1_s8_dsp"
    op = "conv2d_s8"
    needs = LinearS8Dsp.needs
    function = LinearS8Dsp.function
    sources = LinearS8Dsp.sources

    def accepts(self, call: Call) -> str | None:
        """What the dense layer accepts."""
        attrs = call.attrs
        if call.types["w"].shape[1:3] != (1, 1) or max(*attrs["strides"], attrs.get("group", 1)) > 1:
            return "windows that are not the pixels one by one"
        return "padding" if any(attrs["pads"]) else _LINEAR.accepts(_as_linear(call))

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """As the dense layer."""
        return _LINEAR.pack(_as_linear(call))

    def overlap_block_rows(self, call: Call) -> int | None:
        """As the dense layer: of an image's last axis, rows are pixels."""
        return _LINEAR.overlap_block_rows(call)

    def scratch_bytes(self, call: Call) -> int:
        """As the dense layer."""
        return _LINEAR.scratch_bytes(_as_linear(call))

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """As the dense layer."""
        return _LINEAR.arguments(_as_linear(call))


@hand_kernel
class DepthwiseConv2dS8Dsp(HandKernel):
    """depthwise_conv2d_s8 with as many outputs as channels, four at a time; narrow requantization."""

    name = "depthwise_conv2d_s8_dsp"
    op = "depthwise_conv2d_s8"
    needs = frozenset({"dsp"})
    function = "edgec_depthwise_conv2d_s8_dsp"
    sources = ("conv/depthwise_conv2d_s8_dsp.c", "conv/depthwise_pixel_s8_dsp.c")

    def accepts(self, call: Call) -> str | None:
        """Sums need no bound but the operator's own: every product goes to the accumulator of its channel."""
        channels, w, mult = call.types["x"].shape[2], call.constants["w"], call.constants["mult"]
        if call.attrs.get("wide", 0):
            return "wide requantization"
        if w.shape[2] != channels or channels % _CHANNELS:
            return f"{channels} channels and {w.shape[2]} outputs; as many of both, a multiple of {_CHANNELS}"
        if w.shape[0] * w.shape[1] > MOST_TAPS:
            return f"{w.shape[0] * w.shape[1]} taps, at most {MOST_TAPS}"
        if ((mult < 0) | (mult >= 2**30)).any():
            return "a multiplier that is not in [0, 2^30)"
        reach = np.abs(call.constants["bias"].astype(np.int64)) + 128 * np.abs(w.astype(np.int64)).sum(axis=(0, 1))
        return "an accumulator could leave 32 bits" if reach.max() > INT32_MAX else None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Weights as 16-bit lanes, and what each channel is requantized with."""
        w, constants = call.constants["w"], call.constants
        groups = w.astype(np.int64).reshape(-1, w.shape[2] // _CHANNELS, _CHANNELS).transpose(1, 0, 2) & 0xFFFF
        lanes = np.stack([groups[..., 0] | groups[..., 2] << 16, groups[..., 1] | groups[..., 3] << 16], axis=-1)
        columns = np.stack([constants["bias"], 2 * constants["mult"].astype(np.int64), constants["shift"]], axis=1)
        return (
            Packed("weights", lanes.astype(np.uint32), "[channels/4][taps][2]: channels 0 and 2, 1 and 3"),
            Packed("requantize", columns.astype(np.int32), "[channels]: bias, 2*mult, shift"),
            _geometry(call, self.op, w.shape[:2]),
        )

    def overlap_block_rows(self, call: Call) -> int | None:
        """Pixel by pixel, and of these channel by channel."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """A row of zero points."""
        return call.types["x"].shape[2]

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "weights", "requantize", "geometry", "y", "scratch")


def _output(call: Call, op: str) -> TensorType:
    operator = get_operator(op)
    return operator.infer(tuple(call.types[name] for name in operator.inputs), **call.attrs)


def _geometry(call: Call, op: str, kernel: Sequence[int]) -> Packed:
    """The words of an `edgec_conv2d_geometry`."""
    attrs, params = call.attrs, call.constants["params"]
    words = [
        *(*call.types["x"].shape, *_output(call, op).shape, *kernel),
        *(*attrs["strides"], *attrs["dilations"], *attrs["pads"][:2], int(params[0]), int(params[1])),
    ]
    return Packed("geometry", np.array(words, np.int32), "edgec_conv2d_geometry")


def _as_linear(call: Call) -> Call:
    """The dense layer whose rows are the windows."""
    w = call.constants["w"]
    flat = w.reshape(len(w), -1)
    rows, columns, _ = _output(call, Conv2dS8Dsp.op).shape
    types = {**call.types, "x": TensorType((rows * columns, flat.shape[1]), "int8"), "w": TensorType.of(flat)}
    constants = {**call.constants, "w": flat, "params": call.constants["params"][1:]}
    attrs = {"wide": call.attrs.get("wide", 0)}
    return dataclasses.replace(call, types=types, constants=constants, attrs=attrs)
