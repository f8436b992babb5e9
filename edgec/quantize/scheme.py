# SPDX-License-Identifier: Apache-2.0
"""From real ranges to integers: scales and zero points of activations, weights and biases.

`real = scale * (q - zero_point)`. Activations: int8 per tensor (int16 where chosen), 0.0 always exactly
representable. Weights: int8 per output channel, symmetric in [-127, 127]. Biases: int32 with scale `s_x * s_w`.
Scheme after Jacob et al. 2018 (Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.errors import UnsupportedError

# Values that never leave this band during calibration count as dead: any scale stores them as zero, and a
# scale made from rounding noise would give the neighbouring operators multipliers beyond every range.
DEAD_RANGE = 1e-7
DEAD_SCALE = np.float32(1 / 128)

# Smallest requantization ratio s_x*s_w/s_y of a weight channel. At 2^-16 the weight rounding (half a step)
# moves the output by 2^-17 steps per unit of input, far below one step, while the 31-bit multiplier keeps 15
# bits.
MIN_RATIO = 2.0**-16

# |bias| and the product sum together stay below 2^31; a bias below 2^30 leaves the sum the other half.
MAX_BIAS = 2.0**30


@dataclass(frozen=True)
class ActivationParams:
    """Quantization of one activation tensor: `real = scale * (q - zero_point)`, q of `dtype` (int8 or int16).

    scale is positive and exactly a float32; an int16 tensor has zero point 0.
    """

    scale: float
    zero_point: int
    dtype: str = "int8"

    @property
    def least(self) -> int:
        """Smallest q."""
        return int(np.iinfo(self.dtype).min)

    @property
    def most(self) -> int:
        """Largest q."""
        return int(np.iinfo(self.dtype).max)

    @property
    def low(self) -> float:
        """Smallest real value that the type can hold."""
        return self.scale * (self.least - self.zero_point)

    @property
    def high(self) -> float:
        """Largest real value."""
        return self.scale * (self.most - self.zero_point)


# Outputs of bounded functions: the range is known, whatever calibration saw.
FIXED_OUTPUT: dict[str, ActivationParams] = {
    "Softmax": ActivationParams(1 / 256, -128),
    "Sigmoid": ActivationParams(1 / 256, -128),
    "Tanh": ActivationParams(1 / 128, 0),
}

# Beyond it the int8 result of a bounded function is its bound to a quarter of a step: larger inputs need no steps.
REACH = {"Sigmoid": 7.0, "Tanh": 3.5}


def activation_params(low: float, high: float, *, symmetric: bool = False, dtype: str = "int8") -> ActivationParams:
    """Scale and zero point that cover [low, high] and 0.0.

    Args:
        low, high: observed or known range, low <= high.
        symmetric: zero point 0 and the range in [-127, 127] (right-hand operands of MatMul).
        dtype: int8, or int16, which is always symmetric.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < DEAD_RANGE:
        return ActivationParams(float(DEAD_SCALE), 0, dtype)
    if symmetric or dtype == "int16":
        return ActivationParams(float(np.float32(max(-low, high) / np.iinfo(dtype).max)), 0, dtype)
    scale = float(np.float32((high - low) / 255))
    return ActivationParams(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def quantize_array(values: np.ndarray, params: ActivationParams, *, symmetric: bool = False) -> np.ndarray:
    """Round a real array to integers, halves to even as QuantizeLinear does; saturates."""
    q = np.rint(values.astype(np.float64) / params.scale) + params.zero_point
    least = -params.most if symmetric else params.least
    result: np.ndarray = np.clip(q, least, params.most).astype(params.dtype)
    return result


def rounded(values: np.ndarray, params: ActivationParams) -> np.ndarray:
    """Real values as the quantized tensor holds them, float64."""
    q = quantize_array(values, params).astype(np.float64)
    result: np.ndarray = (q - params.zero_point) * params.scale
    return result


@dataclass(frozen=True)
class LinearParams:
    """Integers of one Gemm: `weight` int8 or int16 [N, K], `bias` int32 [N], their scales float32 [N]."""

    weight: np.ndarray
    weight_scale: np.ndarray
    bias: np.ndarray
    bias_scale: np.ndarray


def linear_params(
    weight: np.ndarray,
    bias: np.ndarray,
    x: ActivationParams,
    y: ActivationParams,
    name: str,
    *,
    tied: int = 1,
    accumulator: np.ndarray | None = None,
) -> LinearParams:
    """Quantize weight [N, K] per row and bias [N] of `y = x @ weight.T + bias`.

    A channel's scale is `max|w| / 127`, raised where needed so that `s_x*s_w/s_y >= MIN_RATIO` (dead
    channels) and the bias stays within MAX_BIAS. The bias scale is the float32 product `s_x * s_w`.

    Args:
        weight, bias: float arrays [N, K] and [N].
        x, y: quantization of input and output.
        name: the node, for messages.
        tied: so many blocks of rows share their scales, row by row.
        accumulator: scale of the accumulator, [N], where other layers add to it (see `edgec.quantize.sums`); the
            scale of the weights then is `accumulator / s_x`.

    Raises:
        UnsupportedError: weights not finite, or K so long that an int32 accumulator could overflow.
    """
    weight64, bias64 = weight.astype(np.float64), bias.astype(np.float64)
    if not (np.isfinite(weight64).all() and np.isfinite(bias64).all()):
        raise UnsupportedError(f"{name}: weights or bias are not finite")
    if accumulator is None:
        scale = np.abs(weight64).max(axis=1, initial=0.0) / 127
        scale = np.maximum(scale, MIN_RATIO * y.scale / x.scale)
        scale = np.maximum(scale, np.abs(bias64) / (x.scale * MAX_BIAS)).astype(np.float32)
    else:
        scale = (accumulator / x.scale).astype(np.float32)
    scale = np.tile(scale.reshape(tied, -1).max(axis=0), tied)
    q = np.clip(np.rint(weight64 / scale[:, None].astype(np.float64)), -127, 127).astype(np.int8)
    bias_scale = np.float32(x.scale) * scale
    q_bias = np.rint(bias64 / bias_scale.astype(np.float64)).astype(np.int64)
    _check_accumulator(q, q_bias, x, name)
    return LinearParams(q, scale, q_bias.astype(np.int32), bias_scale)


def linear_params16(weight: np.ndarray, bias: np.ndarray, x_scale: float, name: str) -> LinearParams:
    """Weight [N, K] as int16 in [-32767, 32767] per row, and bias [N] as int32, of a layer that reads int16.

    The bias has the accumulator's scale, `s_x * s_w`, where that keeps it within MAX_BIAS, else one as small as does.

    Raises:
        UnsupportedError: weights or bias not finite.
    """
    weight64, bias64 = weight.astype(np.float64), bias.astype(np.float64)
    if not (np.isfinite(weight64).all() and np.isfinite(bias64).all()):
        raise UnsupportedError(f"{name}: weights or bias are not finite")
    scale = np.abs(weight64).max(axis=1, initial=0.0) / 32767
    scale = np.where(scale > 0, np.maximum(scale, np.finfo(np.float32).tiny), 1.0).astype(np.float32)
    q = np.clip(np.rint(weight64 / scale[:, None].astype(np.float64)), -32767, 32767).astype(np.int16)
    bias_scale = np.maximum(x_scale * scale.astype(np.float64), np.abs(bias64) / MAX_BIAS)
    bias_scale = np.maximum(bias_scale, np.finfo(np.float32).tiny).astype(np.float32)
    q_bias = np.rint(bias64 / bias_scale.astype(np.float64)).astype(np.int32)
    return LinearParams(q, scale, q_bias, bias_scale)


def _check_accumulator(q: np.ndarray, bias: np.ndarray, x: ActivationParams, name: str) -> None:
    # Both ways of summing must hold in 32 bits: sum (x - zp)*w + bias, and sum x*w + (bias - zp*sum w).
    weight = q.astype(np.int64)
    magnitude = np.abs(weight).sum(axis=1)
    centred = np.abs(bias) + magnitude * max(127 - x.zero_point, 128 + x.zero_point)
    folded = np.abs(bias - x.zero_point * weight.sum(axis=1)) + 128 * magnitude
    worst = int(max(centred.max(initial=0), folded.max(initial=0)))
    if worst >= 2**31:
        raise UnsupportedError(
            f"{name}: the sum over {q.shape[1]} products can overflow a 32-bit accumulator",
            need="|accumulator| < 2,147,483,648",
            have=f"up to {worst:,}",
            hint="split the layer along its inputs",
        )
