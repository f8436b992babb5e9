# SPDX-License-Identifier: Apache-2.0
"""Keyword model on a gated recurrent unit: one step per frame of audio features, its state passed in and out.

Source: K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", EMNLP 2014 (arXiv:1406.1078), in the variant that applies the reset gate after the product, as
cuDNN, PyTorch and ONNX's `linear_before_reset` have it:

    r  = sigmoid(rx x + rh h)
    z  = sigmoid(zx x + zh h)
    n  = tanh(nx x + r (nh h))
    h' = n + z (h - n)
    y  = out h'

Our own reading: h' is written with one product instead of (1 - z) n + z h; rh and zh have no bias, which would
only repeat that of rx and zx.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgec.models.registry import register_model


class GRUClassifier(nn.Module):
    """One step: x float [B, inputs], h float [B, hidden] -> (logits float [B, classes], h_next).

    Args:
        inputs: width of a frame of features.
        hidden: width of the state.
        classes: number of logits.
    """

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.rx = nn.Linear(inputs, hidden)
        self.zx = nn.Linear(inputs, hidden)
        self.nx = nn.Linear(inputs, hidden)
        self.rh = nn.Linear(hidden, hidden, bias=False)
        self.zh = nn.Linear(hidden, hidden, bias=False)
        self.nh = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """One step of every sequence in the batch; the state of the first step is zero."""
        h_next = self._advance(self.rx(x), self.zx(x), self.nx(x), h)
        return self.out(h_next), h_next

    def parallel(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """All steps of every sequence: what does not depend on the state is one product over all frames.

        Args:
            x: float [B, T, inputs].
            h: float [B, hidden], before the first step.

        Returns:
            logits float [B, T, classes] and the state after the last step, float [B, hidden].
        """
        parts = (layer(x).unbind(1) for layer in (self.rx, self.zx, self.nx))
        seen = []
        for rx, zx, nx in zip(*parts, strict=True):
            h = self._advance(rx, zx, nx, h)
            seen.append(h)
        return self.out(torch.stack(seen, dim=1)), h

    def _advance(self, rx: Tensor, zx: Tensor, nx: Tensor, h: Tensor) -> Tensor:
        r = torch.sigmoid(rx + self.rh(h))
        z = torch.sigmoid(zx + self.zh(h))
        n = torch.tanh(nx + r * self.nh(h))
        return n + z * (h - n)


@register_model(
    "gru-spoken-digits",
    description="one step of a keyword GRU on 40 log-mel bins, state of 64, 10 classes, 21 k MACs",
    source="Cho et al., RNN Encoder-Decoder, EMNLP 2014, arXiv:1406.1078",
    parameters=20_874,
    inputs={"frame": (1, 40), "h": (1, 64)},
    outputs={"logits": (1, 10), "h_next": (1, 64)},
    states=(("h", "h_next", 0.0),),
)
def gru_spoken_digits() -> nn.Module:
    """Frames of 40 log-mel bins, h [64], logits of the ten digits at every step."""
    return GRUClassifier(inputs=40, hidden=64, classes=10)
