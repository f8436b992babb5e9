# SPDX-License-Identifier: Apache-2.0
"""Edges of products of two activations and of attention: odd sizes, ends of the ranges, sums at the proof's bound."""

from __future__ import annotations

import numpy as np

from edgec.operators import Case
from edgec.operators.softmax import exponentials

LARGEST_MULT = 2**30 - 1


def matmul(b: int, m: int, k: int, n: int, *params: int, transposed: int = 0, right: int | None = None) -> Case:
    left = np.resize(np.array([-128, 127, 3], np.int8), (b, m, k))
    shape = (b, n, k) if transposed else (b, k, n)
    other = np.resize(np.array([127, -128, -128, -1, 5], np.int8), shape)
    values = other if right is None else np.full(shape, right, np.int8)
    return Case((left, values, np.array(params, np.int32)), {"wide": 0, "transpose_b": transposed})


def matmul_edges() -> list[Case]:
    """All narrow, without a zero point of b, ratios below a half: the hand-written kernel takes those that fit."""
    cases = []
    for t in (0, 1):
        cases += [
            matmul(1, 1, 1, 1, 127, 0, LARGEST_MULT, 0, 0, transposed=t),
            matmul(2, 5, 9, 3, -128, 0, 2**24, 0, -128, transposed=t),
            matmul(3, 2, 6, 7, 5, 0, 2**25, 0, 127, transposed=t),
            matmul(2, 3, 4, 6, 0, 0, 2**26, 0, -1, transposed=t),
            matmul(1, 7, 257, 2, -128, 0, 2**20, 0, 0, transposed=t, right=-128),  # the last K of any zero point
            matmul(1, 6, 257, 5, 127, 0, 2**20, 0, 0, transposed=t, right=-128),
            matmul(1, 2, 511, 3, 0, 0, 2**19, 0, 0, transposed=t, right=-128),  # and of none
            matmul(1, 9, 32, 17, 0, 0, 2**23, 0, 3, transposed=t, right=-128),
        ]
    return cases


MATMUL_DECLINED = [  # by the hand-written kernel: a sum that a pair cannot hold, a zero point of b, a shift
    matmul(1, 2, 258, 2, -128, 0, 2**20, 0, 0, right=-128),
    matmul(1, 2, 512, 2, 0, 0, 2**20, 0, 0, transposed=1, right=-128),
    matmul(1, 2, 5, 2, 0, 1, 2**20, 0, 0, transposed=1),
    matmul(1, 2, 5, 2, 0, 0, 2**29, 1, 0),
]


def attention(
    m: int, n: int, heads: int, d: int, e: int, za: int = 0, score_mult: int = 2**23, step: float = 0.05, fill: str = ""
) -> Case:
    rng = np.random.default_rng(m * 1000 + n * 10 + d)
    low, high = {"low": (-128, -127), "ends": (-128, 128)}.get(fill, (-128, 128))
    q, k, v = (
        rng.choice([-128, 127], s) if fill == "ends" else rng.integers(low, high, s)
        for s in ((m, heads, d), (n, heads, d), (n, heads, e))
    )
    score = np.array([za, 0, score_mult, 0, int(rng.integers(-128, 128))], np.int32)
    mix = np.array([-128, 0, 2**23 - 5, 0, int(rng.integers(-128, 128))], np.int32)
    return Case((q.astype(np.int8), k.astype(np.int8), v.astype(np.int8), score, exponentials(step), mix))


def attention_edges() -> list[Case]:
    return [
        attention(1, 1, 1, 1, 1),
        attention(4, 8, 2, 4, 4),
        attention(5, 7, 3, 5, 5, za=-128),
        attention(6, 9, 2, 3, 7, za=127),
        attention(7, 10, 1, 8, 2, step=3.0),
        attention(3, 33, 2, 6, 6, fill="low"),
        attention(9, 64, 1, 32, 32, fill="ends"),
        attention(2, 257, 1, 9, 4, step=1e-5, fill="ends"),
        attention(4, 12, 4, 16, 16, score_mult=LARGEST_MULT, step=0.5),
        attention(2, 1000, 1, 4, 4, step=1e-5, fill="low"),  # all values -128, more keys than any product may have
        attention(2, 9, 1, 512, 4),  # a score that a pair cannot hold
    ]


EDGES = {"attention_s8": attention_edges}
