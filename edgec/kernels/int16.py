# SPDX-License-Identifier: Apache-2.0
"""Operators with int16 activations on cores with DSP instructions.

**No sum of 64 bits is shifted.** With `up` doublings of the operands and `down = shift - 32 + up >= 1`,
`(v * mult + 2^(shift-1)) >> shift = (upper word of (v << up) * mult + 2^(down-1)) >> down`: what rounds is a multiple
of 2^32, and floors compose. The same for the sum of two products, whose lower words must be added first.
"""

from __future__ import annotations

import math

import numpy as np

from edgec.kernels.elementwise import pair_steps
from edgec.kernels.movement import ConcatS8Dsp
from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators.integer import INT32_MAX
from edgec.operators.layer_norm import leading_bits

_MOST_DOUBLINGS = 14
"""A factor of 16 bits."""
_HALF_WORD = 16
"""Doublings that bring an int16 to the upper half of a word."""


class _Wide(HandKernel):
    needs = frozenset({"dsp"})

    def overlap_block_rows(self, call: Call) -> int | None:
        """Element by element; of a norm once a row is summed."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0


def _ends(bits: int) -> tuple[int, int]:
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _doubled(bits: int, zero_point: int, up: int) -> bool:
    """Whether an operand fits 32 bits after so many doublings."""
    low, high = (value - zero_point << up for value in _ends(bits))
    return min(low, -zero_point << up) >= -INT32_MAX - 1 and max(high, -zero_point << up) <= INT32_MAX


@hand_kernel
class AddS16Dsp(_Wide):
    """add_s16 of any widths and shapes."""

    name = "add_s16_dsp"
    op = "add_s16"
    function = "edgec_add_s16_dsp"
    sources = ("elementwise/add_s16_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """Multipliers of 30 bits and what `add_params` makes of them."""
        za, zb, a_mult, b_mult, shift, zero_point = (int(v) for v in call.constants["params"])
        if max(abs(a_mult), abs(b_mult)) > 2**30 or not 17 <= shift <= 46 or not -128 <= zero_point <= 127:
            return f"multipliers {a_mult} and {b_mult}, shift {shift}, zero point {zero_point}"
        up = self._doublings(call)
        fits = _doubled(call.attrs["a"], za, up) and _doubled(call.attrs["b"], zb, up)
        return None if fits else f"zero points {za} and {zb}, operands doubled {up} times"

    def _doublings(self, call: Call) -> int:
        za, zb, *_, shift, zero_point = (int(v) for v in call.constants["params"])
        by_halves = call.attrs["a"] == call.attrs["y"] == 16 and za == zero_point == 0
        if by_halves and (call.attrs["b"] == 8 or zb == 0):
            return _HALF_WORD
        return max(0, 33 - shift)

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """See the module."""
        za, zb, a_mult, b_mult, shift, zero_point = (int(v) for v in call.constants["params"])
        up = self._doublings(call)
        down = shift - 32 + up
        addend = (1 << (down - 1)) + (zero_point << down)
        words = [a_mult, b_mult, 1 << up, 1 << up, -za << up, -zb << up, addend, down, *_ends(call.attrs["y"])]
        return (Packed("constants", np.array(words, np.int32), "multipliers, steps, bases, addend, shift, low, high"),)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        a, b, y = (call.attrs[name] // 8 for name in ("a", "b", "y"))
        rows, width, row_step, step = pair_steps(call)
        return ("a", "b", "constants", "y", rows, width, row_step * b, step * b, a | b << 2 | y << 4)


@hand_kernel
class RequantizeS16Dsp(_Wide):
    """requantize_s16 of any widths."""

    name = "requantize_s16_dsp"
    op = "requantize_s16"
    function = "edgec_requantize_s16_dsp"
    sources = ("elementwise/requantize_s16_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """A multiplier of 30 bits and what `requantize_params` makes of it."""
        zx, mult, shift, zero_point, low, high = (int(v) for v in call.constants["params"])
        if abs(mult) > 2**30 or not 17 <= shift <= 46 or not -128 <= zero_point <= 127:
            return f"multiplier {mult}, shift {shift}, zero point {zero_point}"
        if not _ends(call.attrs["y"])[0] <= low <= high <= _ends(call.attrs["y"])[1]:
            return f"limits {low} and {high}"
        up = max(0, 33 - shift)
        fits = up <= _MOST_DOUBLINGS and _doubled(call.attrs["x"], zx, up)
        return None if fits else f"zero point {zx}, operand doubled {up} times"

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """See the module."""
        zx, mult, shift, zero_point, low, high = (int(v) for v in call.constants["params"])
        up = max(0, 33 - shift)
        down = shift - 32 + up
        words = [1 << up, -zx << up, mult, (1 << (down - 1)) + (zero_point << down), down, low, high]
        return (Packed("constants", np.array(words, np.int32), "step, base, multiplier, addend, shift, low, high"),)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "constants", "y", call.types["x"].shape[0], call.attrs["x"] // 8, call.attrs["y"] // 8)


@hand_kernel
class LayerNormS16Dsp(_Wide):
    """layer_norm_s16 of any rows."""

    name = "layer_norm_s16_dsp"
    op = "layer_norm_s16"
    function = "edgec_layer_norm_s16_dsp"
    sources = ("norm/layer_norm_s16_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """What the lowering makes: n and the output before its shift in 32 bits."""
        width = call.types["x"].shape[1]
        low, high, point, shift = (int(v) for v in call.constants["params"])
        if point != leading_bits(width) - 2 or not 0 <= shift < 32:
            return f"point {point} is not that of {width} elements, or shift {shift}"
        if low < 0 or not 0 < low + (high << 31) < 2**58:
            return "an epsilon of no or of more than 58 bits"
        gain, offset = (np.abs(call.constants[name].astype(np.int64)) for name in ("gain", "offset"))
        largest = math.isqrt(width << 2 * point) + 2
        return "an output could leave 32 bits" if (gain * largest + offset).max() > INT32_MAX else None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Gain and offset side by side."""
        affine = np.stack([call.constants["gain"], call.constants["offset"]], axis=1).astype(np.int32)
        return (
            Packed("affine", affine, "[width]: gain, offset"),
            Packed("constants", call.constants["params"], "epsilon in two words, point, shift"),
        )

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "affine", "constants", "y", *call.types["x"].shape)


