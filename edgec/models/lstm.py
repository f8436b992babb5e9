# SPDX-License-Identifier: Apache-2.0
"""Keyword model on a long short-term memory: one step per frame of audio features, its states passed in and out.

Source: S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9 (8), 1997, with the forget gate
of F. Gers, J. Schmidhuber, F. Cummins, "Learning to Forget", Neural Computation 12 (10), 2000; without peepholes, as
cuDNN, PyTorch and ONNX have it:

    i  = sigmoid(ix x + ih h)
    f  = sigmoid(fx x + fh h)
    g  = tanh(gx x + gh h)
    o  = sigmoid(ox x + oh h)
    c' = f c + i g
    h' = o tanh(c')
    y  = out h'

Our own reading: the layers of h have no bias, which would only repeat that of x.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgec.models.registry import register_model


class LSTMClassifier(nn.Module):
    """One step: x float [B, inputs], h and c float [B, hidden] -> (logits float [B, classes], h, c).

    Args:
        inputs: width of a frame of features.
        hidden: width of each state.
        classes: number of logits.
    """

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.ix, self.fx, self.gx, self.ox = (nn.Linear(inputs, hidden) for _ in range(4))
        self.ih, self.fh, self.gh, self.oh = (nn.Linear(hidden, hidden, bias=False) for _ in range(4))
        self.out = nn.Linear(hidden, classes)
        with torch.no_grad():
            self.fx.bias.fill_(1.0)  # it remembers at first (Jozefowicz et al., ICML 2015)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of every sequence in the batch; the states of the first step are zero."""
        h, c = self._advance(self.ix(x), self.fx(x), self.gx(x), self.ox(x), h, c)
        return self.out(h), h, c

    def parallel(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All steps: what does not depend on the state is one product over all frames.

        Args:
            x: float [B, T, inputs].
            h: float [B, hidden], before the first step.
            c: likewise.

        Returns:
            logits float [B, T, classes] and the states after the last step, float [B, hidden].
        """
        parts = (layer(x).unbind(1) for layer in (self.ix, self.fx, self.gx, self.ox))
        seen = []
        for ix, fx, gx, ox in zip(*parts, strict=True):
            h, c = self._advance(ix, fx, gx, ox, h, c)
            seen.append(h)
        return self.out(torch.stack(seen, dim=1)), h, c

    def _advance(self, ix: Tensor, fx: Tensor, gx: Tensor, ox: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f = torch.sigmoid(ix + self.ih(h)), torch.sigmoid(fx + self.fh(h))
        g, o = torch.tanh(gx + self.gh(h)), torch.sigmoid(ox + self.oh(h))
        c = f * c + i * g
        return o * torch.tanh(c), c


@register_model(
    "lstm-spoken-digits",
    description="one step of a keyword LSTM on 40 log-mel bins, two states of 48, 10 classes, 17 k MACs",
    source="Hochreiter & Schmidhuber, Long Short-Term Memory, 1997; Gers et al., Learning to Forget, 2000",
    parameters=17_578,
    inputs={"frame": (1, 40), "h": (1, 48), "c": (1, 48)},
    outputs={"logits": (1, 10), "h_next": (1, 48), "c_next": (1, 48)},
    states=(("h", "h_next", 0.0), ("c", "c_next", 0.0)),
)
def lstm_spoken_digits() -> nn.Module:
    """Frames of 40 log-mel bins, h and c [48], logits of the ten digits at every step."""
    return LSTMClassifier(inputs=40, hidden=48, classes=10)
