# SPDX-License-Identifier: Apache-2.0
"""ImageNet transformers of MCUFormer's search space on the STM32F746G-DISCO, the image fed by rows.

    .venv/bin/python scripts/mcuformer.py                 plans and links twelve blocks of every shape
    .venv/bin/python scripts/mcuformer.py --depth 2 --run  runs two of them on the simulated board, against NumPy

Images of 240x240x3, MLP ratio 4, heads of width 64 (q, k and v are 64 x heads wide), weights at random: what a program
takes does not depend on them. The layers are dense, which the low-rank factors of the released models multiply to.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model, make_program
from edgec.export import export
from edgec.model import Model, load_model
from edgec.models.mcuformer import imagenet
from edgec.program import evaluate
from edgec.run import profile_artifact, run_artifact, to_device
from edgec.schedule.tile import Goal
from edgec.target import load_target

SIDE = 240
BOARD = "stm32f746g-disco"


@dataclass(frozen=True)
class Shape:
    """Patch side, width of a token, heads; bytes of RAM that are to be enough."""

    patch: int
    width: int
    heads: int
    ram: int


SHAPES = (
    Shape(16, 192, 3, 112_000),
    Shape(20, 216, 4, 87_000),
    Shape(20, 192, 3, 72_500),
    Shape(20, 168, 3, 69_000),
)


def make(shape: Shape, depth: int, path: Path) -> Model:
    """The network as an ONNX model with random weights."""
    net = imagenet(shape.patch, shape.width, shape.heads, depth)
    export(net, path, inputs={"image": (1, 3, SIDE, SIDE)}, outputs=["logits"])
    return load_model(path)


def samples(count: int = 2) -> dict[str, np.ndarray]:
    """Smooth random images."""
    coarse = np.random.default_rng(0).random((count, 3, 12, 12), np.float32)
    return {"image": coarse.repeat(SIDE // 12, 2).repeat(SIDE // 12, 3)}


def compiled(shape: Shape, depth: int, goal: Goal, ram: int | None, folder: Path) -> tuple[Artifact, Model]:
    """The artifact of a shape, and its model."""
    name = f"p{shape.patch}_w{shape.width}_h{shape.heads}_d{depth}"
    model = make(shape, depth, folder / f"{name}.onnx")
    options = Options(calibration=samples(), optimize=goal, ram=ram, feed="rows")
    return compile_model(model, load_target(BOARD), folder / name, options), model


def same_bits(artifact: Artifact, model: Model) -> bool:
    """Whether the board computes what the operators' definitions say."""
    given = samples(1)
    program = make_program(model, Options(calibration=samples()))
    port = artifact.inputs[0]
    x = to_device(port, given[port.name])[0].reshape(program.tensors[program.inputs[0].tensor].type.shape)
    want = evaluate(program, {program.inputs[0].tensor: x})[program.outputs[0].tensor]
    got = run_artifact(artifact, given, "sim", raw=True)[artifact.outputs[0].name]
    return bool(np.array_equal(got.ravel(), want.ravel()))


def main() -> None:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--optimize", choices=("ram", "balanced", "speed"), default="balanced")
    parser.add_argument("--free", action="store_true", help="without the shape's limit of RAM")
    parser.add_argument("--run", action="store_true", help="run it on the simulated board as well")
    parser.add_argument("--shape", type=int, choices=range(len(SHAPES)), action="append", help="only this one")
    arguments = parser.parse_args()
    heads = "wanted total arena bound weights in-QSPI QSPI-read instructions".split()
    print("patch width heads" + "".join(f"{h:>13}" for h in heads) + "  equal    s")
    with tempfile.TemporaryDirectory() as folder:
        for shape in [SHAPES[i] for i in arguments.shape] if arguments.shape else SHAPES:
            start = time.monotonic()
            limit = None if arguments.free else shape.ram
            artifact, model = compiled(shape, arguments.depth, arguments.optimize, limit, Path(folder))
            m = artifact.manifest
            ram, weights = m["ram"], m["flash"]["weights_bytes"]
            outside = sum(c["bytes"] for c in m["constants"] if c["region"] == "qspi")
            read = instructions = equal = None
            if arguments.run:
                report = profile_artifact(artifact, samples(1))
                instructions = report["instructions"]
                read = sum(o["flash"].get("qspi", {}).get("bytes_fetched", 0) for o in report["operators"])
                equal = same_bits(artifact, model)
            figures = [
                shape.ram,
                ram["total_bytes"],
                ram["arena_bytes"],
                m["plan"]["schedule_bound_bytes"],
                weights,
                outside,
            ]
            print(
                f"{shape.patch:>5} {shape.width:>5} {shape.heads:>5}"
                + "".join(f"{f:>13,}" for f in figures)
                + "".join(f"{f:>13,}" if f is not None else f"{'-':>13}" for f in (read, instructions))
                + f"{equal!s:>7} {time.monotonic() - start:5.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
