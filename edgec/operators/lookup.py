# SPDX-License-Identifier: Apache-2.0
"""Copies that follow a list of indices: constant ones along an axis, or computed ones into a table of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import Orders, RowAccess, Rows, by_row
from edgec.operators.elementwise import sample_int8
from edgec.operators.integer import Int8, Int32
from edgec.operators.record import Access, Case, TensorType, operator

FILL = -1
"""Index that stands for the fill value."""


@operator("take_s8", inputs=("x", "index", "params"), constants=("index", "params"), parameters=("fill",),
          access=Access.WHOLE)  # fmt: skip
class TakeS8:
    """x int8 [O, A, I], index int32 [J] in [-1, A) -> y int8 [O, J, I]: `y[o, j] = x[o, index[j]]`.

    Where the index is -1, `fill`: gather along an axis, and every kind of padding.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        (outer, _, inner), (count,) = types[0].shape, types[1].shape
        return TensorType((outer, count, inner), "int8")

    @staticmethod
    def reference(x: Int8, index: Int32, params: Int32) -> Int8:
        taken = x[:, np.maximum(index, 0)]
        taken[:, index == FILL] = params[0]
        return taken

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        (O, A, I), (J,) = types[0].shape, types[1].shape

        @T.prim_func(private=True, s_tir=True)
        def take_s8(
            x: T.Buffer((O, A, I), "int8"),
            index: T.Buffer((J,), "int32"),
            params: T.Buffer((1,), "int32"),
            y: T.Buffer((O, J, I), "int8"),
        ):
            for o in range(O):
                for j in range(J):
                    if index[j] < T.int32(0):
                        for i in range(I):
                            y[o, j, i] = T.Cast("int8", params[0])
                    else:
                        for i in range(I):
                            y[o, j, i] = x[o, index[j], i]

        return take_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType]) -> Rows:
        (_, axis, inner), (count,) = types[0].shape, types[1].shape
        return (RowAccess(count * inner, axis * inner), None, None)

    @staticmethod
    def read_order(types: Sequence[TensorType]) -> Orders:
        (outer, axis, inner), (count,) = types[0].shape, types[1].shape
        return (by_row(outer, axis * inner, count * inner), None, None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            shape = tuple(int(v) for v in rng.integers(1, 9, 3))
            index = rng.integers(FILL, shape[1], int(rng.integers(1, 12))).astype(np.int32)
            yield Case((sample_int8(rng, shape), index, rng.integers(-128, 128, 1).astype(np.int32)))


@operator("embedding_s8", inputs=("index", "table"), constants=("table",), access=Access.WHOLE)
class EmbeddingS8:
    """index int32 [N], table int8 [V, D] -> y int8 [N, D]: `y[n] = table[index[n]]`.

    Negative indices count from the end; what is outside the table reads its nearest row, never other memory.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        if types[0].dtype != "int32":
            raise ValueError(f"embedding_s8: indices of type {types[0].dtype}")
        return TensorType((types[0].shape[0], types[1].shape[1]), "int8")

    @staticmethod
    def reference(index: Int32, table: Int8) -> Int8:
        wide = index.astype(np.int64)
        rows = np.clip(np.where(wide < 0, wide + len(table), wide), 0, len(table) - 1)
        return np.asarray(table[rows])

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        (N,), (V, D) = types[0].shape, types[1].shape

        @T.prim_func(private=True, s_tir=True)
        def embedding_s8(index: T.Buffer((N,), "int32"), table: T.Buffer((V, D), "int8"), y: T.Buffer((N, D), "int8")):
            for n in range(N):
                row = T.alloc_buffer((1,), "int32")
                row[0] = index[n]
                if row[0] < T.int32(0):
                    row[0] = row[0] + T.int32(V)
                row[0] = T.max(T.min(row[0], T.int32(V - 1)), T.int32(0))
                for d in range(D):
                    y[n, d] = table[row[0], d]

        return embedding_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType]) -> Rows:
        return (RowAccess(types[1].shape[1], 1), None)

    @staticmethod
    def read_order(types: Sequence[TensorType]) -> Orders:
        return (by_row(types[0].shape[0], 1, types[1].shape[1], "before"), None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            rows, width = (int(v) for v in rng.integers(1, 12, 2))
            index = rng.integers(-rows - 3, rows + 3, int(rng.integers(1, 9))).astype(np.int32)
            yield Case((index, sample_int8(rng, (rows, width))))
