# SPDX-License-Identifier: Apache-2.0
"""Rings on the device: bits of definitions, host and board; what a step writes, what it costs, save and restore."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ring_streams import Stream, concat_slice, feeds_of, ringed, shifted, slice_concat, stream

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model
from edgec.model import Model
from edgec.run import open_artifact, profile_artifact, to_device
from edgec.target import load_target

ROWS, KEYS, HEADS, WIDTH = 7, 5, 2, 4
STEPS = 3 * ROWS + 2


def listener() -> Model:
    """A dilated convolution over 7 frames, attention of its result over 5 keys and values, a delay of 2 steps."""
    g = Stream(11)
    frames = g.state(1, 2 * HEADS * WIDTH, ROWS - 1)
    x = g.given(1, 2 * HEADS * WIDTH, 1, quant=g.quants[frames])
    window, kept = concat_slice(g, frames, x, 2)
    g.successor(frames, kept)
    w = g.weight(HEADS * WIDTH, 2 * HEADS * WIDTH, 3, axis=0)
    y = g.quantize(g.op("Conv", g.cut(window, 2, 2), w, dilations=[2], kernel_shape=[3]))
    row = g.op("Transpose", y, perm=[0, 2, 1])
    sides = []
    for _ in range(2):
        s = g.state(1, KEYS, HEADS * WIDTH)
        new = g.read(g.op("MatMul", row, g.weight(HEADS * WIDTH, HEADS * WIDTH, axis=1)), s)
        _, kept = slice_concat(g, s, new, 1)
        past = g.op("Reshape", g.successor(s, kept), g.ints(1, KEYS, HEADS, WIDTH))
        sides.append(g.op("Transpose", past, perm=[0, 2, 1, 3]))
    q = g.op("Transpose", g.op("Reshape", row, g.ints(1, 1, HEADS, WIDTH)), perm=[0, 2, 1, 3])
    scores = g.quantize(g.op("MatMul", q, g.op("Transpose", sides[0], perm=[0, 1, 3, 2])))
    scores = g.quantize(g.op("Add", scores, g.quantized_constant(1, 1, 1, KEYS)))
    mix = g.quantize(g.op("MatMul", g.quantize(g.op("Softmax", scores, axis=-1)), sides[1]))
    late = g.state(1, 2, HEADS * WIDTH)
    flat = g.read(g.op("Reshape", g.op("Transpose", mix, perm=[0, 2, 1, 3]), g.ints(1, 1, HEADS * WIDTH)), late)
    _, kept = concat_slice(g, late, flat, 1)
    oldest = g.cut(late, 1, 0, 1)
    g.successor(late, kept)
    return g.finished(g.op("Add", oldest, flat))


def filtered(rows: int) -> Model:
    """Three taps, 2 apart, over the newest of `rows` frames of 6 channels."""
    g = Stream(12)
    s = g.state(1, 6, rows)
    x = g.given(1, 6, 1, quant=g.quants[s])
    window, kept = concat_slice(g, s, x, 2)
    g.successor(s, kept)
    w = g.weight(4, 6, 3, axis=0)
    return g.finished(g.op("Conv", g.cut(window, 2, rows - 4), w, dilations=[2], kernel_shape=[3]))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Artifact, list[list[bytes]], list[bytes]]:
    """(model, artifact, feeds of the device, results of the definitions with shifted windows)."""
    model = listener()
    artifact = compile_model(model, load_target("stm32f746"), tmp_path_factory.mktemp("rings") / "a", Options())
    feeds = feeds_of(model, STEPS)
    given = [[to_device(p, f[p.name][None])[0].tobytes() for p in artifact.inputs] for f in feeds]
    (output,) = [o.name for o in model.outputs]
    return model, artifact, given, [s[output].tobytes() for s in stream(shifted(model), feeds)]


Built = tuple[Model, Artifact, list[list[bytes]], list[bytes]]


def test_host_and_board_have_the_bits_of_the_shifted_windows(built: Built) -> None:
    model, artifact, given, wanted = built
    (output,) = [o.name for o in model.outputs]
    assert [s[output].tobytes() for s in stream(ringed(model), feeds_of(model, STEPS))] == wanted
    assert len(set(wanted)) > STEPS // 2
    for runner in ("host-c", "sim"):
        with open_artifact(artifact, runner) as device:
            device.reset()
            assert [device.run(f)[0] for f in given] == wanted, runner


def test_a_step_writes_the_new_rows_and_the_cursors_alone(built: Built) -> None:
    _, artifact, given, _ = built
    states = artifact.manifest["states"]
    assert all(s["in_place"] for s in states)
    rings, cursors = ([s for s in states if (s["dtype"] == "int32") == is_cursor] for is_cursor in (False, True))
    assert len(rings) == 4
    assert len(cursors) == 3
    moved: dict[str, set[int]] = {s["name"]: set() for s in rings}
    with open_artifact(artifact, "host-c") as device:
        device.reset()
        before = np.frombuffer(device.save_state(), np.int8)
        for feed in given:
            device.run(feed)
            after = np.frombuffer(device.save_state(), np.int8)
            changed = np.flatnonzero(before != after)
            for s in rings:
                streams, rows, channels = s["shape"]
                at = changed[(changed >= s["offset"]) & (changed < s["offset"] + streams * rows * channels)]
                touched = {int(i) for i in (at - s["offset"]) // channels % rows}
                assert len(touched) <= 1, s["name"]
                moved[s["name"]] |= touched
            before = after
    assert {n: len(rows) for n, rows in moved.items()} == {s["name"]: s["shape"][1] for s in rings}


@pytest.mark.parametrize("cut", [1, KEYS + 2, 2 * ROWS - 1])
def test_a_stream_goes_on_after_save_and_restore(built: Built, cut: int) -> None:
    """From the host to the board, in the middle of a turn of the rings."""
    _, artifact, given, wanted = built
    with open_artifact(artifact, "host-c") as device:
        device.reset()
        for feed in given[:cut]:
            device.run(feed)
        saved = device.save_state()
    with open_artifact(artifact, "sim" if cut == 1 else "host-c") as device:
        device.reset()
        device.run(given[0])
        device.restore_state(saved)
        assert [device.run(f)[0] for f in given[cut:]] == wanted[cut:]
        device.reset()
        assert [device.run(f)[0] for f in given[:3]] == wanted[:3]


def test_the_price_of_a_step_does_not_grow_with_the_window(tmp_path: Path) -> None:
    """8 frames or 64, three taps of them: the same instructions, to the last one."""
    spent = {}
    for rows in (8, 64):
        model = filtered(rows)
        artifact = compile_model(model, load_target("stm32f746"), tmp_path / str(rows), Options())
        samples = {n: a[None] for n, a in feeds_of(model, 1)[0].items()}
        spent[rows] = profile_artifact(artifact, samples)["instructions"]
        assert {o["op"] for o in artifact.manifest["operators"]} == {
            "ring_cursor_s32", "ring_write_s8", "causal_conv1d_s8",
        }  # fmt: skip
    assert spent[8] == spent[64]
