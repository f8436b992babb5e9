# SPDX-License-Identifier: Apache-2.0
"""Convolutions in integers: channels last, weights per output channel (docs/spec.md, Integers).

The zero point of x is folded into the bias over all taps of the kernel, so the sum takes x as it is and a tap
outside the image reads the zero point of x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import Orders, ReadOrder, Rows
from edgec.operators.integer import Int8, Int32, multipliers, requantize, tir_requantize
from edgec.operators.record import Access, Array, Case, TensorType, operator
from edgec.operators.window import drawn_image, drawn_window, window_counts, window_rows, window_starts, windows

INPUTS = ("x", "w", "bias", "mult", "shift", "params")
PARAMETERS = ("x_zero_point", "zero_point")
MOST_UNROLLED = 25
"""Taps of a depthwise kernel up to which its sum is written out."""


@operator("conv2d_s8", inputs=INPUTS, constants=INPUTS[1:], parameters=PARAMETERS, access=Access.WHOLE)
class Conv2dS8:
    """x int8 [H, W, C], w int8 [N, kh, kw, C/group] -> y int8 [Ho, Wo, N]; bias, mult int32 [N], shift uint8 [N].

    Attributes: strides (h, w), pads (top, left, bottom, right), dilations (h, w), group, wide.
    """

    @staticmethod
    def infer(
        types: Sequence[TensorType],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        wide: int = 0,
    ) -> TensorType:
        x, (n, kh, kw, c) = types[0].shape, types[1].shape
        if x[2] != c * group or n % group or any(t.shape != (n,) for t in types[2:5]):
            raise ValueError(f"conv2d_s8: x {x} does not fit w {types[1].shape} in {group} groups")
        return TensorType((*window_counts(x, (kh, kw), strides, pads, dilations), n), "int8")

    @staticmethod
    def reference(
        x: Int8,
        w: Int8,
        bias: Int32,
        mult: Int32,
        shift: Array,
        params: Int32,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        wide: int = 0,
    ) -> Int8:
        taps = windows(x.astype(np.int64), w.shape[1:3], strides, pads, dilations, int(params[0]))
        rows, columns, kh, kw, _ = taps.shape
        split = (
            taps.reshape(rows, columns, kh * kw, group, -1).transpose(3, 0, 1, 2, 4).reshape(group, rows * columns, -1)
        )
        weights = w.astype(np.int64).reshape(group, len(w) // group, -1)
        acc = (split @ weights.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(rows, columns, len(w)) + bias
        return requantize(acc, mult, shift, int(params[1]), bool(wide))

    @staticmethod
    def tir(
        T: Any,
        types: Sequence[TensorType],
        out: TensorType,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        wide: int = 0,
    ) -> Any:
        (H, W, C), (N, KH, KW, Cg) = types[0].shape, types[1].shape
        OH, OW, G, Ng, K = out.shape[0], out.shape[1], group, N // group, KH * KW * Cg
        sh, sw, dh, dw, top, left = *map(int, strides), *map(int, dilations), int(pads[0]), int(pads[1])

        @T.prim_func(private=True, s_tir=True)
        def conv2d_s8(
            x: T.Buffer((H, W, C), "int8"),
            w: T.Buffer((N, KH, KW, Cg), "int8"),
            bias: T.Buffer((N,), "int32"),
            mult: T.Buffer((N,), "int32"),
            shift: T.Buffer((N,), "uint8"),
            params: T.Buffer((2,), "int32"),
            y: T.Buffer((OH, OW, N), "int8"),
        ):
            weights = T.decl_buffer((N * K,), "int8", data=w.data)
            taps = T.alloc_buffer((K,), "int8")
            for oh in range(OH):
                for ow in range(OW):
                    for g in range(G):
                        # One window side by side, so that every channel is a plain product.
                        for kh in range(KH):
                            for kw in range(KW):
                                if (
                                    oh * sh + kh * dh - top >= 0
                                    and oh * sh + kh * dh - top < H
                                    and ow * sw + kw * dw - left >= 0
                                    and ow * sw + kw * dw - left < W
                                ):
                                    for c in range(Cg):
                                        taps[(kh * KW + kw) * Cg + c] = x[
                                            oh * sh + kh * dh - top, ow * sw + kw * dw - left, g * Cg + c
                                        ]
                                else:
                                    for c in range(Cg):
                                        taps[(kh * KW + kw) * Cg + c] = T.Cast("int8", params[0])
                        for n in range(Ng):
                            acc = T.alloc_buffer((1,), "int32")
                            acc[0] = bias[g * Ng + n]
                            for k in range(K):
                                acc[0] = acc[0] + T.Cast("int32", taps[k]) * T.Cast(
                                    "int32", weights[(g * Ng + n) * K + k]
                                )
                            y[oh, ow, g * Ng + n] = tir_requantize(
                                T, acc[0], mult[g * Ng + n], shift[g * Ng + n], params[1], bool(wide)
                            )

        return conv2d_s8

    @staticmethod
    def macs(types: Sequence[TensorType], out: TensorType) -> int:
        return out.shape[0] * out.shape[1] * int(np.prod(types[1].shape))

    @staticmethod
    def rows_read(
        types: Sequence[TensorType],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        wide: int = 0,
    ) -> Rows:
        x, (n, kh, kw, _) = types[0].shape, types[1].shape
        return (window_rows(x, (kh, kw), strides, pads, dilations, n), *(None,) * 5)

    @staticmethod
    def read_order(
        types: Sequence[TensorType],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        wide: int = 0,
    ) -> Orders:
        x, (n, kh, kw, c) = types[0].shape, types[1].shape
        first = window_starts(x, (kh, kw), strides, pads, dilations, range(0, x[2], c))
        return (ReadOrder(first.ravel(), n // group), *(None,) * 5)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            kernel, attrs = drawn_window(rng)
            group, cg, ng = (int(v) for v in rng.integers(1, 4, 3))
            if rng.random() < 0.6:
                group, cg, ng = 1, int(rng.integers(1, 9)), int(rng.integers(1, 9))
            image = drawn_image(rng, kernel, attrs, group * cg)
            vectors, wide = channel_constants(rng, group * ng)
            weights = drawn_weights(rng, (group * ng, *kernel, cg))
            yield Case((image, weights, *vectors), {**attrs, "group": group, "wide": wide})


@operator("depthwise_conv2d_s8", inputs=INPUTS, constants=INPUTS[1:], parameters=PARAMETERS, access=Access.WHOLE)
class DepthwiseConv2dS8:
    """x int8 [H, W, C], w int8 [kh, kw, N], N a multiple of C -> y int8 [Ho, Wo, N]; channel n reads n*C/N of x.

    bias, mult int32 [N], shift uint8 [N]. Attributes: strides, pads, dilations, wide as for conv2d_s8.
    """

    @staticmethod
    def infer(
        types: Sequence[TensorType],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        wide: int = 0,
    ) -> TensorType:
        x, (kh, kw, n) = types[0].shape, types[1].shape
        if n % x[2] or any(t.shape != (n,) for t in types[2:5]):
            raise ValueError(f"depthwise_conv2d_s8: x {x} does not fit w {types[1].shape}")
        return TensorType((*window_counts(x, (kh, kw), strides, pads, dilations), n), "int8")

    @staticmethod
    def reference(
        x: Int8,
        w: Int8,
        bias: Int32,
        mult: Int32,
        shift: Array,
        params: Int32,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        wide: int = 0,
    ) -> Int8:
        taps = windows(x.astype(np.int64), w.shape[:2], strides, pads, dilations, int(params[0]))
        acc = (np.repeat(taps, w.shape[2] // x.shape[2], axis=4) * w).sum(axis=(2, 3)) + bias
        return requantize(acc, mult, shift, int(params[1]), bool(wide))

    @staticmethod
    def tir(
        T: Any,
        types: Sequence[TensorType],
        out: TensorType,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        wide: int = 0,
    ) -> Any:
        (H, W, C), (KH, KW, N) = types[0].shape, types[1].shape
        OH, OW, M = out.shape[0], out.shape[1], N // C
        sh, sw, dh, dw, top, left = *map(int, strides), *map(int, dilations), int(pads[0]), int(pads[1])
        # Rows and columns of windows that lie inside the image; the others are gathered first.
        first_row, first_column = -(-top // sh), -(-left // sw)
        rows = max(0, min(OH, (H - 1 + top - (KH - 1) * dh) // sh + 1) - first_row)
        columns = max(0, min(OW, (W - 1 + left - (KW - 1) * dw) // sw + 1) - first_column)
        if not rows * columns:
            first_row = first_column = rows = columns = 0  # a condition that TVM sees is never true
        loop = T.unroll if KH * KW <= MOST_UNROLLED else T.serial

        @T.prim_func(private=True, s_tir=True)
        def depthwise_conv2d_s8(
            x: T.Buffer((H, W, C), "int8"),
            w: T.Buffer((KH, KW, N), "int8"),
            bias: T.Buffer((N,), "int32"),
            mult: T.Buffer((N,), "int32"),
            shift: T.Buffer((N,), "uint8"),
            params: T.Buffer((2,), "int32"),
            y: T.Buffer((OH, OW, N), "int8"),
        ):
            taps = T.alloc_buffer((KH, KW, C), "int8")
            for oh in range(OH):
                for ow in range(OW):
                    if first_row <= oh and oh < first_row + rows and first_column <= ow and ow < first_column + columns:
                        for c in range(C):
                            for m in range(M):
                                acc = T.alloc_buffer((1,), "int32")
                                acc[0] = bias[c * M + m]
                                for kh in loop(KH):
                                    for kw in loop(KW):
                                        acc[0] = acc[0] + T.Cast(
                                            "int32", x[oh * sh + kh * dh - top, ow * sw + kw * dw - left, c]
                                        ) * T.Cast("int32", w[kh, kw, c * M + m])
                                y[oh, ow, c * M + m] = tir_requantize(
                                    T, acc[0], mult[c * M + m], shift[c * M + m], params[1], bool(wide)
                                )
                    else:
                        for kh in range(KH):
                            for kw in range(KW):
                                if (
                                    oh * sh + kh * dh - top >= 0
                                    and oh * sh + kh * dh - top < H
                                    and ow * sw + kw * dw - left >= 0
                                    and ow * sw + kw * dw - left < W
                                ):
                                    for c in range(C):
                                        taps[kh, kw, c] = x[oh * sh + kh * dh - top, ow * sw + kw * dw - left, c]
                                else:
                                    for c in range(C):
                                        taps[kh, kw, c] = T.Cast("int8", params[0])
                        for c in range(C):
                            for m in range(M):
                                acc = T.alloc_buffer((1,), "int32")
                                acc[0] = bias[c * M + m]
                                for kh in range(KH):
                                    for kw in range(KW):
                                        acc[0] = acc[0] + T.Cast("int32", taps[kh, kw, c]) * T.Cast(
                                            "int32", w[kh, kw, c * M + m]
                                        )
                                y[oh, ow, c * M + m] = tir_requantize(
                                    T, acc[0], mult[c * M + m], shift[c * M + m], params[1], bool(wide)
                                )

        return depthwise_conv2d_s8

    @staticmethod
    def macs(types: Sequence[TensorType], out: TensorType) -> int:
        return out.shape[0] * out.shape[1] * int(np.prod(types[1].shape))

    @staticmethod
    def rows_read(
        types: Sequence[TensorType],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        wide: int = 0,
    ) -> Rows:
        x, (kh, kw, n) = types[0].shape, types[1].shape
        return (window_rows(x, (kh, kw), strides, pads, dilations, n), *(None,) * 5)

    @staticmethod
    def read_order(
        types: Sequence[TensorType],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        wide: int = 0,
    ) -> Orders:
        x, (kh, kw, n) = types[0].shape, types[1].shape
        first = window_starts(x, (kh, kw), strides, pads, dilations, range(x[2]))
        return (ReadOrder(first.ravel(), n // x[2], "until"), *(None,) * 5)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            kernel, attrs = drawn_window(rng)
            channels, times = int(rng.choice([1, 2, 3, 4, 5, 8, 12])), int(rng.choice([1, 1, 1, 2, 3]))
            vectors, wide = channel_constants(rng, channels * times)
            weights = drawn_weights(rng, (*kernel, channels * times))
            yield Case((drawn_image(rng, kernel, attrs, channels), weights, *vectors), {**attrs, "wide": wide})


def drawn_weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Int8:
    """Random symmetric weights, or only their extremes."""
    drawn = rng.choice([-127, 127], shape) if rng.random() < 0.2 else rng.integers(-127, 128, shape)
    return drawn.astype(np.int8)


def channel_constants(rng: np.random.Generator, n: int) -> tuple[tuple[Array, ...], int]:
    """bias, mult, shift, params for n channels; and whether they are for the wide form."""
    wide = int(rng.random() < 0.2)
    mult, shift = multipliers(10.0 ** (rng.uniform(-12, -6, n) if wide else rng.uniform(-6, 0.5, n)), bool(wide))
    points = rng.choice([-128, 127, 0, int(rng.integers(-128, 128))], 2)
    return (rng.integers(-(2**20), 2**20, n).astype(np.int32), mult, shift, points.astype(np.int32)), wide
