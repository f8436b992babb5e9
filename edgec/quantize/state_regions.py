# SPDX-License-Identifier: Apache-2.0
"""Which nodes compute the recurrence of a state, so that they have to follow it when it is wider than int8.

An error that a layer makes behind a sigmoid is gone with the next step; one that stays in the state adds up. So the
*region* of the wide states is what lies on a way from one of them to the next value of one of them. Layers with
constant weights cut these ways, for they read int8, unless their result reaches a state through sums, products with
constants and movement alone: `Abar m + Bbar u` belongs to m, the `W h` behind a GRU's sigmoid does not. Of a sum in
the region the other layers belong to it too (`Bbar u`): their channels may span more than int8 holds.

A region is computed in int16 where each of its nodes has such a form and its states are int16, else in float; then it
reaches on to what int8 would spoil: back through the functions that make its factors (a decay of 0.999 is 1 in int8),
on to differences, quotients and normalizations of its values, and to what reads much of them for a small result (the
product of a matrix and a query).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np
from onnx import NodeProto, numpy_helper

from edgec.lower.movement import MOVEMENT
from edgec.lower.tables import ELEMENTWISE, LOGICAL
from edgec.model import value_shapes
from edgec.passes.rms_norm_form import find_rms_norms

if TYPE_CHECKING:
    from edgec.model import Model, StatePair

Level = Literal["int8", "int16", "int16 in float", "float32"]
"""How a state is kept and its region computed; "int16 in float" is stored as int16, its region computed in float."""
STORED: dict[Level, str] = {"int8": "int8", "int16": "int16", "int16 in float": "int16", "float32": "float32"}

LAYERS = frozenset({"Gemm", "Conv", "ConvTranspose"})
SUMS = frozenset({"Add", "Sub"})
CLAMPS = frozenset({"Relu", "Clip"})
CLAMPED = SUMS | {"Gemm"}
"""Operators whose int16 form may end in a clamp."""
INT16_NODES = SUMS | MOVEMENT | {"Gemm", "Mul", "Concat"}
"""Operators with an int16 form. A Gemm has int16 weights."""
CONTRACTING = frozenset({"MatMul", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"})
LONGEST_WAY = 8
"""Nodes between a region and what it reaches on to."""
FACTORS = frozenset({"Mul", "Div", "Pow"})


@dataclass(frozen=True)
class Regions:
    """Where a model is wider than int8 for its states' sake.

    Attributes:
        levels: of each state that is not int8, by its input.
        wide: names of the nodes with int16 operands and results.
        floating: names of the nodes in float.
    """

    levels: Mapping[str, Level] = field(default_factory=dict)
    wide: frozenset[str] = frozenset()
    floating: frozenset[str] = frozenset()

    @property
    def nodes(self) -> frozenset[str]:
        """All of them."""
        return self.wide | self.floating

    def stored(self, state: str) -> str:
        """Type in which the state with this input is kept."""
        return STORED[self.levels.get(state, "int8")]


NOWHERE = Regions()


class Recurrence:
    """The ways of a canonical float model's states from step to step."""

    def __init__(self, model: Model) -> None:
        graph = model.proto.graph
        self.states = model.states
        self._initializers = {init.name: init for init in graph.initializer}
        self.constants = set(self._initializers)
        self.nodes = list(graph.node)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.shapes = value_shapes(model.proto)
        self.outputs = {value.name for value in graph.output}
        self.norms = find_rms_norms(graph, self.shapes)
        self.in_norms = {node.name for form in self.norms for node in form.nodes}
        self.users: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.users.setdefault(name, []).append(node)

    def accumulating(self) -> tuple[str, ...]:
        """Inputs of the states whose old value goes into their new one, this or a later one, computed upon.

        Windows and delays are none: what they hold is moved and forgotten. Nor are rings, whatever is appended, and
        states that layers alone read.
        """
        found = []
        before = {p.input: p.output for p in self.states}
        after = {p.output: p.input for p in self.states}
        for pair in self.states:
            if self._is_ring(pair):
                continue
            cuts = self._cuts([pair.output])
            onward = self._ever(pair.input, self._reached, cuts, after)
            back = self._ever(pair.output, self._reaching, cuts, before)
            moved = MOVEMENT | {"Concat"}
            if any(node.op_type not in moved for node in self.nodes if self._on(node, onward, back)):
                found.append(pair.input)
        return tuple(found)

    def regions(self, levels: Mapping[str, Level], layers: Collection[str] = ()) -> Regions:
        """The regions when states have these levels, those not named int8, and these other nodes are wide too."""
        levels = {p.input: levels[p.input] for p in self.states if levels.get(p.input, "int8") != "int8"}
        pairs = [p for p in self.states if p.input in levels]
        cuts = self._cuts(p.output for p in pairs)
        onward, back = self._reached(levels, cuts), self._reaching((p.output for p in pairs), cuts)
        inside = {node.name for node in self.nodes if self._on(node, onward, back)}
        for pair in pairs:
            inside |= self._producing(pair.output)
        wide: set[str] = set()
        floating: set[str] = set()
        for part in self._parts(inside):
            with_terms = part | self._terms(part, cuts)
            own = [levels[s] for s in levels if self._touches(s, part)]
            integer = all(level == "int16" for level in own)
            if integer and all(self._has_int16_form(n) for n in self.nodes if n.name in with_terms):
                wide |= with_terms
            else:
                floating |= with_terms
        floating |= self._factors(floating, self._own(floating, levels))
        while not (more := self._readers(floating, self._own(floating, levels)) - wide) <= floating:
            floating |= more
        floating |= self._norms_of(floating)
        layers = set(layers) - wide - floating
        for part in self._parts([node.name for node in self.nodes if node.name in layers and node.op_type != "Gemm"]):
            integer = all(self._has_int16_form(n) for n in self.nodes if n.name in part)
            (wide if integer else floating).update(part)
        return Regions(levels, frozenset(wide | (layers - floating)), frozenset(floating))

    def _has_int16_form(self, node: NodeProto) -> bool:
        """Whether the node's operator has one: a Relu or Clip as the end of a sum or layer."""
        if node.op_type not in CLAMPS:
            return node.op_type in INT16_NODES
        summed, alone = self.producer.get(node.input[0]), len(self.users[node.input[0]]) == 1
        return summed is not None and summed.op_type in CLAMPED and alone and node.input[0] not in self.outputs

    # ---- ways -------------------------------------------------------------------------------------------

    def _cuts(self, ends: Iterable[str]) -> frozenset[str]:
        """Names of the layers from which no sums, products with constants and movement lead to one of the values."""
        linear = set(ends)
        for node in reversed(self.nodes):
            if linear.intersection(node.output) and self._is_linear(node):
                linear.update(node.input)
        return frozenset(n.name for n in self.nodes if n.op_type in LAYERS and linear.isdisjoint(n.output))

    def _is_linear(self, node: NodeProto) -> bool:
        if node.op_type in SUMS | MOVEMENT | {"Concat"}:
            return True
        return self._scales(node) or (node.op_type == "Div" and node.input[1] in self.constants)

    def _scales(self, node: NodeProto) -> bool:
        return node.op_type == "Mul" and any(name in self.constants for name in node.input)

    def _reached(self, starts: Iterable[str], cuts: Collection[str]) -> set[str]:
        found = set(starts)
        for node in self.nodes:
            if node.name not in cuts and found.intersection(node.input):
                found.update(name for name in node.output if name)
        return found

    def _reaching(self, ends: Iterable[str], cuts: Collection[str]) -> set[str]:
        found = set(ends)
        for node in reversed(self.nodes):
            if node.name not in cuts and found.intersection(node.output):
                found.update(name for name in node.input if name)
        return found

    @staticmethod
    def _ever(
        start: str,
        walk: Callable[[Iterable[str], Collection[str]], set[str]],
        cuts: Collection[str],
        step: Mapping[str, str],
    ) -> set[str]:
        """What `walk` finds in this step and, over `step` from state to state, in all others."""
        starts = {start}
        while True:
            found = walk(starts, cuts)
            more = {step[name] for name in found if name in step} - starts
            if not more:
                return found
            starts |= more

    @staticmethod
    def _on(node: NodeProto, onward: set[str], back: set[str]) -> bool:
        return not (onward.isdisjoint(node.input) or back.isdisjoint(node.output) or onward.isdisjoint(node.output))

    def _is_ring(self, pair: StatePair) -> bool:
        """Whether a part of the state, moved to another place, is joined with something to make the new state."""
        value = self._unmoved(pair.output, frozenset())
        node = self.producer.get(value)
        if node is None or node.op_type != "Concat" or value not in self.shapes:
            return False
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0) % len(self.shapes[value])
        place = 0
        for name in node.input:
            part = self.producer.get(self._unmoved(name, frozenset({"Slice"})))
            if part is None or part.op_type != "Slice" or part.input[1] not in self._initializers:
                pass
            elif self._unmoved(part.input[0], frozenset()) == pair.input:
                starts = numpy_helper.to_array(self._initializers[part.input[1]]).ravel()
                return bool(np.any(starts != place))
            place += self.shapes.get(name, (0,) * (axis + 1))[axis]
        return False

    def _unmoved(self, value: str, stop: frozenset[str]) -> str:
        """What Reshapes and other movement, but for `stop`, have made a value of."""
        while (node := self.producer.get(value)) is not None and node.op_type in MOVEMENT - stop:
            value = node.input[0]
        return value

    # ---- what belongs to a region -----------------------------------------------------------------------

    def _own(self, region: Collection[str], levels: Collection[str]) -> set[str]:
        """Values that the region makes, and states that it reads."""
        made = {name for node in self.nodes if node.name in region for name in node.output if name}
        return made | {s for s in levels if any(user.name in region for user in self.users.get(s, []))}

    def _producing(self, value: str) -> set[str]:
        """The node that computes a value, and the movement behind it."""
        found: set[str] = set()
        while (node := self.producer.get(value)) is not None:
            found.add(node.name)
            if node.op_type not in MOVEMENT:
                break
            value = node.input[0]
        return found

    def _parts(self, names: Collection[str]) -> list[set[str]]:
        """Nodes that values of the region connect, each lot for itself."""
        left = [node for node in self.nodes if node.name in names]
        states = {p.input: p.output for p in self.states}
        parts: list[tuple[set[str], set[str]]] = []
        for node in left:
            values = {v for v in (*node.input, *node.output) if v and v not in self.constants}
            values |= {states[v] for v in values if v in states}
            values = {v for v in values if v in states or self._made_in(v, names) or v in states.values()}
            joined = [p for p in parts if p[1] & values]
            parts = [p for p in parts if not p[1] & values]
            parts.append(({node.name}.union(*(p[0] for p in joined)), values.union(*(p[1] for p in joined))))
        return [part for part, _ in parts]

    def _made_in(self, value: str, names: Collection[str]) -> bool:
        return value in self.producer and self.producer[value].name in names

    def _touches(self, state: str, part: Collection[str]) -> bool:
        pair = next(p for p in self.states if p.input == state)
        return self._made_in(pair.output, part) or any(user.name in part for user in self.users.get(state, []))

    def _terms(self, part: Collection[str], cuts: Collection[str]) -> set[str]:
        """Layers and products with vectors outside that only sums of the region read, and sums of such."""
        found: set[str] = set()
        for node in reversed(self.nodes):
            users = [u for name in node.output for u in self.users.get(name, [])]
            makes = self._has_channels(node) or node.op_type in SUMS | MOVEMENT
            read = all(u.name in found or (u.name in part and u.op_type in SUMS) for u in users)
            if node.name not in (*part, *cuts) and makes and users and read and self.outputs.isdisjoint(node.output):
                found.add(node.name)
        return self._made_by(found, self._has_channels)

    def _has_channels(self, node: NodeProto) -> bool:
        """Whether the results' ranges may differ from channel to channel: not what one factor scales."""
        sizes = [prod(self.shapes.get(name, ())) for name in node.input if name in self.constants]
        return node.op_type == "Gemm" or (self._scales(node) and max(sizes) > 1)

    def _made_by(self, names: set[str], makes: Callable[[NodeProto], bool]) -> set[str]:
        """Those of the nodes that make something themselves, or pass on what others of them make."""
        found: set[str] = set()
        for node in self.nodes:
            if node.name in names and (makes(node) or any(self._made_in(name, found) for name in node.input)):
                found.add(node.name)
        return found

    def _factors(self, region: Collection[str], own: set[str]) -> set[str]:
        """Functions of one value that make a factor of what the region owns."""
        found: set[str] = set()
        waiting: list[str] = []
        for node in self.nodes:
            if node.name in region and node.op_type in FACTORS and not own.isdisjoint(node.input):
                waiting += set(node.input) - own
        while waiting:
            node = self.producer.get(waiting.pop())
            if node is None or node.name in region or node.name in found or node.name in self.in_norms:
                continue
            if node.op_type in MOVEMENT | ELEMENTWISE and len({n for n in node.input if n} - self.constants) == 1:
                found.add(node.name)
                waiting += node.input
        return self._made_by(found, lambda node: node.op_type not in MOVEMENT)

    def _norms_of(self, region: Collection[str]) -> set[str]:
        """RMSNorms of what the region makes: their rows differ in size, which one scale of int8 does not hold."""
        found: set[str] = set()
        for form in self.norms:
            way, node = {n.name for n in form.nodes}, self.producer.get(form.x)
            while node is not None and node.op_type in MOVEMENT:
                way.add(node.name)
                node = self.producer.get(node.input[0])
            if node is not None and node.name in region:
                found |= way
        return found

    def _readers(self, region: Collection[str], own: set[str]) -> set[str]:
        """Nodes outside that divide by the region's values, or make much less of them, with what lies between.

        And those that read what is true and false of them, and differences of two: they may be less than int8's step.
        """
        made = {name for node in self.nodes if node.name in region and node.op_type in LOGICAL for name in node.output}
        found = {user.name for name in made for user in self.users.get(name, [])} - set(region)
        for node in self.nodes:
            if node.op_type == "Sub" and node.name not in region and own.issuperset(node.input):
                found.add(node.name)

        def walk(
            value: str, way: tuple[NodeProto, ...], through: Collection[str], ends: Callable[[NodeProto], bool]
        ) -> None:
            for node in self.users.get(value, []):
                if node.name in region or node.op_type in LAYERS or len(way) > LONGEST_WAY:
                    continue
                if ends(node):
                    found.update(n.name for n in (*way, node))
                if node.op_type in through:
                    walk(node.output[0], (*way, node), through, ends)

        for start in own:
            elements = prod(self.shapes.get(start, ()))

            def contracts(node: NodeProto, elements: int = elements) -> bool:
                return node.op_type in CONTRACTING and prod(self.shapes.get(node.output[0], (elements,))) < elements

            walk(start, (), MOVEMENT, contracts)
        kept = MOVEMENT | CONTRACTING
        parts = self._reached(own, [n.name for n in self.nodes if n.op_type not in kept])
        for start in own:
            walk(start, (), kept, lambda node: node.op_type == "Div" and node.input[1] in parts)
        return found
