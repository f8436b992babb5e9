# SPDX-License-Identifier: Apache-2.0
"""A lowered graph in NumPy, node by node: the operators' definitions, and ONNX's own of the float nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgec.lower.graph import DOMAIN
from edgec.lower.lower import INTERFACE_KEY
from edgec.lower.value_types import value_types
from edgec.model import Model
from edgec.operators import get_operator

Array = npt.NDArray[Any]


class GraphDefinitions:
    """Evaluates what `lower_to_integers` wrote."""

    def __init__(self, model: Model) -> None:
        graph = model.proto.graph
        self._graph = graph
        self._constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self._types = value_types(graph)
        self._opset = next(o for o in model.proto.opset_import if o.domain == "")
        self._floats = {n.output[0]: self._evaluator(n) for n in graph.node if n.domain != DOMAIN}
        text = next(p.value for p in model.proto.metadata_props if p.key == INTERFACE_KEY)
        interface = json.loads(text)
        self.tensors = {e["name"]: str(e["tensor"]) for e in (*interface["inputs"], *interface["outputs"])}
        """The graph's tensor of every input and output that lowering renamed."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every value by name, from those of the inputs, in the types and shapes that the graph declares."""
        values = dict(self._constants)
        values |= {n: a.astype(self._types[n].dtype).reshape(self._types[n].shape) for n, a in inputs.items()}
        for node in self._graph.node:
            operands = [values[n] for n in node.input if n]
            if node.domain == DOMAIN:
                attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
                values[node.output[0]] = get_operator(node.op_type).run(operands, attrs)
                continue
            with np.errstate(all="ignore"):
                results = self._floats[node.output[0]].run(None, {n: values[n] for n in dict.fromkeys(node.input) if n})
            values.update(zip([o for o in node.output if o], map(np.asarray, results), strict=True))
        return values

    def _evaluator(self, node: onnx.NodeProto) -> ReferenceEvaluator:
        def infos(names: Sequence[str]) -> list[onnx.ValueInfoProto]:
            kinds = {n: self._types[n] for n in dict.fromkeys(names) if n}
            return [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(k.dtype)), k.shape)
                for n, k in kinds.items()
            ]

        graph = helper.make_graph([node], "node", infos(node.input), infos(node.output))
        return ReferenceEvaluator(helper.make_model(graph, opset_imports=[self._opset], ir_version=10))


def stream_by_definitions(
    model: Model, states: Mapping[str, tuple[str, float]], inputs: Mapping[str, Array]
) -> Iterator[dict[str, Array]]:
    """Outputs of every step of a stream, by name, in the device's types.

    Args:
        model: a lowered graph.
        states: of every state input, the output that replaces it and its reset value in the state's own type.
        inputs: [steps, ...] by name, in the device's types.
    """
    definitions = GraphDefinitions(model)
    types = {i.name: definitions._types[i.name] for i in model.proto.graph.input}
    state = {name: np.full(types[name].shape, reset, types[name].dtype) for name, (_, reset) in states.items()}
    for step in range(len(next(iter(inputs.values())))):
        values = definitions.run({**{n: a[step] for n, a in inputs.items()}, **state})
        outputs = {o: values[definitions.tensors.get(o, o)] for o in definitions.tensors if o not in types}
        yield outputs
        state = {name: outputs[output] for name, (output, _) in states.items()}
