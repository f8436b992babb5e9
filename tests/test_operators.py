# SPDX-License-Identifier: Apache-2.0
"""Every operator's generated C and hand-written kernels against its one definition, bit for bit, on every CPU."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attention_edges
import conv_edges
import float_edges
import front_end_edges
import int16_edges
import numpy as np
import pytest
import ring_edges
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from operator_edges import MORE_EDGES
from operator_program import Batch, HostFunctions, Work, build_batch, run_batch

from edgec.kernels.select import PREPARE
from edgec.operators import Access, Case, Operator, get_operator, operators
from edgec.operators.elementwise import add_params
from edgec.operators.integer import multipliers
from edgec.operators.layer_norm import constants as layer_norm_constants
from edgec.operators.softmax import exponentials
from edgec.target import load_target

DSP = frozenset({"dsp"})  # the host runs the portable form of every hand-written kernel
GUARD = 0x5A
LARGEST_MULT, LARGEST_SHIFT = 2**30 - 1, 30


def sampled(seed: int, count: int, fills: int) -> list[tuple[Operator, Case]]:
    """`count` cases of every operator from its sampler, and each again with `fills` other sets of activations.

    A shape is a function to generate and to compile, which is what takes the time; values are free.
    """
    rng = np.random.default_rng(seed)
    drawn = [(op, case) for op in operators().values() for case in itertools.islice(op.samples(rng), count)]
    return [(op, varied) for op, case in drawn for varied in (case, *(refill(rng, op, case) for _ in range(fills)))]


def refill(rng: np.random.Generator, op: Operator, case: Case) -> Case:
    """The case with other activations: over the whole range, or its ends."""
    whole = rng.random() < 0.7
    values = (
        a if role in op.constants else fill(rng, a.shape, a.dtype, whole)
        for role, a in zip(op.inputs, case.inputs, strict=True)
    )
    return Case(tuple(values), case.attrs)


def fill(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype, whole: bool) -> np.ndarray:
    if dtype.kind == "f":
        bits = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)  # NaN and infinities among them
        return bits if whole else rng.normal(0, 3, shape).astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = rng.integers(low, high + 1, shape) if whole else rng.choice([low, high], shape)
    return values.astype(dtype)


def int8(*values: object) -> np.ndarray:
    return np.array(values, np.int8)


def int32(*values: object) -> np.ndarray:
    return np.array(values, np.int32)


def linear(m: int, k: int, n: int, w: object, mult: int, shift: int, zero: int, bias: int = 0, wide: int = 0) -> Case:
    x = np.resize(int8(-128, 127, 1, -1, 0), (m, k))
    vectors = (np.full(n, bias, np.int32), np.full(n, mult, np.int32), np.full(n, shift, np.uint8))
    return Case((x, np.broadcast_to(np.asarray(w, np.int8), (n, k)).copy(), *vectors, int32(zero)), {"wide": wide})


def linear_edges() -> list[Case]:
    (mult,), (shift,) = multipliers(0.003, wide=False)
    return [
        linear(1, 1, 1, 127, int(mult), int(shift), 0),
        linear(1, 1, 5, -127, LARGEST_MULT, 0, 127),
        linear(7, 1, 3, 127, int(mult), int(shift), -128),
        linear(5, 9, 1, -127, int(mult), int(shift), 5),
        linear(1, 33, 6, 1, 1, LARGEST_SHIFT, 0),
        linear(3, 8, 4, 127, LARGEST_MULT, LARGEST_SHIFT, -128),
        linear(3, 8, 4, -127, LARGEST_MULT, LARGEST_SHIFT, 127, bias=2**30),
        linear(3, 8, 4, -127, 0, 0, 3),  # a dead column
        linear(2, 4, 2, [[1, 2, 3, 4], [-128, -128, -128, -128]], int(mult), int(shift), 0),
        linear(2, 4, 2, [[-1, -2, -3, -4], [-128, -128, -128, -128]], int(mult), int(shift), 0),
        linear(2, 516, 3, -127, 2**20, 0, -7, bias=-(2**30)),
        linear(2, 1040, 3, 127, 2**20, 0, 7),  # sums that a column pair cannot hold
        linear(2, 5, 3, 127, 2**29, 31, 1, bias=2**31 - 1 - 5 * 2**14, wide=1),
        linear(2, 5, 3, 127, LARGEST_MULT, 0, -1, wide=1),
        linear(5, 1, 4, 2, 2**29, 0, 0),  # halves exactly, of both signs
        linear(5, 1, 4, 2, 2**29, 0, 0, wide=1),
        linear(2, 5, 3, -127, LARGEST_MULT, 12, -128, bias=-(2**31) + 5 * 2**14, wide=1),
    ]


def linear_table_edges() -> list[Case]:
    return [Case((*case.inputs, np.arange(127, -129, -1, dtype=np.int8)), case.attrs) for case in linear_edges()]


def linear_add_edges() -> list[Case]:
    sums = itertools.cycle(
        [
            add_params((1.0, 0), (1.0, 0), (1.0, 0)),
            add_params((1.0, 127), (1.0, -128), (0.51, -128), -1),
            add_params((2.0**-2, -128), (2.0**-9, 127), (1.0, 127)),
            add_params((2.0**-4, 3), (2.0**5, -128), (1.0, 0), -1),
        ]
    )
    cases = []
    for case in linear_edges():
        x, *constants, params = case.inputs
        residual = np.resize(int8(127, -128, 5, 0, -1), (len(x), len(constants[0])))
        cases.append(Case((x, residual, *constants, np.concatenate([params, next(sums)])), case.attrs))
    return cases


def matmul_edges() -> list[Case]:
    def case(shape: tuple[int, int, int, int], *params: int, wide: int = 0) -> Case:
        b, m, k, n = shape
        left, right = np.resize(int8(-128, 127, 3), (b, m, k)), np.resize(int8(127, -128, -5, 0), (b, k, n))
        return Case((left, right, int32(*params)), {"wide": wide})

    return [
        case((1, 1, 1, 1), 127, 127, LARGEST_MULT, 0, 0),
        case((3, 1, 7, 1), -128, 127, LARGEST_MULT, LARGEST_SHIFT, -128),
        case((1, 5, 1, 4), 127, -128, 1, 0, 127),
        case((2, 3, 1, 4), 1, -6, 2**29, 0, 0),  # a half exactly
        case((2, 3, 1, 4), 1, -6, 2**29, 0, 0, wide=1),
        case((2, 3, 600, 2), 127, 127, 2**18, 0, 3),
        case((2, 3, 40, 2), -128, -128, 2**29, 31, 3, wide=1),
        case((2, 3, 40, 2), -128, 127, LARGEST_MULT, 3, 127, wide=1),
        *attention_edges.matmul_edges(),
        *attention_edges.MATMUL_DECLINED,
    ]


def softmax_edges() -> list[Case]:
    ramp = np.arange(-128, 128)
    rows = [np.full((3, 17), 5), [[-128]], [[127], [-128], [0]], np.full((1, 1000), -128), [ramp, ramp[::-1]]]
    rows.append([[127, *[-128] * 40]])
    scales = (1e-5, 0.02, 3.0)
    return [Case((np.array(x, np.int8), exponentials(s))) for x in rows for s in scales]


def layer_norm_edges(widest: int = 1024) -> list[Case]:
    def case(x: np.ndarray, gamma: float, scale: float, zero: int, source: float) -> Case:
        d = x.shape[1]
        signs = np.where(np.arange(d) % 3, 1.0, -1.0)
        return Case((x.astype(np.int8), *layer_norm_constants(gamma * signs, signs, 1e-5, source, (scale, zero))))

    rng = np.random.default_rng(5)
    outlier = np.full((2, widest), -128)
    outlier[0, 3] = 127
    outlier[1, :-1] = 127
    return [
        case(np.array([[-128]]), 1.0, 0.05, 0, 0.1),
        case(np.array([[7], [127], [-128]]), 2.0, 0.05, -128, 0.001),
        case(np.array([[0, 1], [127, -128], [4, 4]]), 1.0, 0.01, 3, 1e-4),
        case(np.full((4, 33), [[-128], [127], [0], [1]]), 1.0, 0.03, 127, 0.1),
        case(outlier, 1.0, 0.3, 0, 0.1),
        case(outlier, 1e-6, 1e-8, 0, 10.0),
        case(rng.integers(-128, 128, (2, widest)), 30.0, 0.5, -5, 0.02),
        case(rng.integers(-1, 1, (2, 96)), 1.0, 0.02, 0, 1e-3),  # epsilon outweighs the variance
    ]


def pair_edges(name: str) -> list[Case]:
    cases = []
    shapes = [
        ((1, 1), (1, 1)),
        ((1, 300), (1, 300)),
        ((300, 1), (1, 1)),
        ((4, 9), (4, 1)),
        ((4, 9), (1, 9)),
        ((4, 9), (1, 1)),
    ]
    ends = [(-128, -128, 127), (127, -128, -128), (127, 127, 0), (-128, 127, -128), (0, 0, 127), (127, 0, -128)]
    for i, ((a, b), (za, zb, zy)) in enumerate(zip(shapes, ends, strict=True)):
        x, y = np.resize(int8(-128, 127, 0, 1, -1), a), np.resize(int8(127, -128, 2), b)
        if name == "add_s8":
            large, small = [(1.0, 1.0), (2.0**12, 1.0), (2.0**-6, 2.0**-9)][i % 3]
            params = add_params((large, za), (small, zb), (1.0, zy), -1 if i % 2 else 1)
            cases.append(Case((x, y, params)))
        else:
            mult, shift, wide = [(LARGEST_MULT, LARGEST_SHIFT, 0), (1, 0, 0), (2**29, 31, 1)][i % 3]
            cases.append(Case((x, y, int32(za, zb, mult, shift, zy)), {"wide": wide}))
    if name == "mul_s8":  # halves exactly
        x, y = np.resize(int8(1, -1, 3), (2, 9)), int8(2)[None]
        cases += [Case((x, y, int32(0, 0, 2**29, 0, 0)), {"wide": wide}) for wide in (0, 1)]
    return cases


def table_edges() -> list[Case]:
    every = np.arange(-128, 128, dtype=np.int8)
    return [
        Case((every, every)),
        Case((every, every[::-1].copy())),
        Case((int8(-128), every)),
        Case((int8(127), every)),
    ]


def mean_edges() -> list[Case]:
    def case(shape: tuple[int, int, int], value: int, *params: int, wide: int = 0) -> Case:
        return Case((np.full(shape, value, np.int8), int32(*params)), {"wide": wide})

    return [
        case((1, 1, 1), -128, 127, LARGEST_MULT, 0, 0),
        case((5, 1, 1), 127, -128, LARGEST_MULT, LARGEST_SHIFT, 127),
        case((1, 3000, 2), 127, -128, 2**20, 0, -128),
        case((2, 3000, 1), -128, 127, 2**29, 31, 127, wide=1),
        case((1, 7, 33), -128, -128, 1, 0, -128),
        case((3, 1, 4), 2, 0, 2**29, 0, 0),  # a half exactly
        case((3, 2, 4), -1, 0, 2**29, 0, 0, wide=1),
    ]


def copy_edges() -> list[Case]:
    x = np.arange(-128, 128, dtype=np.int8)

    def case(offset: int, shape: list[int], strides: list[int]) -> Case:
        return Case((x,), {"offset": offset, "shape": shape, "strides": strides})

    return [
        case(0, [1], [0]),
        case(255, [1, 1, 1], [7, -3, 0]),
        case(9, [4, 6], [0, 1]),  # expand rows
        case(9, [4, 6], [1, 0]),  # expand columns
        case(3, [50], [0]),
        case(255, [256], [-1]),
        case(200, [5, 7], [-30, 2]),
        case(254, [3, 4, 5], [-64, -13, -3]),
        case(0, [2, 3, 2, 2, 3, 2], [72, 1, 36, 3, 12, 6]),
        case(255, [2, 2, 2, 2, 2, 2], [-1, -2, 0, -8, -16, -32]),
    ]


def concat_edges() -> list[Case]:
    x = np.arange(-100, 100, dtype=np.int8)
    shapes = [((1, 1), (1, 1)), ((1, 150), (1, 1)), ((1, 1), (1, 150)), ((50, 1), (50, 3)), ((7, 11), (7, 13))]
    return [Case((np.resize(x, a), np.resize(x[::-1], b))) for a, b in shapes]


EDGES = {
    "linear_s8": linear_edges,
    "linear_table_s8": linear_table_edges,
    "linear_add_s8": linear_add_edges,
    "matmul_s8": matmul_edges,
    "softmax_s8": softmax_edges,
    "layer_norm_s8": layer_norm_edges,
    "table_s8": table_edges,
    "add_s8": functools.partial(pair_edges, "add_s8"),
    "mul_s8": functools.partial(pair_edges, "mul_s8"),
    "mean_s8": mean_edges,
    "strided_copy_s8": copy_edges,
    "concat_s8": concat_edges,
    **attention_edges.EDGES,
    **conv_edges.EDGES,
    **int16_edges.EDGES,
    **ring_edges.EDGES,
    **float_edges.EDGES,
    **front_end_edges.EDGES,
    **MORE_EDGES,
}


def edges() -> list[tuple[Operator, Case]]:
    return [(get_operator(name), case) for name, make in EDGES.items() for case in make()]


def check(work: Work, target_name: str, folder: Path) -> Counter[str]:
    """Build and run; every output must be the definition's. Returns how many calls of each operator were by hand."""
    target = load_target(target_name)
    batch = Batch(work)
    implementations = batch.implementations(DSP if target.family == "host" else target.cpu.features)
    built = build_batch(batch, implementations, target, folder)
    outputs = run_batch(batch, built, folder)
    calls = [(c.op, i) for c, i in zip(batch.program.calls, implementations, strict=True) if c.op != PREPARE]
    assert len(outputs) == len(calls)
    for name, output in outputs.items():
        index = int(name.split(".")[0])
        op, case = work[index]
        wanted = op.run(case.inputs, case.attrs)
        assert np.array_equal(output, wanted), f"{target_name}: {name} {op.name} {case.types} {case.attrs}"
    return Counter(op for op, i in calls if i.kind == "hand")


