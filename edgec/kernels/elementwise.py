# SPDX-License-Identifier: Apache-2.0
"""Tables, sums and products on cores with DSP instructions; all of them in place where the operator may be."""

from __future__ import annotations

import numpy as np

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators.integer import INT32_MAX

_FAST_SHIFT = 14
"""EDGEC_ADD_SHIFT of edgec_kernels.h: the shift of a sum whose larger ratio of scales is above 1/2 and at most 1."""


@hand_kernel
class TableS8Dsp(HandKernel):
    """table_s8 of any length."""

    name = "table_s8_dsp"
    op = "table_s8"
    needs = frozenset({"dsp"})
    function = "edgec_table_s8_dsp"
    sources = ("elementwise/table_s8_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """Any call."""
        return None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The table in the order of x as an unsigned byte."""
        entries = np.roll(call.constants["table"], 128)
        return (
            Packed("entries", np.ascontiguousarray(entries).view(np.uint32), "[256] bytes: x = 0 .. 127, -128 .. -1"),
        )

    def overlap_block_rows(self, call: Call) -> int | None:
        """Element by element."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "entries", "y", call.types["x"].shape[0])


@hand_kernel
class AddS8Dsp(HandKernel):
    """add_s8 of any shapes that broadcast."""

    name = "add_s8_dsp"
    op = "add_s8"
    needs = frozenset({"dsp"})
    function = "edgec_add_s8_dsp"
    sources = ("elementwise/add_s8_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """Multipliers of 16 bits and sums of 32, as the lowering makes them."""
        a_mult, b_mult, offset, shift = (int(v) for v in call.constants["params"])
        if not (-(2**15) <= a_mult < 2**15 and -(2**15) <= b_mult < 2**15):
            return f"multipliers {a_mult} and {b_mult} of more than 16 bits"
        if not 0 < shift < 32 or 128 * (abs(a_mult) + abs(b_mult)) + abs(offset) > INT32_MAX:
            return "a sum could leave 32 bits"
        return None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Multipliers in lanes; where 16 bits allow it, everything is doubled until the shift is the fast one."""
        a_mult, b_mult, offset, shift = (int(v) for v in call.constants["params"])
        up = _FAST_SHIFT - shift
        if up > 0 and max(abs(a_mult), abs(b_mult)) << up < 2**15 and (abs(offset) + 2**23) << up <= INT32_MAX:
            a_mult, b_mult, offset, shift = a_mult << up, b_mult << up, offset << up, shift + up
        words = np.array([a_mult & 0xFFFF | (b_mult & 0xFFFF) << 16, offset & 0xFFFFFFFF, shift], np.uint32)
        return (Packed("constants", words.view(np.int32), "multipliers, offset, shift"),)

    def overlap_block_rows(self, call: Call) -> int | None:
        """Element by element."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("a", "b", "constants", "y", *pair_steps(call))


@hand_kernel
class MulS8Dsp(AddS8Dsp):
    """mul_s8 of any shapes that broadcast; narrow requantization of a ratio below 1/2."""

    name = "mul_s8_dsp"
    op = "mul_s8"
    function = "edgec_mul_s8_dsp"
    sources = ("elementwise/mul_s8_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """One SMMLAR an element: no shift."""
        za, zb, mult, shift, zero_point = (int(v) for v in call.constants["params"])
        if call.attrs.get("wide", 0):
            return "wide requantization"
        if shift or not 0 <= mult < 2**30:
            return f"multiplier {mult}, shift {shift}"
        return None if all(-128 <= z <= 127 for z in (za, zb, zero_point)) else "a zero point of more than 8 bits"

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The multiplier doubled, as SMMLAR wants it."""
        za, zb, mult, _, zero_point = (int(v) for v in call.constants["params"])
        return (Packed("constants", np.array([za, zb, 2 * mult, zero_point], np.int32), "zero points, 2*mult, of y"),)


def pair_steps(call: Call) -> tuple[int, int, int, int]:
    """(rows, width, distance of rows of b, distance of its elements) of a [O, N] and b [O or 1, N or 1].

    Rows are joined to one where b has the same shape, or a single element.
    """
    (rows, width), (b_rows, b_width) = call.types["a"].shape, call.types["b"].shape
    if (b_rows, b_width) == (rows, width):
        return 1, rows * width, 0, 1
    if (b_rows, b_width) == (1, 1):
        return 1, rows * width, 0, 0
    return rows, width, b_width if b_rows > 1 else 0, int(b_width > 1)
