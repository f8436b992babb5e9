# SPDX-License-Identifier: Apache-2.0
"""Hand-written kernels of int16 activations: the operators' bits on this machine and on simulated cores."""

from __future__ import annotations

import itertools
from pathlib import Path

import int16_edges
import numpy as np
import pytest
from kernel_call import CORE_TARGETS, call_of, core_image, host_runner, on_core, wanted

from edgec.kernels import HandKernel, kernels_for
from edgec.operators import Case, get_operator
from edgec.operators.int16 import add_params, requantize_params
from edgec.operators.layer_norm import leading_bits
from edgec.operators.layer_norm16 import constants as layer_norm_constants

OPS = sorted(set(int16_edges.EDGES) - {"strided_copy_s16"})
KERNELS = {op: next(k for k in kernels_for(op, {"dsp"}) if k.name == f"{op}_dsp") for op in OPS}
BITS = {8: np.int8, 16: np.int16}


def drawn(rng: np.random.Generator, shape: tuple[int, ...], bits: int = 16) -> np.ndarray:
    info = np.iinfo(BITS[bits])
    values = rng.integers(info.min, info.max + 1, shape).astype(BITS[bits])
    values.flat[0], values.flat[-1] = info.max, info.min
    return values


def accepted(kernel: HandKernel, case: Case) -> bool:
    return kernel.accepts(call_of(kernel, case)) is None


def add(rng: np.random.Generator, a: int, b: int, y: int, shape: tuple[int, int], small: tuple[int, int]) -> Case:
    scales = [(0.01 / (256 if bits == 16 else 1), -7 if bits == 8 else 0) for bits in (a, b, y)]
    params = add_params(*scales, -1 if rng.random() < 0.5 else 1)
    return Case((drawn(rng, shape, a), drawn(rng, small, b), params), {"a": a, "b": b, "y": y})


def norm(x: np.ndarray, epsilon: float = 1e-5, source: float = 1e-3) -> Case:
    width = x.shape[1]
    rng = np.random.default_rng(width)
    constants = layer_norm_constants(rng.normal(1, 0.5, width), rng.normal(0, 1, width), epsilon, source, (0.03, -5))
    return Case((x.astype(np.int16), *constants))


def more(op: str) -> list[Case]:
    rng = np.random.default_rng([*op.encode()])
    widths = [bits for bits in itertools.product((8, 16), repeat=3) if bits != (8, 8, 8)]
    if op == "add_s16":
        shapes = [((3, 9), (3, 9)), ((4, 8), (1, 8)), ((3, 7), (3, 1)), ((2, 5), (1, 1))]
        return [add(rng, *bits, *shape) for bits in widths for shape in shapes]
    if op == "requantize_s16":
        cases = []
        for x, y, ratio in [
            (8, 16, 100.0),
            (8, 16, 4000.0),
            (16, 8, 0.003),
            (16, 8, 0.5),
            (16, 16, 0.9),
            (16, 16, 3.0),
        ]:
            for limits in (None, (-5, 100)):
                params = requantize_params((ratio, 9 if x == 8 else 0), (1.0, -3 if y == 8 else 0), y, limits)
                cases.append(Case((drawn(rng, (37,), x), params), {"x": x, "y": y}))
        return cases
    if op == "layer_norm_s16":
        rows = [drawn(rng, (2, width)) for width in (1, 2, 3, 16, 33, 96)]
        rows += [rng.integers(-step, step + 1, (2, 31)) for step in (1, 2, 10, 1000)]
        return [norm(x, epsilon) for x in rows for epsilon in (1e-12, 1e-5, 1.0)]
    if op == "mean_s16":
        shapes = [(1, 5, 1), (2, 7, 4), (3, 3, 5)]
        return [Case((drawn(rng, s), np.array([0, 2**22 + 7, 1, 9], np.int32)), {"wide": 0}) for s in shapes]
    return []


