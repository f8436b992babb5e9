# SPDX-License-Identifier: Apache-2.0
"""What every operator record says of rows and reading order, against its definition: run, poisoned and traced."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from definition_trace import trace

from edgec.operators import Case, Operator, get_operator, operators
from edgec.operators.access import UNREAD, ReadOrder, RowAccess

NAMES = tuple(operators())
SMALL = 700
"""Elements of input and output together, for what looks at each pair of them."""
# What an output row cannot do without: rows are of the whole input.
WHOLE: dict[str, tuple[str, ...]] = {
    "attention_s8": ("k", "v"),
    **{f"ring_{what}_s{bits}": ("cursor",) for what in ("write", "read", "rotate") for bits in (8, 16)},
    "causal_conv1d_s8": ("cursor",),
    "causal_depthwise_s8": ("cursor",),
    "log_mel_s8": ("cursor",),
}


def cases(op: Operator, count: int, seed: int = 0, most: int = 10**9) -> Iterator[Case]:
    rng = np.random.default_rng([seed, *op.name.encode()])
    small = (c for c in op.samples(rng) if sum(a.size for a in c.inputs) + elements(op, c) <= most)
    return itertools.islice(small, count)


def elements(op: Operator, case: Case) -> int:
    return math.prod(op.infer(case.types, **case.attrs).shape)


def activations(op: Operator) -> range:
    return range(len(op.inputs) - len(op.constants))


@pytest.mark.parametrize("name", NAMES)
def test_the_traced_definition_computes_the_reference(name: str) -> None:
    op = get_operator(name)
    for case in cases(op, 8):
        assert np.array_equal(trace(op, case).output, op.run(case.inputs, case.attrs))


@pytest.mark.parametrize("name", NAMES)
def test_an_output_row_depends_on_nothing_but_its_rows(name: str) -> None:
    """Everything that is not claimed for a row is replaced: the row stays."""
    op, rng, tried = get_operator(name), np.random.default_rng(1), 0
    for case in cases(op, 25, 1, 4000):
        wanted = op.run(case.inputs, case.attrs).ravel()
        claims = op.rows_read(case.types, **case.attrs)
        assert len(claims) == len(op.inputs)
        assert all(claims[i] is None for i in range(len(op.inputs)) if i not in activations(op))
        for i in activations(op):
            access = claims[i]
            if access is None:
                continue
            rows = -(-wanted.size // access.out_elements)
            for row in sorted({0, rows - 1, *(int(r) for r in rng.integers(0, rows, 4))}):
                first, last = row * access.out_elements, min((row + 1) * access.out_elements, wanted.size)
                source = case.inputs[i]
                a, b = access.elements(first, last, source.size)
                poisoned = poison(rng, source)
                poisoned.ravel()[a:b] = source.ravel()[a:b]
                again = op.run([poisoned if j == i else x for j, x in enumerate(case.inputs)], case.attrs).ravel()
                assert np.array_equal(again[first:last], wanted[first:last]), (case.types, case.attrs, access, row)
                tried += b - a < source.size
    assert tried >= 10


def poison(rng: np.random.Generator, source: np.ndarray) -> np.ndarray:
    if source.dtype.kind == "f":
        return (~source.view(np.uint32)).view(np.float32)
    info = np.iinfo(source.dtype)
    other = rng.integers(info.min, info.max, source.shape, endpoint=True).astype(source.dtype)
    return np.where(other == source, ~source, other)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_definition_reads_for_a_row_is_claimed(name: str) -> None:
    """The reads between two writes belong to the row of one or the other; together the rows claim them all."""
    op, tried = get_operator(name), 0
    for case in cases(op, 8, 2, SMALL):
        claims, run = op.rows_read(case.types, **case.attrs), trace(op, case)
        size = run.output.size
        for i in activations(op):
            access = claims[i]
            if access is None:
                continue
            events = run.of(i)
            following: int | None = None
            after: list[int | None] = []
            for write, element in reversed(events):
                after.append(following)
                following = element if write else following
            before: int | None = None
            for (write, element), later in zip(events, reversed(after), strict=True):
                if write:
                    before = element
                    continue
                near = [
                    access.elements(*row_of(access, e, size), case.inputs[i].size)
                    for e in (before, later)
                    if e is not None
                ]
                assert any(a <= element < b for a, b in near), (case.types, case.attrs, access, element)
                tried += 1
    assert tried


def row_of(access: RowAccess, element: int, size: int) -> tuple[int, int]:
    row = element // access.out_elements
    return row * access.out_elements, min((row + 1) * access.out_elements, size)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_claimed_of_every_first_activation(name: str) -> None:
    """A record that falls back on "whole" by omission is found here; `WHOLE` lists those that mean it."""
    op = get_operator(name)
    claimed = set()
    for case in cases(op, 60, 3):
        claimed |= {op.inputs[i] for i, c in enumerate(op.rows_read(case.types, **case.attrs)) if c is not None}
    assert claimed == {op.inputs[i] for i in activations(op)} - set(WHOLE.get(name, ()))


# Copies have their shape in their attributes, which a block would have to change.
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"strided_copy_s8", "strided_copy_s16"}))
def test_a_block_of_rows_is_a_call_of_its_own(name: str) -> None:
    """Where rows answer one to one and lie along an axis of all tensors, the operator on them gives them."""
    op, tried = get_operator(name), 0
    rng = np.random.default_rng(4)
    for case in cases(op, 80, 4):
        out = op.run(case.inputs, case.attrs)
        claims = op.rows_read(case.types, **case.attrs)
        by_row = {i: c for i, c in enumerate(claims) if c is not None}
        if not by_row or not all(c.rowwise for c in by_row.values()):
            continue
        unit = math.lcm(*(c.out_elements for c in by_row.values()))
        rows = out.size // unit
        if (
            rows * unit != out.size
            or rows < 2
            or any(rows * unit // c.out_elements * c.in_elements != case.inputs[i].size for i, c in by_row.items())
        ):
            continue
        a = int(rng.integers(0, rows))
        b = int(rng.integers(a + 1, rows + 1))
        cut = [part(x, rows, a, b) if i in by_row else x for i, x in enumerate(case.inputs)]
        if any(x is None for x in cut):
            continue
        again = op.run(cut, case.attrs)
        assert np.array_equal(again.ravel(), out.ravel()[a * unit : b * unit]), (case.types, case.attrs, a, b)
        tried += 1
    assert tried >= 3


def part(x: np.ndarray, rows: int, a: int, b: int) -> np.ndarray | None:
    """Rows [a, b) of so many, along the first axis of more than one element."""
    axis = next((k for k, d in enumerate(x.shape) if d > 1), 0)
    if x.shape[axis] % rows:
        return None
    each = x.shape[axis] // rows
    return np.ascontiguousarray(np.take(x, range(a * each, b * each), axis=axis))


def test_rows_of_known_layers() -> None:
    def rows(name: str, shapes: list[tuple[int, ...]], **attrs: object) -> tuple[RowAccess | None, ...]:
        op = get_operator(name)
        from edgec.operators import TensorType

        return op.rows_read([TensorType(s, "int8") for s in shapes], **attrs)

    vectors = [(7,)] * 3 + [(2,)]
    window = {"strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [1, 1]}
    assert rows("linear_s8", [(5, 9), (7, 9), *vectors])[0] == RowAccess(7, 9)
    assert rows("matmul_s8", [(1, 5, 9), (1, 9, 7), (5,)]) == (RowAccess(7, 9), None, None)
    assert rows("matmul_s8", [(3, 5, 9), (3, 9, 7), (5,)])[1] == RowAccess(7, 63, per=5)
    assert rows("conv2d_s8", [(8, 10, 3), (7, 3, 3, 3), *vectors], **window)[0] == RowAccess(35, 30, 1, 1, 2)
    assert rows("max_pool_s8", [(8, 10, 3)], kernel=[2, 2], **{**window, "pads": [0] * 4})[0] == RowAccess(
        15, 30, 0, 1, 2
    )
    assert rows("table_s8", [(50,), (256,)])[0] == RowAccess(1, 1)
    assert rows("add_s8", [(4, 6), (4, 6), (4,)])[:2] == (RowAccess(1, 1), RowAccess(1, 1))
    assert rows("add_s8", [(4, 6), (4, 1), (4,)])[:2] == (RowAccess(6, 6), RowAccess(6, 1))
    assert rows("add_s8", [(4, 6), (1, 6), (4,)])[:2] == (RowAccess(6, 6), None)
    assert rows("concat_s8", [(4, 6), (4, 3)]) == (RowAccess(9, 6), RowAccess(9, 3))
    assert rows("concat_s8", [(1, 6), (1, 3)]) == (RowAccess(1, 1), RowAccess(1, 1, 6, -6))
    # Patches of 4x4 of an image [12, 8, 3] -> [3, 2, 4, 4, 3]: a strip of four image rows gives two patches.
    patches = {"offset": 0, "shape": [3, 2, 4, 4, 3], "strides": [96, 12, 24, 3, 1]}
    assert rows("strided_copy_s8", [(288,)], **patches) == (RowAccess(96, 96),)
    # Columns 2..5 of [7, 10]; rows 3.. of it; a transpose.
    assert rows("strided_copy_s8", [(70,)], offset=2, shape=[7, 4], strides=[10, 1]) == (RowAccess(4, 10),)
    assert rows("strided_copy_s8", [(70,)], offset=30, shape=[4, 10], strides=[10, 1]) == (RowAccess(1, 1, -30, 30),)
    assert rows("strided_copy_s8", [(70,)], offset=0, shape=[10, 7], strides=[1, 10]) == (RowAccess(7, 1, 0, 60),)
    assert rows("strided_copy_s8", [(70,)], offset=0, shape=[5, 7], strides=[0, 1]) == (None,)


# --- the order in which inputs are read


def needed(run: list[tuple[bool, int]], in_bytes: int, out_bytes: int) -> int:
    """The distance above the last that fails: input byte r is read after output byte w was written, w - r apart."""
    last: dict[int, int] = {}
    first: dict[int, int] = {}
    for time, (write, element) in enumerate(run):
        if write:
            first.setdefault(element, time)
        else:
            last[element] = time
    r, t_read = np.array(list(last)), np.array(list(last.values()))
    w, t_written = np.array(list(first)), np.array(list(first.values()))
    clash = t_written[:, None] < t_read[None]
    between = (w[:, None] * out_bytes + out_bytes - 1) - r[None] * in_bytes + 1
    return int(between[clash].max(initial=-UNREAD))


def survives(
    run: list[tuple[bool, int]], in_bytes: int, out_bytes: int, sizes: tuple[int, int], low: int
) -> list[bool]:
    """For every distance from `low` on: whether every read finds the input, in one memory with the output."""
    inputs, outputs = sizes[0] * in_bytes, sizes[1] * out_bytes
    distances = np.arange(low, outputs + 1)
    memory = np.full((len(distances), outputs + inputs + outputs + inputs), -1)
    base = inputs  # of the output
    for k, d in enumerate(distances):
        memory[k, base + d : base + d + inputs] = np.arange(inputs)
    good = np.ones(len(distances), bool)
    at = np.arange(len(distances))
    for write, element in run:
        if write:
            memory[:, base + element * out_bytes : base + (element + 1) * out_bytes] = -2
        else:
            for byte in range(element * in_bytes, (element + 1) * in_bytes):
                good &= memory[at, base + distances + byte] == byte
    return list(good)


# Where the rule asks for more than the definition needs, and why.
LOOSE = {
    "depthwise_conv2d_s8": "a window at the border is read before its first channel is written",
    "avg_pool_s8": "a pixel is read before it is begun; kernels may read a channel only before that is written",
    "max_pool_s8": "a pixel is read after it was begun; only its own channel",
    "cumsum_s8": "columns are written one after the other",
    "top_k_s8": "columns are written one after the other",
    "take_s8": "the indices are not known",
    "select_s8": "one of two operands is read, by the values",
    "embedding_s8": "an int32 index is read whole before a byte is written",
    **{f"ring_{what}_s{bits}": "the cursor is not known" for what in ("write", "read", "rotate") for bits in (8, 16)},
    "causal_conv1d_s8": "the cursor is not known",
    "causal_depthwise_s8": "the cursor is not known",
    "log_mel_s8": "the cursor is not known, and the window begins within its oldest hop",
}


@pytest.mark.parametrize("name", NAMES)
def test_reading_order_is_that_of_the_definition(name: str) -> None:
    """The distance is safe, every larger one is, and it is the smallest of which that is true, unless listed."""
    op, tried = get_operator(name), 0
    for case in cases(op, 12, 5, SMALL):
        orders, run = op.read_order(case.types, **case.attrs), trace(op, case)
        for i in activations(op):
            if orders[i] is None:
                continue
            events, sizes = run.of(i), (case.inputs[i].size, run.output.size)
            bytes_ = case.inputs[i].itemsize, run.output.itemsize
            rule, truth = orders[i].distance(*bytes_), needed(events, *bytes_)
            assert rule >= truth, (case.types, case.attrs, i)
            if name not in LOOSE and (name, op.inputs[i]) != ("matmul_s8", "b"):  # its last columns are read last
                assert max(rule, -sizes[0]) == max(truth, -sizes[0]), (case.types, case.attrs, i)
            if len(events) < 4000:
                low = max(rule, -sizes[0] * bytes_[0])
                assert all(survives(events, *bytes_, sizes, low))
                if low == truth > -sizes[0] * bytes_[0]:
                    assert not survives(events, *bytes_, sizes, truth - 1)[0]
            tried += 1
    assert tried >= 12


@pytest.mark.parametrize("name", NAMES)
def test_an_order_is_claimed_of_every_activation_that_has_rows(name: str) -> None:
    op = get_operator(name)
    for case in cases(op, 30, 6):
        rows, orders = op.rows_read(case.types, **case.attrs), op.read_order(case.types, **case.attrs)
        assert len(orders) == len(op.inputs)
        for row, order in zip(rows, orders, strict=True):
            assert row is None or order is not None
            assert order is None or len(order.first) * order.elements == elements(op, case)


def test_blocks_allow_what_they_read_first() -> None:
    """Ten rows of 5 to 8 elements, row by row: 9 * 3; four at a time the first rows of a block may be overwritten."""
    rows = ReadOrder(np.arange(10) * 5, 8)
    assert rows.distance(1, 1) == 9 * 3
    assert rows.in_blocks(8 * 4).distance(1, 1) == 9 * 3
    assert ReadOrder(np.arange(8) * 5, 8).in_blocks(8 * 4).distance(1, 1) == 4 * 3
    assert ReadOrder(np.arange(8) * 5, 8).in_blocks(8 * 8).distance(1, 1) == -UNREAD
    until = ReadOrder(np.arange(10) * 5, 8, "until")
    assert until.distance(1, 1) == 9 * 3 + 7
    assert until.in_blocks(8).distance(1, 1) == 9 * 3
