# SPDX-License-Identifier: Apache-2.0
"""QDQ ONNX -> integer operators, in one forward pass in which DequantizeLinear is lazy.

A dequantized value is only remembered as the int8 tensor it came from (`Value`). An operator whose inputs are
such values and whose result is quantized becomes an integer operator; elementwise functions of one tensor are
collected as 256 float64 numbers until they are quantized, and then are one table; data movement moves int8.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edgec.lower import rules_conv, rules_resize  # noqa: F401 (they register their rules)
from edgec.lower.graph import Array, IntegerGraph, NotIntegerError, Quant, Source, Value, unsupported
from edgec.lower.indices import INTEGER_TYPES, lower_indices
from edgec.lower.integer_proto import integer_proto
from edgec.lower.islands import Islands, name_of
from edgec.lower.movement import MOVEMENT, move
from edgec.lower.product_sums import product_sum, sums_of
from edgec.lower.rules import Rule, Site, masked_softmax, requantized, table
from edgec.lower.rules_int16 import rule_of
from edgec.lower.rules_more import rms_norm
from edgec.lower.storage import in_storage_order
from edgec.lower.tables import ELEMENTWISE, LOGICAL, evaluate
from edgec.model import Model, float_node_names, with_float_nodes
from edgec.operators import TensorType
from edgec.operators.integer import quantize_real, real_values
from edgec.passes.product_sum_form import ProductSum
from edgec.passes.rms_norm_form import RmsNormForm, find_rms_norms
from edgec.passes.softmax_mask import masked_scores

INTERFACE_KEY = "edgec.interface"
"""metadata_props key of the program's border: JSON of inputs, outputs and states with their quantization."""


TRUTH = Quant(np.array(1.0), 0)
"""Quantization of true and false."""


def lower_to_integers(model: Model, *, allow_float: bool = False) -> Model:
    """The quantized model with every node an integer operator of the domain `edgec`, a Reshape or a float node.

    Inputs and outputs become int8 or int16 tensors; scale, zero point, ONNX shape and layout of each are in the
    metadata `edgec.interface`. Float nodes are those that the metadata `edgec.float` names, and with `allow_float` all
    that have no integer form (`edgec/lower/islands.py`); what they read of the inputs, and outputs that they make, may
    be float32.

    Raises:
        UnsupportedError: nodes without an integer form, all of them, each with the reason.
    """
    if allow_float:
        found = _Lowering(model, allow_float=True)
        found.run()
        # Again with these and no others: what the file then says gives the same program.
        model = with_float_nodes(model, found.islands.written())
    return _Lowering(model, allow_float=False).run()


