# SPDX-License-Identifier: Apache-2.0
"""Which node hides elements from a Softmax: the sum with a constant of 0 and -infinity, or a choice of the latter.

No scale holds both scores and -infinity, so such a node stays in float in a quantized model and becomes part of the
integer softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

HIDDEN = -9999.0
"""Scores of this size and below have no weight: exp(-9999) is 0 in float32."""

Constant = Callable[[str], npt.NDArray[Any] | None]


def masked_scores(node: onnx.NodeProto, constant: Constant) -> tuple[int, npt.NDArray[np.bool_]] | None:
    """(position of the scores, where they count) when `node` hides some of them by a constant; else None.

    Args:
        node: any node; that a Softmax alone reads it is for the caller to check.
        constant: the array of a constant by name, None for what is computed.
    """
    if node.op_type == "Add":
        return _added(node, constant)
    if node.op_type == "Where":
        return _chosen(node, constant)
    return None


def _added(node: onnx.NodeProto, constant: Constant) -> tuple[int, npt.NDArray[np.bool_]] | None:
    for scores, other in ((0, 1), (1, 0)):
        mask = constant(node.input[other])
        if mask is None or constant(node.input[scores]) is not None:
            continue
        hidden = mask <= HIDDEN
        if hidden.any() and not mask[~hidden].any():
            return scores, ~hidden
    return None


def _chosen(node: onnx.NodeProto, constant: Constant) -> tuple[int, npt.NDArray[np.bool_]] | None:
    condition = constant(node.input[0])
    if condition is None:
        return None
    for scores, other in ((1, 2), (2, 1)):
        filling = constant(node.input[other])
        if filling is not None and constant(node.input[scores]) is None and filling.size and (filling <= HIDDEN).all():
            counted = condition.astype(bool)
            return scores, counted if scores == 1 else ~counted
    return None
