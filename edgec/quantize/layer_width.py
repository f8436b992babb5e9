# SPDX-License-Identifier: Apache-2.0
"""Layers wider than int8 where a model with states drifts whatever its states' width: as few as keep it from drifting.

All rounding of activations adds up along a stream, not that of states alone; int8 weights hardly count beside it. The
search starts from everything wide (int16, float where an operator has no int16 form), finds by the drift test what each
operator costs when it alone is int8, and takes the int8 forms back, those that cost least for what they save first,
for as long as the model passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod

from onnx import NodeProto

from edgec.errors import UnsupportedError
from edgec.model import node_macs, value_shapes
from edgec.quantize.drift import Drift
from edgec.quantize.drift_test import LOST, MARGINS
from edgec.quantize.groups import INHERITING, Grouping
from edgec.quantize.options import Recipe
from edgec.quantize.plan import Plan
from edgec.quantize.state_regions import Level, Recurrence
from edgec.quantize.state_width import Widths

RANKED = 400
"""Steps of the drift test by which candidates are put into an order."""
ROUNDS = 3
"""Bisections, each of some six runs of the whole test."""
WIDENED = "int16, like the layers around it"


@dataclass(frozen=True)
class Candidate:
    """What is int8 or wide as a whole: an operator with what is fused to it, or a state with the nodes that update it.

    Attributes:
        nodes: their names.
        state: input of the state, or "".
        saved: about what its int8 form saves, in elements that need no conversion.
    """

    nodes: frozenset[str]
    state: str
    saved: float


def choose_layers(widths: Widths, recipe: Recipe) -> Widths:
    """The widths with as few wide layers as keep the outputs from drifting; as they are where that is not needed.

    Where nothing helps they stay as they are too, and a note says so.
    """
    if widths.test is None or widths.drift is None:
        return widths
    if recipe.layers_are_chosen and not widths.drift.within(*MARGINS[0]):
        return _Search(widths, recipe).run()
    if widths.drift.passes:
        return widths
    note = f"the outputs drift ({widths.drift.worst}); --layer-width auto makes layers wider"
    return dataclasses.replace(widths, notes=(*widths.notes, note))


class _Search:
    def __init__(self, widths: Widths, recipe: Recipe) -> None:
        assert widths.test is not None
        self.widths, self.test = widths, widths.test
        self.recurrence = Recurrence(widths.plan.model)
        self.levels = dict(widths.levels)
        named = recipe.state_widths
        pairs = [p for p in widths.plan.model.states if not {p.input, p.output} & named.keys()]
        self.states = [p.input for p in pairs if self.levels[p.input] == "int8"]
        self.wider: dict[str, Level] = {p.input: "float32" for p in pairs if self.levels[p.input] != "int8"}
        self.candidates = self._find_candidates(widths.plan.grouping)
        self.base = widths.plan

    def run(self) -> Widths:
        """The choice."""
        everything = frozenset(self.candidates)
        drift = self._drift(everything)
        if self.wider and not drift.within(*MARGINS[0]):
            narrower, self.levels = self.levels, self.levels | self.wider
            wider = self._drift(everything)
            if wider.worst.error < drift.worst.error:
                drift = wider
            else:
                self.levels = narrower
        assert self.widths.drift is not None
        if self.widths.drift.passes and not drift.within(*MARGINS[0]):
            return self.widths  # by its answers, and no width makes it much better
        if not drift.passes:
            note = f"the outputs drift whatever the width ({self.widths.drift.worst}; wide: {drift.worst})"
            return dataclasses.replace(self.widths, notes=(*self.widths.notes, note))
        margin = next(shares for shares in MARGINS if drift.within(*shares))
        return self._result(*self._narrowed(everything, drift, lambda found: found.within(*margin)))

    def _narrowed(
        self, chosen: frozenset[Candidate], drift: Drift, passes: Callable[[Drift], bool]
    ) -> tuple[frozenset[Candidate], Drift]:
        """As few of them as pass, and their drift."""
        order = self._ranking()
        for _ in range(ROUNDS):  # each passes over one candidate that has to stay wide
            fits, fails = 0, len(order) + 1  # so many of the first that are int8
            while fails - fits > 1:
                count = (fits + fails) // 2
                found = self._drift(chosen - set(order[:count]))
                fits, fails = (count, fails) if passes(found) else (fits, count)
                if fits == count:
                    drift = found
            chosen, order = chosen - set(order[:fits]), order[fits + 1 :]
        return chosen, drift

    def _ranking(self) -> list[Candidate]:
        """The candidates, those first whose int8 form costs least for what it saves."""
        everything = frozenset(self.candidates)
        least = self._noise(everything)
        costs = {c: max(self._noise(everything - {c}) - least, 0.0) / c.saved for c in self.candidates}
        return sorted(self.candidates, key=costs.__getitem__)

    def _noise(self, wide: frozenset[Candidate]) -> float:
        return float(self._drift(wide, RANKED).worst.error ** 2)

    def _drift(self, wide: frozenset[Candidate], steps: int | None = None) -> Drift:
        plan = self._plan(wide)
        return LOST if plan is None else self.test.run(plan, steps)

    def _plan(self, wide: Collection[Candidate]) -> Plan | None:
        """The plan in which these are wide, or None where there is none."""
        levels = self.levels | {c.state: "int16" for c in wide if c.state}
        names = {name for c in wide if not c.state for name in c.nodes}
        try:
            regions = self.recurrence.regions(levels, names | self._moving(names))
            plan = self.base.with_regions(regions, self.test.samples)
        except UnsupportedError:
            return None
        self.base = dataclasses.replace(self.base, ranges=plan.ranges)  # what was observed once is known
        return plan

    def _result(self, wide: frozenset[Candidate], drift: Drift) -> Widths:
        plan = self._plan(wide)
        assert plan is not None
        assert self.widths.drift is not None
        levels = self.levels | {c.state: "int16" for c in wide if c.state}
        changed = {name: level for name, level in levels.items() if level != self.widths.levels[name]}
        texts = {name: WIDENED if level == "int16" else "float32" for name, level in changed.items()}
        layers = tuple(n.name for n in plan.grouping.nodes if any(n.name in c.nodes for c in wide if not c.state))
        floats = sum(name in plan.grouping.regions.floating for name in layers)
        what = f"{len(layers)} of {len(plan.grouping.nodes)} nodes are wider than int8, {floats} of them float"
        note = (
            f"{what if layers else 'states alone are wider than int8'} "
            f"(without: {self.widths.drift.worst}; so: {drift.worst}; {drift.steps:,} steps)"
        )
        return dataclasses.replace(
            self.widths,
            plan=plan,
            levels=levels,
            drift=drift,
            verdicts={**self.widths.verdicts, **texts},
            layers=layers,
            notes=(*self.widths.notes, note),
        )

    # ---- candidates -------------------------------------------------------------------------------------

    def _find_candidates(self, grouping: Grouping) -> list[Candidate]:
        taken = set(grouping.regions.nodes)
        shapes = value_shapes(self.widths.plan.model.proto)
        found = []
        for state in self.states:
            nodes = self.recurrence.regions(self.levels | {state: "int16"}).nodes - taken
            found.append(Candidate(frozenset(nodes), state, prod(shapes[state])))
            taken |= nodes
        nodes_of: dict[str, list[NodeProto]] = {}
        for node in grouping.nodes:
            if node.name not in taken and node.op_type not in INHERITING:
                nodes_of.setdefault(grouping.end_of(node), []).append(node)
        for fused in nodes_of.values():
            sizes = [prod(shapes.get(name, ())) for node in fused for name in (*node.input, *node.output) if name]
            macs = sum(node_macs(node, shapes) for node in fused if node.op_type != "Gemm")
            found.append(Candidate(frozenset(n.name for n in fused), "", sum(sizes) / len(fused) + macs))
        return found

    def _moving(self, names: Collection[str]) -> set[str]:
        """Nodes that move what nodes of these names make."""
        grouping = self.widths.plan.grouping
        rings = {name for c in self.candidates if c.state for name in c.nodes}
        found = set()
        for node in grouping.nodes:
            if node.op_type in INHERITING and node.name not in rings and node.output[0] in grouping.root:
                maker = grouping.producer.get(grouping.root[node.output[0]])
                if maker is not None and maker.name in names:
                    found.add(node.name)
        return found
