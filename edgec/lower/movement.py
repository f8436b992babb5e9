# SPDX-License-Identifier: Apache-2.0
"""Data movement on int8 tensors: a reshape is a view, everything else one strided copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgec.lower.graph import Array, IntegerGraph, NotIntegerError, Order, Quant, Source, Value
from edgec.lower.picking import gather
from edgec.operators.integer import product

MOVEMENT = frozenset("Expand Flatten Gather Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split())


def spread(node: onnx.NodeProto, value: Value, shape: tuple[int, ...], graph: IntegerGraph) -> Value:
    """`value` (in ONNX order) repeated to `shape` by NumPy's broadcasting; itself when it has that shape."""
    if value.shape == shape:
        return value
    if value.data is not None:
        return Value(None, shape, value.quant, np.broadcast_to(value.data, shape).copy())
    assert value.tensor is not None
    places = np.broadcast_to(_places(value), shape)
    return Value(graph.strided_copy(node.name, f"{value.tensor}.spread", places, value.tensor), shape, value.quant)


def move(node: onnx.NodeProto, source: Source, value: Value, graph: IntegerGraph) -> list[Value]:
    """The results of a movement node of `value` (one for each output), copied only where bytes change place.

    A result keeps its elements in the order in which they lie; only an axis that cannot be seen so is copied.
    """
    if node.op_type == "Gather" and value.data is None and node.input[1] in source.arrays:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if not _evenly_spaced(node, source, value.shape[axis]):
            return [gather(node, source, value, graph)]
    base = value.data if value.data is not None else _places(value)
    results = []
    for index, (output, moved) in enumerate(zip(node.output, _apply(node, source, base), strict=True)):
        shape = source.shapes.get(output, moved.shape)
        moved = np.broadcast_to(moved, shape) if moved.shape != shape else moved
        if value.data is not None:
            quant = _moved_quant(node, value.quant, len(value.shape))
            results.append(Value(None, tuple(shape), quant, np.ascontiguousarray(moved)))
            continue
        if not moved.size:
            raise NotIntegerError("its result has no elements")
        if not _shares(moved, base):  # NumPy had to copy: the bytes are needed in ONNX order first
            value = graph.in_order(value, (), node.name)
            base = _places(value)
            moved = np.broadcast_to(_apply(node, source, base)[index], shape)
            if not _shares(moved, base):
                raise NotIntegerError("a movement that is no strided copy")
        results.append(_placed(node.name, output, moved, value, graph))
    return results


def _places(value: Value) -> Array:
    """Where each element of `value` lies: an int64 view in ONNX order."""
    stored = np.arange(product(value.shape)).reshape(value.stored_shape)
    return stored.transpose(np.argsort(value.order)) if value.order else stored


def _shares(moved: Array, base: Array) -> bool:
    return moved.dtype == np.int64 and bool(np.shares_memory(moved, base))


def _placed(node: str, output: str, moved: Array, value: Value, graph: IntegerGraph) -> Value:
    """The result whose elements lie at `moved`: a view where these are all of `value`, in some order of axes."""
    assert value.tensor is not None
    size = product(value.shape)
    order = _by_stride(moved)
    if moved.size == size and np.array_equal(moved.transpose(order).ravel(), np.arange(size)):
        shape = tuple(moved.shape[a] for a in order)
        result = Value(graph.view(value.tensor, shape), moved.shape, value.quant, order=order)
        return graph.in_order(result, (), node) if result.lies_in(()) else result
    if value.lies_in(()):
        order = tuple(range(moved.ndim))
    copied = graph.strided_copy(node, output, moved.transpose(order), value.tensor)
    return Value(copied, moved.shape, value.quant, order=() if order == tuple(range(moved.ndim)) else order)


def _by_stride(moved: Array) -> Order:
    """Axes from the outermost in memory to the innermost; what repeats is outermost, axes of size 1 come last."""
    steps = [abs(s) if n != 1 else 0 for n, s in zip(moved.shape, moved.strides, strict=True)]
    repeats = [n != 1 and s == 0 for n, s in zip(moved.shape, moved.strides, strict=True)]
    return tuple(sorted(range(moved.ndim), key=lambda a: (not repeats[a], -steps[a])))


def _moved_quant(node: onnx.NodeProto, quant: Quant, rank: int) -> Quant:
    """Quantization of a moved constant: a scale for each channel goes where the channel's axis goes."""
    if not quant.scale.ndim or node.op_type == "Identity":
        return quant
    if node.op_type != "Transpose":
        raise NotIntegerError("a constant that is quantized per channel is moved other than by Transpose")
    perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])
    return Quant(quant.scale, quant.zero_point, perm.index(quant.axis % rank))


def _apply(node: onnx.NodeProto, source: Source, x: Array) -> list[Array]:
    """The node's effect on an array, by NumPy views only."""
    attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def constant(index: int, default: Sequence[int] | None = None) -> list[int]:
        name = node.input[index] if len(node.input) > index else ""
        if not name and default is not None:
            return list(default)
        if name not in source.arrays:
            raise NotIntegerError("its shape, axes or indices must be constant")
        return [int(v) for v in source.arrays[name].ravel()]

    match node.op_type:
        case "Identity":
            return [x]
        case "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze":
            return [x.reshape(source.shapes[node.output[0]])]
        case "Transpose":
            return [x.transpose(attrs.get("perm", list(range(x.ndim))[::-1]))]
        case "Expand":
            return [np.broadcast_to(x, source.shapes[node.output[0]])]
        case "Slice":
            starts, ends = constant(1), constant(2)
            axes, steps = constant(3, range(len(starts))), constant(4, [1] * len(starts))
            return [x[_slices(x.shape, starts, ends, axes, steps)]]
        case "Split":
            axis = attrs.get("axis", 0)
            even = [-(-x.shape[axis] // len(node.output))] * len(node.output)
            return list(np.split(x, np.cumsum(constant(1, even))[:-1], axis=axis))
        case "Gather":
            axis, indices = attrs.get("axis", 0), source.arrays.get(node.input[1])
            if indices is None:
                raise NotIntegerError("its indices must be constant")
            if not _evenly_spaced(node, source, x.shape[axis]):
                return [np.take(x, indices, axis)]  # a constant: `move` took care of the rest
            return [_gather(x, indices, axis % x.ndim)]
    raise NotIntegerError("no data movement")  # unreachable while MOVEMENT and this list agree


def _slices(
    shape: Sequence[int],
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int],
    steps: Sequence[int],
) -> tuple[slice, ...]:
    result = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis]
        stop = None if step < 0 and end < -size else max(min(end, size), -size)
        result[axis] = slice(max(min(start, size), -size), stop, step)
    return tuple(result)


def _evenly_spaced(node: onnx.NodeProto, source: Source, size: int) -> bool:
    """Whether a Gather's indices are one index or an even step: a slice."""
    index = source.arrays[node.input[1]].ravel() % size
    steps = set(np.diff(index).tolist())
    return len(steps) < 2 and steps != {0}


def _gather(x: Array, indices: Array, axis: int) -> Array:
    flat = [int(i) % x.shape[axis] for i in indices.ravel()]
    step = flat[1] - flat[0] if len(flat) > 1 else 1
    stop = flat[-1] + (1 if step > 0 else -1)
    cut = x[(slice(None),) * axis + (slice(flat[0], None if stop < 0 else stop, step),)]
    return cut.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])
