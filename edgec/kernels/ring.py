# SPDX-License-Identifier: Apache-2.0
"""Causal convolutions over rings on cores with DSP instructions: dense layers of one row, and pixels."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgec.kernels.conv import DepthwiseConv2dS8Dsp
from edgec.kernels.linear import LinearS8Dsp
from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators.record import TensorType

_LINEAR, _DEPTHWISE = LinearS8Dsp(), DepthwiseConv2dS8Dsp()
_RUN = "movement/copy_run.c"


class _Rows(HandKernel):
    """Rows copied as runs of bytes, whatever their elements are."""

    needs = frozenset()

    def accepts(self, call: Call) -> str | None:
        """Any call."""
        return None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Nothing."""
        return ()

    def overlap_block_rows(self, call: Call) -> int | None:
        """Row by row, in order."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0


@hand_kernel
class RingWriteS8Dsp(_Rows):
    """ring_write_s8 of any ring: the price does not grow with it."""

    name = "ring_write_s8_dsp"
    op = "ring_write_s8"
    function = "edgec_ring_write_s8_dsp"
    sources = ("ring/ring_write_s8_dsp.c", _RUN)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("ring", "x", "cursor", "y", *_bytes(call.types["ring"]))


@hand_kernel
class RingWriteS16Dsp(RingWriteS8Dsp):
    """ring_write_s16 of any ring."""

    name = "ring_write_s16_dsp"
    op = "ring_write_s16"


@hand_kernel
class RingReadS8Dsp(_Rows):
    """ring_read_s8 of any ring."""

    name = "ring_read_s8_dsp"
    op = "ring_read_s8"
    function = "edgec_ring_read_s8_dsp"
    sources = ("ring/ring_read_s8_dsp.c", _RUN)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("ring", "cursor", "y", *_bytes(call.types["ring"]), int(call.attrs["rows"]))


@hand_kernel
class RingReadS16Dsp(RingReadS8Dsp):
    """ring_read_s16 of any ring."""

    name = "ring_read_s16_dsp"
    op = "ring_read_s16"


@hand_kernel
class RingRotateS8Dsp(_Rows):
    """ring_rotate_s8 of any window."""

    name = "ring_rotate_s8_dsp"
    op = "ring_rotate_s8"
    function = "edgec_ring_rotate_s8_dsp"
    sources = ("ring/ring_read_s8_dsp.c", _RUN)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "cursor", "y", *_bytes(call.types["x"]))


@hand_kernel
class RingRotateS16Dsp(RingRotateS8Dsp):
    """ring_rotate_s16 of any window."""

    name = "ring_rotate_s16_dsp"
    op = "ring_rotate_s16"


@hand_kernel
class CausalConv1dS8Dsp(HandKernel):
    """causal_conv1d_s8 by linear_s8_dsp: its proof, its packing."""

    name = "causal_conv1d_s8_dsp"
    op = "causal_conv1d_s8"
    needs = LinearS8Dsp.needs
    function = "edgec_causal_conv1d_s8_dsp"
    sources = ("ring/causal_conv1d_s8_dsp.c", _RUN, *LinearS8Dsp.sources)

    def accepts(self, call: Call) -> str | None:
        """What the dense layer accepts."""
        return _LINEAR.accepts(_as_linear(call))

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Weights and requantization of the dense layer, and the geometry."""
        n, taps, _ = call.types["w"].shape
        return (*_LINEAR.pack(_as_linear(call)), _geometry(call, taps, n))

    def overlap_block_rows(self, call: Call) -> int | None:
        """All taps of a stream before its outputs."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """One row of the dense layer's panel, and in bytes where words would hold channels of two taps."""
        _, taps, channels = call.types["w"].shape
        groups = -(-taps * channels // 4)
        return 4 * groups * (2 if channels % 4 == 0 else 3)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("ring", "cursor", "weights", "requantize", "geometry", "y", "scratch")


@hand_kernel
class CausalDepthwiseS8Dsp(HandKernel):
    """causal_depthwise_s8 by the pixel of depthwise_conv2d_s8_dsp: its proof, its packing."""

    name = "causal_depthwise_s8_dsp"
    op = "causal_depthwise_s8"
    needs = DepthwiseConv2dS8Dsp.needs
    function = "edgec_causal_depthwise_s8_dsp"
    sources = ("ring/causal_depthwise_s8_dsp.c", "conv/depthwise_pixel_s8_dsp.c")

    def accepts(self, call: Call) -> str | None:
        """What the depthwise convolution accepts."""
        return _DEPTHWISE.accepts(_as_depthwise(call))

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Weights and requantization of the depthwise convolution, and the geometry."""
        taps, channels = call.types["w"].shape
        weights, requantize, _ = _DEPTHWISE.pack(_as_depthwise(call))
        return (weights, requantize, _geometry(call, taps, channels))

    def overlap_block_rows(self, call: Call) -> int | None:
        """Channel by channel."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("ring", "cursor", "weights", "requantize", "geometry", "y")


def _bytes(ring: TensorType) -> tuple[int, int, int]:
    """Streams, rows and bytes of a row."""
    streams, rows, channels = ring.shape
    return streams, rows, channels * np.dtype(ring.dtype).itemsize


def _geometry(call: Call, taps: int, outputs: int) -> Packed:
    """The words of an `edgec_ring_geometry`."""
    words = [
        *(*call.types["ring"].shape, taps, int(call.attrs.get("dilation", 1)), outputs),
        int(call.constants["params"][0]),
    ]
    return Packed("geometry", np.array(words, np.int32), "edgec_ring_geometry")


def _as_linear(call: Call) -> Call:
    """The dense layer whose row is the taps of a stream."""
    w = call.constants["w"]
    flat = w.reshape(len(w), -1)
    types = {**call.types, "x": TensorType((1, flat.shape[1]), "int8"), "w": TensorType.of(flat)}
    return dataclasses.replace(
        call, types=types, constants={**call.constants, "w": flat}, attrs={"wide": call.attrs.get("wide", 0)}
    )


def _as_depthwise(call: Call) -> Call:
    """The convolution whose only window is the taps of a stream."""
    taps, channels = call.types["w"].shape
    w, params = call.constants["w"][:, None], np.array([0, *call.constants["params"]], np.int32)
    types = {**call.types, "x": TensorType((taps, 1, channels), "int8"), "w": TensorType.of(w)}
    attrs = {"strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "wide": call.attrs.get("wide", 0)}
    return dataclasses.replace(call, types=types, constants={**call.constants, "w": w, "params": params}, attrs=attrs)
