# SPDX-License-Identifier: Apache-2.0
"""What the shipped models cost on a simulated STM32F746, beside what other tools took for the same network.

    .venv/bin/python scripts/benchmark.py            prints the table
    .venv/bin/python scripts/benchmark.py --write    and puts it into docs/benchmarks.md

Ours are exact counts of default builds, made in this run. The peers' were measured once for this project (versions
of 2026, arm-none-eabi-gcc 12.2, QEMU's Cortex-M7; RAM with input, output and painted stack, flash with weights) and
are not measured again here.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.compile import Options, compile_model
from edgec.model import Model, load_model
from edgec.quantize.dataset import load_samples
from edgec.run import profile_artifact
from edgec.target import load_target

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "benchmarks.md"
sys.path.insert(0, str(EXAMPLES / "image_classification"))
from images import as_input  # noqa: E402

MARKS = ("<!-- table: scripts/benchmark.py -->", "<!-- end -->")


@dataclass(frozen=True)
class Peer:
    """Another tool on the same network; bytes."""

    name: str
    instructions: int
    ram: int
    flash: int


@dataclass(frozen=True)
class Job:
    """A shipped model (below examples/), what makes its calibration samples, and its peers."""

    title: str
    model: str
    samples: Callable[[Model], dict[str, np.ndarray]]
    peers: tuple[Peer, ...] = ()


def images(model: Model) -> dict[str, np.ndarray]:
    """The shipped calibration images, enlarged to what the model takes."""
    with np.load(EXAMPLES / "image_classification" / "calibration.npz") as data:
        return {"image": as_input(data["image"].reshape(-1, 28, 28), model.inputs[0].shape)}


def textures(model: Model) -> dict[str, np.ndarray]:
    """Smooth random images: costs do not depend on what is in a picture, and no CIFAR image is shipped."""
    shape = model.inputs[0].shape
    coarse = np.random.default_rng(0).random((16, 28, 28), np.float32)
    return {model.inputs[0].name: as_input(coarse[:, ::7, ::7], shape)}


def stream(model: Model) -> dict[str, np.ndarray]:
    """The shipped stream."""
    return load_samples(EXAMPLES / "streaming" / "stream.npz", model.inputs)


JOBS = (
    Job(
        "MCUFormer-style classifier, Fashion-MNIST",
        "image_classification/mcuformer_fashion_mnist.onnx",
        images,
    ),
    Job(
        "ViT 64x64, patch 8, width 96, depth 4, 3 heads",
        "image_classification/vit64.onnx",
        images,
        (Peer("TFLite Micro + CMSIS-NN, int8 (GELU replaced)", 142_830_000, 146_936, 572_072),),
    ),
    Job("ResNet-8, CIFAR-10", "cnn/resnet_cifar10.onnx", textures),
    Job("DS-CNN, CIFAR-10", "cnn/ds_cnn_cifar10.onnx", textures),
    Job(
        "recurrent step x 16, h 64, m 32",
        "streaming/recurrent_16_64_32.onnx",
        stream,
        (
            Peer("ExecuTorch Cortex-M, int8", 57_600, 9_876, 52_168),
            Peer("TFLite Micro, int8", 85_500, 5_800, 73_912),
        ),
    ),
)


def measure(job: Job) -> list[str]:
    """Rows of the table for one job: ours and its peers'."""
    model = load_model(EXAMPLES / job.model)
    samples = job.samples(model)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        options = Options(calibration=samples)
        artifact = compile_model(model, load_target("stm32f746"), Path(folder) / "artifact", options)
        report = profile_artifact(artifact, samples)
    m = artifact.manifest
    ours = Peer("**edgec**", report["instructions"], m["ram"]["total_bytes"], m["flash"]["total_bytes"])
    macs = m["model"]["macs"]
    return [
        f"| {job.title if tool is ours else ''} | {tool.name} | {tool.instructions:,} | {tool.instructions / macs:.2f} "
        f"| {tool.ram:,} | {tool.flash:,} |"
        for tool in (ours, *job.peers)
    ]


def main() -> None:
    """Measure every job and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    args = parser.parse_args()
    rows = ["| model | tool | instructions | per MAC | RAM B | flash B |", "|---|---|---|---|---|---|"]
    print("\n".join(rows))
    for job in JOBS:
        new = measure(job)
        print("\n".join(new), flush=True)
        rows += new
    if args.write:
        text = PAGE.read_text()
        table = "\n".join((MARKS[0], *rows, MARKS[1]))
        PAGE.write_text(re.sub(f"{re.escape(MARKS[0])}.*?{re.escape(MARKS[1])}", lambda _: table, text, flags=re.S))


if __name__ == "__main__":
    main()
