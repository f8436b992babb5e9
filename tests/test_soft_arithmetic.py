# SPDX-License-Identifier: Apache-2.0
"""What cores without divider or FPU compute by the support library, here on the host: as Python and NumPy do."""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.device.toolchain import Source, build_host_library
from edgec.resources import runtime_dir

SUPPORT = runtime_dir() / "support"
WORD, LONG = (1 << 32) - 1, (1 << 64) - 1
EDGES = (
    0, 1, 0x007FFFFF, 0x00800000, 0x00800001, 0x3F800000, 0x3F7FFFFF, 0x40000000, 0x4B000000, 0x4B7FFFFF, 0x4EFFFFFF,
    0x4F000000, 0x4F7FFFFF, 0x4F800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x33800000, 0x34000000,
)  # fmt: skip
bits32 = st.integers(0, WORD) | st.sampled_from([e | s for e in EDGES for s in (0, 1 << 31)])
# Near each other, so that sums cancel and quotients round.
near = st.tuples(bits32, st.integers(-(1 << 25), 1 << 25)).map(lambda p: (p[0], (p[0] + p[1]) & WORD))
pairs = st.tuples(bits32, bits32) | near | near.map(lambda p: (p[0], p[1] ^ 1 << 31))
words = st.integers(0, WORD) | st.sampled_from([0, 1, 2, 3, 1 << 31, (1 << 31) - 1, WORD, 0xFFFF, 0x10000])


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    files = [SUPPORT / f"{name}.c" for name in ("divide32", "shift64", "leading_zeros")]
    files += sorted((SUPPORT / "soft_float").glob("*.c"))
    return ctypes.CDLL(str(build_host_library([Source(f, "runtime") for f in files], [], tmp_path_factory.mktemp("s"))))


def call(library: ctypes.CDLL, name: str, *arguments: int, wide: bool = False) -> int:
    """A function of words (`wide`: first a word of 64 bits, and such a result) as an unsigned number."""
    function = getattr(library, name)
    function.restype = ctypes.c_uint64 if wide else ctypes.c_uint32
    kinds = [ctypes.c_uint64 if wide and i == 0 else ctypes.c_uint32 for i in range(len(arguments))]
    return int(function(*(kind(a) for kind, a in zip(kinds, arguments, strict=True))))


def real(bits: int) -> np.float32:
    return np.array(bits, np.uint32).view(np.float32)[()]


def assert_float(got: int, wanted: np.float32) -> None:
    if np.isnan(wanted):
        assert np.isnan(real(got))
    else:
        assert got == int(np.array(wanted, np.float32).view(np.uint32))


ARITHMETIC: dict[str, Callable[[np.float32, np.float32], np.float32]] = {
    "__aeabi_fadd": operator.add,
    "__aeabi_fsub": operator.sub,
    "__aeabi_frsub": lambda a, b: b - a,
    "__aeabi_fmul": operator.mul,
    "__aeabi_fdiv": operator.truediv,
}
COMPARISONS: dict[str, Callable[[np.float32, np.float32], bool]] = {
    "__aeabi_fcmpeq": operator.eq,
    "__aeabi_fcmplt": operator.lt,
    "__aeabi_fcmple": operator.le,
    "__aeabi_fcmpge": operator.ge,
    "__aeabi_fcmpgt": operator.gt,
    "__aeabi_fcmpun": lambda a, b: bool(np.isnan(a) or np.isnan(b)),
}


@settings(max_examples=2000)
@given(pairs)
def test_float_arithmetic_is_numpys(library: ctypes.CDLL, pair: tuple[int, int]) -> None:
    with np.errstate(all="ignore"):
        for name, wanted in ARITHMETIC.items():
            assert_float(call(library, name, *pair), wanted(real(pair[0]), real(pair[1])))
        for name, relation in COMPARISONS.items():
            assert call(library, name, *pair) == int(relation(real(pair[0]), real(pair[1]))), name


def test_float_arithmetic_of_many_random_bits(library: ctypes.CDLL) -> None:
    """Exponents that make subnormal sums, products and quotients are rare among examples: here are thousands."""
    rng = np.random.default_rng(3)
    small = rng.integers(0, 48 << 23, (3000, 2))  # products and quotients around the smallest floats
    large = small + (104 << 23)
    with np.errstate(all="ignore"):
        for a, b in ((int(a), int(b)) for a, b in (*small, *large, *np.stack([small[:, 0], large[:, 1]], 1))):
            for name, wanted in ARITHMETIC.items():
                assert_float(call(library, name, a, b), wanted(real(a), real(b)))


