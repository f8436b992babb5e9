# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution in integers: every output pixel sums only the taps that reach an input pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgec.operators.access import UNREAD, Orders, ReadOrder, RowAccess, Rows
from edgec.operators.conv import INPUTS, PARAMETERS, channel_constants, drawn_weights
from edgec.operators.integer import Int8, Int32, requantize, tir_requantize
from edgec.operators.record import Access, Array, Case, TensorType, operator


@operator("conv_transpose2d_s8", inputs=INPUTS, constants=INPUTS[1:], parameters=PARAMETERS, access=Access.WHOLE)
class ConvTranspose2dS8:
    """x int8 [H, W, C], w int8 [N, kh, kw, C/group] -> y int8 [Ho, Wo, N]; bias, mult int32 [N], shift uint8 [N].

    `Ho = (H-1)*stride - top - bottom + (kh-1)*dilation + 1 + output_padding`. Tap (i, j) of x - zero_point_x adds to
    `y[h*stride + i*dilation - top, ...]`; the bias has nothing folded in, since the number of taps differs from
    pixel to pixel. Attributes: strides, pads (top, left, bottom, right), output_padding, dilations, group, wide.
    """

    @staticmethod
    def infer(
        types: Sequence[TensorType],
        strides: Sequence[int],
        pads: Sequence[int],
        output_padding: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        wide: int = 0,
    ) -> TensorType:
        x, (n, *kernel, c) = types[0].shape, types[1].shape
        if x[2] != c * group or n % group or any(t.shape != (n,) for t in types[2:5]):
            raise ValueError(f"conv_transpose2d_s8: x {x} does not fit w {types[1].shape} in {group} groups")
        size = [
            (x[i] - 1) * strides[i] - pads[i] - pads[i + 2] + (kernel[i] - 1) * dilations[i] + 1 + output_padding[i]
            for i in (0, 1)
        ]
        if min(*size, *strides, *dilations) < 1:
            raise ValueError(f"conv_transpose2d_s8: the result of x {x} would be {size}")
        return TensorType((*size, n), "int8")

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
        output_padding: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        wide: int = 0,
    ) -> Int8:
        (rows, columns, c), (n, kh, kw, _) = x.shape, w.shape
        full = [
            (s - 1) * strides[i] + (k - 1) * dilations[i] + 1 + output_padding[i]
            for i, (s, k) in enumerate(((rows, kh), (columns, kw)))
        ]
        acc = np.zeros((full[0], full[1], n), np.int64)
        centred = x.astype(np.int64) - int(params[0])
        for g in range(group):
            ins, outs = slice(g * c // group, (g + 1) * c // group), slice(g * n // group, (g + 1) * n // group)
            for i in range(kh):
                for j in range(kw):
                    first = i * dilations[0], j * dilations[1]
                    last = first[0] + (rows - 1) * strides[0] + 1, first[1] + (columns - 1) * strides[1] + 1
                    part = centred[..., ins] @ w[outs, i, j].astype(np.int64).T
                    acc[first[0] : last[0] : strides[0], first[1] : last[1] : strides[1], outs] += part
        cut = acc[pads[0] : full[0] - pads[2], pads[1] : full[1] - pads[3]] + bias
        return requantize(cut, mult, shift, int(params[1]), bool(wide))

    @staticmethod
    def tir(
        T: Any,
        types: Sequence[TensorType],
        out: TensorType,
        strides: Sequence[int],
        pads: Sequence[int],
        output_padding: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        wide: int = 0,
    ) -> Any:
        (H, W, C), (N, KH, KW, Cg) = types[0].shape, types[1].shape
        OH, OW, G, Ng, K = out.shape[0], out.shape[1], group, N // group, KH * KW * Cg
        sh, sw, dh, dw, top, left = *map(int, strides), *map(int, dilations), int(pads[0]), int(pads[1])
        # Where no tap reaches any pixel, compilers rightly say that the conditions below cannot hold.
        reached = _reached(H, KH, OH, sh, dh, top) and _reached(W, KW, OW, sw, dw, left)
        rows = KH if reached else 0

        @T.prim_func(private=True, s_tir=True)
        def conv_transpose2d_s8(
            x: T.Buffer((H, W, C), "int8"),
            w: T.Buffer((N, KH, KW, Cg), "int8"),
            bias: T.Buffer((N,), "int32"),
            mult: T.Buffer((N,), "int32"),
            shift: T.Buffer((N,), "uint8"),
            params: T.Buffer((2,), "int32"),
            y: T.Buffer((OH, OW, N), "int8"),
        ):
            weights = T.decl_buffer((N * K,), "int8", data=w.data)
            # The taps that reach this pixel, side by side, and where the weights of each begin.
            taps = T.alloc_buffer((K,), "int16")
            starts = T.alloc_buffer((KH * KW,), "int32")
            count = T.alloc_buffer((1,), "int32")
            for oh in range(OH):
                for ow in range(OW):
                    for g in range(G):
                        count[0] = T.int32(0)
                        for kh in range(rows):
                            if (
                                oh + top - kh * dh >= 0
                                and oh + top - kh * dh < H * sh
                                and (oh + top + kh * (sh * dh - dh)) % sh == 0
                            ):
                                for kw in range(KW):
                                    if (
                                        ow + left - kw * dw >= 0
                                        and ow + left - kw * dw < W * sw
                                        and (ow + left + kw * (sw * dw - dw)) % sw == 0
                                    ):
                                        for c in range(Cg):
                                            taps[count[0] * Cg + c] = T.Cast(
                                                "int16",
                                                T.Cast(
                                                    "int32",
                                                    x[
                                                        T.truncdiv(oh + top - kh * dh, sh),
                                                        T.truncdiv(ow + left - kw * dw, sw),
                                                        g * Cg + c,
                                                    ],
                                                )
                                                - params[0],
                                            )
                                        starts[count[0]] = (kh * KW + kw) * Cg
                                        count[0] = count[0] + 1
                        for n in range(Ng):
                            acc = T.alloc_buffer((1,), "int32")
                            acc[0] = bias[g * Ng + n]
                            for tap in range(count[0]):
                                for c in range(Cg):
                                    acc[0] = acc[0] + T.Cast("int32", taps[tap * Cg + c]) * T.Cast(
                                        "int32", weights[(g * Ng + n) * K + starts[tap] + c]
                                    )
                            y[oh, ow, g * Ng + n] = tir_requantize(
                                T, acc[0], mult[g * Ng + n], shift[g * Ng + n], params[1], bool(wide)
                            )

        return conv_transpose2d_s8

    @staticmethod
    def macs(types: Sequence[TensorType], out: TensorType) -> int:
        return types[0].shape[0] * types[0].shape[1] * int(np.prod(types[1].shape))

    @staticmethod
    def rows_read(
        types: Sequence[TensorType],
        strides: Sequence[int],
        pads: Sequence[int],
        output_padding: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        wide: int = 0,
    ) -> Rows:
        (_, width, c), (n, kh, _, _) = types[0].shape, types[1].shape
        columns = ConvTranspose2dS8.infer(types, strides, pads, output_padding, dilations, group).shape[1]
        # Pixel row h reaches row h * stride + i * dilation - top.
        stride, top, reach = int(strides[0]), int(pads[0]), (kh - 1) * int(dilations[0])
        return (
            RowAccess(columns * n, width * c, before=-((top - reach) // stride), after=-(-top // stride), per=stride),
            *(None,) * 5,
        )

    @staticmethod
    def read_order(
        types: Sequence[TensorType],
        strides: Sequence[int],
        pads: Sequence[int],
        output_padding: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        wide: int = 0,
    ) -> Orders:
        (rows, columns, channels), (n, *kernel, c) = types[0].shape, types[1].shape
        out = ConvTranspose2dS8.infer(types, strides, pads, output_padding, dilations, group).shape
        axes = []
        for i, size in enumerate((rows, columns)):
            there = np.arange(out[i])[:, None] + pads[i] - np.arange(kernel[i]) * dilations[i]
            hit = (there >= 0) & (there < size * strides[i]) & (there % strides[i] == 0)
            axes.append(np.where(hit, there // strides[i], UNREAD).min(axis=1))
        read = (axes[0][:, None] < UNREAD) & (axes[1] < UNREAD)
        pixels = np.where(read, np.minimum(axes[0][:, None], rows) * columns + axes[1], 0)
        first = pixels[..., None] * channels + np.arange(group) * c
        return (ReadOrder(np.where(read[..., None], first, UNREAD).ravel(), n // group), *(None,) * 5)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            group, cg, ng, kh, kw = (int(v) for v in rng.integers(1, [3, 7, 5, 5, 5]))
            strides, dilations = ([int(v) for v in rng.integers(1, 4, 2)] for _ in range(2))
            attrs = {
                "strides": strides,
                "dilations": dilations,
                "output_padding": [int(rng.integers(0, max(s, d))) for s, d in zip(strides, dilations, strict=True)],
                # Less than a kernel, so that something is left of every image.
                "pads": [int(rng.integers(0, ((kh, kw)[i % 2] - 1) * dilations[i % 2] // 2 + 1)) for i in range(4)],
                "group": group,
            }
            x = rng.integers(-128, 128, (*(int(v) for v in rng.integers(1, 6, 2)), group * cg)).astype(np.int8)
            vectors, wide = channel_constants(rng, group * ng)
            yield Case((x, drawn_weights(rng, (group * ng, kh, kw, cg)), *vectors), {**attrs, "wide": wide})


def _reached(size: int, taps: int, results: int, stride: int, dilation: int, before: int) -> bool:
    """Whether, along one axis, any tap of any element lands on a result."""
    ends = np.add.outer(np.arange(size) * stride, np.arange(taps) * dilation) - before
    return bool(((ends >= 0) & (ends < results)).any())
