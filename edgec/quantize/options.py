# SPDX-License-Identifier: Apache-2.0
"""What a user may choose about quantization, in one record. The defaults are measured: docs/quantization.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgec.errors import UsageError
from edgec.quantize.ranges import METHODS, Method

Equalize = Literal["auto", "on", "off"]
Width = Literal["int8", "int16", "float32"]
StateWidth = Literal["auto", "int8", "int16", "float32"]
LayerWidth = Literal["auto", "int8"]


@dataclass(frozen=True)
class Recipe:
    """How to quantize.

    Attributes:
        method: how int8 ranges follow from what calibration saw (`ranges`).
        percentile: of all elements, that method `percentile` covers.
        equalize: scale channels against each other where that changes nothing in float (`equalize`): always,
            never, or ("auto") when the quantized outputs come 1 dB closer to float on calibration samples kept apart.
        bias_correction: fold the expected error of each layer into its bias (`bias_correction`).
        max_loss: widen tensors to int16 until the loss on the calibration samples is at most so many points
            (`widen`); None leaves all in int8.
        labels: classes [S] of the calibration samples; the loss is then of accuracy. Below zero: not counted.
        scores: the output that scores the classes; the first without it.
        state_width: of the states whose old value goes into their new one (`state_width`); auto is the narrowest with
            which the outputs do not drift.
        state_widths: of single states, by the name of their input or output.
        layer_width: of what no state demands to be wider, in models with states (`layer_width`); auto makes as little
            of it int16 or float as keeps the outputs from drifting where int8 does not.
    """

    method: Method = "minmax"
    percentile: float = 99.99
    equalize: Equalize = "auto"
    bias_correction: bool = True
    max_loss: float | None = None
    labels: npt.NDArray[Any] | None = None
    scores: str | None = None
    state_width: StateWidth = "auto"
    state_widths: Mapping[str, Width] = field(default_factory=dict)
    layer_width: LayerWidth = "auto"

    @property
    def layers_are_chosen(self) -> bool:
        """Whether layers may become wider: not where the width of all states was chosen by hand."""
        return self.layer_width == "auto" and self.state_width == "auto"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown calibration method {self.method!r}", need=" or ".join(METHODS))
        if self.equalize not in get_args(Equalize):
            raise UsageError(f"equalize is {self.equalize!r}", need=" or ".join(get_args(Equalize)))
        if self.state_width not in get_args(StateWidth):
            raise UsageError(f"the width of states is {self.state_width!r}", need=" or ".join(get_args(StateWidth)))
        if self.layer_width not in get_args(LayerWidth):
            raise UsageError(f"the width of layers is {self.layer_width!r}", need=" or ".join(get_args(LayerWidth)))
        for name, width in self.state_widths.items():
            if width not in get_args(Width):
                raise UsageError(f"the width of state {name} is {width!r}", need=" or ".join(get_args(Width)))
        if not 50 < self.percentile <= 100:
            raise UsageError("the percentile is out of range", need="above 50, at most 100", have=f"{self.percentile}")
        if self.max_loss is not None and not (np.isfinite(self.max_loss) and self.max_loss >= 0):
            raise UsageError("the largest loss must not be negative", need=">= 0 points", have=f"{self.max_loss}")
        if self.labels is not None and self.max_loss is None:
            raise UsageError("labels without a largest loss", hint="give --max-loss POINTS as well")
