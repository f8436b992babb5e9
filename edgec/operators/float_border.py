# SPDX-License-Identifier: Apache-2.0
"""The border between integers and float32: what ONNX calls DequantizeLinear and QuantizeLinear, as operators.

Both take one multiplication or division and the rest is exact, so that every core computes the same bits. Rounding is
to the nearest integer, halves to even, by adding 1.5 * 2^23, which leaves a float no bits for a fraction; before, the
value is brought into the range of the result, whose ends are integers, so that the order does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.access import Orders, RowAccess, Rows, by_element
from edgec.operators.record import Access, Array, Case, TensorType, operator

Float32 = npt.NDArray[np.float32]
NO_FRACTION = 1.5 * 2.0**23
"""Floats of this size count in whole steps."""


def dequantize_params(scale: float, zero_point: int) -> Float32:
    """Parameters of `dequantize_f32`.

    Raises:
        ValueError: a scale that float32 cannot hold as a positive number.
    """
    with np.errstate(over="ignore"):
        params = np.array([scale, zero_point], np.float32)
    if not (np.isfinite(params).all() and params[0] > 0):
        raise ValueError(f"a scale of {scale:g} is no positive float32")
    return params


def quantize_params(scale: float, zero_point: int, bits: int) -> Float32:
    """Parameters of `quantize_f32` for results of so many bits.

    Raises:
        ValueError: a scale that float32 cannot hold as a positive number.
    """
    low, high = -(2 ** (bits - 1)) - zero_point, 2 ** (bits - 1) - 1 - zero_point
    scale = float(dequantize_params(scale, zero_point)[0])
    return np.array([scale, low, high, NO_FRACTION, NO_FRACTION - zero_point], np.float32)


@operator(
    "dequantize_f32",
    inputs=("x", "params"),
    constants=("params",),
    parameters=("scale", "zero_point"),
    access=Access.WHOLE,
)
class DequantizeF32:
    """x int8 or int16 [N], params float32 [2] -> y float32 [N]: `y = (x - zero_point) * scale`, rounded once.

    Attribute `x`: bits of the operand.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], x: int) -> TensorType:
        if types[0].dtype != f"int{x}" or x not in (8, 16):
            raise ValueError(f"dequantize_f32: {types[0].dtype}, not int8 or int16")
        return TensorType(types[0].shape, "float32")

    @staticmethod
    def reference(x_: Array, params: Float32, x: int) -> Float32:
        centred: Float32 = x_.astype(np.float32) - params[1]  # exact: at most 17 bits
        with np.errstate(over="ignore"):
            result: Float32 = centred * params[0]
        return result

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, x: int) -> Any:
        (N,), X = out.shape, types[0].dtype

        @T.prim_func(private=True, s_tir=True)
        def dequantize_f32(x: T.Buffer((N,), X), params: T.Buffer((2,), "float32"), y: T.Buffer((N,), "float32")):
            for n in range(N):
                y[n] = (T.Cast("float32", x[n]) - params[1]) * params[0]

        return dequantize_f32

    @staticmethod
    def rows_read(types: Sequence[TensorType], x: int) -> Rows:
        return (RowAccess(1, 1), None)

    @staticmethod
    def read_order(types: Sequence[TensorType], x: int) -> Orders:
        return (by_element(types[0].shape[0]), None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            bits = int(rng.choice([8, 16]))
            x = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), int(rng.integers(1, 300))).astype(f"int{bits}")
            yield Case((x, dequantize_params(*_sample_quant(rng, bits))), {"x": bits})


@operator(
    "quantize_f32",
    inputs=("x", "params"),
    constants=("params",),
    parameters=("scale", "low", "high", "up", "down"),
    access=Access.WHOLE,
)
class QuantizeF32:
    """x float32 [N], params float32 [5] -> y int8 or int16 [N]: `y = sat(round(x / scale) + zero_point)`.

    Attribute `y`: bits of the result. As computed: `clamp(x / scale, low, high) + up - down`, where low and high are
    the ends of the type less the zero point, up is 1.5 * 2^23 and down the same less the zero point. The quotient is
    rounded to float32 and then to the nearest integer, halves to even, as QuantizeLinear does; infinities saturate.
    NaN, for which ONNX defines nothing, gives the lowest result.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], y: int) -> TensorType:
        if types[0].dtype != "float32" or y not in (8, 16):
            raise ValueError(f"quantize_f32: {types[0].dtype} to {y} bits, not float32 to 8 or 16")
        return TensorType(types[0].shape, f"int{y}")

    @staticmethod
    def reference(x_: Float32, params: Float32, y: int) -> Array:
        scale, low, high, up, down = params
        with np.errstate(all="ignore"):
            steps = x_ / scale
        above = np.where(steps > low, steps, low)  # NaN is not above anything
        result: Array = (np.where(above < high, above, high) + up - down).astype(f"int{y}")
        return result

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, y: int) -> Any:
        (N,), Y = out.shape, out.dtype

        @T.prim_func(private=True, s_tir=True)
        def quantize_f32(x: T.Buffer((N,), "float32"), params: T.Buffer((5,), "float32"), y: T.Buffer((N,), Y)):
            for n in range(N):
                y[n] = T.Cast(
                    Y,
                    T.Cast("int32", _clamped(T, x[n] / params[0], params[1], params[2]) + params[3] - params[4]),
                )

        return quantize_f32

    @staticmethod
    def rows_read(types: Sequence[TensorType], y: int) -> Rows:
        return (RowAccess(1, 1), None)

    @staticmethod
    def read_order(types: Sequence[TensorType], y: int) -> Orders:
        return (by_element(types[0].shape[0]), None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            y = int(rng.choice([8, 16]))
            scale, zero_point = _sample_quant(rng, y)
            wide = 2.0**y * (0.3 if rng.random() < 0.7 else 40.0)
            x = (rng.normal(0, wide, int(rng.integers(1, 300))) * scale).astype(np.float32)
            if rng.random() < 0.5:  # halves exactly, where the scale is a power of two
                scale = 2.0 ** int(rng.integers(-12, 5))
                x = (rng.integers(-(2**y), 2**y, x.size) * (scale / 2)).astype(np.float32)
            yield Case((x, quantize_params(scale, zero_point, y)), {"y": y})


def _clamped(T: Any, value: Any, low: Any, high: Any) -> Any:
    """As the reference does it; TVM's own max and min leave open what they make of NaN."""
    above = T.Select(value > low, value, low)
    return T.Select(above < high, above, high)


def _sample_quant(rng: np.random.Generator, bits: int) -> tuple[float, int]:
    return float(10.0 ** rng.uniform(-6, 2)), int(rng.integers(-128, 128)) if bits == 8 else 0
