# SPDX-License-Identifier: Apache-2.0
"""Products of two activations, softmax and attention on cores with DSP instructions.

**Column pairs at run time.** As in a dense layer (edgec/kernels/linear.py) two columns of the right operand share a
16-bit lane, but b is known only at run time and may hold -128 anywhere. A packed lane is therefore
`256*b_odd + (b_even + 128)`: its low byte is in [0, 255], so it holds its number whatever both are. With the row's sum
`A = sum_k a`, `P0 = sum_k a*b_even` and `P1 = sum_k a*b_odd`:

1. SMLAD on the raw lanes sums `256*P1 + P0 + 128*A`, on their low bytes (UXTB16) `P0 + 128*A`. Both begin at `-128*A`
   and end at `256*P1 + P0` and `P0`. Lane products stay below 2^24, sums wrap modulo 2^32.
2. The difference is `256*P1` modulo 2^32, and its arithmetic shift by 8 is P1 if and only if `-2^23 <= P1 < 2^23`. With
   `|a - za| <= reach` and any int8 b, `|P1| <= K * reach * 128`, so `K * reach * 128 < 2^23` is the proof: K <= 511 for
   a without a zero point, K <= 257 for any. Probabilities add up to little: with `p = (E*R + 2^31) >> 32` and
   `R <= 2^40 / sum E`, `sum p <= 256 + N/2`, so attention may have as many keys as a softmax has elements.

**Softmax.** `(E*R + 2^31) >> 32` is one SMMLAR, and R = floor(2^40 / sum) takes two 32-bit divisions. `sat8` is only
needed where a row has one exponential of 65535 and the others are 128 at most together; a smaller R rounds all of these
to the same results (runtime/kernels/attention/softmax_row.h). This wants `table[0] = 65535`, as `exponentials` gives.
"""

from __future__ import annotations

import numpy as np

from edgec.kernels.registry import Call, HandKernel, Packed, Prepared, hand_kernel
from edgec.operators.record import Array

_PAIR_SUM_LIMIT = 2**23
_PANEL_ROWS = 4
"""EDGEC_PANEL_ROWS of pairs.h."""
_FOLDER = "attention"
_PAIRS = tuple(
    f"{_FOLDER}/{name}"
    for name in (
        "pairs_blocks.S",
        "pairs_blocks.c",
        "pairs_panel_row.c",
        "pairs_multiply.c",
        "pack_pairs_rows_s8.c",
        "pack_pairs_columns_s8.c",
    )
)


def product_reason(params: Array, most: int, role: str = "params") -> str | None:
    """Why a product with these parameters of `matmul_s8` cannot be computed by column pairs, or None.

    `most` is the largest sum of `|a - za|` over the terms of one result.
    """
    _, zb, mult, shift, _ = (int(v) for v in params)
    if zb:
        return f"{role}: the right operand has zero point {zb}"
    if shift or not 0 <= mult < 2**30:
        return f"{role}: a ratio of a half or more"
    if most * 128 >= _PAIR_SUM_LIMIT:
        return f"{role}: a sum of products up to {most} * 128 could leave 24 bits"
    return None


def _reach(params: Array, k: int) -> int:
    """The largest sum of `|a - za|` over k terms."""
    za = int(params[0])
    return k * max(127 - za, za + 128)


