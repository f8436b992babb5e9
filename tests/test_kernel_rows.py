# SPDX-License-Identifier: Apache-2.0
"""Hand-written elementwise, moving and reducing kernels: the operators' bits, here and on simulated cores."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_call import CORE_TARGETS, call_of, core_image, host_runner, on_core, wanted

from edgec.kernels import HandKernel, kernels_for
from edgec.kernels.movement import merged_axes
from edgec.operators import Case, get_operator
from edgec.operators.elementwise import add_params

RNG = np.random.default_rng(11)
OPS = ("table_s8", "add_s8", "mul_s8", "strided_copy_s8", "concat_s8", "take_s8", "embedding_s8", "mean_s8")


@functools.cache
def kernel(op: str) -> HandKernel:
    (found,) = [k for k in kernels_for(op, {"dsp"}) if k.name == f"{op}_dsp"]
    return found


def int8(*shape: int) -> np.ndarray:
    """Over the whole range, its ends at the beginning and at the end."""
    values = RNG.integers(-128, 128, shape).astype(np.int8)
    values.flat[0], values.flat[-1] = 127, -128
    return values


def int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def table(n: int) -> Case:
    return Case((int8(n), int8(256)))


def add(a: tuple[int, int], b: tuple[int, int], larger: float = 0.9, sign: int = 1) -> Case:
    return Case((int8(*a), int8(*b), add_params((larger, 3), (0.4, -7), (1.0, 5), sign)))


def mul(a: tuple[int, int], b: tuple[int, int], za: int = 3, zb: int = -128) -> Case:
    return Case((int8(*a), int8(*b), int32(za, zb, 2**23 + 77, 0, -5)), {"wide": 0})


def permuted(shape: list[int], axes: list[int], offset: int = 0) -> Case:
    """The copy that transposes a dense tensor."""
    strides = [int(s) for s in np.cumprod([1, *shape[:0:-1]])[::-1]]
    attrs = {"offset": offset, "shape": [shape[a] for a in axes], "strides": [strides[a] for a in axes]}
    return Case((int8(int(np.prod(shape)) + offset),), attrs)


def strided(size: int, offset: int, shape: list[int], strides: list[int]) -> Case:
    return Case((int8(size),), {"offset": offset, "shape": shape, "strides": strides})


def take(shape: tuple[int, int, int], *index: int) -> Case:
    return Case((int8(*shape), int32(*index), int32(-7)))


def mean(shape: tuple[int, int, int], *params: int, wide: int = 0) -> Case:
    return Case((int8(*shape), int32(*(params or (3, 2**24 + 5, 0, -9)))), {"wide": wide})


def embedding(rows: int, width: int, *index: int) -> Case:
    return Case((int32(*index), int8(rows, width)))


PAIRS = [((1, 1), (1, 1)), ((1, 5), (1, 5)), ((3, 9), (3, 9)), ((4, 8), (1, 8)), ((3, 7), (1, 7)), ((3, 7), (3, 1)),
         ((3, 7), (1, 1)), ((5, 1), (5, 1)), ((5, 1), (1, 1))]  # fmt: skip
CASES: dict[str, list[Case]] = {
    "table_s8": [table(n) for n in (1, 7, 8, 9, 16, 31)],
    "add_s8": [
        *(add(*pair) for pair in PAIRS),
        *(add((3, 9), (3, 9), larger, -1) for larger in (0.3, 1.0, 1.9, 3000.0)),
    ],
    "strided_copy_s8": [
        *(permuted([rows, columns], [1, 0], 1) for rows in (1, 4, 5, 8) for columns in (1, 3, 4, 7, 12)),
        *(strided(n + 1, 1, [n], [1]) for n in (1, 2, 3, 4, 7, 8, 15, 16, 17, 47)),
        permuted([5, 3, 8], [1, 0, 2]),
        permuted([2, 3, 4, 2, 5], [3, 1, 4, 0, 2]),
        strided(60, 59, [60], [-1]),
        strided(60, 50, [4, 3, 9], [-13, 0, 1]),
        strided(60, 8, [4, 9], [13, -1]),
        strided(60, 0, [5, 6], [1, 9]),
        strided(60, 3, [7, 7], [0, 0]),
    ],
    "concat_s8": [Case((int8(rows, a), int8(rows, b))) for rows, a, b in ((1, 1, 1), (3, 5, 18), (2, 33, 4))],
    "take_s8": [take((2, 3, 5), 2, -1, 0, 0), take((1, 4, 1), 3, -1, 0), take((3, 2, 17), 1, -1)],
    "embedding_s8": [embedding(3, 5, 0, 2, -1, -3, 3, -4, 2**31 - 1, -(2**31)), embedding(1, 16, 0)],
    "mean_s8": [
        *(mean((2, terms, inner)) for terms in (1, 2, 5, 253) for inner in (1, 3, 4, 9)),
        mean((1, 7, 5), -128, 2**30 - 1, 3, 127),
        mean((1, 7, 1), 127, 2**29, 31, -128, wide=1),
        Case((np.full((1, 600, 4), -128, np.int8), int32(127, 2**20, 0, 0)), {"wide": 0}),
        Case((np.full((1, 600, 4), 127, np.int8), int32(-128, 2**20, 30, 0)), {"wide": 0}),
    ],
    "mul_s8": [*(mul(*pair) for pair in PAIRS), mul((2, 8), (2, 8), -128, 127), mul((2, 8), (1, 8), 127, 127)],
}
# Instructions per element of the result (of x, for a sum), everything included. A change that needs more must say why.
CEILINGS: list[tuple[str, Case, float]] = [
    ("table_s8", table(49 * 384), 3.26),
    ("table_s8", table(768), 3.27),
    ("add_s8", add((49, 96), (49, 96)), 5.52),
    ("add_s8", add((49, 96), (1, 96)), 5.8),
    ("add_s8", add((49, 96), (49, 96), 0.45), 11.02),  # another shift than the fast one
    ("strided_copy_s8", strided(4704, 0, [4704], [1]), 0.65),
    ("strided_copy_s8", permuted([49, 3, 32], [1, 0, 2]), 1.62),  # runs of 32
    ("strided_copy_s8", permuted([49, 96], [1, 0]), 1.8),
    ("strided_copy_s8", permuted([3, 64 * 64], [1, 0]), 3.02),
    ("concat_s8", Case((int8(49, 96), int8(49, 96))), 0.91),
    ("take_s8", take((2, 30, 64), *range(-1, 19)), 1.39),
    ("embedding_s8", embedding(30, 64, *range(20)), 1.2),
    ("mean_s8", mean((1, 49, 192)), 1.95),
    ("mean_s8", mean((64, 49, 1)), 3.2),
    ("mul_s8", mul((49, 96), (49, 96)), 7.8),
    ("mul_s8", mul((49, 96), (49, 1)), 12.2),
]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Callable[..., np.ndarray]]:
    return functools.cache(lambda op: host_runner(kernel(op), tmp_path_factory.mktemp(op)))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    return functools.cache(lambda op, core: core_image(kernel(op), core, tmp_path_factory.mktemp(f"{op}-{core}")))


@pytest.mark.parametrize("op", OPS)
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), offset=st.integers(0, 3))
def test_portable_kernels_equal_the_operators(hosts: Callable, op: str, seed: int, offset: int) -> None:
    taken = 0
    for case in itertools.islice(get_operator(op).samples(np.random.default_rng(seed)), 8):
        if kernel(op).accepts(call_of(kernel(op), case)) is None:
            taken += 1
            np.testing.assert_array_equal(hosts(op)(case, offset), wanted(kernel(op), case))
    assert taken >= 1


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize("op", OPS)
def test_kernels_on_cores_equal_the_operators(images: Callable, core: str, op: str) -> None:
    for case in CASES[op]:
        assert kernel(op).accepts(call_of(kernel(op), case)) is None
        y, _ = on_core(kernel(op), core, images(op, core), case)
        np.testing.assert_array_equal(y, wanted(kernel(op), case), err_msg=f"{case.types} {case.attrs}")


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize("named", range(len(CEILINGS)))
def test_instructions_per_element(images: Callable, core: str, named: int) -> None:
    op, case, ceiling = CEILINGS[named]
    y, instructions = on_core(kernel(op), core, images(op, core), case)
    np.testing.assert_array_equal(y, wanted(kernel(op), case))
    elements = case.inputs[0].size if op == "mean_s8" else y.size
    print(f"{core} {op} {case.types[0].shape} {case.attrs}: {instructions / elements:.3f} per element")
    assert instructions <= ceiling * elements


def declines(op: str, *inputs: np.ndarray, **attrs: object) -> str:
    return str(kernel(op).accepts(call_of(kernel(op), Case(inputs, attrs))))


def test_declines_with_a_reason() -> None:
    a = int8(2, 3)
    assert "16 bits" in declines("add_s8", a, a, int32(2**15, 0, 0, 14))
    assert "32 bits" in declines("add_s8", a, a, int32(1, 1, 2**31 - 256, 14))
    assert declines("add_s8", a, a, int32(1, 1, 2**31 - 257, 14)) == "None"
    copy = permuted([2, 3, 2, 3, 2, 3], [1, 0, 3, 2, 5, 4])
    assert "6 axes" in declines("strided_copy_s8", *copy.inputs, **copy.attrs)
    assert "wide" in declines("mul_s8", a, a, int32(0, 0, 2**29, 3, 0), wide=1)
    assert "shift 1" in declines("mul_s8", a, a, int32(0, 0, 2**29, 1, 0), wide=0)


def test_axes_are_merged_and_walk_the_same_elements() -> None:
    assert merged_axes([4, 1, 5, 6], [30, 77, 6, 1]) == [(120, 1)]
    assert merged_axes([4, 5], [1, 4]) == [(4, 1), (5, 4)]
    assert merged_axes([3, 4], [0, 0]) == [(12, 0)]
    assert merged_axes([1, 1], [5, 7]) == []
