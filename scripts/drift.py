# SPDX-License-Identifier: Apache-2.0
"""How far every trained model with memory drifts from float along a stream of speech: a table of docs/models.md.

    .venv/bin/python scripts/drift.py [--steps N] [--model NAME] [--data DIR]    prints the table
    .venv/bin/python scripts/drift.py --write                                    and puts it into docs/models.md

The stream is recordings of spoken digits one after another, those of the test first, in random order, without a reset
(but for the models whose contract is one). The float model runs in ONNX Runtime, the compiled program as C on this
machine (the same bits as on the board); each keeps its own state. Agreement is the share of steps where both name the
same digit, error is ||y - y_float|| / ||y_float|| of the logits. Instructions, RAM and flash are of the STM32F746,
simulated. Ends with 1 when a model fails the limits of `edgec.quantize.drift`.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model
from edgec.model import Model, TensorInfo, load_model
from edgec.models.registry import get_model
from edgec.quantize.calibrate import run_stream
from edgec.quantize.drift import Drift, Trace, measure
from edgec.quantize.options import Recipe, StateWidth
from edgec.run import profile_artifact, run_artifact
from edgec.target import load_target

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "spoken_digits"
PAGE = ROOT / "docs" / "models.md"
# Where the widths that the quantizer finds are not the ones: of a stream as short as calibration it cannot know that u
# and w of a running softmax grow for ever, and the LSTM's cell is just good enough in int16 there.
WIDTHS: dict[str, StateWidth] = {"aaren-spoken-digits": "float32", "lstm-spoken-digits": "float32"}
RESET = {"aaren-spoken-digits"}
"""Models that never forget: their contract is a reset before each word."""
MARKS = ("<!-- table: scripts/drift.py -->", "<!-- end -->")
sys.path[:0] = [str(ROOT / "examples"), str(DIGITS)]
from data_folder import DEFAULT  # noqa: E402
from features import load_fsdd  # noqa: E402

Floats = npt.NDArray[np.float32]
HEAD = (
    "| model | row | parameters | state B | widths | top-1 | first, last tenth | error | first, last tenth "
    "| instructions | RAM B | flash B |"
)


@dataclass(frozen=True)
class Case:
    """A trained model: its file and the samples that the quantizer gets."""

    name: str
    path: Path
    calibration: Path


def cases(folder: Path) -> dict[str, Case]:
    """The trained models in a folder of the trainer, by registered name."""
    found = {}
    for path in sorted(folder.glob("*.onnx")):
        own = folder / f"calibration_{path.stem}.npz"
        calibration = own if own.exists() else folder / "calibration.npz"
        name = path.stem.replace("_", "-")
        found[name] = Case(name, path, calibration)
    return found


def streams(data: Path, given: TensorInfo, steps: int, reset: bool) -> list[Floats]:
    """`steps` samples of an input: test recordings one after another, then training recordings.

    One stream, or one for each recording where a reset comes before each.
    """
    random, found, left = np.random.default_rng(0), list[Floats](), steps
    segment = int(np.prod(given.shape)) // given.shape[-1]
    for part in ("test", "train"):
        recordings = load_fsdd(data, part).frames
        order = [recordings[i] for i in random.permutation(len(recordings))]
        for frames in order if reset else [np.concatenate(order)]:
            samples = frames[: len(frames) // segment * segment].reshape(-1, *given.shape)[:left]
            found += [samples] if len(samples) else []
            left -= len(samples)
    if left:
        sys.exit(f"error: the recordings are {left:,} steps short of {steps:,}")
    return found if reset else [np.concatenate(found)]


def drift_along(artifact: Artifact, model: Model, stretches: list[Floats], name: str) -> Drift:
    """The program on this machine beside the float model, each on its own state; a reset before each stretch."""
    (given,), outputs, steps = model.inputs, [value.name for value in model.outputs], sum(map(len, stretches))

    def compiled() -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        done = 0
        for stretch in stretches:
            found = run_artifact(artifact, {given.name: stretch}, "host-c")
            done += len(stretch)
            if sys.stderr.isatty():
                print(f"{name}: step {done:,} of {steps:,}", end="\r", file=sys.stderr, flush=True)
            for step in range(len(stretch)):
                yield {output: found[output][step] for output in outputs}

    wanted = chain.from_iterable(run_stream(model, {given.name: stretch}, outputs) for stretch in stretches)
    return measure(wanted, {name: compiled()})[name]


def row(case: Case, data: Path, steps: int) -> tuple[str, bool]:
    """A row of the table, and whether the model stays within the limits."""
    model, record = load_model(case.path), get_model(case.name)
    with np.load(case.calibration) as arrays:
        calibration = {model.inputs[0].name: arrays[model.inputs[0].name]}
    recipe = Recipe(state_width=WIDTHS.get(case.name, "auto"))
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        artifact = compile_model(
            model,
            load_target("stm32f746"),
            Path(folder) / "artifact",
            Options(calibration=calibration, recipe=recipe),
        )
        stretches = streams(data, model.inputs[0], steps, case.name in RESET)
        drift = drift_along(artifact, model, stretches, case.name)
        instructions = profile_artifact(artifact, calibration)["instructions"]
    m = artifact.manifest
    (trace,), (verdict,) = drift.outputs.values(), drift.verdicts().values()
    cells = [
        f"`{case.name}`" + (", a reset before each recording" if case.name in RESET else ""),
        str(record.row or ""),
        f"{sum(p.numel() for p in record.build().parameters()):,}",
        f"{m['ram']['state_bytes']:,}",
        widths(artifact),
        *shares(trace, steps),
        f"{instructions:,}",
        f"{m['ram']['total_bytes']:,}",
        f"{m['flash']['total_bytes']:,}",
    ]
    return f"| {' | '.join(cells)} |", verdict.passes


def shares(trace: Trace, steps: int) -> Iterator[str]:
    """Agreement over all steps, the first and the last tenth; then error."""
    ends = ((0, steps // 10), (steps - steps // 10, steps))
    for share in (lambda *part: trace.agreement(*part) or 0.0, trace.error):
        yield f"{share(0, steps):.2%}"
        yield ", ".join(f"{share(*end):.2%}" for end in ends)


def widths(artifact: Artifact) -> str:
    """The types of the states, such as "int16 s0; int8 past0"."""
    named: dict[str, list[str]] = {}
    for state in artifact.manifest["states"]:
        named.setdefault(state["dtype"], []).append(state["name"])
    return "; ".join(f"{dtype} {', '.join(names)}" for dtype, names in named.items())


def main() -> None:
    """Parse, measure, print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT, help="folder of the data sets (EDGEC_DATA)")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--models", type=Path, default=DIGITS, help="folder with what the trainer wrote")
    parser.add_argument("--model", action="append", help="only this one")
    parser.add_argument("--write", action="store_true", help="put the table into docs/models.md")
    args = parser.parse_args()
    known = cases(args.models)
    rows, passed = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)], True
    print("\n".join(rows))
    for case in (known[name] for name in args.model or known):
        text, passes = row(case, args.data, args.steps)
        print(text if passes else f"{text} fails", flush=True)
        rows.append(text)
        passed &= passes
    if args.write:
        table = "\n".join((MARKS[0], "", *rows, "", MARKS[1]))
        pattern = re.compile(f"{re.escape(MARKS[0])}.*?{re.escape(MARKS[1])}", re.DOTALL)
        PAGE.write_text(pattern.sub(lambda _: table, PAGE.read_text()))
    sys.exit(not passed)


if __name__ == "__main__":
    main()
