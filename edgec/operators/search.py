# SPDX-License-Identifier: Apache-2.0
"""Largest and smallest elements along an axis, and where they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import Orders, RowAccess, Rows, by_row
from edgec.operators.elementwise import sample_int8
from edgec.operators.integer import Int8
from edgec.operators.record import Access, Array, Case, TensorType, operator
from edgec.operators.reduce import along_terms, plane_rows


def _sample(rng: np.random.Generator) -> Int8:
    shape = tuple(int(v) for v in rng.integers(1, 10, 3))
    return sample_int8(rng, shape) if rng.random() < 0.5 else rng.integers(-2, 2, shape).astype(np.int8)  # ties


@operator("reduce_extreme_s8", inputs=("x",), access=Access.WHOLE)
class ReduceExtremeS8:
    """x int8 [O, R, I] -> y int8 [O, I]: the largest element over R, or the smallest with `smallest`."""

    @staticmethod
    def infer(types: Sequence[TensorType], smallest: int = 0) -> TensorType:
        outer, _, inner = types[0].shape
        return TensorType((outer, inner), "int8")

    @staticmethod
    def reference(x: Int8, smallest: int = 0) -> Int8:
        return np.asarray(x.min(axis=1) if smallest else x.max(axis=1))

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, smallest: int = 0) -> Any:
        O, R, I = types[0].shape
        pick = T.min if smallest else T.max

        @T.prim_func(private=True, s_tir=True)
        def reduce_extreme_s8(x: T.Buffer((O, R, I), "int8"), y: T.Buffer((O, I), "int8")):
            for o in range(O):
                for i in range(I):
                    best = T.alloc_buffer((1,), "int8")
                    best[0] = x[o, 0, i]
                    for r in range(R):
                        best[0] = pick(best[0], x[o, r, i])
                    y[o, i] = best[0]

        return reduce_extreme_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], smallest: int = 0) -> Rows:
        return (plane_rows(types[0].shape),)

    @staticmethod
    def read_order(types: Sequence[TensorType], smallest: int = 0) -> Orders:
        return (along_terms(types[0].shape),)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            yield Case((_sample(rng),), {"smallest": int(rng.integers(0, 2))})


@operator("arg_extreme_s8", inputs=("x",), access=Access.WHOLE)
class ArgExtremeS8:
    """x int8 [O, R, I] -> y int32 [O, I]: index over R of the largest element (smallest with `smallest`).

    Of equal ones the first, or the last with `last`.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], smallest: int = 0, last: int = 0) -> TensorType:
        outer, _, inner = types[0].shape
        return TensorType((outer, inner), "int32")

    @staticmethod
    def reference(x: Int8, smallest: int = 0, last: int = 0) -> Array:
        signed = -x.astype(np.int32) if smallest else x.astype(np.int32)
        index = x.shape[1] - 1 - signed[:, ::-1].argmax(axis=1) if last else signed.argmax(axis=1)
        return np.asarray(index, np.int32)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, smallest: int = 0, last: int = 0) -> Any:
        O, R, I = types[0].shape

        def better(new: Any, old: Any) -> Any:
            if smallest:
                return new <= old if last else new < old
            return new >= old if last else new > old

        @T.prim_func(private=True, s_tir=True)
        def arg_extreme_s8(x: T.Buffer((O, R, I), "int8"), y: T.Buffer((O, I), "int32")):
            for o in range(O):
                for i in range(I):
                    best = T.alloc_buffer((1,), "int32")
                    best[0] = T.int32(0)
                    for r in range(R):
                        if better(x[o, r, i], x[o, best[0], i]):
                            best[0] = r
                    y[o, i] = best[0]

        return arg_extreme_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], smallest: int = 0, last: int = 0) -> Rows:
        return (plane_rows(types[0].shape),)

    @staticmethod
    def read_order(types: Sequence[TensorType], smallest: int = 0, last: int = 0) -> Orders:
        return (along_terms(types[0].shape),)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            yield Case((_sample(rng),), {"smallest": int(rng.integers(0, 2)), "last": int(rng.integers(0, 2))})


@operator("top_k_s8", inputs=("x",), access=Access.WHOLE)
class TopKS8:
    """x int8 [O, R, I] -> y int8 [O, K, I]: the K largest over R in order (the smallest with `smallest`).

    With `indices`, int32 indices in their place. Of equal ones the first comes first.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], k: int, smallest: int = 0, indices: int = 0) -> TensorType:
        outer, terms, inner = types[0].shape
        if not 1 <= k <= terms:
            raise ValueError(f"top_k_s8: {k} of {terms} elements")
        return TensorType((outer, k, inner), "int32" if indices else "int8")

    @staticmethod
    def reference(x: Int8, k: int, smallest: int = 0, indices: int = 0) -> Array:
        signed = x.astype(np.int32) if smallest else -x.astype(np.int32)
        order = np.argsort(signed, axis=1, kind="stable")[:, :k]
        return order.astype(np.int32) if indices else np.take_along_axis(x, order, axis=1)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, k: int, smallest: int = 0, indices: int = 0) -> Any:
        O, R, I = types[0].shape
        sign, where = T.int32(-1 if smallest else 1), bool(indices)

        @T.prim_func(private=True, s_tir=True)
        def top_k_s8(x: T.Buffer((O, R, I), "int8"), y: T.Buffer((O, k, I), out.dtype)):
            for o in range(O):
                for i in range(I):
                    # The next one is the best of those that come after the last in (value, index) order.
                    last = T.alloc_buffer((2,), "int32")
                    best = T.alloc_buffer((2,), "int32")
                    last[0] = T.int32(256)
                    last[1] = T.int32(-1)
                    for j in range(k):
                        best[0] = T.int32(-256)
                        best[1] = T.int32(0)
                        for r in range(R):
                            if T.Cast("int32", x[o, r, i]) * sign > best[0] and (
                                T.Cast("int32", x[o, r, i]) * sign < last[0]
                                or (T.Cast("int32", x[o, r, i]) * sign == last[0] and r > last[1])
                            ):
                                best[0] = T.Cast("int32", x[o, r, i]) * sign
                                best[1] = r
                        last[0] = best[0]
                        last[1] = best[1]
                        if where:
                            y[o, j, i] = best[1]
                        else:
                            y[o, j, i] = x[o, best[1], i]

        return top_k_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], k: int, smallest: int = 0, indices: int = 0) -> Rows:
        _, terms, inner = types[0].shape
        return (RowAccess(k * inner, terms * inner),)

    @staticmethod
    def read_order(types: Sequence[TensorType], k: int, smallest: int = 0, indices: int = 0) -> Orders:
        outer, terms, inner = types[0].shape
        return (by_row(outer, terms * inner, k * inner),)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            x = _sample(rng)
            k = int(rng.integers(1, x.shape[1] + 1))
            flags = {"smallest": int(rng.integers(0, 2)), "indices": int(rng.integers(0, 2))}
            yield Case((x,), {"k": k, **flags})
