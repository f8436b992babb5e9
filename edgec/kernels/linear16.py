# SPDX-License-Identifier: Apache-2.0
"""Dense layers of int16 on cores with DSP instructions: SMLALD adds two products to a sum of 64 bits.

SMLALD costs what SMLAD costs, so there is no form with sums of 32 bits. Columns are taken in pairs: two sums of two
words, four words of x and four of weights fill the registers, and a group of eight k takes three LDM and eight SMLALD.

**The product with the multiplier is never shifted as 64 bits.** With `down = shift - 32 >= 1`,
`(acc * mult + 2^(shift-1)) >> shift = (upper word of acc * mult + 2^(down-1)) >> down`: what rounds is a multiple of
2^32, and floors compose. A multiplier with a smaller shift is doubled until that holds, where 64 bits allow it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators.linear16 import largest_sum, reach_of
from edgec.operators.record import Array

_GROUP = 8
"""K is filled up with zeros to a multiple of this."""
_LEAST_SHIFT = 33
_UNSIGNED = 2**32


def pack_columns(w: Array) -> npt.NDArray[np.uint32]:
    """Weights int16 [N, K] as words [ceil(N/2)][ceil(K/8)][8]: {even 01, even 23, odd 01, odd 23}, then k 4 to 7."""
    n, k = w.shape
    pairs, groups = -(-n // 2), -(-k // _GROUP)
    filled = np.zeros((2 * pairs, _GROUP * groups), np.int16)
    filled[:n, :k] = w
    words = np.ascontiguousarray(filled).view("<u4").reshape(pairs, 2, groups, 2, 2)
    return np.ascontiguousarray(words.transpose(0, 2, 3, 1, 4)).astype(np.uint32).reshape(-1)


@hand_kernel
class LinearS16Dsp(HandKernel):
    """linear_s16 of any shape, to int16 or int8."""

    name = "linear_s16_dsp"
    op = "linear_s16"
    needs = frozenset({"dsp"})
    function = "edgec_linear_s16_dsp"
    sources = (
        "linear/linear_s16_dsp.c",
        "linear/linear_s16_dsp_pairs.S",
        "linear/linear_s16_dsp_pairs.c",
    )

    def accepts(self, call: Call) -> str | None:
        """Sums and their products with the multipliers in 64 bits, as the lowering proves them."""
        zero_point = int(call.constants["params"][0])
        reaches = reach_of(call.constants["w"], call.constants["bias"])
        for reach, (mult, shift) in zip(reaches, self._multipliers(call), strict=True):
            if not 0 <= mult < _UNSIGNED or shift >= 63:
                return f"multiplier {mult}, shift {shift}"
            if largest_sum(reach, mult, shift, zero_point) >= 2**63:
                return "a sum times its multiplier could leave 64 bits"
        return None

    def _multipliers(self, call: Call) -> list[tuple[int, int]]:
        """(mult, shift) of every column, doubled until the shift is one that the kernel has."""
        pairs = zip(call.constants["mult"], call.constants["shift"], strict=True)
        ups = [(int(m), int(s), max(0, _LEAST_SHIFT - int(s))) for m, s in pairs]
        return [(mult << up, shift + up) for mult, shift, up in ups]

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Weights in pairs of columns, and a record for each pair."""
        zero_point = int(call.constants["params"][0])
        rows = []
        for bias, (mult, shift) in zip(call.constants["bias"], self._multipliers(call), strict=True):
            down = shift - 32
            words = np.array([mult, (1 << (down - 1)) + (zero_point << down), down], np.int64)
            low_high = np.array([int(bias) & 0xFFFFFFFF, int(bias) >> 32], np.int64)
            rows.append((low_high, words))
        if len(rows) % 2:
            rows.append((np.zeros(2, np.int64), np.array([0, 0, 1], np.int64)))
        records = [np.concatenate([e[0], o[0], e[1], o[1]]) for e, o in zip(rows[::2], rows[1::2], strict=True)]
        flat = (np.concatenate(records) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
        return (
            Packed("weights", pack_columns(call.constants["w"]), "[pairs of columns][k/8][8 words]"),
            Packed("records", flat, "[pairs]: bias even and odd (low, high), then mult, addend, down of each"),
        )

    def overlap_block_rows(self, call: Call) -> int | None:
        """A row is copied whole before the first of its results is written."""
        return 1

    def scratch_bytes(self, call: Call) -> int:
        """A row in words."""
        return 2 * _GROUP * -(-call.types["x"].shape[1] // _GROUP)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        m, k = call.types["x"].shape
        n = call.types["w"].shape[0]
        return ("x", "weights", "records", "y", m, k, n, call.attrs["y"] // 8, "scratch")
