# SPDX-License-Identifier: Apache-2.0
"""Which values of a canonical graph are quantized, and which of them share one scale and zero point.

A *root* is a value that gets quantization parameters: a graph input, a constant operand, the output of a
computing node. Data movement inherits from its root. A *group* is a set of roots with the same parameters:

- a state input and the output that replaces it (state is updated in place);
- inputs of a Concat that feed nothing else: rounding straight to the Concat's grid saves a second rounding;
- the input of a Relu or Clip that feeds nothing else: saturating at the output's range is the Relu;
- what a maximum, a padding or a nearest-neighbour resize reads and what it writes: its results are elements of
  its input (or the padding), so no rounding is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from edgec.errors import UnsupportedError
from edgec.lower.tables import ELEMENTWISE
from edgec.model import value_shapes
from edgec.passes.input_norm import declared_ranges
from edgec.passes.product_sum_form import ProductSum, find_product_sums
from edgec.passes.rms_norm_form import find_rms_norms
from edgec.passes.softmax_mask import masked_scores
from edgec.quantize.functions import find_functions
from edgec.quantize.scheme import FIXED_OUTPUT
from edgec.quantize.state_regions import CLAMPED, NOWHERE, Regions

if TYPE_CHECKING:
    from edgec.model import Model

# Operators whose outputs hold elements of their first input, unchanged: they inherit its quantization.
INHERITING = frozenset(
    ["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Split", "Identity", "Expand"],
)
# Layers: a product with constant weights (operand 1) and perhaps a constant bias (operand 2).
LINEAR = frozenset({"Gemm", "Conv", "ConvTranspose"})
MOST_SUMMED = 2**14
"""Products of one accumulator in a sum of layers: |w| < 128 times |x| < 256 each, beside a bias below 2^30."""
# Operators whose results are elements of their first input, chosen or repeated by value or place.
CHOOSING = frozenset(
    ["DepthToSpace", "MaxPool", "GlobalMaxPool", "Pad", "ReduceMax", "ReduceMin", "Resize", "SpaceToDepth", "TopK"]
)
# Operators with quantized operands: positions, None = all.
COMPUTING: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(ELEMENTWISE - {"Identity"}, (0,)),
    **dict.fromkeys(LINEAR | CHOOSING, (0,)),
    **dict.fromkeys(["MatMul", "Add", "Sub", "Mul", "Div"], (0, 1)),
    **dict.fromkeys(["Concat", "Max", "Min"]),
    "Where": (1, 2),
    **dict.fromkeys(
        """ArgMax ArgMin AveragePool CumSum GlobalAveragePool LayerNormalization ReduceMean ReduceSum
        RMSNormalization Softmax""".split(),
        (0,),
    ),
}
_OTHER_FLOATS = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
CLAMPS = frozenset({"Relu", "Clip"})
# Operators with an integer form that reads int16; every other reader of an int16 tensor gets it rounded to int8.
WIDE_READERS = frozenset({"Add", "Sub", "LayerNormalization", "ReduceMean", "ReduceSum"})
WIDE_PRODUCERS = frozenset({"Add", "Sub"})


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

    Args:
        model: canonical float model.
        apart: names of the Add nodes behind layers whose results are rounded one by one all the same.
        regions: nodes that are computed in int16 or float for the sake of a state.

    Raises:
        UnsupportedError: operators that the quantizer does not know, or operands that must be constants; all
            at once.
    """

    def __init__(self, model: Model, apart: Collection[str] = (), regions: Regions = NOWHERE) -> None:
        graph = model.proto.graph
        self.regions = regions
        self.constants: dict[str, TensorProto] = {init.name: init for init in graph.initializer}
        self.inputs = {value.name: value for value in graph.input if value.name not in self.constants}
        self.declared = declared_ranges(model)
        self.outputs = {value.name for value in graph.output}
        self.nodes = list(graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self._uses = _uses(self.nodes)
        known = (*graph.input, *graph.value_info, *graph.output)
        self._wide_floats = {v.name for v in known if v.type.tensor_type.elem_type in _OTHER_FLOATS}
        self._other_types = {v.name for v in known if v.type.tensor_type.elem_type not in (0, TensorProto.FLOAT)}
        self.fused = {node.output[0] for node in self.nodes if self._is_fused(node)}
        sums = (s for s in self._find_sums(value_shapes(model.proto)) if s.root.name not in apart)
        self.sums = [s for s in sums if regions.nodes.isdisjoint((s.root.name, *(n.name for n in s.products)))]
        self._sum_of = {product.name: one for one in self.sums for product in one.products}
        self._sum_roots = {one.root.name for one in self.sums}
        self.fused |= {name for one in self.sums for name in one.inner}
        forms = find_rms_norms(graph, value_shapes(model.proto))
        forms = [form for form in forms if regions.nodes.isdisjoint(n.name for n in form.nodes)]
        self.fused |= {name for form in forms for name in form.inner}
        self._in_forms = {node.name for form in forms for node in form.nodes}
        functions = find_functions(
            self.nodes, self.constants, lambda v: [n for n, _ in self.uses(v)], self.fused | self.outputs
        )
        self.fused |= {name for name in functions.inner if self._is_float(name)}
        self.in_functions = functions.nodes - regions.nodes
        self.fused = {name for name in self.fused if not self._borders(name)}
        self._check()
        self.root: dict[str, str] = {}
        self._find_roots()
        self._consumers = self._real_consumers()
        self._parent = {root: root for root in dict.fromkeys(self.root.values())}
        kept = [p for p in model.states if p.input in regions.levels]
        self._wide_states = {self.root[name] for p in kept for name in (p.input, p.output) if name in self.root}
        kept = [p for p in kept if regions.stored(p.input) == "int16"]
        self._int16_states = {self.root[name] for p in kept for name in (p.input, p.output) if name in self.root}
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
        if node.name in self.regions.floating:
            inside = self.fused | self.constants.keys()
            return [i for i, n in enumerate(node.input) if n and n not in inside and self._is_float(n)]
        if node.op_type in INHERITING:
            return [0] if self._is_float(node.input[0]) else []
        if (masked := self._masked(node)) is not None:
            return [masked]
        positions = COMPUTING[node.op_type]
        chosen: Sequence[int] = range(len(node.input)) if positions is None else positions
        if any(name in self.fused for name in node.input):
            chosen = [i for i in chosen if node.input[i] not in self.fused and node.input[i] not in self.constants]
        return [i for i in chosen if i < len(node.input) and node.input[i] and self._is_float(node.input[i])]

    def uses(self, value: str) -> list[tuple[NodeProto, int]]:
        """The nodes that read a value or constant, each with the position of the operand."""
        return self._uses.get(value, [])

    def consumers(self, root: str) -> list[NodeProto]:
        """The computing nodes that read a root, through data movement or not."""
        return self._consumers.get(root, [])

    def reads_wide(self, node: NodeProto) -> bool:
        """Whether the node reads an int16 operand as it is; others get it rounded to int8."""
        if node.name in self.regions.nodes:
            return node.name in self.regions.wide
        return node.op_type in WIDE_READERS and node.name not in self.in_functions | self._in_forms

    def products_with(self, node: NodeProto) -> tuple[NodeProto, ...]:
        """The layers whose results one accumulator sums, `node` among them."""
        return self._sum_of[node.name].products if node.name in self._sum_of else (node,)

    def end_of(self, node: NodeProto) -> str:
        """The quantized value in which a node's result ends: its own, or that of the node fused behind it."""
        output = str(node.output[0])
        while output in self.fused:
            output = str(self._uses[output][0][0].output[0])
        return output

    def can_widen(self, group: Group) -> bool:
        """Whether the group may be int16: sums that a sum, LayerNormalization or mean reads, inside the model."""
        inside = not any(root in self.inputs or self.root_is_output(root) for root in group.roots)
        readers = [node for root in group.roots for node in self._consumers.get(root, [])]
        return (
            inside
            and not (group.symmetric or group.resets)
            and not any(self._in_region(root) for root in group.roots)
            and all(self._widenable(root) for root in group.roots)
            and any(self.reads_wide(node) for node in readers)
        )

    def root_is_output(self, root: str) -> bool:
        """Whether the value leaves the model, directly or through data movement."""
        return any(self.root[name] == root for name in self.outputs if name in self.root)

    def read_as_int8(self, group: Group) -> list[NodeProto] | None:
        """The nodes that read values of the group as int8, or None when one of these enters or leaves the model."""
        found = []
        for root in group.roots:
            made = self.producer[root].name if root in self.producer else ""
            wide = root in self._wide_states or made in self.regions.nodes
            if not wide and (root in self.inputs or self.root_is_output(root)):
                return None
            found += [node for node in self.consumers(root) if not (wide and node.name in self.regions.nodes)]
        return found

    def touched(self, group: Group) -> bool:
        """Whether a region or a wide state has to do with the group: then `Params.wide` is of their values alone."""
        return not self._wide_states.isdisjoint(group.roots) or any(self._in_region(root) for root in group.roots)

    def is_int16(self, group: Group) -> bool:
        """Whether an int16 node makes a value of the group, reads it as a constant, or a state of it is int16."""
        for root in group.roots:
            node = self.producer.get(root)
            if node is not None and node.name in self.regions.wide:
                return True
            if root in self.constants and any(user.name in self.regions.wide for user, _ in self.uses(root)):
                return True
            real = root in self._wide_states or (node is not None and node.name in self.regions.floating)
            if real and any(user.name in self.regions.wide for user in self.consumers(root)):
                return True
        return not self._int16_states.isdisjoint(group.roots)

    def _in_region(self, root: str) -> bool:
        """Whether a region makes the value or reads it."""
        users = [user.name for user, _ in self.uses(root)]
        made = root in self.producer and self.producer[root].name in self.regions.nodes
        return made or not self.regions.nodes.isdisjoint(users)

    def _borders(self, value: str) -> bool:
        """Whether a region's border, or int16, demands that a value be rounded that is fused otherwise."""
        involved = {self.producer[value].name, *(user.name for user, _ in self.uses(value))}
        if involved.isdisjoint(self.regions.nodes) or involved <= self.regions.floating:
            return False
        clamped = all(user.op_type in CLAMPS for user, _ in self.uses(value))
        return not (involved <= self.regions.wide and clamped and self.producer[value].op_type in CLAMPED)

    def _widenable(self, root: str) -> bool:
        node = self.producer.get(root)
        if node is None:
            readers = self._consumers.get(root, [])
            return root in self.constants and all(self._adds_wide(reader) for reader in readers)
        if node.op_type in CLAMPS and node.input[0] in self.fused:
            node = self.producer[node.input[0]]
        if node.name in self._sum_roots:
            return False
        return node.op_type in WIDE_PRODUCERS and not self._is_function(node) and node.name not in self.in_functions

    def _adds_wide(self, node: NodeProto) -> bool:
        return node.op_type in WIDE_PRODUCERS and self.reads_wide(node)

    def _is_function(self, node: NodeProto) -> bool:
        """Whether a sum has one variable and a scalar: lowering makes such a node a table."""
        factors = [self.constants[name] for name in node.input if name in self.constants]
        return any(all(d == 1 for d in c.dims) for c in factors) or len(set(node.input)) < len(node.input)

    # ---- structure --------------------------------------------------------------------------------------

    def _is_fused(self, node: NodeProto) -> bool:
        """A layer or sum before its only Relu/Clip, MatMul before its only scalar Mul, a mask before its Softmax."""
        uses = self._uses.get(node.output[0], []) if node.output else []
        if len(uses) != 1 or node.output[0] in self.outputs:
            return False
        user, position = uses[0]
        if user.op_type == "Softmax":
            return self._masked(node) is not None
        if node.op_type in LINEAR or (node.op_type in ("Add", "Sub") and not self._is_function(node)):
            return user.op_type in CLAMPS and position == 0
        if node.op_type == "MatMul" and user.op_type == "Mul":
            factor = self.constants.get(user.input[1 - position])
            return factor is not None and all(d == 1 for d in factor.dims)
        return False

    def _find_sums(self, shapes: Mapping[str, tuple[int, ...]]) -> list[ProductSum]:
        """Sums of layers; weights that several nodes have keep a scale of their own, for they are stored once."""
        gemms = [n for n in self.nodes if n.op_type == "Gemm" and n.input[1] in self.constants]
        content = {n.name: numpy_helper.to_array(self.constants[n.input[1]]).tobytes() for n in gemms}
        readers_of = Counter(content.values())

        def is_product(node: NodeProto) -> bool:
            return node.name in content and readers_of[content[node.name]] == 1

        def inputs(one: ProductSum) -> int:
            return sum(shapes[node.input[0]][-1] for node in one.products)

        readers = {name: [node for node, _ in uses] for name, uses in self._uses.items()}
        found = find_product_sums(self.nodes, shapes, lambda v: readers.get(v, []), self.outputs, is_product)
        return [one for one in found if inputs(one) <= MOST_SUMMED]

    def _masked(self, node: NodeProto) -> int | None:
        """Position of the scores when the node hides some of them from the Softmax that alone reads it."""
        uses = self._uses.get(node.output[0], []) if node.output else []
        if len(uses) != 1 or uses[0][0].op_type != "Softmax" or node.output[0] in self.outputs:
            return None
        found = masked_scores(node, self._array)
        return None if found is None else found[0]

    def _array(self, name: str) -> np.ndarray | None:
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def _check(self) -> None:
        faults = []
        for node in self.nodes:
            if node.name in self.regions.floating:
                continue
            if node.domain or not (node.op_type in INHERITING or node.op_type in COMPUTING):
                faults.append(f"{node.name}: {node.domain + '.' if node.domain else ''}{node.op_type}")
                continue
            if len([n for n in node.output if n and self._is_float(n)]) > 1 and node.op_type != "Split":
                faults.append(f"{node.name}: {node.op_type} with more than one output")
            quantized = self.quantized_operands(node)
            for position, name in enumerate(node.input):
                inside = name in self.fused or node.name in self._in_forms
                if name in self._wide_floats:
                    faults.append(f"{node.name}: {node.op_type} of {name}, which is not float32")
                elif (
                    name
                    and position not in quantized
                    and name not in self.constants
                    and not inside
                    and self._is_float(name)
                ):
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
        return name not in self._other_types

    def _find_roots(self) -> None:
        self.root.update((name, name) for name in self.inputs if self._is_float(name))
        for node in self.nodes:
            for position in self.quantized_operands(node):
                name = node.input[position]
                if name in self.constants:
                    self.root[name] = name
            for name in node.output:
                if name and name not in self.fused and self._is_float(name):
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
        outputs = {self.root[name] for name in self.outputs if name in self.root}
        states = {self.root[name] for pair in model.states for name in (pair.input, pair.output)}
        for pair in model.states:
            self._join(self.root[pair.input], self.root[pair.output])
            self._resets[self.root[pair.input]] = pair.reset
        for node in self.nodes:
            if node.op_type in CHOOSING and node.output[0] in self.root:
                self._join(self.root[node.input[0]], self.root[node.output[0]])
        for root, consumers in self._consumers.items():
            if root in outputs or root in states or self._fixed_op(root) or self._in_region(root):
                continue
            first = consumers[0]
            only = all(node is first for node in consumers)
            clamped = len(consumers) == 1 and first.op_type in CLAMPS and root in self.producer
            if first.output[0] in self.root and (clamped or (only and first.op_type == "Concat")):
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
        products = [n for n in self.nodes if n.op_type == "MatMul" and n.name not in self.regions.floating]
        right_operands = {self.root[node.input[1]] for node in products}
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
