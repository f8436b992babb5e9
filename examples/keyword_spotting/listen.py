# SPDX-License-Identifier: Apache-2.0
"""Hear 30 recordings on the simulated board: sound in, a digit out every 10 ms; no data set, no PyTorch.

    python examples/keyword_spotting/listen.py [--model FILE.onnx] [--target stm32f746] [--runner sim]

compiles the model, runs the recordings of digits.npz frame by frame, each from a reset, and prints what the program
hears while a recording goes on, the accuracy, and what a frame costs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "spoken_digits"))
from features import HOP, RATE
from recordings import calibration_of, hops, shipped
from rich.console import Console
from rich.table import Table

from edgec.artifact import Artifact
from edgec.compile import Options, compile_model
from edgec.device.runner import RunnerKind
from edgec.model import load_model
from edgec.run import profile_artifact, run_artifact
from edgec.target import load_target

HERE = Path(__file__).resolve().parent
SHOWN = 5  # frames for each character of a line


def listen(artifact: Artifact, runner: RunnerKind | None, console: Console) -> float:
    """Run every shipped recording and print a line for it; the share of recordings that were understood."""
    recordings = shipped(HERE / "digits.npz")
    (name,), (logits,) = ([port.name for port in ports] for ports in (artifact.inputs, artifact.outputs))
    right = 0
    for pcm, label, title in zip(recordings.pcm, recordings.labels, recordings.names, strict=True):
        answers = run_artifact(artifact, {name: hops(pcm)}, runner)[logits]
        digits = answers.reshape(len(answers), -1).argmax(1)
        right += int(digits[-1] == label)
        line = "".join(str(digit) for digit in digits[SHOWN - 1 :: SHOWN])
        mark = "[green]✓[/]" if digits[-1] == label else f"[red]✗ said {label}[/]"
        console.print(f"{title:<14} {line:<24} -> {digits[-1]} {mark}", highlight=False)
    return right / len(recordings.labels)


def costs(artifact: Artifact, accuracy: float) -> Table:
    """What the program is and what a frame takes."""
    manifest = artifact.manifest
    ram, flash, clock = manifest["ram"], manifest["flash"], artifact.target.cpu.clock_hz
    table = Table(title=f"{manifest['model']['name']} on {manifest['target']}", show_header=False)
    table.add_column("what", style="bold")
    table.add_column("figure")
    table.add_row("accuracy", f"{accuracy:.1%} of these recordings, the class after the last frame")
    table.add_row(
        "RAM",
        f"{ram['total_bytes']:,} B: arena {ram['arena_bytes']:,}, state {ram['state_bytes']:,}, "
        f"stack {ram['stack_bytes']:,}, static {ram['static_bytes']:,}",
    )
    table.add_row(
        "flash", f"{flash['total_bytes']:,} B: weights {flash['weights_bytes']:,}, code {flash['code_bytes']:,}"
    )
    report = profile_artifact(artifact)
    table.add_row("a frame of 10 ms", f"{manifest['model']['macs']:,} MAC")
    if report["instructions"] is not None:
        cycles, budget = report["cycles_estimate"], (clock or 0) * HOP // RATE
        share = f", {cycles / budget:.1%} of the processor at {clock / 1e6:.0f} MHz" if clock else ""
        table.add_row("", f"{report['instructions']:,} instructions")
        table.add_row("", f"an estimate of {cycles:,} cycles{share}")
    return table


def main() -> None:
    """Parse, compile, listen, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "lmuformer_spoken_digits.onnx")
    parser.add_argument("--calibration", type=Path, help="default: what lies beside the model")
    parser.add_argument("--target", default="stm32f746")
    parser.add_argument("--runner", choices=["sim", "host-c"], help="default: the target's own")
    args = parser.parse_args()
    console = Console()
    model = load_model(args.model)
    with np.load(args.calibration or calibration_of(args.model)) as data:
        options = Options(calibration={model.inputs[0].name: data["frame"]})
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        artifact = compile_model(model, load_target(args.target), Path(folder) / "digits", options)
        accuracy = listen(artifact, args.runner, console)
        console.print(costs(artifact, accuracy))


if __name__ == "__main__":
    main()
