# SPDX-License-Identifier: Apache-2.0
"""Products with int16 operands or results on cores with DSP instructions; how they round is in `int16`."""

from __future__ import annotations

import numpy as np

from edgec.kernels.elementwise import pair_steps
from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators.integer import INT32_MAX


@hand_kernel
class MulS16Dsp(HandKernel):
    """mul_s16 of any widths and shapes."""

    name = "mul_s16_dsp"
    op = "mul_s16"
    needs = frozenset({"dsp"})
    function = "edgec_mul_s16_dsp"
    sources = ("elementwise/mul_s16_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """Products of 32 bits, doublings included, and what `mul_params` makes of them."""
        za, zb, mult, shift, zero_point = (int(v) for v in call.constants["params"])
        if abs(mult) > 2**30 or not 1 <= shift <= 60 or not -128 <= zero_point <= 127:
            return f"multiplier {mult}, shift {shift}, zero point {zero_point}"
        up = _doublings(shift)
        largest = [
            max(abs(-(2 ** (call.attrs[n] - 1)) - z), 2 ** (call.attrs[n] - 1) - 1 - z)
            for n, z in zip("ab", (za, zb), strict=True)
        ]
        if largest[0] * largest[1] << up > INT32_MAX:
            return f"zero points {za} and {zb}, a product doubled {up} times"
        # A result must fit 32 bits with the zero point.
        reach = (largest[0] * largest[1] << up) * abs(mult) >> 32
        down = shift - 32 + up
        return None if reach + (1 << down) * (abs(zero_point) + 1) <= INT32_MAX else "a result could leave 32 bits"

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """See the module."""
        za, zb, mult, shift, zero_point = (int(v) for v in call.constants["params"])
        if _swapped(call):
            za, zb = zb, za
        up = _doublings(shift)
        down = shift - 32 + up
        low, high = -(2 ** (call.attrs["y"] - 1)), 2 ** (call.attrs["y"] - 1) - 1
        a, b = (call.attrs[n] for n in ("ba" if _swapped(call) else "ab"))
        # Lanes of words: an int16 comes first and has no zero point, and what is doubled is small.
        plain = a >= b and all(bits == 8 or zero == 0 for bits, zero in ((a, za), (b, zb)))
        by_fours = int(plain and call.attrs["y"] == 16 and (up == 0 or a == b == 8))
        words = [mult, -za, -zb, up, (1 << (down - 1)) + (zero_point << down), down, low, high, by_fours]
        return (
            Packed("constants", np.array(words, np.int32), "mult, bases, doublings, addend, shift, low, high, fours"),
        )

    def overlap_block_rows(self, call: Call) -> int | None:
        """Element by element."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        a, b, y = (call.attrs[name] // 8 for name in ("a", "b", "y"))
        rows, width, row_step, step = pair_steps(call)
        left, right = "a", "b"
        if _swapped(call):
            left, right, a, b = right, left, b, a
        return (left, right, "constants", "y", rows, width, row_step * b, step * b, a | b << 2 | y << 4)


def _doublings(shift: int) -> int:
    return max(0, 33 - shift)


def _swapped(call: Call) -> bool:
    """Whether the int16 operand of two of one shape is put first: a gate times a cell state."""
    return call.types["a"].shape == call.types["b"].shape and call.attrs["a"] < call.attrs["b"]
