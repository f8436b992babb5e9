# SPDX-License-Identifier: Apache-2.0
"""The log-mel front end: fixed point against an independent float64, streaming, kernels on host and cores."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import pytest
from front_end_edges import DEFAULT, SCALE, SMALLEST, WIDEST, ZERO_POINT, case, log_mel_edges, signals
from kernel_call import CORE_TARGETS, call_of, core_image, host_runner, on_core, wanted

from edgec.kernels import kernels_for
from edgec.operators import Case, get_operator
from edgec.operators.log_mel import log_mel_frames
from edgec.operators.mel import LogMel, twiddles

FSDD = Path(os.environ.get("EDGEC_DATA", Path(__file__).parents[2] / "shared" / "data")) / "fsdd" / "fsdd.npz"
(KERNEL,) = kernels_for("log_mel_s8", {"dsp"})
OTHER = LogMel(
    rate=16000, window=400, hop=160, fft=512, bins=32, lowest=100.0, highest=7000.0, floor=1e-5, mean=-6.0, scale=2.5
)


def by_hand(front_end: LogMel, window: np.ndarray) -> np.ndarray:
    """One frame in float64 from the text-book: a sum over samples for each point, a sum over points for each bin."""
    n, points = np.arange(front_end.window), np.arange(front_end.fft // 2 + 1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / front_end.window)
    turns = np.exp(-2j * np.pi * np.outer(points, n) / front_end.fft)
    power = np.abs(turns @ (window / 32768 * hann)) ** 2 / front_end.window

    def mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    low, high = mel(front_end.lowest), mel(front_end.highest)
    corners = [
        700 * (10 ** ((low + (high - low) * i / (front_end.bins + 1)) / 2595) - 1) for i in range(front_end.bins + 2)
    ]
    result = []
    for left, peak, right in zip(corners, corners[1:], corners[2:], strict=False):
        energy = front_end.floor
        for point, p in zip(points * front_end.rate / front_end.fft, power, strict=True):
            energy += p * max(0.0, min((point - left) / (peak - left), (right - point) / (right - peak)))
        result.append((math.log(energy) - front_end.mean) / front_end.scale)
    return np.array(result)


def speech_like(rng: np.random.Generator, count: int, rate: int) -> np.ndarray:
    """Voiced and noisy stretches and silence, from loud to quiet."""
    t = np.arange(count) / rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 1.5 * t)
    voiced = sum(np.sin(2 * np.pi * k * np.cumsum(pitch) / rate) / k**1.5 for k in range(1, 25))
    envelope = 10.0 ** (-2 + 2 * np.sin(2 * np.pi * 0.9 * t) - 1.0 * (t > 0.6 * t[-1]))
    noise = rng.normal(0, 0.2, count) * (np.sin(2 * np.pi * 3 * t) > 0.3) + rng.normal(0, 1e-4, count)
    return np.clip(np.rint(9000 * envelope * (voiced + noise)), -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("front_end", [DEFAULT, OTHER, SMALLEST, WIDEST])
def test_the_float_frames_are_the_definition(front_end: LogMel) -> None:
    pcm = speech_like(np.random.default_rng(0), 5 * front_end.hop + front_end.hop // 2, front_end.rate)
    frames = front_end.frames(pcm)
    assert frames.shape == (5, front_end.bins)
    padded = np.concatenate([np.zeros(front_end.window, np.int16), pcm])
    for t, frame in enumerate(frames):
        end = front_end.window + front_end.hop * (t + 1)
        np.testing.assert_allclose(frame, by_hand(front_end, padded[end - front_end.window : end]), atol=2e-6)


@pytest.mark.parametrize("front_end", [DEFAULT, OTHER])
def test_fixed_point_follows_float(front_end: LogMel) -> None:
    """Nothing is 2 apart, and next to nothing 1; the logarithm itself is good to 0.003."""
    rng = np.random.default_rng(1)
    pcm = speech_like(rng, 60 * front_end.hop, front_end.rate)
    frames = front_end.frames(pcm).astype(np.float64)
    got = log_mel_frames(front_end.framed(pcm), front_end.constants(SCALE, ZERO_POINT))
    nearest = np.clip(np.rint(frames / SCALE) + ZERO_POINT, -128, 127)
    apart = np.abs(got - nearest)
    assert apart.max() <= 1
    assert (apart == 0).mean() >= 0.995
    fine = SCALE / 32
    for zero_point in (-9000, -6000, -3000, 0):
        exact = log_mel_frames(front_end.framed(pcm), front_end.constants(fine, zero_point)).astype(np.float64)
        inside = np.abs(exact) < 127
        error = (exact - zero_point) * fine - frames
        assert np.abs(error[inside]).max(initial=0) * front_end.scale < 0.003 + fine * front_end.scale


@pytest.mark.parametrize("name", signals(240))
def test_extremes_follow_float(name: str) -> None:
    pcm = signals(240)[name]
    samples = pcm[None, -200:]
    want = by_hand(DEFAULT, samples[0].astype(np.float64))
    got = log_mel_frames(samples, DEFAULT.constants(SCALE, ZERO_POINT))[0]
    assert np.abs(got - np.clip(np.rint(want / SCALE) + ZERO_POINT, -128, 127)).max() <= 1


def test_every_loudness_keeps_its_bits() -> None:
    """A frame and the same frame doubled differ by ln 4 where the floor is far below."""
    front_end = dataclasses.replace(DEFAULT, floor=1e-12)
    rng = np.random.default_rng(2)
    loud = np.rint(rng.normal(0, 4000, (50, 200)))
    scale = 0.1
    levels = [log_mel_frames((loud / 2**k).astype(np.int16), front_end.constants(scale, 0)) for k in range(8)]
    steps = -np.diff(np.stack(levels).astype(np.float64), axis=0) * scale * front_end.scale
    assert np.abs(steps.mean(axis=(1, 2)) - math.log(4)).max() < 0.02


def test_a_stream_through_a_ring_has_the_frames_of_the_whole_signal() -> None:
    op, constants = get_operator("log_mel_s8"), DEFAULT.constants(SCALE, ZERO_POINT)
    pcm = speech_like(np.random.default_rng(3), 20 * DEFAULT.hop, DEFAULT.rate)
    whole = log_mel_frames(DEFAULT.framed(pcm), constants)
    ring, cursor = np.zeros((1, DEFAULT.rows, DEFAULT.hop), np.int16), 0
    for step, hop in enumerate(pcm.reshape(-1, DEFAULT.hop)):
        cursor = (cursor + 1) % DEFAULT.rows
        ring[0, cursor] = hop
        inputs = (ring, np.array([cursor], np.int32), *constants.arrays().values())
        np.testing.assert_array_equal(op.run(inputs, DEFAULT.attributes())[0], whole[step])


def test_frames_of_a_recording_are_those_of_the_padded_one() -> None:
    """A framing that begins at sample 0, as of recordings, of `window - hop` zeros and the recording."""
    pcm = speech_like(np.random.default_rng(4), 1000, DEFAULT.rate)
    padded = np.concatenate([np.zeros(120, np.int16), pcm]).astype(np.float64)
    frames = DEFAULT.frames(pcm)
    assert len(frames) == 1 + (len(padded) - 200) // 80 == 12
    for t, frame in enumerate(frames):
        np.testing.assert_allclose(frame, by_hand(DEFAULT, padded[80 * t : 80 * t + 200]), atol=2e-6)


def cases() -> list[Case]:
    pcm = [speech_like(np.random.default_rng(s), 480, 16000) for s in range(2)]
    small = LogMel(window=12, hop=4, fft=16, bins=3)
    return [*log_mel_edges(), case(OTHER, pcm, -1), case(small, [pcm[0][:12], pcm[1][:12]], 2)]


def test_the_kernel_on_the_host(tmp_path: Path) -> None:
    run = host_runner(KERNEL, tmp_path)
    for c in cases():
        for offset in (0, 1):
            np.testing.assert_array_equal(run(c, offset), wanted(KERNEL, c))


@pytest.mark.parametrize("core", CORE_TARGETS)
def test_the_kernel_on_a_core(core: str, tmp_path: Path) -> None:
    """Bit for bit, never outside its arrays; a frame costs at most 16,000 instructions, whatever is said."""
    image = core_image(KERNEL, core, tmp_path)
    for c in cases():
        assert KERNEL.accepts(call_of(KERNEL, c)) is None
        y, instructions = on_core(KERNEL, core, image, c)
        np.testing.assert_array_equal(y, wanted(KERNEL, c))
        if c.attrs == DEFAULT.attributes():
            assert instructions <= 16_000 * len(y)


def test_what_is_declined() -> None:
    def reason(front_end: LogMel, **changed: np.ndarray) -> str | None:
        ring, cursor, *_ = case(front_end, [np.zeros(front_end.rows * front_end.hop, np.int16)]).inputs
        arrays = front_end.constants(SCALE, ZERO_POINT).arrays() | changed
        return KERNEL.accepts(call_of(KERNEL, Case((ring, cursor, *arrays.values()), front_end.attributes())))

    good = DEFAULT.constants(SCALE, ZERO_POINT)
    assert reason(DEFAULT) is None
    assert "window of 199" in str(reason(dataclasses.replace(DEFAULT, window=199)))
    assert "hops of 75" in str(reason(dataclasses.replace(DEFAULT, hop=75)))
    assert "twiddles" in str(reason(DEFAULT, twiddles=good.twiddles // 2))
    assert "window" in str(reason(DEFAULT, window=good.window * 2 - 32767))
    assert "weights" in str(reason(DEFAULT, weights=good.weights + np.uint16(2**15)))
    assert "edges" in str(reason(DEFAULT, edges=good.edges[::-1].copy()))
    assert "logarithms" in str(reason(DEFAULT, logs=good.logs[::-1].copy()))
    assert "doublings" in str(reason(DEFAULT, params=good.params + np.array([0, 0, 9, 0, 0, 0, 0], np.int32)))
    assert "32 bits" in str(reason(DEFAULT, params=good.params - np.array([0, 0, 0, 0, 0, 0, 40], np.int32)))


def test_twiddles_are_negative_and_the_second_quarter_is_the_first_one_turned() -> None:
    for points in (4, 64, 2048):
        table = twiddles(points).astype(np.float64) / 2**31
        turned = -np.exp(1j * np.pi * np.arange(points) / points)
        np.testing.assert_allclose(table[:, 0] + 1j * table[:, 1], turned, atol=2**-31)
        np.testing.assert_array_equal(
            table[points // 2 :], np.stack([-table[: points // 2, 1], table[: points // 2, 0]], 1)
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"windows": 200}, "no 'windows'"),
        ({"window": 200.5}, "whole numbers"),
        ({"rate": "8000"}, "rate is '8000'"),
        ({"fft": 250}, "fft 250"),
        ({"window": 300}, "fft 256"),
        ({"hop": 201}, "hop of 201"),
        ({"highest": 5000.0}, "lowest < highest"),
        ({"floor": 0.0}, "floor"),
        ({"floor": float("nan")}, "whole numbers|floor"),
    ],
)
def test_descriptions_that_are_none(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogMel.of(values)


def test_settings_without_a_fixed_point_form() -> None:
    with pytest.raises(ValueError, match="floor of 1e-30"):
        dataclasses.replace(DEFAULT, floor=1e-30).constants(SCALE, 0)
    with pytest.raises(ValueError, match="steps of 1e-09"):
        DEFAULT.constants(1e-9, 0)


@pytest.mark.skipif(not FSDD.is_file(), reason="the Free Spoken Digit Dataset is not there")
def test_real_speech() -> None:
    """As near as the synthetic signals."""
    with np.load(FSDD) as data:
        pcm, offset = data["pcm"], data["offset"]
    constants, apart = DEFAULT.constants(SCALE, ZERO_POINT), []
    for i in range(0, len(offset) - 1, 60):
        recording = pcm[offset[i] : offset[i + 1]]
        nearest = np.clip(np.rint(DEFAULT.frames(recording).astype(np.float64) / SCALE) + ZERO_POINT, -128, 127)
        apart.append(np.abs(log_mel_frames(DEFAULT.framed(recording), constants) - nearest).ravel())
    found = np.concatenate(apart)
    assert found.max() <= 1
    assert (found == 0).mean() >= 0.995
