# SPDX-License-Identifier: Apache-2.0
"""How far every trained model with memory drifts from float along a stream of speech: a table of docs/models.md.

    .venv/bin/python scripts/drift.py [--steps N] [--model NAME] [--seed N] [--data DIR]  prints the table
    .venv/bin/python scripts/drift.py --write                                       and puts it into docs/models.md

The stream is recordings of spoken digits one after another, those of the test first, in the order of a seed, without a
reset. The float model runs in ONNX Runtime on log-mel frames, the compiled program as C on this machine (the same bits
as on the board); each keeps its own state. The program gets the same frames, or the sound itself where it has a front
end of its own. Agreement is the share of steps where both name the same digit, error is ||y - y_float|| / ||y_float||
of the logits. Instructions, RAM and flash are of the STM32F746, simulated. Ends with 1 when a model fails the limits of
`edgec.quantize.drift`.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.artifact import MODEL_COPY, Artifact
from edgec.compile import Options, compile_model
from edgec.front_end import front_end_of
from edgec.model import Model, load_model
from edgec.models.registry import get_model
from edgec.quantize.calibrate import run_stream
from edgec.quantize.drift import Drift, Trace, measure
from edgec.quantize.quantize import record_of
from edgec.run import profile_artifact, run_artifact
from edgec.target import load_target

ROOT = Path(__file__).resolve().parents[1]
DIGITS, SOUND = (ROOT / "examples" / name for name in ("spoken_digits", "keyword_spotting"))
PAGE = ROOT / "docs" / "models.md"
MARKS = ("<!-- table: scripts/drift.py -->", "<!-- end -->")
sys.path[:0] = [str(ROOT / "examples"), str(DIGITS), str(SOUND)]
from data_folder import DEFAULT  # noqa: E402
from features import HOP, log_mel  # noqa: E402
from recordings import at_speed, calibration_of, heard, hops, load  # noqa: E402

Floats = npt.NDArray[np.float32]
Pcm = npt.NDArray[np.int16]
HEAD = (
    "| model | row | parameters | state B | states | wide layers | top-1 | first, last tenth | error "
    "| first, last tenth | instructions | RAM B | flash B |"
)


@dataclass(frozen=True)
class Stream:
    """What the float model gets at each step and what the program gets, [S, *shape] each."""

    frames: Floats
    given: npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A trained model: its file and the samples that the quantizer gets."""

    name: str
    path: Path
    calibration: Path


def stream(model: Model, words: Sequence[Pcm], steps: int) -> Stream:
    """The first steps of words one after another, without a reset.

    A program with a front end hears them as one sound. The others get the frames of each by itself, a segment of them
    at a step where the model takes segments.
    """
    shape = model.inputs[0].shape
    if front_end_of(model):
        sound = np.concatenate(words)[: steps * HOP]
        found = Stream(heard(sound).reshape(-1, *shape), hops(sound))
    else:
        frames = np.concatenate([log_mel(word) for word in words])
        segment = int(np.prod(shape)) // shape[-1]
        frames = frames[: min(len(frames) // segment, steps) * segment].reshape(-1, *shape)
        found = Stream(frames, frames)
    if len(found.frames) < steps:
        sys.exit(f"error: the recordings are {steps - len(found.frames):,} steps short of {steps:,}")
    return found


def cases(*folders: Path) -> dict[str, Case]:
    """The trained models in folders of the trainers, by registered name."""
    found = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.onnx"))):
        name = path.stem.replace("_", "-")
        found[name] = Case(name, path, calibration_of(path))
    return found


def in_order(data: Path, seed: int, speed: float) -> list[Pcm]:
    """All recordings, so many times as fast: those of the test in random order, then those of the training part."""
    random, (train, test) = np.random.default_rng(seed), load(data)
    words = [part.pcm[i] for part in (test, train) for i in random.permutation(len(part.pcm))]
    return words if speed == 1 else [at_speed(word, speed) for word in words]


def drift_along(artifact: Artifact, model: Model, along: Stream, name: str) -> Drift:
    """The program on this machine beside the float model, each on its own state."""
    (source,), (given,) = model.inputs, artifact.inputs
    outputs = [value.name for value in model.outputs]
    found = run_artifact(artifact, {given.name: along.given}, "host-c")
    compiled = ({output: found[output][step] for output in outputs} for step in range(len(along.given)))
    return measure(run_stream(model, {source.name: along.frames}, outputs), {name: compiled})[name]


def row(case: Case, words: Sequence[Pcm], steps: int) -> tuple[str, bool]:
    """A row of the table, and whether the model stays within the limits."""
    model, record = load_model(case.path), get_model(case.name)
    with np.load(case.calibration) as arrays:
        calibration = {model.inputs[0].name: arrays[model.inputs[0].name]}
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        options = Options(calibration=calibration)
        artifact = compile_model(model, load_target("stm32f746"), Path(folder) / "artifact", options)
        along = stream(model, words, steps)
        drift = drift_along(artifact, model, along, case.name)
        instructions = profile_artifact(artifact, {artifact.inputs[0].name: along.given})["instructions"]
        wide = record_of(load_model(artifact.path / MODEL_COPY)).get("wide_layers", [])
    m = artifact.manifest
    (trace,), (verdict,) = drift.outputs.values(), drift.verdicts().values()
    cells = [
        f"`{case.name}`",
        str(record.row or ""),
        f"{sum(p.numel() for p in record.build().parameters()):,}",
        f"{m['ram']['state_bytes']:,}",
        widths(artifact),
        str(len(wide)),
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
    parser.add_argument("--seed", type=int, default=0, help="of the order of the recordings")
    parser.add_argument("--speed", type=float, default=1.0, help="of the recordings: other voices, which nothing saw")
    parser.add_argument(
        "--models", type=Path, nargs="+", default=[DIGITS, SOUND], help="folders with what the trainers wrote"
    )
    parser.add_argument("--model", action="append", help="only this one")
    parser.add_argument("--write", action="store_true", help="put the table into docs/models.md")
    args = parser.parse_args()
    known, words = cases(*args.models), in_order(args.data, args.seed, args.speed)
    rows, passed = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)], True
    print("\n".join(rows))
    for case in (known[name] for name in args.model or known):
        text, passes = row(case, words, args.steps)
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
