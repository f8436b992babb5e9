# SPDX-License-Identifier: Apache-2.0
"""The hand-written normalizations: an exact root, the operators' bits on this machine and on simulated cores."""

from __future__ import annotations

import ctypes
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_call import CORE_TARGETS, call_of, core_image, host_runner, on_core, wanted

from edgec.device.toolchain import Source, build_host_library
from edgec.kernels import HandKernel, kernels_for
from edgec.operators import Case, get_operator
from edgec.operators.layer_norm import constants
from edgec.resources import runtime_dir

NAMES = ("layer_norm_s8", "rms_norm_s8")
FIXTURE = Path(__file__).parent / "fixtures" / "reciprocal_root.c"
LARGEST = 2**42


@functools.cache
def kernel(op: str) -> HandKernel:
    (found,) = [k for k in kernels_for(op, {"dsp"}) if k.name == f"{op}_dsp"]
    return found


def norm_case(op: str, x: np.ndarray, rng: np.random.Generator, source: float = 0.03, epsilon: float = 1e-5) -> Case:
    width = x.shape[1]
    made = constants(rng.normal(1, 0.5, width), rng.normal(0, 0.5, width), epsilon, source, (0.02, 3))
    if op == "rms_norm_s8":
        made = (*made[:2], np.append(made[2], rng.integers(-128, 128)).astype(np.int32))
    return Case((x.astype(np.int8), *made))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    includes = [runtime_dir() / "include"]
    folder = tmp_path_factory.mktemp("r")
    library = ctypes.CDLL(str(build_host_library([Source(FIXTURE, "kernels", False)], includes, folder)))
    for function in (library.wrong_roots, library.wrong_steps):
        function.restype = ctypes.c_uint64
        function.argtypes = [ctypes.c_uint64] * (3 if function is library.wrong_roots else 4)
    return library


def test_roots_of_small_variances_are_exact(root: ctypes.CDLL) -> None:
    assert root.wrong_roots(1, 2**24, 1) == 0


def test_roots_are_exact_where_they_change(root: ctypes.CDLL) -> None:
    """Every result below 2^21 (variances from 2^18 on, as rows have them) at both sides of its step."""
    assert root.wrong_steps(2**9, 2**21, 1, LARGEST) == 0
    assert root.wrong_steps(2**21, 2**30 + 1, 1001, LARGEST) == 0


def test_roots_of_wide_variances_are_exact(root: ctypes.CDLL) -> None:
    assert root.wrong_roots(2**24, LARGEST, 4_294_967) == 0
    for bits in range(25, 42):
        assert root.wrong_roots(2**bits - 500, 2**bits + 500, 1) == 0


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return {op: host_runner(kernel(op), tmp_path_factory.mktemp(op)) for op in NAMES}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {core: core_image(kernel("layer_norm_s8"), core, tmp_path_factory.mktemp(core)) for core in CORE_TARGETS}


@pytest.mark.parametrize("op", NAMES)
@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), offset=st.integers(0, 3))
def test_portable_kernels_equal_the_operators(hosts: dict, op: str, seed: int, offset: int) -> None:
    for case in itertools.islice(get_operator(op).samples(np.random.default_rng(seed)), 3):
        if case.types[0].shape[1] >= 4:
            assert kernel(op).accepts(call_of(kernel(op), case)) is None
            np.testing.assert_array_equal(hosts[op](case, offset), wanted(kernel(op), case))


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize("op", NAMES)
@pytest.mark.parametrize("width", [4, 5, 7, 8, 11, 12, 30, 1024])
def test_assembly_equals_the_operators(images: dict[str, Path], core: str, op: str, width: int) -> None:
    """Rows of noise, without a variance, with an outlier (the largest results), within a step (no lane holds them)."""
    rng = np.random.default_rng(width)
    x = rng.integers(-128, 128, (5, width))
    x[1] = 7
    x[2] = -128
    x[2, width // 2] = 127
    x[3] = rng.integers(0, 2, width)
    case = norm_case(op, x, rng, epsilon=0.0 if width % 2 else 1e-5)
    y, _ = on_core(kernel(op), core, images[core], case)
    np.testing.assert_array_equal(y, wanted(kernel(op), case))


# Instructions per element, everything included. A change that needs more must say why.
CEILINGS = [(49, 96, 10.93), (49, 192, 10.47), (1, 96, 11.06), (7, 94, 11.2)]


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize(("rows", "width", "ceiling"), CEILINGS)
def test_instructions_per_element(images: dict[str, Path], core: str, rows: int, width: int, ceiling: float) -> None:
    rng = np.random.default_rng(1)
    case = norm_case("layer_norm_s8", np.clip(rng.normal(3, 30, (rows, width)), -128, 127), rng)
    y, instructions = on_core(kernel("layer_norm_s8"), core, images[core], case)
    np.testing.assert_array_equal(y, wanted(kernel("layer_norm_s8"), case))
    print(f"{core} {rows}x{width}: {instructions / y.size:.3f} per element")
    assert instructions <= ceiling * y.size


def test_declines_with_a_reason() -> None:
    norm = kernel("layer_norm_s8")
    x, gain, offset, params = norm_case("layer_norm_s8", np.zeros((1, 9)), np.random.default_rng(0)).inputs
    assert norm.accepts(call_of(norm, Case((x, gain, offset, params)))) is None
    assert "could leave 32 bits" in str(norm.accepts(call_of(norm, Case((x, 2 * gain, 2 * offset + 2**30, params)))))
    assert "lead" in str(norm.accepts(call_of(norm, Case((x, gain, offset, params - [0, 1, 0])))))
    assert "3 elements" in str(norm.accepts(call_of(norm, Case((x[:, :3], gain[:3], offset[:3], params)))))
