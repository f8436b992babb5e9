# SPDX-License-Identifier: Apache-2.0
"""Dense layers in integers: `y = requantize(x @ w.T + bias)`, weights per output channel (docs/spec.md, Integers)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import Orders, RowAccess, Rows, by_element, by_row
from edgec.operators.elementwise import add_params
from edgec.operators.integer import (
    INT32_MAX,
    INT32_MIN,
    Int8,
    Int32,
    multipliers,
    requantize,
    sat8,
    tir_requantize,
    tir_sat8,
)
from edgec.operators.record import Access, Array, Case, TensorType, operator


@operator(
    "linear_s8",
    inputs=("x", "w", "bias", "mult", "shift", "params"),
    constants=("w", "bias", "mult", "shift", "params"),
    parameters=("zero_point",),
    access=Access.ROWS,
)
class LinearS8:
    """x int8 [M, K], w int8 [N, K] -> y int8 [M, N]; bias, mult int32 [N], shift uint8 [N].

    The zero point of x is folded into the bias at compile time: `bias - zero_point_x * sum_k w`.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], wide: int = 0) -> TensorType:
        (m, k), (n, kw) = types[0].shape, types[1].shape
        if k != kw or any(t.shape != (n,) for t in types[2:5]):
            raise ValueError(f"linear_s8: x {types[0].shape} does not fit w {types[1].shape}")
        return TensorType((m, n), "int8")

    @staticmethod
    def reference(x: Int8, w: Int8, bias: Int32, mult: Int32, shift: Array, params: Int32, wide: int = 0) -> Int8:
        acc = x.astype(np.int64) @ w.astype(np.int64).T + bias
        return requantize(acc, mult, shift, int(params[0]), bool(wide))

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, wide: int = 0) -> Any:
        (M, K), N = types[0].shape, out.shape[1]

        @T.prim_func(private=True, s_tir=True)
        def linear_s8(
            x: T.Buffer((M, K), "int8"),
            w: T.Buffer((N, K), "int8"),
            bias: T.Buffer((N,), "int32"),
            mult: T.Buffer((N,), "int32"),
            shift: T.Buffer((N,), "uint8"),
            params: T.Buffer((1,), "int32"),
            y: T.Buffer((M, N), "int8"),
        ):
            for m in range(M):
                for n in range(N):
                    acc = T.alloc_buffer((1,), "int32")
                    acc[0] = bias[n]
                    for k in range(K):
                        acc[0] = acc[0] + T.Cast("int32", x[m, k]) * T.Cast("int32", w[n, k])
                    y[m, n] = tir_requantize(T, acc[0], mult[n], shift[n], params[0], bool(wide))

        return linear_s8

    @staticmethod
    def macs(types: Sequence[TensorType], out: TensorType) -> int:
        return types[0].shape[0] * types[0].shape[1] * out.shape[1]

    @staticmethod
    def rows_read(types: Sequence[TensorType], wide: int = 0) -> Rows:
        return (RowAccess(types[1].shape[0], types[0].shape[1]), *(None,) * 5)

    @staticmethod
    def read_order(types: Sequence[TensorType], wide: int = 0) -> Orders:
        (m, k), n = types[0].shape, types[1].shape[0]
        return (by_row(m, k, n), *(None,) * 5)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            m, k, n = (int(v) for v in rng.integers(1, 20, 3))
            extreme = rng.random() < 0.3
            x = rng.choice([-128, 127], (m, k)) if extreme else rng.integers(-128, 128, (m, k))
            w = rng.choice([-127, 127], (n, k)) if extreme else rng.integers(-127, 128, (n, k))
            bias = rng.integers(-(2**20), 2**20, n)
            wide = int(rng.random() < 0.2)
            ratios = 10.0 ** (rng.uniform(-12, -6, n) if wide else rng.uniform(-6, 1.2, n))
            mult, shift = multipliers(ratios, bool(wide))
            zero_point = rng.choice([-128, 127, 0, int(rng.integers(-128, 128))])
            yield Case(
                (
                    x.astype(np.int8),
                    w.astype(np.int8),
                    bias.astype(np.int32),
                    mult,
                    shift,
                    np.array([zero_point], np.int32),
                ),
                {"wide": wide},
            )


SUM_POINT = 18
"""Binary point of the multipliers of `scaled_sum`."""


def scaled_sum(params: Int32) -> Int32 | None:
    """`add_s8` parameters as int32 {a_mult, b_mult, offset} for a shift of `SUM_POINT`; None where 32 bits do not do.

    Scaling by a power of two changes no bit of the result.
    """
    a_mult, b_mult, offset, shift = (int(v) for v in params)
    if not 0 <= shift <= SUM_POINT:
        return None
    scaled = [v << (SUM_POINT - shift) for v in (a_mult, b_mult, offset)]
    sums = [a * scaled[0] + b * scaled[1] + scaled[2] for a in (-128, 127) for b in (-128, 127)]
    if any(not INT32_MIN <= v <= INT32_MAX for v in (*scaled, *sums)):
        return None
    return np.array(scaled, np.int32)


