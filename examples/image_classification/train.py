# SPDX-License-Identifier: Apache-2.0
"""Train an image classifier of edgec on Fashion-MNIST and write everything that the example needs.

    python examples/image_classification/train.py --epochs 30

writes, below --out: the float ONNX file, samples.npz (test images with labels), calibration.npz (training
images) and train.log. It can be interrupted with Ctrl-C; the same command then resumes after the last
finished epoch with the same result, because all randomness is drawn from (seed, epoch).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgec.export import export
from edgec.models.registry import get_model, list_models

HERE = Path(__file__).resolve().parent
MAX_SHIFT = 1  # pixels of the 28x28 image: the random crop of the augmentation
WARMUP = 200  # steps
SAMPLES = 200
CALIBRATION = 128


@dataclass(frozen=True)
class Images:
    """One split: images uint8 [N, 28, 28] and labels int64 [N]."""

    images: Tensor
    labels: Tensor


def load_fashion_mnist(folder: Path) -> tuple[Images, Images]:
    """(train, test) from `<folder>/fashion_mnist/fashion_mnist.npz` (x_train, y_train, x_test, y_test)."""
    path = folder / "fashion_mnist" / "fashion_mnist.npz"
    if not path.is_file():
        sys.exit(f"error: {path} does not exist\n  try    --data FOLDER or EDGEC_DATA=FOLDER")
    with np.load(path) as file:
        return tuple(  # type: ignore[return-value]
            Images(torch.from_numpy(file[f"x_{part}"]), torch.from_numpy(file[f"y_{part}"].astype(np.int64)))
            for part in ("train", "test")
        )


def as_input(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """uint8 [N, 28, 28] -> float [N, *shape[1:]] in [0, 1]: pixel / 255, enlarged and repeated."""
    x = images.unsqueeze(1).float() / 255.0
    if x.shape[2:] != shape[2:]:
        x = functional.interpolate(x, size=tuple(shape[2:]), mode="bilinear", align_corners=False)
    return x.expand(-1, shape[1], -1, -1).contiguous()


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Shift every uint8 image [N, 28, 28] by up to MAX_SHIFT pixels each way and mirror half of them."""
    count, height, width = images.shape
    padded = functional.pad(images, (MAX_SHIFT,) * 4)
    top, left = torch.randint(0, 2 * MAX_SHIFT + 1, (2, count, 1), generator=random)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    mirrored = torch.rand((count, 1), generator=random) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def batches(data: Images, size: int, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented batches of one epoch in random order; the incomplete last one is left out."""
    order = torch.randperm(len(data.labels), generator=random)
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield augment(data.images[chosen], random), data.labels[chosen]


@torch.no_grad()
def accuracy(model: nn.Module, data: Images, shape: tuple[int, ...]) -> float:
    """Share of correctly classified images."""
    model.eval()
    correct = 0
    for images, labels in zip(data.images.split(500), data.labels.split(500), strict=True):
        correct += int((model(as_input(images, shape)).argmax(1) == labels).sum())
    return correct / len(data.labels)


def schedule(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def optimizers(model: nn.Module, rate: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest; Muon's steps are sized like AdamW's."""
    matrices = {name: p for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2}
    others = [p for name, p in model.named_parameters() if name not in matrices]
    return [
        torch.optim.Muon(
            matrices.values(), lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=rate / 2, weight_decay=0.0, betas=(0.9, 0.99)),
    ]


def save_aside(state: dict[str, Any], path: Path) -> None:
    """Write the checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    os.replace(aside, path)


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


def train(arguments: argparse.Namespace) -> None:
    """Train, evaluate after every epoch, export the last weights (nothing is chosen by test accuracy)."""
    torch.set_num_threads(arguments.threads)
    record = get_model(arguments.model)
    ((input_name, shape),) = record.inputs.items()
    fashion, test = load_fashion_mnist(arguments.data)
    if arguments.subset:
        chosen = torch.randperm(len(fashion.labels), generator=torch.Generator().manual_seed(0))[
            : arguments.subset
        ]
        fashion = Images(fashion.images[chosen], fashion.labels[chosen])

    model = record.build(arguments.seed)
    both = optimizers(model, arguments.lr, arguments.weight_decay)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in both]
    stem = arguments.model.replace("-", "_")
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    checkpoint: Path = arguments.checkpoint or out / f"{stem}.checkpoint.pt"
    settings = ("model", "seed", "batch", "lr", "weight_decay", "smoothing", "subset", "bf16")
    wanted = {key: getattr(arguments, key) for key in settings}
    first, seconds = 0, 0.0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        if any(value != wanted[key] for key, value in saved["settings"].items() if key in wanted):
            sys.exit(
                f"error: {checkpoint} is of a run with other settings\n  have   {saved['settings']}\n"
                f"  need   {wanted}\n  try    another --checkpoint, or delete the file"
            )
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(both, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        first, seconds = saved["epoch"], saved["seconds"]

    log = Log(
        out / ("train.log" if arguments.model.startswith("mcuformer") else f"{stem}.train.log"), first > 0
    )
    if 0 < first < arguments.epochs:
        log(f"# resumed after epoch {first}; the schedule ends at epoch {arguments.epochs}")
    elif not first:
        log(
            f"# {arguments.model}: torch {torch.__version__}, {arguments.threads} thread(s), "
            + ", ".join(f"{k} {v}" for k, v in wanted.items())
        )
        log(
            f"# parameters {sum(p.numel() for p in model.parameters()):,}, "
            f"train {len(fashion.labels):,} images, test {len(test.labels):,} images (not the official split)"
        )
        log(
            f"# Muon and AdamW, cosine after a short warm-up, label smoothing {arguments.smoothing}, "
            f"random shift of {MAX_SHIFT} pixels and mirror"
        )

    per_epoch = len(fashion.labels) // arguments.batch
    for epoch in range(first, arguments.epochs):
        started = time.perf_counter()
        random = torch.Generator().manual_seed(arguments.seed * 100_003 + epoch)
        model.train()
        total = 0.0
        for step, (images, labels) in enumerate(batches(fashion, arguments.batch, random)):
            factor = schedule(epoch * per_epoch + step, arguments.epochs * per_epoch, WARMUP)
            for optimizer, peak in zip(both, peaks, strict=True):
                optimizer.param_groups[0]["lr"] = peak * factor
                optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                logits = model(as_input(images, shape))
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=arguments.smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in both:
                optimizer.step()
            total += loss.item()
            if sys.stderr.isatty() or step % 100 == 99:
                end = "\r" if sys.stderr.isatty() else "\n"
                print(
                    f"epoch {epoch + 1} step {step + 1}/{per_epoch} loss {total / (step + 1):.4f}",
                    end=end,
                    file=sys.stderr,
                    flush=True,
                )
        score = accuracy(model, test, shape)
        seconds += time.perf_counter() - started
        log(
            f"epoch {epoch + 1:3d}/{arguments.epochs}  loss {total / per_epoch:.4f}  "
            f"test accuracy {score:.4f}  {seconds:7.1f} s"
        )
        save_aside(
            {
                "model": model.state_dict(),
                "optimizers": [o.state_dict() for o in both],
                "epoch": epoch + 1,
                "seconds": seconds,
                "settings": wanted,
            },
            checkpoint,
        )

    if first < arguments.epochs:
        log(
            f"# final float test accuracy {score:.4f} on {len(test.labels):,} images, "
            f"weights of the last epoch; trained in {seconds:.0f} s"
        )
    write_results(arguments, model, checkpoint, out / f"{stem}.onnx", input_name, shape, fashion, test)


def write_results(
    arguments: argparse.Namespace,
    model: nn.Module,
    checkpoint: Path,
    path: Path,
    name: str,
    shape: tuple[int, ...],
    train_data: Images,
    test: Images,
) -> None:
    """The ONNX file; for the main example also samples and calibration images, drawn class by class."""
    if arguments.exporter == "torchscript":
        torch.onnx.export(
            model.eval(),
            (torch.zeros(shape),),
            path,
            dynamo=False,
            opset_version=18,
            input_names=[name],
            output_names=["logits"],
        )
    else:
        export(arguments.model, path, checkpoint=checkpoint)
    print(f"wrote {path}")
    if arguments.images:
        for file, data, count in (("samples", test, SAMPLES), ("calibration", train_data, CALIBRATION)):
            chosen = balanced(data.labels, count)
            arrays = {name: as_input(data.images[chosen], shape).numpy()}
            if file == "samples":
                arrays["labels"] = data.labels[chosen].numpy()
            np.savez_compressed(path.parent / f"{file}.npz", **arrays)  # type: ignore[arg-type]
            print(f"wrote {path.parent / f'{file}.npz'}")


def balanced(labels: Tensor, count: int) -> Tensor:
    """Indices of `count` images, the classes taking turns, each in the data set's order."""
    classes = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
    turns = -(-count // len(classes))
    return torch.stack([members[:turns] for members in classes], dim=1).flatten()[:count]


def main() -> None:
    """Command line."""
    data = os.environ.get("EDGEC_DATA", HERE.parents[2] / "shared" / "data")
    models = [record.name for record in list_models() if list(record.inputs) == ["image"]]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=models, default="mcuformer-fashion-mnist")
    parser.add_argument("--data", type=Path, default=Path(data), help="holds fashion_mnist/ (EDGEC_DATA)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--checkpoint", type=Path, help="default: <out>/<model>.checkpoint.pt")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=125)
    parser.add_argument("--lr", type=float, default=5e-3, help="peak, of Muon; AdamW has half")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--smoothing", type=float, default=0.1, help="label smoothing")
    parser.add_argument("--subset", type=int, default=0, help="train on that many images only (0: all)")
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16 while training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--exporter",
        choices=("edgec", "torchscript"),
        default="edgec",
        help="torchscript: opset 18 with GELU in pieces, as older tools write it",
    )
    parser.add_argument(
        "--no-images",
        dest="images",
        action="store_false",
        help="do not write samples.npz and calibration.npz",
    )
    arguments = parser.parse_args()
    try:
        train(arguments)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command resumes after the last finished epoch")


if __name__ == "__main__":
    main()