# How many edges the hand-written kernels of an operator take: what they decline is part of the contract.
BY_HAND = {
    "linear_s8": lambda: len(linear_edges()) - 6,  # a lane and a sum that a pair cannot hold, four wide ones
    "linear_table_s8": lambda: len(linear_table_edges()) - 6,
    "linear_add_s8": lambda: len(linear_add_edges()) - 6,
    "matmul_s8": lambda: len(attention_edges.matmul_edges()) + 1,  # and the one of a single row above
    "softmax_s8": lambda: len(softmax_edges()),
    "attention_s8": lambda: len(attention_edges.attention_edges()) - 1,
    "max_pool_s8": lambda: len(conv_edges.max_pool_edges()),
    "avg_pool_s8": lambda: len(conv_edges.avg_pool_edges()) - 1,  # a wide one
}


def in_parts(work: Work, most: int) -> Iterator[list[tuple[Operator, Case]]]:
    """The cases in parts of which the inputs and outputs together take at most `most` bytes; 255 ports are numbered."""
    part: list[tuple[Operator, Case]] = []
    size = 0
    for op, case in work:
        inputs = (a.nbytes for role, a in zip(op.inputs, case.inputs, strict=True) if role not in op.constants)
        need = sum(inputs) + op.infer(case.types, **case.attrs).bytes
        if need > most:
            continue
        if size + need > most or len(part) == 84:
            yield part
            part, size = [], 0
        part.append((op, case))
        size += need
    yield part


