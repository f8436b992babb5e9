# SPDX-License-Identifier: Apache-2.0
"""Sums along an axis on cores with DSP instructions."""

from __future__ import annotations

import numpy as np

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators.integer import INT32_MAX


@hand_kernel
class MeanS8Dsp(HandKernel):
    """mean_s8 of any axis, narrow or wide."""

    name = "mean_s8_dsp"
    op = "mean_s8"
    needs = frozenset({"dsp"})
    function = "edgec_mean_s8_dsp"
    sources = ("reduce/mean_s8_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """Zero points of 8 bits and the multipliers that the requantization knows."""
        zx, mult, shift, zero_point = (int(v) for v in call.constants["params"])
        if not (-128 <= zx <= 127 and -128 <= zero_point <= 127):
            return "a zero point of more than 8 bits"
        wide = call.attrs.get("wide", 0)
        if not (0 <= mult <= (INT32_MAX if wide else 2**30 - 1) and 0 <= shift <= 31):
            return f"multiplier {mult}, shift {shift}"
        # A wide result must fit 32 bits before the zero point is added.
        largest = 255 * call.types["x"].shape[1] * mult
        return "a result could leave 32 bits" if wide and largest >> (31 + shift) >= 2**30 else None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The zero point of x times the number of terms is what a sum begins with."""
        zx, mult, shift, zero_point = (int(v) for v in call.constants["params"])
        words = [-zx * call.types["x"].shape[1], mult, shift, zero_point, int(bool(call.attrs.get("wide", 0)))]
        return (Packed("constants", np.array(words, np.int32), "-terms * zero point, mult, shift, zero point, wide"),)

    def overlap_block_rows(self, call: Call) -> int | None:
        """Element by element."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "constants", "y", *call.types["x"].shape)
