# SPDX-License-Identifier: Apache-2.0
"""Train LMUFormer on spoken digits and write what the example needs.

    python examples/keyword_spotting/train.py [--spiking] [--held-out SPEAKER]

writes, below --out: the float ONNX file (one step, plain form), its train.log, calibration.npz (frames of a few
training recordings, one after another) and digits.npz (30 test recordings as sound). It can be interrupted with Ctrl-C;
the same command then resumes after the last finished epoch with the same result. With --held-out the test is a speaker
that training never hears, and only the log is written. A recording is judged by the class after its last frame, from a
reset.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "spoken_digits"))
from batches import Batches, padded
from features import Floats
from recordings import Recordings, heard, load, write_shipped
from training.rounding_noise import LAYERS, RoundingNoise
from training.run import add_arguments, begin_run

from edgec.export import export
from edgec.front_end import with_front_end
from edgec.model import load_model
from edgec.models.layers.norm import folded
from edgec.models.lmuformer import real_form, spiking_form

HERE = Path(__file__).resolve().parent
NAMES = {False: "lmuformer-spoken-digits", True: "lmuformer-spiking-spoken-digits"}
SETTINGS = ("seed", "batch", "lr", "weight_decay", "spiking", "held_out")
WARMUP = 50  # steps
JUDGED = 3  # the last 1 / JUDGED of a recording's frames, and the silence after it, carry the loss
NOISE, SHAKEN = 5.0, 6  # steps of int8 on every layer's result, in the last 1 / SHAKEN of the epochs
CALIBRATION, DRAWN = 100, 6  # recordings, and the seed that draws them


def batch_loss(logits: Tensor, begin: Tensor, end: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, T, classes] over the last frames of each recording and what is after it."""
    place = torch.arange(logits.shape[1])
    judged = place >= (end - (end - begin) // JUDGED)[:, None]
    judged &= place < (end + 8)[:, None]
    wanted = labels[:, None].expand(judged.shape)
    return functional.cross_entropy(logits[judged], wanted[judged])


class Judge:
    """Share of recordings whose last frame has the right class, from a reset."""

    def __init__(self, data: Recordings) -> None:
        frames = [heard(one) for one in data.pcm]
        order = np.argsort([len(one) for one in frames])  # neighbours in length together
        self.groups = [
            (*padded([frames[i] for i in group]), torch.from_numpy(data.labels[group]))
            for group in np.array_split(order, max(1, len(order) // 50))
        ]

    @torch.no_grad()
    def __call__(self, model: Any) -> float:
        right = 0
        for x, lengths, labels in self.groups:
            logits = model.parallel(x, *model.reset(len(x)))[0]
            right += int((logits[torch.arange(len(x)), lengths - 1].argmax(1) == labels).sum())
        return right / sum(len(labels) for *_, labels in self.groups)


def calibration_stream(data: Recordings) -> Floats:
    """Frames [T, BINS] of recordings in a row, as somebody says one word after another."""
    chosen = np.random.default_rng(DRAWN).permutation(len(data.pcm))[:CALIBRATION]
    stream = heard(np.concatenate([data.pcm[i] for i in chosen]))
    return stream.astype(np.float16).astype(np.float32)  # half the file


def write_calibration(data: Recordings, path: Path) -> None:
    """That stream under the input's name."""
    stream = calibration_stream(data)
    np.savez_compressed(path, frame=stream[:, None])
    print(f"wrote {path}: {len(stream)} frames")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser, HERE, epochs=60, batch=60, lr=5e-3, weight_decay=0.02)
    parser.add_argument("--spiking", action="store_true")
    parser.add_argument("--held-out", metavar="SPEAKER", help="a speaker who is the test, all others training")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name = NAMES[arguments.spiking]
    stem = arguments.name or name.replace("-", "_")
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, test = load(arguments.data, arguments.held_out)
    batches = Batches(data, arguments.batch)

    torch.manual_seed(arguments.seed)
    model = spiking_form() if arguments.spiking else real_form()
    run, log = begin_run(
        model,
        arguments,
        stem,
        SETTINGS,
        f"{len(data.labels):,} training and {len(test.labels)} test recordings",
        f"AdamW, {WARMUP} steps of warm-up, cosine",
        "other speed, loudness, background, silent bands and frames",
    )
    rounding = RoundingNoise(readers=frozenset(), writers=LAYERS, shrink=False)

    def losses(random: torch.Generator) -> Iterator[Tensor]:
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=random)))  # of dropout
        shaken = run.epoch * SHAKEN >= arguments.epochs * (SHAKEN - 1)
        if shaken and not rounding.steps:
            log(f"# noise of {NOISE:g} steps from here")
        rounding.draw(NOISE if shaken else 0.0, random)
        for x, begin, end, labels in batches(random):
            with rounding:
                logits = model.parallel(x, *model.reset(len(x)))[0]
            yield batch_loss(logits, begin, end, labels)

    try:
        run.train(losses, len(batches), arguments.epochs, WARMUP, Judge(test), log)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command resumes after the last finished epoch")
    if arguments.held_out is not None:
        return
    plain = arguments.out / f"{stem}.plain.pt"
    torch.save(folded(model).state_dict(), plain)
    path = export(name, arguments.out / f"{stem}.onnx", checkpoint=plain)
    onnx.save(with_front_end(load_model(path), "log-mel").proto, path)  # `recordings.heard` in fixed point
    print(f"wrote {path}")
    write_calibration(data, arguments.out / "calibration.npz")
    write_shipped(test, arguments.out / "digits.npz")


if __name__ == "__main__":
    main()