def test_every_operator_has_edges() -> None:
    assert set(EDGES) == set(operators())


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=2, phases=[Phase.generate])  # an example is 280 cases; shrinking a seed tells nothing
def test_the_host_computes_the_definition(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    hand = check(sampled(seed, 7, 3), "host-c", tmp_path_factory.mktemp("host"))
    assert hand.total() >= 10


def test_the_host_computes_the_edges(tmp_path: Path) -> None:
    widest = [(get_operator("layer_norm_s8"), case) for case in layer_norm_edges(8192)]
    hand = check([*edges(), *widest], "host-c", tmp_path)
    assert {op: hand[op] for op in BY_HAND} == {op: count() for op, count in BY_HAND.items()}
    assert hand["conv2d_s8"] + hand["depthwise_conv2d_s8"] == conv_edges.HAND


@pytest.mark.parametrize("board", ["stm32f746", "stm32f407"])
def test_boards_compute_the_definition(tmp_path: Path, board: str) -> None:
    cases = [*sampled(int.from_bytes(board.encode()[-3:], "big"), 3, 0), *edges()]
    parts = list(in_parts(cases, most=90_000))
    assert sum(len(part) for part in parts) >= len(cases) - 2  # without what fits no part
    hand = sum((check(part, board, tmp_path / str(i)) for i, part in enumerate(parts)), Counter[str]())
    assert all(hand[op] >= count() for op, count in BY_HAND.items())
    assert hand["conv2d_s8"] + hand["depthwise_conv2d_s8"] >= conv_edges.HAND


# --- claims of `Access`, by execution on the host


def as_bytes(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(values.tobytes(), np.int8)


class Laid:
    """Memory with x at a distance before or after y, guarded on both sides."""

    def __init__(self, x: np.ndarray, y_bytes: int, distance: int) -> None:
        """y begins `distance` bytes after x."""
        room = 64 + -(-max(0, -distance) // 8) * 8
        self.memory = np.full(room + max(x.nbytes, distance + y_bytes) + 64, GUARD, np.int8)
        self._x, self._y, self._y_bytes = room, room + distance, y_bytes
        self.memory[room : room + x.nbytes] = as_bytes(x)
        self._used = (min(self._x, self._y), max(room + x.nbytes, self._y + y_bytes))

    @property
    def x(self) -> int:
        return self.memory.ctypes.data + self._x

    @property
    def y(self) -> int:
        return self.memory.ctypes.data + self._y

    def result(self) -> np.ndarray:
        first, end = self._used
        assert (self.memory[:first] == GUARD).all()
        assert (self.memory[end:] == GUARD).all()
        return self.memory[self._y : self._y + self._y_bytes].copy()


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> tuple[Batch, HostFunctions, list[bool]]:
    """Cases of every operator with a claim, the library's functions, and which calls are hand-written.

    For ROWS, each case is followed by itself with one row.
    """
    work = []
    for op, case in [*sampled(3, 5, 1), *edges()]:
        if op.access is Access.WHOLE:
            continue
        work.append((op, case))
        if op.access is Access.ROWS:
            rows = (a if role in op.constants else a[:1] for role, a in zip(op.inputs, case.inputs, strict=True))
            work.append((op, Case(tuple(rows), case.attrs)))
    batch = Batch(work)
    implementations = batch.implementations(DSP)
    folder = tmp_path_factory.mktemp("access")
    built = build_batch(batch, implementations, load_target("host-c"), folder)
    return batch, HostFunctions(built, folder), [i.kind == "hand" for i in implementations]


def steps_of(batch: Batch, access: Access) -> list[int]:
    calls = enumerate(batch.program.calls)
    return [step for step, call in calls if call.op != PREPARE and get_operator(call.op).access is access]


def addresses(batch: Batch, step: int, x: int, y: int) -> dict[str, int]:
    call = batch.program.calls[step]
    given = {n: values.ctypes.data for n, values in batch.values.items() if n.split(".")[0] == call.name.split(".")[0]}
    return {**given, call.inputs[0]: x, call.outputs[0]: y}


def case_of(batch: Batch, step: int) -> tuple[Operator, Case]:
    return batch.work[int(batch.program.calls[step].name.split(".")[0])]


def test_claims_are_all_executed() -> None:
    claims = {
        Access.ELEMENTWISE: {"table_s8", "add_s8", "mul_s8", "div_s8", "extreme_s8", "select_s8", "ring_cursor_s32"},
        Access.IN_ROWS: {"softmax_s8", "masked_softmax_s8", "layer_norm_s8", "rms_norm_s8", "attention_s8"}
        | {"ring_write_s8", "ring_write_s16"},
    }
    for access, names in {**claims, Access.ROWS: {"linear_s8", "linear_table_s8", "linear_add_s8"}}.items():
        assert names == {n for n, op in operators().items() if op.access is access}


@pytest.mark.parametrize("claim", [Access.ELEMENTWISE, Access.IN_ROWS])
def test_the_output_may_replace_the_first_input(access: tuple[Batch, HostFunctions, list[bool]], claim: Access) -> None:
    batch, functions, _ = access
    steps = steps_of(batch, claim)
    assert len(steps) >= 20
    for step in steps:
        op, case = case_of(batch, step)
        wanted = op.run(case.inputs, case.attrs)
        if wanted.shape != case.inputs[0].shape:
            continue  # no place to take
        row = wanted.shape[-1] * wanted.itemsize
        for distance in (0, -row):  # in its place, and a row before it
            laid = Laid(case.inputs[0], wanted.nbytes, distance)
            functions.call(step, addresses(batch, step, laid.x, laid.y))
            assert np.array_equal(laid.result(), as_bytes(wanted)), (op.name, case.types, distance)


def test_the_output_of_elementwise_operators_may_replace_any_input_of_its_shape(
    access: tuple[Batch, HostFunctions, list[bool]],
) -> None:
    batch, functions, _ = access
    tried = 0
    for step in steps_of(batch, Access.ELEMENTWISE):
        op, case = case_of(batch, step)
        if {*op.inputs[1:2]} <= {*op.constants} or case.inputs[0].shape != case.inputs[1].shape:
            continue
        tried += 1
        call, laid = batch.program.calls[step], Laid(case.inputs[1], case.inputs[1].size, 0)
        places = addresses(batch, step, batch.values[call.inputs[0]].ctypes.data, laid.y)
        functions.call(step, {**places, call.inputs[1]: laid.x})
        assert np.array_equal(laid.result(), op.run(case.inputs, case.attrs).ravel()), (op.name, case.types)
    assert tried >= 4


def test_rows_are_independent(access: tuple[Batch, HostFunctions, list[bool]]) -> None:
    """A call equals a call for each row alone."""
    batch, functions, hand = access
    tried = {True: 0, False: 0}
    for step in steps_of(batch, Access.ROWS):
        name, *tvm = batch.program.calls[step].name.split(".")
        if int(name) % 2 == 0:
            continue  # the call with all rows; its one-row form follows
        op, case = batch.work[int(name) - 1]
        wanted = op.run(case.inputs, case.attrs)
        x = np.ascontiguousarray(case.inputs[0])
        y = np.full(wanted.shape, GUARD, np.int8)
        for r in range(len(x)):
            places = addresses(batch, step, x[r].ctypes.data, y[r].ctypes.data)
            if op.inputs[1] not in op.constants:
                places[batch.program.calls[step].inputs[1]] = case.inputs[1][r].ctypes.data
            functions.call(step, places)
        assert np.array_equal(y, wanted), (op.name, case.types, tvm)
        tried[hand[step]] += 1
    assert min(tried.values()) >= 10


def test_a_sum_may_replace_its_residual(access: tuple[Batch, HostFunctions, list[bool]]) -> None:
    batch, functions, hand = access
    tried = {True: 0, False: 0}
    for step, call in enumerate(batch.program.calls):
        if call.op != "linear_add_s8":
            continue
        op, case = case_of(batch, step)
        laid = Laid(case.inputs[1], case.inputs[1].size, 0)
        places = addresses(batch, step, batch.values[call.inputs[0]].ctypes.data, laid.y)
        functions.call(step, {**places, call.inputs[1]: laid.x})
        assert np.array_equal(laid.result(), op.run(case.inputs, case.attrs).ravel()), (case.types, hand[step])
        tried[hand[step]] += 1
    assert min(tried.values()) >= 10


def test_rows_may_be_overwritten_once_their_output_is_complete(
    access: tuple[Batch, HostFunctions, list[bool]],
) -> None:
    """The closest overlap that `Access.ROWS` allows: output row r reaches at most the end of input row r - 1."""
    batch, functions, hand = access
    tried = {True: 0, False: 0}
    for step in steps_of(batch, Access.ROWS):
        op, case = case_of(batch, step)
        wanted = op.run(case.inputs, case.attrs)
        (rows, k), n = case.inputs[0].shape, wanted.shape[1]
        distance = min(r * k - (r + 1) * n for r in range(rows))
        laid = Laid(case.inputs[0], wanted.size, distance)
        functions.call(step, addresses(batch, step, laid.x, laid.y))
        assert np.array_equal(laid.result(), wanted.ravel()), (op.name, case.types, hand[step])
        tried[hand[step]] += rows > 1
    assert min(tried.values()) >= 5
