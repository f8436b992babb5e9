# SPDX-License-Identifier: Apache-2.0
"""Hand-written convolutions and pools: the operators' bits on this machine and on simulated cores, at their price."""

from __future__ import annotations

import itertools
from pathlib import Path

import kernel_call
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_call import CORE_TARGETS, Runner, call_of, core_image, host_runner, on_core, wanted

from edgec.kernels import HandKernel, kernels_for
from edgec.operators import Case, get_operator
from edgec.operators.integer import multipliers

POINTS = [-128, 127, 0, -5]


def kernel_named(name: str) -> HandKernel:
    op = {"max": "max_pool_s8", "avg": "avg_pool_s8", "depthwise": "depthwise_conv2d_s8"}
    (kernel,) = [k for k in kernels_for(op.get(name.split("_")[0], "conv2d_s8"), {"dsp"}) if k.name == name]
    return kernel


def drawn(rng: np.random.Generator, shape: tuple[int, ...], least: int = -128) -> np.ndarray:
    """int8 over the whole range, or only its ends."""
    values = rng.choice([least, 127], shape) if rng.random() < 0.3 else rng.integers(least, 128, shape)
    return values.astype(np.int8)


def window(strides: object = (1, 1), pads: object = (1, 1, 1, 1), dilations: object = (1, 1)) -> dict[str, list[int]]:
    named = {"strides": strides, "pads": pads, "dilations": dilations}
    return {name: [int(v) for v in values] for name, values in named.items()}  # type: ignore[attr-defined]


def depthwise(rng: np.random.Generator, shape: tuple[int, int, int], shifts: bool = False, **geometry: object) -> Case:
    """A 3x3 kernel."""
    channels = shape[2]
    mult = rng.choice([0, 1, 2**29, 2**30 - 1], channels) if shifts else rng.integers(2**16, 2**24, channels)
    shift = rng.integers(0, 9, channels) if shifts else np.zeros(channels)
    vectors = [rng.integers(-(2**18), 2**18, channels), mult, shift, rng.choice(POINTS, 2)]
    typed = [v.astype(t) for v, t in zip(vectors, (np.int32, np.int32, np.uint8, np.int32), strict=True)]
    w = drawn(rng, (3, 3, channels), -127)
    return Case((drawn(rng, shape), w, *typed), {**window(**geometry), "wide": 0})


def conv(
    rng: np.random.Generator, shape: tuple[int, int, int], n: int, taps: object = (3, 3), **geometry: object
) -> Case:
    vectors = [rng.integers(-(2**18), 2**18, n), rng.integers(2**16, 2**22, n), np.zeros(n), rng.choice(POINTS, 2)]
    typed = [v.astype(t) for v, t in zip(vectors, (np.int32, np.int32, np.uint8, np.int32), strict=True)]
    w = drawn(rng, (n, *taps, shape[2]), -127)  # type: ignore[misc]
    return Case((drawn(rng, shape), w, *typed), {**window(**geometry), "group": 1, "wide": 0})


def fits(kernel: HandKernel, case: Case) -> bool:
    """Whether the windows reach the image at all, and the kernel takes them."""
    try:
        get_operator(kernel.op).infer(case.types, **case.attrs)
    except ValueError:
        return False
    return kernel.accepts(call_of(kernel, case)) is None


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runner]:
    return {k.name: host_runner(k, tmp_path_factory.mktemp(k.name)) for k in KERNELS}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("images")
    return {(k.name, core): core_image(k, core, folder) for k in KERNELS for core in CORE_TARGETS}


DEPTHWISE = kernel_named("depthwise_3x3_s8_dsp")
MAX_POOL, AVG_POOL = kernel_named("max_pool_s8_dsp"), kernel_named("avg_pool_s8_dsp")
CONV, POINTWISE = kernel_named("conv2d_s8_dsp"), kernel_named("conv2d_1x1_s8_dsp")
KERNELS = [DEPTHWISE, MAX_POOL, AVG_POOL, CONV, POINTWISE]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_portable_kernels_equal_the_operators_on_their_own_samples(host: dict[str, Runner], kernel: HandKernel) -> None:
    rng = np.random.default_rng(3)
    samples = get_operator(kernel.op).samples(rng)
    taken = [case for case in itertools.islice(samples, 900) if kernel.accepts(call_of(kernel, case)) is None]
    assert len(taken) >= 5
    for i, case in enumerate(taken):
        np.testing.assert_array_equal(host[kernel.name](case, i % 4), wanted(kernel, case))


