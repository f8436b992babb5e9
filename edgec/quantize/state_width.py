# SPDX-License-Identifier: Apache-2.0
"""How wide each state is: the narrowest of int8, int16 and float32 with which the model does not drift from float."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil, prod

import numpy as np

from edgec.errors import UnsupportedError, UsageError
from edgec.lower import lower_to_integers
from edgec.model import Model
from edgec.passes.layout import device_layout
from edgec.quantize.drift import Drift, Outputs, measure, outputs_along, repeated
from edgec.quantize.options import Recipe
from edgec.quantize.plan import Plan
from edgec.quantize.state_regions import STORED, Level, Recurrence

LADDER: tuple[Level, ...] = ("int8", "int16", "int16 in float", "float32")
STEPS = 1000
"""Least steps of the drift test; the calibration stream is repeated, three times or more."""
MOST_STEPS = 6000
MOST_SECONDS = 6.0
"""Estimated time of one run of the test, which shortens it: 16 us for each node and 2 ns for each multiplication."""
MOST_TRIALS = 24
"""Runs of the test; when they are spent, the states that are left stay as wide as they are."""
LOST = measure([{"": np.zeros(1)}], {"": [{"": np.array([np.inf])}]})[""]
"""A drift without bound."""
MEASURABLY = 1.1
"""Where no width passes: error, relative to the least one, above which a width counts as worse."""


@dataclass(frozen=True)
class StateWidths:
    """The choice.

    Attributes:
        plan: with the states as wide as chosen.
        levels: of every state, by its input.
        steps: of the drift test; 0 when none was needed.
        drift: what the chosen widths came to, or None without a test.
        notes: for people, one for each state and one where no width passes.
    """

    plan: Plan
    levels: Mapping[str, Level]
    steps: int = 0
    drift: Drift | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def record(self) -> dict[str, object]:
        """What the file's metadata say of it."""
        if not self.levels:
            return {}
        found: dict[str, object] = {"states": {name: STORED[level] for name, level in self.levels.items()}}
        if self.drift is not None:
            worst = self.drift.worst
            found["drift"] = {"steps": self.steps, "passes": self.drift.passes, "error": _finite(worst.error)}
            found["drift"] |= {} if worst.agreement is None else {"top1": worst.agreement}  # type: ignore[operator]
        return found


def choose_widths(plan: Plan, samples: Mapping[str, np.ndarray], recipe: Recipe) -> StateWidths:
    """The plan with its states as wide as the recipe says, or as the drift test demands.

    The test runs float and quantized graph in ONNX Runtime, closed-loop on the calibration samples, over and over.
    States whose old value does not go into their new one (windows, delays) are int8 unless they are named.

    Raises:
        UsageError: the recipe names a state that the model does not have.
    """
    states = plan.model.states
    asked = _asked(plan.model, recipe)
    if not states:
        return StateWidths(plan, {})
    recurrence = Recurrence(plan.model)
    accumulating = recurrence.accumulating()
    levels: dict[str, Level] = {pair.input: "int8" for pair in states}
    if recipe.state_width != "auto":
        levels |= dict.fromkeys(accumulating, _LEVELS[recipe.state_width])
    levels |= asked
    free = [name for name in accumulating if name not in asked] if recipe.state_width == "auto" else []
    if not free:
        regions = recurrence.regions(levels)
        wanted = asked.keys() | set(accumulating)
        texts = {n: STORED[level] + (", as asked" if n in wanted else "") for n, level in levels.items()}
        notes = _told(texts if regions.levels else {})
        return StateWidths(plan if not regions.levels else plan.with_regions(regions, samples), levels, notes=notes)
    return _Search(plan, recurrence, samples, levels, free).run()


def _told(texts: Mapping[str, str]) -> list[str]:
    """One note for all states of which there is the same to say."""
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text, []).append(name)
    return [f"state{'s' * (len(n) > 1)} {', '.join(n)}: {text}" for text, n in names.items()]


_LEVELS: dict[str, Level] = {"int8": "int8", "int16": "int16", "float32": "float32"}


def _asked(model: Model, recipe: Recipe) -> dict[str, Level]:
    inputs = {name: pair.input for pair in model.states for name in (pair.output, pair.input)}
    unknown = [name for name in recipe.state_widths if name not in inputs]
    if unknown:
        raise UsageError(
            f"--state-width {unknown[0]}: {model.name} has no such state",
            have=", ".join(pair.input for pair in model.states) or "no state",
        )
    return {inputs[name]: _LEVELS[width] for name, width in recipe.state_widths.items()}


