# SPDX-License-Identifier: Apache-2.0
"""The support library's <math.h>: NumPy's doubles on this machine, the same bits and no double code on Cortex-M."""

from __future__ import annotations

import ctypes
import io
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from hypothesis import given
from hypothesis import strategies as st

from edgec.device import toolchain
from edgec.device.toolchain import Source, build_host_library, compile_objects, cpu_flags, zig_binary
from edgec.resources import runtime_dir
from edgec.target import load_target

FIXTURES = Path(__file__).parent / "fixtures"
INCLUDES = [runtime_dir() / "support" / "include"]
LIBRARY = [Source(path, "runtime") for path in sorted((runtime_dir() / "support" / "math").glob("*.c"))]
ROWS = Source(FIXTURES / "math_rows.c", "runtime")
CALLS = Source(FIXTURES / "math_calls.c", "model")
CORE_TARGETS = {"cortex-m7": "stm32f746", "cortex-m4": "stm32f407"}

Arrays = dict[str, np.ndarray]

# Order of math_rows.c, each with the value in doubles.
EXACT_ROUNDINGS: dict[str, Callable[..., np.ndarray]] = {
    "ceilf": np.ceil,
    "floorf": np.floor,
    "nearbyintf": np.rint,
    "rintf": np.rint,
    "roundf": lambda x: np.copysign(np.trunc(np.abs(x) + 0.5), x),  # a float and 1/2 add exactly in double
    "truncf": np.trunc,
}
TRANSCENDENTAL: dict[str, Callable[..., np.ndarray]] = {
    "cosf": np.cos,
    "erff": np.vectorize(math.erf, otypes=[np.float64]),
    "exp2f": np.exp2,
    "expf": np.exp,
    "expm1f": np.expm1,
    "log1pf": np.log1p,
    "logf": np.log,
    "sinf": np.sin,
    "tanhf": np.tanh,
}
BINARY: dict[str, Callable[..., np.ndarray]] = {
    "fmaxf": np.fmax,
    "fminf": np.fmin,
    "fmodf": np.fmod,
    "powf": np.power,
}
NAMES = [*EXACT_ROUNDINGS, *TRANSCENDENTAL, *BINARY, "ldexpf"]

# In units in the last place of the float nearest to the true value, over all floats, subnormal results included.
ULP = {
    "cosf": 2.0, "erff": 1.5, "exp2f": 1.0, "expf": 1.0, "expm1f": 1.5, "log1pf": 2.0, "logf": 1.0, "sinf": 2.0,
    "tanhf": 1.5, "powf": 3.0,
}  # fmt: skip

SPECIAL = np.array(
    [
        0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5,
        1e-45, -1e-45, 1.1754942e-38, 1.17549435e-38, 3.4028235e38, -3.4028235e38, 0.99999994, 1.0000001, -0.99999994,
        8388607.5, -8388607.5, 8388608.0, 8388609.0, 16777215.0, 16777216.0, -16777215.0, 0.49999997, -0.49999997,
        88.72283, 88.72284, -87.33655, -103.97208, -103.97209, 127.99999, 128.0, -126.0, -149.0, -150.0, -151.0,
        1.5707964, 3.1415927, 0.7853982, 33.0, 71476.0625, 16367173.0 * 2.0**72, 0.8, 0.9, 4.0, 9.1, 1e10, -1e10,
    ],
    np.float32,
)  # fmt: skip


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance in ulps of a float at `exact`; infinite where a NaN, an infinity or the sign of a zero is wrong."""
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = exact.astype(np.float32)
        _, exponent = np.frexp(exact)
        unit = np.ldexp(1.0, np.maximum(exponent, -125) - 24)
        # One beyond the largest float counts as its distance to infinity.
        wide = np.where(np.isinf(got), np.copysign(2.0**128, got), got.astype(np.float64))
        bounded = np.where(np.isinf(nearest), np.copysign(2.0**128, exact), exact)
        distance = np.abs(wide - bounded) / np.where(np.isinf(nearest), 2.0**104, unit)
    same_kind = (np.isnan(got) == np.isnan(exact)) & ((got == nearest) | (np.signbit(got) == np.signbit(exact)))
    same_kind &= ~np.isinf(exact) | (got == nearest)
    distance = np.where(got == nearest, np.minimum(distance, 0.5), distance)
    zero_sign = (exact == 0) & (np.signbit(got) != np.signbit(exact))
    return np.where(np.isnan(exact) & np.isnan(got), 0.0, np.where(same_kind & ~zero_sign, distance, np.inf))


def pairs(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equally long x, y and powers of two for one call of math_rows."""
    x, y = (np.ascontiguousarray(a.reshape(-1), np.float32) for a in np.broadcast_arrays(x, y))
    n = np.random.default_rng(3).integers(-310, 310, x.size).astype(np.int32)
    n[::97] = np.array([2**31 - 1, -(2**31)])[np.arange(n[::97].size) % 2]
    return x, y, n


