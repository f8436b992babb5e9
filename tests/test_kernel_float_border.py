# SPDX-License-Identifier: Apache-2.0
"""Hand-written kernels between integers and float32: the operators' bits on this machine and on simulated cores."""

from __future__ import annotations

import itertools
from pathlib import Path

import float_edges
import numpy as np
import pytest
from kernel_call import CORE_TARGETS, call_of, core_image, host_runner, on_core, wanted

from edgec.kernels import kernels_for
from edgec.operators import Case, get_operator
from edgec.operators.float_border import dequantize_params, quantize_params

KERNELS = {op: next(iter(kernels_for(op, {"dsp"}))) for op in float_edges.EDGES}


def sizes(op: str) -> list[Case]:
    """Every rest of four, with what no range holds among them."""
    rng = np.random.default_rng(5)
    found = []
    for n in (1, 2, 3, 4, 5, 7, 8, 30):
        for bits, zero_point in ((8, -7), (16, 0)):
            if op == "quantize_f32":
                x = rng.normal(0, 2.0**bits, n).astype(np.float32)
                x[rng.integers(n)] = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.5, 2.5], np.float32))
                found.append(Case((x, quantize_params(1.0, zero_point, bits)), {"y": bits}))
            else:
                whole = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), n).astype(f"int{bits}")
                found.append(Case((whole, dequantize_params(0.37, zero_point)), {"x": bits}))
    return found


@pytest.mark.parametrize("op", KERNELS)
def test_portable_kernels_equal_the_operators(op: str, tmp_path: Path) -> None:
    kernel = KERNELS[op]
    run = host_runner(kernel, tmp_path)
    samples = itertools.islice(get_operator(op).samples(np.random.default_rng(7)), 200)
    for case in (*float_edges.EDGES[op](), *sizes(op), *samples):
        np.testing.assert_array_equal(run(case), wanted(kernel, case), str((case.types, case.attrs)))


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize("op", KERNELS)
def test_kernels_on_the_core(op: str, core: str, tmp_path: Path) -> None:
    kernel = KERNELS[op]
    image = core_image(kernel, core, tmp_path)
    for case in (*sizes(op), *float_edges.EDGES[op]()[:6]):
        y, _ = on_core(kernel, core, image, case)
        np.testing.assert_array_equal(y, wanted(kernel, case), str((case.types, case.attrs)))


def test_int16_with_a_zero_point_is_declined() -> None:
    x = np.zeros(4, np.float32)
    for op, case in (
        ("quantize_f32", Case((x, quantize_params(1.0, 3, 16)), {"y": 16})),
        ("dequantize_f32", Case((x.astype(np.int16), dequantize_params(1.0, 3)), {"x": 16})),
    ):
        assert "zero point 3" in str(KERNELS[op].accepts(call_of(KERNELS[op], case)))
