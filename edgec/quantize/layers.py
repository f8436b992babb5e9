# SPDX-License-Identifier: Apache-2.0
"""Layers with constant weights (Gemm, Conv, ConvTranspose) as matrices: one row for each output channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgec.errors import UnsupportedError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """One layer's float weights.

    Attributes:
        op_type: Gemm, Conv or ConvTranspose.
        weight: as ONNX has it: [N, K], [M, C/groups, *kernel] or [C, M/groups, *kernel].
        bias: float32 [N], zeros when the model has none.
        groups: of a convolution.
    """

    op_type: str
    weight: Array
    bias: Array
    groups: int = 1

    @property
    def rows(self) -> Array:
        """Weights of each output channel: [N, products per result]."""
        if self.op_type != "ConvTranspose":
            return self.weight.reshape(len(self.weight), -1)
        return self._blocks(self.weight).transpose(0, 2, 1, 3).reshape(len(self.bias), -1)

    def from_rows(self, rows: Array) -> Array:
        """Such rows in ONNX's order again."""
        if self.op_type != "ConvTranspose":
            return rows.reshape(self.weight.shape)
        groups, inputs, outputs, taps = self._blocks(self.weight).shape
        return rows.reshape(groups, outputs, inputs, taps).transpose(0, 2, 1, 3).reshape(self.weight.shape)

    @property
    def axis(self) -> int:
        """Axis of the weight that counts output channels."""
        return 1 if self.op_type == "ConvTranspose" else 0

    @property
    def tied(self) -> int:
        """How many output channels have to share each scale, for ONNX has one scale for each index of `axis`."""
        return self.groups if self.op_type == "ConvTranspose" else 1

    @property
    def inputs(self) -> int:
        """Input channels."""
        return int(self.weight.shape[0 if self.op_type == "ConvTranspose" else 1]) * (
            1 if self.op_type == "ConvTranspose" else self.groups
        )

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel sees one input channel."""
        return self.op_type == "Conv" and self.groups > 1 and self.weight.shape[1] == 1

    def input_reach(self) -> Array:
        """Largest |weight| that each input channel meets, [inputs]."""
        reach: Array = np.abs(self._by_input()).max(axis=(1, 2), initial=0.0)
        return reach

    def with_inputs_scaled(self, factors: Array) -> Array:
        """Weights with which `layer(x)` is what it was for `x * factors`, factors by input channel."""
        return self._from_input(self._by_input() * factors[:, None, None])

    def with_outputs_scaled(self, factors: Array) -> tuple[Array, Array]:
        """Weights and bias whose results are the old ones times `factors`, channel by channel."""
        return self.from_rows(self.rows * factors[:, None]), self.bias * factors

    def _blocks(self, weight: Array) -> Array:
        """[groups, inputs of a group, outputs of a group, taps] of a ConvTranspose weight."""
        return weight.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], -1)

    def _by_input(self) -> Array:
        """[inputs, outputs of the group, taps]."""
        if self.op_type == "ConvTranspose":
            return self.weight.reshape(*self.weight.shape[:2], -1)
        shape = (self.groups, len(self.weight) // self.groups, self.weight.shape[1], -1)
        return self.weight.reshape(shape).transpose(0, 2, 1, 3).reshape(self.inputs, shape[1], -1)

    def _from_input(self, weight: Array) -> Array:
        if self.op_type == "ConvTranspose":
            return weight.reshape(self.weight.shape)
        shape = (self.groups, self.weight.shape[1], weight.shape[1], -1)
        return weight.reshape(shape).transpose(0, 2, 1, 3).reshape(self.weight.shape)


def layer_of(node: NodeProto, constants: Mapping[str, TensorProto]) -> Layer:
    """The weights of a layer in canonical form.

    Raises:
        UnsupportedError: weights that are computed, or a Gemm with other flags than transB=1.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    missing = [n for n in node.input[1:] if n and n not in constants]
    if len(node.input) < 2 or missing:
        raise UnsupportedError(f"{node.name}: the weights of {node.op_type} are not constant", have=", ".join(missing))
    weight = numpy_helper.to_array(constants[node.input[1]])
    groups = int(attributes.get("group", 1))
    channels = weight.shape[1] * groups if node.op_type == "ConvTranspose" else len(weight)
    bias: Array = np.zeros(channels, np.float32)
    if len(node.input) > 2 and node.input[2]:
        bias = numpy_helper.to_array(constants[node.input[2]])
    canonical = bias.shape == (channels,)
    if node.op_type == "Gemm":
        canonical &= attributes.get("transB", 0) == 1 and not attributes.get("transA", 0) and weight.ndim == 2
        canonical &= attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0
    if not canonical:
        raise UnsupportedError(
            f"{node.name}: {node.op_type} is not in canonical form",
            need="transB=1, transA=0, alpha=beta=1, weight [N, K], bias [N]",
            have=f"{attributes}, weight {list(weight.shape)}, bias {list(bias.shape)}",
        )
    return Layer(node.op_type, weight, bias, groups)
