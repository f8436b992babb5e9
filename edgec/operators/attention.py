# SPDX-License-Identifier: Apache-2.0
"""Attention in integers, heads interleaved as dense layers leave them: no transposes, no matrix of scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import Orders, RowAccess, Rows, by_row
from edgec.operators.integer import Int8, Int32, multipliers, tir_requantize
from edgec.operators.matmul import MatmulS8
from edgec.operators.record import Access, Array, Case, TensorType, operator
from edgec.operators.softmax import LONGEST_ROW, SoftmaxS8, exponentials


@operator(
    "attention_s8",
    inputs=("q", "k", "v", "score_params", "table", "mix_params"),
    constants=("score_params", "table", "mix_params"),
    access=Access.IN_ROWS,
)
class AttentionS8:
    """q int8 [M, H, d], k int8 [N, H, d], v int8 [N, H, e] -> y int8 [M, H, e]; params as `matmul_s8`'s, narrow.

    For every head `matmul_s8(softmax_s8(matmul_s8(q, transposed k)), v)`, each step with its own rounding.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        q, k, v = (t.shape for t in types[:3])
        if q[1:] != k[1:] or k[:2] != v[:2]:
            raise ValueError(f"attention_s8: q {q}, k {k} and v {v} do not fit")
        if k[0] > LONGEST_ROW:
            raise ValueError(f"attention_s8: {k[0]} keys, at most {LONGEST_ROW}")
        return TensorType((*q[:2], v[2]), "int8")

    @staticmethod
    def reference(q: Int8, k: Int8, v: Int8, score_params: Int32, table: Array, mix_params: Int32) -> Int8:
        q, k, v = (t.transpose(1, 0, 2) for t in (q, k, v))
        scores = MatmulS8.reference(q, k, score_params, transpose_b=1)
        rows = SoftmaxS8.reference(scores.reshape(-1, k.shape[1]), table)
        y: Int8 = MatmulS8.reference(rows.reshape(scores.shape), v, mix_params).transpose(1, 0, 2)
        return y

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        (M, H, D), N, E = types[0].shape, types[1].shape[0], out.shape[2]

        @T.prim_func(private=True, s_tir=True)
        def attention_s8(
            q: T.Buffer((M, H, D), "int8"),
            k: T.Buffer((N, H, D), "int8"),
            v: T.Buffer((N, H, E), "int8"),
            score_params: T.Buffer((5,), "int32"),
            table: T.Buffer((256,), "uint16"),
            mix_params: T.Buffer((5,), "int32"),
            y: T.Buffer((M, H, E), "int8"),
        ):
            for m in range(M):
                query = T.alloc_buffer((H, D), "int8")  # the row, which y may replace
                scores = T.alloc_buffer((N,), "int8")
                for h in range(H):
                    for d in range(D):
                        query[h, d] = q[m, h, d]
                for h in range(H):
                    largest = T.alloc_buffer((1,), "int32")
                    total = T.alloc_buffer((1,), "int32")
                    reciprocal = T.alloc_buffer((1,), "int64")
                    largest[0] = T.int32(-128)
                    for n in range(N):
                        score = T.alloc_buffer((1,), "int32")
                        score[0] = T.int32(0)
                        for d in range(D):
                            score[0] = score[0] + (T.Cast("int32", query[h, d]) - score_params[0]) * (
                                T.Cast("int32", k[n, h, d]) - score_params[1]
                            )
                        scores[n] = tir_requantize(
                            T, score[0], score_params[2], score_params[3], score_params[4], False
                        )
                        largest[0] = T.max(largest[0], T.Cast("int32", scores[n]))
                    total[0] = T.int32(0)
                    for n in range(N):
                        total[0] = total[0] + T.Cast("int32", table[largest[0] - T.Cast("int32", scores[n])])
                    reciprocal[0] = T.truncdiv(T.int64(2**40), T.Cast("int64", total[0]))
                    for n in range(N):
                        scores[n] = T.Cast(
                            "int8",
                            T.min(
                                T.Cast(
                                    "int32",
                                    (
                                        T.Cast("int64", table[largest[0] - T.Cast("int32", scores[n])]) * reciprocal[0]
                                        + T.int64(2**31)
                                    )
                                    >> T.int64(32),
                                ),
                                T.int32(255),
                            )
                            - T.int32(128),
                        )
                    for e in range(E):
                        mixed = T.alloc_buffer((1,), "int32")
                        mixed[0] = T.int32(0)
                        for n in range(N):
                            mixed[0] = mixed[0] + (T.Cast("int32", scores[n]) - mix_params[0]) * (
                                T.Cast("int32", v[n, h, e]) - mix_params[1]
                            )
                        y[m, h, e] = tir_requantize(T, mixed[0], mix_params[2], mix_params[3], mix_params[4], False)

        return attention_s8

    @staticmethod
    def macs(types: Sequence[TensorType], out: TensorType) -> int:
        (rows, heads, depth), keys = types[0].shape, types[1].shape[0]
        return rows * heads * keys * (depth + out.shape[2])

    @staticmethod
    def rows_read(types: Sequence[TensorType]) -> Rows:
        (_, heads, d), e = types[0].shape, types[2].shape[2]
        return (RowAccess(heads * e, heads * d), *(None,) * 5)

    @staticmethod
    def read_order(types: Sequence[TensorType]) -> Orders:
        (m, heads, d), e = types[0].shape, types[2].shape[2]
        return (by_row(m, heads * d, heads * e, "before"), *(None,) * 5)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            m, n = (int(v) for v in rng.integers(1, 24, 2))
            heads, d, e = int(rng.integers(1, 4)), *(int(v) for v in rng.integers(1, 12, 2))
            e = d if rng.random() < 0.6 else e
            low = rng.random() < 0.3
            q, k, v = (
                (rng.choice([-128, 127], s) if low else rng.integers(-128, 128, s)).astype(np.int8)
                for s in ((m, heads, d), (n, heads, d), (n, heads, e))
            )
            zero_points = [int(v) for v in rng.integers(-128, 128, 3)]
            zero_points[0] *= int(rng.random() < 0.5)
            params = []
            for za, zy, most in ((zero_points[0], zero_points[1], 60 * d), (-128, zero_points[2], 256)):
                mult, shift = multipliers(float(10.0 ** rng.uniform(-1, 0.5)) / most, False)
                params.append(np.array([za, 0, mult[0], shift[0], zy], np.int32))
            table = exponentials(float(10.0 ** rng.uniform(-3, 0.5)))
            yield Case((q, k, v, params[0], table, params[1]))
