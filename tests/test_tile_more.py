# SPDX-License-Identifier: Apache-2.0
"""Tiling of models that nobody named, of odd sizes: the bits of the unscheduled program, and what peaks promise.

Widths begin at 4: narrower norms run as generated code, which takes seconds to make.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from arena_model import run_in_arena
from hypothesis import given, settings
from hypothesis import strategies as st
from transformer_program import hybrid, mixer, nested, transformer

from edgec.artifact import load_artifact
from edgec.build import build
from edgec.emit.model import Built
from edgec.kernels.select import machine_of, select_kernels
from edgec.model import Model
from edgec.program import Program, evaluate
from edgec.run import open_artifact
from edgec.schedule import place, tile
from edgec.schedule.memories import place_in_memories
from edgec.schedule.problem import MemoryPlan
from edgec.schedule.row_graph import row_graph
from edgec.schedule.schedule import Scheduled, Wishes, schedule_program
from edgec.schedule.stages import ALIGNMENT
from edgec.schedule.tile import Goal, segments
from edgec.target import load_target

BOARD = load_target("stm32f746")
GOALS: tuple[Goal, ...] = ("ram", "balanced", "speed")


def inputs_of(program: Program) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    types = {p.tensor: program.tensors[p.tensor].type for p in program.inputs}
    return {name: rng.integers(-128, 128, t.shape).astype(np.int8) for name, t in types.items()}


def scheduled_for(program: Program, wishes: Wishes) -> tuple[Scheduled, MemoryPlan, dict[str, np.ndarray]]:
    """The scheduled program, its plan, and the outputs that it computes in that arena."""
    scheduled = schedule_program(program, BOARD, "auto", wishes)
    plan, _, _ = place_in_memories(scheduled.program, scheduled.implementations, BOARD)
    outputs = run_in_arena(scheduled.program, scheduled.implementations, plan, inputs_of(program))
    return scheduled, plan, outputs


def padded_peak(plan: MemoryPlan) -> int:
    """The most live bytes with every buffer filled up to its alignment, as tilings are compared by."""
    buffers = tuple(replace(b, size=-(-b.size // b.alignment) * b.alignment) for b in plan.problem.buffers)
    return replace(plan.problem, buffers=buffers).peak.live_bytes


def check(program: Program, exact: bool = True) -> None:
    """All goals: bits, bounds, and no peak is larger than that of a goal which cares less for memory.

    `exact` says that peaks are not merely estimated from above (a convolution's scratch may shrink with its rows).
    """
    want = evaluate(program, inputs_of(program))
    peaks = []
    for goal in GOALS:
        scheduled, plan, got = scheduled_for(program, Wishes(goal))
        again = evaluate(scheduled.program, inputs_of(program))
        for port in program.outputs:
            np.testing.assert_array_equal(got[port.tensor], want[port.tensor])
            np.testing.assert_array_equal(again[port.tensor], want[port.tensor])
        assert scheduled.schedule_bound is not None
        assert scheduled.order_bound is not None
        assert not exact or scheduled.schedule_bound <= padded_peak(plan)
        saved = dict(scheduled.saved)
        assert not exact or scheduled.schedule_bound <= saved["overlap"]
        assert saved["none"] >= saved["order"] >= saved["overlap"] >= scheduled.order_bound
        # The distance of an overlap is rounded up to the alignment, for the blocks chosen in the end.
        assert plan.placement_bound_bytes <= saved["tile"] + (0 if exact else ALIGNMENT)
        peaks.append(saved["tile"])
    assert peaks == sorted(peaks)
    assert peaks[0] == scheduled.schedule_bound


some = settings(max_examples=4, deadline=None)


@some
@given(
    tokens=st.integers(2, 21), heads=st.integers(1, 3), depth=st.integers(1, 9), width=st.integers(4, 20),
    ratio=st.integers(1, 4), blocks=st.integers(1, 2),
)  # fmt: skip
def test_transformers(tokens: int, heads: int, depth: int, width: int, ratio: int, blocks: int) -> None:
    check(transformer(tokens, width, heads, depth, ratio, blocks))


@some
@given(
    tokens=st.integers(2, 19), width=st.integers(4, 20), token_ratio=st.integers(1, 3), ratio=st.integers(1, 4),
    blocks=st.integers(1, 2),
)  # fmt: skip
def test_mixers(tokens: int, width: int, token_ratio: int, ratio: int, blocks: int) -> None:
    check(mixer(tokens, width, token_ratio, ratio, blocks))


@some
@given(
    side=st.integers(2, 11), channels=st.integers(4, 9), heads=st.integers(1, 3), depth=st.integers(1, 6),
    blocks=st.integers(0, 1),
)  # fmt: skip
def test_hybrids(side: int, channels: int, heads: int, depth: int, blocks: int) -> None:
    check(hybrid(side, channels, heads, depth, blocks), exact=False)


@settings(max_examples=3, deadline=None)
@given(
    patches=st.integers(2, 9), inner=st.integers(2, 8), width=st.integers(4, 8), outer_width=st.integers(4, 16),
    blocks=st.just(1),
)  # fmt: skip
def test_nested(patches: int, inner: int, width: int, outer_width: int, blocks: int) -> None:
    check(nested(patches, inner, width, outer_width, blocks), exact=False)


@pytest.mark.parametrize(
    ("program", "columns"),
    [
        # Rows of a product within each patch need that patch's keys: no block of them is a product of its own.
        (nested(8, 8, 4, 4, 1), 4),
        # Two values cross from each part to the next: cut there, or the search never ends.
        (nested(6, 4, 4, 6, 2), 6),
        (mixer(16, 8, 2, 2, 3), 8),
    ],
)
def test_models_that_once_failed(program: Program, columns: int) -> None:
    assert program.outputs[0].onnx_shape[1] == columns
    check(program, exact=False)


def test_two_streams_are_cut_into_segments() -> None:
    program = nested(8, 8, 4, 4, 3)
    deep, shallow = (schedule_program(p, BOARD, "auto", Wishes("ram")) for p in (program, nested(8, 8, 4, 4, 2)))
    assert deep.schedule_bound == shallow.schedule_bound
    parts = segments(row_graph(program, select_kernels(program, BOARD.cpu.features, "auto"), machine_of(BOARD)))
    assert max(len(part.works) for part in parts) < 40


@pytest.mark.parametrize(
    ("tokens", "width", "heads", "depth"),
    [(64, 96, 3, 32), (64, 96, 1, 32), (48, 64, 2, 32), (32, 64, 4, 16), (40, 60, 2, 20), (96, 48, 3, 16)],
)
def test_the_least_peak_of_a_block_is_the_theory_s(tokens: int, width: int, heads: int, depth: int) -> None:
    """x, the results of the other heads, keys and values of the last, and scratch of four rows: TD + (H+1)Td + s."""
    arena = scheduled_for(transformer(tokens, width, heads, depth, 2, 1), Wishes("ram"))[1].arena_bytes
    panels = 8 * depth + 16 + 8 * tokens + 4 * tokens  # of attention: queries and sums, probabilities, scores
    rows = 4 * (width + 2 * depth)  # normalised x, queries, mixed values
    assert arena <= tokens * width + (heads + 1) * tokens * depth + panels + rows


def test_plans_are_equal_every_time() -> None:
    def once() -> tuple[object, ...]:
        for cached in (tile._search, tile._cheapest, tile._grow, tile._options, place._in_one_space):
            cached.cache_clear()
        program = hybrid(8, 5, 2, 4, 1, seed=4)
        scheduled = schedule_program(program, BOARD, "auto", Wishes("balanced"))
        plan, _, _ = place_in_memories(scheduled.program, scheduled.implementations, BOARD)
        return scheduled.program.calls, scheduled.program.loops, scheduled.program.anchors, plan.placements

    assert once() == once()


@pytest.mark.parametrize("goal", ["ram", "balanced"])
@pytest.mark.parametrize("name", ["nested", "hybrid"])
def test_the_scheduled_program_in_c(name: str, goal: Goal, tmp_path: Path) -> None:
    program = nested(8, 8, 8, 16, 1) if name == "nested" else hybrid(9, 6, 2, 5, 1)
    values = inputs_of(program)
    want = evaluate(program, values)[program.outputs[0].tensor]
    scheduled = schedule_program(program, BOARD, "auto", Wishes(goal))
    new, kernels = scheduled.program, scheduled.implementations
    assert new.loops
    folder = tmp_path / "artifact"
    folder.mkdir()
    plan, state, weights = place_in_memories(new, kernels, BOARD)
    build(
        Built(new, kernels, plan, state, BOARD, weights, scheduled),
        Model(onnx.ModelProto(), program.name, "0" * 64),
        folder,
    )
    with open_artifact(load_artifact(folder), "host-c") as runner:
        (got,) = runner.run([values[p.tensor].tobytes() for p in program.inputs])
    np.testing.assert_array_equal(np.frombuffer(got, np.int8).reshape(want.shape), want)
