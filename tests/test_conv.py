# SPDX-License-Identifier: Apache-2.0
"""Convolutions, pools and resizes: single operators against ONNX Runtime, whole networks on host and board."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from qdq_graph import Graph, compare, program_of

LARGEST, SHARE = 1, 0.01
Draw = Callable[[st.SearchStrategy[int]], int]


def check(g: Graph) -> None:
    """Every output within one step of ONNX Runtime's, almost all of them equal."""
    for name, difference in compare(g.proto(), g.inputs).items():
        assert difference.largest <= LARGEST, (name, g.nodes)
        # Few elements cannot show a share of 1 %: one of them may differ.
        assert difference.share * difference.elements <= max(1, SHARE * difference.elements), (name, g.nodes)


def small(least: int, most: int) -> st.SearchStrategy[int]:
    return st.integers(least, most)


@st.composite
def convolutions(draw: Draw, transposed: bool = False) -> dict[str, object]:
    """Shapes and attributes of a Conv or ConvTranspose that ONNX takes."""
    spatial = draw(st.sampled_from([1, 2, 2, 2]))
    kind = draw(st.sampled_from(["plain", "plain", "grouped", "depthwise"]))
    group = 1 if kind == "plain" else draw(small(2, 5))
    ins, outs = (1, draw(small(1, 2))) if kind == "depthwise" else (draw(small(1, 6)), draw(small(1, 6)))
    kernel = [draw(small(1, 4)) for _ in range(spatial)]
    dilations = [draw(st.sampled_from([1, 1, 2])) for _ in range(spatial)]
    strides = [draw(small(1, 3)) for _ in range(spatial)]
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    # A window that reads padding alone, or none that reads a pixel, is refused.
    pads = [draw(small(0, reach[i % spatial] // (2 if transposed else 1))) for i in range(2 * spatial)]
    size = [(k - 1) * d + 1 + draw(small(0, 6)) for k, d in zip(kernel, dilations, strict=True)]
    attrs: dict[str, object] = {"strides": strides, "dilations": dilations, "group": group}
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto == "NOTSET" or max(dilations) > 1:
        attrs["pads"] = pads
        if transposed:
            attrs["output_padding"] = [draw(small(0, s - 1)) for s in strides]
    else:
        attrs["auto_pad"] = auto
        # Where windows leave pixels out, ONNX Runtime would pad by less than 0.
        attrs["strides"] = [min(s, k) for s, k in zip(strides, kernel, strict=True)]
    return {"size": size, "kernel": kernel, "in": ins * group, "out": outs * group, "attrs": attrs}


def bias_of(g: Graph, channels: int) -> str:
    return g.constant(g.rng.normal(0, 0.5, channels).astype(np.float32))


@given(shape=convolutions(), seed=small(0, 2**30), clamp=st.sampled_from([None, "Relu", "Clip"]))
@settings(max_examples=25, deadline=None)
def test_conv(shape: dict, seed: int, clamp: str | None) -> None:
    g = Graph(seed)
    group, per_channel = shape["attrs"]["group"], 0 if seed % 3 else None
    w = g.weight(shape["out"], shape["in"] // group, *shape["kernel"], axis=per_channel)
    x = g.input(1, shape["in"], *shape["size"], low=-1 - seed % 2, high=2)
    y = g.op("Conv", x, w, *([bias_of(g, shape["out"])] if seed % 4 else []), **shape["attrs"])
    if clamp == "Relu":
        y = g.op("Relu", y)
    elif clamp == "Clip":
        y = g.op("Clip", y, g.constant(np.float32(-0.2)), g.constant(np.float32(0.9)))
    g.output(y)
    check(g)


@given(shape=convolutions(transposed=True), seed=small(0, 2**30))
@settings(max_examples=20, deadline=None)
def test_conv_transpose(shape: dict, seed: int) -> None:
    g = Graph(seed)
    group = shape["attrs"]["group"]
    w = g.weight(shape["in"], shape["out"] // group, *shape["kernel"], axis=1 if seed % 3 else None)
    x = g.input(1, shape["in"], *shape["size"], low=-1 - seed % 2, high=2)
    g.output(g.op("ConvTranspose", x, w, *([bias_of(g, shape["out"])] if seed % 4 else []), **shape["attrs"]))
    check(g)


@given(
    shape=convolutions(),
    seed=small(0, 2**30),
    op=st.sampled_from(["MaxPool", "AveragePool"]),
    ceil=st.booleans(),
    include=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_pool(shape: dict, seed: int, op: str, ceil: bool, include: bool) -> None:
    g = Graph(seed)
    attrs = {k: v for k, v in shape["attrs"].items() if k != "group"} | {"kernel_shape": shape["kernel"]}
    if "pads" in attrs:  # ONNX Runtime wants them smaller than the kernel
        limits = [k - 1 for k in shape["kernel"]] * 2
        attrs |= {"pads": [min(p, m) for p, m in zip(attrs["pads"], limits, strict=True)], "ceil_mode": int(ceil)}
        attrs["strides"] = [min(s, k) for s, k in zip(attrs["strides"], shape["kernel"], strict=True)]
        if ceil:  # a last window that begins in the padding: ONNX counts it, ONNX Runtime does not
            for i, (n, k) in enumerate(zip(shape["size"], shape["kernel"], strict=True)):
                reach, step = (k - 1) * attrs["dilations"][i] + 1, attrs["strides"][i]
                first, last = attrs["pads"][i], attrs["pads"][i + len(shape["kernel"])]
                assume(-(-(n + first + last - reach) // step) * step < n + first)
    if op == "AveragePool":
        attrs["count_include_pad"] = int(include)
    x = g.input(1, shape["in"], *shape["size"], low=-1 - seed % 2, high=2)
    g.output(g.op(op, x, **attrs))
    check(g)


@given(seed=small(0, 2**30), op=st.sampled_from(["GlobalAveragePool", "GlobalMaxPool"]), after_conv=st.booleans())
@settings(max_examples=8, deadline=None)
def test_global_pool(seed: int, op: str, after_conv: bool) -> None:
    g = Graph(seed)
    x = g.input(1, 5, 6, 7)
    if after_conv:
        x = g.quantize(g.op("Conv", x, g.weight(4, 5, 2, 2, axis=0)))
    g.output(g.op(op, x))
    check(g)


@pytest.mark.parametrize("mode", ["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("nearest", ["floor", "round_prefer_floor", "round_prefer_ceil", "ceil"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_resize(mode: str, nearest: str, channels_last: bool) -> None:
    g = Graph(7)
    for scales in ((2, 2), (3, 1), (1.5, 2.0), (0.5, 0.5), (0.5, 2), (0.7, 1.3), (1, 1)):
        x = g.input(1, 3, 6, 8)
        if channels_last:
            x = g.quantize(g.op("Conv", x, g.weight(4, 3, 1, 1, axis=0)))
        factors = g.constant(np.array([1, 1, *scales], np.float32))
        attrs = {"coordinate_transformation_mode": mode, "nearest_mode": nearest}
        g.output(g.op("Resize", x, "", factors, mode="nearest", **attrs))
    check(g)


def test_resize_to_a_size() -> None:
    g = Graph(8)
    for size in ((12, 16), (9, 11), (1, 1), (3, 4)):
        sizes = g.constant(np.array([1, 3, *size], np.int64))
        attrs = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        g.output(g.op("Resize", g.input(1, 3, 6, 8), "", "", sizes, mode="nearest", **attrs))
    check(g)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    g = Graph(10)
    x = g.quantize(g.op("Conv", g.input(1, 3, 4, 6), g.weight(12, 3, 1, 1, axis=0)))
    g.output(g.op("DepthToSpace", x, blocksize=2, mode=mode))
    g.output(g.op("SpaceToDepth", x, blocksize=2))
    check(g)


def copies(g: Graph) -> list[str]:
    return [c.name for c in program_of(g.proto()).calls if c.op == "strided_copy_s8"]


def separable(g: Graph, x: str, ins: int, outs: int, stride: int) -> str:
    x = g.op("Conv", x, g.weight(ins, 1, 3, 3, axis=0), group=ins, pads=[1] * 4, strides=[stride] * 2)
    x = g.quantize(g.op("Relu", x))
    return g.quantize(g.op("Relu", g.op("Conv", x, g.weight(outs, ins, 1, 1, axis=0))))


def test_no_copies_between_convolutions() -> None:
    """Residual adds, concats, pools and the mean over the pixels take the bytes as they lie."""
    g = Graph(3)
    x = g.quantize(g.op("Conv", g.input(1, 3, 12, 10), g.weight(8, 3, 3, 3, axis=0), pads=[1] * 4))
    skip = x
    x = separable(g, x, 8, 8, 1)
    x = g.quantize(g.op("Add", x, skip))
    a, b = separable(g, x, 8, 6, 1), g.quantize(g.op("Sigmoid", x))
    x = g.op("Concat", a, b, axis=1)
    x = g.quantize(g.op("MaxPool", g.quantize(x), kernel_shape=[2, 2], strides=[2, 2]))
    gate = g.quantize(g.op("GlobalAveragePool", x))
    x = g.quantize(g.op("Mul", x, gate))
    x = g.op("ReduceMean", x, g.constant(np.array([2, 3])), keepdims=0)
    g.output(g.op("Gemm", g.quantize(x), g.weight(5, 14, axis=0), transB=1))
    check(g)
    assert len(copies(g)) == 1  # of the input alone, which ONNX has channels-first


def test_transposes_cost_nothing_until_bytes_are_needed() -> None:
    g = Graph(4)
    x = g.op("Transpose", g.input(1, 6, 7, 3), perm=[0, 3, 1, 2])
    x = g.quantize(g.op("Conv", x, g.weight(4, 3, 3, 3, axis=0), pads=[1] * 4))
    x = g.op("Transpose", x, perm=[0, 2, 3, 1])
    y = g.op("Transpose", g.op("Transpose", x, perm=[0, 3, 1, 2]), perm=[0, 2, 3, 1])
    g.output(g.op("Gemm", g.op("Reshape", y, g.constant(np.array([42, 4]))), g.weight(5, 4, axis=0), transB=1))
    check(g)
    assert copies(g) == []


def test_flatten_in_onnx_order_is_one_copy() -> None:
    g = Graph(5)
    x = g.quantize(g.op("Conv", g.input(1, 1, 6, 7), g.weight(4, 1, 3, 3, axis=0)))
    x = g.op("Reshape", x, g.constant(np.array([1, 80])))
    g.output(g.op("Gemm", x, g.weight(5, 80, axis=0), transB=1))
    check(g)
    assert len(copies(g)) == 1


def test_an_elementwise_function_of_a_tensor_and_its_transpose_is_none() -> None:
    g = Graph(6)
    x = g.input(1, 3, 5, 5)
    g.output(g.op("Add", x, g.op("Transpose", x, perm=[0, 1, 3, 2])))
    g.output(g.op("Mul", x, g.op("Transpose", x, perm=[0, 1, 3, 2])))
    check(g)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_concat_slice_and_split_along_any_axis_behind_a_convolution(axis: int) -> None:
    g = Graph(9 + axis)
    x = g.quantize(g.op("Conv", g.input(1, 3, 6, 8), g.weight(4, 3, 3, 3, axis=0), pads=[1] * 4))
    y = g.quantize(g.op("Conv", x, g.weight(4, 4, 1, 1, axis=0)))
    joined = g.quantize(g.op("Concat", x, y, g.quantized_constant(1, 4, 6, 8), axis=axis))
    bounds = [g.constant(np.array([v])) for v in (1 if axis else 0, 5, axis, 2)]
    g.output(g.op("Slice", joined, *bounds))
    if axis:
        first, second = g.node("Split", [x], 2, axis=axis, num_outputs=2)
        g.output(g.op("Add", first, second))
    g.output(g.op("Softmax", g.op("Transpose", x, perm=[0, 2, 3, 1]), axis=-1))
    g.output(g.op("ReduceMean", joined, g.constant(np.array([axis])), keepdims=0))
    g.output(g.op("Reshape", joined, g.constant(np.array([-1, 2]))))
    for name, difference in compare(g.proto(), g.inputs).items():
        assert difference.largest <= 2, name  # a Softmax that is quantized with other than its own scale rounds twice
