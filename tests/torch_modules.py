# SPDX-License-Identifier: Apache-2.0
"""Torch modules seen from NumPy: random weights in, arrays in and out. Importing this skips where torch is missing."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")


def weights_of(module: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Fill every parameter and every running statistic with random values and return them in float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def run(module: torch.nn.Module, *arrays: np.ndarray) -> np.ndarray | list[np.ndarray]:
    """`module(*arrays)` in float32; a list where it returns a tuple."""
    with torch.no_grad():
        results = module(*(torch.from_numpy(array.astype(np.float32)) for array in arrays))
    return [r.numpy() for r in results] if isinstance(results, tuple) else results.numpy()
