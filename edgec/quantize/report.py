# SPDX-License-Identifier: Apache-2.0
"""Which operator loses most in int8, which tensor's range is the cause, and what helps against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.quantize.equalize import sites
from edgec.quantize.fidelity import decibels, some_samples
from edgec.quantize.plan import Plan
from edgec.quantize.scheme import rounded
from edgec.quantize.shadow import ALL, WEIGHTS, Unit, shadow

MOST_SAMPLES = 32
RESULT = "result"
OUTLIER_CHANNEL = 8.0  # largest |x| of a channel beside the median channel's: three of eight bits
OUTLIER_ELEMENT = 4.0  # range beside the range of 99.9 % of the elements: two of eight bits
GOOD_DB = 30.0  # above it the remedy column stays empty: 3 % of noise

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """One operator (with the Relu, Clip or scaling fused behind it).

    Attributes:
        node, op_type: the ONNX node.
        own_db: signal-to-noise ratio of its dequantized result when its operands are float's own, rounded: what
            this operator adds.
        total_db, cosine: of its dequantized result in the quantized model, with all errors before it.
        culprit: which tensor's rounding costs most: an operand's name, "weights" or "result".
        why: what is wrong with that tensor's range.
        remedy: the option that helps, or "".
    """

    node: str
    op_type: str
    own_db: float
    total_db: float
    cosine: float
    culprit: str
    why: str
    remedy: str

    def as_json(self) -> dict[str, object]:
        """Fields as JSON has them: no infinities."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}


@dataclass
class _Sums:
    error: float = 0.0
    signal: float = 0.0
    other: float = 0.0
    product: float = 0.0

    def add(self, got: Array, want: Array) -> None:
        a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
        self.error += float(np.sum((a - b) ** 2))
        self.signal += float(b @ b)
        self.other += float(a @ a)
        self.product += float(a @ b)

    @property
    def noise(self) -> float:
        return self.error / self.signal if self.signal else (np.inf if self.error else 0.0)

    @property
    def cosine(self) -> float:
        norms = np.sqrt(self.signal) * np.sqrt(self.other)
        return float(self.product / norms) if norms else float(self.signal == self.other)


@dataclass
class _Measured:
    parts: dict[str, _Sums] = field(default_factory=dict)
    total: _Sums = field(default_factory=_Sums)

    def part(self, name: str) -> _Sums:
        return self.parts.setdefault(name, _Sums())


def diagnose(plan: Plan, samples: Mapping[str, np.ndarray]) -> list[Row]:
    """Every operator of the plan, the one that adds most noise first.

    Args:
        plan: how the model will be quantized.
        samples: calibration samples `[S, *onnx_shape]` per input; at most `MOST_SAMPLES` are run.
    """
    from edgec.quantize.calibrate import run_stream

    samples = some_samples(plan.model, samples, MOST_SAMPLES)
    shadows = shadow(plan)
    units = shadows.units
    model, names = plan.written()
    read = {u.value: names.get(u.value, u.value) for u in units}
    values = {name for u in units for name in (u.value, *u.shadows.values())}
    values |= {name for u in units for name in u.shadows if name not in (ALL, WEIGHTS)}
    measured = {u.value: _Measured() for u in units}
    extremes: dict[str, list[Array]] = {}
    fetch = sorted(values - set(plan.grouping.constants))
    quantized = run_stream(model, samples, sorted(set(read.values())))
    for found, got in zip(shadows.run(samples, fetch), quantized, strict=True):
        for unit in units:
            _add(unit, plan, found, got[read[unit.value]], measured[unit.value])
        for name in fetch:
            if name in plan.grouping.root:
                _widen_extremes(extremes, name, found[name])
    equalizable = {plan.grouping.root[v] for s in sites(plan.model, plan.grouping) for v in s.labels}
    rows = [_row(u, plan, measured[u.value], extremes, equalizable) for u in units]
    return sorted(rows, key=lambda row: row.own_db)


def headline(rows: Sequence[Row]) -> str:
    """The first line: which operator loses most, why, and what helps."""
    if not rows:
        return "nothing is quantized"
    worst = rows[0]
    where = worst.culprit if worst.culprit in (WEIGHTS, RESULT) else f"operand {worst.culprit}"
    text = f"worst: {worst.node} ({worst.op_type}) {_db(worst.own_db)} dB: {where}: {worst.why}"
    return f"{text}; try {worst.remedy}" if worst.remedy else text


