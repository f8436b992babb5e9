# SPDX-License-Identifier: Apache-2.0
"""Train an image classifier of edgec on Fashion-MNIST and write everything that the example needs.

    python examples/image_classification/train.py --epochs 30

writes, below --out: the float ONNX file, samples.npz (test images) and labels.npz, calibration.npz (training
images) and train.log. It can be interrupted with Ctrl-C; the same command then resumes after the last
finished epoch with the same result, because all randomness is drawn from (seed, epoch).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_folder import data_file
from training.images import Images, batches
from training.run import Log, Run, add_arguments, describe

from edgec.export import export
from edgec.models.registry import get_model

HERE = Path(__file__).resolve().parent
MODELS = ("mcuformer-fashion-mnist", "vit-64")
MAX_SHIFT = 1  # pixels of the 28x28 image: the random crop of the augmentation
WARMUP = 200  # steps
SETTINGS = ("model", "seed", "batch", "lr", "weight_decay", "smoothing", "subset", "bf16")
SAMPLES = 200
CALIBRATION = 128


def load_fashion_mnist(folder: Path) -> tuple[Images, Images]:
    """(train, test) from `<folder>/fashion_mnist/fashion_mnist.npz` (x_train, y_train, x_test, y_test)."""
    with np.load(data_file(folder, "fashion_mnist/fashion_mnist.npz")) as file:
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


@torch.no_grad()
def accuracy(model: nn.Module, data: Images, shape: tuple[int, ...]) -> float:
    """Share of correctly classified images."""
    model.eval()
    correct = 0
    for images, labels in zip(data.images.split(500), data.labels.split(500), strict=True):
        correct += int((model(as_input(images, shape)).argmax(1) == labels).sum())
    return correct / len(data.labels)


def optimizers(model: nn.Module, rate: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest; Muon's steps are sized like AdamW's."""
    matrices = {name: p for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2}
    others = [p for name, p in model.named_parameters() if name not in matrices]
    return [
        torch.optim.Muon(matrices.values(), lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate / 2, weight_decay=0.0, betas=(0.9, 0.99)),
    ]


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
    model = get_model(arguments.model).build(arguments.seed)
    run = Run(
        model,
        optimizers(model, arguments.lr, arguments.weight_decay),
        {key: getattr(arguments, key) for key in SETTINGS},
        arguments.checkpoint or out / f"{stem}.checkpoint.pt",
    )
    log = Log(out / ("train.log" if arguments.images else f"{stem}.train.log"), run.epoch > 0)
    if not run.epoch:
        counts = f"{len(data.labels):,} training and {len(test.labels):,} test images"
        for line in describe(run, arguments.epochs, counts):
            log(line)
        log(f"# Muon and AdamW, {WARMUP} steps of warm-up, cosine, random shift of {MAX_SHIFT} pixel, mirror")

    def losses(random: torch.Generator) -> Iterator[Tensor]:
        for images, labels in batches(data, arguments.batch, MAX_SHIFT, random):
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                logits = model(as_input(images, shape))
            yield functional.cross_entropy(logits.float(), labels, label_smoothing=arguments.smoothing)

    steps = len(data.labels) // arguments.batch
    run.train(losses, steps, arguments.epochs, WARMUP, lambda model: accuracy(model, test, shape), log)
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    add_arguments(parser, HERE, epochs=18, batch=125, lr=5e-3, weight_decay=0.05)
    parser.add_argument("--smoothing", type=float, default=0.1, help="label smoothing")
    parser.add_argument("--subset", type=int, default=0, help="train on that many images only (0: all)")
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16 while training")
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
