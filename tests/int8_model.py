# SPDX-License-Identifier: Apache-2.0
"""Float models all the way to integers, judged by ONNX Runtime: on the quantized model and on the float one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from canonical_form import canonical_form, run
from qdq_graph import program_of, run_program
from torch import Tensor, nn

from edgec.model import Model, load_model
from edgec.passes.support import require_supported
from edgec.quantize.quantize import quantize


def exported(module: nn.Module, x: Tensor, *, dynamo: bool) -> Model:
    """A torch module as ONNX by one of torch's exporters, through the front door."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.onnx"
        torch.onnx.export(
            module.eval(), (x,), path, input_names=["x0"], dynamo=dynamo, opset_version=18, external_data=False
        )
        return load_model(path)


def check_int8(model: Model, least: float = 0.02, samples: int = 8, apart: int = 2) -> Model:
    """The canonical model; its integers are within `apart` steps of ONNX Runtime's, and near the float model.

    Args:
        model: a float model; its inputs are drawn from the normal distribution.
        least: largest power of the error, of the power of the float model's result.
        samples: for calibration; the first is compared.
        apart: steps of the output's scale.
    """
    canonical = canonical_form(model)
    require_supported(canonical)
    rng = np.random.default_rng(0)
    data = {t.name: rng.normal(size=(samples, *t.shape)).astype(np.float32) for t in canonical.inputs}
    quantized = quantize(canonical, data)
    program = program_of(quantized.proto)
    feeds = {n: a[0] for n, a in data.items()}
    computed = run_program(program, feeds)
    for port, real, exact in zip(program.outputs, run(quantized.proto, feeds), run(model.proto, feeds), strict=True):
        if port.quantization is None:
            assert np.array_equal(computed[port.name], real)
            continue
        scale, zero = port.quantization.scale, port.quantization.zero_point
        steps = np.rint(real.astype(np.float64) / scale) + zero
        assert np.abs(computed[port.name] - steps).max() <= apart, port.name
        reached = (computed[port.name].astype(np.float64) - zero) * scale
        error = np.square(reached - exact).mean() / max(np.square(exact).mean(), 1e-12)
        assert error <= least, f"{port.name}: {error:.2e} of the power"
    return canonical
