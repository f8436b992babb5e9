# SPDX-License-Identifier: Apache-2.0
"""Train an image classifier of edgec on Fashion-MNIST and write everything that the example needs.

    python examples/image_classification/train.py --epochs 30

writes, below --out: the float ONNX file, samples.npz (test images) and labels.npz, calibration.npz (training
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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgec.export import export
from edgec.models.registry import get_model, list_models

HERE = Path(__file__).resolve().parent
MAX_SHIFT = 1  # pixels of the 28x28 image: the random crop of the augmentation
WARMUP = 200  # steps
SETTINGS = ("model", "seed", "batch", "lr", "weight_decay", "smoothing", "subset", "bf16")
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
        torch.optim.Muon(matrices.values(), lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate / 2, weight_decay=0.0, betas=(0.9, 0.99)),
    ]


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
    """A model with its optimizers, how far it has come, and the file that remembers it."""

    def __init__(self, arguments: argparse.Namespace, checkpoint: Path) -> None:
        self.settings = {key: getattr(arguments, key) for key in SETTINGS}
        self.checkpoint = checkpoint
        self.model = get_model(arguments.model).build(arguments.seed)
        self.optimizers = optimizers(self.model, arguments.lr, arguments.weight_decay)
        self.peaks = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
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

    def train_epoch(self, data: Images, shape: tuple[int, ...], epochs: int) -> float:
        """One pass over the data as epoch `self.epoch` of `epochs`; returns the mean loss."""
        random = torch.Generator().manual_seed(self.settings["seed"] * 100_003 + self.epoch)
        steps: int = len(data.labels) // self.settings["batch"]
        self.model.train()
        total = 0.0
        for step, (images, labels) in enumerate(batches(data, self.settings["batch"], random)):
            factor = schedule(self.epoch * steps + step, epochs * steps, WARMUP)
            for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
                optimizer.param_groups[0]["lr"] = peak * factor
                optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.settings["bf16"]):
                logits = self.model(as_input(images, shape))
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.settings["smoothing"])
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            total += float(loss.detach())
            if sys.stderr.isatty() or step % 100 == 99:
                line = f"epoch {self.epoch + 1} step {step + 1}/{steps} loss {total / (step + 1):.4f}"
                print(line, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
        return total / steps


def train(arguments: argparse.Namespace) -> None:
    """Train, evaluate after every epoch, export the last weights (nothing is chosen by test accuracy)."""
    torch.set_num_threads(arguments.threads)
    ((name, shape),) = get_model(arguments.model).inputs.items()
    data, test = load_fashion_mnist(arguments.data)
    if arguments.subset:
        order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))
        data = Images(data.images[order[: arguments.subset]], data.labels[order[: arguments.subset]])
    stem = arguments.name or arguments.model.replace("-", "_")
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    run = Run(arguments, arguments.checkpoint or out / f"{stem}.checkpoint.pt")
    log = Log(out / ("train.log" if arguments.images else f"{stem}.train.log"), run.epoch > 0)
    if not run.epoch:
        settings = ", ".join(f"{key} {value}" for key, value in run.settings.items())
        weights = sum(parameter.numel() for parameter in run.model.parameters())
        log(f"# torch {torch.__version__}, {arguments.threads} thread(s), {arguments.epochs} epochs, {settings}")
        log(f"# {weights:,} parameters; {len(data.labels):,} training and {len(test.labels):,} test images")
        log(f"# Muon and AdamW, {WARMUP} steps of warm-up, cosine, random shift of {MAX_SHIFT} pixel, mirror")
    elif run.epoch < arguments.epochs:
        log(f"# resumed after epoch {run.epoch}; the schedule ends at epoch {arguments.epochs}")

    score = None
    while run.epoch < arguments.epochs:
        started = time.perf_counter()
        loss = run.train_epoch(data, shape, arguments.epochs)
        score = accuracy(run.model, test, shape)
        run.seconds += time.perf_counter() - started
        run.epoch += 1
        log(
            f"epoch {run.epoch:3d}/{arguments.epochs}  loss {loss:.4f}  test accuracy {score:.4f}  {run.seconds:7.1f} s"
        )
        run.save()
    if score is not None:
        log(
            f"# final float test accuracy {score:.4f} on {len(test.labels):,} images, "
            f"weights of the last epoch; trained in {run.seconds:.0f} s"
        )
    write_results(arguments, run, out / f"{stem}.onnx", name, shape, data, test)


def write_results(
    arguments: argparse.Namespace,
    run: Run,
    path: Path,
    name: str,
    shape: tuple[int, ...],
    train_data: Images,
    test: Images,
) -> None:
    """The ONNX file; for the main example also samples and calibration images, drawn class by class."""
    if arguments.exporter == "torchscript":
        torch.onnx.export(
            run.model.eval(),
            (torch.zeros(shape),),
            path,
            dynamo=False,
            opset_version=18,
            input_names=[name],
            output_names=["logits"],
        )
    else:
        export(arguments.model, path, checkpoint=run.checkpoint)
    print(f"wrote {path}")
    if arguments.images:
        for file, data, count in (("samples", test, SAMPLES), ("calibration", train_data, CALIBRATION)):
            chosen = balanced(data.labels, count)
            np.savez_compressed(path.parent / f"{file}.npz", **{name: as_input(data.images[chosen], shape).numpy()})
            if file == "samples":
                np.savez_compressed(path.parent / "labels.npz", labels=data.labels[chosen].numpy())
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
    parser.add_argument("--name", help="stem of the written files; default: the model's, with underscores")
    parser.add_argument("--checkpoint", type=Path, help="default: <out>/<name>.checkpoint.pt")
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
        help="the ONNX file and its log only: neither samples.npz nor calibration.npz",
    )
    arguments = parser.parse_args()
    try:
        train(arguments)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command resumes after the last finished epoch")


if __name__ == "__main__":
    main()
