# SPDX-License-Identifier: Apache-2.0
"""Train a convolutional classifier of edgec on CIFAR-10 and write its float ONNX file.

    python examples/cnn/train.py --model ds-cnn-cifar10

writes <model>.onnx and <model>.train.log below --out. It can be interrupted with Ctrl-C; the same command then
resumes after the last finished epoch with the same result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cifar10 import load_cifar10
from training.images import Images, batches
from training.run import Log, Run, add_arguments, describe

from edgec.export import export
from edgec.models.registry import get_model

HERE = Path(__file__).resolve().parent
MODELS = ("ds-cnn-cifar10", "resnet-cifar10")
SETTINGS = ("model", "seed", "batch", "lr", "weight_decay", "smoothing", "bf16")
WARMUP = 300  # steps
SHIFT = 3  # pixels


def as_input(images: Tensor) -> Tensor:
    """uint8 [N, 3, 32, 32] -> float [N, 3, 32, 32] in [0, 1], channels innermost in memory (faster)."""
    return (images.float() / 255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(model: nn.Module, data: Images) -> float:
    """Share of correctly classified images."""
    correct = 0
    for images, labels in zip(data.images.split(500), data.labels.split(500), strict=True):
        correct += int((model(as_input(images)).argmax(1) == labels).sum())
    return correct / len(data.labels)


def optimizer(model: nn.Module, rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum; the decay is on convolutions and matrices, not on norms and biases."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--smoothing", type=float, default=0.05, help="label smoothing")
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16 while training")
    add_arguments(parser, HERE, epochs=10, batch=125, lr=0.2, weight_decay=5e-4)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stem = arguments.name or arguments.model.replace("-", "_")
    arguments.out.mkdir(parents=True, exist_ok=True)
    parts = (load_cifar10(arguments.data, part) for part in ("train", "test"))
    data, test = (Images(torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in parts)

    model = get_model(arguments.model).build(arguments.seed).to(memory_format=torch.channels_last)
    run = Run(
        model,
        [optimizer(model, arguments.lr, arguments.weight_decay)],
        {key: getattr(arguments, key) for key in SETTINGS},
        arguments.checkpoint or arguments.out / f"{stem}.checkpoint.pt",
    )
    log = Log(arguments.out / f"{stem}.train.log", run.epoch > 0)
    if not run.epoch:
        counts = f"{len(data.labels):,} training and {len(test.labels):,} test images of CIFAR-10 (JPEG)"
        for line in describe(run, arguments.epochs, counts):
            log(line)
        log(f"# SGD with momentum 0.9, {WARMUP} steps of warm-up, cosine, random shift of {SHIFT} pixels, mirror")

    def losses(random: torch.Generator) -> Iterator[Tensor]:
        for images, labels in batches(data, arguments.batch, SHIFT, random):
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                logits = model(as_input(images))
            yield functional.cross_entropy(logits.float(), labels, label_smoothing=arguments.smoothing)

    steps = len(data.labels) // arguments.batch
    try:
        run.train(losses, steps, arguments.epochs, WARMUP, lambda model: accuracy(model, test), log)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command resumes after the last finished epoch")
    path = export(arguments.model, arguments.out / f"{stem}.onnx", checkpoint=run.checkpoint)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
