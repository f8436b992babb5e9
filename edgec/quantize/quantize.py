# SPDX-License-Identifier: Apache-2.0
"""Canonical float model + calibration samples -> int8 QDQ model (standard ONNX, readable by ONNX Runtime).

What is written around a computing node: `DequantizeLinear -> [data movement] -> node -> QuantizeLinear`.
Every value of one group (see `groups`) uses the same scale and zero point initializers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from edgec.errors import UnsupportedError, UsageError
from edgec.model import Model, set_state_contract
from edgec.quantize.calibrate import Method, Ranges, calibrate
from edgec.quantize.dataset import check_samples, sha256_of
from edgec.quantize.groups import INHERITING, Group, Grouping
from edgec.quantize.scheme import (
    FIXED_OUTPUT,
    ActivationParams,
    activation_params,
    linear_params,
    quantize_array,
)

METADATA_KEY = "edgec.quantization"

# The operators of a quantized model mean the same in opsets 20 and 21. With 21, ONNX Runtime 1.31's default
# optimizations on x86 refuse int8 data movement: one pass inserts QuantizeLinear with output_dtype=INT8
# behind it, another turns its zero point to uint8 (onnxruntime issue 25526). Opset 20 has no such attribute,
# so the file runs everywhere.
QDQ_OPSET = 20


def is_quantized(model: Model) -> bool:
    """Whether the model is in QDQ form already.

    Raises:
        UnsupportedError: it has only one of QuantizeLinear and DequantizeLinear (weight-only quantization).
    """
    present = {node.op_type for node in model.proto.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    if len(present) == 1:
        raise UnsupportedError(
            f"{model.name} is only partly quantized: it has {present.pop()} nodes alone",
            need="QuantizeLinear and DequantizeLinear around every operator, or a float model",
            hint="give the float model and calibration samples",
        )
    return bool(present)


def quantize(
    model: Model,
    calibration: Mapping[str, np.ndarray] | None,
    *,
    method: Method = "minmax",
    percentile: float = 99.99,
) -> Model:
    """Quantize a canonical float model to int8; a model that is in QDQ form already is returned unchanged.

    Args:
        model: canonical float model (see `edgec.passes.canonicalize`).
        calibration: per input (without states) an array of samples, shapes as in `dataset.check_samples`; for
            a stateful model the steps of one stream. Not needed for a QDQ model.
        method, percentile: how ranges follow from what was observed, see `ValueStatistics.range`. On a
            trained ViT `minmax` and 99.99 % were equally accurate: the simpler one is the default.

    Returns:
        The QDQ model with the same inputs, outputs, states and name; how it was made is in its metadata
        property "edgec.quantization" (JSON).

    Raises:
        UsageError: no calibration, or one that does not match the model's inputs.
        UnsupportedError: operators that cannot be quantized, values that are not finite, accumulators beyond
            32 bits.
    """
    if is_quantized(model):
        return model
    if calibration is None:
        raise UsageError(
            f"{model.name} is a float model: quantizing it needs samples of its inputs",
            need="calibration samples: " + ", ".join(f"{i.name} {list(i.shape)}" for i in model.inputs),
            have="none",
            hint="--calibration samples.npz (arrays keyed by input name, leading axis = samples)",
        )
    samples = check_samples(calibration, model.inputs, source="calibration")
    model = dataclasses.replace(model, proto=_without_constant_divisors(model.proto))
    grouping = Grouping(model)
    observed = [root for group in grouping.groups for root in group.observed if root not in grouping.constants]
    ranges = calibrate(model, samples, observed)
    params = {g.name: _group_params(g, grouping, ranges, method, percentile) for g in grouping.groups}
    proto = _Writer(model, grouping, params).write()
    summary: dict[str, object] = {"scheme": "int8", "method": method}
    if method == "percentile":
        summary["percentile"] = percentile
    summary |= {"samples": ranges.samples, "calibration_sha256": sha256_of(samples)}
    helper.set_model_props(
        proto,
        {p.key: p.value for p in model.proto.metadata_props} | {METADATA_KEY: json.dumps(summary)},
    )
    set_state_contract(proto, model.states)
    return dataclasses.replace(model, proto=proto)


def _without_constant_divisors(proto: onnx.ModelProto) -> onnx.ModelProto:
    """x / c -> x * (1/c): a quantized divisor could round to zero."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    constants = {init.name: init for init in copy.graph.initializer}
    for node in copy.graph.node:
        if node.op_type == "Div" and not node.domain and node.input[1] in constants:
            divisor = numpy_helper.to_array(constants[node.input[1]])
            if divisor.dtype != np.float32 or not np.all(divisor):
                raise UnsupportedError(f"{node.name}: division by a constant that is not float32 or holds 0")
            name = f"{node.input[1]}/reciprocal"
            while name in constants and not np.array_equal(numpy_helper.to_array(constants[name]), 1 / divisor):
                name += "_"
            if name not in constants:
                constants[name] = numpy_helper.from_array(1 / divisor, name)
                copy.graph.initializer.append(constants[name])
            node.op_type = "Mul"
            node.input[1] = name
    return copy


