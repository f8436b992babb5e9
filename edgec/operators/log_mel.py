# SPDX-License-Identifier: Apache-2.0
"""Log-mel frames of PCM in integers: window, Fourier transform, mel energies, logarithm (edgec/operators/mel.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from edgec.operators.access import Orders, RowAccess, Rows, by_row
from edgec.operators.integer import Int8, Int32, Int64, sat8, tir_sat8
from edgec.operators.mel import LOG_PARTS, LOG_POINT, POWER_POINT, WEIGHT_POINT, Int16, LogMel, LogMelConstants
from edgec.operators.record import Access, Array, Case, TensorType, operator
from edgec.operators.ring import drawn_cursor

_CONSTANTS = ("window", "twiddles", "weights", "edges", "logs", "params")
_PARAMETERS = ("floor_low", "floor_high", "most", "mult", "addend_low", "addend_high", "shift")
_FULL = 28  # a frame is doubled while its largest sample stays below 2^(_FULL + 1)


@operator(
    "log_mel_s8",
    inputs=("ring", "cursor", *_CONSTANTS),
    constants=_CONSTANTS,
    parameters=_PARAMETERS,
    access=Access.WHOLE,
)
class LogMelS8:
    """ring int16 [S, R, H], cursor int32 [1] (the newest row, modulo R) -> y int8 [S, B]: log-mel frames.

    Constants: window int16 [W], the newest W samples count; twiddles int32 [N, 2], minus cosine and sine; weights
    uint16 [points]; edges int32 [B + 2]; logs int32 [33]; params. With hi(p) = (p + 2^31) >> 32:

    1. `v = x * window`, shifted left by s <= most until one of `v ^ (v >> 31)` has bit 28; pairs are complex numbers.
    2. A transform of N points by butterflies of two, from bit-reversed order: `h = a >> 1`,
       `t = (hi(b_re * c) + hi(b_im * s), hi(b_im * c) + hi(-b_re * s))`, a' = h - t, b' = h + t.
    3. The same butterfly, of `a = (z[k] + conj z[N-k]) >> 1` and `b = -i (z[k] - conj z[N-k]) >> 1`, halved part by
       part, makes it one of 2 N real points. `P = (re^2 + im^2) >> 16`.
    4. On the stretch between two edges `rising = sum(weight * P)`, `falling = 2^15 * sum(P) - rising`; a bin is
       `e = rising + falling of the next stretch + (floor << 2 s)`.
    5. `l = log2(e)` with 20 bits behind the point, by straight pieces, less 2 s; y is
       `sat8((l * mult + addend) >> shift)`.

    Nothing can leave 32 bits (energies: 63), whatever the samples. Attributes: size W, bins B, fft 2 N.
    """

    @staticmethod
    def infer(types: Sequence[TensorType], size: int, bins: int, fft: int) -> TensorType:
        ring, cursor, window, twiddles, _, edges, logs, params = types
        if len(ring.shape) != 3 or ring.dtype != "int16" or cursor != TensorType((1,), "int32"):
            raise ValueError(f"log_mel_s8: ring {ring}, cursor {cursor}")
        streams, rows, hop = ring.shape
        if not (rows - 1) * hop < size <= min(rows * hop, fft) or fft < 8 or fft & (fft - 1):
            raise ValueError(f"log_mel_s8: a window of {size}, {rows} hops of {hop}, a transform of {fft} points")
        shapes = [window.shape, twiddles.shape, edges.shape, logs.shape, params.shape]
        if bins < 1 or shapes != [(size,), (fft // 2, 2), (bins + 2,), (LOG_PARTS + 1,), (len(_PARAMETERS),)]:
            raise ValueError(f"log_mel_s8: {bins} bins, constants {shapes}")
        return TensorType((streams, bins), "int8")

    @staticmethod
    def reference(
        ring: Int16,
        cursor: Int32,
        window: Int16,
        twiddles: Int32,
        weights: Array,
        edges: Int32,
        logs: Int32,
        params: Int32,
        size: int,
        bins: int,
        fft: int,
    ) -> Int8:
        oldest_first = np.roll(ring, -1 - int(cursor[0]) % ring.shape[1], axis=1)
        samples = oldest_first.reshape(len(ring), -1)[:, -size:]
        return log_mel_frames(samples, LogMelConstants(window, twiddles, weights, edges, logs, params))

    @staticmethod
    def tir(T: Any, types: Sequence[TensorType], out: TensorType, size: int, bins: int, fft: int) -> Any:
        (S, R, H), (M,) = types[0].shape, types[4].shape
        W, B, E, N = size, bins, bins + 2, fft // 2
        SKIP, STAGES = R * H - W, N.bit_length() - 1

        def upper(a: Any, b: Any) -> Any:
            product = T.Cast("int64", a) * T.Cast("int64", b) + T.int64(2**31)
            return T.Cast("int32", product >> T.int64(32))

        def minus_upper(a: Any, b: Any) -> Any:
            product = T.int64(2**31) - T.Cast("int64", a) * T.Cast("int64", b)
            return T.Cast("int32", product >> T.int64(32))

        def squared(a: Any) -> Any:
            return T.Cast("int64", a) * T.Cast("int64", a)

        def words(low: Any, high: Any) -> Any:
            return T.Cast("int64", high) * T.int64(2**31) + T.Cast("int64", low)

        @T.prim_func(private=True, s_tir=True)
        def log_mel_s8(
            ring: T.Buffer((S, R, H), "int16"),
            cursor: T.Buffer((1,), "int32"),
            window: T.Buffer((W,), "int16"),
            twiddles: T.Buffer((N, 2), "int32"),
            weights: T.Buffer((M,), "uint16"),
            edges: T.Buffer((E,), "int32"),
            logs: T.Buffer((LOG_PARTS + 1,), "int32"),
            params: T.Buffer((7,), "int32"),
            y: T.Buffer((S, B), "int8"),
        ):
            z = T.alloc_buffer((N, 2), "int32")
            power = T.alloc_buffer((N,), "int64")
            energy = T.alloc_buffer((E,), "int64")
            at = T.alloc_buffer((1,), "int32")
            largest = T.alloc_buffer((1,), "int32")
            doublings = T.alloc_buffer((1,), "int32")
            a = T.alloc_buffer((2,), "int32")
            b = T.alloc_buffer((2,), "int32")
            first = T.alloc_buffer((2,), "int32")
            bits = T.alloc_buffer((1,), "int32")
            for s in range(S):
                # 1. the window
                first[0] = T.truncmod(cursor[0], T.int32(R)) + T.int32(R + 1)
                largest[0] = T.int32(0)
                for n in range(N):
                    at[0] = T.int32(0)
                    for i in range(STAGES):
                        at[0] = at[0] * T.int32(2) + ((n >> i) & 1)
                    for c in range(2):
                        if n * 2 + c < W:
                            first[1] = T.truncmod(first[0] + (n * 2 + c + SKIP) // H, T.int32(R))
                            z[at[0], c] = T.Cast("int32", ring[s, first[1], (n * 2 + c + SKIP) % H]) * T.Cast(
                                "int32", window[n * 2 + c]
                            )
                        else:
                            z[at[0], c] = T.int32(0)
                        largest[0] = largest[0] | (z[at[0], c] ^ (z[at[0], c] >> T.int32(31)))
                doublings[0] = T.int32(0)
                for _ in range(_FULL):
                    if largest[0] < T.int32(2**_FULL) and doublings[0] < params[2]:
                        largest[0] = largest[0] * T.int32(2)
                        doublings[0] = doublings[0] + T.int32(1)
                for n in range(N):
                    for c in range(2):
                        z[n, c] = z[n, c] * (T.int32(1) << doublings[0])
                for i in range(E):
                    energy[i] = words(params[0], params[1]) * (T.int64(1) << T.Cast("int64", doublings[0] * T.int32(2)))
                # 2. the transform of N complex points
                for stage in range(STAGES):
                    for m in range(N // 2):
                        at[0] = m & ((T.int32(1) << stage) - T.int32(1))
                        first[0] = 2 * m - at[0]
                        first[1] = first[0] + (T.int32(1) << stage)
                        at[0] = at[0] << (T.int32(STAGES) - stage)
                        for c in range(2):
                            a[c] = z[first[0], c] >> T.int32(1)
                        b[0] = upper(z[first[1], 0], twiddles[at[0], 0]) + upper(z[first[1], 1], twiddles[at[0], 1])
                        b[1] = upper(z[first[1], 1], twiddles[at[0], 0]) + minus_upper(
                            z[first[1], 0], twiddles[at[0], 1]
                        )
                        for c in range(2):
                            z[first[0], c] = a[c] - b[c]
                            z[first[1], c] = a[c] + b[c]
                # 3. the power of 2 N real ones
                for k in range(1, N // 2 + 1):
                    a[0] = (z[k, 0] + z[N - k, 0]) >> T.int32(1)
                    a[1] = (z[k, 1] - z[N - k, 1]) >> T.int32(1)
                    b[0] = (z[k, 1] + z[N - k, 1]) >> T.int32(1)
                    b[1] = (z[N - k, 0] - z[k, 0]) >> T.int32(1)
                    first[0] = upper(b[0], twiddles[k, 0]) + upper(b[1], twiddles[k, 1])
                    first[1] = upper(b[1], twiddles[k, 0]) + minus_upper(b[0], twiddles[k, 1])
                    for c in range(2):
                        a[c] = a[c] >> T.int32(1)
                        b[c] = a[c] + first[c]
                        a[c] = a[c] - first[c]
                    power[N - k] = (squared(b[0]) + squared(b[1])) >> T.int64(POWER_POINT)
                    power[k] = (squared(a[0]) + squared(a[1])) >> T.int64(POWER_POINT)
                # 4. mel energies
                for i in range(E - 1):
                    for k in range(edges[i + 1] - edges[i]):
                        at[0] = T.Cast("int32", weights[edges[i] + k - edges[0]])
                        energy[i + 1] = energy[i + 1] + power[edges[i] + k] * T.Cast("int64", at[0])
                        energy[i] = energy[i] + power[edges[i] + k] * T.Cast("int64", T.int32(2**WEIGHT_POINT) - at[0])
                # 5. logarithms
                for i in range(B):
                    bits[0] = T.int32(62) - doublings[0] * T.int32(2)
                    for step in range(6):
                        if energy[i + 1] < (T.int64(1) << T.Cast("int64", T.int32(63) - (T.int32(32) >> step))):
                            energy[i + 1] = energy[i + 1] << T.Cast("int64", T.int32(32) >> step)
                            bits[0] = bits[0] - (T.int32(32) >> step)
                    at[0] = T.Cast("int32", energy[i + 1] >> T.int64(57)) & T.int32(LOG_PARTS - 1)
                    bits[0] = (
                        bits[0] * T.int32(2**LOG_POINT)
                        + logs[at[0]]
                        + (
                            (
                                (logs[at[0] + 1] - logs[at[0]])
                                * (T.Cast("int32", energy[i + 1] >> T.int64(42)) & T.int32(2**15 - 1))
                            )
                            >> T.int32(15)
                        )
                    )
                    y[s, i] = tir_sat8(
                        T,
                        T.Cast(
                            "int32",
                            (T.Cast("int64", bits[0]) * T.Cast("int64", params[3]) + words(params[4], params[5]))
                            >> T.Cast("int64", params[6]),
                        ),
                    )

        return log_mel_s8

    @staticmethod
    def rows_read(types: Sequence[TensorType], size: int, bins: int, fft: int) -> Rows:
        _, rows, hop = types[0].shape
        return (RowAccess(bins, rows * hop), *(None,) * 7)

    @staticmethod
    def read_order(types: Sequence[TensorType], size: int, bins: int, fft: int) -> Orders:
        streams, rows, hop = types[0].shape
        return (by_row(streams, rows * hop, bins, "before"), *(None,) * 7)

    @staticmethod
    def samples(rng: np.random.Generator) -> Iterator[Case]:
        while True:
            described, streams = drawn_front_end(rng), int(rng.integers(1, 4))
            rows, hop = described.rows, described.hop
            ring = np.stack([drawn_pcm(rng, rows * hop).reshape(rows, hop) for _ in range(streams)])
            constants = described.constants(float(10.0 ** rng.uniform(-2.3, -0.5)), int(rng.integers(-128, 128)))
            yield Case((ring, drawn_cursor(rng, rows), *constants.arrays().values()), described.attributes())


def log_mel_frames(samples: Int16, constants: LogMelConstants) -> Int8:
    """The definition of `log_mel_s8` for many frames: int16 [T, W] -> int8 [T, B]."""
    floor, most, mult, addend, shift = _params(constants.params)
    twiddles, edges = constants.twiddles.astype(np.int64), constants.edges.astype(np.int64)
    points = len(twiddles)
    # 1. the window
    v = np.zeros((len(samples), 2 * points), np.int64)
    v[:, : len(constants.window)] = samples.astype(np.int64) * constants.window
    largest = np.bitwise_or.reduce(v ^ (v >> 63), axis=1)
    doublings = np.minimum(_FULL + 1 - _bit_length(largest), most)
    z = (v << doublings[:, None]).reshape(len(samples), points, 2).transpose(2, 0, 1)
    # 2. the transform of N complex points
    stages = points.bit_length() - 1
    z = z[:, :, [int(f"{n:0{stages}b}"[::-1], 2) for n in range(points)]]
    for stage in range(stages):
        half = 1 << stage
        groups = z.reshape(2, len(samples), -1, 2, half)
        turned = twiddles[:: points // half].T
        a, b = _butterfly(groups[:, :, :, 0], groups[:, :, :, 1], turned[:, None, None, :])
        z = np.stack([a, b], axis=3).reshape(2, len(samples), points)
    # 3. the power of 2 N real ones
    k = np.arange(1, points // 2 + 1)
    (re, im), (mirror_re, mirror_im) = z[:, :, k], z[:, :, points - k]
    even = np.stack([re + mirror_re, im - mirror_im]) >> 1
    odd = np.stack([im + mirror_im, mirror_re - re]) >> 1
    a, b = _butterfly(even, odd, twiddles[k].T[:, None, :])
    power = np.zeros((len(samples), points), np.int64)
    power[:, points - k] = (b[0] ** 2 + b[1] ** 2) >> POWER_POINT
    power[:, k] = (a[0] ** 2 + a[1] ** 2) >> POWER_POINT
    # 4. mel energies
    energy = np.repeat((floor << 2 * doublings)[:, None], len(edges), axis=1)
    for i, (begin, end) in enumerate(pairwise(edges)):
        stretch = power[:, begin:end]
        rising = (stretch * constants.weights[begin - edges[0] : end - edges[0]].astype(np.int64)).sum(axis=1)
        energy[:, i + 1] += rising
        energy[:, i] += (stretch.sum(axis=1) << WEIGHT_POINT) - rising
    # 5. logarithms
    energy = energy[:, 1:-1]
    bits = _bit_length(energy)
    full = energy << (63 - bits)
    piece, within = (full >> 57) & (LOG_PARTS - 1), (full >> 42) & (2**15 - 1)
    logs = constants.logs.astype(np.int64)
    logarithm = logs[piece] + (((logs[piece + 1] - logs[piece]) * within) >> 15)
    logarithm += (bits - 1 - 2 * doublings[:, None]) << LOG_POINT
    return sat8((logarithm * mult + addend) >> shift)


def _butterfly(a: Int64, b: Int64, turned: Int64) -> tuple[Int64, Int64]:
    """See step 2 of `LogMelS8`; real and imaginary part along the first axis."""

    def upper(product: Int64) -> Int64:
        result: Int64 = (product + 2**31) >> 32
        return result

    (re, im), (c, s), half = b, turned, a >> 1
    t = np.stack([upper(re * c) + upper(im * s), upper(im * c) + upper(-re * s)])
    return half - t, half + t


def _params(params: Int32) -> tuple[np.int64, int, int, int, int]:
    floor_low, floor_high, most, mult, addend_low, addend_high, shift = (int(p) for p in params)
    return np.int64((floor_high << 31) + floor_low), most, mult, (addend_high << 31) + addend_low, shift


def _bit_length(values: Int64) -> Int64:
    """Bits of whole numbers that are not negative; 0 of 0."""
    bits: Int64 = np.sum([values >> bit > 0 for bit in range(63)], axis=0, dtype=np.int64)
    return bits


def drawn_front_end(rng: np.random.Generator) -> LogMel:
    """The default front end, now and then, or a small one of odd sizes."""
    if rng.random() < 0.3:
        return LogMel()
    fft = int(2 ** rng.integers(3, 8))
    step = int(rng.choice([1, 2, 2]))
    window = int(rng.integers(2 // step, fft // step + 1)) * step
    lowest = float(rng.choice([0.0, rng.uniform(0, 2000)]))
    return LogMel(
        window=window,
        hop=int(rng.integers(1, window // step + 1)) * step,
        fft=fft,
        bins=int(rng.integers(1, 20)),
        lowest=lowest,
        highest=float(rng.choice([4000.0, rng.uniform(lowest + 1, 4000)])),
        floor=float(10.0 ** rng.uniform(-8, -3)),
        mean=float(rng.uniform(-12, 0)),
        scale=float(rng.uniform(1, 4)),
    )


def drawn_pcm(rng: np.random.Generator, count: int) -> Int16:
    """Noise of any loudness, its ends, an impulse or a tone."""
    kind, loud = rng.integers(0, 5), 2.0 ** rng.uniform(0, 15)
    t = np.arange(count)
    values = {
        0: rng.normal(0, loud / 3, count),
        1: rng.choice([-32768, 32767], count),
        2: loud * np.sin(2 * np.pi * rng.random() * t),
        3: np.where(t == rng.integers(0, count), -loud, 0),
        4: rng.integers(-32768, 32768, count),
    }[int(kind)]
    pcm: Int16 = np.clip(np.rint(values), -32768, 32767).astype(np.int16)
    return pcm
