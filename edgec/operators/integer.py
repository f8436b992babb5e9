# SPDX-License-Identifier: Apache-2.0
"""The integer arithmetic that every operator shares: multipliers, requantization, tables (docs/spec.md, Integers).

Real values are `scale * (q - zero_point)`. There is one requantization in the project, in two forms that
differ only in where precision is kept; both round half up once and saturate once, after the zero point:

* narrow: `a = sat32(acc << s)`, `y = sat8(((a * M + 2^30) >> 31) + zero_point)`, `M < 2^30`.
  On NEON `SQRDMULH(a, M)`, on Cortex-M4/M7/M33 `SMMULR(a, 2 * M)`.
* wide (tiny ratios, where `M` would have too few bits): `y = sat8(((acc * M + 2^(30+s)) >> (31+s)) + zero_point)`
  with `M` in `[2^29, 2^30)`; a channel with a ratio of 1/2 to 1 beside tiny ones has s = 0 and M to 2^31.

`tir_requantize` builds the same expression in TIR; it takes the TVMScript module as `T`, so that this
package never imports TVM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

INT8_MIN, INT8_MAX = -128, 127
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
# Largest error, in units of the last place of an int8 result, that rounding a narrow multiplier may add.
NARROW_ERROR = 0.005


def sat8(values: npt.NDArray[Any]) -> Int8:
    """Saturate whole numbers of any shape and dtype to int8."""
    saturated: Int8 = np.clip(values, INT8_MIN, INT8_MAX).astype(np.int8)
    return saturated


def needs_wide(ratios: npt.NDArray[np.float64], largest: npt.ArrayLike = 128.0) -> bool:
    """Whether a narrow multiplier would cost more than `NARROW_ERROR` of the last place for any ratio.

    A narrow multiplier is off by at most half of its last bit, 2^-32, so a result of magnitude `largest`
    is off by `largest * 2^-32 / ratio`.
    """
    return bool(np.any(np.asarray(largest) * 2.0**-32 / np.asarray(ratios, np.float64) > NARROW_ERROR))


def multipliers(ratios: npt.ArrayLike, wide: bool) -> tuple[Int32, npt.NDArray[np.uint8]]:
    """Fixed-point multipliers for `ratios` (float64 [N], > 0): `(mult int32 [N], shift uint8 [N])`.

    Raises:
        ValueError: a ratio that is not positive and finite or is outside what the form can hold.
    """
    flat = np.atleast_1d(np.asarray(ratios, np.float64))
    pairs = [_multiplier(float(r), wide) for r in flat]
    return (
        np.array([m for m, _ in pairs], np.int32),
        np.array([s for _, s in pairs], np.uint8),
    )


def _multiplier(ratio: float, wide: bool) -> tuple[int, int]:
    if not (math.isfinite(ratio) and ratio > 0):
        raise ValueError(f"requantization ratio {ratio} is not a positive number")
    if not wide:
        for shift in range(31):
            mult = round(ratio * 2.0 ** (31 - shift))
            if mult < 2**30:
                return mult, shift
        raise ValueError(f"requantization ratio {ratio} is too large")
    shift = 0
    while ratio * 2.0 ** (31 + shift) < 2.0**29 and shift < 31:
        shift += 1
    mult = round(ratio * 2.0 ** (31 + shift))
    if mult >= 2**30 and shift > 0:  # rounded up to the next power of two
        mult, shift = round(ratio * 2.0 ** (30 + shift)), shift - 1
    if mult >= 2**31:
        raise ValueError(f"requantization ratio {ratio} is too large for the wide form")
    return mult, shift


def requantize(
    acc: npt.NDArray[np.integer[Any]],
    mult: npt.ArrayLike,
    shift: npt.ArrayLike,
    zero_point: int,
    wide: bool = False,
) -> Int8:
    """Bring accumulators (int32 range, any shape) to int8; `mult` and `shift` broadcast over the last axis."""
    acc64 = acc.astype(np.int64)
    m, s = np.asarray(mult, np.int64), np.asarray(shift, np.int64)
    if wide:
        result = (acc64 * m + (np.int64(1) << (30 + s))) >> (31 + s)
    else:
        result = (np.clip(acc64 << s, INT32_MIN, INT32_MAX) * m + 2**30) >> 31
    return sat8(result + zero_point)


def tir_requantize(T: Any, acc: Any, mult: Any, shift: Any, zero_point: Any, wide: bool) -> Any:
    """The TIR expression equal to `requantize` of one int32 accumulator; an int8 expression."""
    acc64, m = T.Cast("int64", acc), T.Cast("int64", mult)
    one, s = T.int64(1), T.Cast("int64", shift)
    if wide:
        result = (acc64 * m + (one << (s + T.int64(30)))) >> (s + T.int64(31))
    else:
        # A product by a power of two, since C leaves the left shift of a negative number undefined.
        shifted = T.max(T.min(acc64 * (one << s), T.int64(INT32_MAX)), T.int64(INT32_MIN))
        result = (shifted * m + T.int64(2**30)) >> T.int64(31)
    return tir_sat8(T, T.Cast("int32", result) + zero_point)


def tir_sat8(T: Any, value: Any) -> Any:
    """Saturate an int32 TIR expression to int8."""
    return T.Cast("int8", T.max(T.min(value, T.int32(INT8_MAX)), T.int32(INT8_MIN)))


def quantize_real(values: npt.ArrayLike, scale: float, zero_point: int) -> Int8:
    """Nearest int8 to real values, halves to even as ONNX QuantizeLinear does."""
    return quantize_to("int8", values, scale, zero_point)


def quantize_to(dtype: str, values: npt.ArrayLike, scale: float, zero_point: int) -> npt.NDArray[Any]:
    """Nearest int8 or int16 to real values, halves to even as ONNX QuantizeLinear does; saturated."""
    limits = np.iinfo(dtype)
    q = np.rint(np.asarray(values, np.float64) / scale) + zero_point
    result: npt.NDArray[Any] = np.clip(q, limits.min, limits.max).astype(dtype)
    return result


def real_values(scale: float, zero_point: int) -> npt.NDArray[np.float64]:
    """The 256 real values of an int8 tensor, in the order of q = -128 .. 127."""
    return scale * (np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.float64) - zero_point)


def table_of(
    function: Callable[[npt.NDArray[np.float64]], npt.ArrayLike],
    source: tuple[float, int],
    result: tuple[float, int],
) -> Int8:
    """The int8 [256] table of an elementwise real function between two (scale, zero_point), entry q + 128."""
    return quantize_real(function(real_values(*source)), *result)


def as_int32(name: str, values: npt.ArrayLike) -> Int32:
    """`values` as int32, or ValueError when one does not fit (a constant that would wrap on the device)."""
    wide = np.asarray(values, np.int64)
    if wide.size and (wide.min() < INT32_MIN or wide.max() > INT32_MAX):
        raise ValueError(f"{name} needs more than 32 bits ({int(wide.min())} .. {int(wide.max())})")
    return wide.astype(np.int32)


def product(dims: Sequence[int]) -> int:
    """Number of elements of a shape."""
    return math.prod(int(d) for d in dims)
