# SPDX-License-Identifier: Apache-2.0
"""The hand-written linear_s8 of one output: the operator's bits, on this machine and on simulated cores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_call import CORE_TARGETS, Runner, call_of, core_image, host_runner, on_core, stack_bound, wanted
from test_kernel_linear import make_case

from edgec.kernels import kernels_for
from edgec.operators import Case

(KERNEL,) = [k for k in kernels_for("linear_s8", {"dsp"}) if k.name == "linear_s8_dot_dsp"]


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return host_runner(KERNEL, tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module", params=CORE_TARGETS)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, core_image(KERNEL, request.param, tmp_path_factory.mktemp("core"))


@settings(deadline=None, max_examples=200)
@given(
    m=st.integers(1, 9),
    k=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
    extreme=st.booleans(),
    shifts=st.booleans(),
    x_offset=st.integers(0, 3),
)
def test_portable_kernel_equals_the_operator(
    on_host: Runner, m: int, k: int, seed: int, extreme: bool, shifts: bool, x_offset: int
) -> None:
    case = make_case(m, k, 1, np.random.default_rng(seed), extreme=extreme, shifts=shifts)
    assert KERNEL.accepts(call_of(KERNEL, case)) is None
    np.testing.assert_array_equal(on_host(case, x_offset), wanted(KERNEL, case))


@pytest.mark.parametrize(("m", "k"), [(1, 1), (1, 3), (1, 4), (2, 15), (1, 16), (3, 17), (1, 80), (5, 131)])
def test_simulated_cores_equal_the_operator(image: tuple[str, Path], m: int, k: int) -> None:
    rng = np.random.default_rng(m * 1000 + k)
    for extreme in (False, True):
        case = make_case(m, k, 1, rng, extreme=extreme, shifts=True)
        np.testing.assert_array_equal(on_core(KERNEL, *image, case)[0], wanted(KERNEL, case))


def test_most_instructions(image: tuple[str, Path]) -> None:
    """80 products: the scalar of a recurrent step; 1,024: what each product costs."""
    for k, most in ((80, 200), (1024, 2060)):
        instructions = on_core(KERNEL, *image, make_case(1, k, 1, np.random.default_rng(k)))[1]
        print(image[0], k, instructions)
        assert instructions <= most
    assert stack_bound(KERNEL, image[1]) <= 76


def test_declines_what_it_cannot_do() -> None:
    rng = np.random.default_rng(0)
    assert KERNEL.accepts(call_of(KERNEL, make_case(1, 8, 2, rng))) == "2 outputs"
    case = make_case(1, 8, 1, rng)
    assert KERNEL.accepts(call_of(KERNEL, Case(case.inputs, {"wide": 1}))) == "wide requantization"
    x, _, _, mult, shift, params = case.inputs
    w, bias = np.full((1, 8), 127, np.int8), np.array([2**31 - 1 - 127 * 127 * 8], np.int32)
    fits = Case((x, w, bias, mult, shift, params))
    over = Case((x, w, bias + 1, mult, shift, params))
    assert KERNEL.accepts(call_of(KERNEL, fits)) is None
    assert KERNEL.accepts(call_of(KERNEL, over)) == "the accumulator could leave 32 bits"
