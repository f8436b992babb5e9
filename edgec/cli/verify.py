# SPDX-License-Identifier: Apache-2.0
"""`edgec verify`: float, quantized, definitions, host C and simulated board side by side on the same samples."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgec.cli.arguments import (
    Calibration,
    FrontEnd,
    InputNorm,
    InputShape,
    Json,
    LayerWidth,
    LayerWidths,
    Precision,
    State,
    StateWidths,
    read_model,
    read_samples,
    width_fields,
)
from edgec.cli.output import counter, print_json, progress, table
from edgec.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from edgec.model import Model
    from edgec.quantize.drift import Drift
    from edgec.verify import Comparison, Form, Labels, Samples, Subject

NAME = "verify"
HELP = (
    "Run a model in every form side by side: float, QDQ, the operators' definitions, host C, simulated board; "
    "exits with 5 unless the last three (with float32: the last two) are equal bit for bit."
)
EXAMPLE = "edgec verify model.onnx --input samples.npz --labels labels.npz --calibration calibration.npz"
DEFAULT_TARGET = "stm32f746"
LEAST_DRIFT = 100
"""Steps from which drift is told."""
MOST_CALIBRATION = 1000
"""Samples of those that are compared that calibration takes, when it is given none."""


def command(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="MODEL.onnx|DIR|NAME", help="A model, what `edgec compile` wrote, or a model of the zoo."
        ),
    ],
    input_: Annotated[
        Path | None,
        typer.Option("--input", help="npz by input name; leading axis = samples or steps; else random ones."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="npz with the class of each sample (below 0: not counted): adds accuracy.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Use the first N samples; of a model with state so many steps, the input repeated."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights of a model of the zoo: a file of torch.save, or its exported ONNX file."),
    ] = None,
    calibration: Calibration = None,
    target: Annotated[
        str | None,
        typer.Option(help=f"Where a model is compiled for; {DEFAULT_TARGET} by default, an artifact has its own."),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="int8 quantizes a float model.")] = Precision.INT8,
    state: State = None,
    input_shape: InputShape = None,
    input_norm: InputNorm = None,
    front_end: FrontEnd = None,
    state_width: StateWidths = None,
    layer_width: LayerWidths = LayerWidth.AUTO,
    report: Annotated[
        Path | None, typer.Option(help="Write the report of the program (see `edgec report`), with the drift drawn.")
    ] = None,
    json_: Json = False,
) -> None:
    """Verify a model."""
    tell = progress(json_)
    with tempfile.TemporaryDirectory(prefix="edgec-verify-") as folder:
        place = Path(subject)
        if place.is_dir():
            from edgec.verify import subject_of_artifact

            given: dict[str, object] = {
                "--target": target,
                "--calibration": calibration,
                "--state": state,
                "--input-shape": input_shape,
            }
            given |= {"--input-norm": input_norm, "--front-end": front_end, "--checkpoint": checkpoint}
            given |= {"--state-width": state_width, "--layer-width": layer_width is not LayerWidth.AUTO}
            refused = [option for option, value in given.items() if value]
            if refused:
                raise UsageError(f"{', '.join(refused)} is for models: {subject} is compiled already")
            found, samples = subject_of_artifact(place), None
            notes: list[str] = []
        else:
            forms: dict[str, Form] = {}
            if place.suffix == ".onnx" or place.exists():
                if checkpoint is not None:
                    raise UsageError(
                        "--checkpoint is for models of the zoo, by name", have=subject, hint="edgec models"
                    )
            else:
                place, forms = _exported(subject, checkpoint, Path(folder))
            found, samples, notes = _compiled(
                place,
                forms,
                Path(folder) / "artifact",
                _Choice(
                    input_,
                    calibration,
                    steps,
                    target or DEFAULT_TARGET,
                    precision,
                    state,
                    input_shape,
                    input_norm,
                    front_end,
                    width_fields(state_width, layer_width),
                ),
                tell,
            )
        _report(found, samples, notes, _Print(input_, labels, steps, report, json_), tell)


@dataclass(frozen=True)
class _Choice:
    """What the command line says about a model that is not compiled yet."""

    input: Path | None
    calibration: Path | None
    steps: int | None
    target: str
    precision: Precision
    state: list[str] | None
    shapes: list[str] | None
    norms: list[str] | None
    front_end: str | None
    widths: dict[str, Any]


def _exported(name: str, checkpoint: Path | None, folder: Path) -> tuple[Path, dict[str, Form]]:
    from edgec.export import export

    file = export(name, folder / f"{name}.onnx", checkpoint=checkpoint)
    from edgec.verify import torch_forms

    return file, torch_forms(name, checkpoint)


def _compiled(
    file: Path, forms: dict[str, Form], out: Path, choice: _Choice, tell: Callable[[str], None]
) -> tuple[Subject, Samples | None, list[str]]:
    from edgec.target import load_target

    chosen = load_target(choice.target)
    tell("read the model")
    model = read_model(file, choice.state, choice.shapes, choice.norms, choice.front_end)
    calibration = read_samples(choice.calibration, model)
    from edgec.compile import Options
    from edgec.verify import subject_of_model

    notes = list(model.notes)
    samples = _samples(choice.input, model, choice.steps, notes)
    if calibration is None and choice.precision is Precision.INT8:
        calibration = {name: array[:MOST_CALIBRATION] for name, array in samples.items()}
        notes.append("calibrated on the samples that are compared: give --calibration")
    from edgec.quantize.options import Recipe

    options = Options(choice.precision.value, calibration=calibration, recipe=Recipe(**choice.widths))
    return subject_of_model(model, chosen, options, out, tell, forms), samples, notes


def _samples(path: Path | None, model: Model, steps: int | None, notes: list[str]) -> Samples:
    from edgec.front_end import given_inputs
    from edgec.quantize.dataset import load_samples
    from edgec.verify import RANDOM_SAMPLES, random_samples

    if path is not None:
        return load_samples(path, given_inputs(model))
    count = steps or RANDOM_SAMPLES
    notes.append(f"{count} random samples: give --input to see what the model's own data give")
    return random_samples(model, count)


@dataclass(frozen=True)
class _Print:
    """What to run on, and where the result goes."""

    input: Path | None
    labels: Path | None
    steps: int | None
    report: Path | None
    json: bool


def _report(
    subject: Subject, samples: Samples | None, notes: list[str], wishes: _Print, tell: Callable[[str], None]
) -> None:
    from edgec.quantize.drift import repeated
    from edgec.verify import compare, load_labels

    if samples is None:
        samples = _samples(wishes.input, subject.graph, wishes.steps, notes)
    given = len(next(iter(samples.values()), ()))
    stateful, steps = subject.artifact.stateful, wishes.steps or given
    if stateful and 0 < given < steps:
        samples = repeated(samples, steps)
        notes.append(f"the input has {given:,} steps: it is repeated")
    samples = {name: array[:steps] for name, array in samples.items()}
    count = len(next(iter(samples.values()), ()))
    truth = load_labels(wishes.labels, subject.graph.outputs, count) if wishes.labels else None
    what = "steps" if stateful else "samples"
    counters: dict[str, Callable[[int], None]] = {}

    def told(form: str, done: int, total: int) -> None:
        if form not in counters:
            tell(f"run {form}")
        counters.setdefault(form, counter(wishes.json, total, f"{what}, {form}"))(done)

    result = compare(subject, samples, told)
    faults = result.faults()
    drift = result.drift(given if given < count else 0) if stateful else {}
    if stateful:
        _keep_drift(subject, result, drift)
    if wishes.report:
        _write_page(subject, wishes.report, tell)
    if wishes.json:
        print_json(_object(subject, result, truth, faults, what) | {"drift": _curves(drift)})
        if faults:
            raise typer.Exit(DeviceError.exit_code)
        return
    print(f"{subject.name}  ->  {subject.artifact.manifest['target']}   {count:,} {what}")
    print(_table(result, truth))
    if drift and count >= LEAST_DRIFT:
        print(_drift_table(drift, count))
    for note in notes:
        print(f"  note   {note}")
    if wishes.report:
        print(f"  wrote  {wishes.report}")
    if faults:
        raise DeviceError(faults[0], need="the same bits everywhere", have="; ".join(faults[1:]) or None)
    if len(result.raw) > 1:
        print(f"  {' = '.join(result.raw)}, bit for bit")


def _keep_drift(subject: Subject, result: Comparison, drift: dict[str, Drift]) -> None:
    """Beside the manifest, where a report finds it."""
    from edgec.artifact import new_file
    from edgec.json_text import json_text
    from edgec.report.facts import DRIFT

    outputs: dict[str, dict[str, Any]] = {}
    for form, curves in _curves(drift).items():
        for output, curve in curves.items():
            outputs.setdefault(output, {})[form] = curve["stretches"]
    content = {
        "model_id": subject.artifact.manifest["model_id"],
        "steps": result.samples,
        "reference": result.reference,
        "outputs": outputs,
    }
    with new_file(subject.artifact.path / DRIFT) as part:
        part.write_text(json_text(content), encoding="utf-8")


def _write_page(subject: Subject, out: Path, tell: Callable[[str], None]) -> None:
    from edgec.artifact import new_file
    from edgec.report import page, read_facts
    from edgec.run import profile_artifact

    tell("measure a run")
    text = page(read_facts(subject.artifact, profile_artifact(subject.artifact)))
    with new_file(out) as part:
        part.write_text(text, encoding="utf-8")


def _curves(drift: dict[str, Drift]) -> dict[str, Any]:
    """Form -> output -> its verdict, and the stretches of steps."""

    def curve(one: Drift, output: str) -> dict[str, Any]:
        verdict = one.verdicts()[output]
        stretches = [
            {"first": s.first, "last": s.last, "relative_error": s.error, "top1": s.agreement}
            for s in one.curve(output)
        ]
        return {
            "relative_error": verdict.error,
            "top1": verdict.agreement,
            "grows": verdict.grows,
            "passes": verdict.passes,
            "stretches": stretches,
        }

    return {form: {output: curve(one, output) for output in one.outputs} for form, one in drift.items()}


def _drift_table(drift: dict[str, Drift], steps: int) -> str:
    """Relative error by powers of ten of the steps, forms of the same curve in one line."""
    bounds = [0, *(10**n for n in range(1, math.ceil(math.log10(steps)))), steps]
    heads = [f"to {last:,}" for last in bounds[1:]]
    lines: dict[tuple[str, ...], list[str]] = {}
    for form, one in drift.items():
        for output, verdict in one.verdicts().items():
            errors = (one.outputs[output].error(*stretch) for stretch in pairwise(bounds))
            whole = "" if verdict.agreement is None else f"{verdict.agreement:.2%}"
            told = "grows" if verdict.grows else ""
            key = (output, *(f"{error:.2%}" for error in errors), whole, told)
            lines.setdefault(key, []).append(form)
    rows = [(key[0], " = ".join(forms), *key[1:]) for key, forms in lines.items()]
    head = ("drift", "form", *heads, "top-1", "")
    return table(head, rows, right=tuple(range(2, len(head))))


def _table(result: Comparison, truth: Labels | None) -> str:
    rows = []
    for output, array in result.real[result.reference].items():
        label = f"{output} {list(array.shape[1:])}"
        for form in result.real:
            d = result.distance(form, output)
            figures = ["", "", "reference"] if form == result.reference else _figures(d.largest, d.mean, d.cosine)
            score = f"{result.accuracy(form, truth):.2%}" if truth is not None and truth.output == output else ""
            rows.append((label, form, *figures, score))
            label = ""
    head = ("output", "form", "largest", "mean", "cosine", "accuracy" if truth else "")
    return table(head, rows, right=(2, 3, 4, 5))


def _figures(largest: float, mean: float, cosine: float) -> list[str]:
    return [f"{largest:.4g}", f"{mean:.3g}", f"{cosine:.5f}"]


def _object(subject: Subject, result: Comparison, truth: Labels | None, faults: list[str], what: str) -> dict[str, Any]:
    def form(output: str, name: str) -> dict[str, Any]:
        d = result.distance(name, output)
        entry: dict[str, Any] = {"form": name, "largest": d.largest, "mean": d.mean, "cosine": d.cosine}
        if truth is not None and truth.output == output:
            entry["accuracy"] = result.accuracy(name, truth)
        return entry

    return {
        "model": subject.name,
        "target": subject.artifact.manifest["target"],
        what: result.samples,
        "reference": result.reference,
        "outputs": {o: [form(o, name) for name in result.real] for o in result.real[result.reference]},
        "compared_bit_for_bit": list(result.raw),
        "equal": not faults,
        "faults": faults,
    }