class _Search:
    """Runs the drift test, first with all free states alike, then with one after another narrower."""

    def __init__(
        self,
        plan: Plan,
        recurrence: Recurrence,
        samples: Mapping[str, np.ndarray],
        levels: dict[str, Level],
        free: list[str],
    ) -> None:
        self.plan, self.recurrence, self.samples = plan, recurrence, samples
        self.levels, self.free = levels, free
        self.period = len(next(iter(samples.values()), ()))
        self.wanted, self.stream = self._float_outputs()
        self.found: dict[tuple[Level, ...], Drift] = {}
        self.plans: dict[tuple[Level, ...], Plan] = {}

    def run(self) -> StateWidths:
        """The choice."""
        if not self.wanted:
            return self._result(self.levels, ["the drift test did not run: the float model gives no finite outputs"])
        tried = []
        for level in LADDER:
            levels = self.levels | dict.fromkeys(self.free, level)
            tried.append((levels, self._drift(levels)))
            if tried[-1][1].passes:
                break
        chosen, drift = tried[-1]
        passes: Callable[[Drift], bool] = lambda d: d.passes  # noqa: E731
        notes = []
        if not drift.passes:
            best = min((d for _, d in tried), key=lambda d: d.worst.error)
            passes = lambda d: _as_good(d, best)  # noqa: E731
            chosen, drift = next(t for t in tried if passes(t[1]))
            notes.append(
                f"the outputs drift whatever the states' width ({best.worst} over {best.steps:,} steps at best): that "
                "error is the layers'; `edgec quantize --report` names them"
            )
        chosen = self._narrowed(chosen, passes)
        return self._result(chosen, notes)

    def _narrowed(self, levels: dict[str, Level], passes: Callable[[Drift], bool]) -> dict[str, Level]:
        """With each state, the largest first, as narrow as still passes."""
        sizes = {info.name: prod(info.shape) for info in self.plan.model.state_inputs}
        for name in sorted(self.free, key=lambda name: -sizes[name]):
            for level in LADDER[: LADDER.index(levels[name])]:
                candidate = levels | {name: level}
                known = self._key(candidate) in self.found
                if (known or len(self.found) < MOST_TRIALS) and passes(self._drift(candidate)):
                    levels = candidate
                    break
        return levels

    def _result(self, levels: dict[str, Level], notes: list[str]) -> StateWidths:
        key = self._key(levels)
        drift = self.found.get(key)
        notes = [*_told({name: self._verdict(name, levels) for name in self.free if drift}), *notes]
        plan = self.plans.get(key, self.plan)
        return StateWidths(plan, levels, len(self.wanted), drift, notes)

    def _verdict(self, name: str, levels: dict[str, Level]) -> str:
        """Such as "int16 (int8 drifts: top-1 81.2 %, error 24.5 %; int16: error 1.02 %; 1,200 steps)"."""
        level = levels[name]
        text = STORED[level]
        inner = ", computed in float" if STORED[level] == "int16" and self._in_float(name, levels) else ""
        narrower = LADDER[max(LADDER.index(level) - 1, 0)]
        other = self.found.get(self._key(levels | {name: narrower}))
        if narrower == level or other is None:
            narrower = "int8"
            other = (
                self.found.get(self._key(self.levels | dict.fromkeys(self.free, "int8"))) if level != "int8" else None
            )
        drift = self.found[self._key(levels)]
        if other is None:
            return f"{text}{inner} ({drift.worst} over {drift.steps:,} steps)"
        return (
            f"{text}{inner} ({narrower} drifts: {other.worst}; {STORED[level]}: {drift.worst}; {drift.steps:,} steps)"
        )

    def _in_float(self, name: str, levels: Mapping[str, Level]) -> bool:
        output = next(pair.output for pair in self.plan.model.states if pair.input == name)
        node = self.recurrence.producer.get(output)
        return node is not None and node.name in self.plans[self._key(levels)].grouping.regions.floating

    # ---- the test ---------------------------------------------------------------------------------------

    def _key(self, levels: Mapping[str, Level]) -> tuple[Level, ...]:
        return tuple(levels[name] for name in self.levels)

    def _drift(self, levels: Mapping[str, Level]) -> Drift:
        key = self._key(levels)
        if key not in self.found:
            try:
                self.found[key] = self._measured(levels, key)
            except UnsupportedError:  # these widths have no quantized form
                self.found[key] = LOST
        return self.found[key]

    def _measured(self, levels: Mapping[str, Level], key: tuple[Level, ...]) -> Drift:
        regions = self.recurrence.regions(levels)
        for known, plan in self.plans.items():  # int16 in float where int16 is in float anyway
            same = plan.grouping.regions
            stored = [STORED[level] for level in known] == [STORED[level] for level in key]
            if stored and (same.wide, same.floating) == (regions.wide, regions.floating):
                self.plans[key] = plan
                return self.found[known]
        plan = self.plan.with_regions(regions, self.samples) if regions.levels else self.plan
        written = plan.write()
        if regions.nodes and not _compiles(written) and _compiles(self.plan.write()):
            return LOST
        self.plans[key] = plan
        form = outputs_along(written, self.stream)
        scores = None if self.plan.model.outputs else ()
        return measure(self.wanted, {"": form}, scores=scores, period=self.period)[""]

    def _float_outputs(self) -> tuple[list[Outputs], dict[str, np.ndarray]]:
        """Float's outputs on the stream, up to the first that is not finite, and the stream."""
        steps = test_steps(self.plan.model, self.period)
        stream = repeated(self.samples, steps)
        wanted: list[Outputs] = []
        names = [i.name for i in self.plan.model.outputs] or [pair.output for pair in self.plan.model.states]
        for row in outputs_along(self.plan.model, stream):
            kept = {name: row[name] for name in names}
            if not all(np.isfinite(v).all() for v in kept.values()):
                stream = {name: array[: len(wanted)] for name, array in stream.items()}
                break
            wanted.append(kept)
        return wanted, stream


def test_steps(model: Model, samples: int) -> int:
    """Steps of the drift test of a model with so many calibration samples."""
    steps = min(samples * max(3, ceil(STEPS / samples)), MOST_STEPS)
    seconds = 16e-6 * len(model.proto.graph.node) + 2e-9 * model.macs()
    return max(min(steps, int(MOST_SECONDS / seconds)), min(samples, STEPS), 2)


def _compiles(model: Model) -> bool:
    """Whether every node has an integer form, or is one of those that are float on purpose."""
    try:
        lower_to_integers(device_layout(model))
    except UnsupportedError:
        return False
    return True


def _as_good(drift: Drift, best: Drift) -> bool:
    a, b = drift.worst, best.worst
    scores = a.agreement is None or b.agreement is None or a.agreement >= b.agreement - 0.01
    return a.error <= MEASURABLY * b.error and scores


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
