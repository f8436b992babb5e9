# SPDX-License-Identifier: Apache-2.0
"""What a model would take, before there is one: plans by shapes alone, for whoever asks thousands of times.

A model is a row of pieces, each with one input and one output: a patch embedding, the blocks, a head. What is known of
a piece (its kernels, the schedules worth having, what its buffers are in each) does not depend on its neighbours, so a
`Planner` remembers it; a row of known pieces costs only the choice between schedules and the placement. Nothing is
emitted, generated or built. Constants count by their types: any values will do that the kernels accept.

Why that is so: a single value crosses between two pieces, and a piece whose input is read by several operators, or
whole, begins a segment of `edgec.schedule.tile` in any program. A piece whose output takes the bytes of its input
leaves nothing behind: the same piece again, or later, asks nothing new of the placement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edgec.errors import FitError
from edgec.kernels.select import Choice
from edgec.program import Call, Port, Program, Tensor
from edgec.schedule.from_program import StateLayout, problem_of
from edgec.schedule.heads import split_heads
from edgec.schedule.loosen import plan_loosely
from edgec.schedule.memories import memory_spaces
from edgec.schedule.problem import Buffer, MemoryPlan, Problem, Space
from edgec.schedule.rows import RowGraph
from edgec.schedule.schedule import Form, Wishes, allowed, flash_cost
from edgec.schedule.stages import Schedule
from edgec.schedule.tile import Chosen, Tiling, choose, combined, order_bound, searched, segments, tiling_of
from edgec.target import Target

_ROOM = 2**40


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a model: a program with one input and one output, without state or kernels; known by its identity."""

    program: Program

    def __post_init__(self) -> None:
        if len(self.program.inputs) != 1 or len(self.program.outputs) != 1 or self.program.states:
            raise ValueError(f"{self.program.name} is not a piece: one input, one output, no state")


@dataclass(frozen=True)
class ShapePlan:
    """What a row of pieces takes.

    Attributes:
        arena_bytes: of the plan that was found.
        placement_bound_bytes: no placement of its schedule takes fewer.
        schedule_bound: no tiling that was considered has a smaller sum of live bytes.
        order_bound: nor has any order of whole operators.
        instructions: estimate, as the scheduler compares them.
        flash_read_bytes: bytes of weights that a run reads.
        weight_bytes: bytes of constants in flash as the kernels want them; equal ones of two pieces count twice.
        macs: multiply-accumulates.
    """

    arena_bytes: int
    placement_bound_bytes: int
    schedule_bound: int
    order_bound: int
    instructions: int
    flash_read_bytes: int
    weight_bytes: int
    macs: int


@dataclass
class Effort:
    """How often a planner did what takes long: looked into pieces, searched their schedules, laid out their buffers."""

    pieces: int = 0
    searches: int = 0
    layouts: int = 0


@dataclass(frozen=True)
class _Layout:
    """The buffers of a piece under one schedule; which of them are its input and its output (maybe one)."""

    buffers: tuple[Buffer, ...]
    steps: int
    weights: int
    source: str
    result: str


@dataclass
class _Known:
    """One form (heads together or apart) of a piece."""

    form: Form
    graph: RowGraph
    parts: list[RowGraph]
    order_bound: int
    schedules: dict[float, list[tuple[Schedule, ...]]] = field(default_factory=dict)
    layouts: dict[Chosen, _Layout] = field(default_factory=dict)


class Planner:
    """Plans for one target, with one set of wishes; remembers the pieces it has seen."""

    def __init__(self, target: Target, wishes: Wishes | None = None, choice: Choice = "auto") -> None:
        self.target = target
        self.wishes = wishes or Wishes()
        if not target.ram_spans() or self.wishes.feed != "whole" or "tile" not in self.wishes.levers:
            raise ValueError("plans by shapes are for boards, images that come whole, and schedules with tiling")
        self.choice: Choice = choice
        self.effort = Effort()
        self._known: dict[tuple[Piece, ...], tuple[_Known, _Known]] = {}

    def plan(self, pieces: Sequence[Piece]) -> ShapePlan:
        """What the pieces take, one after the other.

        Raises:
            ValueError: the output of a piece is not the input of the next.
        """
        forms = tuple(zip(*(self._look(group) for group in self._groups(pieces)), strict=True))
        weights = sum(known.form.weights for known in forms[0])
        cost = flash_cost(self.target, weights)
        found: dict[Tiling, tuple[tuple[_Known, ...], Chosen]] = {}
        for group in forms:
            for chosen in combined([o for known in group for o in self._schedules(known, cost)], cost):
                found[_sums(chosen)] = group, chosen
        tiling = choose(list(found), self.wishes.goal, cost, self.wishes.arena)
        layouts = self._laid_out(*found[tiling])
        plan = self._placed(layouts)
        return ShapePlan(
            plan.arena_bytes,
            plan.placement_bound_bytes,
            min(t.peak for t in found),
            min(max(known.order_bound for known in group) for group in forms),
            tiling.instructions,
            tiling.flash_bytes,
            sum(layout.weights for layout in layouts),
            sum(call.macs for known in forms[0] for call in known.form.program.calls),
        )

    def _groups(self, pieces: Sequence[Piece]) -> list[tuple[Piece, ...]]:
        """The pieces; those at whose beginning no segment begins together with the one before."""
        groups: list[tuple[Piece, ...]] = []
        for piece in pieces:
            if groups and not all(_begins(known) for known in self._look((piece,))):
                groups[-1] = (*groups[-1], piece)
            else:
                groups.append((piece,))
        return groups

    def _look(self, group: tuple[Piece, ...]) -> tuple[_Known, _Known]:
        """What is known of both forms of a piece, or of several together."""
        if group not in self._known:
            self.effort.pieces += 1
            program = joined(group)
            self._known[group] = (self._form(program), self._form(split_heads(program)))
        return self._known[group]

    def _form(self, program: Program) -> _Known:
        form = Form.of(program, self.target, self.choice)
        graph = allowed(form.graph, self.wishes.levers)
        return _Known(form, graph, segments(graph), order_bound(form.graph))

    def _schedules(self, known: _Known, cost: float) -> list[tuple[Schedule, ...]]:
        if cost not in known.schedules:
            self.effort.searches += 1
            known.schedules[cost] = [searched(part, cost) for part in known.parts]
        return known.schedules[cost]

    def _laid_out(self, group: Sequence[_Known], chosen: Chosen) -> list[_Layout]:
        layouts, first = [], 0
        for known in group:
            last = first + len(known.parts)
            layouts.append(self._layout(known, chosen[first:last]))
            first = last
        return layouts

    def _layout(self, known: _Known, chosen: Chosen) -> _Layout:
        if chosen not in known.layouts:
            self.effort.layouts += 1
            program, implementations = known.form.tiled(tiling_of(known.parts, chosen), self.target, self.choice)
            problem = problem_of(program, implementations, [Space("any", _ROOM)], "")
            ends = (program.storage(port.tensor) for port in (*program.inputs, *program.outputs))
            constants = {name: p.values.nbytes for i in implementations for name, p in i.constants.items()}
            known.layouts[chosen] = _Layout(problem.buffers, len(program.calls), sum(constants.values()), *ends)
        return known.layouts[chosen]

    def _placed(self, layouts: Sequence[_Layout]) -> MemoryPlan:
        """All buffers in one arena; where they do not fit the target, in a larger one."""
        buffers = _in_a_row(_distinct(layouts))
        try:
            return plan_loosely(Problem(buffers, tuple(memory_spaces(self.target, StateLayout({}, 0))[0])))
        except FitError:
            return plan_loosely(Problem(buffers, (Space("any", _ROOM),)))


