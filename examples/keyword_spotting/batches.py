# SPDX-License-Identifier: Apache-2.0
"""What training makes of recordings: batches of log-mel frames, every epoch others."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from features import BINS, FLOOR, MEAN, SCALE, Floats
from recordings import Recordings, at_speed, heard
from torch import Tensor, nn

SPEEDS = (0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12)
LONGEST = 160  # frames of a recording that training uses
CONTEXT = 40  # frames of the recording before that training uses at most
GAP, TAIL = 20, 12  # silent frames before and after a recording, at most


def energies(frames: Floats) -> Tensor:
    """Mel energies of log-mel frames: float [T, BINS], 0 where there was no sound."""
    return (torch.from_numpy(frames) * SCALE + MEAN).exp().sub_(FLOOR).clamp_(min=0)


def as_frames(energy: Tensor) -> Tensor:
    """Log-mel frames of mel energies, as `recordings.heard` has them."""
    return ((energy + FLOOR).log() - MEAN) / SCALE


def padded(frames: list[Floats]) -> tuple[Tensor, Tensor]:
    """(float [N, longest, BINS] with zeros after the end, lengths int64 [N])."""
    tensors = [torch.from_numpy(one) for one in frames]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True), torch.tensor([len(one) for one in frames])


class Batches:
    """Training batches: other speed, loudness and background, silent bands and frames, other recordings before.

    Args:
        data: the training recordings.
        size: of a batch.
    """

    def __init__(self, data: Recordings, size: int) -> None:
        self.size, self.labels = size, torch.from_numpy(data.labels)
        self.sounds = [[energies(heard(at_speed(one, speed)))[:LONGEST] for one in data.pcm] for speed in SPEEDS]

    def __len__(self) -> int:
        return len(self.labels) // self.size

    def __call__(self, random: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """One epoch: (frames float [B, T, BINS], begin, end of the recording int64 [B], digits int64 [B]).

        Neighbours in length come together, the order is random, the incomplete last batch is left out.
        """
        count = len(self.labels)
        speeds = torch.randint(len(SPEEDS), (count,), generator=random)
        sounds = [self.sounds[int(speed)][i] for i, speed in enumerate(speeds)]
        lengths = torch.tensor([float(len(one)) for one in sounds])
        order = (lengths * (1 + 0.2 * torch.rand(count, generator=random))).argsort()
        chunks = [chunk for chunk in order.split(self.size) if len(chunk) == self.size]
        for i in torch.randperm(len(chunks), generator=random):
            others = torch.randint(count, (self.size,), generator=random)
            yield (
                *self._batch([sounds[j] for j in chunks[i]], [sounds[j] for j in others], random),
                self.labels[chunks[i]],
            )

    def _batch(self, sounds: list[Tensor], others: list[Tensor], random: torch.Generator) -> tuple[Tensor, ...]:
        """Half of the recordings begin a stream; the others follow the end of another one after a silence."""
        count = len(sounds)
        after = torch.rand(count, generator=random) < 0.5
        context, gap, tail = ((torch.rand(count, generator=random) * most).long() for most in (CONTEXT, GAP, TAIL))
        gap = torch.where(after | (torch.rand(count, generator=random) < 0.5), gap, 0)
        tail = torch.where(torch.rand(count, generator=random) < 0.3, tail, 0)
        loudness = 10 ** (2.4 * torch.rand((2, count), generator=random) - 1.2)  # 12 dB each way
        rows, begin, end = [], [], []
        for i, sound in enumerate(sounds):
            silent_tail = sound.new_zeros(int(tail[i]), BINS)
            row = [sound.new_zeros(int(gap[i]), BINS), loudness[0, i] * _masked(sound, random), silent_tail]
            if after[i]:
                row.insert(0, loudness[1, i] * others[i][-int(context[i]) - 1 :])
            rows.append(torch.cat(row))
            end.append(len(rows[-1]) - len(silent_tail))
            begin.append(end[-1] - len(sound))
        energy = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return as_frames(energy + _background(energy, random)), torch.tensor(begin), torch.tensor(end)


def _masked(energy: Tensor, random: torch.Generator) -> Tensor:
    """float [T, BINS] with up to 8 frames, but not more than a sixth, and up to 8 bins silent."""
    energy = energy.clone()
    for part, most in ((energy, min(8, len(energy) // 6)), (energy.T, 8)):
        width, start = torch.rand(2, generator=random).tolist()
        first = int(start * len(part))
        part[first : first + int(width * (most + 1))] = 0
    return energy


def _background(energy: Tensor, random: torch.Generator) -> Tensor:
    """Steady noise for each row of float [B, T, BINS]: another level (from inaudible), another slope."""
    count, steps, bins = energy.shape
    level, slope = torch.rand((2, count, 1, 1), generator=random)
    spectrum = 10 ** (3.0 * level - 8.0 + (2 * slope - 1) * torch.linspace(-0.75, 0.75, bins))
    ripple = torch.rand((count, steps, bins), generator=random).clamp_(min=1e-4).log_().neg_()
    return spectrum * ripple
