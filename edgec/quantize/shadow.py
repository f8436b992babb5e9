# SPDX-License-Identifier: Apache-2.0
"""The float model with shadows: beside every operator copies of it that read rounded operands or weights.

A shadow's operands are the float model's own values, rounded as the quantized model rounds them, so that its
error is what this operator alone adds. All shadows run in one ONNX Runtime session.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from edgec.model import value_shapes
from edgec.quantize.calibrate import run_stream
from edgec.quantize.groups import INHERITING, LINEAR
from edgec.quantize.layers import layer_of
from edgec.quantize.scheme import ActivationParams
from edgec.quantize.writer import quantized_layer

if TYPE_CHECKING:
    from edgec.quantize.plan import Plan

ALL, WEIGHTS = "operands and weights", "weights"


@dataclass(frozen=True)
class Unit:
    """An operator with what is fused behind it, and its shadows.

    Attributes:
        nodes: the operator and the Relu, Clip or scalar Mul behind it.
        value: the float value that it computes.
        shadows: what is rounded (`ALL`, `WEIGHTS` or the name of an operand) -> the shadow's result.
    """

    nodes: tuple[NodeProto, ...]
    value: str
    shadows: Mapping[str, str]


@dataclass
class Shadows:
    """The instrumented model; `run` computes every value and every shadow, sample by sample."""

    plan: Plan
    units: list[Unit] = field(default_factory=list)
    _nodes: list[NodeProto] = field(default_factory=list)
    _constants: dict[str, np.ndarray] = field(default_factory=dict)
    _rounded: dict[tuple[str, bool], str] = field(default_factory=dict)

    def run(self, samples: Mapping[str, np.ndarray], fetch: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Values and shadows of these names for each sample; the stream itself is the float model's."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.plan.model.proto)
        proto.graph.node.extend(self._nodes)
        proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in self._constants.items())
        for opset in proto.opset_import:
            if opset.domain in ("", "ai.onnx"):
                opset.version = max(opset.version, 21)  # int16
        yield from run_stream(dataclasses.replace(self.plan.model, proto=proto), samples, fetch)

    def store(self, array: np.ndarray) -> str:
        """Add a constant."""
        name = f"shadow constant {len(self._constants)}"
        self._constants[name] = array
        return name

    def rounded(self, value: str, params: ActivationParams) -> str:
        """`value` through QuantizeLinear and DequantizeLinear; each once."""
        key = (value, params.dtype == "int16")
        if key not in self._rounded:
            names = [
                self.store(np.array(params.scale, np.float32)),
                self.store(np.array(params.zero_point, params.dtype)),
            ]
            kind = 16 if key[1] else 8
            q, self._rounded[key] = f"shadow q{kind} {value}", f"shadow dq{kind} {value}"
            self._nodes.append(helper.make_node("QuantizeLinear", [value, *names], [q]))
            self._nodes.append(helper.make_node("DequantizeLinear", [q, *names], [self._rounded[key]]))
        return self._rounded[key]

    def copy(self, nodes: Sequence[NodeProto], replaced: Mapping[str, str], tag: str) -> str:
        """Append copies of chained nodes that read other names; returns the last one's result."""
        names = dict(replaced)
        for node in nodes:
            copied = NodeProto()
            copied.CopyFrom(node)
            copied.name = f"shadow {tag} {node.name}"
            for i, name in enumerate(node.input):
                copied.input[i] = names.get(name, name)
            for i, name in enumerate(node.output):
                names[name] = copied.output[i] = f"shadow {tag} {name}" if name else ""
            self._nodes.append(copied)
        return names[nodes[-1].output[0]]


def shadow(plan: Plan, *, layers_only: bool = False) -> Shadows:
    """Shadows of every int8 operator of the plan, or only of layers and only with all rounded (bias correction).

    A layer's shadow for bias correction leaves out what is fused behind it.
    """
    result, grouping = Shadows(plan), plan.grouping
    shapes = value_shapes(plan.model.proto)
    for last in grouping.nodes:
        if last.op_type in INHERITING or (layers_only and last.op_type not in LINEAR):
            continue
        if last.name in grouping.regions.nodes:  # what follows a state is wider than int8
            continue
        value = last.output[0]
        if not layers_only and (value not in grouping.root or 0 in shapes.get(value, ())):
            continue
        chain = [last] if layers_only else _behind(last, plan)
        layers = [node for node in chain if node.op_type in LINEAR]
        operands = {
            name: result.rounded(name, _read_params(plan, reader, name))
            for reader in chain
            for position in grouping.quantized_operands(reader)
            if (name := reader.input[position]) in grouping.root
        }
        weights = {k: v for node in layers for k, v in _weights(result, plan, node).items()}
        biases = {k: v for node in layers for k, v in _bias(result, plan, node).items()}
        shadows = {ALL: result.copy(chain, operands | weights | biases, "all")}
        if not layers_only:
            for i, (name, read) in enumerate(operands.items()):
                shadows[name] = result.copy(chain, {name: read}, f"operand {i}")
            if weights:
                shadows[WEIGHTS] = result.copy(chain, weights, "weights")
        result.units.append(Unit(tuple(chain), value, shadows))
    return result


def _behind(last: NodeProto, plan: Plan) -> list[NodeProto]:
    """`last` after the nodes whose results it takes unrounded, in graph order."""
    found, waiting = {last.name}, [last]
    while waiting:
        for name in waiting.pop().input:
            if name in plan.grouping.fused and (node := plan.grouping.producer[name]).name not in found:
                found.add(node.name)
                waiting.append(node)
    return [node for node in plan.grouping.nodes if node.name in found]


def _read_params(plan: Plan, node: NodeProto, name: str) -> ActivationParams:
    params = plan.params[plan.grouping.group(name).name]
    return params.stored if plan.grouping.reads_wide(node) else params.narrow


def _weights(result: Shadows, plan: Plan, node: NodeProto) -> dict[str, str]:
    """Weight of a layer -> a constant with its rounded values."""
    linear = quantized_layer(node, plan.grouping, plan.params, plan.biases)
    layer = layer_of(node, plan.grouping.constants)
    real = linear.weight.astype(np.float64) * linear.weight_scale.astype(np.float64)[:, None]
    return {node.input[1]: result.store(layer.from_rows(real).astype(np.float32))}


def _bias(result: Shadows, plan: Plan, node: NodeProto) -> dict[str, str]:
    """Bias of a layer -> a constant with its corrected values; of 32 bits, they are not rounded."""
    if node.name not in plan.biases or len(node.input) < 3 or not node.input[2]:
        return {}
    return {node.input[2]: result.store(plan.biases[node.name].astype(np.float32))}
