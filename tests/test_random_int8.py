# SPDX-License-Identifier: Apache-2.0
"""Random graphs of torch operators, exported: float passes exact, int8 near ONNX Runtime and near the float model."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from int8_model import check_int8, exported
from torch import Tensor, nn

ONE: tuple[Callable[[Tensor], Tensor], ...] = (
    F.silu, F.hardswish, F.gelu, torch.sigmoid, torch.tanh, F.relu, F.softplus, F.mish, torch.abs,
    lambda x: x * x, lambda x: x + 0.3, lambda x: 2 * x, lambda x: -x, lambda x: torch.clamp(x, -1, 1),
    lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: x.softmax(-1), lambda x: F.log_softmax(x, -1),
    lambda x: F.layer_norm(x, (x.shape[-1],)), lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
    lambda x: x.transpose(1, 2).contiguous().transpose(1, 2), lambda x: x.flip(1), lambda x: x[:, [3, 1, 0, 2, 5, 4]],
    lambda x: x.cumsum(1) * 0.3, lambda x: x.amax(1, keepdim=True) - x, lambda x: x - x.mean(1, keepdim=True),
)  # fmt: skip
TWO: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, lambda a, b: a / (b.abs() + 0.5),
    lambda a, b: torch.where(a > 0.2, a, b), lambda a, b: torch.cat([a, b], -1)[..., ::2],
    lambda a, b: torch.einsum("bti,bsi->bts", a, b).softmax(-1) @ b,
)  # fmt: skip


class Drawn(nn.Module):
    """Three to eight operators on values drawn among the last ones; all are [1, 6, 8]."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.steps: list[tuple[int, int, int, int]] = []  # operands, which operator, how far back each operand is
        self.layers = nn.ModuleList()
        for _ in range(rng.randint(3, 8)):
            kind = rng.choices([0, 1, 2], [25, 40, 35])[0]
            which = len(self.layers) if kind == 0 else rng.randrange(len(ONE if kind == 1 else TWO))
            if kind == 0:
                self.layers.append(nn.Linear(8, 8))
            self.steps.append((kind, which, rng.randrange(3), rng.randrange(4)))

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for kind, which, back, other in self.steps:
            a, b = (values[max(len(values) - 1 - n, 0)] for n in (back, other))
            values.append(self.layers[which](a) if kind == 0 else ONE[which](a) if kind == 1 else TWO[which](a, b))
        return values[-1]


def _check(seed: int) -> None:
    torch.manual_seed(seed)
    check_int8(exported(Drawn(seed), torch.randn(1, 6, 8), dynamo=False), least=0.05, apart=4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(10))
def test_a_random_graph(seed: int) -> None:
    _check(seed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(10, 150))
def test_many_random_graphs(seed: int) -> None:
    _check(seed)