@operator(
    "linear_table_s8",
    inputs=("x", "w", "bias", "mult", "shift", "params", "table"),
    constants=("w", "bias", "mult", "shift", "params", "table"),
    parameters=("zero_point",),
    access=Access.ROWS,
)
class LinearTableS8:
    """`linear_s8`, then `table_s8`: x int8 [M, K], w int8 [N, K], table int8 [256] -> y int8 [M, N]."""

    macs = staticmethod(LinearS8.macs)

    @staticmethod
    def infer(types: Sequence[TensorType], wide: int = 0) -> TensorType:
        if types[6].shape != (256,):
            raise ValueError(f"linear_table_s8: a table of {types[6].shape}")
        return LinearS8.infer(types[:6], wide)

    @staticmethod
    def reference(
        x: Int8, w: Int8, bias: Int32, mult: Int32, shift: Array, params: Int32, table: Int8, wide: int = 0
    ) -> Int8:
        return table[LinearS8.reference(x, w, bias, mult, shift, params, wide).astype(np.int64) + 128]

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, wide: int = 0) -> Any:
        (M, K), N = types[0].shape, out.shape[1]

        @T.prim_func(private=True, s_tir=True)
        def linear_table_s8(
            x: T.Buffer((M, K), "int8"),
            w: T.Buffer((N, K), "int8"),
            bias: T.Buffer((N,), "int32"),
            mult: T.Buffer((N,), "int32"),
            shift: T.Buffer((N,), "uint8"),
            params: T.Buffer((1,), "int32"),
            table: T.Buffer((256,), "int8"),
            y: T.Buffer((M, N), "int8"),
        ):
            for m in range(M):
                for n in range(N):
                    acc = T.alloc_buffer((1,), "int32")
                    acc[0] = bias[n]
                    for k in range(K):
                        acc[0] = acc[0] + T.Cast("int32", x[m, k]) * T.Cast("int32", w[n, k])
                    y[m, n] = table[
                        T.Cast("int32", tir_requantize(T, acc[0], mult[n], shift[n], params[0], bool(wide))) + 128
                    ]

        return linear_table_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], wide: int = 0) -> Rows:
        return (*LinearS8.rows_read(types[:6]), None)

    @staticmethod
    def read_order(types: Sequence[TensorType], wide: int = 0) -> Orders:
        return (*LinearS8.read_order(types[:6]), None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        for case in LinearS8.samples(rng):
            yield Case((*case.inputs, rng.integers(-128, 128, 256).astype(np.int8)), case.attrs)


@operator(
    "linear_add_s8",
    inputs=("x", "residual", "w", "bias", "mult", "shift", "params"),
    constants=("w", "bias", "mult", "shift", "params"),
    parameters=("zero_point", "result_mult", "residual_mult", "offset", "sum_shift"),
    access=Access.ROWS,
)
class LinearAddS8:
    """`linear_s8`, then `add_s8` of a residual: x int8 [M, K], residual int8 [M, N], w int8 [N, K] -> y int8 [M, N].

    y may be the residual's own memory: each of its elements is read before that element of y is written, and never
    again.
    """

    macs = staticmethod(LinearS8.macs)

    @staticmethod
    def infer(types: Sequence[TensorType], wide: int = 0) -> TensorType:
        result = LinearS8.infer((types[0], *types[2:]), wide)
        if types[1] != result:
            raise ValueError(f"linear_add_s8: a residual {types[1].shape} for a result {result.shape}")
        return result

    @staticmethod
    def reference(
        x: Int8, residual: Int8, w: Int8, bias: Int32, mult: Int32, shift: Array, params: Int32, wide: int = 0
    ) -> Int8:
        result = LinearS8.reference(x, w, bias, mult, shift, params, wide)
        result_mult, residual_mult, offset, sum_shift = (int(v) for v in params[1:])
        total = result.astype(np.int64) * result_mult + residual.astype(np.int64) * residual_mult + offset
        return sat8(total >> sum_shift)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, wide: int = 0) -> Any:
        (M, K), N = types[0].shape, out.shape[1]

        @T.prim_func(private=True, s_tir=True)
        def linear_add_s8(
            x: T.Buffer((M, K), "int8"),
            residual: T.Buffer((M, N), "int8"),
            w: T.Buffer((N, K), "int8"),
            bias: T.Buffer((N,), "int32"),
            mult: T.Buffer((N,), "int32"),
            shift: T.Buffer((N,), "uint8"),
            params: T.Buffer((5,), "int32"),
            y: T.Buffer((M, N), "int8"),
        ):
            for m in range(M):
                for n in range(N):
                    acc = T.alloc_buffer((1,), "int32")
                    acc[0] = bias[n]
                    for k in range(K):
                        acc[0] = acc[0] + T.Cast("int32", x[m, k]) * T.Cast("int32", w[n, k])
                    y[m, n] = tir_sat8(
                        T,
                        (
                            T.Cast("int32", tir_requantize(T, acc[0], mult[n], shift[n], params[0], bool(wide)))
                            * params[1]
                            + T.Cast("int32", residual[m, n]) * params[2]
                            + params[3]
                        )
                        >> params[4],
                    )

        return linear_add_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], wide: int = 0) -> Rows:
        n = types[1].shape[1]
        return (RowAccess(n, types[0].shape[1]), RowAccess(n, n), *(None,) * 5)

    @staticmethod
    def read_order(types: Sequence[TensorType], wide: int = 0) -> Orders:
        (m, k), n = types[0].shape, types[1].shape[1]
        return (by_row(m, k, n), by_element(m * n), *(None,) * 5)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        for case in LinearS8.samples(rng):
            x, w, bias, mult, shift, params = case.inputs
            quant = [(float(10.0 ** rng.uniform(-1, 0)), int(rng.integers(-128, 128))) for _ in range(3)]
            both = np.concatenate([params, add_params(quant[0], quant[1], quant[2], int(rng.choice([-1, 1])))])
            residual = rng.integers(-128, 128, (len(x), len(w))).astype(np.int8)
            yield Case((x, residual, w, bias, mult, shift, both), case.attrs)
