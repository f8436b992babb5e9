# SPDX-License-Identifier: Apache-2.0
"""Writes the QDQ graph: around a computing node `DequantizeLinear -> [data movement] -> node -> QuantizeLinear`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from edgec.model import Model
from edgec.quantize.groups import INHERITING, LINEAR, Group, Grouping
from edgec.quantize.layers import layer_of
from edgec.quantize.scheme import ActivationParams, LinearParams, linear_params, linear_params16, quantize_array
from edgec.quantize.sums import Term, shared_accumulator

# The operators of a quantized model mean the same in opsets 20 and 21. With 21, ONNX Runtime 1.31's default
# optimizations on x86 refuse int8 data movement: one pass inserts QuantizeLinear with output_dtype=INT8
# behind it, another turns its zero point to uint8 (onnxruntime issue 25526). Opset 20 has no such attribute,
# so the file runs everywhere; but it has no int16 either, so a file with int16 tensors is opset 21.
QDQ_OPSET = 20


@dataclass(frozen=True)
class Params:
    """Quantization of one group: `wide` is how the tensor is stored, `narrow` how int8 readers see it."""

    narrow: ActivationParams
    wide: ActivationParams | None = None

    @property
    def stored(self) -> ActivationParams:
        """int16 where chosen, else int8."""
        return self.wide or self.narrow


def quantized_layer(
    node: NodeProto, grouping: Grouping, params: Mapping[str, Params], biases: Mapping[str, np.ndarray]
) -> LinearParams:
    """Integer weights (as rows) and bias of a Gemm, Conv or ConvTranspose; `biases` replace the node's, by its name."""
    terms, y = summed_layers(grouping.products_with(node), grouping, params, biases)
    accumulator = shared_accumulator(terms, y) if len(terms) > 1 else None
    (term,), _ = summed_layers([node], grouping, params, biases)
    tied = layer_of(node, grouping.constants).tied
    return linear_params(term.weight, term.bias, term.x, y, node.name, tied=tied, accumulator=accumulator)


def summed_layers(
    nodes: Sequence[NodeProto], grouping: Grouping, params: Mapping[str, Params], biases: Mapping[str, np.ndarray]
) -> tuple[list[Term], ActivationParams]:
    """Layers that one accumulator sums, and the quantization in which their sum ends."""
    terms = []
    for node in nodes:
        layer = layer_of(node, grouping.constants)
        x = params[grouping.group(node.input[0]).name].narrow
        terms.append(Term(layer.rows, biases.get(node.name, layer.bias), x))
    return terms, params[grouping.group(grouping.end_of(nodes[0])).name].narrow


