# SPDX-License-Identifier: Apache-2.0
"""Canonical float model + calibration samples -> int8 QDQ model (standard ONNX, readable by ONNX Runtime)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.errors import UnsupportedError, UsageError
from edgec.model import Model
from edgec.passes.input_norm import check_ranges
from edgec.quantize.bias_correction import correct_biases
from edgec.quantize.dataset import check_samples, sha256_of
from edgec.quantize.equalize import equalize
from edgec.quantize.fidelity import Fidelity
from edgec.quantize.layer_width import choose_layers
from edgec.quantize.options import Recipe
from edgec.quantize.plan import Plan, make_plan
from edgec.quantize.ranges import Method
from edgec.quantize.state_width import choose_states
from edgec.quantize.widen import Widening, widen

# Equalization must gain 1 dB on samples that it has not seen: all channels at the full range are cut more often.
CLEARLY = 10.0**-0.1
METADATA_KEY = "edgec.quantization"


def is_quantized(model: Model) -> bool:
    """Whether the model is in QDQ form already.

    Raises:
        UnsupportedError: it has only one of QuantizeLinear and DequantizeLinear (weight-only quantization).
    """
    present = {node.op_type for node in model.proto.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    if len(present) == 1:
        raise UnsupportedError(
            f"{model.name} is only partly quantized: it has {present.pop()} nodes alone",
            need="QuantizeLinear and DequantizeLinear around every operator, or a float model",
            hint="give the float model and calibration samples",
        )
    return bool(present)


def record_of(model: Model) -> dict[str, Any]:
    """How `quantize` made the model, from its metadata; empty where it did not."""
    text = next((p.value for p in model.proto.metadata_props if p.key == METADATA_KEY), "{}")
    found: dict[str, Any] = json.loads(text)
    return found


def quantize(
    model: Model,
    calibration: Mapping[str, np.ndarray] | None,
    recipe: Recipe | None = None,
    *,
    method: Method | None = None,
    percentile: float | None = None,
) -> Model:
    """Quantize a canonical float model to int8; a model that is in QDQ form already is returned unchanged.

    Args:
        model: canonical float model (see `edgec.passes.canonicalize`).
        calibration: per input (without states) an array of samples, shapes as in `dataset.check_samples`; for
            a stateful model the steps of one stream. Not needed for a QDQ model.
        recipe: methods and their strength; the defaults without it.
        method, percentile: replace the recipe's.

    Returns:
        The QDQ model with the same inputs, outputs, states and name; how it was made is in its metadata
        property "edgec.quantization" (JSON).

    Raises:
        UsageError: no calibration, or one that does not match the model's inputs.
        UnsupportedError: operators that cannot be quantized, values that are not finite, accumulators beyond
            32 bits.
    """
    if is_quantized(model):
        return model
    recipe = recipe or Recipe()
    recipe = dataclasses.replace(
        recipe,
        method=recipe.method if method is None else method,
        percentile=recipe.percentile if percentile is None else percentile,
    )
    return finish(plan_quantization(model, calibration, recipe))


@dataclass(frozen=True)
class Decision:
    """How a model will be quantized, on which samples, what to record of it in the file, and what to tell the user."""

    plan: Plan
    samples: Mapping[str, np.ndarray]
    record: dict[str, object]
    notes: list[str]


def plan_quantization(model: Model, calibration: Mapping[str, np.ndarray] | None, recipe: Recipe) -> Decision:
    """How the recipe quantizes a canonical float model.

    Raises:
        UsageError, UnsupportedError: see `quantize`.
    """
    if calibration is None:
        raise UsageError(
            f"{model.name} is a float model: quantizing it needs samples of its inputs",
            need="calibration samples: " + ", ".join(f"{i.name} {list(i.shape)}" for i in model.inputs),
            have="none",
            hint="--calibration samples.npz (arrays keyed by input name, leading axis = samples)",
        )
    samples = check_samples(calibration, model.inputs, source="calibration")
    check_ranges(model, samples)
    model = dataclasses.replace(model, proto=_without_constant_divisors(model.proto))
    plan, equalized = _equalized_or_not(model, samples, recipe)
    record: dict[str, object] = {"scheme": "int8", "method": recipe.method}
    if recipe.method == "percentile":
        record["percentile"] = recipe.percentile
    record |= {"equalized": equalized, "bias_correction": recipe.bias_correction}
    record |= {"samples": plan.ranges.samples, "calibration_sha256": sha256_of(samples)}
    widths = choose_layers(choose_states(plan, samples, recipe), recipe)
    plan, notes = widths.plan, widths.told()
    record |= widths.record
    if recipe.max_loss is not None:
        choice = widen(plan, Fidelity(model, samples, recipe.labels, recipe.scores), recipe.max_loss)
        plan = choice.plan
        record |= {"int16": list(choice.names), "loss_points": choice.after}
        notes.append(_note(choice, recipe))
    return Decision(plan, samples, record, notes)


def finish(decision: Decision) -> Model:
    """The QDQ model of a decision."""
    model = decision.plan.write()
    metadata = {p.key: p.value for p in model.proto.metadata_props} | {METADATA_KEY: json.dumps(decision.record)}
    helper.set_model_props(model.proto, metadata)
    return dataclasses.replace(model, notes=[*model.notes, *decision.notes])


def _note(choice: Widening, recipe: Recipe) -> str:
    text = f"loss of {'accuracy' if recipe.labels is not None else 'cosine'} on the calibration samples: "
    if not choice.names:
        return f"{text}{choice.after:.3g} points in int8"
    wide = f"{len(choice.names)} tensor{'s' if len(choice.names) > 1 else ''} as int16"
    return (
        f"{text}{choice.after:.3g} points with {wide} (+{choice.more_bytes:,} B together), "
        f"{choice.before:.3g} in int8; int16: {', '.join(choice.names)}"
    )


def _equalized_or_not(model: Model, samples: Mapping[str, np.ndarray], recipe: Recipe) -> tuple[Plan, bool]:
    def planned(candidate: Model, seen: Mapping[str, np.ndarray]) -> Plan:
        plan = make_plan(candidate, seen, recipe.method, recipe.percentile)
        return correct_biases(plan, seen) if recipe.bias_correction else plan

    scaled = model if recipe.equalize == "off" else equalize(model, samples)
    if scaled is model:
        return planned(model, samples), False
    if recipe.equalize == "auto":
        seen, unseen = _halves(model, samples)
        fidelity = Fidelity(model, unseen)
        even = fidelity.noise(planned(equalize(model, seen), seen).write())
        if even >= CLEARLY * fidelity.noise(planned(model, seen).write()):
            return planned(model, samples), False
    return planned(scaled, samples), True


def _halves(model: Model, samples: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Samples to calibrate on and others to judge by; of a stream, or of very few, all of them twice."""
    if model.states or len(next(iter(samples.values()))) < 8:
        return dict(samples), dict(samples)
    return {n: a[::2] for n, a in samples.items()}, {n: a[1::2] for n, a in samples.items()}


def _without_constant_divisors(proto: onnx.ModelProto) -> onnx.ModelProto:
    """x / c -> x * (1/c): a quantized divisor could round to zero."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    constants = {init.name: init for init in copy.graph.initializer}
    for node in copy.graph.node:
        if node.op_type == "Div" and not node.domain and node.input[1] in constants:
            divisor = numpy_helper.to_array(constants[node.input[1]])
            if divisor.dtype != np.float32 or not np.all(divisor):
                raise UnsupportedError(f"{node.name}: division by a constant that is not float32 or holds 0")
            name = f"{node.input[1]}/reciprocal"
            while name in constants and not np.array_equal(numpy_helper.to_array(constants[name]), 1 / divisor):
                name += "_"
            if name not in constants:
                constants[name] = numpy_helper.from_array(1 / divisor, name)
                copy.graph.initializer.append(constants[name])
            node.op_type = "Mul"
            node.input[1] = name
    return copy
