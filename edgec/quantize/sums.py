# SPDX-License-Identifier: Apache-2.0
"""Sums of layers in one accumulator: the scale that they share, and whether sharing it costs more than it saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.quantize.scheme import MAX_BIAS, MIN_RATIO, ActivationParams

TYPICAL_Q = 36.0
"""Root mean square of an int8 activation: normal values whose range is 3.5 deviations."""
MOST_NOISE = 1.4
"""Estimated noise power that sharing may have, of that with every product rounded by itself: 1.5 dB."""


@dataclass(frozen=True)
class Term:
    """One layer of a sum: weight [N, K] and bias [N] in float, quantization of its input."""

    weight: np.ndarray
    bias: np.ndarray
    x: ActivationParams

    @property
    def own_scale(self) -> np.ndarray:
        """Scale of an accumulator that it has for itself, float64 [N]."""
        result: np.ndarray = np.abs(self.weight.astype(np.float64)).max(axis=1, initial=0.0) * (self.x.scale / 127)
        return result


def shared_accumulator(terms: Sequence[Term], y: ActivationParams) -> np.ndarray:
    """The one accumulator scale, float64 [N], of layers that are summed: the largest that one of them asks for.

    Args:
        terms: the layers.
        y: quantization of the sum.
    """
    biases = np.sum([np.abs(t.bias.astype(np.float64)) for t in terms], axis=0)
    least = np.maximum(MIN_RATIO * y.scale, biases / MAX_BIAS)
    result: np.ndarray = np.max([least, *(t.own_scale for t in terms)], axis=0)
    return result


def pays(terms: Sequence[Term], y: ActivationParams) -> bool:
    """Whether the sum loses no more than 1.5 dB in one accumulator, by estimate.

    Weights of a layer far below the others' (its input's scale times its weights) lose bits to them. That matters
    where it has far more inputs than the loud ones; otherwise the roundings that are saved outweigh it.
    """
    shared = shared_accumulator(terms, y)
    inputs = [t.weight.shape[1] for t in terms]
    together = sum(k * (TYPICAL_Q * shared) ** 2 for k in inputs)
    apart = sum(k * (TYPICAL_Q * t.own_scale) ** 2 for k, t in zip(inputs, terms, strict=True))
    roundings = 2 * (len(terms) - 1) * y.scale**2
    both = y.scale**2 + sum(np.square(t.x.scale * t.weight.astype(np.float64)).sum(axis=1) for t in terms)
    return float(np.sum(together + both)) <= MOST_NOISE * float(np.sum(apart + roundings + both))
