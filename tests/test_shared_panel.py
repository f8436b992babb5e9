# SPDX-License-Identifier: Apache-2.0
"""What several dense layers pack is packed once: bits, bytes and when it happens, for any way to cut the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from arena_model import run_in_arena
from hypothesis import given, settings
from hypothesis import strategies as st
from transformer_program import Builder, transformer

from edgec.kernels.select import (
    PREPARE,
    Implementation,
    machine_of,
    select_kernel,
    select_kernels,
    share_packing,
    shared_packing,
)
from edgec.program import Call, Port, Program, evaluate
from edgec.schedule.blocks import apply
from edgec.schedule.heads import split_heads
from edgec.schedule.memories import place_in_memories
from edgec.schedule.row_graph import row_graph
from edgec.schedule.schedule import Wishes, schedule_program
from edgec.schedule.stages import Blocking, Stage, live_bytes, stages_of
from edgec.schedule.tile import Goal, Tiling, _blockings, frontier
from edgec.target import load_target

BOARD = load_target("stm32f746")
MACHINE = machine_of(BOARD)
PACK = "edgec_pack_panel_s8"


def selected(program: Program) -> tuple[Program, list[Implementation]]:
    copy = replace(program, calls=list(program.calls), tensors=dict(program.tensors))
    return copy, select_kernels(copy, BOARD.cpu.features, "auto", MACHINE)


def applied(tiling: Tiling, program: Program, kernels: list[Implementation]) -> tuple[Program, list[Implementation]]:
    def implement(
        part: Program, call: Call, panel: int, packed: Mapping[str, str], only: str | None
    ) -> tuple[Call, Implementation]:
        return select_kernel(part, call, BOARD.cpu.features, "auto", MACHINE, panel, packed, only)

    def pack(part: Program, call: Call, implementation: Implementation) -> tuple[Call, Implementation]:
        return share_packing(part, call, implementation, MACHINE)

    return apply(tiling, program, kernels, implement, pack)


def check(new: Program, kernels: list[Implementation], original: Program, most: int) -> None:
    """Bits in the arena, which takes no more live bytes than were planned."""
    plan, _, _ = place_in_memories(new, kernels, BOARD)
    rng = np.random.default_rng(1)
    values = {
        p.tensor: rng.integers(-128, 128, original.tensors[p.tensor].type.shape).astype(np.int8)
        for p in original.inputs
    }
    want, got, again = evaluate(original, values), run_in_arena(new, kernels, plan, values), evaluate(new, values)
    for port in original.outputs:
        np.testing.assert_array_equal(got[port.tensor], want[port.tensor])
        np.testing.assert_array_equal(again[port.tensor], want[port.tensor])
    assert plan.placement_bound_bytes <= most


@st.composite
def tilings(draw: st.DrawFn) -> tuple[Program, Program, list[Implementation], Tiling]:
    """A transformer, its form with kernels, and a tiling of it with blocks as they come."""
    tokens, width, heads = draw(st.integers(2, 24)), draw(st.integers(4, 20)), draw(st.integers(1, 3))
    original = transformer(tokens, width, heads, draw(st.integers(1, 6)), draw(st.integers(1, 2)), 1)
    program, kernels = selected(split_heads(original) if draw(st.booleans()) else original)
    graph = row_graph(program, kernels, MACHINE)
    found = draw(st.sampled_from(frontier(graph)))
    blocks = tuple(draw(st.sampled_from(_blockings(s))) for s in found.stages)
    return original, program, kernels, replace(found, blocks=blocks, peak=max(live_bytes(graph, found.stages, blocks)))


@settings(deadline=None, max_examples=60)
@given(tilings())
def test_any_blocks_keep_the_bits_and_take_what_is_planned(
    case: tuple[Program, Program, list[Implementation], Tiling],
) -> None:
    original, program, kernels, tiling = case
    check(*applied(tiling, program, kernels), original, tiling.peak)


@pytest.mark.parametrize("goal", ["ram", "balanced", "speed"])
def test_queries_keys_and_values_share_a_panel(goal: Goal) -> None:
    original = transformer(64, 96, 3, 32, 2, 1)
    scheduled = schedule_program(original, BOARD, "auto", Wishes(goal))
    new, kernels = scheduled.program, scheduled.implementations
    check(new, kernels, original, dict(scheduled.saved)["tile"])
    packed = [c.outputs[0] for c, k in zip(new.calls, kernels, strict=True) if k.function == PACK]
    readers = [sum(name in c.inputs for c in new.calls) for name in packed]
    assert packed
    assert min(readers) >= 2
    for call, kernel in zip(new.calls, kernels, strict=True):
        assert call.op != "linear_s8" or (call.inputs[0] in packed) != bool(kernel.scratch)


def three_layers() -> Program:
    """x0 is packed for three layers, and added to the result of one between them."""
    b = Builder(12, 8)
    x = b.norm("x0", "x")
    q, k = b.linear("q", x, 8), b.linear("k", x, 8)
    middle, v = b.add("middle", x, q), b.linear("v", x, 8)
    b.program.outputs[:] = [Port(n, n, b.program.tensors[n].type.shape) for n in (k, middle, v)]
    return b.program


def test_a_block_dies_when_it_is_packed_unless_somebody_else_reads_it() -> None:
    program, kernels = selected(three_layers())
    graph = row_graph(program, kernels, MACHINE)
    stage = Stage(graph, tuple(range(5)), ("k", "middle", "v"))
    size, plain = Blocking(4, 4, shared=True), Blocking(4, 4)
    assert [w.writes for w in stage.members] == ["x0", "q", "k", "middle", "v"]
    assert stage.packings == ((1, 2, 4),)
    assert stage.last_reads(plain)["x0"] == 2 * 4 + 1
    assert stage.last_reads(size)["x0"] == 2 * 3 + 1
    assert stage.local_bytes(size) == stage.local_bytes(plain) == 4 * (8 + 8 + 16)
    assert stage.instructions(plain) - stage.instructions(size) == 2 * stage.members[1].packing - 3 * 60
    alone = Stage(graph, (0, 2, 4), ("k", "v"))
    assert alone.last_reads(size)["x0"] == 2 * 1
    assert alone.local_bytes(size) == alone.local_bytes(plain) == 4 * (8 + 16)
    tiling = Tiling((stage,), (size,), live_bytes(graph, [stage], [size])[0], 0, 0)
    check(*applied(tiling, program, kernels), program, tiling.peak)


def test_what_a_layer_reads_twice_is_not_shared() -> None:
    """x + f(x) in one call: the bytes are needed as they are."""
    program, kernels = selected(three_layers())
    graph = row_graph(program, kernels, MACHINE)
    assert [w.packs for w in graph.works if w.name in ("q", "k", "v")] == [("x0", 8)] * 3
    assert all(w.packs is None for w in graph.works if w.name in ("x0", "middle"))
    assert all(s.packings == () for s in stages_of(graph, graph.sizes))
    for call, kernel in zip(program.calls, kernels, strict=True):
        prepared = shared_packing(program, call, kernel, MACHINE)
        assert (prepared is not None) == (call.op == "linear_s8")
        assert call.op != PREPARE
