# SPDX-License-Identifier: Apache-2.0
"""`edgec bench operators`: every hand-written kernel is measured, and none becomes dearer than it was committed."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from edgec.bench.cases import CASES, BenchCase, select_cases, units
from edgec.bench.operators import Bench, Result, measure, report
from edgec.errors import UsageError
from edgec.kernels import kernels_for
from edgec.operators import get_operator, operators
from edgec.target import load_target
from tests.command_line import done

BOARDS = {"cortex-m7": "stm32f746", "cortex-m4": "stm32f407"}
NOT_REACHED = {"add_s8 64x96", "add_s8 47x191"}
"""Goals that are open."""
CEILINGS = json.loads((Path(__file__).parent / "kernel_ceilings.json").read_text())


@functools.cache
def measured(board: str) -> list[Result]:
    return measure(CASES, load_target(board))


def test_every_case_has_a_name_of_its_own_and_values_that_its_operator_takes() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    for bench in CASES:
        case = bench.make()
        unit, number = units(bench.op, case)
        result = get_operator(bench.op).run(case.inputs, case.attrs)
        assert number > 0
        assert unit in ("MAC", "element")
        assert len(np.unique(result)) >= min(3, result.size), (
            bench.name
        )  # a result that does not depend on its input measures nothing


def test_every_hand_written_kernel_is_measured() -> None:
    features = frozenset().union(*(load_target(board).cpu.features for board in BOARDS.values()))
    registered = {kernel.name for op in operators() for kernel in kernels_for(op, features)}
    assert registered == {r.ours.kernel for b in BOARDS.values() for r in measured(b)} - {"generated"}


@pytest.mark.parametrize("board", BOARDS.values())
def test_no_kernel_is_dearer_than_its_committed_ceiling(board: str) -> None:
    """scripts/kernels.py --write lowers ceilings and never raises one."""
    hand = {r.case.name: r.ours.instructions for r in measured(board) if r.ours.kernel != "generated"}
    assert hand.keys() == CEILINGS[board].keys()
    assert {n: (c, CEILINGS[board][n]) for n, c in hand.items() if c > CEILINGS[board][n]} == {}


@pytest.mark.parametrize("board", BOARDS.values())
def test_the_goals_of_the_kernel_library_are_reached(board: str) -> None:
    over = {r.case.name for r in measured(board) if r.case.limit is not None and r.per_unit > r.case.limit}
    assert over == NOT_REACHED


def test_counts_do_not_depend_on_what_is_measured_beside() -> None:
    board = load_target("stm32f746")
    together = {r.case.name: r for r in measured(board.name)}
    for result in measure(select_cases(["softmax_s8", "linear_s8"]), board, generated=True):
        assert result.ours.instructions == together[result.case.name].ours.instructions
        assert result.generated is not None
        assert result.generated.instructions > result.ours.instructions
        assert (result.unit, result.units) == (together[result.case.name].unit, together[result.case.name].units)


def test_a_case_counts_all_that_belongs_to_its_call() -> None:
    """The packing of an activation at run time is part of the product that wanted it."""
    cases = select_cases(["matmul_s8"])
    bench = Bench(cases)
    bench.implementations(load_target("stm32f746"), generated=False)
    assert len(bench.program.calls) > len(cases)
    assert {call.name.partition(".")[0] for call in bench.program.calls} == {str(i) for i in range(len(cases))}


def test_units() -> None:
    def of(op: str, label: str) -> tuple[str, int]:
        (case,) = [c for c in CASES if (c.op, c.label) == (op, label)]
        return units(op, case.make())

    assert of("linear_s8", "48x192x192") == ("MAC", 48 * 192 * 192)
    assert of("matmul_s8", "49x49x64, softmax left") == ("MAC", 49 * 49 * 64)
    assert of("softmax_s8", "49x49") == ("element", 49 * 49)
    assert of("max_pool_s8", "24x24x32, 2x2") == ("element", 24 * 24 * 32)


def test_the_report_and_the_command() -> None:
    board = load_target("stm32f746")
    result = report(measure(select_cases(["softmax_s8"]), board), board)
    assert result["core"] == "cortex-m7"
    assert [r["shape"] for r in result["operators"]] == [c.label for c in CASES if c.op == "softmax_s8"]
    for row in result["operators"]:
        assert row["instructions_per_unit"] == row["instructions"] / row["units"]
        assert row["generated_instructions"] is None
    answer = done("bench", "operators", "--target", "stm32f746", "--op", "softmax_s8", "--hand", "--json")
    assert answer.json == result
    lines = done("bench", "operators", "--target", "stm32f746", "--op", "softmax_s8", "--hand").out.splitlines()
    assert len(lines) == 2 + len(result["operators"])


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="is not a board"):
        measure(CASES[:1], load_target("host-c"))
    with pytest.raises(UsageError, match="no benchmark case of 'softmax'"):
        select_cases(["softmax"])


def test_a_case_of_an_operator_without_hand_kernel() -> None:
    """Its inputs are in no pool."""
    values = next(get_operator("top_k_s8").samples(np.random.default_rng(0)))
    (result,) = measure([BenchCase("top_k_s8", "any", lambda: values)], load_target("stm32f407"), generated=True)
    assert (result.ours.kernel, result.generated) == ("generated", None)
    assert result.ours.instructions > 0