def pack_rows(role: str, batches: int, rows: int, heads: int, k: int) -> Prepared:
    """How an operand [rows][heads][k] is packed of which rows become columns."""
    size = batches * -(-rows // 2) * heads * -(-k // 4) * 8
    in_place = k % 4 == 0 and (batches == 1 or rows % 2 == 0)
    arguments = (role, batches, rows, heads, k, "y", "scratch")
    return Prepared(role, "edgec_pack_pairs_rows_s8", size, arguments, in_place, _words(2 * heads * k))


def pack_columns(role: str, batches: int, k: int, heads: int, columns: int) -> Prepared:
    """How an operand [k][heads][columns] is packed."""
    size = batches * -(-k // 4) * heads * -(-columns // 2) * 8
    in_place = columns % 2 == 0 and (batches == 1 or k % 4 == 0)
    arguments = (role, batches, k, heads, columns, "y", "scratch")
    return Prepared(role, "edgec_pack_pairs_columns_s8", size, arguments, in_place, _words(4 * heads * columns))


def _words(size: int) -> int:
    return -(-size // 4) * 4


def _panel_bytes(k: int) -> int:
    """Four rows of 16-bit lanes."""
    return 32 * -(-k // 4)


@hand_kernel
class MatmulS8Dsp(HandKernel):
    """matmul_s8 by column pairs, narrow requantization."""

    name = "matmul_s8_dsp"
    op = "matmul_s8"
    needs = frozenset({"dsp"})
    function = "edgec_matmul_s8_dsp"
    sources = (f"{_FOLDER}/matmul_s8_dsp.c", *_PAIRS)

    def accepts(self, call: Call) -> str | None:
        """See the proof above."""
        if call.attrs.get("wide", 0):
            return "wide requantization"
        params = call.constants["params"]
        return product_reason(params, _reach(params, call.types["a"].shape[2]))

    def prepare(self, call: Call) -> tuple[Prepared, ...]:
        """b, as column pairs."""
        batches, _, k = call.types["a"].shape
        if call.attrs.get("transpose_b", 0):
            return (pack_rows("b", batches, call.types["b"].shape[1], 1, k),)
        return (pack_columns("b", batches, k, 1, call.types["b"].shape[2]),)

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """What the results are requantized with."""
        za, _, mult, _, zero_point = (int(v) for v in call.constants["params"])
        return (Packed("requantize", np.array([za, 2 * mult, zero_point], np.int32), "za, 2*mult, zero point"),)

    def overlap_block_rows(self, call: Call) -> int | None:
        """A panel of a is packed before it is multiplied; panels begin anew with each batch."""
        batches, m, _ = call.types["a"].shape
        return _PANEL_ROWS if batches == 1 or m % _PANEL_ROWS == 0 else 1

    def scratch_bytes(self, call: Call) -> int:
        """A panel."""
        return _panel_bytes(call.types["a"].shape[2])

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        (batches, m, k), transposed = call.types["a"].shape, call.attrs.get("transpose_b", 0)
        n = call.types["b"].shape[1 if transposed else 2]
        return ("a", "b", "requantize", "y", batches, m, k, n, transposed, "scratch")


@hand_kernel
class SoftmaxS8Dsp(HandKernel):
    """softmax_s8, a row in three passes."""

    name = "softmax_s8_dsp"
    op = "softmax_s8"
    needs = frozenset({"dsp"})
    function = "edgec_softmax_s8_dsp"
    sources = (f"{_FOLDER}/softmax_s8_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """Any shape; see the module about the table."""
        return table_reason(call)

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The table, so that it is indexed by the element."""
        return (reversed_table(call),)

    def overlap_block_rows(self, call: Call) -> int | None:
        """Element by element, once a row is summed."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "exponentials", "y", *call.types["x"].shape)


@hand_kernel
class MaskedSoftmaxS8Dsp(SoftmaxS8Dsp):
    """masked_softmax_s8, a row in three passes."""

    name = "masked_softmax_s8_dsp"
    op = "masked_softmax_s8"
    function = "edgec_masked_softmax_s8_dsp"
    sources = (f"{_FOLDER}/masked_softmax_s8_dsp.c",)

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The mask as bits to keep, and the table."""
        mask = np.where(call.constants["mask"] != 0, -1, 0).astype(np.int8)
        return (Packed("counted", mask, "[rows][n]: -1 where an element counts, else 0"), reversed_table(call))

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "counted", "exponentials", "y", *call.types["x"].shape, call.types["mask"].shape[0])


@hand_kernel
class AttentionS8Dsp(HandKernel):
    """attention_s8, four queries at a time."""

    name = "attention_s8_dsp"
    op = "attention_s8"
    needs = frozenset({"dsp"})
    function = "edgec_attention_s8_dsp"
    sources = (f"{_FOLDER}/attention_s8_dsp.c", *_PAIRS)

    def accepts(self, call: Call) -> str | None:
        """What both products and the softmax accept."""
        keys, _, depth = call.types["k"].shape
        score, mix = call.constants["score_params"], call.constants["mix_params"]
        if int(mix[0]) != -128:
            return f"mix_params: probabilities with zero point {int(mix[0])}"
        reasons = (
            product_reason(score, _reach(score, depth), "score_params"),
            product_reason(mix, 256 + keys // 2, "mix_params"),
            table_reason(call),
        )
        return next((reason for reason in reasons if reason), None)

    def prepare(self, call: Call) -> tuple[Prepared, ...]:
        """k and v, as column pairs."""
        k, v = call.types["k"].shape, call.types["v"].shape
        return (pack_rows("k", 1, *k), pack_columns("v", 1, *v))

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The words of an `edgec_attention_geometry`, and the table."""
        (keys, heads, depth), width = call.types["k"].shape, call.types["v"].shape[2]
        score, mix = call.constants["score_params"].astype(np.int64), call.constants["mix_params"].astype(np.int64)
        words = [heads, keys, depth, width, score[0], 2 * score[2], score[4], 2 * mix[2], mix[4]]
        return (
            Packed("geometry", np.array(words, np.int32), "edgec_attention_geometry"),
            reversed_table(call),
        )

    def overlap_block_rows(self, call: Call) -> int | None:
        """A panel of queries is packed before their outputs are written."""
        return _PANEL_ROWS

    def scratch_bytes(self, call: Call) -> int:
        """Panels of all heads of four queries with their sums, one of probabilities, four rows of scores."""
        keys, heads, depth = call.types["k"].shape
        return heads * (_panel_bytes(depth) + 16) + _panel_bytes(keys) + 4 * keys

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("q", "k", "v", "geometry", "exponentials", "y", call.types["q"].shape[0], "scratch")


def table_reason(call: Call) -> str | None:
    """Why the exponentials are not those that the softmax kernels take, or None."""
    largest = int(call.constants["table"][0])
    return None if largest == 65535 else f"an exponential of 0 of {largest}"


def reversed_table(call: Call) -> Packed:
    """The exponentials, so that an element of a row is an index."""
    return Packed(
        "exponentials", np.ascontiguousarray(call.constants["table"][::-1]), "[255 - d]: 65535 * exp(-d * scale)"
    )
