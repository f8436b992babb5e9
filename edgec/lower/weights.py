# SPDX-License-Identifier: Apache-2.0
"""Constants of layers with weights per output channel: bias, multipliers, and the proof that sums fit 32 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgec.lower.graph import Array, NotIntegerError, Quant
from edgec.operators.integer import INT32_MAX, Int64, as_int32, multipliers, needs_wide


def channel_constants(
    rows: Int64,
    scale: npt.NDArray[np.float64],
    real_bias: Array | None,
    x: Quant,
    y: Quant,
    fold: bool = True,
) -> tuple[dict[str, Array], int]:
    """bias, mult and shift of every channel, and whether they are for the wide form.

    Args:
        rows: weights [N, products per result].
        scale: of the weights, [N] or [].
        real_bias: of N elements or one; None for zeros.
        x, y: quantization of input and result.
        fold: put `-zero_point_x * sum(weights)` into the bias, so that the sum takes x as it is.

    Raises:
        NotIntegerError: a bias that does not fit, or an accumulator that could leave 32 bits.
    """
    sx, zx = x.pair
    n = len(rows)
    acc_scale = np.broadcast_to(sx * scale, (n,))
    if real_bias is not None and real_bias.size not in (1, n):
        raise NotIntegerError(f"a bias of {real_bias.shape} for {n} channels")
    bias = np.zeros(n) if real_bias is None else np.rint(real_bias.ravel() / acc_scale)
    bias = np.broadcast_to(bias, (n,))
    magnitude = np.abs(rows).sum(axis=1)
    if fold:
        bias = bias - zx * rows.sum(axis=1)
        reach = np.abs(bias) + 128 * magnitude
    else:
        reach = np.abs(bias) + max(127 - zx, 128 + zx) * magnitude
    return requantize_constants(acc_scale, bias, reach, y)


def requantize_constants(
    acc_scale: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], reach: npt.NDArray[np.float64], y: Quant
) -> tuple[dict[str, Array], int]:
    """bias, mult and shift of accumulators, and whether they are for the wide form.

    Args:
        acc_scale: what one unit of each accumulator is worth, [N].
        bias: what it begins with, integers [N].
        reach: largest magnitude that it can come to, [N].
        y: quantization of the result.

    Raises:
        NotIntegerError: an accumulator that could leave 32 bits.
    """
    sy, _ = y.pair
    if reach.max() > INT32_MAX:
        raise NotIntegerError("an accumulator could exceed 32 bits")
    ratios = acc_scale / sy
    wide = needs_wide(ratios, np.minimum(128.0, reach * ratios))
    mult, shift = multipliers(ratios, wide)
    return {"bias": as_int32("bias", bias.astype(np.int64)), "mult": mult, "shift": shift}, int(wide)
