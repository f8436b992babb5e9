# SPDX-License-Identifier: Apache-2.0
"""Log-mel frames of speech: what they are (in float64), and the constants with which `log_mel_s8` computes them.

A frame is `(ln(mel energy + floor) - mean) / scale`: a Hann window, the power spectrum `|FFT|^2 / window` of samples
whose full scale is 1, triangles of height 1 equally spaced on the mel scale 2595 log10(1 + f / 700).

Frames come from a stream: frame t ends with its hop, it holds the samples before `hop * (t + 1)`, zeros before the
first. So the frames of a recording are those of a framing that begins at sample 0, of the recording behind
`window - hop` zeros.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.integer import Int32

WINDOW_POINT = 14  # binary point of the window: its peak 1.0 is exact
WEIGHT_POINT = 15  # of the mel weights
POWER_POINT = 16  # bits that a power loses before it is weighted
LOG_POINT = 20  # of the logarithm to base 2
LOG_PARTS = 32  # straight pieces of the logarithm from 1 to 2
MOST_SHIFT = WINDOW_POINT  # doublings of a quiet frame: a sample of 1 under the window's peak comes to 2^28
_LARGEST_FLOOR = 60  # bits of the floor in the quietest frame

Floats = npt.NDArray[np.float32]
Int16 = npt.NDArray[np.int16]


@dataclass(frozen=True)
class LogMelConstants:
    """The constant inputs of `log_mel_s8`, in its order."""

    window: Int16
    twiddles: Int32
    weights: npt.NDArray[np.uint16]
    edges: Int32
    logs: Int32
    params: Int32

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays by the names of the record's inputs."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


@dataclass(frozen=True)
class LogMel:
    """A log-mel front end.

    Attributes:
        rate: samples a second.
        window, hop: samples of a frame, and from frame to frame.
        fft: points of the Fourier transform, a power of two.
        bins: mel bins.
        lowest, highest: Hz, where the first triangle begins and the last one ends.
        floor: added to the energy, where full scale is 1.
        mean, scale: what is taken from the natural logarithm, and what divides it then.
    """

    rate: int = 8000
    window: int = 200
    hop: int = 80
    fft: int = 256
    bins: int = 40
    lowest: float = 60.0
    highest: float = 3800.0
    floor: float = 1e-6
    mean: float = -10.0
    scale: float = 3.0

    def __post_init__(self) -> None:
        whole = (self.rate, self.window, self.hop, self.fft, self.bins)
        real = (self.lowest, self.highest, self.floor, self.mean, self.scale)
        if any(not isinstance(v, int) or v < 1 for v in whole) or not all(map(math.isfinite, real)):
            raise ValueError("a log-mel front end: rate, window, hop, fft and bins are whole numbers above 0")
        if not 8 <= self.fft <= 4096 or self.fft & (self.fft - 1) or not 2 <= self.window <= self.fft:
            raise ValueError(f"a log-mel front end: fft {self.fft} is no power of two from the window to 4096")
        if self.hop > self.window or self.bins > 256:
            raise ValueError(f"a log-mel front end: a hop of {self.hop} samples, {self.bins} bins")
        if not 0 <= self.lowest < self.highest <= self.rate / 2 or not (self.floor > 0 and self.scale > 0):
            raise ValueError("a log-mel front end: 0 <= lowest < highest <= rate / 2, floor and scale above 0")

    @property
    def rows(self) -> int:
        """Hops that hold a window."""
        return -(-self.window // self.hop)

    def attributes(self) -> dict[str, int]:
        """Attributes of `log_mel_s8`."""
        return {"size": self.window, "bins": self.bins, "fft": self.fft}

    @staticmethod
    def of(values: Mapping[str, Any]) -> LogMel:
        """The description with these values in place of defaults.

        Raises:
            ValueError: an unknown name, or values that describe no front end.
        """
        kinds = {f.name: int if f.type == "int" else float for f in dataclasses.fields(LogMel)}
        if unknown := [name for name in values if name not in kinds]:
            raise ValueError(f"a log-mel front end has no {unknown[0]!r}, but {', '.join(kinds)}")
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"a log-mel front end: {name} is {value!r}")
        given: dict[str, Any] = {n: v if kinds[n] is int else float(v) for n, v in values.items()}
        return LogMel(**given)

    # ---- float ----------------------------------------------------------------------------------------------

    def corners(self) -> npt.NDArray[np.float64]:
        """float64 [bins + 2], Hz: triangle i rises from corner i to i + 1 and falls to i + 2."""
        low, high = 2595 * np.log10(1 + np.array([self.lowest, self.highest]) / 700)
        found: npt.NDArray[np.float64] = 700 * (10 ** (np.linspace(low, high, self.bins + 2) / 2595) - 1)
        return found

    def framed(self, pcm: Int16) -> Int16:
        """int16 [N] -> [N // hop, window]: the samples of every frame of the stream."""
        padded = np.concatenate([np.zeros(self.window - self.hop, np.int16), np.asarray(pcm, np.int16)])
        if len(padded) < self.window:
            return np.zeros((0, self.window), np.int16)
        return np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop]

    def frames(self, pcm: Int16) -> Floats:
        """int16 [N] -> float32 [N // hop, bins], computed in float64: the frames of a stream from its beginning."""
        samples = self.framed(pcm) / 32768
        hann = np.hanning(self.window + 1)[:-1]
        spectrum = np.fft.rfft(samples * hann, self.fft)
        energy = (spectrum.real**2 + spectrum.imag**2) / self.window
        corners, frequencies = self.corners(), np.arange(self.fft // 2 + 1) * self.rate / self.fft
        rising = (frequencies - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
        falling = (corners[2:, None] - frequencies) / (corners[2:] - corners[1:-1])[:, None]
        filters = np.maximum(0, np.minimum(rising, falling))
        result: Floats = ((np.log(energy @ filters.T + self.floor) - self.mean) / self.scale).astype(np.float32)
        return result

    # ---- fixed point ----------------------------------------------------------------------------------------

    def constants(self, scale: float, zero_point: int) -> LogMelConstants:
        """What `log_mel_s8` needs for results that are `scale * (q - zero_point)`.

        Raises:
            ValueError: the result does not fit the fixed-point form.
        """
        stages = int(math.log2(self.fft)) - 1
        hann = np.rint(np.hanning(self.window + 1)[:-1] * 2**WINDOW_POINT).astype(np.int16)
        edges, weights = self._triangles()
        logs = np.rint(np.log2(1 + np.arange(LOG_PARTS + 1) / LOG_PARTS) * 2**LOG_POINT).astype(np.int32)
        # An energy of 1 in a frame that is not shifted: samples have 15 bits behind the point, the window 14; each
        # stage, the last one that makes a real transform included, halves.
        unit = self.window * 2.0 ** (30 + 2 * (WINDOW_POINT - stages - 1) + WEIGHT_POINT - POWER_POINT)
        floor = round(self.floor * unit)
        most = min(MOST_SHIFT, (_LARGEST_FLOOR - floor.bit_length()) // 2)
        if floor < 1 or most < 0:
            raise ValueError(f"a log-mel front end: no fixed-point form of a floor of {self.floor:g}")
        ratio = math.log(2) / (2**LOG_POINT * self.scale * scale)
        down = 29 - math.floor(math.log2(ratio))
        addend = round(((-math.log(unit) - self.mean) / (self.scale * scale) + zero_point + 0.5) * 2.0**down)
        if not 33 <= down <= 62 or abs(addend) >= 2**61:
            raise ValueError(f"a log-mel front end: no fixed-point form of results in steps of {scale:g}")
        # The mantissa below 2^30, so that the logarithm's 28 bits leave room for the addend.
        params = [*_words(floor), most, min(round(ratio * 2.0**down), 2**30 - 1), *_words(addend), down]
        return LogMelConstants(
            hann,
            twiddles(self.fft // 2),
            weights,
            edges,
            logs,
            np.array(params, np.int32),
        )

    def _triangles(self) -> tuple[Int32, npt.NDArray[np.uint16]]:
        """Where each stretch between two corners begins (points of the transform), and how far up it each point is.

        Neighbouring triangles share a stretch, on which their heights add to 1: one weight for each point.
        """
        corners, step = self.corners(), self.rate / self.fft
        edges = np.clip(np.ceil(corners / step).astype(np.int64), 1, self.fft // 2)
        points = np.arange(edges[0], edges[-1])
        stretch = np.clip(np.searchsorted(edges, points, "right") - 1, 0, self.bins)
        height = (points * step - corners[stretch]) / (corners[stretch + 1] - corners[stretch])
        weights = np.rint(np.clip(height, 0, 1) * 2**WEIGHT_POINT).astype(np.uint16)
        return edges.astype(np.int32), weights


def twiddles(points: int) -> Int32:
    """int32 [points, 2]: minus cosine and sine of k / (2 * points) of a turn; 1.0 has no place in 32 bits, -1.0 has."""
    angles = np.pi * np.arange(points // 2) / points
    cosine, sine = (np.rint(f(angles) * 2.0**31).astype(np.int64) for f in (np.cos, np.sin))
    # The second quarter of a turn by symmetry, so that it is the first one turned to the bit.
    quarters = np.concatenate([np.stack([-cosine, -sine], axis=1), np.stack([sine, -cosine], axis=1)])
    return quarters.astype(np.int32)


def _words(value: int) -> tuple[int, int]:
    """The lower 31 bits and what is above them."""
    return value % 2**31, value >> 31
