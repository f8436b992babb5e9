# SPDX-License-Identifier: Apache-2.0
"""Who reads a ring and how: convolutions over it, rows as they lie, copies in the order of time; the same bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ring_streams import PUSHES, Stream, concat_slice, ops, same_bits, slice_concat

from edgec.model import Model

EXAMPLES = settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes


def window_of(g: Stream, s: str, x: str, axis: int, extended: bool) -> str:
    """The window with or without the oldest row; the successor is written."""
    whole, kept = slice_concat(g, s, x, axis)
    successor = g.successor(s, kept)
    return g.read(whole, s) if extended else successor


def bias(g: Stream, n: int) -> str:
    return g.constant(g.rng.normal(0, 0.3, n).astype(np.float32))


@EXAMPLES
@given(
    channels=st.integers(1, 9),
    taps=st.integers(2, 5),
    dilation=st.integers(1, 3),
    spare=st.integers(0, 3),
    outputs=st.integers(1, 6),
    depthwise=st.booleans(),
    first=st.booleans(),
    push=st.sampled_from(sorted(PUSHES)),
    seed=st.integers(0, 10**6),
)
def test_convolutions_read_the_ring(
    channels: int,
    taps: int,
    dilation: int,
    spare: int,
    outputs: int,
    depthwise: bool,
    first: bool,
    push: str,
    seed: int,
) -> None:
    """Conv of one place over the newest rows of a window, whichever axis comes first, whatever pushes."""
    span = (taps - 1) * dilation + 1
    rows = max(2, span - 1 + spare)
    g, axis = Stream(seed), 2 if first else 1
    s = g.state(*((1, channels, rows) if first else (1, rows, channels)))
    x = g.given(*((1, channels, 1) if first else (1, 1, channels)), quant=g.quants[s])
    whole, kept = PUSHES[push](g, s, x, axis)
    g.successor(s, kept)
    newest = g.cut(g.read(whole, s), axis, rows + 1 - span)
    image = newest if first else g.op("Transpose", newest, perm=[0, 2, 1])
    groups, n = (channels, channels) if depthwise else (1, outputs)
    w = g.weight(n, channels // groups, taps, axis=0)
    y = g.op("Conv", image, w, bias(g, n), dilations=[dilation], group=groups, kernel_shape=[taps])
    rings = same_bits(g.finished(y), 3 * rows + 1, seed, varied=False)
    convolution = "causal_depthwise_s8" if depthwise and channels > 1 else "causal_conv1d_s8"
    assert set(ops(rings)) == {"ring_cursor_s32", "ring_write_s8", convolution}


@EXAMPLES
@given(
    rows=st.integers(2, 40),
    outputs=st.integers(1, 8),
    lag=st.integers(0, 3),
    streams=st.integers(1, 4),
    flat=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_filters_over_scalars(rows: int, outputs: int, lag: int, streams: int, flat: bool, seed: int) -> None:
    """A dense layer over the past of each stream, the newest `lag` values left out."""
    g, lag = Stream(seed), min(lag, rows - 1)
    streams = 1 if flat else streams
    s = g.state(*((1, rows) if flat else (1, streams, rows)))
    axis = 1 if flat else 2
    x = g.given(*((1, 1) if flat else (1, streams, 1)), quant=g.quants[s])
    window = window_of(g, s, x, axis, extended=False)
    past = g.cut(window, axis, 0, rows - lag)
    w = g.weight(rows - lag, outputs, axis=1)
    rings = same_bits(g.finished(g.op("MatMul", past, w)), 2 * rows + 3, seed, varied=False)
    assert set(ops(rings)) == {"ring_cursor_s32", "ring_write_s8", "causal_conv1d_s8"}


def attention(
    rows: int, heads: int, width: int, axis: int, step: int, extended: bool, masked: bool, position: bool, seed: int
) -> Model:
    """q against the past keys and values; heads before (axis 2) or behind the axis of time, or in one axis (3)."""
    g = Stream(seed)
    joined, axis = axis == 3, 2 if axis == 2 else 1
    order = (1, heads, rows, width) if axis == 2 else (1, rows, heads, width)
    order = (1, rows, heads * width) if joined else order
    new = tuple(step if a == axis else d for a, d in enumerate(order))
    sides = []
    for _ in range(2):
        s = g.state(*order)
        x = g.given(*new, quant=g.quants[s])
        window = window_of(g, s, x, axis, extended)
        if joined:
            window = g.op("Reshape", window, g.ints(1, -1, heads, width))
        sides.append(window if axis == 2 else g.op("Transpose", window, perm=[0, 2, 1, 3]))
    q = g.given(1, heads, step, width)
    keys = rows + step if extended else rows
    scores = g.quantize(g.op("MatMul", q, g.op("Transpose", sides[0], perm=[0, 1, 3, 2])))
    if position:  # a dense layer gives a score to each distance
        table = g.weight(width, keys, axis=1)
        scores = g.quantize(g.op("Add", scores, g.quantize(g.op("MatMul", q, table))))
    if masked:
        scores = g.quantize(g.op("Add", scores, g.quantized_constant(1, 1, 1, keys)))
    share = g.constant(np.float32(1 / 256)), g.constant(np.int8(-128))
    p = g.snap(g.op("Softmax", scores, axis=-1), share)
    return g.finished(g.op("MatMul", p, sides[1]))


@EXAMPLES
@given(
    blocks=st.integers(2, 6),
    heads=st.integers(1, 3),
    width=st.integers(1, 5),
    axis=st.sampled_from([1, 2, 3]),
    step=st.sampled_from([1, 1, 2, 3]),
    extended=st.booleans(),
    masked=st.booleans(),
    position=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_attention_takes_keys_and_values_as_they_lie(
    blocks: int, heads: int, width: int, axis: int, step: int, extended: bool, masked: bool, position: bool, seed: int
) -> None:
    model = attention(blocks * step, heads, width, axis, step, extended, masked, position, seed)
    rings = same_bits(model, 3 * blocks + 1, seed, varied=False)
    made = ops(rings)
    assert made.count("ring_write_s8") == 2
    assert made.count("ring_cursor_s32") == 1
    assert not any(op.startswith("ring_read") for op in made)
    assert (made.count("ring_rotate_s8") > 0) == (masked or position)
    if not (masked or position):
        assert "attention_s8" in made
    if step == 1:
        assert "strided_copy_s8" not in made


READERS = {
    "sum": lambda g, w: g.op("ReduceSum", w, g.ints(1), keepdims=0),
    "largest": lambda g, w: g.op("ReduceMax", w, g.ints(1), keepdims=0),
    "mean of all": lambda g, w: g.op("ReduceMean", w, keepdims=0),
    "elementwise": lambda g, w: mean(g, g.quantize(g.op("Tanh", w))),
    "row by row": lambda g, w: mean(g, g.quantize(g.op("MatMul", w, g.weight(4, 3, axis=1)))),
    "normalized rows": lambda g, w: mean(g, normalized(g, w)),
    "times a constant": lambda g, w: mean(g, g.quantize(g.op("Mul", w, g.quantized_constant(1, 6, 4)))),
    "times a row": lambda g, w: mean(g, g.quantize(g.op("Mul", w, g.quantized_constant(1, 1, 4)))),
    "times a column": lambda g, w: mean(g, g.quantize(g.op("Mul", w, g.quantized_constant(1, 6, 1)))),
    "two parts of it": lambda g, w: g.op("Sub", g.cut(w, 1, 0, 3), g.cut(w, 1, 3)),
    "oldest row": lambda g, w: g.op("Relu", g.cut(w, 1, 0, 1)),
    "every other row": lambda g, w: g.op("Relu", g.op("Slice", w, g.ints(0), g.ints(6), g.ints(1), g.ints(2))),
    "reversed": lambda g, w: g.op("Relu", g.op("Slice", w, g.ints(-1), g.ints(-(2**40)), g.ints(1), g.ints(-1))),
    "two rows, far apart": lambda g, w: g.op("Relu", g.op("Gather", w, g.ints(0, 4, 5), axis=1)),
    "itself": lambda g, w: w,
    "running sum": lambda g, w: g.op("CumSum", w, g.constant(np.int64(1))),
    "sum along and across": lambda g, w: g.op("ReduceSum", w, g.ints(1, 2), keepdims=0),
    "products of rows": lambda g, w: g.op("MatMul", w, g.op("Transpose", w, perm=[0, 2, 1])),
    "softmax along it": lambda g, w: mean(
        g, g.quantize(g.op("Softmax", g.op("Transpose", w, perm=[0, 2, 1]), axis=-1)), 2
    ),
    "beside a constant": lambda g, w: g.op("Concat", w, g.quantized_constant(1, 1, 4), axis=1),
}


def mean(g: Stream, value: str, axis: int = 1) -> str:
    return g.op("ReduceMean", value, g.ints(axis), keepdims=0)


def normalized(g: Stream, value: str) -> str:
    gain, shift = (g.constant(g.rng.normal(m, 0.2, 4).astype(np.float32)) for m in (1, 0))
    return g.quantize(g.op("LayerNormalization", value, gain, shift))


NO_COPY = {
    "sum", "largest", "mean of all", "elementwise", "row by row", "normalized rows", "times a row",
    "sum along and across", "softmax along it",
}  # fmt: skip


@pytest.mark.parametrize("extended", [False, True], ids=["successor", "window"])
@pytest.mark.parametrize("name", READERS)
def test_readers_of_a_window(name: str, extended: bool) -> None:
    g, rows = Stream(len(name)), 5 if extended else 6
    s = g.state(1, rows, 4)
    window = window_of(g, s, g.given(1, 1, 4, quant=g.quants[s]), 1, extended)
    rings = same_bits(g.finished(READERS[name](g, window)), 20)
    made = ops(rings)
    assert made.count("ring_write_s8") == 1
    if name in NO_COPY:
        assert not {"ring_read_s8", "ring_rotate_s8", "concat_s8"} & set(made), made
        assert "strided_copy_s8" not in made or name in ("softmax along it", "largest"), made


@pytest.mark.parametrize("rows", [2, 5])
def test_a_delay_line_reads_before_it_writes(rows: int) -> None:
    """y = f(x, what came `rows` steps ago); the ring has no row more than the state."""
    g = Stream(rows)
    s = g.state(1, rows, 3)
    x = g.given(1, 1, 3, quant=g.quants[s])
    late = g.cut(s, 1, 0, 1)
    _, kept = concat_slice(g, s, x, 1)
    g.successor(s, kept)
    rings = same_bits(g.finished(g.op("Add", late, x)), 4 * rows)
    ring = next(i for i in rings.proto.graph.input if i.name == rings.states[0].input)
    assert [d.dim_value for d in ring.type.tensor_type.shape.dim] == [1, rows, 3]


def test_what_is_pushed_may_depend_on_the_past() -> None:
    """A comb: x + a * (what came 4 steps ago) goes in."""
    g = Stream(3)
    s = g.state(1, 4, 3)
    x = g.given(1, 1, 3)
    echo = g.quantize(g.op("Mul", g.cut(s, 1, 0, 1), g.constant(np.float32(0.5))))
    new = g.read(g.op("Add", x, echo), s)
    window, kept = concat_slice(g, s, new, 1)
    g.successor(s, kept)
    made = ops(same_bits(g.finished(mean(g, window), new), 19))
    assert made.count("ring_write_s8") == 1


def test_a_chain_of_delay_lines() -> None:
    """The oldest row of one is what the next gets."""
    g = Stream(4)
    a, b = g.state(1, 3, 2), g.state(1, 4, 2)
    x = g.given(1, 1, 2, quant=g.quants[a])
    old = g.cut(a, 1, 0, 1)
    _, kept = concat_slice(g, a, x, 1)
    g.successor(a, kept)
    passed = g.read(old, b)
    window, kept = slice_concat(g, b, passed, 1)
    g.successor(b, kept)
    made = ops(same_bits(g.finished(mean(g, g.read(window, b))), 25))
    assert made.count("ring_write_s8") == 2


def test_layers_of_one_length_share_a_cursor() -> None:
    g = Stream(5)
    value, count = g.given(1, 1, 3), 3
    for _ in range(count):
        s = g.state(1, 4, 3)
        window = window_of(g, s, g.read(value, s), 1, extended=False)
        value = g.quantize(g.op("ReduceMean", window, g.ints(1), keepdims=1))
    made = ops(same_bits(g.finished(g.op("Relu", value)), 20))
    assert made.count("ring_write_s8") == count
    assert made.count("ring_cursor_s32") == 1


def test_a_constant_may_be_pushed() -> None:
    """A mask that fills up: one more entry counts at every step, until all do."""
    g = Stream(6)
    s = g.state(1, 5)
    one = g.read(g.constant(np.full((1, 1), 2.0, np.float32)), s)
    _, kept = slice_concat(g, s, one, 1)
    filled = g.successor(s, kept)
    rings = same_bits(g.finished(g.op("Mul", filled, g.given(1, 5)), g.op("ReduceSum", filled, g.ints(1))), 9)
    assert "ring_write_s8" in ops(rings)


def test_a_window_may_leave_the_model_as_it_is() -> None:
    """An output with the integers of the state, beside the state."""
    g = Stream(7)
    s = g.state(1, 5, 2)
    _, kept = slice_concat(g, s, g.given(1, 1, 2, quant=g.quants[s]), 1)
    seen = g.read(g.successor(s, kept), s)
    g.outputs[seen] = (1, 5, 2)
    made = ops(same_bits(g.finished(), 13))
    assert made == ["ring_cursor_s32", "ring_write_s8", "ring_read_s8"]


def test_two_delay_lines_in_a_circle() -> None:
    """Each gets the oldest row of the other, of which one leaves the model too; what is in them goes round for ever."""
    g = Stream(8)
    a, b = g.state(1, 3, 2), g.state(1, 4, 2)
    quant = g.quants[a]
    g.quants[b] = quant
    for node in g.nodes:  # one scale for both
        if node.name.startswith(("QuantizeLinear", "DequantizeLinear")):
            node.input[1], node.input[2] = quant
    of_a, of_b = g.cut(a, 1, 0, 1), g.cut(b, 1, 0, 1)
    _, kept = slice_concat(g, a, of_b, 1)
    passed = slice_concat(g, b, of_a, 1)[1]
    g.successor(a, kept)
    g.successor(b, passed)
    g.pairs = [replace(g.pairs[0], reset=0.9), replace(g.pairs[1], reset=-0.7)]
    seen = g.read(of_a, a)
    g.outputs[seen] = (1, 1, 2)
    made = ops(same_bits(g.finished(g.op("Add", g.quantize(mean(g, g.read(a, a))), g.given(1, 2))), 15))
    assert made.count("ring_write_s8") == 2
