# SPDX-License-Identifier: Apache-2.0
"""Train a keyword model of edgec on spoken digits and write everything that the example needs.

    python examples/spoken_digits/train.py [--model NAME]

writes, below --out: the float ONNX file (one step), its train.log and calibration.npz (a few training
utterances, one after another). It can be interrupted with Ctrl-C; the same command then resumes after the last
finished epoch with the same result. Training runs whole utterances in the model's parallel form.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from features import BINS, FLOOR, MEAN, SCALE, Floats, Utterances, load_fsdd
from training.rounding_noise import RoundingNoise
from training.run import add_arguments, begin_run

from edgec.export import export
from edgec.models.registry import ModelRecord, get_model, list_models

HERE = Path(__file__).resolve().parent
MODELS = [record.name for record in list_models() if record.name.endswith("-spoken-digits")]
SETTINGS = ("model", "seed", "batch", "lr", "weight_decay", "carried", "doubt", "noise")
OWN: dict[str, dict[str, float]] = {  # defaults of single models
    "aaren-spoken-digits": {"epochs": 25, "lr": 3e-3, "carried": 0.2},  # it cannot forget the word before
    "deltanet-spoken-digits": {"epochs": 25, "noise": 4.0, "doubt": 0.6},
    "gtrxl-spoken-digits": {"epochs": 60, "lr": 5e-3, "noise": 3.0, "doubt": 0.5},
    "hmt-spoken-digits": {"epochs": 40, "lr": 3e-3, "noise": 3.0, "doubt": 0.5},
    "lstm-spoken-digits": {"epochs": 50, "noise": 1.0},
}
SILENCE = (np.log(FLOOR) - MEAN) / SCALE
WARMUP = 50  # steps
RISEN = 0.6  # share of the epochs after which noise is whole
LONGEST = 100  # frames of an utterance that training uses
JUDGED = 4  # the last 1 / JUDGED of an utterance's frames carry the loss
CALIBRATION = 30  # utterances


def in_front(frames: Sequence[Floats], multiple: int) -> Tensor:
    """float [N, T, BINS] with silence before the shorter ones, T a multiple of `multiple`: all end together."""
    longest = max(len(one) for one in frames)
    steps = longest + -longest % multiple
    return torch.stack(
        [functional.pad(torch.from_numpy(one), (0, 0, steps - len(one), 0), value=SILENCE) for one in frames]
    )


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


def batch_loss(logits: Tensor, steps: int, lengths: Tensor, labels: Tensor, doubt: float) -> Tensor:
    """Mean cross-entropy over the last quarter of each utterance's frames, and the mean entropy of all answers.

    Segments count from one before that quarter on, so that a short word has two. The entropy keeps
    answers from hanging between two digits, where rounding decides.

    Args:
        logits: float [B, T', classes]; T' is `steps` for a model that takes a frame at a time, fewer for segments.
        steps: frames of the batch, which all utterances end with.
        lengths: frames of each utterance, int64 [B].
        labels: int64 [B].
        doubt: weight of the entropy.
    """
    segment = steps // logits.shape[1]
    place = torch.arange(segment, steps + 1, segment)
    judged = place > steps - (lengths // JUDGED)[:, None] - (segment - 1)
    wanted = labels[:, None].expand(judged.shape)
    entropy = torch.special.entr(logits.softmax(-1)).sum(-1).mean()
    return functional.cross_entropy(logits[judged], wanted[judged]) + doubt * entropy


def batches(
    data: Utterances, size: int, segment: int, random: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(frames, lengths, labels) in random order, neighbours in length together; the incomplete last one is left out."""
    lengths = torch.tensor([float(len(one)) for one in data.frames])
    order = (lengths * (1 + 0.2 * torch.rand(len(lengths), generator=random))).argsort()
    chunks = [chunk for chunk in order.split(size) if len(chunk) == size]
    for i in torch.randperm(len(chunks), generator=random):
        frames = [data.frames[j][:LONGEST] for j in chunks[i]]
        counts = torch.tensor([len(one) for one in frames])
        yield augment(in_front(frames, segment), random), counts, torch.from_numpy(data.labels[chunks[i]])


def segment_of(record: ModelRecord) -> int:
    """Frames that one step takes."""
    shape = next(iter(record.inputs.values()))
    return shape[1] if len(shape) == 3 else 1


def as_steps(x: Tensor, record: ModelRecord) -> Tensor:
    """Frames [B, T, BINS] as the model takes them: [B, steps, *shape of its input without the batch]."""
    shape = next(iter(record.inputs.values()))
    return x.unflatten(1, (-1, shape[1])) if len(shape) == 3 else x


def reset_of(record: ModelRecord, count: int) -> list[Tensor]:
    """The states of `count` streams before their first step."""
    return [torch.full((count, *record.inputs[source][1:]), value) for source, _, value in record.states]


@torch.no_grad()
def accuracy(model: Any, record: ModelRecord, data: Utterances) -> float:
    """Share of utterances whose last frame (or whole segment) has the right class, from a reset."""
    segment = segment_of(record)
    frames = [torch.from_numpy(one) for one in data.frames]
    x = nn.utils.rnn.pad_sequence(frames, batch_first=True, padding_value=SILENCE)
    x = functional.pad(x, (0, 0, 0, -x.shape[1] % segment), value=SILENCE)
    logits, *_ = model.parallel(as_steps(x, record), *reset_of(record, len(x)))
    places = torch.tensor([max(len(one) // segment, 1) - 1 for one in frames])
    found = logits[torch.arange(len(x)), places].argmax(1)
    return float((found == torch.from_numpy(data.labels)).float().mean())


def write_calibration(data: Utterances, record: ModelRecord, path: Path) -> None:
    """Three utterances of each digit, the speakers taking turns, as one stream under the input's name."""
    speakers = sorted({name.split("_")[1] for name in data.names})
    wanted = [f"{i % 10}_{speakers[(i + i // 10) % len(speakers)]}_{5 + i}" for i in range(CALIBRATION)]
    stream = np.concatenate([data.frames[data.names.index(name)] for name in wanted])
    name, shape = next(iter(record.inputs.items()))
    stream = stream[: len(stream) // segment_of(record) * segment_of(record)]
    arrays: dict[str, Any] = {name: stream.reshape(-1, *shape)}
    np.savez_compressed(path, **arrays)
    print(f"wrote {path}: {len(stream)} frames of {', '.join(wanted)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="gru-spoken-digits")
    parser.add_argument("--carried", type=float, default=0.5, help="share of utterances without a reset before them")
    parser.add_argument(
        "--doubt", type=float, default=0.3, help="weight of the mean entropy of all answers in the loss"
    )
    parser.add_argument("--noise", type=float, default=1.0, help="of rounding that training bears, in steps of int8")
    add_arguments(parser, HERE, epochs=40, batch=90, lr=6e-3, weight_decay=0.02)
    parser.set_defaults(**OWN.get(parser.parse_known_args()[0].model, {}))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stem = arguments.name or arguments.model.replace("-", "_")
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, test = (load_fsdd(arguments.data, part) for part in ("train", "test"))

    record = get_model(arguments.model)
    model: Any = record.build(arguments.seed)
    run, log = begin_run(
        model,
        arguments,
        stem,
        SETTINGS,
        f"{len(data.labels):,} training and {len(test.labels)} test utterances",
        f"AdamW, {WARMUP} steps of warm-up, cosine, other loudness, silent bands and frames",
        f"noise rises for {RISEN:.0%} of the epochs",
    )
    rounding = RoundingNoise()

    def losses(random: torch.Generator) -> Iterator[Tensor]:
        size = arguments.batch
        rounding.draw(arguments.noise * min(1.0, run.epoch / (RISEN * arguments.epochs)), random)
        resets = reset_of(record, size)
        before = resets
        for x, lengths, labels in batches(data, size, segment_of(record), random):
            # Many utterances follow another one, as in a stream that nobody resets.
            fresh = torch.rand(size, generator=random) >= arguments.carried
            order = torch.randperm(size, generator=random)
            start = [
                torch.where(fresh.view(-1, *[1] * (reset.ndim - 1)), reset, state[order])
                for reset, state in zip(resets, before, strict=True)
            ]
            with rounding:
                logits, *after = model.parallel(as_steps(x, record), *start)
            before = [state.detach() for state in after]
            yield batch_loss(logits, x.shape[1], lengths, labels, arguments.doubt)

    steps = len(data.labels) // arguments.batch
    try:
        run.train(losses, steps, arguments.epochs, WARMUP, lambda _: accuracy(model, record, test), log)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command resumes after the last finished epoch")
    path = export(arguments.model, arguments.out / f"{stem}.onnx", checkpoint=run.checkpoint)
    print(f"wrote {path}")
    own = "" if segment_of(record) == 1 else f"_{stem}"  # the models that take a frame share one
    write_calibration(data, record, arguments.out / f"calibration{own}.npz")


if __name__ == "__main__":
    main()
