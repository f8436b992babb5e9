# SPDX-License-Identifier: Apache-2.0
"""Phase 5 of the compile, but for the offsets: kernels, order, tiling and overlap of a program for its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgec.kernels.select import (
    Choice,
    Implementation,
    machine_of,
    select_kernel,
    select_kernels,
    share_packing,
)
from edgec.program import Call, Program
from edgec.schedule.blocks import apply
from edgec.schedule.feed import Feeding, by_rows, by_strips, require_feedable
from edgec.schedule.heads import split_heads
from edgec.schedule.row_graph import row_graph
from edgec.schedule.rows import RowGraph
from edgec.schedule.tile import Goal, Tiling, choose, frontier, order_bound, untiled
from edgec.target import Target

Lever = Literal["order", "overlap", "tile", "place"]
LEVERS: tuple[Lever, ...] = ("order", "overlap", "tile", "place")
"""What the scheduler may do, each on top of the ones before it; what feeds an image by rows is a matter of the API."""
_LINE = 32
"""Bytes of weights that one wait for flash brings."""


@dataclass(frozen=True)
class Wishes:
    """What a schedule is for.

    Attributes:
        goal: see `edgec.schedule.tile.choose`.
        arena: most bytes of arena, or None for what the target has.
        levers: what the scheduler may do.
        feed: whether the input comes by rows.
    """

    goal: Goal = "balanced"
    arena: int | None = None
    levers: Sequence[Lever] = LEVERS
    feed: Feeding = "whole"


@dataclass(frozen=True)
class Scheduled:
    """A program as it will run.

    Attributes:
        program: its calls in order, with loops.
        implementations: the kernel of each call.
        order_bound: no order of the operators, each run whole, has a smaller sum of live bytes.
        schedule_bound: no tiling that was considered has one.
        saved: the sum of live bytes at the peak with each lever on top of those before it, by the lever; the first
            entry, "none", is the order of the graph.
    """

    program: Program
    implementations: list[Implementation]
    order_bound: int | None = None
    schedule_bound: int | None = None
    saved: tuple[tuple[str, int], ...] = ()


def schedule_program(program: Program, target: Target, choice: Choice, wishes: Wishes | None = None) -> Scheduled:
    """The program as it will run on `target`.

    Programs with state and those for a computer run call by call, as they are.

    Raises:
        UsageError: the input cannot be fed by rows.
    """
    wishes = wishes or Wishes()
    if wishes.feed == "rows":
        require_feedable(program, target)
    features = target.cpu.features
    if not target.ram_spans() or program.states or not program.calls:
        plain = replace(program, calls=list(program.calls), tensors=dict(program.tensors))
        return Scheduled(plain, select_kernels(plain, features, choice, machine_of(target)))
    forms = [Form.of(form, target, choice) for form in (program, split_heads(program))]
    tiling, found = _tile(forms, target, wishes)
    new, implementations = found[tiling].tiled(tiling, target, choice)
    return Scheduled(
        new,
        implementations,
        min(order_bound(form.graph) for form in forms),
        min(t.peak for t in found),
        _savings(forms, target, wishes, tiling),
    )


def _tile(forms: Sequence[Form], target: Target, wishes: Wishes) -> tuple[Tiling, dict[Tiling, Form]]:
    """The tiling that serves the wishes best, and all that were found with what they are tilings of."""
    cost = flash_cost(target, forms[0].weights)
    found: dict[Tiling, Form] = {}
    for form in forms:
        graph = allowed(form.graph, wishes.levers)
        if wishes.feed == "rows":
            graph = by_rows(form.program, graph)
        tilings = frontier(graph, cost) if "tile" in wishes.levers else [untiled(graph, "order" in wishes.levers)]
        found |= dict.fromkeys(tilings if wishes.feed == "whole" else by_strips(form.program, tilings), form)
    return choose(list(found), wishes.goal, cost, wishes.arena), found


def flash_cost(target: Target, weights: int) -> float:
    """Instructions that reading a byte is worth, of `weights` bytes of which the internal flash holds what it can."""
    inside = min(1.0, target.internal_flash().size / max(weights, 1))
    slowest = max(region.wait_states for region in target.flash_regions())
    return (inside * machine_of(target).flash_wait_states + (1 - inside) * slowest) / _LINE


@dataclass(frozen=True)
class Form:
    """One way to write a program, with kernels and what tiling sees of it."""

    program: Program
    implementations: list[Implementation]
    graph: RowGraph
    weights: int

    @staticmethod
    def of(program: Program, target: Target, choice: Choice) -> Form:
        """The form with the kernels that `target` runs."""
        selected = replace(program, calls=list(program.calls), tensors=dict(program.tensors))
        implementations = select_kernels(selected, target.cpu.features, choice, machine_of(target))
        graph = row_graph(selected, implementations, machine_of(target))
        weights = sum(p.values.nbytes for i in implementations for p in i.constants.values())
        return Form(selected, implementations, graph, weights)

    def tiled(self, tiling: Tiling, target: Target, choice: Choice) -> tuple[Program, list[Implementation]]:
        """The scheduled program and the kernel of every call."""
        features, machine = target.cpu.features, machine_of(target)

        def implement(
            part: Program, call: Call, panel: int, packed: Mapping[str, str], only: str | None
        ) -> tuple[Call, Implementation]:
            return select_kernel(part, call, features, choice, machine, panel, packed, only)

        def pack(part: Program, call: Call, implementation: Implementation) -> tuple[Call, Implementation]:
            return share_packing(part, call, implementation, machine)

        return apply(tiling, self.program, self.implementations, implement, pack)


def allowed(graph: RowGraph, levers: Sequence[Lever]) -> RowGraph:
    """The graph without what the levers do not allow."""
    if "overlap" in levers:
        return graph
    return replace(graph, works=tuple(replace(w, over=()) for w in graph.works))


def _savings(forms: Sequence[Form], target: Target, wishes: Wishes, chosen: Tiling) -> tuple[tuple[str, int], ...]:
    graph = forms[0].graph
    apart = allowed(graph, ())
    saved = (
        ("none", untiled(apart, ordered=False).peak),
        ("order", untiled(apart, ordered=True).peak),
        ("overlap", untiled(graph, ordered=True).peak),
    )
    if wishes.feed == "whole":
        return (*saved, ("tile", chosen.peak))
    return (*saved, ("tile", _tile(forms, target, replace(wishes, feed="whole"))[0].peak), ("rows", chosen.peak))
