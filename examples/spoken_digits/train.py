# SPDX-License-Identifier: Apache-2.0
"""Train the keyword GRU of edgec on spoken digits and write everything that the example needs.

    python examples/spoken_digits/train.py

writes, below --out: the float ONNX file (one step), its train.log and calibration.npz (a few training
utterances, one after another). It can be interrupted with Ctrl-C; the same command then resumes after the last
finished epoch with the same result. Training runs whole utterances (`GRUClassifier.parallel`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from features import BINS, FLOOR, MEAN, SCALE, Floats, Utterances, load_fsdd
from training.run import Log, Run, add_arguments, describe

from edgec.export import export
from edgec.models.gru import GRUClassifier
from edgec.models.registry import get_model

HERE = Path(__file__).resolve().parent
MODEL = "gru-spoken-digits"
SETTINGS = ("seed", "batch", "lr", "weight_decay")
WARMUP = 50  # steps
LONGEST = 100  # frames of an utterance that training uses
JUDGED = 4  # the last 1 / JUDGED of an utterance's frames carry the loss
CALIBRATION = 10  # utterances


def padded(frames: Sequence[Floats]) -> tuple[Tensor, Tensor]:
    """(float [N, longest, BINS] with zeros after the end, lengths int64 [N])."""
    tensors = [torch.from_numpy(one) for one in frames]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True), torch.tensor([len(one) for one in frames])


def augment(x: Tensor, random: torch.Generator) -> Tensor:
    """Another loudness (by up to 12 dB each way), and a band of up to 8 bins and 8 frames silent, per utterance.

    Args:
        x: frames float [B, T, BINS].
        random: source of randomness.
    """
    count, steps, _ = x.shape
    energy = (x * SCALE + MEAN).exp() - FLOOR
    loudness = 10 ** (2.4 * torch.rand((count, 1, 1), generator=random) - 1.2)
    for axis, size in ((1, steps), (2, BINS)):
        width, start = torch.rand((2, count, 1), generator=random)
        first = start * size
        place = torch.arange(size)
        silent = (place >= first) & (place < first + 8 * width)
        energy = energy.masked_fill(silent.unsqueeze(3 - axis), 0.0)
    return ((loudness * energy.clamp(min=0) + FLOOR).log() - MEAN) / SCALE


def batch_loss(logits: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, T, classes] over the last quarter of each utterance's frames."""
    place = torch.arange(logits.shape[1])
    judged = (place < lengths[:, None]) & (place >= (lengths - lengths // JUDGED)[:, None])
    wanted = labels[:, None].expand(judged.shape)
    return functional.cross_entropy(logits[judged], wanted[judged])


def batches(data: Utterances, size: int, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(frames, lengths, labels) in random order, neighbours in length together; the incomplete last one is left out."""
    lengths = torch.tensor([float(len(one)) for one in data.frames])
    order = (lengths * (1 + 0.2 * torch.rand(len(lengths), generator=random))).argsort()
    chunks = [chunk for chunk in order.split(size) if len(chunk) == size]
    for i in torch.randperm(len(chunks), generator=random):
        x, counts = padded([data.frames[j][:LONGEST] for j in chunks[i]])
        yield augment(x, random), counts, torch.from_numpy(data.labels[chunks[i]])


@torch.no_grad()
def accuracy(model: GRUClassifier, data: Utterances) -> float:
    """Share of utterances whose last frame has the right class, from a state of zeros."""
    x, lengths = padded(data.frames)
    logits, _ = model.parallel(x, torch.zeros(len(x), model.rh.in_features))
    last = logits[torch.arange(len(x)), lengths - 1]
    return float((last.argmax(1) == torch.from_numpy(data.labels)).float().mean())


def write_calibration(data: Utterances, path: Path) -> None:
    """One utterance of each digit, the speakers taking turns, as one stream under the input's name."""
    speakers = sorted({name.split("_")[1] for name in data.names})
    wanted = [f"{digit}_{speakers[digit % len(speakers)]}_{5 + digit}" for digit in range(CALIBRATION)]
    stream = np.concatenate([data.frames[data.names.index(name)] for name in wanted])
    np.savez_compressed(path, frame=stream[:, None])
    print(f"wrote {path}: {len(stream)} frames of {', '.join(wanted)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser, HERE, epochs=40, batch=90, lr=6e-3, weight_decay=0.02)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stem = arguments.name or MODEL.replace("-", "_")
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, test = (load_fsdd(arguments.data, part) for part in ("train", "test"))

    model = get_model(MODEL).build(arguments.seed)
    assert isinstance(model, GRUClassifier)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=arguments.weight_decay)
    run = Run(
        model,
        [optimizer],
        {key: getattr(arguments, key) for key in SETTINGS},
        arguments.checkpoint or arguments.out / f"{stem}.checkpoint.pt",
    )
    log = Log(arguments.out / f"{stem}.train.log", run.epoch > 0)
    if not run.epoch:
        counts = f"{len(data.labels):,} training and {len(test.labels)} test utterances"
        for line in describe(run, arguments.epochs, counts):
            log(line)
        log(f"# AdamW, {WARMUP} steps of warm-up, cosine, other loudness, silent bands and frames")

    def losses(random: torch.Generator) -> Iterator[Tensor]:
        size = arguments.batch
        before = torch.zeros(size, model.rh.in_features)
        for x, lengths, labels in batches(data, size, random):
            # Half of the utterances follow another one, as in a stream that nobody resets.
            fresh = torch.rand((size, 1), generator=random) < 0.5
            start = before[torch.randperm(size, generator=random)].masked_fill(fresh, 0.0)
            logits, states = model.parallel(x, start)
            before = states.detach()[torch.arange(size), lengths - 1]
            yield batch_loss(logits, lengths, labels)

    steps = len(data.labels) // arguments.batch
    try:
        run.train(losses, steps, arguments.epochs, WARMUP, lambda _: accuracy(model, test), log)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command resumes after the last finished epoch")
    path = export(MODEL, arguments.out / f"{stem}.onnx", checkpoint=run.checkpoint)
    print(f"wrote {path}")
    write_calibration(data, arguments.out / "calibration.npz")


if __name__ == "__main__":
    main()
