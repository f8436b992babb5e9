# SPDX-License-Identifier: Apache-2.0
"""A plain vision transformer as an outsider would bring it: TorchScript export, opset 18, nothing changed by hand."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgec.compile import Options, compile_model
from edgec.model import load_model
from edgec.run import run_artifact
from edgec.target import load_target

torch.set_num_threads(1)


class _Norm(nn.Module):
    """LayerNorm written out, as exporters below opset 17 leave it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred**2).mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + 1e-6) * self.weight + self.bias


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = _Norm(width), _Norm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = (q @ k.transpose(-2, -1)) * (width // self.heads) ** -0.5
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.proj(mixed)
        hidden = self.fc1(self.norm2(x))
        gelu = hidden * 0.5 * (1.0 + torch.erf(hidden / 2.0**0.5))
        return x + self.fc2(gelu)


class _Vit(nn.Module):
    """64x64x3, patch 8, width 96, depth 4, 3 heads, MLP ratio 2, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 96, 8, stride=8)
        self.position = nn.Parameter(torch.randn(1, 64, 96) * 0.02)
        self.blocks = nn.Sequential(*(_Block(96, 3, 2) for _ in range(4)))
        self.norm, self.head = _Norm(96), nn.Linear(96, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.embed(image).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


@pytest.mark.parametrize("seed", [0, 1])
def test_plain_vit_compiles_and_follows_torch(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    net = _Vit().eval()
    buffer = io.BytesIO()
    torch.onnx.export(
        net, (torch.zeros(1, 3, 64, 64),), buffer, opset_version=18, dynamo=False,
        input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )  # fmt: skip
    path = tmp_path / "vit.onnx"
    path.write_bytes(buffer.getvalue())
    operators = {n.op_type for n in onnx.load(path).graph.node}
    assert "LayerNormalization" not in operators
    assert "Gelu" not in operators  # decomposed indeed

    model = load_model(path)
    rng = np.random.default_rng(seed)
    # Smooth images: neighbouring pixels alike, as in photographs.
    coarse = rng.random((24, 3, 8, 8), np.float32)
    images = np.kron(coarse, np.ones((1, 1, 8, 8), np.float32)) + 0.1 * rng.random((24, 3, 64, 64), np.float32)
    calibration, unseen = images[:16, None], images[16:, None]
    artifact = compile_model(
        model, load_target("stm32f746"), tmp_path / "vit", Options(calibration={"image": calibration})
    )
    assert artifact.manifest["ram"]["total_bytes"] < 327_680
    got = run_artifact(artifact, {"image": unseen}, "sim")["logits"].reshape(len(unseen), -1)
    with torch.no_grad():
        wanted = net(torch.from_numpy(unseen[:, 0])).numpy()
    cosine = (got * wanted).sum(axis=1) / (np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1))
    print(f"\ncosine to torch: {cosine.min():.5f} at least, {cosine.mean():.5f} on average")
    assert cosine.min() >= 0.99
