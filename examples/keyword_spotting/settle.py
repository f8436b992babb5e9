# SPDX-License-Identifier: Apache-2.0
"""Settle a trained spiking LMUFormer: weights on the grid of int8, and spikes that a little noise does not change.

    python examples/keyword_spotting/settle.py --start examples/keyword_spotting/lmuformer_spiking_spoken_digits.onnx

starts from the weights of a `train.py --spiking` (its ONNX file or .plain.pt) and writes, below --out, the settled ONNX
file, its train.log and its calibration file. Every batch runs twice: as it is, and with noise on what neurons get and
some bins of the frames a level off. The loss is the cross-entropy of both, the entropy of all answers, how far the
noisy scores are off and how many spikes differ. Weights are rounded to the grid in every step, with the gradient of the
identity. It can be interrupted with Ctrl-C; the same command then resumes after the last finished epoch.
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
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "spoken_digits"))
from batches import Batches
from recordings import Recordings, heard, load
from train import JUDGED, NAMES, WARMUP, Judge, calibration_stream
from training.run import add_arguments, begin_run

from edgec.export import export, load_checkpoint
from edgec.front_end import with_front_end
from edgec.model import load_model
from edgec.models.layers.lif import LIF
from edgec.models.layers.norm import folded
from edgec.models.lmuformer import HIGHEST_FRAME, LEVEL, LOWEST_FRAME, in_levels, spiking_form

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("start", "seed", "batch", "lr", "weight_decay", "noise", "wrong", "doubt", "consistency", "spikes")
AFTER = 12  # frames after a recording that the losses of noise still look at
LISTENED = 700  # recordings among which the one is sought that takes the memory's input lowest


class Grid(nn.Module):
    """Weights rounded to 127 steps each way of the largest of their output channel; the gradient of the identity."""

    def forward(self, weight: Tensor) -> Tensor:
        """Weight [N, ...] on its grid."""
        return weight + (on_grid(weight.detach()) - weight).detach()


def on_grid(weight: Tensor) -> Tensor:
    """Weight [N, ...] as `edgec.quantize.scheme.linear_params` rounds it to int8, in float."""
    rows = weight.flatten(1)
    step = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
    return (torch.round(rows / step) * step).view(weight.shape)


class Pairs:
    """Neurons whose second half of a batch gets noise, and the share of spikes by which the halves differ."""

    def __init__(self, model: nn.Module) -> None:
        self.noise, self.differing = 0.0, list[Tensor]()
        for lif in [module for module in model.modules() if isinstance(module, LIF)]:
            lif.parallel = self._watched(lif, lif.parallel)  # type: ignore[method-assign]

    def _watched(self, lif: LIF, parallel: Any) -> Any:
        def run(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            if not lif.training:
                return parallel(x, v)  # type: ignore[no-any-return]
            clean, noisy = x.chunk(2)
            noisy = noisy + self.noise * lif.step * (torch.rand_like(noisy) - 0.5)
            spikes, v = parallel(torch.cat([clean, noisy]), v)
            one, other = spikes.chunk(2)
            self.differing.append((one - other).abs().mean())
            return spikes, v

        return run


def batch_loss(model: Any, pairs: Pairs, batch: tuple[Tensor, ...], wishes: argparse.Namespace) -> Tensor:
    """Loss of x float [B, T, inputs], begin, end and labels int64 [B], run as it is and with noise."""
    x, begin, end, labels = batch
    x = in_levels(x)
    off = (torch.rand_like(x) < wishes.wrong) * (torch.rand_like(x) - 0.5).sign()
    both = torch.cat([x, x + LEVEL * off])
    pairs.differing.clear()
    logits: Tensor = model.parallel(both, *model.reset(len(both)))[0]
    clean, noisy = logits.chunk(2)
    place = torch.arange(x.shape[1])
    judged = (place >= (end - (end - begin) // JUDGED)[:, None]) & (place < (end + 8)[:, None])
    seen = place < (end + AFTER)[:, None]
    wanted = labels[:, None].expand(judged.shape)[judged]
    loss = (functional.cross_entropy(clean[judged], wanted) + functional.cross_entropy(noisy[judged], wanted)) / 2
    entropy = torch.special.entr(logits.softmax(-1)).sum(-1)[torch.cat([seen, seen])].mean()
    error = (noisy[seen] - clean[seen]).square().sum() / clean[seen].detach().square().sum()
    differing = torch.stack(pairs.differing).mean()
    return loss + wishes.doubt * entropy + wishes.consistency * (error + 1e-12).sqrt() + wishes.spikes * differing


@torch.no_grad()
def write_calibration(model: Any, data: Recordings, path: Path) -> None:
    """The words of `train.py`, frames at both ends of the range, and the word that takes the memory's input lowest.

    With them the quantizer finds the steps in which frames, spikes and sums are exact.
    """
    found: list[Tensor] = []
    hook = model.blocks[0].encode.register_forward_hook(lambda _, __, u: found.append(u.min()))
    lowest, word = np.inf, data.pcm[0]
    for i in np.random.default_rng(0).permutation(len(data.pcm))[:LISTENED]:
        model.parallel(torch.from_numpy(heard(data.pcm[i]))[None], *model.reset(1))
        if (least := float(found.pop())) < lowest:
            lowest, word = least, data.pcm[i]
    hook.remove()
    ends = np.repeat(np.array([[LOWEST_FRAME], [HIGHEST_FRAME]], np.float32), model.sizes[0][1], axis=1)
    np.savez_compressed(path, frame=np.concatenate([calibration_stream(data), ends, heard(word)])[:, None])
    print(f"wrote {path}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, ROOT / "build" / "settled", epochs=16, batch=60, lr=2e-3, weight_decay=0.0)
    parser.add_argument("--start", required=True, help="trained weights: the ONNX file, or .plain.pt of train.py")
    parser.add_argument("--noise", type=float, default=0.3, help="on what neurons get, in their steps")
    parser.add_argument("--wrong", type=float, default=0.01, help="share of a frame's bins that are a level off")
    parser.add_argument("--doubt", type=float, default=0.3, help="weight of the mean entropy of all answers")
    parser.add_argument("--consistency", type=float, default=4.0, help="weight of the noisy scores' relative error")
    parser.add_argument("--spikes", type=float, default=15.0, help="weight of the share of spikes that differ")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name = NAMES[True]
    stem = arguments.name or name.replace("-", "_")
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, test = load(arguments.data)
    batches = Batches(data, arguments.batch)

    model: Any = folded(spiking_form())
    load_checkpoint(model, Path(arguments.start))
    for layer in [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv1d)]:
        parametrize.register_parametrization(layer, "weight", Grid())
    model.blocks[0].memory.conv.parametrizations.weight.original.requires_grad_(False)  # the Legendre taps
    pairs = Pairs(model)
    pairs.noise = arguments.noise
    counts = f"{len(data.labels):,} training and {len(test.labels)} test recordings"
    run, log = begin_run(model, arguments, stem, SETTINGS, counts, f"AdamW, {WARMUP} steps of warm-up, cosine")

    def losses(random: torch.Generator) -> Iterator[Tensor]:
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=random)))
        for batch in batches(random):
            yield batch_loss(model, pairs, batch, arguments)

    try:
        run.train(losses, len(batches), arguments.epochs, WARMUP, Judge(test), log)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command resumes after the last finished epoch")
    for layer in [module for module in model.modules() if parametrize.is_parametrized(module)]:
        parametrize.remove_parametrizations(layer, "weight")  # leaves them on the grid
    plain = arguments.out / f"{stem}.plain.pt"
    torch.save(model.state_dict(), plain)
    path = export(name, arguments.out / f"{stem}.onnx", checkpoint=plain)
    onnx.save(with_front_end(load_model(path), "log-mel").proto, path)
    print(f"wrote {path}")
    write_calibration(model, data, arguments.out / f"calibration_{stem}.npz")


if __name__ == "__main__":
    main()
