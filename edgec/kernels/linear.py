# SPDX-License-Identifier: Apache-2.0
"""Dense layers on cores with DSP instructions: column pairs, their packing, the proof that they come apart.

**The pair trick.** SMLAD multiplies two signed 16-bit lanes by two others and adds both products to a 32-bit
sum. Weights are int8, so a lane has room for two columns: `lane[k] = 256*w[n+1][k] + w[n][k]`. With
`P0 = sum_k x[k]*w[n][k]` and `P1 = sum_k x[k]*w[n+1][k]`, SMLAD on the raw lanes sums `256*P1 + P0`, and
SMLAD on the sign-extended low bytes (SXTB16) sums `P0`; one load and one extension serve both columns.

**The proof.**

1. A lane must hold its number: `-32768 <= 256*w1 + w0 <= 32767`. The low byte of such a lane is `w0` whatever
   `w1` is. For int8 weights the sum is at most `256*127 + 127 = 32639`, and it falls below -32768 only for
   `w1 = -128` with `w0 < 0`. Weights in [-127, 127] therefore always pass; a foreign model's -128 passes
   unless it meets a negative weight on its left.
2. SMLAD is exact modulo 2^32: a lane product is at most 2^15 * 2^7 in magnitude, and sums wrap. Hence
   `both - even = 256*P1` modulo 2^32, whatever P0, the bias that both begin with, and any wrap on the way.
3. The difference, read as int32, is `256*P1` itself if and only if `-2^23 <= P1 < 2^23`; its arithmetic shift
   by 8 is then P1. P1 lies between `sum_k min(lo*w, hi*w)` and `sum_k max(lo*w, hi*w)` for x in [lo, hi],
   and reaches both ends, so checking them per odd column is exact. With |w| <= 127 and any int8 x, K <= 516
   always passes. P0 needs no bound of its own.
4. `P + bias` is an int32 in the operator's definition; a column where it could leave 32 bits is declined.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgec.kernels.registry import Call, HandKernel, Machine, Packed, Prepared, hand_kernel
from edgec.operators.integer import INT8_MAX, INT8_MIN, INT32_MAX, INT32_MIN, Int8, Int32, Int64
from edgec.operators.linear import SUM_POINT, scaled_sum
from edgec.operators.record import Array

_PAIR_SUM_LIMIT = 2**23
"""An odd column's sum lies in [-limit, limit)."""
_GROUP = 4
"""K is filled up with zeros to a multiple of this: one word of int8 activations."""
_BLOCK_ROWS = 4
MOST_PANEL_ROWS = 16
MOST_PANEL_BYTES = 4096
_BLOCKS = tuple(f"linear/linear_s8_dsp_{name}.S" for name in ("pack4", "rows4", "rows2"))
_ROW = ("linear/linear_s8_dsp_row.c", "linear/linear_s8_dsp_row1.S", "linear/linear_s8_dsp_blocks.c")
_SOURCES = ("linear/linear_s8_dsp_layer.c", "linear/pack_panel_s8.c", *_BLOCKS, *_ROW)


def lane_overflows(w: Int8) -> list[int]:
    """Odd columns of `w` int8 [N, K] whose -128 meets a negative weight of its partner (proof, step 1)."""
    even, odd = _pairs(w)
    return [int(2 * p + 1) for p in np.flatnonzero((256 * odd + even < -(2**15)).any(axis=1))]


def sum_overflows(w: Int8, x_range: tuple[int, int] = (INT8_MIN, INT8_MAX)) -> list[int]:
    """Odd columns of `w` int8 [N, K] whose sum could leave 24 bits for x in `x_range` (proof, step 3)."""
    low, high = _sum_bounds(w, x_range)
    bad = (low < -_PAIR_SUM_LIMIT) | (high >= _PAIR_SUM_LIMIT)
    return [int(n) for n in np.flatnonzero(bad) if n % 2 == 1]


def prove_pairs(w: Int8, x_range: tuple[int, int] = (INT8_MIN, INT8_MAX)) -> list[int]:
    """Columns of `w` int8 [N, K] that might not come apart exactly; empty is the proof that all do."""
    return sorted({*lane_overflows(w), *sum_overflows(w, x_range)})


def pack_pairs(w: Int8) -> npt.NDArray[np.uint32]:
    """Weights int8 [N, K] as words uint32 [ceil(N/2), Kp/2], Kp = K filled up with zeros to a multiple of 4.

    Word 2g of a pair holds the lanes of k = 4g (bits 0..15) and 4g+2, word 2g+1 those of 4g+1 and 4g+3: the
    order in which SXTB16 and SXTB16 with ROR #8 take four activations out of a word. A lane is
    `256*w[n+1][k] + w[n][k]`, n even; an odd N is filled up with a column of zeros.
    """
    even, odd = _pairs(w)
    lanes = np.zeros((even.shape[0], _padded(w.shape[1])), np.int64)
    lanes[:, : w.shape[1]] = 256 * odd + even
    grouped = (lanes & 0xFFFF).reshape(even.shape[0], -1, _GROUP)
    words = grouped[:, :, :2] | grouped[:, :, 2:] << 16
    return words.astype(np.uint32).reshape(even.shape[0], -1)


