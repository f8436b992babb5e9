# SPDX-License-Identifier: Apache-2.0
"""Log-mel frames of speech and the Free Spoken Digit Dataset, in NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from data_folder import data_file

RATE = 8000  # samples a second
WINDOW, HOP, FFT = 200, 80, 256  # samples: 25 ms every 10 ms
BINS = 40
LOWEST, HIGHEST = 60.0, 3800.0  # Hz
FLOOR = 1e-6  # added to the energy, where full scale is 1
MEAN, SCALE = -10.0, 3.0  # roughly those of ln(energy) in the training part: frames come out from -1.3 to 4

Floats = npt.NDArray[np.float32]


@cache
def mel_filters() -> Floats:
    """float32 [BINS, FFT // 2 + 1]: triangles equally spaced on the mel scale (2595 log10(1 + f / 700)), peak 1."""
    low, high = 2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)
    corners = 700 * (10 ** (np.linspace(low, high, BINS + 2) / 2595) - 1)
    frequencies = np.arange(FFT // 2 + 1) * RATE / FFT
    rising = (frequencies - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - frequencies) / (corners[2:] - corners[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def log_mel(pcm: npt.NDArray[np.int16]) -> Floats:
    """int16 [N] at 8 kHz -> float32 [T, BINS], T = 1 + (N - WINDOW) // HOP (at least one: short input is padded).

    ln(mel energy of a Hann-windowed frame + FLOOR), shifted and scaled by constants.
    """
    samples = pcm.astype(np.float32) / 32768
    samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectrum = np.fft.rfft(frames * np.hanning(WINDOW + 1)[:-1], FFT)
    energy = (spectrum.real**2 + spectrum.imag**2) / WINDOW
    return ((np.log(energy @ mel_filters().T + FLOOR) - MEAN) / SCALE).astype(np.float32)


@dataclass(frozen=True)
class Utterances:
    """Recordings as frames float32 [T_i, BINS], their digits int64 [N], and what they are called."""

    frames: list[Floats]
    labels: npt.NDArray[np.int64]
    names: list[str]


def load_fsdd(folder: Path, part: str) -> Utterances:
    """Part "train" (2,700) or "test" (300) of the official split: recordings 5 to 49 and 0 to 4 of each speaker."""
    with np.load(data_file(folder, "fsdd/fsdd.npz")) as data:
        pcm, offset, label, index, speaker = (data[k] for k in ("pcm", "offset", "label", "index", "speaker"))
    chosen = np.flatnonzero((index < 5) == (part == "test"))
    return Utterances(
        [log_mel(pcm[offset[i] : offset[i + 1]]) for i in chosen],
        label[chosen].astype(np.int64),
        [f"{label[i]}_{speaker[i]}_{index[i]}" for i in chosen],
    )
