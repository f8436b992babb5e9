# SPDX-License-Identifier: Apache-2.0
"""Windows as they are written in torch, through export and quantization: rings, with the bits of shifted copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ring_streams import ops, same_bits
from torch import Tensor, nn

from edgec.compile import Options, prepare
from edgec.export import export
from edgec.model import load_model
from edgec.models.layers.causal_conv import CausalConv1d, push
from edgec.passes.layout import device_layout

WIDTH, ROWS = 8, 4


class Layer(nn.Module):
    """The layer of the library."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.layer = CausalConv1d(WIDTH, WIDTH, ROWS + 1, groups)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        y: tuple[Tensor, Tensor] = self.layer(x, past)
        return y


class Weighted(nn.Module):
    """A product with the whole window and a sum over time; `shared`: the same weights for all channels."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(ROWS, 1 if shared else WIDTH))

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        past = push(past, x)
        return (past * self.weights).sum(1), past


class Flat(nn.Module):
    """A dense layer of the whole window."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(ROWS * WIDTH, 5)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        past = push(past, x)
        return self.layer(past.flatten(1)), past


class Assigned(nn.Module):
    """torch.roll and an assignment to the last row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        past = torch.roll(past, -1, 1)
        past[:, -1] = x
        return self.layer(past.mean(1)), past


@pytest.mark.parametrize(
    ("module", "reader"),
    [
        (Layer(), "causal_conv1d_s8"),
        (Layer(WIDTH), "causal_depthwise_s8"),
        (Weighted(False), "causal_depthwise_s8"),
        (Weighted(True), "causal_conv1d_s8"),
        (Flat(), "causal_conv1d_s8"),
        (Assigned(), "mean_s8"),
    ],
    ids=["layer", "depthwise layer", "product and sum", "one weight a row", "flat", "assigned"],
)
def test_torch_forms(module: nn.Module, reader: str, tmp_path: Path) -> None:
    shapes, file = {"x": (1, WIDTH), "past": (1, ROWS, WIDTH)}, tmp_path / "window.onnx"
    export(module, file, inputs=shapes, outputs=["y", "past_next"], states=[("past", "past_next", 0.0)])
    samples = {"x": np.random.default_rng(0).normal(0, 1, (40, 1, WIDTH)).astype(np.float32)}
    quantized = prepare(load_model(file), Options(calibration=samples))
    made = ops(same_bits(device_layout(quantized), 3 * ROWS + 1))
    assert made[:2] == ["ring_cursor_s32", "ring_write_s8"]
    assert made[2] == reader
    assert not {"concat_s8", "strided_copy_s8", "ring_read_s8", "ring_rotate_s8"} & set(made)
