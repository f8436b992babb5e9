# SPDX-License-Identifier: Apache-2.0
"""What is known of a model on a target before any work: operators, products, and lower bounds of RAM and flash.

The bounds hold for every order of the steps, every tiling and every placement:

- RAM: inputs lie in the arena when a run begins (but for one that is fed by rows), outputs when it ends; state lies
  beside them all the time. In between a product's operands and result exist together: whole in float32; in int8, where
  steps may run row by row, for the smallest row, beside one whole matrix of what is not constant on its right. Data
  movement and elementwise steps may be fused away or work in place, so that a value counts with its smallest form
  along such a chain.
- Flash: weights as they are stored; in int8 an output channel also has a bias (4 B) and a multiplier (4 B), and so has
  one of a sum of layers, which may be computed as one layer. Shifts, code and tables come on top.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import onnx

from edgec.errors import UsageError
from edgec.model import Model, value_shapes
from edgec.passes.canonicalize import canonicalize
from edgec.passes.product_sum_form import find_product_sums
from edgec.passes.support import Facts, Unsupported, unsupported_nodes
from edgec.quantize.quantize import is_quantized
from edgec.schedule.memories import CODE_RESERVE, STATIC_RESERVE
from edgec.target import Target

Verdict = Literal["fits", "may fit", "cannot fit"]

INPUTS = "the inputs"
"""Where the bound of RAM is reached when it is the inputs', all of them whole."""
_PRODUCTS = frozenset(("Gemm", "MatMul", "Conv", "ConvTranspose"))
_WEIGHTED = {"Gemm": 0, "Conv": 0, "ConvTranspose": 1}
"""Layers with a weight constant, and the axis of it that counts output channels."""
_THROUGH = frozenset(
    """Reshape Transpose Squeeze Unsqueeze Flatten Slice Gather Split Expand Pad Identity Cast Relu Clip Sigmoid Tanh
    Gelu Erf Exp Sqrt Neg Abs Elu HardSigmoid HardSwish LeakyRelu Softplus Mul Div QuantizeLinear
    DequantizeLinear""".split()
)
_SCRATCH_SHARE = 4
"""Room for scratch in the upper bound: a quarter of all tensors together."""