def pack_requantize(bias: Int32, mult: Int32, shift: Array) -> Int32:
    """What column pairs are requantized with, int32 [1 + 2*ceil(N/4)*words]: `words`, then a record a pair.

    A record is {bias odd, 2*mult even, 2*mult odd, bias even}: SMMULR by 2*M is `(acc*M + 2^30) >> 31`. Where any
    column has a shift, all records have a fifth word {shift even | shift odd << 8}. The number of records is even
    since the one-row kernel takes two pairs at a time.
    """
    n = bias.shape[0]
    columns = np.zeros((3, -(-n // 4) * 4), np.int64)
    columns[:, :n] = bias, 2 * mult.astype(np.int64), shift
    biases, mults, shifts = columns.reshape(3, -1, 2)
    records = np.concatenate([biases[:, 1:], mults, biases[:, :1], shifts[:, :1] | shifts[:, 1:] << 8], axis=1)
    records = records if shifts.any() else records[:, :4]
    return np.concatenate([[records.shape[1]], records.ravel()]).astype(np.int32)


def panel_rows(rows: int, k: int, weight_bytes: int, machine: Machine) -> int:
    """How many rows to widen together, a multiple of 4: the weights are read once for all of them.

    One block of 4 where reading the weights again costs nothing: from memory without wait states, or out of a data
    cache that holds them beside the activations. Else as many as there are, up to 16 and 4 KiB of scratch.
    """
    cheap = machine.flash_wait_states == 0 or 2 * weight_bytes <= machine.data_cache
    return 4 if cheap else max(4, min(rows, MOST_PANEL_ROWS, MOST_PANEL_BYTES // (2 * _padded(k))) // 4 * 4)


class _Dense(HandKernel):
    """What the dense layers share: the pair trick, narrow requantization."""

    needs = frozenset({"dsp"})
    arrays: ClassVar[tuple[str, ...]]
    """The pointers before y."""

    def accepts(self, call: Call) -> str | None:
        """See the proof above; wide requantization is left to the generated kernel."""
        w, bias, mult = (call.constants[name] for name in ("w", "bias", "mult"))
        if call.attrs.get("wide", 0):
            return "wide requantization"
        if columns := np.flatnonzero((mult < 0) | (mult >= 2**30)).tolist():
            return f"multiplier of {_columns(columns)} is not in [0, 2^30)"
        if columns := lane_overflows(w):
            return f"weight -128 of {_columns(columns)} stands beside a negative weight"
        if columns := sum_overflows(w):
            return f"sum of {_columns(columns)} could leave 24 bits (K = {w.shape[1]})"
        low, high = _sum_bounds(w, (INT8_MIN, INT8_MAX))
        wide_bias = bias.astype(np.int64)
        if columns := np.flatnonzero((low + wide_bias < INT32_MIN) | (high + wide_bias > INT32_MAX)).tolist():
            return f"accumulator of {_columns(columns)} could leave 32 bits"
        return None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Weights as column pairs, and one record of requantization a pair."""
        constants = call.constants
        return (
            Packed("weights", pack_pairs(constants["w"]), "[n/2][k/2]: two lanes 256*w[n+1][k] + w[n][k]"),
            Packed(
                "requantize",
                pack_requantize(constants["bias"], constants["mult"], constants["shift"]),
                "words of a record; [n/2]: bias odd, 2*mult even, 2*mult odd, bias even, shifts if any",
            ),
        )

    def shared(self, call: Call) -> Prepared | None:
        """All rows of x as one panel."""
        m, k = call.types["x"].shape
        return Prepared("x", "edgec_pack_panel_s8", 2 * _padded(k) * m, ("x", m, k, "y"))

    def panel_rows(self, call: Call) -> int:
        """Rows that are widened together: what the schedule asks, else by the machine."""
        rows, k = call.types["x"].shape
        return call.panel_rows or panel_rows(rows, k, call.types["w"].bytes, call.machine)

    def overlap_block_rows(self, call: Call) -> int | None:
        """A panel, which is read whole before a byte of its rows is written, is whole blocks of four rows."""
        return _BLOCK_ROWS

    def scratch_bytes(self, call: Call) -> int:
        """A panel of activations in 16 bits; fewer than four rows go two at a time, or alone."""
        if "x" in call.packed:
            return 0
        m, k = call.types["x"].shape
        rows = min(m // 4 * 4, self.panel_rows(call)) if m >= 4 else min(m, 2)
        return 2 * _padded(k) * rows

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        (m, k), n = call.types["x"].shape, call.types["w"].shape[0]
        zero_point = int(call.constants["params"][0])
        panel: tuple[str | int, ...] = (0, 0) if "x" in call.packed else (self.panel_rows(call), "scratch")
        return (*self.arrays, "y", m, k, n, zero_point, *panel)


@hand_kernel
class LinearS8Dsp(_Dense):
    """linear_s8 with the pair trick, narrow requantization."""

    name = "linear_s8_dsp"
    op = "linear_s8"
    function = "edgec_linear_s8_dsp"
    sources = ("linear/linear_s8_dsp.c", *_SOURCES)
    arrays = ("x", "weights", "requantize")


@hand_kernel
class LinearTableS8Dsp(_Dense):
    """linear_table_s8: linear_s8_dsp with a look-up behind the requantization."""

    name = "linear_table_s8_dsp"
    op = "linear_table_s8"
    function = "edgec_linear_table_s8_dsp"
    sources = ("linear/linear_table_s8_dsp.c", *_SOURCES)
    arrays = ("x", "weights", "requantize", "table")

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The layer's arrays and the table as it is."""
        return (*super().pack(call), Packed("table", call.constants["table"], "[256]: results for -128, -127, ..."))


@hand_kernel
class LinearAddS8Dsp(_Dense):
    """linear_add_s8: linear_s8_dsp with a residual added behind the requantization."""

    name = "linear_add_s8_dsp"
    op = "linear_add_s8"
    function = "edgec_linear_add_s8_dsp"
    sources = ("linear/linear_add_s8_dsp.c", *_SOURCES)
    arrays = ("x", "residual", "weights", "requantize", "sum")

    def accepts(self, call: Call) -> str | None:
        """The sum needs its multipliers at a fixed binary point."""
        if scaled_sum(call.constants["params"][1:]) is None:
            return f"a sum that does not fit 32 bits with {SUM_POINT} bits behind the point"
        return super().accepts(call)

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The layer's arrays and what the sum is made with."""
        scaled = scaled_sum(call.constants["params"][1:])
        assert scaled is not None
        return (*super().pack(call), Packed("sum", scaled, f"multipliers and offset with {SUM_POINT} binary digits"))


class _DenseRow(_Dense):
    """One row: less code, stack and time than the kernels of any number take."""

    def accepts(self, call: Call) -> str | None:
        """What the other kernels accept, of one row that is not packed and more than one output."""
        m, n = call.types["x"].shape[0], call.types["w"].shape[0]
        if m != 1 or n == 1:
            return f"{m} rows, {n} outputs"
        return "a row that is packed already" if call.packed else super().accepts(call)

    def shared(self, call: Call) -> Prepared | None:
        """Nothing: nobody cuts up one row."""
        return None

    def scratch_bytes(self, call: Call) -> int:
        """The row in 16 bits."""
        return 2 * _padded(call.types["x"].shape[1])

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        n, k = call.types["w"].shape
        return (*self.arrays, "y", k, n, int(call.constants["params"][0]), "scratch")


@hand_kernel
class LinearRowS8Dsp(_DenseRow, LinearS8Dsp):
    """linear_s8 of one row."""

    name = "linear_row_s8_dsp"
    function = "edgec_linear_row_s8_dsp"
    sources = ("linear/linear_row_s8_dsp.c", *_ROW)


@hand_kernel
class LinearTableRowS8Dsp(_DenseRow, LinearTableS8Dsp):
    """linear_table_s8 of one row."""

    name = "linear_table_row_s8_dsp"
    function = "edgec_linear_table_row_s8_dsp"
    sources = ("linear/linear_table_row_s8_dsp.c", *_ROW)


@hand_kernel
class LinearAddRowS8Dsp(_DenseRow, LinearAddS8Dsp):
    """linear_add_s8 of one row."""

    name = "linear_add_row_s8_dsp"
    function = "edgec_linear_add_row_s8_dsp"
    sources = ("linear/linear_add_row_s8_dsp.c", *_ROW)


def _padded(k: int) -> int:
    return -(-k // _GROUP) * _GROUP


def _pairs(w: Int8) -> tuple[Int64, Int64]:
    """Even and odd columns, int64 [ceil(N/2), K] each."""
    columns = np.zeros((w.shape[0] + w.shape[0] % 2, w.shape[1]), np.int64)
    columns[: w.shape[0]] = w
    return columns[0::2], columns[1::2]


def _sum_bounds(w: Int8, x_range: tuple[int, int]) -> tuple[Int64, Int64]:
    """Smallest and largest `sum_k x[k]*w[n][k]` of every column, int64 [N]; x can reach both."""
    products = np.stack([w.astype(np.int64) * bound for bound in x_range])
    return products.min(axis=0).sum(axis=1), products.max(axis=0).sum(axis=1)


def _columns(columns: list[int]) -> str:
    shown = ", ".join(str(n) for n in columns[:4])
    return f"{'column' if len(columns) == 1 else 'columns'} {shown}{', ...' if len(columns) > 4 else ''}"
