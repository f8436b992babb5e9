# SPDX-License-Identifier: Apache-2.0
"""Dense layers in integers: `y = requantize(x @ w.T + bias)`, weights per output channel (docs/spec.md, Integers)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.integer import Int8, Int32, multipliers, requantize, tir_requantize
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
