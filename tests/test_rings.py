# SPDX-License-Identifier: Apache-2.0
"""Windows over the past become rings: the same bits as the shifted copy, which is within 1 of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_streams import PUSHES, Push, Stream, feeds_of, ops, ort_stream, ringed, same_bits, shifted, stream

from edgec.lower.lower import lower_to_integers
from edgec.model import Model

FEW = settings(max_examples=25, deadline=None)


def mean_of(g: Stream, window: str, axis: int) -> str:
    return g.op("ReduceMean", window, g.ints(axis), keepdims=0)


@pytest.mark.parametrize("shape", [(1, 5, 6), (1, 6, 5), (1, 4, 2, 3), (1, 7)], ids=str)
@pytest.mark.parametrize("push", PUSHES.values(), ids=PUSHES)
def test_every_writing_of_a_push_is_a_ring(push: Push, shape: tuple[int, ...]) -> None:
    """On any axis; both the window with the new row and the successor are read."""
    for axis in range(1, len(shape)):
        g = Stream(axis)
        s, new = g.state(*shape), tuple(1 if a == axis else d for a, d in enumerate(shape))
        x = g.given(*new, quant=g.quants[s])
        window, kept = push(g, s, x, axis)
        results = [mean_of(g, g.read(window, s), axis)]
        successor = g.successor(s, kept)
        results.append(mean_of(g, g.quantize(g.op("Relu", successor)), axis))
        model = g.finished(*results)
        rings = same_bits(model, 3 * shape[axis] + 2)
        assert ops(rings).count("ring_write_s8") == 1, ops(rings)
        assert rings.notes == []
        within_one_of_ort(model, 2 * shape[axis])


def within_one_of_ort(model: Model, steps: int) -> None:
    feeds = feeds_of(model, steps, 1)
    integers = lower_to_integers(model)
    ours, wanted = stream(ringed(model), feeds), ort_stream(model, feeds)
    apart, count = 0, 0
    scales = quantizations(integers)
    for mine, theirs in zip(ours, wanted, strict=True):
        for name, real in theirs.items():
            scale, zero = scales[name]
            steps_apart = np.abs(mine[name] - (np.rint(real.ravel().astype(np.float64) / scale) + zero))
            assert steps_apart.max() <= 1
            apart, count = apart + int((steps_apart > 0).sum()), count + real.size
    assert apart <= max(2, 0.02 * count)


def quantizations(model: Model) -> dict[str, tuple[float, int]]:
    from ring_streams import border_of

    return {e["name"]: (e["scale"], e["zero_point"]) for e in border_of(model)["outputs"]}
