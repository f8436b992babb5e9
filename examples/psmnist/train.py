# SPDX-License-Identifier: Apache-2.0
"""Train a Legendre memory unit on permuted sequential MNIST: 784 pixels, one after another, in one fixed order.

    python examples/psmnist/train.py                  60,000 images as they are
    python examples/psmnist/train.py --warp           each image rotated, scaled and shifted anew in every epoch

Prints and logs the accuracy on the 10,000 test images after every epoch, and writes the weights of the last one: no
epoch is chosen by the test set. It can be interrupted with Ctrl-C; the same command then resumes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_folder import data_file
from training.images import Images
from training.run import Log, Run, add_arguments, describe

from edgec.models.lmu import LMUClassifier
from edgec.models.registry import get_model

HERE = Path(__file__).resolve().parent
MODEL = "lmu-psmnist"
PUBLISHED = 0.9849  # Chilkuri & Eliasmith 2021, table 2, 165 k parameters
SETTINGS = ("seed", "batch", "lr", "weight_decay", "dropout", "warp")
WARMUP = 200  # steps
PERMUTATION_SEED = 92  # of the order of the pixels, the same for every run


def load(folder: Path, part: str) -> Images:
    """Part "train" (60,000) or "test" (10,000): images uint8 [N, 28, 28] and their labels."""
    with np.load(data_file(folder, "mnist/mnist.npz")) as data:
        return Images(torch.from_numpy(data[f"x_{part}"]), torch.from_numpy(data[f"y_{part}"].astype(np.int64)))


def pixels(images: Tensor) -> Tensor:
    """float [B, 28, 28], 0 to 1 -> float [B, 784, 1] in the permuted order."""
    order = torch.from_numpy(np.random.default_rng(PERMUTATION_SEED).permutation(784))
    return images.flatten(1)[:, order].unsqueeze(-1)


def warped(images: Tensor, random: torch.Generator) -> Tensor:
    """float [B, 28, 28]: turned by up to 12 degrees, scaled by up to 12 %, sheared, shifted by 2.5 pixels."""
    count = len(images)
    angle, shear, scale_x, scale_y, right, down = (2 * torch.rand((6, count), generator=random) - 1).unbind()
    angle, shear = 0.21 * angle, 0.15 * shear
    rotation = torch.stack([angle.cos(), -angle.sin() + shear, angle.sin(), angle.cos()], dim=1).view(count, 2, 2)
    scale = 1 + 0.12 * torch.stack([scale_x, scale_y], dim=1)
    shift = torch.stack([right, down], dim=1) * 2.5 / 14
    grid = functional.affine_grid(
        torch.cat([rotation * scale[:, None, :], shift[:, :, None]], dim=2), [count, 1, 28, 28], align_corners=False
    )
    return functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser, HERE, epochs=300, batch=256, lr=2e-3, weight_decay=0.02)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--warp", action="store_true", help="rotate, scale and shift the training images")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stem = arguments.name or MODEL.replace("-", "_") + ("_warp" if arguments.warp else "")
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, test = (load(arguments.data, part) for part in ("train", "test"))

    model = get_model(MODEL).build(arguments.seed)
    assert isinstance(model, LMUClassifier)
    model.dropout.p = arguments.dropout
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, weight_decay=arguments.weight_decay)
    run = Run(
        model,
        [optimizer],
        {key: getattr(arguments, key) for key in SETTINGS},
        arguments.checkpoint or arguments.out / f"{stem}.checkpoint.pt",
    )
    log = Log(arguments.out / f"{stem}.train.log", run.epoch > 0)
    if not run.epoch:
        for line in describe(run, arguments.epochs, f"published: {PUBLISHED:.4f} with 165 k parameters"):
            log(line)

    def losses(random: torch.Generator) -> Iterator[Tensor]:
        order = torch.randperm(len(data.labels), generator=random)
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=random)))  # dropout draws from the global state
        for chosen in order.split(arguments.batch)[: len(order) // arguments.batch]:
            images = data.images[chosen].float() / 255
            images = warped(images, random) if arguments.warp else images
            yield functional.cross_entropy(model.last(pixels(images)), data.labels[chosen])

    @torch.no_grad()
    def score(module: nn.Module) -> float:
        logits = [model.last(pixels(part.float() / 255)) for part in test.images.split(1000)]
        return float((torch.cat(logits).argmax(1) == test.labels).float().mean())

    try:
        run.train(losses, len(data.labels) // arguments.batch, arguments.epochs, WARMUP, score, log)
        log(f"# {time.process_time():.0f} CPU seconds in this process")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command resumes after the last finished epoch")
    path = arguments.out / f"{stem}.pt"
    torch.save(model.state_dict(), path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
