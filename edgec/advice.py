# SPDX-License-Identifier: Apache-2.0
"""What would make a program fit that does not: every answer was planned with that change, none is guessed."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.artifact import load_artifact
from edgec.build import build
from edgec.emit.model import Built
from edgec.errors import EdgecError, FitError
from edgec.kernels.share import share_equal
from edgec.schedule.memories import arena_room, place_in_memories
from edgec.schedule.schedule import Wishes, schedule_program
from edgec.target import Target, list_targets, load_target

if TYPE_CHECKING:
    from edgec.compile import Options, Samples
    from edgec.model import Model
    from edgec.program import Program

Lower = Callable[["Model", "Options"], "Program"]
"""Phases 1 to 4 of the compile."""
_ELSE = "a model with fewer tokens, a smaller image or a narrower width"
_SAMPLES = 2


@dataclass(frozen=True)
class Case:
    """What was asked for and does not fit.

    Attributes:
        model: as it was read.
        program: what became of it.
        target, options: they.
        lower: makes the program of other options, or of another model.
        tell: told what takes its time.
    """

    model: Model
    program: Program
    target: Target
    options: Options
    lower: Lower
    tell: Callable[[str], None] = lambda _: None


@contextlib.contextmanager
def advised(case: Case) -> Iterator[None]:
    """A FitError from within gets hints: what was tried and fits, the smallest change first."""
    try:
        yield
    except FitError as error:
        case.tell("it does not fit: plan what would")
        error.hints = tuple(remedies(case)) or (_ELSE,)
        raise


def remedies(case: Case) -> list[str]:
    """Changes that make the case fit, one line each."""
    found = [(change, bytes_) for change, bytes_ in _changes(case) if bytes_ is not None]
    width = max((len(change) for change, _ in found), default=0)
    what = "arena {:,} B" if case.options.ram is None else "{:,} B of RAM"
    return [f"{change:<{width}}  fits: {what.format(size)}" for change, size in found]


def _changes(case: Case) -> Iterator[tuple[str, int | None]]:
    """Each change with the bytes that it takes where it fits (see `planned`)."""
    program, target, options = case.program, case.target, case.options
    schedules = []
    if options.optimize != "ram":
        schedules.append(("--optimize ram", replace(options, optimize="ram")))
    if options.feed == "whole":
        schedules.append(("--feed rows", replace(options, feed="rows")))
        schedules.append(("--feed rows --optimize ram", replace(options, feed="rows", optimize="ram")))
    for change, other in schedules:
        size = planned(case, program, target, other)
        if size is not None:
            yield change, size
            break
    if options.precision == "float32":
        yield "--precision int8", _as_int8(case)
    if options.ram is None:
        yield _other_target(case)
    yield from _smaller_models(case)


def planned(case: Case, program: Program, target: Target, options: Options) -> int | None:
    """Bytes that the program takes with these options, None where it does not fit or cannot run so.

    Of arena, as planned; with a limit on all RAM, of RAM, as linked.
    """
    try:
        wishes = Wishes(options.optimize, arena_room(program, target, options.ram), options.levers, options.feed)
        scheduled = schedule_program(program, target, options.kernels, wishes)
        kernels = share_equal(scheduled.implementations)
        plan, state, weights = place_in_memories(scheduled.program, kernels, target)
        if options.ram is None:
            return plan.arena_bytes
        with tempfile.TemporaryDirectory() as folder:
            build(Built(scheduled.program, kernels, plan, state, target, weights), case.model, Path(folder))
            total = load_artifact(Path(folder)).manifest["ram"]["total_bytes"]
    except EdgecError:
        return None
    return int(total) if total is not None and total <= options.ram else None


def _as_int8(case: Case) -> int | None:
    samples = case.options.calibration or _made_up(case.model)
    options = replace(case.options, precision="int8", calibration=samples, recipe=None, dump=None)
    try:
        return planned(case, case.lower(case.model, options), case.target, options)
    except EdgecError:
        return None


def _other_target(case: Case) -> tuple[str, int | None]:
    """The smallest target of those that ship with edgec on which it fits."""
    others = [load_target(name) for name in set(list_targets()) - {case.target.name}]
    boards = [t for t in others if t.ram_spans()]
    for other in sorted(boards, key=lambda t: (sum(s.size for s in t.ram_spans()), t.name)):
        size = planned(case, case.program, other, case.options)
        if size is not None:
            return f"--target {other.name}", size
    return "", None


def _smaller_models(case: Case) -> Iterator[tuple[str, int | None]]:
    """The nearest smaller configuration of a model that edgec brings along, which would have to be trained."""
    if importlib.util.find_spec("torch") is None:
        return
    from edgec.models.smaller import smaller_models

    options = replace(case.options, calibration=None, recipe=None, dump=None)
    for change, model in smaller_models(case.model):
        if case.options.precision == "int8":
            options = replace(options, calibration=_made_up(model))
        size = planned(case, case.lower(model, options), case.target, options)
        if size is not None:
            yield f"{change} (trained anew)", size
            return


def _made_up(model: Model) -> Samples:
    """Samples to quantize by where only bytes are asked for: they do not depend on values."""
    from edgec.verify import random_samples  # it brings ONNX Runtime along

    return random_samples(model, _SAMPLES)
