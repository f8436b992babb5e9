# SPDX-License-Identifier: Apache-2.0
"""How a form of a model with memory drifts away from another one along a stream, and whether that is little enough.

Both run closed-loop, each on its own state. `measure` takes any streams of outputs (ONNX Runtime, host C, a board)
and keeps three numbers for each step and output; `Drift` sums them over stretches of steps and judges the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgec.quantize.calibrate import run_stream

if TYPE_CHECKING:
    from edgec.model import Model

LEAST_AGREEMENT = 0.99
"""Share of steps whose largest score is at float's place: what a classification has to keep."""
MOST_ERROR = 0.02
"""||y - y_float|| / ||y_float|| over the whole stream: what any output may have."""
MOST_GROWTH = 1.25
"""Error of the late steps beside that of the early ones (`Drift.spans`)."""
HARMLESS = 0.25
"""Share of a limit below which growth does not count: it is noise."""
COMPARED = 10
"""Stretches that early and late steps are divided into, whose medians are compared: a burst of errors is no growth."""
MOST_PAIRS = 0.8
"""Share of pairs of an early and a late stretch of which the late one is worse: fewer are chance."""
STRETCHES = 20

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Outputs = Mapping[str, Array]
Criterion = Literal["top-1", "error"]


@dataclass(frozen=True)
class Stretch:
    """Steps [first, last): relative error, and share of rows with the same largest entry (None: no classification)."""

    first: int
    last: int
    error: float
    agreement: float | None


@dataclass(frozen=True)
class Verdict:
    """Whether one output passes.

    Attributes:
        passes: within a limit, and not growing.
        criterion: "top-1" (agreement of at least 99 %) or "error" (at most 2 %): the one that it passes by, or the one
            that it was closest to.
        error, agreement: over all steps.
        early, late: relative errors of early and of late steps (`Drift.spans`), medians over stretches of them.
        grows: whether the error grew in between, and is not negligible.
    """

    passes: bool
    criterion: Criterion
    error: float
    agreement: float | None
    early: float
    late: float
    grows: bool

    def within(self, errors: float, scores: float) -> bool:
        """Whether the error, or the share of steps that disagree, is at most so large a share of what is allowed."""
        finite = bool(np.isfinite(self.error))
        agrees = finite and self.agreement is not None and 1 - self.agreement <= scores * (1 - LEAST_AGREEMENT)
        return (agrees or self.error <= errors * MOST_ERROR) and not self.grows

    def __str__(self) -> str:
        """Such as "top-1 99.6 %, error 1.2 %"."""
        score = "" if self.agreement is None else f"top-1 {self.agreement:.1%}, "
        growth = f", growing from {_percent(self.early)} to {_percent(self.late)}" if self.grows else ""
        return f"{score}error {_percent(self.error)}{growth}".replace("%", " %")


@dataclass
class Trace:
    """One output along the stream, a number for each step: powers of error and signal, rows that agree of all rows."""

    noise: list[float] = field(default_factory=list)
    signal: list[float] = field(default_factory=list)
    agreeing: list[float] = field(default_factory=list)
    classifies: bool = False

    def add(self, wanted: Array, got: Array) -> None:
        """Take a step."""
        a, b = np.asarray(wanted), np.asarray(got)
        equal = a == b
        if a.dtype.kind == "f":
            with np.errstate(invalid="ignore", over="ignore"):
                noise = float(np.square(b.astype(np.float64) - a.astype(np.float64)).sum())
            self.noise.append(noise if np.isfinite(noise) else np.inf)
            self.signal.append(float(np.square(a.astype(np.float64)).sum()))
            if self.classifies:
                equal = a.argmax(axis=-1) == b.argmax(axis=-1)
        else:
            self.noise.append(float(np.count_nonzero(~equal)))
            self.signal.append(float(equal.size))
        self.agreeing.append(float(np.mean(equal)) if equal.size else 1.0)

    def error(self, first: int, last: int) -> float:
        """||got - wanted|| / ||wanted|| over steps [first, last); 0 where both are zero."""
        noise, signal = sum(self.noise[first:last]), sum(self.signal[first:last])
        if noise == 0:
            return 0.0
        return float(np.sqrt(noise / signal)) if signal > 0 else np.inf

    def agreement(self, first: int, last: int) -> float | None:
        """Share of rows with the same largest entry, or None when the output is no classification."""
        return float(np.mean(self.agreeing[first:last])) if self.classifies else None