def joined(pieces: Sequence[Piece]) -> Program:
    """The program of pieces one after the other.

    Raises:
        ValueError: the output of a piece has other bytes than the input of the next.
    """
    if len(pieces) == 1:
        return pieces[0].program
    tensors: dict[str, Tensor] = {}
    calls: list[Call] = []
    before = ""
    for i, piece in enumerate(pieces):
        program = piece.program
        for tensor in program.tensors.values():
            view = None if tensor.view_of is None else f"{i}/{tensor.view_of}"
            tensors[f"{i}/{tensor.name}"] = replace(tensor, name=f"{i}/{tensor.name}", view_of=view)
        source, result = (f"{i}/{port.tensor}" for port in (*program.inputs, *program.outputs))
        if before:
            if tensors[before].type.bytes != tensors[source].type.bytes:
                raise ValueError(f"{program.name} does not fit behind {pieces[i - 1].program.name}")
            tensors[source] = replace(tensors[source], view_of=before)
        before = result
        for call in program.calls:
            operands = tuple(f"{i}/{n}" for n in call.inputs), tuple(f"{i}/{n}" for n in call.outputs)
            calls.append(replace(call, name=f"{i}/{call.name}", inputs=operands[0], outputs=operands[1]))
    ports = (Port("x", f"0/{pieces[0].program.inputs[0].tensor}", pieces[0].program.inputs[0].onnx_shape),
             Port("y", before, pieces[-1].program.outputs[0].onnx_shape))  # fmt: skip
    functions = {name: f for piece in pieces for name, f in piece.program.functions.items()}
    macs = sum(call.macs for call in calls)
    return Program("pieces", tensors, calls, [ports[0]], [ports[1]], [], functions, macs)


def _begins(known: _Known) -> bool:
    """Whether a segment begins with the piece wherever it stands."""
    program = known.form.program
    value = program.storage(program.inputs[0].tensor)
    works = known.graph.works
    return any(value in w.whole for w in works) or sum(value in w.rows for w in works) > 1


def _distinct(layouts: Sequence[_Layout]) -> list[_Layout]:
    """Without those that run on the same bytes as an equal one before: where they find room, it does."""
    found: list[_Layout] = []
    since: set[int] = set()  # layouts since the value that crosses lies where it does
    for layout in layouts:
        if layout.source != layout.result:
            since = set()
        elif id(layout) in since:
            continue
        else:
            since.add(id(layout))
        found.append(layout)
    return found


def _sums(chosen: Chosen) -> Tiling:
    """A tiling's numbers without its stages."""
    grown = [g for _, g in chosen]
    peak = max(g.peak for g in grown)
    return Tiling((), (), peak, sum(g.instructions for g in grown), sum(g.flash_bytes for g in grown))


def _in_a_row(layouts: Sequence[_Layout]) -> tuple[Buffer, ...]:
    """The buffers of layouts that run one after the other; the result of each is the source of the next."""
    found: dict[str, Buffer] = {}
    begin, crossing = 0, ""
    for i, layout in enumerate(layouts):
        names = {b.name: f"{i}/{b.name}" for b in layout.buffers}
        if crossing:
            names[layout.source] = crossing
        for b in layout.buffers:
            name, first, last = names[b.name], begin + b.first, begin + b.last
            anchor = None if b.anchor is None else (names[b.anchor[0]], b.anchor[1])
            if name in found:
                known = found[name]
                if known.size != b.size:
                    raise ValueError(f"{b.size:,} B cannot be {known.size:,} B that the piece before makes")
                anchor, first = known.anchor, known.first
            found[name] = Buffer(name, b.size, first, last, b.alignment, b.allowed, anchor)
        begin, crossing = begin + layout.steps, names[layout.result]
    return tuple(found.values())
