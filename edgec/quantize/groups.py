# SPDX-License-Identifier: Apache-2.0
"""Which values of a canonical graph are quantized, and which of them share one scale and zero point.

A *root* is a value that gets quantization parameters: a graph input, a constant operand, the output of a
computing node. Data movement inherits from its root. A *group* is a set of roots with the same parameters:

- a state input and the output that replaces it (state is updated in place);
- inputs of a Concat that feed nothing else: rounding straight to the Concat's grid saves a second rounding;
- the input of a Relu or Clip that feeds nothing else: saturating at the output's range is the Relu.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from onnx import NodeProto, TensorProto

from edgec.errors import UnsupportedError
from edgec.quantize.scheme import FIXED_OUTPUT

if TYPE_CHECKING:
    from edgec.model import Model

# Operators whose outputs hold elements of their first input, unchanged: they inherit its quantization.
INHERITING = frozenset(
    ["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Split", "Identity"],
)
# Operators with quantized operands: positions, None = all.
COMPUTING: dict[str, tuple[int, ...] | None] = {
    "Gemm": (0,),
    "MatMul": (0, 1),
    "Add": (0, 1),
    "Sub": (0, 1),
    "Mul": (0, 1),
    "Div": (0, 1),
    "Concat": None,
    **dict.fromkeys(
        [
            "Softmax",
            "LayerNormalization",
            "Gelu",
            "Relu",
            "Clip",
            "Tanh",
            "Sigmoid",
            "ReduceMean",
            "ReduceSum",
        ],
        (0,),
    ),
}
CLAMPS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True)
class Group:
    """Roots that share one scale and zero point.

    `observed` are the roots whose ranges count (the others follow), `name` the first of them; `resets` are
    real values that the group must hold; `fixed_ops` the bounded operators that produce observed roots;
    `symmetric` = zero point 0.
    """

    name: str
    roots: tuple[str, ...]
    observed: tuple[str, ...]
    resets: tuple[float, ...]
    fixed_ops: frozenset[str]
    symmetric: bool


class Grouping:
    """The quantization structure of a canonical model: roots, fused values, groups.

    Raises:
        UnsupportedError: operators that the quantizer does not know, or operands that must be constants; all
            at once.
    """

    def __init__(self, model: Model) -> None:
        graph = model.proto.graph
        self.constants: dict[str, TensorProto] = {init.name: init for init in graph.initializer}
        self.inputs = {value.name: value for value in graph.input if value.name not in self.constants}
        self.outputs = {value.name for value in graph.output}
        self.nodes = list(graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self._uses = _uses(self.nodes)
        self.fused = {node.output[0] for node in self.nodes if self._is_fused(node)}
        self._check()
        self.root: dict[str, str] = {}
        self._find_roots()
        self._consumers = self._real_consumers()
        self._parent = {root: root for root in dict.fromkeys(self.root.values())}
        self._followers: set[str] = set()
        self._resets: dict[str, float] = {}
        self._unite(model)
        self.groups = self._make_groups()
        self._group_of = {root: group for group in self.groups for root in group.roots}

    def group(self, value: str) -> Group:
        """The group whose parameters `value` has, directly or through data movement."""
        return self._group_of[self.root[value]]

    def quantized_operands(self, node: NodeProto) -> list[int]:
        """Positions of the operands that the node reads quantized (not weights, axes, fused values)."""
        if any(name in self.fused for name in node.input):
            return []
        if node.op_type in INHERITING:
            return [0]
        positions = COMPUTING[node.op_type]
        return list(range(len(node.input)) if positions is None else positions)

    # ---- structure --------------------------------------------------------------------------------------

    def _is_fused(self, node: NodeProto) -> bool:
        """Gemm before its only Relu/Clip, MatMul before its only scalar Mul: the value between is float."""
        uses = self._uses.get(node.output[0], []) if node.output else []
        if len(uses) != 1 or node.output[0] in self.outputs:
            return False
        user, position = uses[0]
        if node.op_type == "Gemm":
            return user.op_type in CLAMPS and position == 0
        if node.op_type == "MatMul" and user.op_type == "Mul":
            factor = self.constants.get(user.input[1 - position])
            return factor is not None and all(d == 1 for d in factor.dims)
        return False

    def _check(self) -> None:
        faults = []
        for node in self.nodes:
            if node.domain or not (node.op_type in INHERITING or node.op_type in COMPUTING):
                faults.append(f"{node.name}: {node.domain + '.' if node.domain else ''}{node.op_type}")
                continue
            if len([name for name in node.output if name]) > 1 and node.op_type != "Split":
                faults.append(f"{node.name}: {node.op_type} with more than one output")
            quantized = self.quantized_operands(node)
            for position, name in enumerate(node.input):
                if position in quantized:
                    floating = self._is_float(name)
                    if not floating:
                        faults.append(f"{node.name}: {node.op_type} of {name}, which is not float32")
                elif name and name not in self.constants and name not in self.fused:
                    faults.append(f"{node.name}: {node.op_type} whose operand {name} is not a constant")
        if faults:
            known = ", ".join(sorted(INHERITING | set(COMPUTING)))
            raise UnsupportedError(
                "the quantizer does not know " + ("; ".join(faults)),
                need=f"operators among {known}",
                have=f"{len(faults)} others",
            )

    def _is_float(self, name: str) -> bool:
        if name in self.constants:
            return bool(self.constants[name].data_type == TensorProto.FLOAT)
        if name in self.inputs:
            return bool(self.inputs[name].type.tensor_type.elem_type == TensorProto.FLOAT)
        return True  # every operator that got here computes float32 from float32

    def _find_roots(self) -> None:
        self.root.update((name, name) for name in self.inputs)
        for node in self.nodes:
            for position in self.quantized_operands(node):
                name = node.input[position]
                if name in self.constants:
                    self.root[name] = name
            for name in node.output:
                if name and name not in self.fused:
                    self.root[name] = self.root[node.input[0]] if node.op_type in INHERITING else name

    def _real_consumers(self) -> dict[str, list[NodeProto]]:
        """Per root the computing nodes that read it, through movement or not."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            if node.op_type not in INHERITING:
                for position in self.quantized_operands(node):
                    found.setdefault(self.root[node.input[position]], []).append(node)
        return found

    # ---- sharing ----------------------------------------------------------------------------------------

    def _unite(self, model: Model) -> None:
        outputs = {self.root[name] for name in self.outputs}
        states = {self.root[name] for pair in model.states for name in (pair.input, pair.output)}
        for pair in model.states:
            self._join(self.root[pair.input], self.root[pair.output])
            self._resets[self.root[pair.input]] = pair.reset
        for root, consumers in self._consumers.items():
            if root in outputs or root in states or self._fixed_op(root):
                continue
            first = consumers[0]
            only = all(node is first for node in consumers)
            clamped = len(consumers) == 1 and first.op_type in CLAMPS and root in self.producer
            if clamped or (only and first.op_type == "Concat"):
                self._followers.add(root)
                self._join(root, self.root[first.output[0]])

    def _fixed_op(self, root: str) -> str | None:
        node = self.producer.get(root)
        return node.op_type if node is not None and node.op_type in FIXED_OUTPUT else None

    def _find(self, root: str) -> str:
        while self._parent[root] != root:
            root = self._parent[root]
        return root

    def _join(self, a: str, b: str) -> None:
        self._parent[self._find(a)] = self._find(b)

    def _make_groups(self) -> list[Group]:
        members: dict[str, list[str]] = {}
        for root in self._parent:
            members.setdefault(self._find(root), []).append(root)
        right_operands = {self.root[node.input[1]] for node in self.nodes if node.op_type == "MatMul"}
        groups = []
        for roots in members.values():
            observed = tuple(root for root in roots if root not in self._followers)
            fixed = (self._fixed_op(root) for root in observed)
            groups.append(
                Group(
                    name=observed[0],
                    roots=tuple(roots),
                    observed=observed,
                    resets=tuple(self._resets[root] for root in roots if root in self._resets),
                    fixed_ops=frozenset(op for op in fixed if op),
                    symmetric=not right_operands.isdisjoint(roots),
                )
            )
        return groups


def _uses(nodes: Iterable[NodeProto]) -> dict[str, list[tuple[onnx.NodeProto, int]]]:
    found: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in nodes:
        for position, name in enumerate(node.input):
            if name:
                found.setdefault(name, []).append((node, position))
    return found
