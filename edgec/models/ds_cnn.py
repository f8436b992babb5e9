# SPDX-License-Identifier: Apache-2.0
"""Depthwise-separable convolutional network for small colour images.

Source: A. G. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications", 2017 (arXiv:1704.04861), at the size that Y. Zhang, N. Suda, L. Lai, V. Chandra, "Hello Edge:
Keyword Spotting on Microcontrollers", 2017 (arXiv:1711.07128) call DS-CNN. With c(x) = relu(norm(conv(x))):

    x = c(image)                           3x3, dense
    x = c(c(x))                            for every block: 3x3 depthwise with the block's stride, then 1x1
    y = head(mean over the pixels of x)

Our own reading: channels double wherever the resolution halves and once before; no convolution has a bias,
the normalization after it has.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgec.models.layers.convolution import ConvClassifier, conv_norm
from edgec.models.registry import register_model


class SeparableBlock(nn.Module):
    """float [B, inputs, H, W] -> float [B, outputs, H / stride, W / stride] (H, W multiples of the stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = conv_norm(inputs, inputs, 3, stride=stride, groups=inputs)
        self.pointwise = conv_norm(inputs, outputs, 1)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Every channel by itself over its neighbourhood, then all channels at every pixel."""
        x = self.activation(self.depthwise(x))
        y: Tensor = self.activation(self.pointwise(x))
        return y


@register_model(
    "ds-cnn-cifar10",
    description="depthwise-separable CNN for 32x32 colour images, 10 classes, 5.7 M MACs",
    source="Howard et al., MobileNets, 2017, arXiv:1704.04861; Zhang et al., Hello Edge, 2017, arXiv:1711.07128",
    parameters=55_210,
    inputs={"image": (1, 3, 32, 32)},
    outputs={"logits": (1, 10)},
)
def ds_cnn_cifar10() -> nn.Module:
    """16 channels at 32x32 up to 128 at 8x8 in six blocks."""
    blocks = ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1))
    return ConvClassifier(SeparableBlock, channels=3, stem=16, blocks=blocks, classes=10)