def render(rows: Sequence[Row]) -> str:
    """Headline and table, worst first."""
    from edgec.cli.output import table

    cells = [
        (r.node, r.op_type, _db(r.own_db), _db(r.total_db), f"{r.cosine:.5f}", r.culprit, r.why, r.remedy) for r in rows
    ]
    header = ("node", "operator", "own dB", "total dB", "cosine", "culprit", "why", "remedy")
    return headline(rows) + "\n" + table(header, cells, right=(2, 3, 4))


def _db(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "exact" if value > 0 else "lost"


def _add(unit: Unit, plan: Plan, found: Mapping[str, Array], got: Array, measured: _Measured) -> None:
    want = found[unit.value]
    params = plan.params[plan.grouping.group(unit.value).name].stored
    for what, name in unit.shadows.items():
        result = rounded(found[name], params) if what == ALL else found[name]
        measured.part(what).add(result, want)
    measured.part(RESULT).add(rounded(want, params), want)
    measured.total.add(got, want)


def _widen_extremes(extremes: dict[str, list[Array]], name: str, array: Array) -> None:
    magnitude = np.abs(array)
    per_axis = [
        magnitude.max(axis=tuple(i for i in range(array.ndim) if i != axis), initial=0.0) for axis in range(array.ndim)
    ]
    if name in extremes:
        per_axis = [np.maximum(a, b) for a, b in zip(per_axis, extremes[name], strict=True)]
    extremes[name] = per_axis


def _row(
    unit: Unit, plan: Plan, measured: _Measured, extremes: Mapping[str, Sequence[Array]], equalizable: set[str]
) -> Row:
    node = unit.nodes[0]
    parts = {k: v.noise for k, v in measured.parts.items() if k != ALL}
    culprit = max(parts, key=parts.__getitem__)
    own = decibels(measured.parts[ALL].noise)
    if culprit == WEIGHTS:
        why, remedy = "the rounding of its weights", ""
    else:
        why, remedy = _cause(unit.value if culprit == RESULT else culprit, plan, extremes, equalizable)
    total = measured.total
    shown = remedy if own < GOOD_DB else ""
    return Row(node.name, node.op_type, own, decibels(total.noise), total.cosine, culprit, why, shown)


def _cause(value: str, plan: Plan, extremes: Mapping[str, Sequence[Array]], equalizable: set[str]) -> tuple[str, str]:
    """What is wrong with the range of a tensor, and the option that helps."""
    grouping = plan.grouping
    root = grouping.root[value]
    group = grouping.group(value)
    params = plan.params[group.name].stored
    wide = "" if params.dtype == "int16" or not grouping.can_widen(group) else "--max-loss (int16)"
    channel = _outlier_channel(extremes.get(value, ()))
    if channel is not None:
        axis, index, largest, median = channel
        why = f"channel {index} of axis {axis} reaches {largest:.3g}, the median channel {median:.3g}"
        return why, "--equalize on" if root in equalizable else wide or "--method mse"
    if root not in grouping.constants and root in plan.ranges.statistics:
        statistics = plan.ranges[root]
        reach = max(-statistics.minimum, statistics.maximum)
        low, high = statistics.range("percentile", 99.9)
        common = max(-low, high)
        if common > 0 and reach / common >= OUTLIER_ELEMENT and reach <= max(-params.low, params.high) * 1.01:
            return f"reaches {reach:.3g}, 99.9 % of it within {common:.3g}", "--method mse"
        if reach > max(-params.low, params.high) * 1.05:
            return f"cut at {max(-params.low, params.high):.3g} where it reaches {reach:.3g}", wide or "--method minmax"
    return f"steps of {params.scale:.3g} in [{params.low:.3g}, {params.high:.3g}]", wide


def _outlier_channel(per_axis: Sequence[Array]) -> tuple[int, int, float, float] | None:
    """Axis, index, largest |x| and the median over channels, of the channel that stands out most."""
    best: tuple[float, tuple[int, int, float, float]] | None = None
    for axis, maxima in enumerate(per_axis):
        if len(maxima) < 3:
            continue
        median, index = float(np.median(maxima)), int(np.argmax(maxima))
        ratio = float(maxima[index]) / median if median > 0 else 0.0
        if ratio >= OUTLIER_CHANNEL and (best is None or ratio > best[0]):
            best = (ratio, (axis, index, float(maxima[index]), median))
    return None if best is None else best[1]
