# SPDX-License-Identifier: Apache-2.0
"""Reductions in integers: an exact sum and one requantization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.integer import Int8, Int32, multipliers, requantize, tir_requantize
from edgec.operators.record import Access, Case, TensorType, operator

LONGEST_SUM = 2**23  # terms of at most 255 in an int32


@operator(
    "mean_s8",
    inputs=("x", "params"),
    constants=("params",),
    parameters=("x_zero_point", "mult", "shift", "zero_point"),
    access=Access.WHOLE,
)
class MeanS8:
    """x int8 [O, R, I] -> y int8 [O, I]: `y = requantize(sum over R of (x - zx))`, 1/R within the multiplier.

    With a multiplier that leaves 1/R out it is a sum (ReduceSum).
    """

    @staticmethod
    def infer(types: Sequence[TensorType], wide: int = 0) -> TensorType:
        outer, terms, inner = types[0].shape
        if terms > LONGEST_SUM:
            raise ValueError(f"mean_s8: {terms} terms, at most {LONGEST_SUM}")
        return TensorType((outer, inner), "int8")

    @staticmethod
    def reference(x: Int8, params: Int32, wide: int = 0) -> Int8:
        zx, mult, shift, zero_point = (int(v) for v in params)
        return requantize((x.astype(np.int64) - zx).sum(axis=1), mult, shift, zero_point, bool(wide))

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, wide: int = 0) -> Any:
        O, R, I = types[0].shape

        @T.prim_func(private=True, s_tir=True)
        def mean_s8(x: T.Buffer((O, R, I), "int8"), params: T.Buffer((4,), "int32"), y: T.Buffer((O, I), "int8")):
            for o in range(O):
                for i in range(I):
                    acc = T.alloc_buffer((1,), "int32")
                    acc[0] = T.int32(0)
                    for r in range(R):
                        acc[0] = acc[0] + T.Cast("int32", x[o, r, i]) - params[0]
                    y[o, i] = tir_requantize(T, acc[0], params[1], params[2], params[3], bool(wide))

        return mean_s8

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            shape = tuple(int(v) for v in rng.integers(1, 12, 3))
            x = rng.choice([-128, 127], shape) if rng.random() < 0.2 else rng.integers(-128, 128, shape)
            wide = int(rng.random() < 0.2)
            mult, shift = multipliers(10.0 ** (rng.uniform(-12, -6) if wide else rng.uniform(-5, 0.5)), bool(wide))
            zx, zy = (int(v) for v in rng.integers(-128, 128, 2))
            yield Case((x.astype(np.int8), np.array([zx, mult[0], shift[0], zy], np.int32)), {"wide": wide})