@hand_kernel
class MeanS16Dsp(_Wide):
    """mean_s16 of any axis, narrow or wide."""

    name = "mean_s16_dsp"
    op = "mean_s16"
    function = "edgec_mean_s16_dsp"
    sources = ("reduce/mean_s16_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """Sums of 32 bits and the multipliers that the requantization knows."""
        zx, mult, shift, zero_point = (int(v) for v in call.constants["params"])
        wide, largest = call.attrs.get("wide", 0), call.types["x"].shape[1] * (2**15 + abs(zx))
        if largest > INT32_MAX or not -128 <= zero_point <= 127:
            return f"zero points {zx} and {zero_point}"
        if not (0 <= mult <= (INT32_MAX if wide else 2**30 - 1) and 0 <= shift <= 31):
            return f"multiplier {mult}, shift {shift}"
        # A wide result must fit 32 bits before the zero point is added.
        return "a result could leave 32 bits" if wide and largest * mult >> (31 + shift) >= 2**30 else None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The zero point of x times the number of terms is what a sum begins with."""
        zx, mult, shift, zero_point = (int(v) for v in call.constants["params"])
        words = [-zx * call.types["x"].shape[1], mult, shift, zero_point, int(bool(call.attrs.get("wide", 0)))]
        return (Packed("constants", np.array(words, np.int32), "-terms * zero point, mult, shift, zero point, wide"),)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "constants", "y", *call.types["x"].shape)


@hand_kernel
class ConcatS16Dsp(ConcatS8Dsp):
    """concat_s16 of any rows."""

    name = "concat_s16_dsp"
    op = "concat_s16"
