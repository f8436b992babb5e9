# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolutions of 3x3 taps on cores with DSP instructions: two taps to a multiplication.

A channel's window has nine taps. The kernel writes lines of pixels in pairs, channel by channel, into a panel: a
word holds a pixel of two lines, so that SMLAD takes six of the taps in three steps. The panel is made once for two
lines of outputs and slides past one channel's weights, which stay in registers.

**The proof.** Taps are 16-bit lanes, so the shift of the requantization is multiplied into weights and bias:
`sat32(acc << s) = sum x*(w << s) + (bias << s)` when the right side cannot leave 32 bits, which
`2^s * (|bias| + 128 * sum |w|) < 2^31` proves for every int8 x and zero point; sums wrap on the way without harm.
A channel where a lane or the sum does not fit is declined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators import get_operator
from edgec.operators.integer import INT32_MAX
from edgec.operators.record import TensorType

_TAPS = (3, 3)
_CHANNELS = 4
_PIXEL_BYTES = 32
_LANE_MAX = 2**15 - 1
_NARROW = 2
"""An image so many times higher than wide is taken column by column: a short slide pays its beginning too often."""


@dataclass(frozen=True)
class _Axis:
    """The words of an `edgec_window_axis`."""

    size: int
    outputs: int
    stride: int
    dilation: int
    before: int
    x_step: int
    y_step: int

    @property
    def words(self) -> tuple[int, ...]:
        return (self.size, self.outputs, self.stride, self.dilation, self.before, self.x_step, self.y_step)

    @property
    def slides(self) -> bool:
        """Whether neighbouring taps are neighbouring pixels, and windows one or two apart."""
        return self.dilation == 1 and self.stride <= 2


@hand_kernel
class Depthwise3x3S8Dsp(HandKernel):
    """depthwise_conv2d_s8 of 3x3 taps, as many outputs as channels; narrow requantization."""

    name = "depthwise_3x3_s8_dsp"
    op = "depthwise_conv2d_s8"
    needs = frozenset({"dsp"})
    function = "edgec_depthwise_3x3_s8_dsp"
    sources = ("conv/depthwise_3x3_s8_dsp.c", "conv/depthwise_3x3_s8_dsp_blocks.S")

    def accepts(self, call: Call) -> str | None:
        """See the proof above."""
        channels, w, mult, shift = call.types["x"].shape[2], *(call.constants[n] for n in ("w", "mult", "shift"))
        if call.attrs.get("wide", 0):
            return "wide requantization"
        if w.shape[:2] != _TAPS:
            return f"{w.shape[0]}x{w.shape[1]} taps; 3x3"
        if w.shape[2] != channels or channels < _CHANNELS:
            return f"{channels} channels and {w.shape[2]} outputs; as many of both, at least {_CHANNELS}"
        if not _slide(call).slides:
            return "taps apart, or windows more than two pixels apart, in rows and columns"
        if _slide(call).y_step > _LANE_MAX:
            return f"outputs {_slide(call).y_step} bytes apart, at most {_LANE_MAX}"
        if ((mult < 0) | (mult >= 2**30)).any():
            return "a multiplier that is not in [0, 2^30)"
        magnitudes = np.abs(w.astype(np.int64))
        if ((magnitudes.max(axis=(0, 1)) << shift.astype(np.int64)) > _LANE_MAX).any():
            return "a shift that leads a weight out of 16 bits"
        reach = np.abs(call.constants["bias"].astype(np.int64)) + 128 * magnitudes.sum(axis=(0, 1))
        return "an accumulator could leave 32 bits" if (reach << shift.astype(np.int64)).max() > INT32_MAX else None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """A record of seven words for each channel, and the geometry."""
        constants, shift = call.constants, call.constants["shift"].astype(np.int64)
        taps = constants["w"].astype(np.int64) << shift
        if _slides_down(call):
            taps = taps.transpose(1, 0, 2)
        lanes = [*((taps[0, k], taps[1, k]) for k in range(3)), (taps[2, 0], taps[2, 1])]
        lanes.append((taps[2, 2], np.full_like(shift, _slide(call).y_step)))
        words = [(low & 0xFFFF) | (high & 0xFFFF) << 16 for low, high in lanes]
        words += [constants["bias"].astype(np.int64) << shift, 2 * constants["mult"].astype(np.int64)]
        records = np.stack(words, axis=1) & 0xFFFFFFFF
        layout = "[channels]: taps (00, 10), (01, 11), (02, 12), (20, 21), (22, step), bias, 2*mult"
        return Packed("records", records.astype(np.uint32), layout), _geometry(call)

    def overlap_block_rows(self, call: Call) -> int | None:
        """Two rows of outputs; nothing where lines are columns."""
        return None if _slides_down(call) else 2 * _output(call).shape[1]

    def overlap_reads_late(self, call: Call) -> bool:
        """Channels of both rows go four at a time."""
        return True

    def scratch_bytes(self, call: Call) -> int:
        """One line of pixels of four channels."""
        slide = _slide(call)
        return _PIXEL_BYTES * ((slide.outputs - 1) * slide.stride + 3)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "records", "geometry", "y", "first_row", "rows", "scratch")


def _output(call: Call) -> TensorType:
    operator = get_operator(Depthwise3x3S8Dsp.op)
    return operator.infer(tuple(call.types[name] for name in operator.inputs), **call.attrs)


def _axes(call: Call) -> tuple[_Axis, _Axis]:
    """Down the rows, along a row."""
    (height, width, channels), (rows, columns, _) = call.types["x"].shape, _output(call).shape
    strides, dilations, pads = (call.attrs[name] for name in ("strides", "dilations", "pads"))
    return (
        _Axis(height, rows, strides[0], dilations[0], pads[0], width * channels, columns * channels),
        _Axis(width, columns, strides[1], dilations[1], pads[1], channels, channels),
    )


def _slides_down(call: Call) -> bool:
    down, along = _axes(call)
    if not along.slides or down.stride != along.stride:
        return down.slides and down.y_step <= _LANE_MAX and (not along.slides or down.stride < along.stride)
    return down.slides and down.y_step <= _LANE_MAX and down.outputs >= _NARROW * along.outputs


def _slide(call: Call) -> _Axis:
    return _axes(call)[0 if _slides_down(call) else 1]


def _geometry(call: Call) -> Packed:
    """The words of an `edgec_depthwise_geometry`."""
    down, along = _axes(call)
    slides_down, params = _slides_down(call), call.constants["params"]
    slide, cross = (down, along) if slides_down else (along, down)
    words = [*slide.words, *cross.words, int(slides_down), call.types["x"].shape[2], int(params[0]), int(params[1])]
    return Packed("geometry", np.array(words, np.int32), "edgec_depthwise_geometry")