@pytest.fixture(scope="session")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Arrays]:
    """Every function over arrays x, y, n, compiled for this machine."""
    library = ctypes.CDLL(str(build_host_library([*LIBRARY, ROWS], INCLUDES, tmp_path_factory.mktemp("host"))))

    def run(x: np.ndarray, y: np.ndarray, n: np.ndarray) -> Arrays:
        out = np.empty((len(NAMES), x.size), np.float32)
        buffers = [ctypes.c_void_p(a.ctypes.data) for a in (x, y, n, out)]
        library.math_rows(*buffers, ctypes.c_int32(x.size), ctypes.c_int32(x.size))
        return dict(zip(NAMES, out, strict=True))

    return run


def firmware_objects(core: str, sources: list[Source]) -> list[Path]:
    flags = (*cpu_flags(load_target(CORE_TARGETS[core]).cpu), *toolchain._COMMON, *toolchain._FIRMWARE)
    return compile_objects(sources, INCLUDES, (*flags, "-isystem", str(zig_binary().parent / "lib/include")))


def check(got: Arrays, x: np.ndarray, y: np.ndarray, n: np.ndarray) -> dict[str, float]:
    """Asserts what each function promises; the largest error of each in ulps."""
    found: dict[str, float] = {}
    with np.errstate(all="ignore"):
        wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
        for name, function in EXACT_ROUNDINGS.items():
            np.testing.assert_array_equal(got[name], function(wide_x).astype(np.float32), err_msg=name)
            real = ~np.isnan(x)
            np.testing.assert_array_equal(np.signbit(got[name][real]), np.signbit(x[real]), err_msg=name)
        for name, function in TRANSCENDENTAL.items():
            error = ulps(got[name], function(wide_x))
            found[name] = float(error.max())
            assert found[name] <= ULP[name], f"{name}({x[error.argmax()]!r}) = {got[name][error.argmax()]!r}"
        for name in ("fmaxf", "fminf", "fmodf"):
            expected = BINARY[name](wide_x, wide_y).astype(np.float32)
            np.testing.assert_array_equal(got[name], expected, err_msg=name)
        left = got["fmodf"]
        assert (np.signbit(left) == np.signbit(x))[~np.isnan(left)].all()
        error = ulps(got["powf"], np.power(wide_x, wide_y))
        worst = error.argmax()
        found["powf"] = float(error[worst])
        assert found["powf"] <= ULP["powf"], f"powf({x[worst]!r}, {y[worst]!r}) = {got['powf'][worst]!r}"
        expected = np.ldexp(wide_x, np.clip(n, -400, 400)).astype(np.float32)
        np.testing.assert_array_equal(got["ldexpf"], expected, err_msg="ldexpf")
    return found


def merge(into: dict[str, float], found: dict[str, float]) -> None:
    into.update({name: max(value, into.get(name, 0.0)) for name, value in found.items()})


def powers(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """x > 0 and y whose power lies in or just outside the range of floats; half of the y are integers."""
    x = np.exp(rng.uniform(-1, 1, count) * rng.choice([0.001, 0.5, 88], count)).astype(np.float32)
    logs = np.log2(x.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.where(logs == 0, 1.0, rng.uniform(-152, 130, count) / logs)
    y[::2] = np.rint(y[::2])
    return np.where(rng.integers(0, 4, count) == 0, -x, x).astype(np.float32), y.astype(np.float32)


def test_dense_samples(on_host: Callable[..., Arrays]) -> None:
    rng = np.random.default_rng(0)
    every = np.arange(0, 2**32, 4099, np.uint64).astype(np.uint32).view(np.float32)  # all signs and exponents
    found: dict[str, float] = {}
    for x, y in (
        (every, rng.permutation(every)),
        (np.linspace(-12, 12, 500_000), np.linspace(5, -5, 500_000)),
        (np.linspace(-150, 130, 300_000), rng.uniform(-9, 9, 300_000)),
        (rng.uniform(-1000, 1000, 500_000), rng.uniform(0, 1, 500_000)),
        (np.arange(1, 650) * np.pi / 2, np.float32(7)),
        (np.exp(rng.uniform(-0.5, 0.5, 300_000)), rng.uniform(-300, 300, 300_000)),
        powers(rng, 500_000),
    ):
        arrays = pairs(np.asarray(x), np.asarray(y))
        merge(found, check(on_host(*arrays), *arrays))
    print("\n" + "\n".join(f"{name:8} {value:.3f} ulp" for name, value in sorted(found.items())))


def test_special_values(on_host: Callable[..., Arrays]) -> None:
    """Zeros of both signs, infinities, NaN, subnormals and the ends of every range, each with each other."""
    with np.errstate(over="ignore"):
        neighbours = np.concatenate([np.nextafter(SPECIAL, np.float32(d)) for d in (np.inf, -np.inf)])
    values = np.concatenate([SPECIAL, neighbours])
    arrays = pairs(values[:, None], values[None, :])
    check(on_host(*arrays), *arrays)


@given(st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), min_size=1, max_size=200))
def test_any_floats(on_host: Callable[..., Arrays], values: list[tuple[float, float]]) -> None:
    x, y = np.array(values, np.float32).T
    arrays = pairs(x, y)
    check(on_host(*arrays), *arrays)


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=200))
def test_saturating_functions_stay_in_range(on_host: Callable[..., Arrays], values: list[float]) -> None:
    arrays = pairs(np.array(values, np.float32), np.float32(1))
    got = on_host(*arrays)
    for name in ("tanhf", "erff", "sinf", "cosf"):
        assert (np.abs(got[name]) <= 1).all()