@dataclass(frozen=True)
class Drift:
    """One form beside another along a stream.

    Attributes:
        steps: how many.
        outputs: the outputs that are judged.
        states: traces of states, where they were given; they are judged only when there is no output.
        period: steps after which the inputs repeat, or 0.
    """

    steps: int
    outputs: Mapping[str, Trace]
    states: Mapping[str, Trace]
    period: int = 0

    @property
    def passes(self) -> bool:
        """Whether every output passes."""
        return self.within(1.0, 1.0)

    def within(self, errors: float, scores: float) -> bool:
        """Whether every output has at most so large a share of the error, or of the disagreeing steps, that is allowed,
        and does not grow."""
        return all(v.within(errors, scores) for v in self.verdicts().values())

    @property
    def worst(self) -> Verdict:
        """The verdict of the output that is furthest from passing."""
        return max(self.verdicts().values(), key=lambda v: (not v.passes, v.error))

    def verdicts(self) -> dict[str, Verdict]:
        """Output -> verdict."""
        return {name: self._verdict(trace) for name, trace in (self.outputs or self.states).items()}

    def curve(self, name: str, stretches: int = STRETCHES, spacing: Literal["log", "even"] = "log") -> list[Stretch]:
        """The stretches of an output or state, at most so many: even ones, or each longer than the one before."""
        trace = self.outputs[name] if name in self.outputs else self.states[name]
        bounds = pairwise(edges(self.steps, stretches, spacing))
        return [Stretch(a, b, trace.error(a, b), trace.agreement(a, b)) for a, b in bounds]

    def spans(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Early steps and late ones, whose errors are compared: two halves, when the first tenth is over.

        Of a stream that repeats, the second fifth and the last, in whole turns on the same inputs.
        """
        fifth, tenth = self.steps // 5, self.steps // 10
        if self._repeats:
            fifth = max(fifth // self.period, 1) * self.period
            end = self.steps // self.period * self.period
            return (fifth, 2 * fifth), (end - fifth, end)
        middle = (tenth + self.steps) // 2
        return (min(tenth, middle - 1), middle) if middle else (0, 1), (middle, self.steps)

    @property
    def _repeats(self) -> bool:
        return bool(self.period) and self.steps >= 3 * self.period

    def _levels(self, trace: Trace, first: int, last: int) -> tuple[Floats, Floats]:
        """Errors, and noise for itself, of stretches of the steps: of one where the inputs repeat."""
        parts = list(pairwise(edges(last - first, 1 if self._repeats else COMPARED, "even")))
        errors = [trace.error(first + a, first + b) for a, b in parts]
        return np.array(errors), np.array([sum(trace.noise[first + a : first + b]) / (b - a) for a, b in parts])

    def _verdict(self, trace: Trace) -> Verdict:
        error, agreement = trace.error(0, self.steps), trace.agreement(0, self.steps)
        (early, early_noise), (late, late_noise) = (self._levels(trace, *steps) for steps in self.spans())
        by_score = agreement is not None and agreement >= LEAST_AGREEMENT and np.isfinite(error)
        criterion: Criterion = "top-1" if by_score or (agreement is not None and error > MOST_ERROR) else "error"
        usual = float(np.median(early)), float(np.median(late))
        # Relative and absolute: a signal that fades makes the first grow, one that swells the second.
        grows = usual[1] > max(MOST_GROWTH * usual[0], HARMLESS * MOST_ERROR)
        grows &= bool(np.median(late_noise) > MOST_GROWTH**2 * np.median(early_noise))
        grows &= bool(np.mean(late[:, None] > early) >= MOST_PAIRS)
        passes = bool(by_score or error <= MOST_ERROR) and not grows
        return Verdict(passes, criterion, error, agreement, *usual, grows)


def measure(
    wanted: Iterable[Outputs],
    forms: Mapping[str, Iterable[Outputs]],
    *,
    states: Collection[str] = (),
    scores: Collection[str] | None = None,
    period: int = 0,
) -> dict[str, Drift]:
    """How far each form's outputs are from `wanted` along the stream; all are taken step by step, side by side.

    Args:
        wanted: outputs by name, one mapping a step; usually the float model's.
        forms: the same of other forms, by the name of the form; real values in the same shapes. They may lack outputs
            that `wanted` has: these are not compared.
        states: which of the names are states.
        scores: the outputs that classify; without it all floats whose last axis is longer than 1. Outputs of whole
            numbers are compared number by number.
        period: steps after which the inputs repeat.

    Raises:
        ValueError: a form ends before the others.
    """
    traces: dict[str, dict[str, Trace]] = {form: {} for form in forms}
    steps = 0
    for row, *rows in zip(wanted, *forms.values(), strict=True):
        for form, got in zip(forms, rows, strict=True):
            for name, value in row.items():
                if name not in got:
                    continue
                trace = traces[form].get(name)
                if trace is None:
                    trace = traces[form][name] = Trace(classifies=_classifies(name, np.asarray(value), states, scores))
                trace.add(np.asarray(value), np.asarray(got[name]))
        steps += 1
    return {
        form: Drift(
            steps,
            {name: t for name, t in found.items() if name not in states},
            {name: t for name, t in found.items() if name in states},
            period,
        )
        for form, found in traces.items()
    }


def drift_of(
    original: Model,
    model: Model,
    samples: Mapping[str, Array],
    steps: int | None = None,
    scores: Collection[str] | None = None,
) -> Drift:
    """Both models in ONNX Runtime, closed-loop on the same inputs, outputs and states.

    Args:
        original, model: with the same inputs, outputs and states.
        samples: `[S, *onnx_shape]` per input, the steps of one stream; they are repeated where `steps` is more.
        steps: how many; all samples without it.
        scores: see `measure`.
    """
    period = len(next(iter(samples.values()), ()))
    stream = repeated(samples, period if steps is None else steps)
    found = measure(
        outputs_along(original, stream),
        {"": outputs_along(model, stream)},
        states={pair.output for pair in original.states},
        scores=scores,
        period=period,
    )
    return found[""]


def outputs_along(model: Model, samples: Mapping[str, Array]) -> Iterable[Outputs]:
    """Outputs and states of a model in ONNX Runtime, step by step."""
    return run_stream(model, samples, [value.name for value in model.proto.graph.output])


def repeated(samples: Mapping[str, Array], steps: int) -> dict[str, Array]:
    """The samples over and over, `steps` of them."""
    return {name: a if len(a) == steps else a[np.arange(steps) % len(a)] for name, a in samples.items()}


def edges(steps: int, stretches: int, spacing: Literal["log", "even"]) -> list[int]:
    """Where stretches of steps begin and end, from 0 to `steps`; no stretch is empty."""
    if spacing == "even":
        inner: Sequence[float] = [steps * i / stretches for i in range(1, stretches)]
    else:
        inner = np.geomspace(1, max(steps, 1), stretches + 1)[1:-1].tolist()
    return sorted({int(v) for v in chain((0, steps), map(round, inner))})


def _classifies(name: str, value: Array, states: Collection[str], scores: Collection[str] | None) -> bool:
    if value.dtype.kind != "f":
        return True
    if scores is not None:
        return name in scores
    return name not in states and value.ndim > 0 and value.shape[-1] > 1


def _percent(value: float) -> str:
    return f"{value:.2%}" if value < 0.1 else f"{value:.1%}" if np.isfinite(value) else "without bound"
