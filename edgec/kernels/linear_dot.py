# SPDX-License-Identifier: Apache-2.0
"""Dense layers with one output on cores with DSP instructions: a dot product, no panel and no column pairs.

SMLAD sums two products of 16-bit lanes modulo 2^32, so that sums may wrap on the way; a call whose accumulator could
leave 32 bits in the end is declined.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators.integer import INT8_MAX, INT8_MIN, INT32_MAX, INT32_MIN, Int8

_GROUP = 4
"""K is filled up with zeros to a multiple of this: one word of int8 activations."""


def pack_lanes(w: Int8) -> npt.NDArray[np.uint32]:
    """Weights int8 [K] as words uint32 [2*ceil(K/4)]: lanes k = 4g and 4g+2, then 4g+1 and 4g+3, as SXTB16 takes x."""
    lanes = np.zeros(-(-len(w) // _GROUP) * _GROUP, np.int64)
    lanes[: len(w)] = w
    groups = (lanes & 0xFFFF).reshape(-1, _GROUP)
    return (groups[:, :2] | groups[:, 2:] << 16).astype(np.uint32).reshape(-1)


@hand_kernel
class LinearS8DotDsp(HandKernel):
    """linear_s8 with N = 1, narrow requantization."""

    name = "linear_s8_dot_dsp"
    op = "linear_s8"
    needs = frozenset({"dsp"})
    function = "edgec_linear_s8_dot_dsp"
    sources = ("linear/linear_s8_dot_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """One column whose accumulator stays in 32 bits."""
        w, bias, mult = (call.constants[name] for name in ("w", "bias", "mult"))
        if len(w) != 1:
            return f"{len(w)} outputs"
        if call.attrs.get("wide", 0):
            return "wide requantization"
        if not 0 <= int(mult[0]) < 2**30:
            return "a multiplier that is not in [0, 2^30)"
        ends = np.multiply.outer([INT8_MIN, INT8_MAX], w[0].astype(np.int64))
        low, high = (int(e.sum()) + int(bias[0]) for e in (ends.min(axis=0), ends.max(axis=0)))
        return None if low >= INT32_MIN and high <= INT32_MAX else "the accumulator could leave 32 bits"

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Weights as 16-bit lanes, and how the sum is requantized."""
        w, bias, mult, shift = (call.constants[name] for name in ("w", "bias", "mult", "shift"))
        record = np.array([int(bias[0]), 2 * int(mult[0]), int(shift[0])], np.int32)
        return (
            Packed("weights", pack_lanes(w[0]), "[k/4]: lanes of k = 4g, 4g + 2, then of 4g + 1, 4g + 3"),
            Packed("requantize", record, "bias, 2*mult, shift"),
        )

    def overlap_block_rows(self, call: Call) -> int | None:
        """A row is summed whole before its byte is written."""
        return 1

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        m, k = call.types["x"].shape
        return ("x", "weights", "requantize", "y", m, k, int(call.constants["params"][0]))
