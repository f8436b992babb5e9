# SPDX-License-Identifier: Apache-2.0
"""The border between integers and float32 on cores with DSP instructions; four at a time with the FPU for it."""

from __future__ import annotations

import numpy as np

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel


class _Border(HandKernel):
    """Element by element, integers of one or two bytes, those of two without a zero point."""

    needs = frozenset({"dsp"})
    width: str
    """Attribute that holds the bits of the integers."""

    def accepts(self, call: Call) -> str | None:
        """See the summary."""
        zero_point = _zero_point(call)
        return f"int16 with zero point {zero_point}" if call.attrs[self.width] == 16 and zero_point else None

    def overlap_block_rows(self, call: Call) -> int | None:
        """Element by element."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "words", "y", call.types["x"].shape[0], int(call.attrs[self.width]) // 8)


@hand_kernel
class QuantizeF32Dsp(_Border):
    """quantize_f32 of any length."""

    name = "quantize_f32_dsp"
    op = "quantize_f32"
    function = "edgec_quantize_f32_dsp"
    sources = ("elementwise/quantize_f32_dsp.c",)
    width = "y"

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The zero point is added to integers."""
        words = [*call.constants["params"][:3].view(np.int32), _zero_point(call)]
        return (Packed("words", np.array(words, np.int32), "bits of scale, low and high; zero point"),)


@hand_kernel
class DequantizeF32Dsp(_Border):
    """dequantize_f32 of any length."""

    name = "dequantize_f32_dsp"
    op = "dequantize_f32"
    function = "edgec_dequantize_f32_dsp"
    sources = ("elementwise/dequantize_f32_dsp.c",)
    width = "x"

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The zero point is taken from integers."""
        words = [*call.constants["params"][:1].view(np.int32), _zero_point(call)]
        return (Packed("words", np.array(words, np.int32), "bits of the scale; zero point"),)


def _zero_point(call: Call) -> int:
    params = call.constants["params"]
    return int(params[1] if len(params) == 2 else params[3] - params[4])
