# SPDX-License-Identifier: Apache-2.0
"""The frame of a streaming classifier: an embedding, blocks that each keep a state, a norm, logits at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class BlockStack(nn.Module):
    """A stack of stages whose states lie one after another: x float [B, I] -> (logits float [B, classes], states).

    Args:
        stages: modules with `forward(x, *state) -> (y, *state)` for one step and `parallel` likewise for all.
        states: how many states each stage has.
        norm: before the last layer.
        head: the last layer.
        embedding: without state, before the stages; none if left out.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        states: Sequence[int],
        norm: nn.Module,
        head: nn.Module,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding or nn.Identity()
        self.stages, self.states = nn.ModuleList(stages), tuple(states)
        self.norm, self.head = norm, head

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One step of every sequence in the batch."""
        return self._through(False, x, state)

    def parallel(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """All steps: x float [B, T, I] -> (logits [B, T, classes], the states after the last step)."""
        return self._through(True, x, state)

    def _through(self, parallel: bool, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, after = self.embedding(x), list[Tensor]()
        for module, count in zip(self.stages, self.states, strict=True):
            stage: Any = module
            x, *own = (stage.parallel if parallel else stage)(x, *state[len(after) : len(after) + count])
            after += own
        return self.head(self.norm(x)), *after
