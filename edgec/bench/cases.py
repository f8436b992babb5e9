# SPDX-License-Identifier: Apache-2.0
"""Shapes on which kernels are measured, by operator; every hand-written kernel takes at least one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.errors import UsageError
from edgec.operators import Case, get_operator
from edgec.operators.elementwise import add_params
from edgec.operators.float_border import dequantize_params, quantize_params
from edgec.operators.int16 import add_params as add_params16
from edgec.operators.int16 import requantize_params
from edgec.operators.integer import Int8, Int32, multipliers, product
from edgec.operators.layer_norm import constants as norm_constants
from edgec.operators.layer_norm16 import constants as norm_constants16
from edgec.operators.linear16 import LARGEST_WEIGHT, proven_multipliers
from edgec.operators.mel import LogMel
from edgec.operators.product16 import mul_params
from edgec.operators.record import Array
from edgec.operators.softmax import exponentials
from edgec.target_fields import nearest

POOLS = tuple(np.random.default_rng(seed).integers(-128, 128, 1 << 16).astype(np.int8) for seed in (1, 2))
"""Activations: each case reads the beginning of a pool, so that all cases share their bytes on the board."""


@dataclass(frozen=True)
class BenchCase:
    """One operator on one shape.

    Attributes:
        op: the operator's name.
        label: the shape; with `op` it is the case's name.
        make: the call's values.
        limit: what a kernel of ours must not exceed, in instructions per unit (the kernel library's goals).
        peer: what another library is known to take, with its name.
    """

    op: str
    label: str
    make: Callable[[], Case]
    limit: float | None = None
    peer: str = ""

    @property
    def name(self) -> str:
        """Key of the case."""
        return f"{self.op} {self.label}"


def units(op: str, case: Case) -> tuple[str, int]:
    """What a figure is divided by: multiply-accumulates where the operator has them, else elements.

    Elements are those of the output or of the first input, whichever has more.
    """
    record = get_operator(op)
    output = record.infer(case.types, **case.attrs)
    macs = record.macs(case.types, output)
    return ("MAC", macs) if macs else ("element", max(product(output.shape), product(case.types[0].shape)))


def select_cases(names: Sequence[str] = ()) -> list[BenchCase]:
    """All cases, or those of the operators named.

    Raises:
        UsageError: an operator without a case.
    """
    known = list(dict.fromkeys(case.op for case in CASES))
    for name in names:
        if name not in known:
            close = nearest(name, known)
            hint = f"--op {close}" if close else None
            raise UsageError(f"no benchmark case of {name!r}", need="one of " + ", ".join(known), hint=hint)
    return [case for case in CASES if not names or case.op in names]


def activation(shape: Iterable[int], pool: int = 0) -> Int8:
    """Values over the whole range of int8."""
    dims = tuple(shape)
    return POOLS[pool][: product(dims)].reshape(dims)


def weights(shape: tuple[int, ...]) -> Int8:
    """Weights as a quantizer leaves them: most small, the ends of the range met."""
    drawn = np.random.default_rng(product(shape)).normal(0, 40, shape)
    return np.clip(np.rint(drawn), -127, 127).astype(np.int8)


def _channels(n: int, terms: int) -> tuple[Int32, Int32, Array]:
    """bias, mult and shift of `n` channels whose sums have `terms` products."""
    rng = np.random.default_rng(n * 1009 + terms)
    mult, shift = multipliers(rng.uniform(0.7, 1.4, n) / (60.0 * terms**0.5 * 40.0), False)
    return rng.integers(-(2**12), 2**12, n).astype(np.int32), mult, shift


def _ratio(value: float) -> tuple[int, int]:
    mult, shift = multipliers(value, False)
    return int(mult[0]), int(shift[0])


def _linear(m: int, k: int, n: int) -> Callable[[], Case]:
    return lambda: Case((activation((m, k)), weights((n, k)), *_channels(n, k), np.array([3], np.int32)), {"wide": 0})


def _linear_table(m: int, k: int, n: int) -> Callable[[], Case]:
    def make() -> Case:
        case = _linear(m, k, n)()
        return Case((*case.inputs, weights((256,))), case.attrs)

    return make


def _linear_add(m: int, k: int, n: int) -> Callable[[], Case]:
    def make() -> Case:
        case = _linear(m, k, n)()
        x, *layer, zero_point = case.inputs
        params = np.append(zero_point, add_params((0.05, 3), (0.04, -7), (0.06, 1))).astype(np.int32)
        return Case((x, activation((m, n), 1), *layer, params), case.attrs)

    return make


def _matmul(batch: int, m: int, k: int, n: int, transpose_b: int = 0, zero: int = 0) -> Callable[[], Case]:
    b = (batch, n, k) if transpose_b else (batch, k, n)
    params = np.array([zero, 0, *_ratio(0.4 / (40.0 * k**0.5)), 5], np.int32)
    attrs = {"wide": 0, "transpose_b": transpose_b}
    return lambda: Case((activation((batch, m, k)), activation(b, 1), params), attrs)


def _attention(m: int, n: int, heads: int, width: int) -> Callable[[], Case]:
    scores = np.array([0, 0, *_ratio(0.4 / (40.0 * width**0.5)), 5], np.int32)
    mix = np.array([-128, 0, *_ratio(1 / 128), -3], np.int32)
    inputs = activation((m, heads, width)), activation((n, heads, width), 1), activation((n, heads, width))
    return lambda: Case((*inputs, scores, exponentials(0.06), mix))


def _softmax(rows: int, width: int) -> Callable[[], Case]:
    return lambda: Case((activation((rows, width)), exponentials(0.06)))


def _masked_softmax(rows: int, width: int) -> Callable[[], Case]:
    return lambda: Case((activation((rows, width)), np.tri(rows, width, dtype=np.int8), exponentials(0.06)))


def _norm(rows: int, width: int, zero: tuple[int, ...] = ()) -> Callable[[], Case]:
    def make() -> Case:
        rng = np.random.default_rng(width)
        gain, offset, params = norm_constants(
            rng.normal(1, 0.3, width), rng.normal(0, 0.5, width), 1e-5, 0.03, (0.03, 4)
        )
        return Case((activation((rows, width)), gain, offset, np.append(params, zero).astype(np.int32)))

    return make


def _table(n: int) -> Callable[[], Case]:
    return lambda: Case((activation((n,)), weights((256,))))


def _add(rows: int, width: int, b: tuple[int, int] | None = None) -> Callable[[], Case]:
    params = add_params((0.05, 3), (0.04, -7), (0.06, 1))
    return lambda: Case((activation((rows, width)), activation(b or (rows, width), 1), params))


def _mul(rows: int, width: int) -> Callable[[], Case]:
    params = np.array([3, -7, *_ratio(0.01), 1], np.int32)
    return lambda: Case((activation((rows, width)), activation((rows, width), 1), params), {"wide": 0})


def _conv(
    x: tuple[int, int, int], n: int, kernel: tuple[int, int], pads: tuple[int, ...], stride: int = 1
) -> Callable[[], Case]:
    attrs = {"strides": [stride, stride], "pads": list(pads), "dilations": [1, 1], "group": 1, "wide": 0}
    w = (n, *kernel, x[2])
    points = np.array([-4, 3], np.int32)
    return lambda: Case((activation(x), weights(w), *_channels(n, product(w[1:])), points), attrs)


def _depthwise(
    x: tuple[int, int, int], kernel: tuple[int, int], pads: tuple[int, ...], stride: int = 1
) -> Callable[[], Case]:
    attrs = {"strides": [stride, stride], "pads": list(pads), "dilations": [1, 1], "wide": 0}
    points = np.array([-4, 3], np.int32)
    return lambda: Case((activation(x), weights((*kernel, x[2])), *_channels(x[2], product(kernel)), points), attrs)


def _pool(x: tuple[int, int, int], kernel: int, average: bool = False) -> Callable[[], Case]:
    geometry = {"kernel": [kernel] * 2, "strides": [kernel] * 2, "pads": [0] * 4, "dilations": [1, 1]}
    if not average:
        return lambda: Case((activation(x),), geometry)
    mult, shift = multipliers(0.9 / np.arange(1, kernel * kernel + 1), False)
    params = np.array([-4, 3], np.int32)
    return lambda: Case((activation(x), mult, shift, params), {**geometry, "counted": [0] * 4, "wide": 0})


def _mean(outer: int, terms: int, inner: int) -> Callable[[], Case]:
    params = np.array([3, *_ratio(0.9 / terms), 1], np.int32)
    return lambda: Case((activation((outer, terms, inner)), params), {"wide": 0})


def _transpose(shape: tuple[int, ...], order: tuple[int, ...]) -> Callable[[], Case]:
    strides = [product(shape[axis + 1 :]) for axis in order]
    attrs = {"offset": 0, "shape": [shape[axis] for axis in order], "strides": strides}
    return lambda: Case((activation((product(shape),)),), attrs)


def _concat(rows: int, m: int, n: int) -> Callable[[], Case]:
    return lambda: Case((activation((rows, m)), activation((rows, n), 1)))


def _take(outer: int, axis: int, inner: int) -> Callable[[], Case]:
    index = np.random.default_rng(axis).integers(0, axis, axis).astype(np.int32)
    return lambda: Case((activation((outer, axis, inner)), index, np.array([0], np.int32)))


def _embedding(rows: int, entries: int, width: int) -> Callable[[], Case]:
    index = np.random.default_rng(rows).integers(-entries, entries, rows).astype(np.int32)
    return lambda: Case((index, weights((entries, width))))


def _causal(ring: tuple[int, int, int], n: int, taps: int) -> Callable[[], Case]:
    """A full convolution, or a depthwise one where n is 0."""
    w = (n, taps, ring[2]) if n else (taps, ring[2])
    constants = *_channels(n or ring[2], taps * (ring[2] if n else 1)), np.array([3], np.int32)
    cursor = np.array([1], np.int32)
    return lambda: Case((activation(ring), cursor, weights(w), *constants), {"dilation": 1, "wide": 0})


def _ring_write(streams: int, rows: int, channels: int) -> Callable[[], Case]:
    cursor = np.array([1], np.int32)
    return lambda: Case((activation((streams, rows, channels)), activation((streams, channels), 1), cursor))


def _ring_read(ring: tuple[int, int, int], wide: bool, rows: int = 0) -> Callable[[], Case]:
    """The newest rows in the order of time; all rows turned into the ring's places where it is 0."""
    cursor = np.array([ring[1] // 3], np.int32)
    return lambda: Case(((_wide if wide else activation)(ring), cursor), {"rows": rows} if rows else {})


def _ring_write16(streams: int, rows: int, channels: int) -> Callable[[], Case]:
    cursor = np.array([1], np.int32)
    return lambda: Case((_wide((streams, rows, channels)), _wide((streams, channels), 1), cursor))


def _log_mel(front_end: LogMel) -> Callable[[], Case]:
    constants = front_end.constants(5.3 / 255, -66).arrays().values()
    ring, cursor = _wide((1, front_end.rows, front_end.hop)), np.array([1], np.int32)
    return lambda: Case((ring, cursor, *constants), front_end.attributes())


def _wide(shape: tuple[int, ...], pool: int = 0) -> Array:
    """Values over the whole range of int16."""
    return POOLS[pool].view(np.int16)[: product(shape)].reshape(shape)


def _add16(rows: int, width: int, b: int) -> Callable[[], Case]:
    params = add_params16((0.05 / 256, 0), (0.04 / 256, 0) if b == 16 else (0.04, -7), (0.06 / 256, 0))
    right = _wide((rows, width), 1) if b == 16 else activation((rows, width), 1)
    return lambda: Case((_wide((rows, width)), right, params), {"a": 16, "b": b, "y": 16})


def _requantize16(n: int, x: int, y: int) -> Callable[[], Case]:
    scales = {8: (0.05, -3), 16: (0.04 / 256, 0)}
    return lambda: Case(
        (_wide((n,)) if x == 16 else activation((n,)), requantize_params(scales[x], scales[y], y)), {"x": x, "y": y}
    )


def _norm16(rows: int, width: int) -> Callable[[], Case]:
    rng = np.random.default_rng(width)
    constants = norm_constants16(rng.normal(1, 0.3, width), rng.normal(0, 0.5, width), 1e-5, 1e-4, (0.03, 4))
    return lambda: Case((_wide((rows, width)), *constants))


def _mean16(outer: int, terms: int, inner: int) -> Callable[[], Case]:
    params = np.array([0, *_ratio(0.9 / terms / 256), 1], np.int32)
    return lambda: Case((_wide((outer, terms, inner)), params), {"wide": 0})


def _linear16(m: int, k: int, n: int, bits: int = 16) -> Callable[[], Case]:
    def make() -> Case:
        rng = np.random.default_rng(k * 1009 + n)
        w = rng.integers(-LARGEST_WEIGHT, LARGEST_WEIGHT + 1, (n, k)).astype(np.int16)
        bias = rng.integers(-(2**24), 2**24, n)
        mult, shift = proven_multipliers(w, bias, np.full(n, 2.0 ** (bits - 29) / k**0.5), bits, 0)
        return Case((_wide((m, k)), w, bias, mult, shift, np.array([0], np.int32)), {"y": bits})

    return make


def _mul16(rows: int, width: int, b: int, a: int = 16) -> Callable[[], Case]:
    quants = {8: (2.0**-8, -128), 16: (2.0**-15, 0)}
    params = mul_params(quants[a], quants[b], quants[16])
    left, right = (
        _wide((rows, width), i) if bits == 16 else activation((rows, width), i) for i, bits in enumerate((a, b))
    )
    return lambda: Case((left, right, params), {"a": a, "b": b, "y": 16})


def _quantize_f32(n: int, bits: int) -> Callable[[], Case]:
    x = np.random.default_rng(n).normal(0, 1, n).astype(np.float32)
    return lambda: Case((x, quantize_params(3 / 2 ** (bits - 1), 3 if bits == 8 else 0, bits)), {"y": bits})


def _dequantize_f32(n: int, bits: int) -> Callable[[], Case]:
    x = np.random.default_rng(n).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), n).astype(f"int{bits}")
    return lambda: Case((x, dequantize_params(0.01, 3 if bits == 8 else 0)), {"x": bits})


_CMSIS_LINEAR = "CMSIS-NN 1.67 to 2.25"
CASES: tuple[BenchCase, ...] = (
    BenchCase("linear_s8", "48x192x192", _linear(48, 192, 192), 0.90, _CMSIS_LINEAR),
    BenchCase("linear_s8", "49x192x768", _linear(49, 192, 768), 0.93, "CMSIS-NN 1.67"),
    BenchCase("linear_s8", "1x192x768", _linear(1, 192, 768), 1.20, "CMSIS-NN 2.13"),
    BenchCase("linear_s8", "64x96x96", _linear(64, 96, 96)),
    BenchCase("linear_s8", "64x96x192", _linear(64, 96, 192)),
    BenchCase("linear_s8", "64x192x96", _linear(64, 192, 96)),
    BenchCase("linear_s8", "47x191x191", _linear(47, 191, 191), 0.90 * 1.25),
    BenchCase("linear_s8", "45x189x190", _linear(45, 189, 190), 0.90 * 1.25),
    BenchCase("linear_s8", "1x31x64", _linear(1, 31, 64)),
    BenchCase("linear_s8", "1x16x64", _linear(1, 16, 64)),
    BenchCase("linear_s8", "1x96x10", _linear(1, 96, 10)),
    BenchCase("linear_s8", "1x64x1", _linear(1, 64, 1)),
    BenchCase("linear_s8", "64x96x1", _linear(64, 96, 1)),
    BenchCase("linear_table_s8", "48x192x192", _linear_table(48, 192, 192)),
    BenchCase("linear_table_s8", "64x96x192", _linear_table(64, 96, 192)),
    BenchCase("linear_table_s8", "1x112x64", _linear_table(1, 112, 64)),
    BenchCase("linear_add_s8", "48x192x192", _linear_add(48, 192, 192)),
    BenchCase("linear_add_s8", "64x192x96", _linear_add(64, 192, 96)),
    BenchCase("linear_add_s8", "1x64x32", _linear_add(1, 64, 32)),
    BenchCase("matmul_s8", "49x64x49, transposed right", _matmul(1, 49, 64, 49, 1), 1.3, "CMSIS-NN 2.70"),
    BenchCase("matmul_s8", "49x49x64, softmax left", _matmul(1, 49, 49, 64, zero=-128), 1.3, "CMSIS-NN 3.03"),
    BenchCase("matmul_s8", "3 of 64x32x64, transposed right", _matmul(3, 64, 32, 64, 1)),
    BenchCase("attention_s8", "64x64, 3 heads of 32", _attention(64, 64, 3, 32)),
    BenchCase("attention_s8", "49x49, 3 heads of 64", _attention(49, 49, 3, 64)),
    BenchCase("matmul_s8", "4 of 1x16x64, transposed right", _matmul(4, 1, 16, 64, 1)),
    BenchCase("matmul_s8", "4 of 1x64x16, softmax left", _matmul(4, 1, 64, 16, zero=-128)),
    BenchCase("attention_s8", "1x64, 4 heads of 16", _attention(1, 64, 4, 16)),
    BenchCase("softmax_s8", "49x49", _softmax(49, 49), 25, "CMSIS-NN 419 to 527"),
    BenchCase("softmax_s8", "192x64", _softmax(192, 64), 25, "CMSIS-NN 419 to 527"),
    BenchCase("softmax_s8", "1x10", _softmax(1, 10)),
    BenchCase("masked_softmax_s8", "49x49, causal", _masked_softmax(49, 49)),
    BenchCase("layer_norm_s8", "48x192", _norm(48, 192), 11),
    BenchCase("layer_norm_s8", "64x96", _norm(64, 96), 11),
    BenchCase("layer_norm_s8", "49x191", _norm(49, 191), 11 * 1.25),
    BenchCase("rms_norm_s8", "48x192", _norm(48, 192, (-3,)), 11),
    BenchCase("table_s8", "12288", _table(12288), 3.5),
    BenchCase("table_s8", "4097", _table(4097), 3.5),
    BenchCase("add_s8", "64x96", _add(64, 96), 4),
    BenchCase("add_s8", "47x191", _add(47, 191), 4),
    BenchCase("add_s8", "64x96 and a row", _add(64, 96, (1, 96))),
    BenchCase("mul_s8", "64x96", _mul(64, 96)),
    BenchCase("depthwise_conv2d_s8", "25x5x64, 3x3", _depthwise((25, 5, 64), (3, 3), (1, 1, 1, 1)), 2.8),
    BenchCase("depthwise_conv2d_s8", "24x24x32, 3x3, stride 2", _depthwise((24, 24, 32), (3, 3), (0, 0, 1, 1), 2)),
    BenchCase("depthwise_conv2d_s8", "12x12x32, 5x5", _depthwise((12, 12, 32), (5, 5), (2, 2, 2, 2))),
    BenchCase("conv2d_s8", "25x5x64 to 64, 1x1", _conv((25, 5, 64), 64, (1, 1), (0, 0, 0, 0)), 1.15),
    BenchCase("conv2d_s8", "16x16x16 to 16, 3x3", _conv((16, 16, 16), 16, (3, 3), (1, 1, 1, 1))),
    BenchCase("conv2d_s8", "49x10x1 to 64, 10x4, stride 2", _conv((49, 10, 1), 64, (10, 4), (4, 1, 5, 1), 2)),
    BenchCase("conv2d_s8", "64x64x3 to 96, 8x8, stride 8", _conv((64, 64, 3), 96, (8, 8), (0, 0, 0, 0), 8)),
    BenchCase("max_pool_s8", "24x24x32, 2x2", _pool((24, 24, 32), 2)),
    BenchCase("avg_pool_s8", "24x24x32, 2x2", _pool((24, 24, 32), 2, average=True)),
    BenchCase("mean_s8", "1x64x96", _mean(1, 64, 96)),
    BenchCase("strided_copy_s8", "64x96 transposed", _transpose((64, 96), (1, 0))),
    BenchCase("strided_copy_s8", "64x3x32 to 3x64x32", _transpose((64, 3, 32), (1, 0, 2))),
    BenchCase("concat_s8", "64x48 and 64x48", _concat(64, 48, 48)),
    BenchCase("take_s8", "1x64x96", _take(1, 64, 96)),
    BenchCase("embedding_s8", "64 of 128x96", _embedding(64, 128, 96)),
    BenchCase("causal_conv1d_s8", "ring 3x32 to 32", _causal((1, 3, 32), 32, 3)),
    BenchCase("causal_conv1d_s8", "ring 128x1 to 32", _causal((1, 128, 1), 32, 128)),
    BenchCase("causal_depthwise_s8", "ring 4x64", _causal((1, 4, 64), 0, 4)),
    BenchCase("ring_write_s8", "ring 3x32, apart", _ring_write(1, 3, 32)),
    BenchCase("ring_read_s8", "64 of 64x32", _ring_read((1, 64, 32), False, 64)),
    BenchCase("ring_rotate_s8", "4 of 64", _ring_read((4, 64, 1), False)),
    BenchCase("ring_write_s16", "ring 3x32, apart", _ring_write16(1, 3, 32)),
    BenchCase("ring_read_s16", "64 of 64x32", _ring_read((1, 64, 32), True, 64)),
    BenchCase("ring_rotate_s16", "4 of 64", _ring_read((4, 64, 1), True)),
    BenchCase("log_mel_s8", "200 samples to 40 bins", _log_mel(LogMel())),
    BenchCase("add_s16", "64x96 and int8", _add16(64, 96, 8)),
    BenchCase("add_s16", "64x96", _add16(64, 96, 16)),
    BenchCase("requantize_s16", "6144, int16 to int8", _requantize16(6144, 16, 8)),
    BenchCase("requantize_s16", "6144, int8 to int16", _requantize16(6144, 8, 16)),
    BenchCase("layer_norm_s16", "48x192", _norm16(48, 192)),
    BenchCase("layer_norm_s16", "64x96", _norm16(64, 96)),
    BenchCase("mean_s16", "1x64x96", _mean16(1, 64, 96)),
    BenchCase("linear_s16", "1x64x64", _linear16(1, 64, 64), 1.3),
    BenchCase("linear_s16", "1x128x128", _linear16(1, 128, 128), 1.3),
    BenchCase("linear_s16", "1x65x64", _linear16(1, 65, 64)),
    BenchCase("linear_s16", "1x128x64 to int8", _linear16(1, 128, 64, 8)),
    BenchCase("mul_s16", "64x96 and int8", _mul16(64, 96, 8)),
    BenchCase("mul_s16", "64x96", _mul16(64, 96, 16)),
    BenchCase("mul_s16", "64x96, both int8", _mul16(64, 96, 8, 8)),
    BenchCase("quantize_f32", "1024 to int8", _quantize_f32(1024, 8)),
    BenchCase("quantize_f32", "1024 to int16", _quantize_f32(1024, 16)),
    BenchCase("dequantize_f32", "1024, int8", _dequantize_f32(1024, 8)),
    BenchCase("dequantize_f32", "1024, int16", _dequantize_f32(1024, 16)),
    BenchCase("concat_s16", "64x48 and 64x48", lambda: Case((_wide((64, 48)), _wide((64, 48), 1)))),
)
