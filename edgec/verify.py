# SPDX-License-Identifier: Apache-2.0
"""One model in all the forms that it takes on its way, side by side on the same samples.

A stateful model of the zoo comes first in torch, in parallel and step by step. `float` and `graph` (QDQ, or canonical
float32) run in ONNX Runtime, `definitions` are the operators' NumPy definitions, `host C` is the generated C on this
machine, `board` the same C on the simulated board. The last two must be equal bit for bit, and the
three of them of a program of integers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.artifact import MODEL_COPY, Artifact, load_artifact
from edgec.compile import Options, compile_model, make_program
from edgec.errors import UsageError
from edgec.front_end import given_inputs, with_features
from edgec.lower import lower_to_integers
from edgec.model import Model, TensorInfo, load_model
from edgec.passes.input_norm import declared_ranges
from edgec.passes.layout import device_layout
from edgec.program import Program, evaluate
from edgec.quantize.calibrate import run_stream
from edgec.quantize.drift import Drift, measure
from edgec.quantize.quantize import is_quantized
from edgec.run import from_device, run_artifact, to_device
from edgec.target import Target

Array = npt.NDArray[Any]
Samples = Mapping[str, Array]
Form = Callable[[Samples], Iterator[dict[str, Array]]]
"""Runs a stream of samples, [S, *ONNX shape] by input name, and yields the outputs of each."""
Progress = Callable[[str, int, int], None]
"""Told the form, the number of samples done and their total."""

RANDOM_SAMPLES = 8
UNLABELLED = -1
"""A label below zero: the sample (or step) is not counted."""


@dataclass(frozen=True)
class Subject:
    """What is verified.

    Attributes:
        name: for people.
        original: the float model, or None when only its quantized form is there.
        graph: what was compiled: QDQ, or canonical float32.
        artifact: what came out.
        forms: further forms by name, which come first: a model of the zoo in torch, in parallel and step by step.
    """

    name: str
    original: Model | None
    graph: Model
    artifact: Artifact
    forms: Mapping[str, Form] = field(default_factory=dict)

    @property
    def integer(self) -> bool:
        """Whether the program is one of integers."""
        return is_quantized(self.graph)


@dataclass(frozen=True)
class Distance:
    """How far a form's output is from the reference form's, over all samples."""

    largest: float
    mean: float
    cosine: float


@dataclass
class Comparison:
    """Forms by name, each with its outputs' real values [S, *ONNX shape] and, where exact, the device's own values."""

    samples: int
    real: dict[str, dict[str, Array]] = field(default_factory=dict)
    raw: dict[str, dict[str, Array]] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The form that the others are compared with: the first."""
        return next(iter(self.real))

    def distance(self, form: str, output: str) -> Distance:
        """How far `form` is from the reference at `output`."""
        a = self.real[self.reference][output].astype(np.float64).ravel()
        b = self.real[form][output].astype(np.float64).ravel()
        apart = np.abs(a - b)
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        cosine = float(a @ b / norm) if norm else float(np.array_equal(a, b))
        return Distance(float(apart.max(initial=0.0)), float(apart.mean()) if apart.size else 0.0, cosine)

    def faults(self) -> list[str]:
        """What is unequal among the forms that must be equal bit for bit; empty when all is well."""
        found = []
        for before, form in pairwise(self.raw):
            for output, wanted in self.raw[before].items():
                wrong = np.argwhere(_unlike(self.raw[form][output], wanted))
                if len(wrong):
                    found.append(
                        f"{output}: {form} differs from {before} in {len(wrong):,} of {wanted.size:,} elements,"
                        f" first in sample {int(wrong[0][0])}"
                    )
        return found

    def drift(self, period: int = 0) -> dict[str, Drift]:
        """How far each other form is from the reference along the stream, by its name.

        Args:
            period: steps after which the inputs repeat, or 0.
        """
        forms = {form: self._rows(form) for form in self.real if form != self.reference}
        return measure(self._rows(self.reference), forms, period=period)

    def _rows(self, form: str) -> Iterator[dict[str, Array]]:
        return ({name: values[i] for name, values in self.real[form].items()} for i in range(self.samples))

    def accuracy(self, form: str, labels: Labels) -> float:
        """Share of the labelled samples whose largest value is at their label."""
        values = self.real[form][labels.output].reshape(self.samples, -1)
        counted = labels.classes > UNLABELLED
        return float((values.argmax(axis=1) == labels.classes)[counted].mean())


