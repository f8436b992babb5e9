# SPDX-License-Identifier: Apache-2.0
"""Operators with int16 activations (zero point 0): sums, means, copies and the way to int8 and back.

They carry the residual stream where int8 costs too much, and with `linear16` and `product16` states.
Multipliers are 30 bits, so that no result of 16 bits is off by more than its own rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.access import Orders, RowAccess, Rows, by_element, default_orders, default_rows
from edgec.operators.elementwise import broadcast_pair
from edgec.operators.integer import Int32, Int64, as_int32, multipliers
from edgec.operators.movement import ConcatS8, StridedCopyS8
from edgec.operators.record import Access, Array, Case, TensorType, operator
from edgec.operators.reduce import MeanS8

Int16 = npt.NDArray[np.int16]
LONGEST_SUM = 2**15  # terms of at most 2^16 in an int32
LARGEST_RATIO = 2.0**12  # keeps (q - zero_point) * ratio within 31 bits


@operator(
    "add_s16",
    inputs=("a", "b", "params"),
    constants=("params",),
    parameters=("a_zero_point", "b_zero_point", "a_mult", "b_mult", "shift", "zero_point"),
    access=Access.WHOLE,
)
class AddS16:
    """a [O, N], b [O or 1, N or 1] -> y [O, N], int8 or int16 each: `sat(((a-za)*a_mult + (b-zb)*b_mult) >> shift)`.

    Attributes `a`, `b`, `y`: bits of each, not all 8. Sums are 64 bits wide; the shift rounds half up, then the
    zero point is added and the sum saturates to the type of y. A negative b_mult subtracts.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], a: int, b: int, y: int) -> TensorType:
        check_bits("add_s16", types, (a, b))
        return TensorType(broadcast_pair("add_s16", types).shape, f"int{y}")

    @staticmethod
    def reference(a_: Array, b_: Array, params: Int32, a: int, b: int, y: int) -> Array:
        za, zb, a_mult, b_mult, shift, zero_point = (int(v) for v in params)
        total = (a_.astype(np.int64) - za) * a_mult + (b_.astype(np.int64) - zb) * b_mult
        return saturated(((total + (1 << (shift - 1))) >> shift) + zero_point, y)

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, a: int, b: int, y: int) -> Any:
        (O, N), (BO, BN) = out.shape, types[1].shape
        A, B, Y = types[0].dtype, types[1].dtype, out.dtype
        LOW, HIGH = -(2 ** (y - 1)), 2 ** (y - 1) - 1

        @T.prim_func(private=True, s_tir=True)
        def add_s16(
            a: T.Buffer((O, N), A),
            b: T.Buffer((BO, BN), B),
            params: T.Buffer((6,), "int32"),
            y: T.Buffer((O, N), Y),
        ):
            for o in range(O):
                for n in range(N):
                    y[o, n] = T.Cast(
                        Y,
                        T.max(
                            T.min(
                                T.Cast(
                                    "int32",
                                    (
                                        T.Cast("int64", T.Cast("int32", a[o, n]) - params[0])
                                        * T.Cast("int64", params[2])
                                        + T.Cast(
                                            "int64",
                                            T.Cast("int32", b[o if BO > 1 else 0, n if BN > 1 else 0]) - params[1],
                                        )
                                        * T.Cast("int64", params[3])
                                        + (T.int64(1) << T.Cast("int64", params[4] - 1))
                                    )
                                    >> T.Cast("int64", params[4]),
                                )
                                + params[5],
                                T.int32(HIGH),
                            ),
                            T.int32(LOW),
                        ),
                    )

        return add_s16

    @staticmethod
    def rows_read(types: Sequence[TensorType], a: int, b: int, y: int) -> Rows:
        shapes = [t.shape for t in types]
        return default_rows(Access.ELEMENTWISE, shapes, shapes[0], 2)

    @staticmethod
    def read_order(types: Sequence[TensorType], a: int, b: int, y: int) -> Orders:
        shapes = [t.shape for t in types]
        return default_orders(Access.ELEMENTWISE, shapes, shapes[0], 2)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            a, b, y = (int(v) for v in rng.choice([8, 16], 3))
            if a == b == y == 8:
                continue
            rows, width = (int(v) for v in rng.integers(1, 12, 2))
            small = (int(rng.choice([1, rows])), int(rng.choice([1, width])))
            quants = [sample_quant(rng, bits) for bits in (a, b, y)]
            params = add_params(quants[0], quants[1], quants[2], int(rng.choice([-1, 1])))
            yield Case(
                (sample_wide(rng, (rows, width), a), sample_wide(rng, small, b), params), {"a": a, "b": b, "y": y}
            )


