# SPDX-License-Identifier: Apache-2.0
"""A training that can be interrupted: a model with its optimizers, how far it has come, its checkpoint, its log.

All randomness of an epoch is drawn from (seed, epoch), so a resumed run ends with the weights of one that was
never interrupted.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from data_folder import DEFAULT
from torch import Tensor, nn

Losses = Callable[[torch.Generator], Iterator[Tensor]]


def schedule(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


class Log:
    """Lines to the terminal and to a file; a resumed run appends."""

    def __init__(self, path: Path, resumed: bool) -> None:
        self.path = path
        if not resumed:
            path.write_text("")

    def __call__(self, line: str) -> None:
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")


class Run:
    """A model with its optimizers, how far it has come, and the file that remembers it.

    Args:
        model: changed in place.
        optimizers: their learning rates now are the peaks of the schedule.
        settings: what the result depends on, "seed" among it; a checkpoint of other settings is refused.
        checkpoint: written after every epoch, read at once if it exists.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        settings: dict[str, Any],
        checkpoint: Path,
    ) -> None:
        self.model, self.optimizers = model, optimizers
        self.settings, self.checkpoint = settings, checkpoint
        self.peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
        self.epoch, self.seconds = 0, 0.0
        if checkpoint.is_file():
            self.restore()

    def restore(self) -> None:
        """Continue where the checkpoint ended; a checkpoint of other settings is refused."""
        saved = torch.load(self.checkpoint, weights_only=True)
        if any(saved["settings"].get(key, value) != value for key, value in self.settings.items()):
            sys.exit(
                f"error: {self.checkpoint} is of a run with other settings\n  need   {self.settings}\n"
                f"  have   {saved['settings']}\n  try    another --checkpoint, or delete the file"
            )
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.epoch, self.seconds = saved["epoch"], saved["seconds"]

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "epoch": self.epoch,
            "seconds": self.seconds,
            "settings": self.settings,
        }
        aside = self.checkpoint.with_suffix(".part")
        torch.save(state, aside)
        os.replace(aside, self.checkpoint)

    def train_epoch(self, losses: Losses, steps: int, epochs: int, warmup: int) -> float:
        """`steps` steps as epoch `self.epoch` of `epochs`; returns the mean loss."""
        random = torch.Generator().manual_seed(self.settings["seed"] * 100_003 + self.epoch)
        self.model.train()
        total = 0.0
        for step, loss in enumerate(losses(random)):
            factor = schedule(self.epoch * steps + step, epochs * steps, warmup)
            for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = peak * factor
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            total += float(loss.detach())
            if sys.stderr.isatty() or step % 100 == 99:
                line = f"epoch {self.epoch + 1} step {step + 1}/{steps} loss {total / (step + 1):.4f}"
                print(line, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
        return total / steps

    def train(
        self, losses: Losses, steps: int, epochs: int, warmup: int, score: Callable[[nn.Module], float], log: Log
    ) -> None:
        """Train up to epoch `epochs`, a score, a log line and a checkpoint after each.

        Args:
            losses: yields the loss of one batch after another for one epoch, drawing from the generator given.
            steps: how many batches that are.
            epochs: where the schedule ends.
            warmup: steps of rising learning rate at the start.
            score: share of the test set that is classified correctly.
            log: where the lines go.
        """
        if 0 < self.epoch < epochs:
            log(f"# resumed after epoch {self.epoch}; the schedule ends at epoch {epochs}")
        accuracy = None
        while self.epoch < epochs:
            started = time.perf_counter()
            loss = self.train_epoch(losses, steps, epochs, warmup)
            self.model.eval()
            accuracy = score(self.model)
            self.seconds += time.perf_counter() - started
            self.epoch += 1
            done = f"epoch {self.epoch:3d}/{epochs}  loss {loss:.4f}  test accuracy {accuracy:.4f}"
            log(f"{done}  {self.seconds:7.1f} s")
            self.save()
        if accuracy is not None:
            log(
                f"# final float test accuracy {accuracy:.4f}, weights of the last epoch; "
                f"trained in {self.seconds:.0f} s"
            )


def describe(run: Run, epochs: int, detail: str) -> list[str]:
    """The first lines of a log: versions, settings, size."""
    settings = ", ".join(f"{key} {value}" for key, value in run.settings.items())
    weights = sum(parameter.numel() for parameter in run.model.parameters())
    threads = torch.get_num_threads()
    return [
        f"# torch {torch.__version__}, {threads} thread(s), {epochs} epochs, {settings}",
        f"# {weights:,} parameters; {detail}",
    ]


def begin_run(
    model: nn.Module, arguments: argparse.Namespace, stem: str, settings: tuple[str, ...], detail: str, *notes: str
) -> tuple[Run, Log]:
    """A run under AdamW and its log, which gets its first lines unless the run goes on.

    Args:
        model: what is trained.
        arguments: of `add_arguments`.
        stem: of the log and the checkpoint.
        settings: names of the arguments that the result depends on.
        detail: what the log says beside the number of parameters.
        notes: the log's next lines.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=arguments.weight_decay)
    checkpoint = arguments.checkpoint or arguments.out / f"{stem}.checkpoint.pt"
    run = Run(model, [optimizer], {key: getattr(arguments, key) for key in settings}, checkpoint)
    log = Log(arguments.out / f"{stem}.train.log", run.epoch > 0)
    if not run.epoch:
        for line in (*describe(run, arguments.epochs, detail), *(f"# {note}" for note in notes)):
            log(line)
    return run, log


def add_arguments(parser: argparse.ArgumentParser, out: Path, **defaults: Any) -> None:
    """The options that every training script has.

    Args:
        parser: gets them.
        out: default folder of the results.
        defaults: of epochs, batch, lr and weight_decay.
    """
    parser.add_argument("--data", type=Path, default=DEFAULT, help="folder of the data sets (EDGEC_DATA)")
    parser.add_argument("--out", type=Path, default=out, help="folder of the results")
    parser.add_argument("--name", help="stem of the written files; default: the model's, with underscores")
    parser.add_argument("--checkpoint", type=Path, help="default: <out>/<name>.checkpoint.pt")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--lr", type=float, help="peak of the learning rate")
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--threads", type=int, default=2)
    parser.set_defaults(**defaults)
