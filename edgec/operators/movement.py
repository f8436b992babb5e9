# SPDX-License-Identifier: Apache-2.0
"""Data movement: every transpose, slice, gather of one index and expand is one strided copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import UNREAD, Orders, ReadOrder, RowAccess, Rows
from edgec.operators.integer import Int8, Int64, product
from edgec.operators.record import Access, Array, Case, TensorType, operator


def strided_index(offset: int, shape: Sequence[int], strides: Sequence[int]) -> Int64:
    """The element that each element of the copy is."""
    index = np.full((), offset, np.int64)
    for size, stride in zip(shape, strides, strict=True):
        index = index[..., None] + np.arange(size) * stride
    return index


def strided_rows(offset: int, shape: Sequence[int], strides: Sequence[int]) -> RowAccess | None:
    """The rows of a copy that move on evenly through its input, where there are such.

    Of all ways to cut the copy into rows, the leading axes of which lie evenly, the one that reads the least for a
    row, and of these the one with the smallest rows. A row of the input is what the copy moves on by.
    """
    axes = [(int(n), int(s)) for n, s in zip(shape, strides, strict=True) if n > 1]
    best: tuple[int, int, RowAccess] | None = None
    step = 0
    for cut, (count, stride) in enumerate(axes):
        if cut and step != count * stride:
            break
        step = stride
        if step < 1:
            break
        inner = axes[cut + 1 :]
        low = offset + sum(min((n - 1) * s, 0) for n, s in inner)
        high = offset + sum(max((n - 1) * s, 0) for n, s in inner)
        access = RowAccess(product([n for n, _ in inner]), step, before=-(low // step), after=high // step)
        key = ((access.before + access.after + 1) * step, access.out_elements)
        if best is None or key < best[:2]:
            best = (*key, access)
    return best[2] if best else None


@operator("strided_copy_s8", inputs=("x",), access=Access.WHOLE)
class StridedCopyS8:
    """x int8 [N] -> y int8 of `shape`: element (i, j, ...) is `x[offset + i*strides[0] + j*strides[1] + ...]`.

    Strides are in elements; 0 repeats, negative walks backwards.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], offset: int, shape: Sequence[int], strides: Sequence[int]) -> TensorType:
        reach = [(int(n) - 1) * int(s) for n, s in zip(shape, strides, strict=True)]
        low, high = offset + sum(min(r, 0) for r in reach), offset + sum(max(r, 0) for r in reach)
        if low < 0 or high >= types[0].shape[0]:
            raise ValueError(f"strided_copy_s8: reads {low}..{high} of {types[0].shape[0]} elements")
        return TensorType(tuple(int(d) for d in shape), types[0].dtype)

    @staticmethod
    def reference(x: Int8, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Int8:
        return x[strided_index(offset, shape, strides)]

    @staticmethod
    def tir(
        T: Any,
        types: Sequence[TensorType],
        out: TensorType,
        offset: int,
        shape: Sequence[int],
        strides: Sequence[int],
    ) -> Any:
        N = types[0].shape[0]
        # At least four axes, the missing ones of size 1, so that one PrimFunc serves every rank to six.
        A, B, C, D, E, F = (1,) * (6 - len(shape)) + tuple(int(d) for d in shape)
        a, b, c, d, e, f = (0,) * (6 - len(shape)) + tuple(int(s) for s in strides)
        total, X = product(shape), out.dtype

        @T.prim_func(private=True, s_tir=True)
        def strided_copy_s8(x: T.Buffer((N,), X), y: T.Buffer(out.shape, X)):
            flat = T.decl_buffer((total,), X, data=y.data)
            for i0 in range(A):
                for i1 in range(B):
                    for i2 in range(C):
                        for i3 in range(D):
                            for i4 in range(E):
                                for i5 in range(F):
                                    flat[((((i0 * B + i1) * C + i2) * D + i3) * E + i4) * F + i5] = x[
                                        offset + i0 * a + i1 * b + i2 * c + i3 * d + i4 * e + i5 * f
                                    ]

        return strided_copy_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], offset: int, shape: Sequence[int], strides: Sequence[int]) -> Rows:
        return (strided_rows(offset, shape, strides),)

    @staticmethod
    def read_order(types: Sequence[TensorType], offset: int, shape: Sequence[int], strides: Sequence[int]) -> Orders:
        return (ReadOrder(strided_index(offset, shape, strides).ravel()),)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            dims = [int(v) for v in rng.integers(1, 6, int(rng.integers(1, 5)))]
            source: Array = np.arange(product(dims)).reshape(dims)
            source = source.transpose(rng.permutation(len(dims)))
            source = source[tuple(slice(int(rng.integers(0, n)), None, int(rng.integers(1, 3))) for n in source.shape)]
            yield Case(
                (rng.integers(-128, 128, product(dims)).astype(np.int8),),
                {
                    "offset": int(source.flat[0]),
                    "shape": [int(n) for n in source.shape],
                    "strides": [int(s) // source.itemsize for s in source.strides],
                },
            )


@operator("concat_s8", inputs=("a", "b"), access=Access.WHOLE)
class ConcatS8:
    """a int8 [O, M], b int8 [O, N] -> y int8 [O, M + N]; both already in the scale of y."""

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        (rows, m), (rows_b, n) = types[0].shape, types[1].shape
        if rows != rows_b:
            raise ValueError(f"concat_s8: a has {rows} rows, b has {rows_b}")
        return TensorType((rows, m + n), types[0].dtype)

    @staticmethod
    def reference(a: Int8, b: Int8) -> Int8:
        return np.concatenate([a, b], axis=1)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        (O, M), N, X = types[0].shape, types[1].shape[1], out.dtype

        @T.prim_func(private=True, s_tir=True)
        def concat_s8(a: T.Buffer((O, M), X), b: T.Buffer((O, N), X), y: T.Buffer((O, M + N), X)):
            for o in range(O):
                for m in range(M):
                    y[o, m] = a[o, m]
                for n in range(N):
                    y[o, M + n] = b[o, n]

        return concat_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType]) -> Rows:
        (rows, m), n = types[0].shape, types[1].shape[1]
        if rows == 1:  # one behind the other
            return RowAccess(1, 1), RowAccess(1, 1, before=m, after=-m)
        return RowAccess(m + n, m), RowAccess(m + n, n)

    @staticmethod
    def read_order(types: Sequence[TensorType]) -> Orders:
        (rows, m), n = types[0].shape, types[1].shape[1]
        a, b = (np.full((rows, m + n), UNREAD, np.int64) for _ in range(2))
        a[:, :m] = np.arange(rows * m).reshape(rows, m)
        b[:, m:] = np.arange(rows * n).reshape(rows, n)
        return ReadOrder(a.ravel()), ReadOrder(b.ravel())

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            o, m, n = (int(v) for v in rng.integers(1, 20, 3))
            a, b = rng.integers(-128, 128, (o, m)), rng.integers(-128, 128, (o, n))
            yield Case((a.astype(np.int8), b.astype(np.int8)))
