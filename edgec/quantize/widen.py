# SPDX-License-Identifier: Apache-2.0
"""int16 for the tensors where it pays: chosen by measurement until the loss is within its budget."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.errors import UnsupportedError
from edgec.model import value_shapes
from edgec.quantize.fidelity import Fidelity, decibels
from edgec.quantize.groups import WIDE_PRODUCERS, Group
from edgec.quantize.plan import Plan


@dataclass(frozen=True)
class Widening:
    """What the choice came to.

    Attributes:
        plan: the plan with the chosen tensors as int16.
        names: the chosen groups, most useful first.
        gains: by how many dB the outputs come closer to float when the group alone is int16.
        more_bytes: what the chosen activations take more than in int8, together. They do not all live at
            once, so the arena grows by less.
        before, after: loss in points in int8 and as chosen.
    """

    plan: Plan
    names: tuple[str, ...]
    gains: dict[str, float]
    more_bytes: int
    before: float
    after: float


def widen(plan: Plan, fidelity: Fidelity, max_loss: float) -> Widening:
    """Widen tensors, the residual stream first, until `fidelity.loss` is at most `max_loss` points.

    Then whatever can go back to int8 within the budget does, the least useful first.

    Raises:
        UnsupportedError: not even all tensors that can be int16 keep the loss within the budget.
    """
    before = fidelity.loss(plan.write())
    candidates = [g for g in plan.grouping.groups if plan.grouping.can_widen(g)]
    if before <= max_loss:
        return Widening(plan, (), {}, 0, before, before)
    base = decibels(fidelity.noise(plan.write()))
    gains = {g.name: decibels(fidelity.noise(plan.widened([g.name]).write())) - base for g in candidates}
    order = sorted(candidates, key=lambda g: (not _in_stream(g, plan), -gains[g.name]))
    chosen: list[str] = []
    loss = before
    for group in order:
        chosen.append(group.name)
        loss = fidelity.loss(plan.widened(chosen).write())
        if loss <= max_loss:
            break
    if loss > max_loss:
        raise UnsupportedError(
            f"{plan.model.name} loses more than --max-loss allows, even with int16 wherever there is an integer form",
            need=f"at most {max_loss:g} points",
            have=f"{before:.3g} in int8, {loss:.3g} with {len(chosen)} int16 tensors",
            hint="`edgec quantize --report` names the operator that breaks; or --precision float32",
        )
    for name in sorted(chosen, key=gains.__getitem__):
        fewer = [n for n in chosen if n != name]
        if (without := fidelity.loss(plan.widened(fewer).write())) <= max_loss:
            chosen, loss = fewer, without
    return Widening(plan.widened(chosen), tuple(chosen), gains, more_bytes(plan, chosen), before, loss)


def more_bytes(plan: Plan, names: list[str]) -> int:
    """Bytes that these groups' activations take more as int16 than as int8; constants are flash, not RAM."""
    shapes = value_shapes(plan.model.proto)
    roots = [r for g in plan.grouping.groups if g.name in names for r in g.roots if r in plan.grouping.producer]
    total = 0
    for root in roots:
        elements = 1
        for d in shapes[root]:
            elements *= d
        total += elements
    return total


def _in_stream(group: Group, plan: Plan) -> bool:
    """Whether the group is the residual stream: a sum that further sums read."""
    grouping = plan.grouping
    return any(
        root in grouping.producer and any(node.op_type in WIDE_PRODUCERS for node in grouping.consumers(root))
        for root in group.roots
    )