def fused(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """a * b + c in exact fractions, rounded to odd in double's place and then to float: rounded once."""
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(c)):
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))  # the product of floats is exact in double
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))  # for the sign of zero
    near = np.float64(float(exact))  # rounded to 53 bits; to odd instead, or halves of floats may be rounded twice
    if Fraction(float(near)) != exact:
        bits = near.view(np.int64) & ~1 | 1
        around = [np.int64(bits + d).view(np.float64) for d in (-2, -1, 0, 1, 2)]
        below = max(v for v in around if Fraction(float(v)) < exact)
        above = min(v for v in around if Fraction(float(v)) > exact)
        near = below if below.view(np.int64) & 1 else above
    return np.float32(near)


@settings(max_examples=600)
@given(pairs, pairs)
def test_multiply_and_add_rounds_once(library: ctypes.CDLL, p: tuple[int, int], q: tuple[int, int]) -> None:
    with np.errstate(all="ignore"):
        cancelling = int(np.array(-(real(p[0]) * real(p[1])), np.float32).view(np.uint32))
        for z in (*q, cancelling, cancelling ^ 1, cancelling ^ 1 << 31):
            wanted = fused(real(p[0]), real(p[1]), real(z))
            assert_float(call(library, "edgec_float_multiply_add", *p, z), wanted)


@settings(max_examples=1000)
@given(bits32)
def test_roots_and_conversions_are_numpys(library: ctypes.CDLL, bits: int) -> None:
    with np.errstate(all="ignore"):
        assert_float(call(library, "edgec_float_root", bits), np.sqrt(real(bits)))
    assert_float(call(library, "__aeabi_ui2f", bits), np.float32(bits))
    signed = bits - ((bits >> 31) << 32)
    assert_float(call(library, "__aeabi_i2f", bits), np.float32(signed))
    value = float(real(bits))
    clamped = 0.0 if np.isnan(value) else min(max(value, -1e12), 1e12)
    assert call(library, "__aeabi_f2iz", bits) == min(max(int(clamped), -(1 << 31)), (1 << 31) - 1) & WORD
    assert call(library, "__aeabi_f2uiz", bits) == min(max(int(clamped), 0), WORD)


@settings(max_examples=500)
@given(words, words, st.integers(0, LONG), st.integers(0, 63))
def test_integers_are_pythons(library: ctypes.CDLL, a: int, b: int, wide: int, by: int) -> None:
    if b:
        assert call(library, "__aeabi_uidiv", a, b) == a // b
        function = library.__aeabi_uidivmod
        function.restype = ctypes.c_uint64
        assert function(ctypes.c_uint32(a), ctypes.c_uint32(b)) == (a % b) << 32 | a // b
        x, y = a - (a >> 31 << 32), b - (b >> 31 << 32)
        quotient = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        assert call(library, "__aeabi_idiv", a, b) == quotient & WORD
        function = library.__aeabi_idivmod
        function.restype = ctypes.c_uint64
        both = function(ctypes.c_uint32(a), ctypes.c_uint32(b))
        assert both == ((x - quotient * y) & WORD) << 32 | quotient & WORD
    assert call(library, "__aeabi_llsl", wide, by, wide=True) == wide << by & LONG
    assert call(library, "__aeabi_llsr", wide, by, wide=True) == wide >> by
    assert call(library, "__aeabi_lasr", wide, by, wide=True) == (wide - (wide >> 63 << 64)) >> by & LONG
    assert call(library, "__clzsi2", a) == 32 - a.bit_length()
    function = library.__clzdi2
    function.restype = ctypes.c_int
    assert function(ctypes.c_uint64(wide)) == 64 - wide.bit_length()


def test_every_source_is_tried() -> None:
    """What is in the folder of the support library is tested here, or is older and tested elsewhere."""
    here = {"divide32.c", "shift64.c", "leading_zeros.c", *(p.name for p in (SUPPORT / "soft_float").glob("*.c"))}
    elsewhere = {"divide64.c", "multiply64.c", "memcmp.c", "memcpy.c", "memmove.c", "memset.c"}
    found = {p.name for p in SUPPORT.rglob("*.c") if p.parent.name != "math"}
    assert found == here | elsewhere
    assert Path(SUPPORT / "math").is_dir()
