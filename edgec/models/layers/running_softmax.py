# SPDX-License-Identifier: Apache-2.0
"""Softmax attention of a fixed query as a running mean: what it has read lies in (m, u, w), never in a cache.

For scores s_t and values v_t, the state after step t is the largest score m, u = sum_i exp(s_i - m) and
w = sum_i v_i exp(s_i - m); w / u is the softmax-weighted mean of the values so far. Two such states of neighbouring
stretches merge exactly, in any grouping, which gives the parallel form.

Sources: M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018 (arXiv:1805.02867); L. Feng et
al., "Attention as an RNN", 2024 (arXiv:2405.13956), section 3.2. Our own reading: m starts at LOWEST instead of minus
infinity, which no step can subtract from itself; with u = w = 0 there, every score above it gives the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST = -10_000.0
"""Where m starts; scores lie above it."""

Running = tuple[Tensor, Tensor, Tensor]
"""(m [..., H], u [..., H], w [..., H, d])."""


def merge(earlier: Running, later: Running) -> Running:
    """The state over both stretches; associative, and (LOWEST, 0, 0) is where every stream begins."""
    (m1, u1, w1), (m2, u2, w2) = earlier, later
    m = torch.maximum(m1, m2)
    keep, add = (m1 - m).exp(), (m2 - m).exp()
    return m, u1 * keep + u2 * add, w1 * keep[..., None] + w2 * add[..., None]


def softmax_step(score: Tensor, value: Tensor, state: Running) -> tuple[Tensor, Running]:
    """One step: score float [B, H], value float [B, H, d] -> (the mean so far, float [B, H, d], the next state)."""
    m_before, u_before, w_before = state
    m = torch.maximum(m_before, score)
    keep, add = (m_before - m).exp(), (score - m).exp()
    u = u_before * keep + add
    w = w_before * keep[..., None] + value * add[..., None]
    return w / u[..., None], (m, u, w)


def softmax_scan(score: Tensor, value: Tensor, state: Running) -> tuple[Tensor, Running]:
    """All steps by doubling: score float [B, T, H], value float [B, T, H, d] -> (means [B, T, H, d], the last state).

    After the round of width n every position holds the merged state of the last 2 n steps up to its own.
    """
    m0, u0, w0 = state
    scan: Running = (score, torch.ones_like(score), value)
    width = 1
    while width < score.shape[1]:
        merged = merge(_each(scan, slice(None, -width)), _each(scan, slice(width, None)))
        scan = _joined(_each(scan, slice(None, width)), merged)
        width *= 2
    m, u, w = merge((m0[:, None], u0[:, None], w0[:, None]), scan)
    return w / u[..., None], (m[:, -1], u[:, -1], w[:, -1])


def _each(state: Running, steps: slice) -> Running:
    m, u, w = state
    return m[:, steps], u[:, steps], w[:, steps]


def _joined(first: Running, second: Running) -> Running:
    m, u, w = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
    return m, u, w