def add_params(a: tuple[float, int], b: tuple[float, int], result: tuple[float, int], sign: int = 1) -> Int32:
    """Parameters of `add_s16` for the (scale, zero_point) of a, b and the result; `sign` -1 subtracts b.

    Raises:
        ValueError: a ratio of scales that the fixed point cannot hold.
    """
    ra, rb = a[0] / result[0], b[0] / result[0]
    shift = binary_point(max(ra, rb))
    ma, mb = round(ra * 2.0**shift), sign * round(rb * 2.0**shift)
    return as_int32("add_s16 parameters", [a[1], b[1], ma, mb, shift, result[1]])


@operator(
    "requantize_s16",
    inputs=("x", "params"),
    constants=("params",),
    parameters=("x_zero_point", "mult", "shift", "zero_point", "low", "high"),
    access=Access.WHOLE,
)
class RequantizeS16:
    """x [N] -> y [N], int8 or int16 each: `clip((((x - zx) * mult + half) >> shift) + zero_point, low, high)`.

    Attributes `x`, `y`: bits of each, not both 8. Tighter limits than the type's are a Relu or Clip.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], x: int, y: int) -> TensorType:
        check_bits("requantize_s16", types, (x,))
        return TensorType(types[0].shape, f"int{y}")

    @staticmethod
    def reference(x_: Array, params: Int32, x: int, y: int) -> Array:
        zx, mult, shift, zero_point, low, high = (int(v) for v in params)
        result = (((x_.astype(np.int64) - zx) * mult + (1 << (shift - 1))) >> shift) + zero_point
        clipped: Array = np.clip(result, low, high).astype(f"int{y}")
        return clipped

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, x: int, y: int) -> Any:
        (N,) = out.shape
        X, Y = types[0].dtype, out.dtype

        @T.prim_func(private=True, s_tir=True)
        def requantize_s16(x: T.Buffer((N,), X), params: T.Buffer((6,), "int32"), y: T.Buffer((N,), Y)):
            for n in range(N):
                y[n] = T.Cast(
                    Y,
                    T.max(
                        T.min(
                            T.Cast(
                                "int32",
                                (
                                    T.Cast("int64", T.Cast("int32", x[n]) - params[0]) * T.Cast("int64", params[1])
                                    + (T.int64(1) << T.Cast("int64", params[2] - 1))
                                )
                                >> T.Cast("int64", params[2]),
                            )
                            + params[3],
                            params[5],
                        ),
                        params[4],
                    ),
                )

        return requantize_s16

    @staticmethod
    def rows_read(types: Sequence[TensorType], x: int, y: int) -> Rows:
        return (RowAccess(1, 1), None)

    @staticmethod
    def read_order(types: Sequence[TensorType], x: int, y: int) -> Orders:
        return (by_element(types[0].shape[0]), None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            x, y = (int(v) for v in rng.choice([8, 16], 2))
            if x == y == 8:
                continue
            low, high = sorted(int(v) for v in rng.integers(-(2 ** (y - 1)), 2 ** (y - 1), 2))
            limits = (low, high) if rng.random() < 0.3 else None
            params = requantize_params(sample_quant(rng, x), sample_quant(rng, y), y, limits)
            yield Case((sample_wide(rng, (int(rng.integers(1, 300)),), x), params), {"x": x, "y": y})


def requantize_params(
    source: tuple[float, int], result: tuple[float, int], bits: int, limits: tuple[int, int] | None = None
) -> Int32:
    """Parameters of `requantize_s16` between two (scale, zero_point).

    Args:
        source, result: quantization of x and y.
        bits: of y.
        limits: smallest and largest y; of its type without.

    Raises:
        ValueError: a ratio of scales that the fixed point cannot hold.
    """
    ratio = source[0] / result[0]
    shift = binary_point(ratio)
    low, high = limits or (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    params = [source[1], round(ratio * 2.0**shift), shift, result[1], low, high]
    return as_int32("requantize_s16 parameters", params)


@operator(
    "mean_s16",
    inputs=("x", "params"),
    constants=("params",),
    parameters=("x_zero_point", "mult", "shift", "zero_point"),
    access=Access.WHOLE,
)
class MeanS16:
    """x int16 [O, R, I] -> y int8 [O, I]: as `mean_s8`."""

    reference = staticmethod(MeanS8.reference)
    tir = staticmethod(MeanS8.tir)
    rows_read = staticmethod(MeanS8.rows_read)
    read_order = staticmethod(MeanS8.read_order)

    @staticmethod
    def infer(types: Sequence[TensorType], wide: int = 0) -> TensorType:
        outer, terms, inner = types[0].shape
        if terms > LONGEST_SUM or types[0].dtype != "int16":
            raise ValueError(f"mean_s16: {terms} terms of {types[0].dtype}, at most {LONGEST_SUM} of int16")
        return TensorType((outer, inner), "int8")

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            shape = tuple(int(v) for v in rng.integers(1, 12, 3))
            wide = int(rng.random() < 0.5)
            mult, shift = multipliers(10.0 ** (rng.uniform(-12, -6) if wide else rng.uniform(-5, -1)), bool(wide))
            params = np.array([0, mult[0], shift[0], int(rng.integers(-128, 128))], np.int32)
            yield Case((sample_wide(rng, shape, 16), params), {"wide": wide})


@operator("strided_copy_s16", inputs=("x",), access=Access.WHOLE)
class StridedCopyS16:
    """x int16 [N] -> y int16 of `shape`: as `strided_copy_s8`."""

    infer = staticmethod(StridedCopyS8.infer)
    reference = staticmethod(StridedCopyS8.reference)
    tir = staticmethod(StridedCopyS8.tir)
    rows_read = staticmethod(StridedCopyS8.rows_read)
    read_order = staticmethod(StridedCopyS8.read_order)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        for case in StridedCopyS8.samples(rng):
            yield Case((sample_wide(rng, case.inputs[0].shape, 16),), case.attrs)


@operator("concat_s16", inputs=("a", "b"), access=Access.WHOLE)
class ConcatS16:
    """a int16 [O, M], b int16 [O, N] -> y int16 [O, M + N]: as `concat_s8`."""

    infer = staticmethod(ConcatS8.infer)
    reference = staticmethod(ConcatS8.reference)
    tir = staticmethod(ConcatS8.tir)
    rows_read = staticmethod(ConcatS8.rows_read)
    read_order = staticmethod(ConcatS8.read_order)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        for case in ConcatS8.samples(rng):
            yield Case(tuple(sample_wide(rng, a.shape, 16) for a in case.inputs))


def binary_point(ratio: float, most: int = 46) -> int:
    """Binary point, `most` at most, with which `ratio` is a multiplier of up to 30 bits."""
    if not (math.isfinite(ratio) and 0 < ratio <= LARGEST_RATIO):
        raise ValueError(f"a ratio of scales of {ratio:g} is out of range")
    return min(29 - math.ceil(math.log2(ratio)), most)


def check_bits(name: str, types: Sequence[TensorType], bits: Sequence[int]) -> None:
    """Raise ValueError unless the first inputs have so many bits."""
    for kind, width in zip(types, bits, strict=False):
        if kind.dtype != f"int{width}":
            raise ValueError(f"{name}: {kind.dtype} where int{width} is declared")


def saturated(values: Int64, bits: int) -> Array:
    """Saturate whole numbers to int8 or int16."""
    info = np.iinfo(f"int{bits}")
    result: Array = np.clip(values, info.min, info.max).astype(info.dtype)
    return result


def sample_quant(rng: np.random.Generator, bits: int) -> tuple[float, int]:
    """A random (scale, zero_point) of a tensor of so many bits."""
    scale = float(10.0 ** rng.uniform(-1, 0)) / (256 if bits == 16 else 1)
    return scale, int(rng.integers(-128, 128)) if bits == 8 else 0


def sample_wide(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> Array:
    """Activations over the whole range, now and then only its ends."""
    info = np.iinfo(f"int{bits}")
    ends = rng.random() < 0.2
    values = rng.choice([info.min, info.max], shape) if ends else rng.integers(info.min, info.max + 1, shape)
    result: Array = values.astype(info.dtype)
    return result
