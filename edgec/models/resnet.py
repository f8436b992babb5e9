# SPDX-License-Identifier: Apache-2.0
"""Residual convolutional network with three stages of one block each, for small colour images.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016
(arXiv:1512.03385), at the size of ResNet-8 in C. Banbury et al., "MLPerf Tiny Benchmark", NeurIPS 2021 Datasets
and Benchmarks (arXiv:2106.07597). With c(x) = norm(conv(x)):

    x = relu(c(image))                               3x3
    x = relu(c2(relu(c1(x))) + s(x))                 for every block; 3x3 both, c1 has the block's stride
    y = head(mean over the pixels of x)

s is the identity where nothing changes its shape, else c with a 1x1 kernel and the block's stride. Our own
reading: that shortcut is normalized as in the first paper.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgec.models.layers.convolution import ConvClassifier, conv_norm
from edgec.models.registry import register_model


class ResidualBlock(nn.Module):
    """float [B, inputs, H, W] -> float [B, outputs, H / stride, W / stride] (H, W multiples of the stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, 3, stride=stride)
        self.second = conv_norm(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride=stride)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Two convolutions beside the shortcut."""
        y: Tensor = self.second(self.activation(self.first(x)))
        z: Tensor = self.activation(y + self.shortcut(x))
        return z


@register_model(
    "resnet-cifar10",
    description="residual CNN (ResNet-8) for 32x32 colour images, 10 classes, 12.5 M MACs",
    source="He et al., Deep Residual Learning, CVPR 2016, arXiv:1512.03385; MLPerf Tiny, 2021, arXiv:2106.07597",
    parameters=78_042,
    inputs={"image": (1, 3, 32, 32)},
    outputs={"logits": (1, 10)},
)
def resnet_cifar10() -> nn.Module:
    """16 channels at 32x32, 32 at 16x16, 64 at 8x8."""
    return ConvClassifier(ResidualBlock, channels=3, stem=16, blocks=((16, 1), (32, 2), (64, 2)), classes=10)
