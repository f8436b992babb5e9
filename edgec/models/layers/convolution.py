# SPDX-License-Identifier: Apache-2.0
"""What the convolutional families share: convolution with batch normalization, and the frame of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """float [B, inputs, H, W] -> float [B, outputs, ceil(H / stride), ceil(W / stride)].

    Zero padding of kernel // 2 on every side, no bias (the normalization has one). An odd `kernel`.
    """
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class ConvClassifier(nn.Module):
    """A 3x3 stem, blocks, the mean over the pixels, one linear layer.

    float [B, C, H, W] with values in [0, 1] -> logits float [B, classes].

    Args:
        block: makes one block from (input channels, output channels, stride).
        channels: of the image.
        stem: channels after the first convolution.
        blocks: (output channels, stride) of every block.
        classes: number of logits.
    """

    def __init__(
        self,
        block: Callable[[int, int, int], nn.Module],
        channels: int,
        stem: int,
        blocks: Sequence[tuple[int, int]],
        classes: int,
    ) -> None:
        super().__init__()
        self.stem = conv_norm(channels, stem, 3)
        self.activation = nn.ReLU()
        widths = [stem, *(width for width, _ in blocks)]
        self.blocks = nn.Sequential(*(block(widths[i], width, stride) for i, (width, stride) in enumerate(blocks)))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """float [B, C, H, W] -> logits float [B, classes]."""
        x = self.blocks(self.activation(self.stem(image)))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits
