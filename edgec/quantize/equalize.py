# SPDX-License-Identifier: Apache-2.0
"""Scale channels against each other where it changes nothing in float but much for one scale per tensor.

A channel ten times larger than the others takes three of int8's eight bits from them. Both functions divide
channel c of a tensor by s[c] where it is made and multiply the weights that read it by s[c]; with
`s[c] = sqrt(largest |x[c]| / largest |w[c]|)` the difficulty is shared between activation and weights (alpha =
0.5 of SmoothQuant). Cross-layer equalization: Nagel et al. 2019; migration out of LayerNormalization: Xiao et
al. 2023 (SmoothQuant).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper, numpy_helper

from edgec.model import Model, value_shapes
from edgec.quantize.calibrate import run_stream
from edgec.quantize.groups import LINEAR, Grouping
from edgec.quantize.layers import Layer, layer_of
from edgec.quantize.plan import with_initializers

ALPHA = 0.5
# As Relu, LeakyRelu, means and maxima: f(s * x) == s * f(x) for s > 0, channel by channel.
POOLS = frozenset({"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"})
NORMALIZATIONS = frozenset({"LayerNormalization", "RMSNormalization"})
# A channel is never scaled by more than this: float32 keeps the result to 1e-5 and no bias leaves its range.
MOST = 2.0**12

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Site:
    """A tensor whose channels can be scaled freely: what makes it, and every layer that reads it.

    Attributes:
        source: the layer or normalization that makes it.
        channels: how many.
        readers: the layers that read it, and nothing else does, with the value that each reads.
        labels: for each of these values the channel of every element, in its shape.
    """

    source: NodeProto
    channels: int
    readers: tuple[tuple[NodeProto, str], ...]
    labels: Mapping[str, Labels]


def equalize(model: Model, samples: Mapping[str, np.ndarray]) -> Model:
    """Equalize every site of `sites`, from inputs to outputs; the model computes the same in float.

    Requires: the canonical float model. Ensures: the same nodes; outputs differ by float rounding alone
    (tested: 1e-5 of the largest value). Only weights, biases and normalizations' parameters change.
    """
    grouping = Grouping(model)
    found = sites(model, grouping)
    if not found:
        return model
    reach = channel_maxima(model, samples, found)
    arrays: dict[str, np.ndarray] = {}
    # Factors of a later site see the weights as the earlier ones left them; its activations do not change,
    # because what an earlier site takes from a tensor its readers give back.
    for site, largest in zip(found, reach, strict=True):
        _scale(site, largest, grouping, arrays)
    return with_initializers(model, arrays)


def sites(model: Model, grouping: Grouping) -> list[Site]:
    """Every tensor of the model that can be equalized, in graph order."""
    found = []
    shapes = value_shapes(model.proto)
    once = {name for name in grouping.constants if len(grouping.uses(name)) == 1}
    for node in grouping.nodes:
        if node.op_type not in NORMALIZATIONS | LINEAR or node.output[0] not in shapes:
            continue
        site = _site(node, grouping, shapes)
        # A weight that two nodes share cannot be scaled for one of them.
        if site and all(n in once for m in (node, *(r for r, _ in site.readers)) for n in m.input[1:] if n):
            found.append(site)
    return found


def channel_maxima(model: Model, samples: Mapping[str, np.ndarray], found: Sequence[Site]) -> list[Floats]:
    """Largest |x| of each channel of each site over all samples, as its readers see it."""
    reach = [np.zeros(site.channels) for site in found]
    names = sorted({name for site in found for name in site.labels})
    for values in run_stream(model, samples, names):
        for site, largest in zip(found, reach, strict=True):
            for name, labels in site.labels.items():
                np.maximum.at(largest, labels.ravel(), np.abs(values[name]).ravel().astype(np.float64))
    return reach


def factors(activation: Floats, weight: Floats, *, free: bool = False) -> Floats:
    """By what each channel is divided: `activation^alpha / weight^(1-alpha)`, their geometric mean 1.

    Args:
        activation: largest |x| of each channel.
        weight: largest |w| that reads each channel.
        free: the weights have a scale for each input channel (depthwise), so all of the difference goes there.
    """
    live = (activation > 0) & (weight > 0)
    result = np.ones_like(activation)
    if not live.any():
        return result
    alpha = 1.0 if free else ALPHA
    logs = alpha * np.log(activation[live]) - (1 - alpha) * np.log(weight[live])
    # The geometric mean 1 keeps the tensor's range where it was, and with it every requantization ratio.
    result[live] = np.exp(np.clip(logs - logs.mean(), -np.log(MOST), np.log(MOST)))
    return result


def _scale(site: Site, activation: Floats, grouping: Grouping, arrays: dict[str, np.ndarray]) -> None:
    layers = [_current(node, grouping, arrays) for node, _ in site.readers]
    weight = np.max([layer.input_reach() for layer in layers], axis=0)
    s = factors(activation, weight, free=all(layer.is_depthwise for layer in layers))
    for (node, _), layer in zip(site.readers, layers, strict=True):
        arrays[node.input[1]] = layer.with_inputs_scaled(s)
    if site.source.op_type in NORMALIZATIONS:
        for name in site.source.input[1:]:
            if name:
                arrays[name] = arrays.get(name, numpy_helper.to_array(grouping.constants[name])) / s
        return
    source = _current(site.source, grouping, arrays)
    rows, bias = source.with_outputs_scaled(1 / s)
    arrays[site.source.input[1]] = rows
    if len(site.source.input) > 2 and site.source.input[2]:
        arrays[site.source.input[2]] = bias


def _current(node: NodeProto, grouping: Grouping, arrays: Mapping[str, np.ndarray]) -> Layer:
    layer = layer_of(node, grouping.constants)
    weight, bias = arrays.get(node.input[1], layer.weight), layer.bias
    if len(node.input) > 2 and node.input[2]:
        bias = arrays.get(node.input[2], bias)
    return Layer(layer.op_type, weight, bias, layer.groups)


def _site(source: NodeProto, grouping: Grouping, shapes: Mapping[str, tuple[int, ...]]) -> Site | None:
    """What reads the channels of `source`, through data movement and (behind a layer) homogeneous functions."""
    shape = shapes[source.output[0]]
    axis = 1 if source.op_type in LINEAR else len(shape) - 1
    if source.op_type in NORMALIZATIONS:
        given = grouping.constants.get(source.input[1])
        if given is None or list(given.dims) != [shape[-1]] or _attribute(source, "axis", -1) != -1:
            return None
    waiting = [(str(source.output[0]), _along(axis, shape))]
    readers: list[tuple[NodeProto, str]] = []
    labels: dict[str, Labels] = {}
    while waiting:
        value, channel = waiting.pop()
        uses = grouping.uses(value)
        if value in grouping.outputs or not uses:
            return None
        for node, position in uses:
            if position != 0:
                return None
            if node.op_type in LINEAR:
                if not _reads_by_channel(node, channel, shape[axis], grouping):
                    return None
                readers.append((node, value))
                labels[value] = channel
                continue
            through = _through(node, channel, source.op_type in LINEAR, grouping, shapes)
            if through is None:
                return None
            waiting.append((str(node.output[0]), through))
    return Site(source, shape[axis], tuple(readers), labels)


def _through(
    node: NodeProto,
    channel: Labels,
    scaling: bool,
    grouping: Grouping,
    shapes: Mapping[str, tuple[int, ...]],
) -> Labels | None:
    """Channels of a node's result; None when it mixes them, or bends what is scaled, or makes several results."""
    shape = shapes.get(node.output[0])
    if shape is None or len(node.output) != 1:
        return None
    if node.op_type == "Transpose":
        return channel.transpose(_attribute(node, "perm", list(range(channel.ndim))[::-1]))
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"):
        return channel.reshape(shape)
    if not scaling:
        return None
    if node.op_type in ("Relu", "LeakyRelu"):
        return channel
    if node.op_type in POOLS and np.array_equal(channel, _along(1, channel.shape)):
        return _along(1, shape)
    if node.op_type in ("ReduceMean", "ReduceSum", "ReduceMax") and len(node.input) > 1:
        axes = grouping.constants.get(node.input[1])
        if axes is not None:
            reduced = tuple(int(a) % channel.ndim for a in numpy_helper.to_array(axes).ravel())
            first, last = channel.min(axis=reduced), channel.max(axis=reduced)
            return first.reshape(shape) if reduced and np.array_equal(first, last) else None
    return None


def _reads_by_channel(node: NodeProto, channel: Labels, channels: int, grouping: Grouping) -> bool:
    """Whether the input channels of a layer are the channels, in order."""
    same = bool(np.array_equal(channel, _along(1, channel.shape)))
    return same and channel.shape[1] == layer_of(node, grouping.constants).inputs == channels


def _along(axis: int, shape: Sequence[int]) -> Labels:
    dims = [1] * len(shape)
    dims[axis] = shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).reshape(dims), shape)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
