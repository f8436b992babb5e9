# SPDX-License-Identifier: Apache-2.0
"""The convolutional families against their equations, written a second time in NumPy (float64)."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.models.registry import get_model
from tests.torch_modules import run, weights_of

Weights = dict[str, np.ndarray]


def conv_norm(x: np.ndarray, w: Weights, name: str, stride: int = 1, groups: int = 1) -> np.ndarray:
    """x [C, H, W]: every output pixel by its own product, then the normalization by its definition."""
    kernel = w[f"{name}.0.weight"]  # [N, C / groups, k, k]
    count, depth, size, _ = kernel.shape
    channels, height, width = x.shape
    assert depth == channels // groups
    padded = np.zeros((channels, height + size - 1, width + size - 1))
    padded[:, size // 2 :][:, :height, size // 2 :][:, :, :width] = x
    y = np.empty((count, -(-height // stride), -(-width // stride)))
    per_group = count // groups
    for group in range(groups):
        outputs = slice(group * per_group, (group + 1) * per_group)
        inputs = padded[group * depth : (group + 1) * depth]
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                seen = inputs[:, i * stride : i * stride + size, j * stride : j * stride + size]
                y[outputs, i, j] = kernel[outputs].reshape(per_group, -1) @ seen.ravel()
    mean, variance, gamma, beta = (
        w[f"{name}.1.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return gamma * (y - mean) / np.sqrt(variance + 1e-5) + beta


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def ds_cnn(x: np.ndarray, w: Weights) -> np.ndarray:
    for i, stride in enumerate((1, 2, 1, 2, 1, 1)):
        x = relu(conv_norm(x, w, f"blocks.{i}.depthwise", stride, groups=len(x)))
        x = relu(conv_norm(x, w, f"blocks.{i}.pointwise"))
    return x


def resnet(x: np.ndarray, w: Weights) -> np.ndarray:
    for i, stride in enumerate((1, 2, 2)):
        y = relu(conv_norm(x, w, f"blocks.{i}.first", stride))
        y = conv_norm(y, w, f"blocks.{i}.second")
        x = relu(y + (conv_norm(x, w, f"blocks.{i}.shortcut", stride) if stride > 1 else x))
    return x


@pytest.mark.parametrize(("name", "blocks", "count"), [("ds-cnn-cifar10", ds_cnn, 6), ("resnet-cifar10", resnet, 3)])
def test_convolutional_classifier_equals_its_equations(name, blocks, count):
    record = get_model(name)
    module = record.build()
    w = weights_of(module, seed=1)
    image = np.random.default_rng(2).random(record.inputs["image"]).astype(np.float32)

    x = blocks(relu(conv_norm(image[0].astype(np.float64), w, "stem")), w)
    logits = w["head.weight"] @ x.mean(axis=(1, 2)) + w["head.bias"]

    assert {key.split(".")[1] for key in w if key.startswith("blocks.")} == {str(i) for i in range(count)}
    np.testing.assert_allclose(run(module, image)[0], logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize(
    ("name", "most_weights", "macs"),
    [("ds-cnn-cifar10", 100_000, (3e6, 6e6)), ("resnet-cifar10", 100_000, (10e6, 13e6))],
)
def test_convolutional_classifier_is_as_small_as_it_says(name, most_weights, macs):
    """Multiply-accumulates counted by torch's own counter of floating-point operations (two for each)."""
    from torch.utils.flop_counter import FlopCounterMode

    record = get_model(name)
    module = record.build()
    with FlopCounterMode(display=False) as counter:
        run(module, np.zeros(record.inputs["image"]))
    counted = counter.get_total_flops() // 2
    assert sum(parameter.numel() for parameter in module.parameters()) < most_weights
    assert macs[0] < counted < macs[1]
    assert f"{counted / 1e6:.1f} M MACs" in record.description