class _Lowering:
    def __init__(self, model: Model, allow_float: bool) -> None:
        self.model = model
        self.source = Source(model.proto)
        self.graph = IntegerGraph()
        self.values: dict[str, Value] = {}  # float value -> the int8 value that dequantizes to it
        self.integers: dict[str, Value] = {}  # int8 value of the QDQ graph -> the same in the integer graph
        self.functions: dict[str, tuple[Value, npt.NDArray[np.float64]]] = {}
        self.inputs: dict[str, Quant] = {}
        self.indices: dict[str, str] = {}  # integers that mean themselves -> the int32 tensor
        self.masks: dict[str, tuple[str, Array]] = {}  # scores of which some are hidden -> (scores, which count)
        self.forms = {o: f for f in find_rms_norms(self.source.graph, self.source.shapes) for o in f.nodes[0].output}
        self.sums = {s.root.output[0]: s for s in sums_of(self.source)}
        self.done: set[str] = set()  # results of nodes that an earlier rule has taken along, or that a later one will
        self.done.update(name for s in self.sums.values() for name in s.inner)
        self.refused: list[tuple[str, str, str]] = []
        listed = frozenset(float_node_names(model.proto))
        self.islands = Islands(self.source, self.graph, self.values, self.indices, self.functions, listed, allow_float)

    def run(self) -> Model:
        for info in self.model.proto.graph.input:
            integer = np.dtype(self.source.dtypes[info.name]) in INTEGER_TYPES
            self.graph.types[info.name] = TensorType(self.source.shapes[info.name], "int32" if integer else "int8")
            if integer:
                self.indices[info.name] = info.name
        self.islands.bind_inputs([info.name for info in self.model.proto.graph.input])
        for node in self.source.graph.node:
            if node.output[0] in self.done:
                continue
            try:
                self._node(node)
            except (NotIntegerError, ValueError) as error:
                if self.islands.takes(node):
                    continue
                self.refused.append((node.name, node.op_type, str(error)))
                # Its result counts as known below, so that the list holds causes and not their consequences.
                for output in node.output:
                    self._pretend(output)
        if self.refused:
            raise unsupported(self.refused)
        return self._finish()

    def _pretend(self, output: str) -> None:
        shape = self.source.shapes.get(output, ())
        self.values[output] = Value(
            self.graph.constant(output, np.zeros(shape, np.int8)), shape, Quant(np.array(1.0), 0)
        )

    # ---- nodes ----------------------------------------------------------------------------------------------

    def _node(self, node: onnx.NodeProto) -> None:
        if node.op_type == "DequantizeLinear":
            self._dequantize(node)
        elif node.op_type == "QuantizeLinear":
            self._quantize(node)
        elif name_of(node) in self.islands.listed:
            self.islands.write(node)
        elif node.output[0] in self.forms:
            self._rms_norm(self.forms[node.output[0]])
        elif node.output[0] in self.sums:
            self._product_sum(self.sums[node.output[0]])
        elif (scores := self._masked(node)) is not None:
            self.masks[node.output[0]] = scores
        elif lower_indices(node, self.source, self.values, self.indices, self.graph):
            pass
        elif node.op_type in MOVEMENT and node.input[0] in self.values:
            moved = move(node, self.source, self.values[node.input[0]], self.graph)
            self.values.update(zip(node.output, moved, strict=True))
        elif not (node.op_type in ELEMENTWISE and self._elementwise(node)):
            self._operator(node)

    def _dequantize(self, node: onnx.NodeProto) -> None:
        name, quant = node.input[0], self.source.quant(node)
        if name in self.source.arrays:
            data = self.source.arrays[name]
            if data.dtype == np.uint8:
                data = (data.astype(np.int16) - 128).astype(np.int8)
            if data.dtype not in (np.int8, np.int16, np.int32):
                raise NotIntegerError(f"constant {name} is {data.dtype}; int8, uint8 and int16 are supported")
            self.values[node.output[0]] = Value(None, tuple(data.shape), quant, data)
        elif name in self.integers:
            inner = self.integers[name]
            self.values[node.output[0]] = replace(inner, quant=quant)
        elif name in self.graph.types:  # a model input that is quantized already
            self._bind_input(name, quant)
            self.values[node.output[0]] = Value(name, self.source.shapes[name], quant)
        else:
            raise NotIntegerError(f"{name} is no quantized value")

    def _quantize(self, node: onnx.NodeProto) -> None:
        name, quant = node.input[0], self.source.quant(node)
        try:
            result = self._quantized(node, name, quant)
        except NotIntegerError:
            if not self.islands.allowed:
                raise
            result = self.islands.quantize(name, quant, node.name)
        self.integers[node.output[0]] = result

    def _quantized(self, node: onnx.NodeProto, name: str, quant: Quant) -> Value:
        if name in self.islands.tensors and name not in self.values and name not in self.source.arrays:
            return self.islands.quantize(name, quant, node.name)
        if name in self.functions and not (name in self.values and self.values[name].quant.same(quant)):
            result = self._tabulate(name, self._producer(name), quant)
        elif name in self.values:
            value = self.values[name]
            if value.data is not None:
                result = Value(None, value.shape, quant, quant.integers(value.real()))
            else:
                assert value.tensor is not None
                tensor = requantized(self.graph, node, value.tensor, value.quant, quant)
                result = replace(value, tensor=tensor, quant=quant)
        elif name in self.source.arrays:
            data = self.source.arrays[name]
            result = Value(None, tuple(data.shape), quant, quant.integers(data))
        elif name in self.graph.types:
            self._bind_input(name, quant)
            result = Value(name, self.source.shapes[name], quant)
        else:
            raise NotIntegerError(f"{name} is computed in float")
        return result

    def _bind_input(self, name: str, quant: Quant) -> None:
        if name not in self.inputs:  # nobody has seen it before
            self.graph.types[name] = TensorType(self.source.shapes[name], quant.dtype)
        if not self.inputs.setdefault(name, quant).same(quant):
            raise NotIntegerError(f"input {name} is quantized in two ways")

    def _elementwise(self, node: onnx.NodeProto) -> bool:
        """Take the node as a function of one int8 tensor; False when it is none."""
        variables, scalars = {}, {}
        source: Value | None = None
        for name in dict.fromkeys(n for n in node.input if n):
            constant = self._constant(name)
            if constant is not None:
                if constant.size != 1:
                    return False
                scalars[name] = float(constant.reshape(()))
                continue
            function = self._function(name)
            if function is None or (source is not None and not _same_elements(function[0], source)):
                return False
            source, variables[name] = function[0], function[1]
        if source is None:
            return False
        name = node.output[0]
        self.functions[name] = (source, evaluate(node, variables, scalars, self.source.opset))
        if node.op_type in LOGICAL:
            self._tabulate(name, node.name, TRUTH)
        elif any(c.op_type in MOVEMENT for c in self.source.consumers.get(name, [])):
            self._tabulate(name, node.name, self._consumers_quant(name))  # movement moves int8, not functions
        return True

    def _tabulate(self, name: str, node: str, quant: Quant) -> Value:
        """Write the collected function `name` as a table with results in `quant`."""
        if quant.dtype != "int8":
            raise NotIntegerError("a function with an int16 result; tables have int8 results")
        source, results = self.functions[name]
        shape = self.source.shapes[name]
        if shape != source.shape:  # a constant of more axes has added some
            source = self.graph.in_order(source, (), node)
            source = Value(source.tensor, shape, source.quant)
        assert source.tensor is not None
        entries = quantize_real(results, *quant.pair)
        computed = self.graph.bases.get(source.tensor, source.tensor) not in self.inputs
        if computed and np.array_equal(entries, np.arange(-128, 128)):  # a Relu that saturation has done already
            tensor = source.tensor
        else:
            tensor = table(self.graph, node, source.tensor, entries, name)
        result = replace(source, tensor=self.graph.view(tensor, source.stored_shape), quant=quant)
        self.values.setdefault(name, result)
        return result

    def _function(self, name: str) -> tuple[Value, npt.NDArray[np.float64]] | None:
        if name in self.functions:
            return self.functions[name]
        value = self.values.get(name)
        if value is None or value.tensor is None or value.quant.dtype != "int8":
            return None
        return value, real_values(*value.quant.pair)

    def _constant(self, name: str) -> Array | None:
        if name in self.source.arrays:
            return np.asarray(self.source.arrays[name], np.float64)
        value = self.values.get(name)
        return value.real() if value is not None and value.data is not None else None

    def _operator(self, node: onnx.NodeProto) -> None:
        rule = rule_of(node.op_type)
        if rule is None:
            wide = any(n in self.values and self.values[n].quant.dtype == "int16" for n in node.input)
            raise NotIntegerError("no integer operator" + (" with an int16 operand" if wide else ""))
        if node.op_type == "Softmax" and node.input[0] in self.masks:
            scores, mask = self.masks[node.input[0]]
            self._write(node, [self.values[scores]], lambda site: masked_softmax(site, mask))
            return
        operands = self._operands(node)
        if all(o is None or not isinstance(o, Value) or o.data is not None for o in operands):
            raise NotIntegerError("it is computed from constants alone; fold them")
        self._write(node, operands, rule)

    def _operands(self, node: onnx.NodeProto) -> list[Value | Array | None]:
        operands: list[Value | Array | None] = [
            self.values[n] if n in self.values else self._constant(n) if n else None for n in node.input
        ]
        unknown = [n for n, o in zip(node.input, operands, strict=True) if n and o is None]
        if unknown:
            raise NotIntegerError(f"input {unknown[0]} is computed and not quantized")
        return operands

    def _product_sum(self, form: ProductSum) -> None:
        layers = [(node, self._operands(node), self.source.shapes[node.output[0]]) for node in form.products]
        self._write(
            form.root,
            [],
            lambda site: product_sum(site, [replace(site, node=n, operands=o, shape=s) for n, o, s in layers]),
        )

    def _write(self, node: onnx.NodeProto, operands: list[Value | Array | None], rule: Rule) -> None:
        """Write the operator of `node` by `rule`, with what is fused behind it."""
        quant, factor, followers = self._wanted(node)
        shape = self.source.shapes[node.output[0]]
        # factor * y in steps of s is y in steps of s / factor.
        scaled = replace(quant, scale=quant.scale / factor)
        written = in_storage_order(rule, Site(node, operands, shape, scaled, self.graph))
        if self.graph.types[written.tensor].dtype != quant.dtype:
            raise NotIntegerError("an int16 result, which sums, Mul and layers of constant weights alone have")
        result = Value(written.tensor, shape, quant, order=written.order)
        for clamp in followers:
            if clamp.op_type in ("Relu", "Clip"):
                result = self._clamped(clamp, result)
        # A fused follower's result is this node's: between them nothing else reads.
        self.values[(followers[-1] if followers else node).output[0]] = result
        self.done.update(f.output[0] for f in followers)

    def _rms_norm(self, form: RmsNormForm) -> None:
        if form.x not in self.values:
            raise NotIntegerError(f"input {form.x} is computed and not quantized")
        gain = np.ones(1) if form.gain is None else self._constant(form.gain)
        assert gain is not None
        self.done.update(o for n in form.nodes for o in n.output)
        self._write(
            form.nodes[-1], [self.values[form.x]], lambda site: rms_norm(site, site.value(0), gain, form.epsilon)
        )

    def _masked(self, node: onnx.NodeProto) -> tuple[str, Array] | None:
        """(scores, which of them count) when `node` hides some from the Softmax that alone reads it."""
        users = self.source.consumers.get(node.output[0], [])
        if len(users) != 1 or users[0].op_type != "Softmax" or node.output[0] in self.source.outputs:
            return None
        found = masked_scores(node, self._constant)
        name = None if found is None else node.input[found[0]]
        return None if found is None or name not in self.values else (str(name), found[1])

    def _wanted(self, node: onnx.NodeProto) -> tuple[Quant, float, list[onnx.NodeProto]]:
        """Quantization that the node's consumers ask for, through a scalar Mul and a Relu or Clip that follow it."""
        factor, name = 1.0, node.output[0]
        followers: list[onnx.NodeProto] = []
        while True:
            consumers = self.source.consumers.get(name, [])
            if name in self.source.outputs:
                raise NotIntegerError("its result is a model output and not quantized")
            if len(consumers) == 1 and (scale := self._scale(consumers[0], name)) is not None and not followers:
                factor *= scale
            elif len(consumers) == 1 and self._clamps(consumers[0]):
                pass
            else:
                return self._consumers_quant(name), factor, followers
            followers.append(consumers[0])
            name = consumers[0].output[0]

    def _clamps(self, node: onnx.NodeProto) -> bool:
        """Whether `node` is a Relu or a Clip between constants."""
        bounds = [n for n in node.input[1:] if n]
        return node.op_type in ("Relu", "Clip") and all(self._constant(n) is not None for n in bounds)

    def _scale(self, node: onnx.NodeProto, name: str) -> float | None:
        """The positive constant by which `node` multiplies `name`, or None."""
        if node.op_type not in ("Mul", "Div") or (node.op_type == "Div" and node.input[0] != name):
            return None
        constant = self._constant(next((n for n in node.input if n != name), name))
        if constant is None or constant.size != 1 or float(constant.reshape(())) <= 0:
            return None
        scalar = float(constant.reshape(()))
        return 1 / scalar if node.op_type == "Div" else scalar

    def _consumers_quant(self, name: str) -> Quant:
        wanted: list[Quant] = []
        for consumer in self.source.consumers.get(name, []):
            if consumer.op_type == "QuantizeLinear":
                wanted.append(self.source.quant(consumer))
            elif (
                consumer.op_type in MOVEMENT
                and consumer.input[0] == name
                and consumer.output[0] not in self.source.outputs
            ):
                wanted.append(self._consumers_quant(consumer.output[0]))
            else:
                raise NotIntegerError(f"{consumer.op_type} {consumer.name} reads its result unquantized")
        if not wanted or not all(q.same(wanted[0]) for q in wanted):
            raise NotIntegerError("its result is not quantized in one way")
        return wanted[0]

    def _clamped(self, node: onnx.NodeProto, value: Value) -> Value:
        """Relu or Clip after an operator: nothing when saturation does it, else a table."""
        assert value.tensor is not None
        scalars = {n: c for n in node.input[1:] if n and (c := self._constant(n)) is not None}
        if value.quant.dtype == "int16":
            bounds = [float(scalars[n].reshape(())) if n else None for n in (*node.input[1:], "", "")[:2]]
            low = 0.0 if node.op_type == "Relu" else bounds[0]
            limits = tuple(
                default if b is None else int(value.quant.integers(np.array(b)))
                for b, default in ((low, -(2**15)), (bounds[1], 2**15 - 1))
            )
            clamped = requantized(self.graph, node, value.tensor, value.quant, value.quant, (limits[0], limits[1]))
            return replace(value, tensor=clamped)
        entries = quantize_real(
            evaluate(
                node,
                {node.input[0]: real_values(*value.quant.pair)},
                {n: float(c.reshape(())) for n, c in scalars.items()},
                self.source.opset,
            ),
            *value.quant.pair,
        )
        if np.array_equal(entries, np.arange(-128, 128)):
            return value
        return replace(value, tensor=table(self.graph, node.name, value.tensor, entries, node.output[0]))

    def _producer(self, name: str) -> str:
        return next((n.name for n in self.source.graph.node if name in n.output), name)

    # ---- the border -----------------------------------------------------------------------------------------

    def _finish(self) -> Model:
        states = {s.input: s.output for s in self.model.states}
        names, outputs = [], []
        for info in self.model.proto.graph.output:
            if info.name in self.indices:
                names.append(self.indices[info.name])
                outputs.append({"name": info.name, "tensor": self.indices[info.name]})
                continue
            value = self.values.get(info.name) or self.integers.get(info.name)
            source = next((i for i, o in states.items() if o == info.name), None)
            if value is None and source in self.inputs and self.islands.knows(info.name):
                value = self.islands.quantize(info.name, self.inputs[source], info.name)
            if source in self.islands.tensors or (value is None and self.islands.knows(info.name)):
                tensor = self._float_output(info.name)
                names.append(tensor)
                outputs.append({"name": info.name, "tensor": tensor})
                continue
            if value is None or value.tensor is None:
                raise unsupported([(info.name, "output", "it is not a quantized tensor")])
            value = self.graph.in_order(value, (), info.name)
            assert value.tensor is not None
            tensor = value.tensor
            if source is not None and source in self.inputs:
                tensor = requantized(
                    self.graph, onnx.NodeProto(name=info.name), tensor, value.quant, self.inputs[source]
                )
                value = Value(tensor, value.shape, self.inputs[source])
            names.append(tensor)
            outputs.append(self._border(info.name, tensor, value.quant))
        given = [i.name for i in self.model.proto.graph.input]
        absent = [n for n in given if n not in self.inputs | self.indices | self.islands.tensors]
        if absent:
            raise unsupported([(n, "input", "it is not quantized") for n in absent])
        inputs = [self._border(n, n, self.inputs[n]) for n in given if n in self.inputs]
        name = self.model.proto.graph.name
        proto = integer_proto(self.graph, name, self.source.opset, given, names)
        helper.set_model_props(
            proto,
            {
                **{p.key: p.value for p in self.model.proto.metadata_props},
                INTERFACE_KEY: json.dumps({"inputs": inputs, "outputs": outputs}),
            },
        )
        lowered = Model(proto, self.model.name, self.model.sha256, self.model.states, list(self.model.notes))
        return with_float_nodes(lowered, self.islands.written())

    def _float_output(self, name: str) -> str:
        """The float tensor of an output: of a state that is float, or what a float node makes."""
        try:
            return self.islands.operand(name, name)
        except (NotIntegerError, ValueError) as error:
            raise unsupported([(name, "output", str(error))]) from error

    def _border(self, name: str, tensor: str, quant: Quant) -> dict[str, object]:
        scale, zero_point = quant.pair
        return {"name": name, "tensor": tensor, "scale": scale, "zero_point": zero_point}


def _same_elements(a: Value, b: Value) -> bool:
    return a.tensor == b.tensor and a.shape == b.shape and a.lies_in(b.order)