def _unlike(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    """Where two arrays differ in a bit, other than in those of NaN, which the processors choose."""
    if a.dtype.kind != "f":
        return np.asarray(a != b)
    bits = f"u{a.dtype.itemsize}"
    return np.asarray((a.view(bits) != b.view(bits)) & ~(np.isnan(a) & np.isnan(b)))


@dataclass(frozen=True)
class Labels:
    """The class of each sample, and the output that names it."""

    output: str
    classes: npt.NDArray[np.int64]


def subject_of_artifact(path: Path) -> Subject:
    """An artifact with the graph that lies in it.

    Raises:
        UsageError: no artifact, or its model is missing or not the one that was compiled.
    """
    artifact = load_artifact(path)
    file = path / MODEL_COPY
    if not file.is_file():
        raise UsageError(f"{path} has no {MODEL_COPY}", hint="compile it again")
    wanted, have = artifact.manifest["model"].get("onnx_sha256"), hashlib.sha256(file.read_bytes()).hexdigest()
    if have != wanted:
        raise UsageError(
            f"{file} is not the model that was compiled", need=str(wanted)[:16], have=have[:16], hint="compile it again"
        )
    return Subject(artifact.manifest["model"]["name"], None, load_model(file), artifact)


def subject_of_model(
    model: Model,
    target: Target,
    options: Options,
    folder: Path,
    tell: Callable[[str], None] = lambda _: None,
    forms: Mapping[str, Form] | None = None,
) -> Subject:
    """Compile `model` into `folder` and take what came out."""
    artifact = compile_model(model, target, folder, options, tell)
    original = None if is_quantized(model) else model
    return Subject(model.name, original, load_model(folder / MODEL_COPY), artifact, forms or {})


def torch_forms(name: str, checkpoint: Path | None = None) -> dict[str, Form]:
    """A stateful model of the zoo in torch: "parallel", where it has that form, and "torch step".

    Args:
        name: of a registered model.
        checkpoint: its weights, see `edgec.export.load_checkpoint`; fresh ones without it, the same as `export` gives.
    """
    from edgec.export import load_checkpoint
    from edgec.models import streams
    from edgec.models.registry import get_model

    record = get_model(name)
    if not record.stateful:
        return {}
    module = record.build()
    if checkpoint is not None:
        load_checkpoint(module, checkpoint)
    step: dict[str, Form] = {"torch step": lambda samples: streams.step_stream(module, record, samples)}
    if not streams.has_parallel(module):
        return step
    return {"parallel": lambda samples: streams.parallel_stream(module, record, samples), **step}


def compare(subject: Subject, samples: Samples, tell: Progress = lambda *_: None) -> Comparison:
    """Run all forms on the same samples (the steps of one stream, from reset, for a stateful model).

    Args:
        subject: what to run.
        samples: [S, *ONNX shape] by input name.
        tell: told of every sample done.

    Raises:
        EdgecError: a form does not run.
    """
    total = len(next(iter(samples.values()), ()))
    if not total:
        raise UsageError(f"{subject.name}: there is no sample to run")
    samples = with_features(subject.graph, samples)
    result = Comparison(total)

    def take(form: str, outputs: Iterator[dict[str, Array]]) -> dict[str, Array]:
        rows = []
        for step, row in enumerate(outputs):
            rows.append(row)
            tell(form, step + 1, total)
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    for form, run in subject.forms.items():
        result.real[form] = take(form, run(samples))
    if subject.original is not None:
        result.real["float"] = take("float", _stream(subject.original, samples))
    graph = "QDQ" if subject.integer else "canonical"
    result.real[graph] = take(graph, _stream(subject.graph, samples))
    artifact = subject.artifact
    if subject.integer:
        program = make_program(subject.graph, Options())
        # NumPy adds and takes exponentials in its own way: float nodes are equal to it within a tolerance only.
        floats = bool(program.float_nodes)
        stream = (
            _graph_definitions(subject.graph, program, artifact, samples)
            if floats
            else _definitions(program, artifact, samples)
        )
        _keep(result, "definitions", artifact, take("definitions", stream), not floats)
    forms = {"host C": "host-c", "board": "sim"} if artifact.target.ram_spans() else {"host C": "host-c"}
    for form, runner in forms.items():
        raw = run_artifact(artifact, samples, runner, raw=True, tell=lambda n, form=form: tell(form, n, total))  # type: ignore[arg-type, misc]
        _keep(result, form, artifact, raw, True)
    return result


def _stream(model: Model, samples: Samples) -> Iterator[dict[str, Array]]:
    """`run_stream` with samples in the model's own types: the original may take uint8 images."""
    return run_stream(model, {i.name: samples[i.name].astype(i.dtype, copy=False) for i in model.inputs})


def _keep(result: Comparison, form: str, artifact: Artifact, raw: dict[str, Array], exact: bool) -> None:
    if exact:
        result.raw[form] = raw
    ports = {port.name: port for port in artifact.outputs}
    result.real[form] = {n: from_device(ports[n], a.tobytes(), result.samples, False) for n, a in raw.items()}


def _definitions(program: Program, artifact: Artifact, samples: Samples) -> Iterator[dict[str, Array]]:
    """The program by the operators' definitions, state fed back; the device's values in ONNX shape."""
    feeds = {port.name: to_device(port, samples[port.name]) for port in artifact.inputs}
    types = {name: tensor.type for name, tensor in program.tensors.items()}
    state = {s.source: np.full(types[s.source].shape, s.reset, types[s.source].dtype) for s in program.states}
    for step in range(len(next(iter(samples.values())))):
        given = {p.tensor: feeds[p.name][step].reshape(types[p.tensor].shape) for p in program.inputs}
        values = evaluate(program, given | state)
        yield {p.name: values[p.tensor].reshape(p.onnx_shape) for p in program.outputs}
        state = {s.source: values[s.result].reshape(types[s.source].shape) for s in program.states}


def _graph_definitions(
    graph: Model, program: Program, artifact: Artifact, samples: Samples
) -> Iterator[dict[str, Array]]:
    """As `_definitions`, for a program with float nodes: the graph by the definitions, before TVM fuses them."""
    from edgec.lower.definitions import stream_by_definitions

    lowered = lower_to_integers(device_layout(graph))
    feeds = {port.name: to_device(port, samples[port.name]) for port in artifact.inputs}
    states = {s.name: (s.output, s.reset) for s in program.states}
    for outputs in stream_by_definitions(lowered, states, feeds):
        yield {p.name: outputs[p.name].reshape(p.onnx_shape) for p in program.outputs}


def random_samples(model: Model, count: int, seed: int = 0) -> dict[str, Array]:
    """`count` samples in each input's shape and type: normal values, whole numbers within a declared range, or bits.

    What a front end takes in place of an input is noise.
    """
    rng, ranges = np.random.default_rng(seed), declared_ranges(model)

    def draw(info: TensorInfo) -> Array:
        shape = (count, *info.shape)
        if info.name in ranges:
            low, high = ranges[info.name]
            values: Array = rng.integers(int(low), int(high) + 1, shape)
        elif info.dtype == np.int16:
            values = np.rint(rng.normal(0, 2000, shape))
        else:
            values = rng.normal(size=shape) if info.dtype.kind == "f" else rng.integers(0, 2, shape)
        result: Array = values.astype(info.dtype)
        return result

    return {info.name: draw(info) for info in given_inputs(model)}


def load_labels(path: Path, outputs: list[TensorInfo], count: int) -> Labels:
    """The classes of the first `count` samples, from the one array of an npz file.

    An array with an output's name belongs to that output, any other to the first output. Labels below zero are not
    counted.

    Raises:
        UsageError: no such file, or no array of at least `count` whole numbers that are classes of the output.
    """
    from edgec.quantize.dataset import read_npz

    arrays = read_npz(path)
    names = [o.name for o in outputs]
    if len(arrays) != 1:
        raise UsageError(f"{path} holds {len(arrays)} arrays", need="one array: the class of each sample")
    name, array = next(iter(arrays.items()))
    output = outputs[names.index(name)] if name in names else outputs[0]
    classes = array.reshape(-1)
    if classes.dtype.kind not in "iu" or array.size != len(array) or len(classes) < count:
        raise UsageError(
            f"{path}: array {name} is not a list of classes",
            need=f"{count:,} whole numbers",
            have=f"{array.dtype}{list(array.shape)}",
        )
    chosen = classes[:count].astype(np.int64)
    size = int(np.prod(output.shape))
    if (chosen >= size).any() or not (chosen > UNLABELLED).any():
        raise UsageError(
            f"{path}: the labels are not classes of output {output.name}",
            need=f"0 to {size - 1}",
            have=f"{int(chosen.min())} to {int(chosen.max())}",
        )
    return Labels(output.name, chosen)
