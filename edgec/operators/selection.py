# SPDX-License-Identifier: Apache-2.0
"""Elementwise choice between tensors that are in the scale of the result already: no rounding at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import Orders, RowAccess, Rows, by_element
from edgec.operators.elementwise import broadcast_pair, sample_int8, sample_pair
from edgec.operators.integer import Int8
from edgec.operators.record import Access, Case, TensorType, operator


@operator("extreme_s8", inputs=("a", "b"), access=Access.ELEMENTWISE)
class ExtremeS8:
    """a int8 [O, N], b int8 [O or 1, N or 1] -> y int8 [O, N]: the larger of both, or the smaller with `smallest`."""

    @staticmethod
    def infer(types: Sequence[TensorType], smallest: int = 0) -> TensorType:
        return broadcast_pair("extreme_s8", types)

    @staticmethod
    def reference(a: Int8, b: Int8, smallest: int = 0) -> Int8:
        return np.minimum(a, b) if smallest else np.maximum(a, b)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, smallest: int = 0) -> Any:
        (O, N), (BO, BN) = out.shape, types[1].shape
        pick = T.min if smallest else T.max

        @T.prim_func(private=True, s_tir=True)
        def extreme_s8(a: T.Buffer((O, N), "int8"), b: T.Buffer((BO, BN), "int8"), y: T.Buffer((O, N), "int8")):
            for o in range(O):
                for n in range(N):
                    y[o, n] = pick(a[o, n], b[o if BO > 1 else 0, n if BN > 1 else 0])

        return extreme_s8

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            yield Case(sample_pair(rng), {"smallest": int(rng.integers(0, 2))})


@operator("select_s8", inputs=("a", "b", "mask"), access=Access.ELEMENTWISE)
class SelectS8:
    """a int8 [N], b and mask int8 [N, or a divisor of N] -> y int8 [N]: `y = a if mask else b`.

    With `inverted` a where the mask is 0. A shorter operand is repeated from its beginning.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], inverted: int = 0) -> TensorType:
        size = types[0].shape[0]
        if any(size % t.shape[0] for t in types):
            raise ValueError(f"select_s8: operands of {[t.shape[0] for t in types]} elements")
        return types[0]

    @staticmethod
    def reference(a: Int8, b: Int8, mask: Int8, inverted: int = 0) -> Int8:
        return np.where((np.resize(mask, a.size) != 0) != bool(inverted), a, np.resize(b, a.size))

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, inverted: int = 0) -> Any:
        N, B, M = (t.shape[0] for t in types)

        @T.prim_func(private=True, s_tir=True)
        def select_s8(
            a: T.Buffer((N,), "int8"),
            b: T.Buffer((B,), "int8"),
            mask: T.Buffer((M,), "int8"),
            y: T.Buffer((N,), "int8"),
        ):
            for i in range(N):
                if (mask[i % M] == T.int8(0)) == T.bool(inverted != 0):
                    y[i] = a[i]
                else:
                    y[i] = b[i % B]

        return select_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], inverted: int = 0) -> Rows:
        size = types[0].shape[0]
        # Rows that begin where the shorter operands begin again.
        row = math.lcm(*(t.shape[0] % size or 1 for t in types))
        return tuple(RowAccess(row, row) if t.shape == (size,) else None for t in types)

    @staticmethod
    def read_order(types: Sequence[TensorType], inverted: int = 0) -> Orders:
        size = types[0].shape[0]
        return tuple(by_element(size) if t.shape == (size,) else None for t in types)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            sizes = [int(v) for v in rng.integers(1, 9, 2)]
            n = sizes[0] * sizes[1]
            lengths = [n if rng.random() < 0.6 else int(rng.choice([1, *sizes])) for _ in range(2)]
            a, b, mask = (sample_int8(rng, (length,)) for length in (n, *lengths))
            mask = np.where(rng.random(mask.shape) < 0.5, mask, 0).astype(np.int8)
            yield Case((a, b, mask), {"inverted": int(rng.integers(0, 2))})
