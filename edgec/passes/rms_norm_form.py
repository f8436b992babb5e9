# SPDX-License-Identifier: Apache-2.0
"""The canonical form of RMSNorm, which opset 21 has no operator for: `x / Sqrt(ReduceMean(x * x) + epsilon) * gain`.

`edgec/passes/rms_norm.py` writes it; the quantizer leaves what is inside in float and lowering makes one operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, numpy_helper


@dataclass(frozen=True)
class RmsNormForm:
    """One RMSNorm over the last axis: its nodes in order, the value it reads, epsilon, and the gain's name or None."""

    nodes: tuple[NodeProto, ...]
    x: str
    epsilon: float
    gain: str | None

    @property
    def inner(self) -> list[str]:
        """Values that nobody outside reads."""
        return [str(n.output[0]) for n in self.nodes[:-1]]


def find_rms_norms(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> list[RmsNormForm]:
    """Every RMSNorm of a graph that is in the canonical form; `shapes` of its values."""
    constants = {t.name: t for t in graph.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {o.name for o in graph.output}
    found = []
    for node in graph.node:
        if node.op_type == "Mul" and len(node.input) == 2 and node.input[0] == node.input[1]:
            form = _match(node, readers, constants, outputs)
            if form is not None and _over_last_axis(form, constants, shapes):
                found.append(form)
    return found


def _match(
    square: NodeProto,
    readers: Mapping[str, list[NodeProto]],
    constants: Mapping[str, onnx.TensorProto],
    outputs: set[str],
) -> RmsNormForm | None:
    def only(node: NodeProto, op_type: str) -> NodeProto | None:
        users = readers.get(node.output[0], [])
        alone = len(users) == 1 and node.output[0] not in outputs and users[0].op_type == op_type
        return users[0] if alone and node.output[0] in users[0].input else None

    x = str(square.input[0])
    mean = only(square, "ReduceMean")
    shifted = None if mean is None else only(mean, "Add")
    root = None if shifted is None else only(shifted, "Sqrt")
    quotient = None if root is None else only(root, "Div")
    if (
        mean is None
        or shifted is None
        or root is None
        or quotient is None
        or list(quotient.input) != [x, root.output[0]]
    ):
        return None
    axes, epsilon = (_constant(n, constants) for n in (mean, shifted))
    keepdims = next((a.i for a in mean.attribute if a.name == "keepdims"), 1)
    if axes is None or epsilon is None or epsilon.size != 1 or axes.size != 1 or not keepdims:
        return None
    nodes: tuple[NodeProto, ...] = (square, mean, shifted, root, quotient)
    scaled = only(quotient, "Mul")
    gain = next((n for n in scaled.input if n in constants), None) if scaled is not None else None
    if scaled is None or gain is None or len(constants[gain].dims) != 1 or constants[gain].dims[0] == 1:
        return RmsNormForm(nodes, x, float(epsilon.reshape(())), None)
    return RmsNormForm((*nodes, scaled), x, float(epsilon.reshape(())), str(gain))


def _over_last_axis(
    form: RmsNormForm, constants: Mapping[str, onnx.TensorProto], shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    axes = _constant(form.nodes[1], constants)
    rank = len(shapes.get(form.x, ()))
    return axes is not None and rank > 0 and int(axes.reshape(())) % rank == rank - 1


def _constant(node: NodeProto, constants: Mapping[str, onnx.TensorProto]) -> npt.NDArray[Any] | None:
    name = next((n for n in node.input if n in constants), None)
    return None if name is None else np.asarray(numpy_helper.to_array(constants[name]))


def inner_values(forms: Iterable[RmsNormForm]) -> dict[str, RmsNormForm]:
    """Every value inside one of `forms`, and the form that it belongs to."""
    return {name: form for form in forms for name in form.inner}
