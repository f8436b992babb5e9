# SPDX-License-Identifier: Apache-2.0
"""Gated Transformer-XL: a transformer that takes one observation a step and remembers the last ones.

Source: E. Parisotto et al., "Stabilizing Transformers for Reinforcement Learning", ICML 2020 (arXiv:1910.06764),
section 3; row 19. With the relative attention of Transformer-XL (arXiv:1901.02860). For every layer, with E the step
and M the steps before it, as they entered the layer:

    Y  = g1(E, relu(RelativeAttention(LN([M; E]))))
    E' = g2(Y, relu(MLP(LN(Y))))                        MLP: D -> hidden -> D with relu between
    g(x, y): r = sigmoid(y W_r + x U_r),  z = sigmoid(y W_z + x U_z - b),  h = tanh(y W_g + (r x) U_g),
             out = (1 - z) x + z h                      b = 2 at the start: the layer begins close to the identity

before them an encoder of the observation, behind them a linear layer for the logits (of a policy or of classes).

Our own reading: the encoder, for images a convolutional network in the paper, is a linear layer, or for frames of
speech a causal convolution over the last of them: attention tells neighbours apart by its position terms alone, with
which the spoken digits end at 92 %. The state holds the keys and values of LN(M), [window, D] each, instead of M: LN
and both projections see one step at a time, so for fixed weights it is the same number, and a step projects one row
instead of the window. `window` counts the newest step. Rows before the first step are zero keys and values, where the
paper has LN(0). u, v of the relative attention belong to a layer each. The gate's output is written x + z (h - x).
Training: gradients flow through the memory within one call of `parallel`; the paper stops them at the border of a
segment, which is what a trainer does that detaches the state between calls. The spoken digits begin with b = 0: a short
training ends further on.

`parallel` takes frames [B, T, inputs] and gives logits [B, T, classes]; the state of a fresh stream is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgec.models.layers.block_stack import BlockStack
from edgec.models.layers.causal_conv import CausalConv1d
from edgec.models.layers.kv_ring import WindowAttention
from edgec.models.registry import register_model


class Gate(nn.Module):
    """g(x, y) of the model card: float [..., D] twice -> float [..., D]. -b is the bias of `wz`.

    Args:
        dim: D.
        bias: b at the start.
    """

    def __init__(self, dim: int, bias: float = 2.0) -> None:
        super().__init__()
        self.wr, self.ur = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.wz, self.uz = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.wg, self.ug = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        nn.init.constant_(self.wz.bias, -bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x where the gate is shut."""
        r = torch.sigmoid(self.wr(y) + self.ur(x))
        z = torch.sigmoid(self.wz(y) + self.uz(x))
        h = torch.tanh(self.wg(y) + self.ug(r * x))
        return x + z * (h - x)


class Layer(nn.Module):
    """One gated layer: e float [B, D], keys and values float [B, window, D] -> (e', keys', values')."""

    def __init__(self, dim: int, heads: int, window: int, hidden: int, bias: float = 2.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, heads, window)
        self.gate1 = Gate(dim, bias)
        self.norm2 = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.gate2 = Gate(dim, bias)

    def forward(self, e: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step."""
        a, keys, values = self.attention(self.norm1(e), keys, values)
        return self._rest(e, a), keys, values

    def parallel(self, e: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All steps: e float [B, T, D]."""
        a, keys, values = self.attention.parallel(self.norm1(e), keys, values)
        return self._rest(e, a), keys, values

    def _rest(self, e: Tensor, a: Tensor) -> Tensor:
        y = self.gate1(e, torch.relu(a))
        mlp = self.contract(torch.relu(self.expand(self.norm2(y))))
        e_next: Tensor = self.gate2(y, torch.relu(mlp))
        return e_next


class GTrXL(BlockStack):
    """One step: x float [B, inputs], past [B, taps - 1, inputs], keys and values [B, window, D] of every layer.

    -> logits float [B, classes] and the states after it. Without taps there is no past.

    Args:
        inputs: width of an observation.
        dim: D.
        layers: how many.
        heads: attention heads; divides D.
        window: steps that a layer remembers, the newest included.
        hidden: width between the two layers of the MLP.
        classes: number of logits.
        taps: observations that the encoder sees, the newest included; 1 is a linear layer.
        bias: b of the gates at the start.
    """

    def __init__(
        self,
        inputs: int,
        dim: int,
        layers: int,
        heads: int,
        window: int,
        hidden: int,
        classes: int,
        taps: int = 1,
        bias: float = 2.0,
    ) -> None:
        body = [Layer(dim, heads, window, hidden, bias) for _ in range(layers)]
        states, head = [2] * layers, nn.Linear(dim, classes)
        if taps == 1:
            super().__init__(body, states, nn.Identity(), head, embedding=nn.Linear(inputs, dim))
        else:
            super().__init__([CausalConv1d(inputs, dim, taps), *body], [1, *states], nn.Identity(), head)


@register_model(
    "gtrxl-spoken-digits",
    description="one step of a gated transformer-XL on 40 log-mel bins, 2 layers over 40 steps, 10 classes, 55 k MACs",
    source="Parisotto et al., Stabilizing Transformers for Reinforcement Learning, ICML 2020, arXiv:1910.06764",
    parameters=50_730,
    inputs={
        "frame": (1, 40),
        "past": (1, 4, 40),
        "k0": (1, 40, 32),
        "v0": (1, 40, 32),
        "k1": (1, 40, 32),
        "v1": (1, 40, 32),
    },
    outputs={
        "logits": (1, 10),
        "past_next": (1, 4, 40),
        "k0_next": (1, 40, 32),
        "v0_next": (1, 40, 32),
        "k1_next": (1, 40, 32),
        "v1_next": (1, 40, 32),
    },
    states=(
        ("past", "past_next", 0.0),
        ("k0", "k0_next", 0.0),
        ("v0", "v0_next", 0.0),
        ("k1", "k1_next", 0.0),
        ("v1", "v1_next", 0.0),
    ),
    row=19,
)
def gtrxl_spoken_digits() -> nn.Module:
    """Frames of 40 log-mel bins, 5 taps, 2 layers of width 32, 4 heads, 40 steps of memory each, hidden 64."""
    return GTrXL(inputs=40, dim=32, layers=2, heads=4, window=40, hidden=64, classes=10, taps=5, bias=0.0)
