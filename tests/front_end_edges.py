# SPDX-License-Identifier: Apache-2.0
"""Front ends at the ends of what they take: silence, full scale, single samples, cursors that are any number."""

from __future__ import annotations

import numpy as np

from edgec.operators import Case
from edgec.operators.mel import LogMel

DEFAULT = LogMel()
SCALE, ZERO_POINT = 5.3 / 255, -66
SMALLEST = LogMel(window=2, hop=2, fft=8, bins=1, lowest=0.0, highest=4000.0)
WIDEST = LogMel(rate=16000, window=512, hop=160, fft=512, bins=64, lowest=20.0, highest=8000.0, floor=1e-4, mean=-5.0)


def signals(count: int) -> dict[str, np.ndarray]:
    t, rng = np.arange(count), np.random.default_rng(count)
    values = {
        "silence": np.zeros(count),
        "square": np.where(t // 4 % 2, 32767, -32768),
        "impulse": np.where(t == count - 60, -32768, 0),
        "lowest": np.full(count, -32768),
        "highest": np.full(count, 32767),
        "alternating": np.where(t % 2, 32767, -32768),
        "one": np.where(t == count // 2, 1, 0),
        "tone": np.rint(32767 * np.sin(0.7 * t)),
        "quiet": rng.integers(-2, 3, count),
        "random": rng.integers(-32768, 32768, count),
    }
    return {name: v.astype(np.int16) for name, v in values.items()}


def case(front_end: LogMel, streams: list[np.ndarray], cursor: int = 0, scale: float = SCALE) -> Case:
    ring = np.stack(streams).reshape(len(streams), front_end.rows, front_end.hop)
    constants = front_end.constants(scale, ZERO_POINT).arrays().values()
    return Case((ring, np.array([cursor], np.int32), *constants), front_end.attributes())


def log_mel_edges() -> list[Case]:
    found = [
        case(DEFAULT, list(signals(240).values()), cursor=2),
        case(SMALLEST, [np.array(v, np.int16) for v in ([0, 0], [-32768, -32768], [1, -1], [32767, -32768])]),
        case(WIDEST, list(signals(640).values())[1:3]),
    ]
    noise = list(signals(240).values())[-1:]
    return found + [case(DEFAULT, noise, cursor) for cursor in (1, -1, 2**31 - 1, -(2**31))]


EDGES = {"log_mel_s8": log_mel_edges}
