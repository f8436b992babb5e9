# SPDX-License-Identifier: Apache-2.0
"""A matrix that is written and read at every step: the memory of linear attention, gated or with the delta rule.

For a head with key k, value v, query q (after the feature map), gate a in (0, 1] and writing strength b:

    R   = S diag(a)                  no gate: R = S; a scalar gate: one a for all columns
    w   = b v                        additive rule
    w   = b (v - R k)                delta rule: what is missing from what the memory answers to k
    S'  = R + w k^T
    o   = S' q

Sources: A. Katharopoulos et al., "Transformers are RNNs", ICML 2020 (arXiv:2006.16236), additive; S. Yang et al.,
"Parallelizing Linear Transformers with the Delta Rule over Sequence Length", NeurIPS 2024 (arXiv:2406.06484), delta
and the form in chunks; S. Yang et al., "Gated Delta Networks", 2024 (arXiv:2412.06464), its scalar gate; M. Zhang et
al., "The Hedgehog & the Porcupine", ICLR 2024 (arXiv:2402.04347), the pair of exponentials. The normaliser of linear
attention is a second memory with v = 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALLEST_GATE = 1e-30  # below it the parallel form takes a gate for this value: its logarithm stays finite


def elu_plus_one(x: Tensor) -> Tensor:
    """exp(x) below 0, x + 1 above: positive features of the same shape (Katharopoulos et al. 2020)."""
    return functional.elu(x) + 1


def unit_silu(x: Tensor) -> Tensor:
    """silu(x) divided by its Euclidean length along the last axis (Yang et al. 2024, DeltaNet)."""
    return functional.normalize(functional.silu(x), dim=-1)


def exp_pair(x: Tensor) -> Tensor:
    """[exp(x), exp(-x)] along the last axis, which doubles: Hedgehog's features of a learned projection x."""
    return torch.cat([x.exp(), (-x).exp()], dim=-1)


FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": nn.Identity(),
    "elu+1": elu_plus_one,
    "unit-silu": unit_silu,
    "exp-pair": exp_pair,
}


class MatrixMemory(nn.Module):
    """One memory S [values, keys] for each head, without parameters; the shapes come with the arguments.

    Args:
        delta: write by the delta rule; else additively.
        feature: name in FEATURES of the map of keys and queries.
        chunk: steps that the parallel form takes at once.
    """

    def __init__(self, delta: bool, feature: str = "identity", chunk: int = 32) -> None:
        super().__init__()
        self.delta, self.feature, self.chunk = delta, FEATURES[feature], chunk

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, s: Tensor, gate: Tensor | None = None, strength: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step: two products of matrix and vector and one of rank 1.

        Args:
            q: float [B, H, keys], before the feature map.
            k: likewise.
            v: float [B, H, values].
            s: float [B, H, values, keys], keys after the feature map.
            gate: a, float [B, H, 1] or [B, H, keys] in (0, 1]; None keeps everything.
            strength: b, float [B, H, 1]; None is 1.

        Returns:
            o float [B, H, values] and the next s.
        """
        q, k, v = self.feature(q)[..., None], self.feature(k), v[..., None]
        held = s if gate is None else s * gate[:, :, None]
        if self.delta:
            v = v - held @ k[..., None]
        if strength is not None:
            v = v * strength[..., None]
        s_next = held + v * k[:, :, None]
        return (s_next @ q)[..., 0], s_next

    def parallel(
        self, q: Tensor, k: Tensor, v: Tensor, s: Tensor, gate: Tensor | None = None, strength: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """All steps, chunk after chunk: arguments as in `forward` with an axis T behind the batch, s without it.

        Returns:
            o float [B, T, H, values] and s after the last step.
        """
        parts = (x if x is None else x.transpose(1, 2) for x in (self.feature(q), self.feature(k), v, gate, strength))
        chunks = [(None,) * -(-q.shape[1] // self.chunk) if x is None else x.split(self.chunk, dim=2) for x in parts]
        read = []
        for some in zip(*chunks, strict=True):
            o, s = self._chunk(s, *some)
            read.append(o)
        return torch.cat(read, dim=2).transpose(1, 2), s

    def _chunk(
        self, s: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, strength: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """C steps at once, [B, H, C, ...]; s [B, H, values, keys].

        With G_t the product of the gates up to step t, row t of w solves
        w_t = b_t (v_t - S diag(G_t) k_t - sum_(i<t) w_i (k_i G_t / G_i) k_t): a triangular system (UT transform).
        """
        logs = None if gate is None else gate.clamp(min=SMALLEST_GATE).log().cumsum(2)
        reach = 1.0 if logs is None else logs.exp()  # G_t
        w = v
        if self.delta:
            w = w - (k * reach) @ s.transpose(-2, -1)
        if strength is not None:
            w = w * strength
        if self.delta:
            among = _similarity(k, k, logs).tril(-1)
            among = among if strength is None else among * strength
            w = torch.linalg.solve_triangular(among, w, upper=False, unitriangular=True)
        o = (q * reach) @ s.transpose(-2, -1) + _similarity(q, k, logs).tril() @ w
        if logs is None:
            return o, s + w.transpose(-2, -1) @ k
        left = (logs[:, :, -1:] - logs).exp()  # G_C / G_i
        return o, s * logs[:, :, -1:].exp() + w.transpose(-2, -1) @ (k * left)


def _similarity(a: Tensor, k: Tensor, logs: Tensor | None) -> Tensor:
    """[B, H, C, C]: sum over the keys of a_t k_i G_t / G_i where i <= t; what stands above the diagonal is finite."""
    if logs is None:
        return a @ k.transpose(-2, -1)
    decay = (logs[:, :, :, None] - logs[:, :, None]).clamp(max=0.0).exp()  # [B, H, C, C, 1 or keys]
    if decay.shape[-1] == 1:
        return (a @ k.transpose(-2, -1)) * decay[..., 0]
    return torch.einsum("bhtd,bhid,bhtid->bhti", a, k, decay)
