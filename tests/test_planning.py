# SPDX-License-Identifier: Apache-2.0
"""Plans by shapes: the bytes of the compiled program, and work only for what was never seen."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from transformer_program import Builder, transformer

from edgec.program import Program
from edgec.schedule.block_shapes import transformer_block
from edgec.schedule.memories import place_in_memories
from edgec.schedule.planning import Piece, Planner, ShapePlan, joined
from edgec.schedule.schedule import Wishes, schedule_program
from edgec.schedule.tile import Goal
from edgec.target import load_target

BOARD = load_target("stm32f746")


def compiled(program: Program, wishes: Wishes) -> ShapePlan:
    """What the compile makes of the whole program; it does not count flash and instructions apart."""
    scheduled = schedule_program(program, BOARD, "auto", wishes)
    plan, _, _ = place_in_memories(scheduled.program, scheduled.implementations, BOARD)
    weights = {name: p.values.nbytes for i in scheduled.implementations for name, p in i.constants.items()}
    assert scheduled.schedule_bound is not None
    assert scheduled.order_bound is not None
    return ShapePlan(
        plan.arena_bytes, plan.placement_bound_bytes, scheduled.schedule_bound, scheduled.order_bound, 0, 0,
        sum(weights.values()), sum(call.macs for call in program.calls),
    )  # fmt: skip


def same(got: ShapePlan, want: ShapePlan, weights: bool = False) -> None:
    for field in dataclasses.fields(ShapePlan):
        if getattr(want, field.name) and (weights or field.name != "weight_bytes"):
            assert getattr(got, field.name) == getattr(want, field.name), field.name


def with_weights(program: Program) -> Program:
    """The program with random weights where the piece has none."""
    rng = np.random.default_rng(0)
    tensors = dict(program.tensors)
    for name, tensor in program.tensors.items():
        if tensor.data is not None and name.endswith(".w"):
            tensors[name] = replace(tensor, data=rng.integers(-127, 128, tensor.type.shape).astype(np.int8))
    return replace(program, tensors=tensors)


@pytest.mark.parametrize("goal", ["ram", "balanced", "speed"])
@pytest.mark.parametrize(
    "shapes",
    [
        [(64, 96, 3, 32, 192)] * 4,
        [(49, 64, 2, 32, 128), (49, 64, 1, 16, 200), (49, 64, 2, 32, 128)],
        [(20, 24, 1, 12, 48), (20, 24, 3, 8, 100)],
    ],
)
def test_plan_by_shapes_is_that_of_the_compiled_program(goal: Goal, shapes: list[tuple[int, ...]]) -> None:
    pieces = [transformer_block(*shape) for shape in shapes]  # type: ignore[arg-type]
    same(Planner(BOARD, Wishes(goal)).plan(pieces), compiled(with_weights(joined(pieces)), Wishes(goal)))


@pytest.mark.parametrize("blocks", [1, 3])
def test_pieces_of_a_program(blocks: int) -> None:
    """A program of one builder, and its blocks, each a program of its own: plans do not ask for the values."""
    piece = Piece(transformer(24, 16, 2, 8, 2, 1, seed=5))
    got = Planner(BOARD).plan([piece] * blocks)
    same(got, compiled(transformer(24, 16, 2, 8, 2, blocks), Wishes()), weights=True)


def head(tokens: int, width: int) -> Piece:
    """A norm, a mean and a layer, whose input is read once: no segment begins there."""
    b = Builder(tokens, width)
    b.output(b.linear("head", b.mean("mean", b.norm("norm", "x")), 10))
    return Piece(b.program)


def test_a_piece_that_continues_the_segment_before_it() -> None:
    pieces = [transformer_block(20, 24, 3, 8, 48), transformer_block(20, 24, 3, 8, 48), head(20, 24)]
    planner = Planner(BOARD, Wishes("ram"))
    same(planner.plan(pieces), compiled(with_weights(joined(pieces)), Wishes("ram")))
    effort = replace(planner.effort)
    planner.plan([pieces[0], *pieces])
    assert planner.effort == effort


def test_known_blocks_are_not_searched_again() -> None:
    known, other, changed = (transformer_block(20, 24, 3, 8, hidden) for hidden in (48, 60, 64))
    planner = Planner(BOARD)
    planner.plan([known] * 12)
    planner.plan([other] * 12)
    assert (planner.effort.pieces, planner.effort.searches) == (2, 4)  # heads together and apart
    effort = replace(planner.effort)
    first = planner.plan([known, other] * 6)
    assert planner.plan([known, other] * 6) == first
    assert (planner.effort.pieces, planner.effort.searches) == (2, 4)
    assert planner.effort.layouts <= effort.layouts + 2
    planner.plan([*[known] * 6, changed, *[other] * 5])
    assert (planner.effort.pieces, planner.effort.searches) == (3, 6)


def test_equal_shapes_are_one_piece() -> None:
    assert transformer_block(20, 24, 3, 8, 48) is transformer_block(20, 24, 3, 8, 48)


def test_what_takes_more_than_there_is() -> None:
    plan = Planner(BOARD).plan([transformer_block(512, 512, 4, 64, 1024)])
    assert plan.arena_bytes > sum(span.size for span in BOARD.ram_spans()) - 4096


def test_pieces_that_do_not_fit_together() -> None:
    blocks = [transformer_block(20, 24, 3, 8, 48), transformer_block(20, 28, 3, 8, 48)]
    with pytest.raises(ValueError, match="cannot be"):
        Planner(BOARD).plan(blocks)
    with pytest.raises(ValueError, match="does not fit behind"):
        joined(blocks)


def test_only_what_pieces_can_be() -> None:
    program = transformer(9, 8, 1, 4, 2, 1)
    with pytest.raises(ValueError, match="is not a piece"):
        Piece(replace(program, outputs=[]))
    with pytest.raises(ValueError, match="for boards"):
        Planner(load_target("host-c"))
    with pytest.raises(ValueError, match="for boards"):
        Planner(BOARD, Wishes(levers=("order",)))
