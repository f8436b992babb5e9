# SPDX-License-Identifier: Apache-2.0
"""Kernels of one row against a right operand as it lies: equal to the operators for whatever a call may get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kernel_call import CORE_TARGETS, call_of, core_image, host_runner, on_core, wanted

from edgec.kernels import kernels_for
from edgec.operators import Case
from edgec.operators.softmax import exponentials

KERNELS = {op: next(k for k in kernels_for(op, {"dsp"}) if "_row_" in k.name) for op in ("matmul_s8", "attention_s8")}
ENDS = np.array([-128, 127], np.int8)


def int8(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Any values, or the ends alone."""
    values = rng.integers(-128, 128, shape).astype(np.int8)
    return rng.choice(ENDS, shape) if rng.random() < 0.3 else values


def params(rng: np.random.Generator, za: int | None = None) -> np.ndarray:
    """Zero points anywhere, ratios of every size."""
    first = int(rng.integers(-128, 128)) if za is None else za
    zb = int(rng.choice([0, 0, -128, 127, rng.integers(-128, 128)]))
    mult = int(2.0 ** rng.uniform(0, 30)) - 1
    return np.array([first, zb, mult, 0, rng.integers(-128, 128)], np.int32)


def matmul(rng: np.random.Generator, batches: int, k: int, n: int, transposed: int) -> Case:
    b = (batches, n, k) if transposed else (batches, k, n)
    return Case((int8(rng, batches, 1, k), int8(rng, *b), params(rng)), {"wide": 0, "transpose_b": transposed})


def attention(rng: np.random.Generator, keys: int, heads: int, depth: int, width: int) -> Case:
    table = exponentials(float(rng.choice([1e-3, 0.02, 0.2, 3.0])))
    inputs = int8(rng, 1, heads, depth), int8(rng, keys, heads, depth), int8(rng, keys, heads, width)
    return Case((*inputs, params(rng), table, params(rng, -128)), {})


def cases(op: str, count: int, seed: int) -> list[Case]:
    rng = np.random.default_rng([seed, len(op)])
    sizes = [[int(v) for v in rng.integers(1, (5, 40, 24, 12))] for _ in range(count)]
    if op == "matmul_s8":
        return [matmul(rng, a, b, c, d % 2) for a, b, c, d in sizes]
    return [attention(rng, b, a, d, c) for a, b, c, d in sizes]


@pytest.mark.parametrize("op", KERNELS)
def test_portable_kernels_equal_the_operators(op: str, tmp_path: Path) -> None:
    kernel = KERNELS[op]
    run, results = host_runner(kernel, tmp_path), set()
    for i, case in enumerate(cases(op, 300, 1)):
        assert kernel.accepts(call_of(kernel, case)) is None
        y = wanted(kernel, case)
        np.testing.assert_array_equal(run(case, i % 4), y)
        results |= set(np.unique(y).tolist())
    assert len(results) > 200


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize("op", KERNELS)
def test_kernels_on_the_core(op: str, core: str, tmp_path: Path) -> None:
    kernel = KERNELS[op]
    image = core_image(kernel, core, tmp_path)
    for case in cases(op, 8, 2):
        y, _ = on_core(kernel, core, image, case)
        np.testing.assert_array_equal(y, wanted(kernel, case))


def test_what_is_declined() -> None:
    rng = np.random.default_rng(3)
    case = matmul(rng, 1, 8, 8, 0)
    kernel = KERNELS["matmul_s8"]
    assert kernel.accepts(call_of(kernel, Case(case.inputs, {"wide": 1, "transpose_b": 0}))) == "wide requantization"
    two = Case((int8(rng, 1, 2, 8), *case.inputs[1:]), case.attrs)
    assert kernel.accepts(call_of(kernel, two)) == "2 rows"
    large = np.array([0, 0, 2**30, 0, 0], np.int32)
    assert "a half or more" in str(kernel.accepts(call_of(kernel, Case((*case.inputs[:2], large), case.attrs))))
    query, kernel = attention(rng, 5, 1, 4, 4), KERNELS["attention_s8"]
    queries = Case((int8(rng, 2, 1, 4), *query.inputs[1:]))
    assert kernel.accepts(call_of(kernel, queries)) == "2 queries"
    other = Case((*query.inputs[:5], np.array([-127, 0, 1, 0, 0], np.int32)))
    assert "zero point -127" in str(kernel.accepts(call_of(kernel, other)))
