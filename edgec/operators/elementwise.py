# SPDX-License-Identifier: Apache-2.0
"""Elementwise operators in integers: any function of one tensor as a table, sums and products of two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.integer import (
    Int8,
    Int32,
    as_int32,
    multipliers,
    requantize,
    sat8,
    tir_requantize,
    tir_sat8,
)
from edgec.operators.record import Access, Array, Case, TensorType, operator


@operator("table_s8", inputs=("x", "table"), constants=("table",), access=Access.ELEMENTWISE)
class TableS8:
    """x int8 [N], table int8 [256] -> y int8 [N]: `y = table[x + 128]`."""

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        return types[0]

    @staticmethod
    def reference(x: Int8, table: Int8) -> Int8:
        return table[x.astype(np.int64) + 128]

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        (N,) = out.shape

        @T.prim_func(private=True, s_tir=True)
        def table_s8(x: T.Buffer((N,), "int8"), table: T.Buffer((256,), "int8"), y: T.Buffer((N,), "int8")):
            for i in range(N):
                y[i] = table[T.Cast("int32", x[i]) + 128]

        return table_s8

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            n = int(rng.integers(1, 300))
            yield Case((sample_int8(rng, (n,)), sample_int8(rng, (256,))))


def add_params(a: tuple[float, int], b: tuple[float, int], result: tuple[float, int], sign: int = 1) -> Int32:
    """Parameters of `add_s8` for the (scale, zero_point) of a, b and the result; `sign` -1 subtracts b.

    Both multipliers are 16-bit numbers, so that a core with dual 16-bit multiplication adds in one
    instruction; the larger ratio takes all 15 bits, so the error stays below 0.004 of the last place times it.

    Raises:
        ValueError: a ratio of scales that the fixed point cannot hold.
    """
    ra, rb = a[0] / result[0], b[0] / result[0]
    shift = 14 - math.ceil(math.log2(max(ra, rb)))
    if not 1 <= shift <= 20:
        raise ValueError(f"addition of scales {a[0]:g} and {b[0]:g} into {result[0]:g}: ratio out of range")
    ma, mb = round(ra * 2.0**shift), sign * round(rb * 2.0**shift)
    offset = (result[1] << shift) + (1 << (shift - 1)) - ma * a[1] - mb * b[1]
    return as_int32("add_s8 parameters", np.array([ma, mb, offset, shift]))


@operator(
    "add_s8",
    inputs=("a", "b", "params"),
    constants=("params",),
    parameters=("a_mult", "b_mult", "offset", "shift"),
    access=Access.ELEMENTWISE,
)
class AddS8:
    """a int8 [O, N], b int8 [O or 1, N or 1] -> y int8 [O, N]: `y = sat8((a*a_mult + b*b_mult + offset) >> shift)`.

    Zero points and the half of the rounding are in the offset; a negative b_mult subtracts.
    """

    @staticmethod
    def infer(types: Sequence[TensorType]) -> TensorType:
        return broadcast_pair("add_s8", types)

    @staticmethod
    def reference(a: Int8, b: Int8, params: Int32) -> Int8:
        a_mult, b_mult, offset, shift = (int(v) for v in params)
        return sat8((a.astype(np.int64) * a_mult + b.astype(np.int64) * b_mult + offset) >> shift)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType) -> Any:
        (O, N), (BO, BN) = out.shape, types[1].shape

        @T.prim_func(private=True, s_tir=True)
        def add_s8(
            a: T.Buffer((O, N), "int8"),
            b: T.Buffer((BO, BN), "int8"),
            params: T.Buffer((4,), "int32"),
            y: T.Buffer((O, N), "int8"),
        ):
            for o in range(O):
                for n in range(N):
                    y[o, n] = tir_sat8(
                        T,
                        (
                            T.Cast("int32", a[o, n]) * params[0]
                            + T.Cast("int32", b[o if BO > 1 else 0, n if BN > 1 else 0]) * params[1]
                            + params[2]
                        )
                        >> params[3],
                    )

        return add_s8

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            a, b = sample_pair(rng)
            quant = [(float(10.0 ** rng.uniform(-2, 0)), int(rng.integers(-128, 128))) for _ in range(3)]
            yield Case((a, b, add_params(quant[0], quant[1], quant[2], int(rng.choice([-1, 1])))))


@operator(
    "mul_s8",
    inputs=("a", "b", "params"),
    constants=("params",),
    parameters=("a_zero_point", "b_zero_point", "mult", "shift", "zero_point"),
    access=Access.ELEMENTWISE,
)
class MulS8:
    """a int8 [O, N], b int8 [O or 1, N or 1] -> y int8 [O, N]: `y = requantize((a - za) * (b - zb))`."""

    @staticmethod
    def infer(types: Sequence[TensorType], wide: int = 0) -> TensorType:
        return broadcast_pair("mul_s8", types)

    @staticmethod
    def reference(a: Int8, b: Int8, params: Int32, wide: int = 0) -> Int8:
        za, zb, mult, shift, zero_point = (int(v) for v in params)
        return requantize((a.astype(np.int64) - za) * (b.astype(np.int64) - zb), mult, shift, zero_point, bool(wide))

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, wide: int = 0) -> Any:
        (O, N), (BO, BN) = out.shape, types[1].shape

        @T.prim_func(private=True, s_tir=True)
        def mul_s8(
            a: T.Buffer((O, N), "int8"),
            b: T.Buffer((BO, BN), "int8"),
            params: T.Buffer((5,), "int32"),
            y: T.Buffer((O, N), "int8"),
        ):
            for o in range(O):
                for n in range(N):
                    y[o, n] = tir_requantize(
                        T,
                        (T.Cast("int32", a[o, n]) - params[0])
                        * (T.Cast("int32", b[o if BO > 1 else 0, n if BN > 1 else 0]) - params[1]),
                        params[2],
                        params[3],
                        params[4],
                        bool(wide),
                    )

        return mul_s8

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            a, b = sample_pair(rng)
            wide = int(rng.random() < 0.2)
            mult, shift = multipliers(10.0 ** (rng.uniform(-10, -6) if wide else rng.uniform(-5, 0.5)), bool(wide))
            za, zb, zy = (int(v) for v in rng.integers(-128, 128, 3))
            yield Case((a, b, np.array([za, zb, mult[0], shift[0], zy], np.int32)), {"wide": wide})


def broadcast_pair(name: str, types: Sequence[TensorType]) -> TensorType:
    """Type of a [O, N] with which b [O or 1, N or 1] is combined; ValueError when it does not fit."""
    (rows, width), b = types[0].shape, types[1].shape
    if b[0] not in (1, rows) or b[1] not in (1, width):
        raise ValueError(f"{name}: b {b} does not broadcast to a {types[0].shape}")
    return types[0]


def sample_int8(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    """Activations over the whole range, now and then only its ends."""
    values: Array = rng.choice([-128, 127], shape) if rng.random() < 0.2 else rng.integers(-128, 128, shape)
    return values.astype(np.int8)


def sample_pair(rng: np.random.Generator) -> tuple[Int8, Int8]:
    """Two operands of which the second may be broadcast."""
    rows, width = (int(v) for v in rng.integers(1, 12, 2))
    small = (int(rng.choice([1, rows])), int(rng.choice([1, width])))
    return sample_int8(rng, (rows, width)), sample_int8(rng, small)
