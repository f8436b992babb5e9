# SPDX-License-Identifier: Apache-2.0
"""How close a quantized model comes to its float model on samples: noise, cosine, loss in points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.errors import UsageError
from edgec.model import Model
from edgec.quantize.calibrate import run_stream

MOST_SAMPLES = 128
"""Samples of a stateless model that are run for each measurement; a stream is run whole."""

Outputs = dict[str, npt.NDArray[np.float64]]


class Fidelity:
    """The float model's outputs on (evenly chosen) calibration samples, to judge quantized models by.

    Args:
        model: float model.
        samples: `[S, *onnx_shape]` per input.
        labels: classes [S]; the loss then is of accuracy. Samples with a class below zero are not counted.
        scores: the output that scores the classes; the first without it.

    Raises:
        UsageError: not one label for each sample.
    """

    def __init__(
        self,
        model: Model,
        samples: Mapping[str, np.ndarray],
        labels: npt.NDArray[Any] | None = None,
        scores: str | None = None,
    ) -> None:
        count = len(next(iter(samples.values()), ()))
        self.labels = None if labels is None else np.asarray(labels).reshape(-1)
        if self.labels is not None and len(self.labels) != count:
            raise UsageError(
                "the labels do not match the calibration samples", need=f"{count} labels", have=f"{self.labels.size}"
            )
        self.samples = dict(samples) if labels is not None else some_samples(model, samples, MOST_SAMPLES)
        self._names = [o.name for o in model.outputs if o.dtype.kind == "f"]
        self._scores = scores or (self._names[0] if self._names else "")
        self.wanted = self._run(model)

    def noise(self, quantized: Model) -> float:
        """Power of the error relative to the float outputs' power, of the worst output; 0 is exact."""
        return self._worst(self._run(quantized))

    def loss(self, quantized: Model) -> float:
        """Loss in points: of top-1 accuracy with labels, else 100 * (1 - cosine) of the worst output."""
        got = self._run(quantized)
        if self.labels is not None:
            return self._accuracy(self.wanted) - self._accuracy(got)
        return max((100 * (1 - cosine(got[n], self.wanted[n])) for n in self._names), default=0.0)

    def _accuracy(self, outputs: Outputs) -> float:
        assert self.labels is not None
        scores = outputs[self._scores]
        counted = self.labels >= 0
        right = scores.reshape(len(scores), -1).argmax(axis=1) == self.labels
        return 100 * float(np.mean(right[counted]))

    def _worst(self, got: Outputs) -> float:
        return max((noise_of(got[n], self.wanted[n]) for n in self._names), default=0.0)

    def _run(self, model: Model) -> Outputs:
        steps = list(run_stream(model, self.samples))
        return {name: np.stack([s[name] for s in steps]).astype(np.float64) for name in self._names}


def some_samples(model: Model, samples: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """At most so many of the samples, evenly chosen; of a stateful model all of them, for they are one stream."""
    count = len(next(iter(samples.values()), ()))
    if model.states or count <= most:
        return dict(samples)
    chosen = np.linspace(0, count - 1, most).astype(int)
    return {name: array[chosen] for name, array in samples.items()}


def noise_of(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> float:
    """Power of `got - want` relative to that of `want`."""
    error, signal = float(np.sum((got - want) ** 2)), float(np.sum(want**2))
    if error == 0:
        return 0.0
    return error / signal if signal > 0 else np.inf


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Cosine of the angle between two arrays as vectors; 1 when both are zero, 0 when one is."""
    norms = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if norms == 0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(a.ravel() @ b.ravel()) / norms


def decibels(noise: float) -> float:
    """Signal-to-noise ratio in dB of a relative noise power; infinite when there is no noise."""
    return float(-10 * np.log10(noise)) if noise > 0 else float("inf")
