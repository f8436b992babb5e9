# SPDX-License-Identifier: Apache-2.0
"""Cases at the ends of what the border operators take: every integer, halves exactly, infinities, NaN, saturation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgec.operators import Case
from edgec.operators.float_border import dequantize_params, quantize_params

SPECIAL = np.array(
    [0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38,
     126.5, 127.49999, 127.5, -128.5, -128.50002, 32767.5, -32768.5, 8388607.5, -8388609.0, 2.0**22, 2.0**31,
     -(2.0**31), 0.49999997, 0.50000006],
    np.float32,
)  # fmt: skip


def dequantize_edges() -> list[Case]:
    every8, every16 = np.arange(-128, 128, dtype=np.int8), np.arange(-(2**15), 2**15, 7).astype(np.int16)
    return [
        *(Case((every8, dequantize_params(scale, zero)), {"x": 8})
          for scale in (1 / 3, 1e-45, 3e38) for zero in (-128, 0, 127)),
        *(Case((every16, dequantize_params(scale, 0)), {"x": 16}) for scale in (0.1, 1e38)),
        Case((every8[:1], dequantize_params(1.0, 127)), {"x": 8}),
    ]  # fmt: skip


def quantize_edges() -> list[Case]:
    steps = np.concatenate([SPECIAL, np.arange(-300, 300, dtype=np.float32) / 2])
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        cases = [
            Case((steps * np.float32(scale), quantize_params(scale, zero, 8)), {"y": 8})
            for scale in (1.0, 2.0**-9, 0.1, 1e-40, 1e30)
            for zero in (-128, 0, 127)
        ]
    wide = np.concatenate([SPECIAL, np.arange(-70000, 70000, 61, dtype=np.float32) / 2])
    return [
        *cases,
        Case((wide, quantize_params(1.0, 0, 16)), {"y": 16}),
        Case((wide[:1], quantize_params(0.3, 0, 16)), {"y": 16}),
    ]


EDGES: dict[str, Callable[[], list[Case]]] = {
    "dequantize_f32": dequantize_edges,
    "quantize_f32": quantize_edges,
}
