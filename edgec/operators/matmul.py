# SPDX-License-Identifier: Apache-2.0
"""Products of two activations (attention scores and their mix): `y = requantize((a - za) @ (b - zb))`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import Orders, RowAccess, Rows, by_row
from edgec.operators.integer import Int8, Int32, multipliers, requantize, tir_requantize
from edgec.operators.record import Access, Case, TensorType, operator


@operator(
    "matmul_s8",
    inputs=("a", "b", "params"),
    constants=("params",),
    parameters=("a_zero_point", "b_zero_point", "mult", "shift", "zero_point"),
    access=Access.WHOLE,
)
class MatmulS8:
    """a int8 [B, M, K], b int8 [B, K, N] (transpose_b: [B, N, K]) -> y int8 [B, M, N]; one multiplier in all."""

    @staticmethod
    def infer(types: Sequence[TensorType], wide: int = 0, transpose_b: int = 0) -> TensorType:
        (batch, m, k), (batch_b, kb, n) = types[0].shape, types[1].shape
        if transpose_b:
            kb, n = n, kb
        if (batch, k) != (batch_b, kb):
            raise ValueError(f"matmul_s8: a {types[0].shape} does not fit b {types[1].shape}")
        return TensorType((batch, m, n), "int8")

    @staticmethod
    def reference(a: Int8, b: Int8, params: Int32, wide: int = 0, transpose_b: int = 0) -> Int8:
        za, zb, mult, shift, zero_point = (int(v) for v in params)
        b = b.transpose(0, 2, 1) if transpose_b else b
        acc = (a.astype(np.int64) - za) @ (b.astype(np.int64) - zb)
        return requantize(acc, mult, shift, zero_point, bool(wide))

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, wide: int = 0, transpose_b: int = 0) -> Any:
        (B, M, K), N = types[0].shape, out.shape[2]
        # An element of b lies at h * K * N + n * across + k * down.
        across, down = (K, 1) if transpose_b else (1, N)

        @T.prim_func(private=True, s_tir=True)
        def matmul_s8(
            a: T.Buffer((B, M, K), "int8"),
            b: T.Buffer(types[1].shape, "int8"),
            params: T.Buffer((5,), "int32"),
            y: T.Buffer((B, M, N), "int8"),
        ):
            flat = T.decl_buffer((B * K * N,), "int8", data=b.data)
            for h in range(B):
                for m in range(M):
                    for n in range(N):
                        acc = T.alloc_buffer((1,), "int32")
                        acc[0] = T.int32(0)
                        for k in range(K):
                            acc[0] = acc[0] + (T.Cast("int32", a[h, m, k]) - params[0]) * (
                                T.Cast("int32", flat[h * (K * N) + n * across + k * down]) - params[1]
                            )
                        y[h, m, n] = tir_requantize(T, acc[0], params[2], params[3], params[4], bool(wide))

        return matmul_s8

    @staticmethod
    def macs(types: Sequence[TensorType], out: TensorType) -> int:
        batch, m, k = types[0].shape
        return batch * m * k * out.shape[2]

    @staticmethod
    def rows_read(types: Sequence[TensorType], wide: int = 0, transpose_b: int = 0) -> Rows:
        (batch, m, k), n = types[0].shape, types[1].shape[1 if transpose_b else 2]
        return (RowAccess(n, k), None if batch == 1 else RowAccess(n, k * n, per=m), None)

    @staticmethod
    def read_order(types: Sequence[TensorType], wide: int = 0, transpose_b: int = 0) -> Orders:
        (batch, m, k), n = types[0].shape, types[1].shape[1 if transpose_b else 2]
        return (by_row(batch * m, k, n), by_row(batch, k * n, m * n), None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            batch, m, k, n = int(rng.integers(1, 4)), *(int(v) for v in rng.integers(1, 12, 3))
            low = rng.random() < 0.3
            a, b = (rng.choice([-128, 127], s) if low else rng.integers(-128, 128, s)
                    for s in ((batch, m, k), (batch, k, n)))  # fmt: skip
            wide = int(rng.random() < 0.2)
            mult, shift = multipliers(10.0 ** (rng.uniform(-12, -6) if wide else rng.uniform(-6, 0.5)), bool(wide))
            za, zb, zy = (int(v) for v in rng.integers(-128, 128, 3))
            zb *= int(rng.random() < 0.3)  # lowering refuses a zero point of the right operand that it need not have
            params = np.array([za, zb, mult[0], shift[0], zy], np.int32)
            transposed = int(rng.random() < 0.5)
            b = b.transpose(0, 2, 1) if transposed else b
            attrs = {"wide": wide, "transpose_b": transposed}
            yield Case((a.astype(np.int8), np.ascontiguousarray(b, np.int8), params), attrs)