class Writer:
    """One pass over the nodes; every value of one group uses the same scale and zero point initializers."""

    def __init__(
        self, model: Model, grouping: Grouping, params: Mapping[str, Params], biases: Mapping[str, np.ndarray]
    ) -> None:
        self._biases = biases
        self._model = model
        self._grouping = grouping
        self._params = params
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._read_as: dict[str, str] = {}  # value -> the name under which other nodes read it, itself without
        self._kind: dict[str, str] = {}  # what that is: dequantized int8 or int16, or float
        self._kept: dict[str, str] = {}  # float value that an output or state keeps rounded -> the output
        self._narrow: dict[str, str] = {}  # int16 or float value -> the name of its int8 rounding
        self._widened: dict[str, str] = {}  # int8 value -> the name of the same as int16
        stored = grouping.regions.stored
        self._states = {name: stored(pair.input) for pair in model.states for name in (pair.input, pair.output)}
        graph = model.proto.graph
        self._taken = set(grouping.constants) | {v.name for v in graph.input}
        self._taken |= {name for node in graph.node for name in (*node.input, *node.output, node.name)}
        self._param_names: dict[tuple[str, str], tuple[str, str]] = {}
        self._weight_names: dict[tuple[str, bytes], tuple[str, str, str]] = {}

    def write(self) -> onnx.ModelProto:
        """The QDQ graph, checked; without metadata."""
        grouping, source = self._grouping, self._model.proto
        read = {name for node in grouping.nodes for name in node.input}
        for name in grouping.inputs:
            if (name in read or name in self._states) and name in grouping.root:  # a state that nobody reads is kept
                self._bring_in(name)
        for node in grouping.nodes:
            self._write_node(node)
        proto = onnx.ModelProto()
        proto.CopyFrom(source)
        graph = proto.graph
        for repeated in (graph.node, graph.initializer, graph.value_info):
            del repeated[:]
        graph.node.extend(self._nodes)
        wide = any(p.wide is not None for p in self._params.values())
        for opset in proto.opset_import:
            if opset.domain in ("", "ai.onnx"):
                opset.version = min(opset.version, 21 if wide else QDQ_OPSET)
        used = {name for node in self._nodes for name in node.input}
        constants = {**grouping.constants, **self._initializers}
        graph.initializer.extend(init for name, init in constants.items() if name in used)
        shaped = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
        onnx.checker.check_model(shaped, full_check=True)
        return shaped

    def names(self) -> dict[str, str]:
        """Float value -> the value of the written graph that stands for it, for what is quantized."""
        return {value: read for value, read in self._read_as.items() if value not in self._grouping.constants}

    def _bring_in(self, name: str) -> None:
        kind = self._states.get(name, "int8")
        if kind == "float32":
            self._kind[name] = "float"
        else:
            self._quantize(name, name, self._unique(f"{name}/dq"), kind)

    def _write_node(self, node: NodeProto) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        quantized = self._grouping.quantized_operands(node)
        for position, name in enumerate(node.input):
            copy.input[position] = self._operand(node, name, position in quantized)
        floating = node.name in self._grouping.regions.floating
        if node.op_type in LINEAR and node.name in self._grouping.regions.wide:
            self._write_weights16(node, copy)
        elif node.op_type in LINEAR and not floating:
            self._write_weights(node, copy)
        self._nodes.append(copy)
        for position, name in enumerate(node.output):
            if name in self._grouping.root:  # else fused, absent or not float
                copy.output[position] = self._float_result(name) if floating else self._result(node, name)

    def _operand(self, node: NodeProto, name: str, quantized: bool) -> str:
        """Under which name a node reads an operand."""
        grouping = self._grouping
        if name in grouping.constants:
            if not quantized:
                return name
            self._constant(name)
        kind, read = self._kind.get(name), self._read_as.get(name, name)
        if kind is None or node.name in grouping.regions.floating:
            return read
        if node.op_type in LINEAR and node.name in grouping.regions.wide:
            return self._as_int16(name)
        wide = node.op_type in INHERITING or grouping.reads_wide(node)
        if quantized and wide and kind == "float" and node.name in grouping.regions.wide:
            return self._as_int16(name)
        return read if (wide and kind != "float") or not quantized else self._narrowed(name)

    def _result(self, node: NodeProto, name: str) -> str:
        """Under which name a node of integers writes a result; what is behind it is written too."""
        output, wide = name in self._grouping.outputs, node.name in self._grouping.regions.wide
        group = self._grouping.group(name)
        if node.op_type in INHERITING:
            made = self._kind[node.input[0]]
            made = "int8" if made == "float" else made  # read rounded
        elif self._grouping.touched(group):
            made = "int16" if wide else "int8"
        else:
            made = self._params[group.name].stored.dtype
        final = self._states.get(name, "int8" if wide else made)
        written = name
        if node.op_type in INHERITING:
            self._kind[name] = made
            if output:
                # The output ends in Q -> DQ (exact: same parameters); inner readers stay in the movement
                # chain.
                written = self._unique(f"{name}/moved")
                self._quantize(name, written, name, final)
                self._read_as[name], self._kind[name] = written, made
        elif not output:
            self._quantize(name, name, self._unique(f"{name}/dq"), made)
        else:
            written = self._unique(f"{name}/float")
            read = name if final == made else self._unique(f"{name}/dq")
            self._quantize(name, written, read, made)
            if final != made:
                self._quantize(name, read, name, final)
                self._read_as[name], self._kind[name] = read, made
        return written

    def _float_result(self, name: str) -> str:
        """Under which name a float node writes a result; a state that is kept as integers is quantized behind it."""
        final, written = self._states.get(name, "float32"), name
        if name in self._grouping.outputs and final != "float32":
            written = self._unique(f"{name}/float")
            self._quantize(name, written, name, final)
            self._kept[name] = final
        self._read_as[name], self._kind[name] = written, "float"
        return written

    def _quantize(self, value: str, written: str, read: str, kind: str) -> None:
        """Q and DQ behind `value`, which its producer writes as `written`; readers use `read`."""
        quantized = self._unique(f"{value}/q")
        scale, zero_point = self._param_initializers(self._grouping.group(value), kind)
        self._nodes.append(self._node("QuantizeLinear", [written, scale, zero_point], quantized, value))
        self._nodes.append(self._node("DequantizeLinear", [quantized, scale, zero_point], read, value))
        self._read_as[value], self._kind[value] = read, kind

    def _constant(self, name: str) -> str:
        if name not in self._read_as:
            group = self._grouping.group(name)
            array = numpy_helper.to_array(self._grouping.constants[name])
            params = self._params[group.name].stored
            quantized = self._store(f"{name}/q", quantize_array(array, params, symmetric=group.symmetric))
            read = self._unique(f"{name}/dq")
            names = self._param_initializers(group, params.dtype)
            self._nodes.append(self._node("DequantizeLinear", [quantized, *names], read, name))
            self._read_as[name], self._kind[name] = read, params.dtype
        return self._read_as[name]

    def _write_weights(self, node: NodeProto, copy: NodeProto) -> None:
        """Replace weight and bias of a layer by int8 and int32 initializers with their DequantizeLinear."""
        layer = layer_of(node, self._grouping.constants)
        bias_name = node.input[2] if len(node.input) > 2 and node.input[2] else f"{node.name}/bias"
        linear = quantized_layer(node, self._grouping, self._params, self._biases)
        scale = linear.weight_scale[: len(linear.weight_scale) // layer.tied]
        key = (node.input[1], scale.tobytes())
        if key not in self._weight_names:  # a tied weight is stored once
            self._weight_names[key] = (
                self._store(f"{node.input[1]}/q", layer.from_rows(linear.weight)),
                self._store(f"{node.input[1]}/scale", scale),
                self._store(f"{node.input[1]}/zero_point", np.zeros(len(scale), np.int8)),
            )
        bias_names = (
            self._store(f"{bias_name}/q", linear.bias),
            self._store(f"{bias_name}/scale", linear.bias_scale),
            self._store(f"{bias_name}/zero_point", np.zeros(len(linear.bias), np.int32)),
        )
        names = []
        for source, inputs, axis in (
            (node.input[1], self._weight_names[key], layer.axis),
            (bias_name, bias_names, 0),
        ):
            names.append(self._unique(f"{source}/dq"))
            self._nodes.append(self._node("DequantizeLinear", inputs, names[-1], source, axis=axis))
        del copy.input[1:]
        copy.input.extend(names)

    def _write_weights16(self, node: NodeProto, copy: NodeProto) -> None:
        """Weights of a layer of an int16 region, with their DequantizeLinear; no bias where there is none."""
        layer = layer_of(node, self._grouping.constants)
        bias = self._biases.get(node.name, layer.bias)
        linear = linear_params16(layer.rows, bias, self._scale16(node.input[0]), node.name)
        names = []
        for source, array, scale in (
            (node.input[1], layer.from_rows(linear.weight), linear.weight_scale),
            (node.input[2] if len(node.input) > 2 else "", linear.bias, linear.bias_scale),
        ):
            if array is linear.bias and not array.any():
                continue
            inputs = [self._store(f"{source}/q16", array), self._store(f"{source}/scale16", scale)]
            inputs.append(self._store(f"{source}/zero_point16", np.zeros(len(scale), array.dtype)))
            names.append(self._unique(f"{source}/dq16"))
            self._nodes.append(self._node("DequantizeLinear", inputs, names[-1], source, axis=0))
        del copy.input[1:]
        copy.input.extend(names)

    def _narrowed(self, value: str) -> str:
        """The name under which int8 readers see `value`: itself, or its int16 or float tensor rounded to int8."""
        if self._kind[value] == "int8":
            return self._read_as.get(value, value)
        if self._kept.get(value) == "int8":
            return value
        if value not in self._narrow:
            read = value if value in self._kept else self._read_as.get(value, value)
            names = self._param_initializers(self._grouping.group(value), "int8")
            quantized, self._narrow[value] = self._unique(f"{value}/q8"), self._unique(f"{value}/dq8")
            self._nodes.append(self._node("QuantizeLinear", [read, *names], quantized, value))
            self._nodes.append(self._node("DequantizeLinear", [quantized, *names], self._narrow[value], value))
        return self._narrow[value]

    def _as_int16(self, value: str) -> str:
        """The name under which int16 nodes see `value`: itself, its float rounded, its int8 in the same steps."""
        kind = self._kind[value]
        if kind == "int16":
            return self._read_as.get(value, value)
        if value not in self._widened:
            group = self._grouping.group(value)
            if kind == "float":
                read, names = self._read_as.get(value, value), list(self._param_initializers(group, "int16"))
            else:
                read, scale = self._narrowed(value), np.array(self._scale16(value), np.float32)
                names = [self._store(f"{group.name}/scale16", scale)]
                names.append(self._store(f"{group.name}/zero_point16", np.array(0, np.int16)))
            quantized, self._widened[value] = self._unique(f"{value}/q16"), self._unique(f"{value}/dq16")
            self._nodes.append(self._node("QuantizeLinear", [read, *names], quantized, value))
            self._nodes.append(self._node("DequantizeLinear", [quantized, *names], self._widened[value], value))
        return self._widened[value]

    def _scale16(self, value: str) -> float:
        """Scale of what `_as_int16` gives."""
        params = self._params[self._grouping.group(value).name]
        return params.narrow.scale if self._kind[value] == "int8" else params.stored.scale

    def _param_initializers(self, group: Group, kind: str) -> tuple[str, str]:
        key = (group.name, kind)
        if key not in self._param_names:
            both = self._params[group.name]
            params = both.narrow if kind == "int8" else both.stored
            suffix = "8" if kind == "int8" and both.wide is not None else ""
            self._param_names[key] = (
                self._store(f"{group.name}/scale{suffix}", np.array(params.scale, np.float32)),
                self._store(f"{group.name}/zero_point{suffix}", np.array(params.zero_point, params.dtype)),
            )
        return self._param_names[key]

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
