# SPDX-License-Identifier: Apache-2.0
"""Writes QDQ models an operator at a time with random scales and zero points; compares ONNX Runtime and the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgec.assemble import assemble
from edgec.lower import lower_to_integers
from edgec.model import Model
from edgec.operators import operators
from edgec.operators.integer import quantize_real
from edgec.program import Program, evaluate
from edgec.tvm_bridge.pipeline import through_tvm

OPERATORS = frozenset(operators())
ELEMENT = {
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.int64): TensorProto.INT64,
}


def ort_run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ONNX Runtime as the model stands: nothing fused, nothing replaced."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


class Graph:
    """A model under construction; every value is also known in numbers, from which quantizations are chosen.

    Args:
        seed: of scales, zero points and values.

    Attributes:
        dtype: int8 or uint8, of the activations that are quantized from here on.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = np.dtype(np.int8)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, tuple[int, ...]] = {}
        self._count = 0

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def constant(self, array: np.ndarray, stem: str = "c") -> str:
        """A plain initializer."""
        name = self._name(stem)
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], outputs: int | None = None, **attrs: object) -> str | list[str]:
        """Append a node; its result, or its results when `outputs` says how many."""
        name = self._name(op)
        results = [f"{name}.{i}" for i in range(outputs or 1)]
        self.nodes.append(helper.make_node(op, list(inputs), results, name=name, **attrs))
        return results[0] if outputs is None else results

    def op(self, op: str, *inputs: str, **attrs: object) -> str:
        """Append a node with one result."""
        result = self.node(op, inputs, **attrs)
        assert isinstance(result, str)
        return result

    def input(self, *shape: int, low: float = -2.0, high: float = 2.0, quantized: bool = False) -> str:
        """A graph input with values over [low, high], dequantized; int8 (or uint8) already with `quantized`."""
        name = self._name("x")
        values = self.rng.uniform(low, high, shape).astype(np.float32)
        scale, zero = self.draw(values)
        if not quantized:
            self.inputs[name] = values
            return self.dequantize(self.op("QuantizeLinear", name, scale, zero), scale, zero)
        info = np.iinfo(self.dtype)
        self.inputs[name] = self.rng.integers(info.min, info.max + 1, shape).astype(self.dtype)
        return self.dequantize(name, scale, zero)

    def draw(self, values: np.ndarray) -> tuple[str, str]:
        """A random (scale, zero_point) under which most of `values` stay inside the range."""
        low, high = min(0.0, float(values.min())), max(1e-6, float(values.max()))
        scale = (high - low) / 255 * self.rng.uniform(0.9, 1.3)
        info = np.iinfo(self.dtype)
        zero = np.clip(np.rint(info.min - low / scale + self.rng.uniform(-8, 8)), info.min, info.max)
        return self.constant(np.float32(scale), "scale"), self.constant(self.dtype.type(zero), "zero")

    def dequantize(self, name: str, *quantization: str, **attrs: object) -> str:
        return self.op("DequantizeLinear", name, *quantization, **attrs)

    def weight(self, *shape: int, axis: int | None = None, spread: float = 0.5) -> str:
        """A dequantized symmetric int8 constant; one scale for each entry of `axis`."""
        count = 1 if axis is None else shape[axis]
        scales = (spread / 127 * self.rng.uniform(0.2, 2.0, count)).astype(np.float32)
        q = self.constant(self.rng.integers(-127, 128, shape).astype(np.int8), "w")
        if axis is None:
            return self.dequantize(q, self.constant(scales[0], "scale"), self.constant(np.int8(0), "zero"))
        zeros = self.constant(np.zeros(count, np.int8), "zero")
        return self.dequantize(q, self.constant(scales, "scale"), zeros, axis=axis)

    def quantized_constant(self, *shape: int) -> str:
        """A dequantized constant with a zero point of its own."""
        scale, zero = self.draw(np.array([-1.0, 1.0]))
        info = np.iinfo(self.dtype)
        q = self.rng.integers(info.min, info.max + 1, shape).astype(self.dtype)
        return self.dequantize(self.constant(q, "k"), scale, zero)

    def values(self, name: str) -> np.ndarray:
        """What ONNX Runtime computes for a value of the graph so far."""
        return ort_run(self.proto({name: None}), self.inputs)[name]

    def quantize(self, name: str) -> str:
        """Q and DQ with a random quantization that suits the values."""
        scale, zero = self.draw(self.values(name))
        return self.dequantize(self.op("QuantizeLinear", name, scale, zero), scale, zero)

    def output(self, name: str) -> None:
        """Quantize `name` and make it a graph output."""
        result = self.quantize(name)
        self.outputs[result] = self.values(result).shape

    def proto(self, outputs: dict[str, tuple[int, ...] | None] | None = None) -> onnx.ModelProto:
        """The model; with other outputs than its own when they are given."""
        wanted = self.outputs if outputs is None else outputs
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info(n, ELEMENT[a.dtype], a.shape) for n, a in self.inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in wanted.items()],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@dataclass(frozen=True)
class Difference:
    """How far integers are apart: the largest difference in steps, the share of different elements, their number."""

    largest: int
    share: float
    elements: int


def model_of(proto: onnx.ModelProto) -> Model:
    return Model(proto, "graph", "0" * 64)


def program_of(proto: onnx.ModelProto) -> Program:
    """The integer program by the compiler's own phases."""
    model = model_of(proto)
    lowered = lower_to_integers(model)
    return assemble(lowered, through_tvm(lowered.proto), original=model, macs=0)


def run_program(program: Program, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs' integers by the operators' definitions, int8 in the ONNX shape; feeds as ONNX Runtime takes them."""
    assert {c.op for c in program.calls} <= OPERATORS, "only integer operators"
    values = {}
    for port in program.inputs:
        array = feeds[port.name]
        if array.dtype == np.float32:
            assert port.quantization is not None
            array = quantize_real(array, port.quantization.scale, port.quantization.zero_point)
        elif array.dtype == np.uint8:
            array = (array.astype(np.int16) - 128).astype(np.int8)
        elif array.dtype == np.int64:
            array = array.astype(np.int32)
        values[port.tensor] = array
    computed = evaluate(program, values)
    return {p.name: computed[p.tensor].reshape(p.onnx_shape) for p in program.outputs}


def compare(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, Difference]:
    """ONNX Runtime against the integer program (NumPy), for every output, in steps of its scale."""
    program = program_of(proto)
    computed, wanted = run_program(program, feeds), ort_run(proto, feeds)
    result = {}
    for port in program.outputs:
        assert port.quantization is not None
        real = wanted[port.name].astype(np.float64)
        assert real.shape == port.onnx_shape
        steps = np.rint(real / port.quantization.scale) + port.quantization.zero_point
        apart = np.abs(computed[port.name] - steps)
        result[port.name] = Difference(int(apart.max()), float((apart > 0).mean()), apart.size)
    return result
