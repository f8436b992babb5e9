# SPDX-License-Identifier: Apache-2.0
"""Recordings of the Free Spoken Digit Dataset as sound; what a device hears. NumPy alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from data_folder import data_file
from features import HOP, WINDOW, Floats, log_mel


@dataclass(frozen=True)
class Recordings:
    """int16 PCM at 8 kHz with the digit, the speaker and the name of each."""

    pcm: list[npt.NDArray[np.int16]]
    labels: npt.NDArray[np.int64]
    speakers: list[str]
    names: list[str]

    def where(self, chosen: npt.NDArray[np.bool_]) -> Recordings:
        """Those that are chosen, in order."""
        places = np.flatnonzero(chosen)
        picked = [[values[i] for i in places] for values in (self.pcm, self.speakers, self.names)]
        return Recordings(picked[0], self.labels[places], picked[1], picked[2])


def heard(pcm: npt.NDArray[np.int16]) -> Floats:
    """int16 [N] -> log-mel frames float32 [N // HOP, BINS] as a device has them: one when a hop of samples is complete.

    Frame t holds the samples before HOP * (t + 1), zeros before the first of them.
    """
    return log_mel(np.concatenate([np.zeros(WINDOW - HOP, np.int16), pcm]))


def hops(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """int16 [N] -> [N // HOP, 1, HOP]: what a program with a front end takes, a step at a time."""
    count = len(pcm) // HOP
    return pcm[: count * HOP].reshape(count, 1, HOP)


def at_speed(pcm: npt.NDArray[np.int16], speed: float) -> npt.NDArray[np.int16]:
    """The recording `speed` times as fast (and as high), by linear interpolation."""
    places = np.arange(0, len(pcm) - 1, speed)
    return np.round(np.interp(places, np.arange(len(pcm)), pcm)).astype(np.int16)


def load(folder: Path, held_out: str | None = None) -> tuple[Recordings, Recordings]:
    """(training, test): the official split (recordings 0 to 4 of each speaker and digit are the test), or, with
    `held_out`, all recordings of the other speakers and all of this one."""
    with np.load(data_file(folder, "fsdd/fsdd.npz")) as data:
        pcm, offset, label, index, speaker = (data[k] for k in ("pcm", "offset", "label", "index", "speaker"))
    names = [f"{label[i]}_{speaker[i]}_{index[i]}" for i in range(len(label))]
    pieces = [pcm[offset[i] : offset[i + 1]] for i in range(len(label))]
    everything = Recordings(pieces, label.astype(np.int64), [str(one) for one in speaker], names)
    test = index < 5 if held_out is None else np.array([one == held_out for one in everything.speakers])
    if not test.any():
        sys.exit(f"error: no recordings of {held_out!r}\n  have   {', '.join(sorted(set(everything.speakers)))}")
    return everything.where(~test), everything.where(test)


def calibration_of(model: Path) -> Path:
    """The file with the quantizer's samples beside a trained model: its own, or the one for all in the folder."""
    own = model.parent / f"calibration_{model.stem}.npz"
    return own if own.exists() else model.parent / "calibration.npz"


def shipped(path: Path) -> Recordings:
    """The few recordings that the example brings along: `pcm`, `offset`, `label` and `name` of an npz file."""
    with np.load(path) as data:
        pcm, offset, names = data["pcm"], data["offset"], [str(name) for name in data["name"]]
        labels = data["label"].astype(np.int64)
    pieces = [pcm[offset[i] : offset[i + 1]] for i in range(len(labels))]
    return Recordings(pieces, labels, [name.split("_")[1] for name in names], names)


def write_shipped(test: Recordings, path: Path, count: int = 30) -> None:
    """`count` recordings of the test part as `shipped` reads them: the digits in turn, the speakers in turn."""
    speakers = sorted(set(test.speakers))
    chosen: list[int] = []
    for i in range(count):
        speaker, digit = speakers[(i + i // 10) % len(speakers)], i % 10
        chosen.append(next(j for j, name in enumerate(test.names) if name.startswith(f"{digit}_{speaker}_")))
    pieces = [test.pcm[j] for j in chosen]
    np.savez_compressed(
        path,
        pcm=np.concatenate(pieces),
        offset=np.cumsum([0, *map(len, pieces)]),
        label=test.labels[chosen],
        name=np.array([test.names[j] for j in chosen]),
    )
