# SPDX-License-Identifier: Apache-2.0
"""What each lever of the scheduler saves: bytes of arena, instructions and bytes of flash read, lever upon lever.

    .venv/bin/python scripts/ablation.py            prints the tables
    .venv/bin/python scripts/ablation.py --write    and puts them into docs/scheduling.md

Every row is a program of its own, built for the target, run on the simulated board and compared with the operators'
definitions; "fastest" is the schedule with the fewest instructions whatever it takes. Arenas are placed greedily until
the lever "place"; the last row is what `edgec compile` builds.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from edgec.compile import Options, compile_model
from edgec.model import Model, load_model
from edgec.run import profile_artifact, run_artifact
from edgec.schedule.feed import Feeding
from edgec.schedule.schedule import LEVERS, Lever
from edgec.schedule.tile import Goal
from edgec.target import load_target

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scheduling.md"
MARKS = ("<!-- table: scripts/ablation.py -->", "<!-- end -->")
sys.path.insert(0, str(ROOT / "scripts"))
from benchmark import EXAMPLES, images, textures  # noqa: E402
from mcuformer import Shape, make  # noqa: E402


@dataclass(frozen=True)
class Subject:
    """A model to take the levers to."""

    title: str
    model: Callable[[], Model]
    samples: Callable[[Model], dict[str, np.ndarray]]
    target: str = "stm32f746"
    by_rows: bool = False


def example(name: str) -> Callable[[], Model]:
    """A shipped model."""
    return lambda: load_model(EXAMPLES / name)


@cache
def mcuformer() -> Model:
    """MCUFormer's shape at 240x240, two blocks, random weights."""
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        return make(Shape(20, 192, 3, 72_500), 2, Path(folder) / "mcuformer.onnx")


def noise(model: Model) -> dict[str, np.ndarray]:
    """Random images; costs do not depend on what is in a picture."""
    rng = np.random.default_rng(0)
    return {i.name: rng.random((4, *i.shape), np.float32) for i in model.inputs}


SUBJECTS = (
    Subject("ViT 64x64, patch 8, width 96, depth 4", example("image_classification/vit64.onnx"), images),
    Subject("MCUFormer 240x240, patch 20, width 192, depth 2", mcuformer, noise, "stm32h743", by_rows=True),
    Subject("ResNet-8, CIFAR-10", example("cnn/resnet_cifar10.onnx"), textures),
    Subject("DS-CNN, CIFAR-10", example("cnn/ds_cnn_cifar10.onnx"), textures),
)
HEAD = ["| levers | arena B | RAM B | instructions | flash B read | after the D-cache |", "|---|---|---|---|---|---|"]


@dataclass(frozen=True)
class Row:
    """One build."""

    name: str
    arena: int
    ram: int
    instructions: int
    flash: int
    cached: int

    def text(self) -> str:
        """A line of the table."""
        numbers = (self.arena, self.ram, self.instructions, self.flash, self.cached)
        return f"| {self.name} | " + " | ".join(f"{n:,}" for n in numbers) + " |"


@dataclass(frozen=True)
class Variant:
    """How one row is built."""

    name: str
    goal: Goal = "balanced"
    levers: Sequence[Lever] = LEVERS
    feed: Feeding = "whole"


def variants(by_rows: bool) -> list[Variant]:
    """The rows of a subject's table."""
    rows = [Variant("none", levers=())]
    rows += [Variant(f"+ {lever}", levers=LEVERS[:n]) for n, lever in enumerate(LEVERS[:3], 1)]
    feed: Feeding = "rows" if by_rows else "whole"
    if by_rows:
        rows.append(Variant("+ rows", levers=LEVERS[:3], feed=feed))
    rows.append(Variant("+ place: **default**", feed=feed))
    goals: tuple[Goal, ...] = ("ram", "speed")
    return [*rows, *(Variant(f"`--optimize {goal}`", goal, feed=feed) for goal in goals)]


def measure(subject: Subject) -> list[Row]:
    """Build, run and compare every variant."""
    rows, results = [], []
    for variant in variants(subject.by_rows):
        model = subject.model()
        samples = subject.samples(model)
        options = Options(calibration=samples, optimize=variant.goal, levers=variant.levers, feed=variant.feed)
        with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
            artifact = compile_model(model, load_target(subject.target), Path(folder) / "artifact", options)
            report = profile_artifact(artifact, samples)
            results.append(run_artifact(artifact, {n: s[:2] for n, s in samples.items()}, raw=True))
        if any(not np.array_equal(results[0][n], array) for n, array in results[-1].items()):
            raise AssertionError(f"{subject.title}, {variant.name}: other bits than without any lever")
        ram = artifact.manifest["ram"]
        rows.append(
            Row(
                variant.name,
                ram["arena_bytes"],
                ram["total_bytes"],
                report["instructions"],
                report["flash_bytes_read"],
                report["flash_bytes_fetched"],
            )
        )
        print(rows[-1].text(), flush=True)
    return rows


def main() -> None:
    """Measure every subject and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scheduling.md")
    parser.add_argument("--only", help="subjects whose title holds this")
    args = parser.parse_args()
    text: list[str] = []
    for subject in SUBJECTS:
        if args.only and args.only not in subject.title:
            continue
        head = ["", f"**{subject.title}** ({subject.target})", "", *HEAD]
        print("\n".join(head), flush=True)
        rows = measure(subject)
        fastest, default = min(r.instructions for r in rows), next(r for r in rows if "default" in r.name)
        slower = f"Default against the fewest instructions of all: {default.instructions / fastest - 1:+.1%}."
        print(slower, flush=True)
        text += [*head, *(row.text() for row in rows), "", slower]
    if args.write:
        table = "\n".join((MARKS[0], *text, MARKS[1]))
        PAGE.write_text(
            re.sub(f"{re.escape(MARKS[0])}.*?{re.escape(MARKS[1])}", lambda _: table, PAGE.read_text(), flags=re.S)
        )


if __name__ == "__main__":
    main()
