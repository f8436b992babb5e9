# SPDX-License-Identifier: Apache-2.0
"""Pooling in integers, channels last: the largest value, or the mean, of a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import Orders, ReadOrder, Rows
from edgec.operators.integer import Int8, Int32, multipliers, requantize, tir_requantize
from edgec.operators.record import Access, Array, Case, TensorType, operator
from edgec.operators.window import drawn_image, drawn_window, window_counts, window_rows, window_starts, windows


@operator("max_pool_s8", inputs=("x",), access=Access.WHOLE)
class MaxPoolS8:
    """x int8 [H, W, C] -> y int8 [Ho, Wo, C], the largest value of each window; padding never wins.

    Attributes: kernel (h, w), strides (h, w), pads (top, left, bottom, right), dilations (h, w).
    """

    @staticmethod
    def infer(
        types: Sequence[TensorType],
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
    ) -> TensorType:
        x = types[0].shape
        return TensorType((*window_counts(x, kernel, strides, pads, dilations), x[2]), "int8")

    @staticmethod
    def reference(
        x: Int8, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int]
    ) -> Int8:
        largest: Int8 = windows(x, kernel, strides, pads, dilations, -128).max(axis=(2, 3))
        return largest

    @staticmethod
    def tir(
        T: Any,
        types: Sequence[TensorType],
        out: TensorType,
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
    ) -> Any:
        (H, W, C), (OH, OW, _) = types[0].shape, out.shape
        KH, KW, sh, sw, dh, dw = *map(int, kernel), *map(int, strides), *map(int, dilations)
        top, left = int(pads[0]), int(pads[1])

        @T.prim_func(private=True, s_tir=True)
        def max_pool_s8(x: T.Buffer((H, W, C), "int8"), y: T.Buffer((OH, OW, C), "int8")):
            for oh in range(OH):
                for ow in range(OW):
                    for c in range(C):
                        y[oh, ow, c] = T.int8(-128)
                    for kh in range(KH):
                        for kw in range(KW):
                            if (
                                oh * sh + kh * dh - top >= 0
                                and oh * sh + kh * dh - top < H
                                and ow * sw + kw * dw - left >= 0
                                and ow * sw + kw * dw - left < W
                            ):
                                for c in range(C):
                                    y[oh, ow, c] = T.max(
                                        y[oh, ow, c], x[oh * sh + kh * dh - top, ow * sw + kw * dw - left, c]
                                    )

        return max_pool_s8

    @staticmethod
    def rows_read(
        types: Sequence[TensorType],
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
    ) -> Rows:
        x = types[0].shape
        return (window_rows(x, kernel, strides, pads, dilations, x[2]),)

    @staticmethod
    def read_order(
        types: Sequence[TensorType],
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
    ) -> Orders:
        x = types[0].shape
        first = window_starts(x, kernel, strides, pads, dilations)
        return (ReadOrder(first.ravel(), x[2], "after"),)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            kernel, attrs = drawn_window(rng)
            yield Case((drawn_image(rng, kernel, attrs, int(rng.integers(1, 9))),), {"kernel": list(kernel), **attrs})


@operator(
    "avg_pool_s8",
    inputs=("x", "mult", "shift", "params"),
    constants=("mult", "shift", "params"),
    parameters=("x_zero_point", "zero_point"),
    access=Access.WHOLE,
)
class AvgPoolS8:
    """x int8 [H, W, C] -> y int8 [Ho, Wo, C]: `requantize(sum of x - zx over the taps inside)`.

    The multiplier holds 1/count: mult int32 and shift uint8 have an entry for each count, 1 to kh*kw. A tap counts
    when it lies inside the image or inside `counted` (top, left, bottom, right) rows and columns around it.
    Attributes: kernel, strides, pads, dilations as for max_pool_s8; counted, wide.
    """

    @staticmethod
    def infer(
        types: Sequence[TensorType],
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        counted: Sequence[int],
        wide: int = 0,
    ) -> TensorType:
        x, most = types[0].shape, int(kernel[0]) * int(kernel[1])
        if types[1].shape != (most,) or types[2].shape != (most,):
            raise ValueError(f"avg_pool_s8: {types[1].shape} multipliers for a window of {most}")
        if any(c < 0 or c > p for c, p in zip(counted, pads, strict=True)):
            raise ValueError(f"avg_pool_s8: counts {list(counted)} of padding {list(pads)}")
        rows, columns = window_counts(x, kernel, strides, pads, dilations)
        if min(_counts(x, (rows, columns), kernel, strides, pads, dilations, counted).ravel()) < 1:
            raise ValueError("avg_pool_s8: a window reads padding alone")
        return TensorType((rows, columns, x[2]), "int8")

    @staticmethod
    def reference(
        x: Int8,
        mult: Int32,
        shift: Array,
        params: Int32,
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        counted: Sequence[int],
        wide: int = 0,
    ) -> Int8:
        zx, zy = (int(v) for v in params)
        total = windows(x.astype(np.int64) - zx, kernel, strides, pads, dilations, 0).sum(axis=(2, 3))
        counts = _counts(x.shape, total.shape, kernel, strides, pads, dilations, counted)[..., None]
        return requantize(total, mult[counts - 1], shift[counts - 1], zy, bool(wide))

    @staticmethod
    def tir(
        T: Any,
        types: Sequence[TensorType],
        out: TensorType,
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        counted: Sequence[int],
        wide: int = 0,
    ) -> Any:
        (H, W, C), (OH, OW, _) = types[0].shape, out.shape
        KH, KW, sh, sw, dh, dw = *map(int, kernel), *map(int, strides), *map(int, dilations)
        top, left, most = int(pads[0]), int(pads[1]), KH * KW
        above, before, below, behind = (int(c) for c in counted)

        @T.prim_func(private=True, s_tir=True)
        def avg_pool_s8(
            x: T.Buffer((H, W, C), "int8"),
            mult: T.Buffer((most,), "int32"),
            shift: T.Buffer((most,), "uint8"),
            params: T.Buffer((2,), "int32"),
            y: T.Buffer((OH, OW, C), "int8"),
        ):
            total = T.alloc_buffer((C,), "int32")
            count = T.alloc_buffer((1,), "int32")
            for oh in range(OH):
                for ow in range(OW):
                    count[0] = T.int32(0)
                    for c in range(C):
                        total[c] = T.int32(0)
                    for kh in range(KH):
                        for kw in range(KW):
                            if (
                                oh * sh + kh * dh - top + above >= 0
                                and oh * sh + kh * dh - top < H + below
                                and ow * sw + kw * dw - left + before >= 0
                                and ow * sw + kw * dw - left < W + behind
                            ):
                                count[0] = count[0] + 1
                            if (
                                oh * sh + kh * dh - top >= 0
                                and oh * sh + kh * dh - top < H
                                and ow * sw + kw * dw - left >= 0
                                and ow * sw + kw * dw - left < W
                            ):
                                for c in range(C):
                                    total[c] = (
                                        total[c]
                                        + T.Cast("int32", x[oh * sh + kh * dh - top, ow * sw + kw * dw - left, c])
                                        - params[0]
                                    )
                    for c in range(C):
                        y[oh, ow, c] = tir_requantize(
                            T, total[c], mult[count[0] - 1], shift[count[0] - 1], params[1], bool(wide)
                        )

        return avg_pool_s8

    @staticmethod
    def rows_read(
        types: Sequence[TensorType],
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        counted: Sequence[int],
        wide: int = 0,
    ) -> Rows:
        x = types[0].shape
        return (window_rows(x, kernel, strides, pads, dilations, x[2]), None, None, None)

    @staticmethod
    def read_order(
        types: Sequence[TensorType],
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        counted: Sequence[int],
        wide: int = 0,
    ) -> Orders:
        x = types[0].shape
        first = window_starts(x, kernel, strides, pads, dilations, range(x[2]))
        return (ReadOrder(first.ravel()), None, None, None)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            kernel, attrs = drawn_window(rng)
            attrs["counted"] = attrs["pads"] if rng.random() < 0.5 else [0, 0, 0, 0]
            x = drawn_image(rng, kernel, attrs, int(rng.integers(1, 9)))
            wide = int(rng.random() < 0.2)
            ratio = 10.0 ** (rng.uniform(-10, -6) if wide else rng.uniform(-3, 0.5))
            mult, shift = multipliers(ratio / np.arange(1, kernel[0] * kernel[1] + 1), bool(wide))
            params = rng.choice([-128, 127, 0, int(rng.integers(-128, 128))], 2).astype(np.int32)
            case = Case((x, mult, shift, params), {"kernel": list(kernel), **attrs, "wide": wide})
            if _takes(case):
                yield case


def _counts(
    image: Sequence[int],
    result: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    counted: Sequence[int],
) -> Array:
    """Counted taps of every window, int64 [Ho, Wo]."""
    axes = []
    for i in (0, 1):
        taps = (np.arange(result[i]) * strides[i] - pads[i])[:, None] + np.arange(kernel[i]) * dilations[i]
        axes.append(((taps >= -counted[i]) & (taps < image[i] + counted[i + 2])).sum(axis=1))
    return np.outer(*axes)


def _takes(case: Case) -> bool:
    try:
        AvgPoolS8.infer(case.types, **case.attrs)
    except ValueError:
        return False
    return True
