# SPDX-License-Identifier: Apache-2.0
"""`edgec verify`: float, quantized, definitions, host C and simulated board side by side on the same samples."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgec.cli.arguments import Calibration, InputNorm, InputShape, Json, Precision, State, read_model, read_samples
from edgec.cli.output import counter, print_json, progress, table
from edgec.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from edgec.model import Model
    from edgec.verify import Comparison, Form, Labels, Samples, Subject

NAME = "verify"
HELP = (
    "Run a model in every form side by side: float, QDQ, the operators' definitions, host C, simulated board; "
    "exits with 5 unless the last three are equal bit for bit."
)
EXAMPLE = "edgec verify model.onnx --input samples.npz --labels labels.npz --calibration calibration.npz"
DEFAULT_TARGET = "stm32f746"
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
    steps: Annotated[int | None, typer.Option(min=1, help="Use the first N samples or steps.")] = None,
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
    json_: Json = False,
) -> None:
    """Verify a model."""
    tell = progress(json_)
    with tempfile.TemporaryDirectory(prefix="edgec-verify-") as folder:
        place = Path(subject)
        if place.is_dir():
            from edgec.verify import subject_of_artifact

            given = {"--target": target, "--calibration": calibration, "--state": state, "--input-shape": input_shape}
            given |= {"--input-norm": input_norm, "--checkpoint": checkpoint}
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
                    input_, calibration, steps, target or DEFAULT_TARGET, precision, state, input_shape, input_norm
                ),
                tell,
            )
        _report(found, samples, notes, input_, labels, steps, json_, tell)


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
    model = read_model(file, choice.state, choice.shapes, choice.norms)
    calibration = read_samples(choice.calibration, model)
    from edgec.compile import Options
    from edgec.verify import subject_of_model

    notes = list(model.notes)
    samples = _samples(choice.input, model, choice.steps, notes)
    if calibration is None and choice.precision is Precision.INT8:
        calibration = {name: array[:MOST_CALIBRATION] for name, array in samples.items()}
        notes.append("calibrated on the samples that are compared: give --calibration")
    options = Options(choice.precision.value, calibration=calibration)
    return subject_of_model(model, chosen, options, out, tell, forms), samples, notes


def _samples(path: Path | None, model: Model, steps: int | None, notes: list[str]) -> Samples:
    from edgec.quantize.dataset import load_samples
    from edgec.verify import RANDOM_SAMPLES, random_samples

    if path is not None:
        return load_samples(path, model.inputs)
    count = steps or RANDOM_SAMPLES
    notes.append(f"{count} random samples: give --input to see what the model's own data give")
    return random_samples(model, count)


def _report(
    subject: Subject,
    samples: Samples | None,
    notes: list[str],
    input_: Path | None,
    labels: Path | None,
    steps: int | None,
    json_: bool,
    tell: Callable[[str], None],
) -> None:
    from edgec.verify import compare, load_labels

    if samples is None:
        samples = _samples(input_, subject.graph, steps, notes)
    samples = {name: array[:steps] for name, array in samples.items()}
    count = len(next(iter(samples.values()), ()))
    truth = load_labels(labels, subject.graph.outputs, count) if labels else None
    what = "steps" if subject.artifact.stateful else "samples"
    counters: dict[str, Callable[[int], None]] = {}

    def told(form: str, done: int, total: int) -> None:
        if form not in counters:
            tell(f"run {form}")
        counters.setdefault(form, counter(json_, total, f"{what}, {form}"))(done)

    result = compare(subject, samples, told)
    faults = result.faults()
    if json_:
        print_json(_object(subject, result, truth, faults, what))
        if faults:
            raise typer.Exit(DeviceError.exit_code)
        return
    print(f"{subject.name}  ->  {subject.artifact.manifest['target']}   {count:,} {what}")
    print(_table(result, truth))
    for note in notes:
        print(f"  note   {note}")
    if faults:
        raise DeviceError(faults[0], need="the same bits everywhere", have="; ".join(faults[1:]) or None)
    if result.raw:
        print(f"  {' = '.join(result.raw)}, bit for bit")


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
