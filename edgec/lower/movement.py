# SPDX-License-Identifier: Apache-2.0
"""Data movement on int8 tensors: a reshape is a view, everything else one strided copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgec.lower.graph import Array, IntegerGraph, NotIntegerError, Quant, Source, Value
from edgec.operators.integer import product

MOVEMENT = frozenset("Expand Flatten Gather Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split())
MOST_AXES = 6


def spread(node: onnx.NodeProto, value: Value, shape: tuple[int, ...], graph: IntegerGraph) -> Value:
    """`value` repeated to `shape` by NumPy's broadcasting; itself when it has that shape."""
    if value.shape == shape:
        return value
    if value.data is not None:
        return Value(None, shape, value.quant, np.broadcast_to(value.data, shape).copy())
    assert value.tensor is not None
    size = product(value.shape)
    moved = np.broadcast_to(np.arange(size).reshape(value.shape), shape)
    return Value(_copy(node.name, f"{value.tensor}.spread", moved, size, value.tensor, graph), shape, value.quant)


def move(node: onnx.NodeProto, source: Source, value: Value, graph: IntegerGraph) -> list[Value]:
    """The results of a movement node of `value` (one for each output), copied only where bytes change place."""
    base = value.data if value.data is not None else np.arange(product(value.shape)).reshape(value.shape)
    results = []
    for output, moved in zip(node.output, _apply(node, source, base), strict=True):
        shape = source.shapes.get(output, moved.shape)
        moved = np.broadcast_to(moved, shape) if moved.shape != shape else moved
        if value.data is not None:
            quant = _moved_quant(node, value.quant, len(value.shape))
            results.append(Value(None, tuple(shape), quant, np.ascontiguousarray(moved)))
            continue
        assert value.tensor is not None
        tensor = _copy(node.name, output, moved, base.size, value.tensor, graph)
        results.append(Value(tensor, tuple(shape), value.quant))
    return results


def _moved_quant(node: onnx.NodeProto, quant: Quant, rank: int) -> Quant:
    """Quantization of a moved constant: a scale for each channel goes where the channel's axis goes."""
    if not quant.scale.ndim or node.op_type == "Identity":
        return quant
    if node.op_type != "Transpose":
        raise NotIntegerError("a constant that is quantized per channel is moved other than by Transpose")
    perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])
    return Quant(quant.scale, quant.zero_point, perm.index(quant.axis % rank))


def _copy(node: str, output: str, moved: Array, size: int, tensor: str, graph: IntegerGraph) -> str:
    if not moved.size:
        raise NotIntegerError("its result has no elements")
    if moved.size == size and np.array_equal(moved.ravel(), np.arange(size)):
        return graph.view(tensor, moved.shape)
    if moved.base is None or moved.dtype != np.int64:
        raise NotIntegerError("a movement that is no strided copy")
    axes = [(int(n), int(s) // moved.itemsize) for n, s in zip(moved.shape, moved.strides, strict=True) if n != 1] or [
        (1, 0)
    ]
    merged = [axes[0]]
    for n, stride in axes[1:]:
        outer, step = merged[-1]
        merged[-1:] = [(outer * n, stride)] if step == stride * n else [(outer, step), (n, stride)]
    if len(merged) > MOST_AXES:
        raise NotIntegerError(f"a movement over {len(merged)} axes, at most {MOST_AXES}")
    copied = graph.emit(
        "strided_copy_s8",
        node,
        output,
        [graph.view(tensor, (size,))],
        {},
        offset=int(moved.flat[0]),
        shape=[n for n, _ in merged],
        strides=[s for _, s in merged],
    )
    return graph.view(copied, moved.shape)


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


def _gather(x: Array, indices: Array, axis: int) -> Array:
    flat = [int(i) % x.shape[axis] for i in indices.ravel()]
    steps = set(np.diff(flat).tolist())
    if len(steps) > 1 or steps == {0}:
        raise NotIntegerError("Gather takes an irregular list of indices; one index or an even step is supported")
    step = steps.pop() if steps else 1
    stop = flat[-1] + (1 if step > 0 else -1)
    cut = x[(slice(None),) * axis + (slice(flat[0], None if stop < 0 else stop, step),)]
    return cut.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])
