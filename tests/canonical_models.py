# SPDX-License-Identifier: Apache-2.0
"""Small torch vision transformers in the spellings that people and exporters use."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention of one fused qkv layer; `kind`: how q, k, v are cut and where the scale is."""

    def __init__(self, dim: int, heads: int, kind: str) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.heads, self.kind = heads, kind

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        width = d // self.heads
        y = self.qkv(x)
        if self.kind in ("unbind", "sdpa", "scaled_q"):
            q, k, v = y.reshape(b, t, 3, self.heads, width).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.kind == "gather":
            z = y.reshape(b, t, 3, self.heads, width).permute(2, 0, 3, 1, 4)
            q, k, v = z[0], z[1], z[2]
        else:
            parts = y.chunk(3, -1) if self.kind == "chunk" else y.split(d, -1)
            q, k, v = (p.view(b, t, self.heads, width).transpose(1, 2) for p in parts)
        if self.kind in ("sdpa", "chunk"):
            o = F.scaled_dot_product_attention(q, k, v)
        elif self.kind == "scaled_q":
            o = ((q * width**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            o = ((q @ k.transpose(-2, -1)) / width**0.5).softmax(-1) @ v
        return self.proj(o.transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, ratio: int, kind: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, kind)
        self.fc1, self.fc2 = nn.Linear(dim, ratio * dim), nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """A plain vision transformer on square RGB images: float [B, 3, S, S] -> logits [B, 10]."""

    def __init__(
        self,
        kind: str,
        *,
        cls: bool,
        dim: int = 96,
        depth: int = 4,
        heads: int = 3,
        patch: int = 8,
        size: int = 64,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        tokens = (size // patch) ** 2 + int(cls)
        self.cls = nn.Parameter(torch.randn(1, 1, dim)) if cls else None
        self.position = nn.Parameter(torch.randn(1, tokens, dim) * 0.5)
        self.blocks = nn.Sequential(*(Block(dim, heads, 2, kind) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        x = self.norm(self.blocks(x + self.position))
        return self.head(x[:, 0] if self.cls is not None else x.mean(1))


def export(
    module: nn.Module,
    inputs: dict[str, Tensor],
    path: Path,
    *,
    outputs: list[str] | None = None,
    opset: int = 18,
    dynamo: bool = False,
    open_batch: bool = False,
) -> Path:
    """Export with torch's TorchScript or dynamo exporter; `open_batch` leaves axis 0 of every input open."""
    arguments: dict[str, object] = {"dynamo": dynamo, "opset_version": opset, "external_data": False}
    if open_batch and dynamo:
        arguments["dynamic_shapes"] = {name: {0: torch.export.Dim("batch")} for name in inputs}
    elif open_batch:
        arguments["dynamic_axes"] = {name: {0: "batch"} for name in inputs}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=outputs or ["y"],
            verbose=False,
            **arguments,  # type: ignore[arg-type]
        )
    return path