@settings(deadline=None, max_examples=200)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(4, 13)),
    strides=st.tuples(st.sampled_from([1, 1, 2, 3]), st.sampled_from([1, 1, 2, 3])),
    dilations=st.tuples(st.sampled_from([1, 1, 2]), st.sampled_from([1, 1, 2])),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_portable_depthwise_equals_the_operator(
    host: dict[str, Runner],
    shape: tuple[int, int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    case = depthwise(rng, shape, shifts=seed % 2 == 1, strides=strides, dilations=dilations, pads=pads)
    if fits(DEPTHWISE, case):
        np.testing.assert_array_equal(host[DEPTHWISE.name](case, seed % 4), wanted(DEPTHWISE, case))


# Lengths of a slide from 1 to 8; both orientations; lines by two and alone; channels that overlap; padding of one line,
# of two (a window of padding alone), of none.
DEPTHWISE_SHAPES = [
    ((1, 1, 4), {}),
    ((2, 2, 5), {}),
    ((3, 3, 9), {"strides": (2, 1)}),
    ((4, 4, 7), {"pads": (2, 2, 2, 2)}),
    ((5, 6, 8), {"pads": (0, 2, 1, 0)}),
    ((9, 7, 4), {"dilations": (2, 1)}),
    ((7, 3, 4), {}),
    ((8, 2, 6), {"strides": (1, 2)}),
    ((6, 8, 4), {"pads": (0, 0, 0, 0)}),
    ((1, 9, 4), {"pads": (2, 1, 2, 1)}),
    ((1, 2, 4), {"strides": (2, 2)}),
    ((5, 4, 5), {"strides": (2, 2)}),
    ((9, 3, 4), {"strides": (2, 2)}),
    ((5, 9, 4), {"strides": (2, 2), "pads": (2, 2, 2, 2)}),
    ((7, 6, 8), {"strides": (3, 2), "pads": (0, 0, 0, 0), "dilations": (2, 1)}),
]


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize(("shape", "geometry"), DEPTHWISE_SHAPES)
def test_depthwise_on_the_core(
    images: dict[tuple[str, str], Path], core: str, shape: tuple[int, int, int], geometry: dict[str, object]
) -> None:
    case = depthwise(np.random.default_rng(sum(shape)), shape, shifts=sum(shape) % 2 == 1, **geometry)
    assert fits(DEPTHWISE, case)
    y, _ = on_core(DEPTHWISE, core, images[DEPTHWISE.name, core], case)
    np.testing.assert_array_equal(y, wanted(DEPTHWISE, case))


def test_any_rows_of_the_output_alone(host: dict[str, Runner]) -> None:
    """A block of rows needs its number and its count, the whole image, and room for itself."""
    rng = np.random.default_rng(5)
    cases = [
        (DEPTHWISE, depthwise(rng, shape, strides=s))
        for shape in ((7, 5, 6), (9, 3, 4))
        for s in ((1, 1), (2, 1), (2, 2))
    ]
    cases += [(CONV, conv(rng, (7, 6, c), 3, strides=(s, 1))) for c in (3, 4) for s in (1, 2)]
    cases += [(k, pool(rng, k, (7, 6, 5), (3, 2), strides=(s, 1))) for k in (MAX_POOL, AVG_POOL) for s in (1, 2)]
    for kernel, case in cases:
        assert fits(kernel, case)
        y, names = wanted(kernel, case), kernel.arguments(call_of(kernel, case))
        at = names.index("y")
        assert names[at + 1 : at + 3] == ("first_row", "rows")
        for first, end in itertools.combinations(range(len(y) + 1), 2):

            def only(arguments: list[np.ndarray], at: int = at, first: int = first, end: int = end) -> None:
                arguments[at] = np.zeros((end - first, *arguments[at].shape[1:]), np.int8)
                arguments[at + 1], arguments[at + 2] = np.array(first, np.int32), np.array(end - first, np.int32)

            np.testing.assert_array_equal(host[kernel.name](case, edit=only), y[first:end])


def test_depthwise_bounds_are_sharp(host: dict[str, Runner]) -> None:
    """The last bias and the last shift that fit are exact; one more is declined."""
    case = depthwise(np.random.default_rng(1), (4, 4, 4))
    w = np.full((3, 3, 4), 127, np.int8)
    for shift in (0, 3, 8):
        most = (2**31 - 1 >> shift) - 128 * 9 * 127
        for bias, taken in ((most, True), (-most, True), (most + 1, False), (-most - 1, False)):
            vectors = np.full(4, bias, np.int32), np.full(4, 2**29, np.int32), np.full(4, shift, np.uint8)
            edge = Case((np.full((4, 4, 4), -128, np.int8), w, *vectors, np.array([-128, 3], np.int32)), case.attrs)
            assert (DEPTHWISE.accepts(call_of(DEPTHWISE, edge)) is None) == taken
            if taken:
                np.testing.assert_array_equal(host[DEPTHWISE.name](edge), wanted(DEPTHWISE, edge))
    x, _, bias, mult, shift, params = case.inputs
    far = Case((x, w, bias * 0, mult, np.full_like(shift, 9), params), case.attrs)
    assert DEPTHWISE.accepts(call_of(DEPTHWISE, far)) == "a shift that leads a weight out of 16 bits"


def test_depthwise_declines_with_a_reason() -> None:
    case = depthwise(np.random.default_rng(1), (6, 6, 4))
    x, w, bias, mult, shift, params = case.inputs
    for inputs, attrs, reason in [
        (case.inputs, {"wide": 1}, "wide"),
        (case.inputs, {"strides": [3, 3]}, "two pixels apart"),
        ((x, w[:2], bias, mult, shift, params), {}, "2x3 taps"),
        ((x[..., :3], w[..., :3], bias[:3], mult[:3], shift[:3], params), {}, "3 channels"),
        ((x, w, bias, np.full_like(mult, 2**30), shift, params), {}, "multiplier"),
    ]:
        assert reason in str(DEPTHWISE.accepts(call_of(DEPTHWISE, Case(inputs, {**case.attrs, **attrs}))))


# Instructions per MAC, everything included. A change that needs more must say why.
DEPTHWISE_CEILINGS = [((25, 5, 64), 2.14), ((5, 25, 64), 2.14), ((24, 24, 32), 2.01)]


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize(("shape", "ceiling"), DEPTHWISE_CEILINGS)
def test_depthwise_instructions_per_mac(
    images: dict[tuple[str, str], Path], core: str, shape: tuple[int, int, int], ceiling: float
) -> None:
    case = depthwise(np.random.default_rng(2), shape)
    y, instructions = on_core(DEPTHWISE, core, images[DEPTHWISE.name, core], case)
    np.testing.assert_array_equal(y, wanted(DEPTHWISE, case))
    print(f"{core} {shape}: {instructions} instructions, {instructions / (9 * y.size):.4f} per MAC")
    assert instructions <= ceiling * 9 * y.size


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_the_stack_of_assembly_is_known(images: dict[tuple[str, str], Path], kernel: HandKernel) -> None:
    for core in CORE_TARGETS:
        bound = kernel_call.stack_bound(kernel, images[kernel.name, core])
        assert 0 < bound <= 512


def pool(rng: np.random.Generator, kernel: HandKernel, shape: object, taps: object, **geometry: object) -> Case:
    x = drawn(rng, shape)  # type: ignore[arg-type]
    attrs = {"kernel": [int(v) for v in taps], **window(**geometry)}  # type: ignore[attr-defined]
    if kernel is MAX_POOL:
        return Case((x,), attrs)
    counts = np.arange(1, np.prod(attrs["kernel"]) + 1)
    mult, shift = multipliers(10.0 ** rng.uniform(-2, 0.5) / counts, wide=False)
    counted = attrs["pads"] if rng.random() < 0.5 else [0] * 4
    return Case((x, mult, shift, rng.choice(POINTS, 2).astype(np.int32)), {**attrs, "counted": counted, "wide": 0})


# Five taps and more; channels below, at and beside a multiple of four; windows cut by every border.
POOL_SHAPES = [
    ((1, 1, 1), (1, 1), {"pads": (0, 0, 0, 0)}),
    ((6, 5, 7), (3, 2), {"pads": (1, 1, 2, 0), "strides": (2, 1)}),
    ((7, 8, 4), (2, 3), {"pads": (1, 0, 0, 2), "strides": (3, 2), "dilations": (3, 2)}),
    ((9, 4, 3), (4, 4), {"pads": (2, 1, 2, 1)}),
    ((15, 17, 6), (15, 17), {"pads": (0, 0, 0, 0)}),  # as many taps as a lane holds
]


@pytest.mark.parametrize("kernel", [MAX_POOL, AVG_POOL], ids=lambda k: k.name)
@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize(("shape", "taps", "geometry"), POOL_SHAPES)
def test_pools_on_the_core(
    images: dict[tuple[str, str], Path],
    core: str,
    kernel: HandKernel,
    shape: tuple[int, ...],
    taps: tuple[int, int],
    geometry: dict[str, object],
) -> None:
    case = pool(np.random.default_rng(sum(shape)), kernel, shape, taps, **geometry)
    assert fits(kernel, case)
    y, _ = on_core(kernel, core, images[kernel.name, core], case)
    np.testing.assert_array_equal(y, wanted(kernel, case))


def test_a_mean_of_255_taps_is_exact_and_of_256_declined(host: dict[str, Runner]) -> None:
    for value in (-128, 127):
        for zero_point in (-128, 127):
            case = pool(np.random.default_rng(0), AVG_POOL, (15, 17, 5), (15, 17), pads=(0, 0, 0, 0))
            x, mult, shift, _ = case.inputs
            same = np.full_like(x, value), mult, shift, np.array([zero_point, 3], np.int32)
            np.testing.assert_array_equal(
                host[AVG_POOL.name](Case(same, case.attrs)), wanted(AVG_POOL, Case(same, case.attrs))
            )
    large = pool(np.random.default_rng(0), AVG_POOL, (16, 16, 4), (16, 16), pads=(0, 0, 0, 0))
    assert AVG_POOL.accepts(call_of(AVG_POOL, large)) == "256 taps, at most 255"


# Instructions per output, everything included.
POOL_CEILINGS = [
    (MAX_POOL, (24, 24, 32), 2, 2, 0, 9.1),
    (MAX_POOL, (24, 24, 32), 3, 2, 1, 15.46),
    (AVG_POOL, (24, 24, 32), 2, 2, 0, 23.75),
    (AVG_POOL, (24, 24, 32), 3, 1, 1, 32.9),
]


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize(("kernel", "shape", "taps", "step", "pad", "ceiling"), POOL_CEILINGS)
def test_pool_instructions_per_output(
    images: dict[tuple[str, str], Path],
    core: str,
    kernel: HandKernel,
    shape: tuple[int, ...],
    taps: int,
    step: int,
    pad: int,
    ceiling: float,
) -> None:
    case = pool(np.random.default_rng(2), kernel, shape, (taps, taps), strides=(step, step), pads=(pad,) * 4)
    y, instructions = on_core(kernel, core, images[kernel.name, core], case)
    np.testing.assert_array_equal(y, wanted(kernel, case))
    print(f"{core} {kernel.name} {taps}x{taps} step {step}: {instructions / y.size:.2f} per output")
    assert instructions <= ceiling * y.size


@settings(deadline=None, max_examples=300)
@given(
    shape=st.tuples(st.integers(1, 11), st.integers(1, 11), st.sampled_from([1, 2, 3, 4, 5, 8, 12])),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.sampled_from([1, 1, 2, 3]), st.sampled_from([1, 1, 2, 3])),
    dilations=st.tuples(st.sampled_from([1, 1, 2]), st.sampled_from([1, 1, 2])),
    pads=st.tuples(*[st.integers(0, 4)] * 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_portable_conv_equals_the_operator(
    host: dict[str, Runner],
    shape: tuple[int, int, int],
    taps: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    case = conv(rng, shape, seed % 7 + 1, taps, strides=strides, dilations=dilations, pads=pads)
    if fits(CONV, case):
        np.testing.assert_array_equal(host[CONV.name](case, seed % 4), wanted(CONV, case))


# Blocks of four windows in a row and across rows; padding on every side; words of one tap and of two; convolutions of
# one axis, along it and down.
CONV_SHAPES = [
    ((1, 1, 4), (3, 3), {}),
    ((5, 6, 8), (3, 3), {}),
    ((4, 9, 4), (3, 3), {"strides": (1, 2)}),
    ((5, 5, 3), (3, 3), {}),
    ((6, 4, 4), (2, 3), {"pads": (1, 2, 0, 1), "strides": (2, 1)}),
    ((9, 8, 4), (3, 3), {"dilations": (2, 2), "pads": (2, 2, 2, 2)}),
    ((1, 23, 8), (1, 5), {"pads": (0, 4, 0, 0)}),
    ((17, 1, 6), (5, 1), {"pads": (4, 0, 0, 0)}),
    ((3, 1, 4), (1, 4), {"pads": (0, 3, 0, 3)}),
]


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize(("shape", "taps", "geometry"), CONV_SHAPES)
def test_conv_on_the_core(
    images: dict[tuple[str, str], Path],
    core: str,
    shape: tuple[int, int, int],
    taps: tuple[int, int],
    geometry: dict[str, object],
) -> None:
    case = conv(np.random.default_rng(sum(shape)), shape, 5, taps, **geometry)
    assert fits(CONV, case)
    y, _ = on_core(CONV, core, images[CONV.name, core], case)
    np.testing.assert_array_equal(y, wanted(CONV, case))


def test_a_pointwise_convolution_is_a_dense_layer() -> None:
    case = conv(np.random.default_rng(3), (4, 5, 6), 7, (1, 1), pads=(0, 0, 0, 0))
    assert kernels_for("conv2d_s8", {"dsp"})[0] is POINTWISE
    assert fits(POINTWISE, case)
    for geometry in ({"strides": (1, 2), "pads": (0, 0, 0, 0)}, {"pads": (0, 1, 0, 0)}):
        assert not fits(POINTWISE, conv(np.random.default_rng(3), (4, 5, 6), 7, (1, 1), **geometry))


# Instructions per MAC, everything included: the kernel's first layer (three channels), its middle, its last; one tap.
CONV_CEILINGS = [
    (CONV, (32, 32, 3), 16, 3, 1.821),
    (CONV, (32, 32, 16), 16, 3, 0.953),
    (CONV, (8, 8, 64), 64, 3, 0.818),
    (POINTWISE, (25, 5, 64), 64, 1, 0.907),
]


@pytest.mark.parametrize("core", CORE_TARGETS)
@pytest.mark.parametrize(("kernel", "shape", "n", "taps", "ceiling"), CONV_CEILINGS)
def test_conv_instructions_per_mac(
    images: dict[tuple[str, str], Path],
    core: str,
    kernel: HandKernel,
    shape: tuple[int, int, int],
    n: int,
    taps: int,
    ceiling: float,
) -> None:
    case = conv(np.random.default_rng(2), shape, n, (taps, taps), pads=(taps // 2,) * 4)
    y, instructions = on_core(kernel, core, images[kernel.name, core], case)
    np.testing.assert_array_equal(y, wanted(kernel, case))
    macs = y.size * taps * taps * shape[2]
    print(f"{core} {kernel.name} {shape} -> {n}: {instructions} instructions, {instructions / macs:.4f} per MAC")
    assert instructions <= ceiling * macs