@pytest.mark.parametrize("core", CORE_TARGETS)
def test_firmware_computes_the_same_bits(on_host: Callable[..., Arrays], tmp_path: Path, core: str) -> None:
    """NaN apart, whose sign and payload C leaves open."""
    rng = np.random.default_rng(5)
    anything = rng.integers(0, 2**32, (2, 300), np.uint32).view(np.float32)
    likely = rng.normal(0, 4, (2, 500)).astype(np.float32)
    power = np.stack(powers(rng, 300))
    special = np.stack([SPECIAL, np.roll(SPECIAL, 7)])
    x, y, n = pairs(*np.concatenate([anything, likely, power, special], axis=1))

    image = tmp_path / "math.elf"
    link = ["ld.lld", "-N", "--gc-sections", "-Ttext=0x08000000", "-e", "math_rows"]
    objects = firmware_objects(core, [*LIBRARY, ROWS])
    subprocess.run([zig_binary(), *link, *objects, "-o", image], check=True)
    request = io.BytesIO()
    out = np.zeros((len(NAMES), x.size), np.float32)
    scalars = (np.array(x.size, np.int32),) * 2
    np.savez(request, **{f"a{i}": a for i, a in enumerate((x, y, n, out, *scalars))})
    done = subprocess.run(
        [sys.executable, FIXTURES / "kernel_core.py", core, "math_rows", image],
        input=request.getvalue(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    reply = np.load(io.BytesIO(done.stdout))
    expected = on_host(x, y, n)
    print(f"\n{core}: {int(reply['instructions']) / x.size:.0f} instructions for one value through all functions")
    for name, got in zip(NAMES, reply["a3"], strict=True):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected[name]), err_msg=name)
        real = ~np.isnan(got) & ((x != y) | (got != 0) | (name not in {"fmaxf", "fminf"}))
        np.testing.assert_array_equal(got.view(np.uint32)[real], expected[name].view(np.uint32)[real], err_msg=name)


def symbols(path: Path) -> tuple[set[str], set[str], dict[str, int]]:
    """Names that an object defines and needs, and its bytes by {"code", "rodata"}."""
    with open(path, "rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(".symtab")
        named = [s for s in table.iter_symbols() if s.name and s["st_info"]["bind"] != "STB_LOCAL"]
        defined = {s.name for s in named if s["st_shndx"] != "SHN_UNDEF"}
        needed = {s.name for s in named if s["st_shndx"] == "SHN_UNDEF"}
        for section in elf.iter_sections():
            target = section["sh_info"] if isinstance(section, RelocationSection) else 0
            if target and elf.get_section(target).name.startswith(".text"):
                called = (table.get_symbol(r["r_info_sym"]).name for r in section.iter_relocations())
                needed |= {name for name in called if name in defined}  # calls of itself too
        sizes = dict.fromkeys(("code", "rodata", "data"), 0)
        for section in elf.iter_sections():
            for prefix, kind in {".text": "code", ".rodata": "rodata", ".data": "data", ".bss": "data"}.items():
                if section.name.startswith(prefix):
                    sizes[kind] += section["sh_size"]
    return defined, needed, sizes


@pytest.mark.parametrize("core", CORE_TARGETS)
def test_firmware_objects_need_only_each_other(core: str) -> None:
    """No double helpers, no calls in a circle, no writable data, small tables."""
    read = {s.path.stem: symbols(o) for s, o in zip(LIBRARY, firmware_objects(core, LIBRARY), strict=True)}
    defined = {name for names, _, _ in read.values() for name in names}
    assert set(NAMES) <= defined
    print(f"\n{core}  code + tables in bytes")
    for stem, (_, _, sizes) in read.items():
        print(f"{stem:14} {sizes['code']:5} + {sizes['rodata']}")
        assert sizes["data"] == 0
        assert sizes["rodata"] <= 1024
    print(f"{'all':14} {sum(s['code'] + s['rodata'] for _, _, s in read.values()):5}")
    waiting = {name: needed for names, needed, _ in read.values() for name in names}
    assert {needed for names in waiting.values() for needed in names} <= defined
    while waiting:
        ready = {name for name, needed in waiting.items() if not needed & waiting.keys()}
        assert ready, f"calls in a circle among {sorted(waiting)}"
        waiting = {name: needed for name, needed in waiting.items() if name not in ready}


@pytest.mark.parametrize("core", CORE_TARGETS)
def test_whatever_the_compiler_makes_of_calls_is_there(core: str) -> None:
    """It may turn powf(2, x) into exp2f(x), or inline floorf on cores that have the instruction."""
    *library, calls = firmware_objects(core, [*LIBRARY, CALLS])
    needed = symbols(calls)[1]
    assert {"expf", "tanhf", "powf"} <= needed
    assert needed <= {name for path in library for name in symbols(path)[0]}
