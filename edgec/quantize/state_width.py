# SPDX-License-Identifier: Apache-2.0
"""How wide each state is: the narrowest of int8, int16 and float32 with which the model does not drift from float."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from edgec.errors import UnsupportedError, UsageError
from edgec.model import Model
from edgec.quantize.drift import Drift
from edgec.quantize.drift_test import LOST, MARGINS, DriftTest
from edgec.quantize.options import Recipe
from edgec.quantize.plan import Plan
from edgec.quantize.state_regions import STORED, Level, Recurrence

LADDER: tuple[Level, ...] = ("int8", "int16", "int16 in float", "float32")
MOST_TRIALS = 24
"""Runs of the test; when they are spent, the states that are left stay as wide as they are."""
NOT_TESTED = "the drift test did not run: the float model gives no finite outputs"
MEASURABLY = 1.1
"""Where no width passes: error, relative to the least one, above which a width counts as worse."""


@dataclass(frozen=True)
class Widths:
    """How wide states and layers are.

    Attributes:
        plan: with all of it.
        levels: of every state, by its input.
        test: the drift test that they were chosen by, or None where there was nothing to choose.
        drift: what the choice came to, or None without a test.
        verdicts: why states have their level, for people, by their input.
        layers: names of the nodes that are wide though no state demands it.
        notes: for people, on all of it.
    """

    plan: Plan
    levels: Mapping[str, Level]
    test: DriftTest | None = None
    drift: Drift | None = None
    verdicts: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def record(self) -> dict[str, object]:
        """What the file's metadata say of it."""
        if not self.levels:
            return {}
        found: dict[str, object] = {"states": {name: STORED[level] for name, level in self.levels.items()}}
        if self.layers:
            found["wide_layers"] = list(self.layers)
        if self.drift is not None:
            worst = self.drift.worst
            found["drift"] = {"steps": self.drift.steps, "passes": self.drift.passes, "error": _finite(worst.error)}
            found["drift"] |= {} if worst.agreement is None else {"top1": worst.agreement}  # type: ignore[operator]
        return found

    def told(self) -> list[str]:
        """Notes for people: one for all states of which there is the same to say, then those on all."""
        names: dict[str, list[str]] = {}
        for name, text in self.verdicts.items():
            names.setdefault(text, []).append(name)
        return [*(f"state{'s' * (len(n) > 1)} {', '.join(n)}: {text}" for text, n in names.items()), *self.notes]


def choose_states(plan: Plan, samples: Mapping[str, np.ndarray], recipe: Recipe) -> Widths:
    """The plan with its states as wide as the recipe says, or as the drift test demands.

    The test runs float and quantized graph in ONNX Runtime, closed-loop on the calibration samples, over and over.
    States whose old value does not go into their new one (windows, delays) are int8 unless they are named.

    Raises:
        UsageError: the recipe names a state that the model does not have.
    """
    states = plan.model.states
    asked = _asked(plan.model, recipe)
    if not states:
        return Widths(plan, {})
    recurrence = Recurrence(plan.model)
    accumulating = recurrence.accumulating()
    levels: dict[str, Level] = {pair.input: "int8" for pair in states}
    if recipe.state_width != "auto":
        levels |= dict.fromkeys(accumulating, _LEVELS[recipe.state_width])
    levels |= asked
    free = [name for name in accumulating if name not in asked] if recipe.state_width == "auto" else []
    test = DriftTest(plan, samples) if free or recipe.layers_are_chosen else None
    if free and test is not None and test.steps:
        return _Search(plan, recurrence, test, levels, free).run()
    regions = recurrence.regions(levels)
    wanted = asked.keys() | set(accumulating)
    verdicts = {n: STORED[level] + (", as asked" if n in wanted else "") for n, level in levels.items()}
    plan = plan.with_regions(regions, samples) if regions.levels else plan
    drift = test.run(plan) if test is not None and test.steps else None
    notes = () if test is None or test.steps else (NOT_TESTED,)
    return Widths(plan, levels, test, drift, verdicts if regions.levels else {}, notes=notes)


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
        self, plan: Plan, recurrence: Recurrence, test: DriftTest, levels: dict[str, Level], free: list[str]
    ) -> None:
        self.plan, self.recurrence, self.test = plan, recurrence, test
        grown: dict[str, Level] = {name: "float32" for name in free if name in test.growing}
        self.levels, self.free = levels | grown, [name for name in free if name not in grown]
        self.grown = grown
        self.found: dict[tuple[Level, ...], Drift] = {}
        self.plans: dict[tuple[Level, ...], Plan] = {}

    def run(self) -> Widths:
        """The choice."""
        tried = []
        for level in LADDER if self.free else LADDER[:1]:
            levels = self.levels | dict.fromkeys(self.free, level)
            tried.append((levels, self._drift(levels)))
            if tried[-1][1].within(*MARGINS[1]):
                break
        passes = self._criterion([drift for _, drift in tried])
        return self._result(self._narrowed(next(levels for levels, drift in tried if passes(drift)), passes))

    @staticmethod
    def _criterion(tried: list[Drift]) -> Callable[[Drift], bool]:
        """What a drift has to be: within the margin, or the limits, or as good as the best there is."""
        for shares in MARGINS[1:]:
            if any(drift.within(*shares) for drift in tried):
                return lambda drift, shares=shares: drift.within(*shares)  # type: ignore[misc]
        best = min(tried, key=lambda drift: drift.worst.error)
        return lambda drift: _as_good(drift, best)

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

    def _result(self, levels: dict[str, Level]) -> Widths:
        key = self._key(levels)
        verdicts = {name: self._verdict(name, levels) for name in self.free}
        verdicts |= dict.fromkeys(self.grown, "float32 (growing for as long as the stream goes on)")
        return Widths(self.plans.get(key, self.plan), levels, self.test, self.found[key], verdicts)

    def _verdict(self, name: str, levels: dict[str, Level]) -> str:
        """Such as "int16 (int8 drifts: top-1 81.2 %, error 24.5 %; so: error 1.02 %; 1,200 steps)"."""
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
        return f"{text}{inner} ({narrower} drifts: {other.worst}; so: {drift.worst}; {drift.steps:,} steps)"

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
            self.found[key] = self._measured(levels, key)
        return self.found[key]

    def _measured(self, levels: Mapping[str, Level], key: tuple[Level, ...]) -> Drift:
        try:
            regions = self.recurrence.regions(levels)
            for known, plan in self.plans.items():  # int16 in float where int16 is in float anyway
                same = plan.grouping.regions
                stored = [STORED[level] for level in known] == [STORED[level] for level in key]
                if stored and (same.wide, same.floating) == (regions.wide, regions.floating):
                    self.plans[key] = plan
                    return self.found[known]
            plan = self.plan.with_regions(regions, self.test.samples) if regions.levels else self.plan
        except UnsupportedError:  # these widths have no quantized form
            return LOST
        drift = self.test.run(plan)
        if drift is not LOST:
            self.plans[key] = plan
        return drift


def _as_good(drift: Drift, best: Drift) -> bool:
    a, b = drift.worst, best.worst
    scores = a.agreement is None or b.agreement is None or a.agreement >= b.agreement - 0.01
    return a.error <= MEASURABLY * b.error and scores


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