@dataclass(frozen=True)
class Check:
    """The answer of `check_model`; bytes.

    Attributes:
        model, target, precision: what was asked.
        operators: how many nodes of each operator the canonical graph has.
        macs: multiply-accumulates of one run.
        weight_bytes: weights alone.
        requantization_bytes: biases and multipliers of int8 layers (biases of float32 ones).
        ram_bound, ram_bound_at: the lower bound with the state, and the node or port where it is reached.
        state_bytes: the part of it that is state, in int8 with that precision: some states may need more.
        ram_everything: all activations at once and the state: more than any plan needs, scratch aside.
        ram_have, flash_have: what the target has; 0 for a target without memories.
        ram_span: the largest RAM without a gap.
        unsupported: nodes that this precision does not take.
        notes: what was decided on the way.
    """

    model: str
    target: str
    precision: str
    operators: Mapping[str, int]
    macs: int
    weight_bytes: int
    requantization_bytes: int
    ram_bound: int
    ram_bound_at: str
    state_bytes: int
    ram_everything: int
    ram_have: int
    ram_span: int
    flash_have: int
    unsupported: tuple[Unsupported, ...]
    notes: tuple[str, ...]

    @property
    def flash_bound(self) -> int:
        """Bytes of flash that the constants take at least."""
        return self.weight_bytes + self.requantization_bytes

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the lower bounds rule the target out, or an upper bound rules it in."""
        if not self.ram_have:
            return "fits"
        if self.ram_over > 0 or self.flash_over > 0:
            return "cannot fit"
        generous = self.ram_everything + self.ram_everything // _SCRATCH_SHARE + STATIC_RESERVE
        flash = 2 * self.flash_bound + CODE_RESERVE
        return "fits" if generous <= self.ram_span and flash <= self.flash_have else "may fit"

    @property
    def ram_over(self) -> int:
        """Bytes by which the lower bound, with what is kept for stack and static data, exceeds the RAM."""
        return max(0, self.ram_bound + STATIC_RESERVE - self.ram_have) if self.ram_have else 0

    @property
    def flash_over(self) -> int:
        """Bytes by which the lower bound, with what is kept for code, exceeds the flash."""
        return max(0, self.flash_bound + CODE_RESERVE - self.flash_have) if self.flash_have else 0


def check_model(model: Model, target: Target, precision: str = "int8") -> Check:
    """Look at `model` for `target` without compiling it.

    Args:
        model: float, or quantized in QDQ form.
        target: decides what fits.
        precision: "int8" or "float32".

    Raises:
        UsageError: a quantized model in float32.
        UnsupportedError: the graph cannot be brought into canonical form at all.
    """
    quantized = is_quantized(model)
    if quantized and precision != "int8":
        raise UsageError(f"{model.name} is quantized already", hint="check it with --precision int8")
    graph = model if quantized else canonicalize(model)
    graph = dataclasses.replace(graph, proto=onnx.shape_inference.infer_shapes(graph.proto))
    ledger = _Ledger(graph, 1 if precision == "int8" else 4)
    bound, where = ledger.ram_bound()
    weights, requantization = ledger.constants(quantized or precision == "int8")
    return Check(
        model.name,
        target.name,
        precision,
        graph.histogram(),
        graph.macs(),
        weights,
        requantization,
        bound,
        where,
        ledger.state_bytes,
        ledger.everything(),
        sum(s.size for s in target.ram_spans()),
        max((s.size for s in target.ram_spans()), default=0),
        sum(r.size for r in target.flash_regions()),
        tuple(unsupported_nodes(graph)) if precision == "int8" else (),
        tuple(model.notes),
    )


class _Ledger:
    """Bytes of the values of a graph; activations have `width` bytes an element where they are float."""

    def __init__(self, model: Model, width: int) -> None:
        self.model, self.width = model, width
        self.facts = Facts(model.proto)
        self.shapes = value_shapes(model.proto)
        self.nodes = list(model.proto.graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.state_inputs = {s.input for s in model.states}
        self.successors = {s.output for s in model.states}

    @property
    def state_bytes(self) -> int:
        return sum(self.bytes(s.input) for s in self.model.states)

    def bytes(self, name: str) -> int:
        kind = self.facts.types.get(name, onnx.TensorProto.FLOAT)
        wide = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize if self.width > 1 else 1
        return int(np.prod(self.shapes.get(name, (0,)), dtype=np.int64)) * wide

    def everything(self) -> int:
        names = {v.name for v in self.model.proto.graph.input}
        names |= {name for node in self.nodes if node.op_type != "DequantizeLinear" for name in node.output}
        return sum(self.bytes(n) for n in names if n not in self.facts.constants)

    def ram_bound(self) -> tuple[int, str]:
        """The largest sum of bytes that certainly exist together, state included, and where."""
        ports = [
            (INPUTS, sum(self.bytes(i.name) for i in self.model.inputs)),
            ("the outputs", sum(self._least(o.name)[1] for o in self.model.outputs)),
        ]
        steps = [(node.name or node.output[0], self._step(node)) for node in self.nodes if node.op_type in _PRODUCTS]
        where, most = max([*ports, *steps], key=lambda entry: entry[1])
        return most + self.state_bytes, where

    def _step(self, node: onnx.NodeProto) -> int:
        """Bytes of operands and result that certainly exist together, state left out."""
        variables = [name for name in node.input if name and name not in self.facts.constants]
        read = {root: size for root, size in map(self._least, variables) if root not in self.state_inputs}
        result = self._result(node)
        written = 0 if result is None else self.bytes(result)
        if self.width > 1:
            return sum(read.values()) + written
        if len(variables) > 1:  # the result's row may take the place of the left operand's
            (row, matrix), ((a, left), (b, right)) = self._matrices(node), map(self._least, variables[:2])
            operands = {a: min(row, left), b: min(matrix, right)}
            return sum(size for root, size in operands.items() if root not in self.state_inputs)
        row, made = self._rows(node)
        return min(row, sum(read.values())) + min(made, written)

    def _matrices(self, node: onnx.NodeProto) -> tuple[int, int]:
        """Elements of one row of the left and of one matrix of the right operand of a MatMul."""
        left, right = (self.shapes[name] for name in node.input)
        return left[-1], int(np.prod(right[-2:]))

    def _rows(self, node: onnx.NodeProto) -> tuple[int, int]:
        """Elements that a layer reads and writes at one place."""
        constant = 0 if self.facts.given(node, 0) else 1
        weights, made = self.facts.array(node, constant).shape, self.shapes[node.output[0]]
        if node.op_type == "Conv":
            return int(np.prod(weights[1:])), made[1]
        if node.op_type == "ConvTranspose":
            return weights[0], made[1]
        if len(weights) == 1:
            return weights[0], 1
        if node.op_type == "MatMul":
            return (weights[-1], made[-2]) if constant == 0 and len(made) > 1 else (weights[-2], made[-1])
        return int(np.prod(weights)) // made[-1], made[-1]

    def _result(self, node: onnx.NodeProto) -> str | None:
        """What the step writes, unless that may be the state's own bytes."""
        seen, name = {node.output[0]}, node.output[0]
        while True:
            if name in self.successors:
                return None
            readers = [n for n in self.nodes if name in n.input]
            if len(readers) != 1 or readers[0].op_type not in _THROUGH or readers[0].output[0] in seen:
                return str(node.output[0])
            name = str(readers[0].output[0])
            seen.add(name)

    def _least(self, name: str) -> tuple[str, int]:
        """(root, bytes): the smallest form of a value along the movement and elementwise steps that lead to it."""
        size, seen = self.bytes(name), {name}
        while (node := self.producer.get(name)) is not None and node.op_type in _THROUGH:
            variables = [n for n in node.input if n and n not in self.facts.constants]
            if len(variables) != 1 or variables[0] in seen:
                break
            name = variables[0]
            seen.add(name)
            size = min(size, self.bytes(name))
        return name, size

    def constants(self, integer: bool) -> tuple[int, int]:
        """(weight bytes, bytes of biases and requantization); equal weights count once."""
        weights: dict[Any, int] = {}
        channels: dict[str, int] = {}
        for node, index in self._weight_operands():
            array = self.facts.array(node, index)
            key = hashlib.sha256(array.tobytes()).digest(), array.shape
            weights[key] = array.size * (1 if integer else 4)
            axis = _WEIGHTED.get(node.op_type)
            if axis is not None:
                columns = node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute)
                channels[node.output[0]] = int(array.shape[1 if columns else axis])
        for together in find_product_sums(
            self.nodes,
            self.shapes,
            lambda name: [n for n in self.nodes if name in n.input],
            [o.name for o in self.model.outputs],
            lambda node: integer and node.op_type == "Gemm" and self.facts.given(node, 1),
        ):
            for node in together.products[1:]:
                del channels[node.output[0]]
        each = 8 if integer else 0
        return sum(weights.values()), sum(channels.values()) * each

    def _weight_operands(self) -> Iterator[tuple[onnx.NodeProto, int]]:
        for node in self.nodes:
            if node.op_type in _WEIGHTED and self.facts.given(node, 1):
                yield node, 1
            elif node.op_type == "MatMul":
                yield from ((node, i) for i in (0, 1) if self.facts.given(node, i))
