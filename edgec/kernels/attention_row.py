# SPDX-License-Identifier: Apache-2.0
"""Products with one row on the left, and attention of one query: a step against what a ring remembers.

Packing the right operand, as for many rows (edgec/kernels/attention.py), would cost several times what the product
does. It is read once, as it lies, four bytes at a time; the row lies in 16-bit lanes, which hold `a - za`. Sums are of
32 bits, which lowering has proven to be enough; a zero point of b is what they begin with, `-zb * sum(a - za)`.
"""

from __future__ import annotations

import numpy as np

from edgec.kernels.attention import AttentionS8Dsp, MatmulS8Dsp, reversed_table, table_reason
from edgec.kernels.registry import Call, Packed, Prepared, hand_kernel
from edgec.operators.record import Array

_SOURCES = ("attention/row_times_rows_s8.c", "attention/row_times_columns_s8.c")


def _reason(params: Array, role: str = "params") -> str | None:
    """Why a product with these parameters of `matmul_s8` cannot be requantized by one SMMLAR, or None."""
    mult, shift = int(params[2]), int(params[3])
    return f"{role}: a ratio of a half or more" if shift or not 0 <= mult < 2**30 else None


@hand_kernel
class MatmulRowS8Dsp(MatmulS8Dsp):
    """matmul_s8 of one row in each batch, narrow requantization."""

    name = "matmul_row_s8_dsp"
    function = "edgec_matmul_row_s8_dsp"
    sources = ("attention/matmul_row_s8_dsp.c", *_SOURCES)

    def accepts(self, call: Call) -> str | None:
        """See the module."""
        rows = call.types["a"].shape[1]
        if rows != 1 or call.attrs.get("wide", 0):
            return f"{rows} rows" if rows != 1 else "wide requantization"
        return _reason(call.constants["params"])

    def prepare(self, call: Call) -> tuple[Prepared, ...]:
        """Nothing."""
        return ()

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """What the results are requantized with."""
        za, zb, mult, _, zero_point = (int(v) for v in call.constants["params"])
        words = np.array([za, zb, 2 * mult, zero_point], np.int32)
        return (Packed("requantize", words, "za, zb, 2*mult, zero point"),)

    def overlap_block_rows(self, call: Call) -> int | None:
        """Nothing is promised: b is read to the end."""
        return None

    def scratch_bytes(self, call: Call) -> int:
        """The lanes of a row."""
        return 8 * -(-call.types["a"].shape[2] // 4)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        (batches, _, k), transposed = call.types["a"].shape, call.attrs.get("transpose_b", 0)
        n = call.types["b"].shape[1 if transposed else 2]
        return ("a", "b", "requantize", "y", batches, k, n, transposed, "scratch")


@hand_kernel
class AttentionRowS8Dsp(AttentionS8Dsp):
    """attention_s8 of one query."""

    name = "attention_row_s8_dsp"
    function = "edgec_attention_row_s8_dsp"
    sources = ("attention/attention_row_s8_dsp.c", *_SOURCES)

    def accepts(self, call: Call) -> str | None:
        """See the module."""
        score, mix, rows = call.constants["score_params"], call.constants["mix_params"], call.types["q"].shape[0]
        if rows != 1:
            return f"{rows} queries"
        if int(mix[0]) != -128:
            return f"mix_params: probabilities with zero point {int(mix[0])}"
        return _reason(score, "score_params") or _reason(mix, "mix_params") or table_reason(call)

    def prepare(self, call: Call) -> tuple[Prepared, ...]:
        """Nothing."""
        return ()

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The words of an `edgec_attention_geometry` with two zero points behind them, and the table."""
        geometry, _ = super().pack(call)
        zero_points = [int(call.constants[role][1]) for role in ("score_params", "mix_params")]
        words = np.concatenate([geometry.values, np.array(zero_points, np.int32)])
        return (Packed("geometry", words, "edgec_attention_geometry, zero points of k and v"), reversed_table(call))

    def overlap_block_rows(self, call: Call) -> int | None:
        """Nothing is promised: k and v are read to the end."""
        return None

    def scratch_bytes(self, call: Call) -> int:
        """Lanes of a query's head, probabilities, scores."""
        keys, _, depth = call.types["k"].shape
        return 8 * -(-depth // 4) + 4 * -(-keys // 2) + 4 * -(-keys // 4)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("q", "k", "v", "geometry", "exponentials", "y", "scratch")