@pytest.mark.parametrize("op", KERNELS)
def test_portable_kernels_equal_the_operators(op: str, tmp_path: Path) -> None:
    kernel = KERNELS[op]
    run, rng = host_runner(kernel, tmp_path), np.random.default_rng(7)
    samples = itertools.islice(get_operator(op).samples(rng), 300)
    cases = [*int16_edges.EDGES[op](), *more(op), *samples]
    taken = [case for case in cases if accepted(kernel, case)]
    assert len(taken) >= 0.95 * len(cases)
    for i, case in enumerate(taken):
        late = 0 if case.inputs[0].dtype == np.int8 else 2 * (i % 2)
        np.testing.assert_array_equal(run(case, late), wanted(kernel, case), str((case.types, case.attrs)))


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize("op", KERNELS)
def test_kernels_on_the_core(op: str, core: str, tmp_path: Path) -> None:
    kernel = KERNELS[op]
    image = core_image(kernel, core, tmp_path)
    cases = [case for case in (*more(op)[::3], *int16_edges.EDGES[op]()[:4]) if accepted(kernel, case)]
    assert len(cases) >= 2
    for case in cases:
        if case.inputs[0].size <= 2000:
            y, _ = on_core(kernel, core, image, case)
            np.testing.assert_array_equal(y, wanted(kernel, case), str((case.types, case.attrs)))


def test_roots_and_quotients_of_a_norm_are_exact(tmp_path: Path) -> None:
    """Variances next to squares, and at the ends of what is normalized: a row's only variance is epsilon's."""
    run, kernel = host_runner(KERNELS["layer_norm_s16"], tmp_path), KERNELS["layer_norm_s16"]
    rng = np.random.default_rng(3)
    roots = [1, 2, 3, 2**15, 2**15 + 1, 2**28, *rng.integers(1, 2**28, 200).tolist(), *(2**k - 1 for k in range(2, 29))]
    x = np.zeros((1, 8), np.int16)
    x[0, 0], total = 1, 1
    gain, offset = np.arange(-4, 4, dtype=np.int32) * 100 + 1, np.zeros(8, np.int32)
    for root in roots:
        for step in (-1, 0, 1):
            epsilon = root * root + step - (8 - total)
            if epsilon <= 0:
                continue
            params = np.array([epsilon % 2**31, epsilon >> 31, leading_bits(8) - 2, 9], np.int32)
            case = Case((x, gain, offset, params))
            assert accepted(kernel, case)
            np.testing.assert_array_equal(run(case), wanted(kernel, case), str(root))


def test_what_is_declined() -> None:
    case = add(np.random.default_rng(1), 16, 16, 16, (2, 3), (2, 3))
    for index, value in ((4, 16), (4, 47), (5, 128), (2, 2**30 + 1)):
        params = case.inputs[2].copy()
        params[index] = value
        assert not accepted(KERNELS["add_s16"], Case((*case.inputs[:2], params), case.attrs))
    norm_case = norm(np.zeros((1, 8)))
    for index, value in ((0, -1), (2, 3), (3, 32)):
        params = norm_case.inputs[3].copy()
        params[index] = value
        assert not accepted(KERNELS["layer_norm_s16"], Case((*norm_case.inputs[:3], params)))
    x, w, bias, mult, shift, params = int16_edges.linear(1, [[100, -7]], 0.01).inputs
    assert accepted(KERNELS["linear_s16"], Case((x, w, bias, mult, shift, params), {"y": 16}))
    for constants in [
        (w, bias + 2**40, mult, shift, params),  # a sum times its multiplier beyond 64 bits
        (w, bias, mult, shift * 0 + 63, params),
        (w, bias, mult, shift * 0 + 29, params),  # a multiplier that cannot be doubled so often
        (w, bias, -mult, shift, params),
    ]:
        assert not accepted(KERNELS["linear_s16"], Case((x, *constants), {"y": 16}))
    factors = drawn(np.random.default_rng(1), (2, 3)), drawn(np.random.default_rng(2), (2, 3))
    for mult_and_shift in ((2**30 + 1, 40), (2**29, 61), (2**29, 32)):  # the last: a product of 31 bits to be doubled
        product = Case((*factors, np.array([0, 0, *mult_and_shift, 0], np.int32)), {"a": 16, "b": 16, "y": 16})
        assert not accepted(KERNELS["mul_s16"], product)
