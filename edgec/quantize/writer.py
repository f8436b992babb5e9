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
from edgec.quantize.scheme import ActivationParams, LinearParams, linear_params, quantize_array
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
        self._read_as: dict[str, str] = {}  # value -> the name under which other nodes read it
        self._narrow: dict[str, str] = {}  # int16 value -> the name of its int8 rounding
        graph = model.proto.graph
        self._taken = set(grouping.constants) | {v.name for v in graph.input}
        self._taken |= {name for node in graph.node for name in (*node.input, *node.output, node.name)}
        self._param_names: dict[tuple[str, bool], tuple[str, str]] = {}
        self._weight_names: dict[tuple[str, bytes], tuple[str, str, str]] = {}

    def write(self) -> onnx.ModelProto:
        """The QDQ graph, checked; without metadata."""
        grouping, source = self._grouping, self._model.proto
        read = {name for node in grouping.nodes for name in node.input}
        for name in grouping.inputs:
            if name in read and name in grouping.root:
                self._quantize(name, name, self._unique(f"{name}/dq"))
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

    def _write_node(self, node: NodeProto) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        quantized = self._grouping.quantized_operands(node)
        for position, name in enumerate(node.input):
            narrow = node.op_type not in INHERITING and not self._grouping.reads_wide(node)
            if name in self._grouping.root and position in quantized and narrow:
                if name in self._grouping.constants:
                    self._constant(name)
                copy.input[position] = self._narrowed(name)
            elif name not in self._grouping.constants:
                copy.input[position] = self._read_as.get(name, name)
            elif position in quantized:  # the same constant may be a float operand of another node
                copy.input[position] = self._constant(name)
        if node.op_type in LINEAR:
            self._write_weights(node, copy)
        self._nodes.append(copy)
        for position, name in enumerate(node.output):
            if name not in self._grouping.root:  # fused, absent or not float
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
            params = self._params[group.name].stored
            quantized = self._store(f"{name}/q", quantize_array(array, params, symmetric=group.symmetric))
            read = self._unique(f"{name}/dq")
            self._nodes.append(
                self._node("DequantizeLinear", [quantized, *self._param_initializers(group)], read, name)
            )
            self._read_as[name] = read
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

    def _narrowed(self, value: str) -> str:
        """The name under which int8 readers see `value`: itself, or its int16 tensor rounded to int8."""
        read = self._read_as.get(value, value)
        params = self._params[self._grouping.group(value).name]
        if params.wide is None:
            return read
        if value not in self._narrow:
            names = self._param_initializers(self._grouping.group(value), narrow=True)
            quantized, self._narrow[value] = self._unique(f"{value}/q8"), self._unique(f"{value}/dq8")
            self._nodes.append(self._node("QuantizeLinear", [read, *names], quantized, value))
            self._nodes.append(self._node("DequantizeLinear", [quantized, *names], self._narrow[value], value))
        return self._narrow[value]

    def _param_initializers(self, group: Group, narrow: bool = False) -> tuple[str, str]:
        key = (group.name, narrow)
        if key not in self._param_names:
            params = self._params[group.name].narrow if narrow else self._params[group.name].stored
            suffix = "8" if narrow else ""
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
