# SPDX-License-Identifier: Apache-2.0
"""From a histogram to the range that int8 shall cover: everything, a percentile, least squares, least divergence.

`mse` and `entropy` search: from the full range inward, one end after the other, for the range with the least
objective on the histogram. `mse` is the mean squared error of rounding and clipping (Sung et al. 2015);
`entropy` the Kullback-Leibler divergence of the rounded histogram from the real one (Migacz 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from edgec.quantize.scheme import activation_params, rounded

Method = Literal["minmax", "percentile", "mse", "entropy"]
METHODS: tuple[str, ...] = get_args(Method)
Floats = npt.NDArray[np.float64]
Objective = Callable[[float, float], float]
# A range is never cut below this part of what was seen: a tail that is rarer still is noise of the calibration.
SHRINKS = np.linspace(1.0, 0.04, 49)
# Below a quarter a level has so few bins of the histogram that its divergence from them says nothing.
ENTROPY_SHRINKS = SHRINKS[SHRINKS >= 0.25]
ROUNDS = 2


def percentile_range(edges: Floats, counts: npt.NDArray[np.int64], percentile: float) -> tuple[float, float]:
    """Ends of the bins that hold `percentile` percent of all values; half of the rest may be cut at either end."""
    spare = counts.sum() * (1 - percentile / 100) / 2
    first = int(np.searchsorted(np.cumsum(counts), spare, side="right"))
    last = len(counts) - 1 - int(np.searchsorted(np.cumsum(counts[::-1]), spare, side="right"))
    return float(edges[first]), float(edges[last + 1])


def mse_range(
    edges: Floats, counts: npt.NDArray[np.int64], low: float, high: float, symmetric: bool
) -> tuple[float, float]:
    """The range within [low, high] with the least squared error of int8 values, every bin at its middle."""
    used = np.flatnonzero(counts)
    middle = (edges[used] + edges[used + 1]) / 2
    weight = counts[used] / counts.sum()

    def error(lower: float, upper: float) -> float:
        params = activation_params(lower, upper, symmetric=symmetric)
        return float(weight @ (rounded(middle, params) - middle) ** 2)

    return _search(error, low, high, symmetric, SHRINKS)


def entropy_range(
    edges: Floats, counts: npt.NDArray[np.int64], low: float, high: float, symmetric: bool
) -> tuple[float, float]:
    """The range within [low, high] whose 256 levels tell least apart from the histogram.

    Zeros have a level of their own whatever the range (a Relu makes many), so their bin counts like its neighbour.
    """
    zero = int(np.searchsorted(edges, 0.0))
    counts = counts.copy()
    counts[zero] = min(counts[zero], counts[zero + 1])
    if not counts.any():
        return low, high
    used = np.flatnonzero(counts)
    middle = (edges[used] + edges[used + 1]) / 2
    mass = counts[used] / counts.sum()

    def divergence(lower: float, upper: float) -> float:
        params = activation_params(lower, upper, symmetric=symmetric)
        inside = (middle >= lower) & (middle <= upper)
        if not inside.any():
            return np.inf
        real = mass[inside].copy()
        kept = real.copy()
        real[0] += mass[middle < lower].sum()  # what is cut off arrives at the ends
        real[-1] += mass[middle > upper].sum()
        level = np.rint(middle[inside] / params.scale).astype(np.int64)
        _, index, bins = np.unique(level, return_inverse=True, return_counts=True)
        rounded_mass = (np.bincount(index, kept) / bins)[index]  # a level spreads its mass over its bins
        return float(np.sum(real * np.log(real / (rounded_mass / rounded_mass.sum()))))

    return _search(divergence, low, high, symmetric, ENTROPY_SHRINKS)


def _search(objective: Objective, low: float, high: float, symmetric: bool, shrinks: Floats) -> tuple[float, float]:
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 0.0:
        return low, high
    if symmetric:
        reach = max(-low, high)
        best = min(shrinks, key=lambda f: objective(-reach * f, reach * f))
        return max(low, -reach * best), min(high, reach * best)
    # Both ends at once first: one end alone gains little while the other still asks for the wide step.
    both = min(shrinks, key=lambda f: objective(low * f, high * f))
    lower, upper = low * both, high * both
    for _ in range(ROUNDS):
        upper = min((high * f for f in shrinks), key=lambda v: objective(lower, v)) if high > 0 else 0.0
        lower = min((low * f for f in shrinks), key=lambda v: objective(v, upper)) if low < 0 else 0.0
    return lower, upper
