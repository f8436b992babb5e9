# SPDX-License-Identifier: Apache-2.0
"""Rings and causal convolutions: a stream step by step is the convolution of the whole signal; kernels, their price."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ring_edges
from kernel_call import CORE_TARGETS, SIMULATOR, c_arguments, call_of, core_image, host_runner, on_core, wanted

from edgec.kernels import HandKernel, kernels_for
from edgec.operators import Case, get_operator

MOVES = ("ring_write_s8", "ring_read_s8", "ring_rotate_s8", "ring_write_s16", "ring_read_s16", "ring_rotate_s16")
OPS = (*MOVES, "causal_conv1d_s8", "causal_depthwise_s8")
KERNELS = {op: next(k for k in kernels_for(op, {"dsp"}) if k.name == f"{op}_dsp") for op in OPS}


def constants(rng: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
    bias, mult = rng.integers(-(2**12), 2**12, n), rng.integers(2**20, 2**24, n)
    return bias.astype(np.int32), mult.astype(np.int32), np.zeros(n, np.uint8)


def int8(rng: np.random.Generator, *shape: int, least: int = -128) -> np.ndarray:
    return rng.integers(least, 128, shape).astype(np.int8)


def conv(rng: np.random.Generator, ring: tuple[int, int, int], n: int, taps: int, dilation: int, at: int) -> Case:
    inputs = int8(rng, *ring), np.array([at], np.int32), int8(rng, n, taps, ring[2], least=-127)
    return Case((*inputs, *constants(rng, n), np.array([-3], np.int32)), {"dilation": dilation, "wide": 0})


def depthwise(rng: np.random.Generator, ring: tuple[int, int, int], taps: int, dilation: int, at: int) -> Case:
    inputs = int8(rng, *ring), np.array([at], np.int32), int8(rng, taps, ring[2], least=-127)
    return Case((*inputs, *constants(rng, ring[2]), np.array([5], np.int32)), {"dilation": dilation, "wide": 0})


def write(rng: np.random.Generator, ring: tuple[int, int, int], at: int) -> Case:
    return Case((int8(rng, *ring), int8(rng, ring[0], ring[2]), np.array([at], np.int32)), {})


def read(rng: np.random.Generator, ring: tuple[int, int, int], at: int, rows: int) -> Case:
    return Case((int8(rng, *ring), np.array([at], np.int32)), {"rows": rows})


def rotate(rng: np.random.Generator, ring: tuple[int, int, int], at: int) -> Case:
    return Case((int8(rng, *ring), np.array([at], np.int32)), {})


RNG = np.random.default_rng(4)
PLACES = (((1, 1, 1), 0), ((1, 4, 32), 3), ((3, 5, 7), -2), ((2, 3, 40), 2**30))
_WRITES = [write(RNG, *c) for c in PLACES]
_READS = [read(RNG, *c, rows) for c, rows in zip(PLACES, (1, 4, 2, 3), strict=True)]
_ROTATIONS = [rotate(RNG, *c) for c in PLACES]
CASES = {
    "ring_write_s8": _WRITES,
    "ring_read_s8": _READS,
    "ring_rotate_s8": _ROTATIONS,
    "ring_write_s16": ring_edges.wide(_WRITES),
    "ring_read_s16": ring_edges.wide(_READS),
    "ring_rotate_s16": ring_edges.wide(_ROTATIONS),
    "causal_conv1d_s8": [
        conv(RNG, (1, 1, 1), 1, 1, 1, 0),
        conv(RNG, (1, 3, 16), 16, 3, 1, 1),
        conv(RNG, (2, 6, 8), 7, 3, 2, -1),
        conv(RNG, (1, 4, 5), 6, 3, 1, -(2**31)),
        conv(RNG, (3, 9, 3), 2, 4, 2, 2**31 - 1),
        *(conv(RNG, (2, 37, 1), 5, taps, 1, at) for taps, at in ((37, 36), (37, 2), (30, 12), (30, 20))),
    ],
    "causal_depthwise_s8": [
        depthwise(RNG, (1, 3, 4), 3, 1, 1),
        depthwise(RNG, (1, 9, 8), 5, 2, 7),
        depthwise(RNG, (3, 4, 12), 4, 1, -(2**31)),
    ],
}


@pytest.mark.parametrize("op", ["causal_conv1d_s8", "causal_depthwise_s8"])
@pytest.mark.parametrize(("taps", "dilation", "spare"), [(1, 1, 0), (3, 1, 0), (4, 2, 0), (3, 3, 2)])
def test_a_stream_step_by_step_is_the_convolution_of_the_signal(op: str, taps: int, dilation: int, spare: int) -> None:
    """The oracle: `conv2d_s8` and `depthwise_conv2d_s8` over the whole signal, padded on the left alone."""
    rng = np.random.default_rng([taps, dilation])
    steps, channels, zero = 23, 4, -7
    signal = int8(rng, steps, channels)
    rows = (taps - 1) * dilation + 1 + spare
    window = {"strides": (1, 1), "pads": ((taps - 1) * dilation, 0, 0, 0), "dilations": (dilation, 1), "wide": 0}
    if op == "causal_conv1d_s8":
        w, whole = int8(rng, 5, taps, channels, least=-127), get_operator("conv2d_s8")
        wide_w, n = w[:, :, None], 5
    else:
        w, whole = int8(rng, taps, channels, least=-127), get_operator("depthwise_conv2d_s8")
        wide_w, n = w[:, None], channels
    vectors = constants(rng, n)
    points = np.array([zero, 9], np.int32)
    expected = whole.run((signal[:, None], wide_w, *vectors, points), window)[:, 0]
    ring, cursor = np.full((1, rows, channels), zero, np.int8), np.array([-3], np.int32)
    for x, y in zip(signal, expected, strict=True):
        cursor = get_operator("ring_cursor_s32").run((cursor,), {"rows": rows})
        assert 0 <= cursor[0] < rows
        ring = get_operator("ring_write_s8").run((ring, x[None], cursor), {})
        got = get_operator(op).run((ring, cursor, w, *vectors, points[1:]), {"dilation": dilation, "wide": 0})
        np.testing.assert_array_equal(got[0], y)


@pytest.mark.parametrize("op", OPS)
def test_portable_kernels_equal_the_operators(op: str, tmp_path: Path) -> None:
    kernel = KERNELS[op]
    run, rng = host_runner(kernel, tmp_path), np.random.default_rng(7)
    samples = itertools.islice(get_operator(op).samples(rng), 400)
    taken = [c for c in (*CASES[op], *samples) if kernel.accepts(call_of(kernel, c)) is None]
    assert len(taken) >= 30
    for i, case in enumerate(taken):
        np.testing.assert_array_equal(run(case, i % 4), wanted(kernel, case))


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize("op", OPS)
def test_kernels_on_the_core(op: str, core: str, tmp_path: Path) -> None:
    kernel = KERNELS[op]
    image = core_image(kernel, core, tmp_path)
    for case in CASES[op]:
        assert kernel.accepts(call_of(kernel, case)) is None
        y, _ = on_core(kernel, core, image, case)
        np.testing.assert_array_equal(y, wanted(kernel, case))


def in_place(kernel: HandKernel, image: Path, case: Case) -> tuple[np.ndarray, int]:
    """y and instructions of a call on a Cortex-M7 that writes over its ring."""
    arrays, y = c_arguments(kernel, case)
    shape, arrays[y] = arrays[y].shape, arrays[0].copy()
    request = io.BytesIO()
    np.savez(request, **{f"a{i}": a for i, a in enumerate(arrays)}, p0=np.array([y, 0]))
    command = [sys.executable, SIMULATOR, "cortex-m7", kernel.function, image]
    done = subprocess.run(command, input=request.getvalue(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    reply = np.load(io.BytesIO(done.stdout))
    return reply[f"a{y}"].reshape(shape), int(reply["instructions"])


def test_a_ring_is_written_in_place(tmp_path: Path) -> None:
    """One row is written, and the price does not grow with the ring."""
    kernel, rng = KERNELS["ring_write_s8"], np.random.default_rng(1)
    image, spent = core_image(kernel, "cortex-m7", tmp_path), []
    for rows in (3, 50):
        case = write(rng, (1, rows, 30), 7)
        y, instructions = in_place(kernel, image, case)
        np.testing.assert_array_equal(y, wanted(kernel, case))
        spent.append(instructions)
    assert spent[0] == spent[1] < 80


def accepted(kernel: HandKernel, case: Case) -> bool:
    return kernel.accepts(call_of(kernel, case)) is None


def test_what_is_declined() -> None:
    rng = np.random.default_rng(2)
    kernel = KERNELS["causal_depthwise_s8"]
    assert not accepted(kernel, depthwise(rng, (1, 3, 6), 3, 1, 0))  # channels
    assert not accepted(kernel, depthwise(rng, (1, 26, 4), 26, 1, 0))  # taps
    full = conv(rng, (1, 3, 8), 2, 3, 1, 0)
    assert not accepted(KERNELS["causal_conv1d_s8"], Case(full.inputs, {"dilation": 1, "wide": 1}))


def test_calls_that_do_not_fit() -> None:
    rng = np.random.default_rng(3)
    with pytest.raises(ValueError, match="4 taps 2 apart in a ring of 6 rows"):
        get_operator("causal_conv1d_s8").infer(conv(rng, (1, 6, 3), 2, 4, 2, 0).types, dilation=2)
    case = write(rng, (2, 3, 4), 0)
    with pytest.raises(ValueError, match="do not fit the ring"):
        get_operator("ring_write_s8").infer((*case.types[:1], case.types[0], case.types[2]))
    with pytest.raises(ValueError, match="step 4 of 3 rows"):
        get_operator("ring_cursor_s32").infer((case.types[2],), rows=3, step=4)