def _group_params(
    group: Group, grouping: Grouping, ranges: Ranges, method: Method, percentile: float
) -> ActivationParams:
    bounds = [(value, value) for value in group.resets]
    for root in group.observed:
        if root in grouping.constants:
            array = numpy_helper.to_array(grouping.constants[root])
            if not np.isfinite(array).all():
                raise UnsupportedError(f"constant {root} is not finite")
            bounds.append((float(array.min(initial=0.0)), float(array.max(initial=0.0))))
        else:
            bounds.append(ranges[root].range(method, percentile))
    low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
    if not group.symmetric and len(group.fixed_ops) == 1:
        fixed = FIXED_OUTPUT[next(iter(group.fixed_ops))]
        if low >= fixed.low and high <= fixed.high + fixed.scale:  # 1.0 itself is one step above the top
            return fixed
    return activation_params(low, high, symmetric=group.symmetric)


class _Writer:
    """Writes the QDQ graph: one pass over the nodes, Q and DQ around the computing ones."""

    def __init__(self, model: Model, grouping: Grouping, params: Mapping[str, ActivationParams]) -> None:
        self._model = model
        self._grouping = grouping
        self._params = params
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._read_as: dict[str, str] = {}  # value -> the name under which other nodes read it
        graph = model.proto.graph
        self._taken = set(grouping.constants) | {v.name for v in graph.input}
        self._taken |= {name for node in graph.node for name in (*node.input, *node.output, node.name)}
        self._param_names: dict[str, tuple[str, str]] = {}
        self._weight_names: dict[tuple[str, bytes], tuple[str, str, str]] = {}

    def write(self) -> onnx.ModelProto:
        grouping, source = self._grouping, self._model.proto
        read = {name for node in grouping.nodes for name in node.input}
        for name in grouping.inputs:
            if name in read:
                self._quantize(name, name, self._unique(f"{name}/dq"))
        for node in grouping.nodes:
            self._write_node(node)
        proto = onnx.ModelProto()
        proto.CopyFrom(source)
        graph = proto.graph
        for repeated in (graph.node, graph.initializer, graph.value_info):
            del repeated[:]
        graph.node.extend(self._nodes)
        for opset in proto.opset_import:
            if opset.domain in ("", "ai.onnx"):
                opset.version = min(opset.version, QDQ_OPSET)
        used = {name for node in self._nodes for name in node.input}
        constants = {**grouping.constants, **self._initializers}
        graph.initializer.extend(init for name, init in constants.items() if name in used)
        shaped = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
        onnx.checker.check_model(shaped, full_check=True)
        return shaped

    def _write_node(self, node: NodeProto) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        quantized = self._grouping.quantized_operands(node)
        for position, name in enumerate(node.input):
            if name not in self._grouping.constants:
                copy.input[position] = self._read_as.get(name, name)
            elif position in quantized:  # the same constant may be a float operand of another node
                copy.input[position] = self._constant(name)
        if node.op_type == "Gemm":
            self._write_weights(node, copy)
        self._nodes.append(copy)
        for position, name in enumerate(node.output):
            if not name or name in self._grouping.fused:
                continue
            if node.op_type not in INHERITING:
                written = self._unique(f"{name}/float") if name in self._grouping.outputs else name
                read = name if name in self._grouping.outputs else self._unique(f"{name}/dq")
                self._quantize(name, written, read)
            elif name in self._grouping.outputs:
                # The output ends in Q -> DQ (exact: same parameters); inner readers stay in the movement
                # chain.
                written = self._unique(f"{name}/moved")
                self._quantize(name, written, name)
                self._read_as[name] = written
            else:
                continue
            copy.output[position] = written

    def _quantize(self, value: str, written: str, read: str) -> None:
        """Q and DQ behind `value`, which its producer writes as `written`; readers use `read`."""
        quantized = self._unique(f"{value}/q")
        scale, zero_point = self._param_initializers(self._grouping.group(value))
        self._nodes.append(self._node("QuantizeLinear", [written, scale, zero_point], quantized, value))
        self._nodes.append(self._node("DequantizeLinear", [quantized, scale, zero_point], read, value))
        self._read_as[value] = read

    def _constant(self, name: str) -> str:
        if name not in self._read_as:
            group = self._grouping.group(name)
            array = numpy_helper.to_array(self._grouping.constants[name])
            params = self._params[group.name]
            quantized = self._store(f"{name}/q", quantize_array(array, params, symmetric=group.symmetric))
            read = self._unique(f"{name}/dq")
            self._nodes.append(
                self._node("DequantizeLinear", [quantized, *self._param_initializers(group)], read, name)
            )
            self._read_as[name] = read
        return self._read_as[name]

    def _write_weights(self, node: NodeProto, copy: NodeProto) -> None:
        """Replace weight and bias of a Gemm by int8 and int32 initializers with their DequantizeLinear."""
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        canonical = attributes.get("transB", 0) == 1 and not attributes.get("transA", 0)
        canonical &= attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0
        weight = numpy_helper.to_array(self._grouping.constants[node.input[1]])
        has_bias = len(node.input) > 2 and node.input[2] != ""
        bias_name = node.input[2] if has_bias else f"{node.name}/bias"
        bias = np.zeros(len(weight), np.float32)
        if has_bias:
            bias = numpy_helper.to_array(self._grouping.constants[bias_name])
        if not canonical or weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise UnsupportedError(
                f"{node.name}: Gemm is not in canonical form",
                need="transB=1, transA=0, alpha=beta=1, weight [N, K], bias [N]",
                have=f"{attributes}, weight {list(weight.shape)}, bias {list(bias.shape)}",
            )
        output = node.output[0]
        if output in self._grouping.fused:
            output = next(n.output[0] for n in self._grouping.nodes if output in n.input)
        x, y = (self._params[self._grouping.group(v).name] for v in (node.input[0], output))
        linear = linear_params(weight, bias, x, y, node.name)
        zeros = np.zeros(len(weight), np.int8)
        key = (node.input[1], linear.weight_scale.tobytes())
        if key not in self._weight_names:  # a tied weight is stored once
            self._weight_names[key] = (
                self._store(f"{node.input[1]}/q", linear.weight),
                self._store(f"{node.input[1]}/scale", linear.weight_scale),
                self._store(f"{node.input[1]}/zero_point", zeros),
            )
        bias_names = (
            self._store(f"{bias_name}/q", linear.bias),
            self._store(f"{bias_name}/scale", linear.bias_scale),
            self._store(f"{bias_name}/zero_point", zeros.astype(np.int32)),
        )
        names = []
        for source, inputs in ((node.input[1], self._weight_names[key]), (bias_name, bias_names)):
            names.append(self._unique(f"{source}/dq"))
            self._nodes.append(self._node("DequantizeLinear", inputs, names[-1], source, axis=0))
        del copy.input[1:]
        copy.input.extend(names)

    def _param_initializers(self, group: Group) -> tuple[str, str]:
        if group.name not in self._param_names:
            params = self._params[group.name]
            self._param_names[group.name] = (
                self._store(f"{group.name}/scale", np.array(params.scale, np.float32)),
                self._store(f"{group.name}/zero_point", np.array(params.zero_point, np.int8)),
            )
        return self._param_names[group.name]

    def _store(self, name: str, array: np.ndarray) -> str:
        name = self._unique(name)
        self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def _node(
        self, op: str, inputs: tuple[str, ...] | list[str], output: str, value: str, **attributes: Any
    ) -> NodeProto:
        return helper.make_node(op, inputs, [output], self._unique(f"{value}/{op}"), **attributes)

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._taken:
            count += 1
            unique = f"{name}.{count}"
        self._taken.add(unique)
        return unique
