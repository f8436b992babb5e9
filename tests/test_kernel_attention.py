# SPDX-License-Identifier: Apache-2.0
"""Products of two activations, softmax and attention by hand: the operators' bits on every core, and what they cost."""

from __future__ import annotations

import ctypes
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attention_edges
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_program import Batch

from edgec.device.toolchain import Source, build_host_library, compile_objects, cpu_flags, zig_binary
from edgec.kernels import Call, kernels_for
from edgec.kernels.select import PREPARE, select_kernels
from edgec.operators import Case, TensorType, get_operator
from edgec.operators.softmax import exponentials
from edgec.resources import runtime_dir
from edgec.target import load_target

KERNELS = {
    op: next(k for k in kernels_for(op, {"dsp"}) if k.name == f"{op}_dsp")
    for op in ("matmul_s8", "softmax_s8", "masked_softmax_s8", "attention_s8")
}
SOURCES = sorted({name for kernel in KERNELS.values() for name in kernel.sources})
PACKERS = ("edgec_pack_pairs_rows_s8", "edgec_pack_pairs_columns_s8")
INCLUDES = [runtime_dir() / "include"]
CORE_TARGETS = {"cortex-m7": "stm32f746", "cortex-m4": "stm32f407"}
SIMULATOR = Path(__file__).parent / "fixtures" / "kernel_core.py"
GUARD = 0x5A
Caller = Callable[[str, list[np.ndarray]], tuple[list[np.ndarray], int]]
"""Calls a C function with arrays (0-d: numbers): the arrays as it left them, and instructions (0 on the host)."""


def call_of(op: str, case: Case) -> Call:
    record = get_operator(op)
    named = dict(zip(record.inputs, case.inputs, strict=True))
    types = {name: TensorType.of(value) for name, value in named.items()}
    return Call(types, {name: named[name] for name in record.constants}, case.attrs)


def run_kernel(op: str, case: Case, caller: Caller, in_place: bool = False) -> tuple[np.ndarray, int]:
    """y and instructions of one call of the hand-written kernel, its preparing steps included."""
    kernel, call, total = KERNELS[op], call_of(op, case), 0
    assert kernel.accepts(call) is None
    values = dict(zip(get_operator(op).inputs, case.inputs, strict=True))
    buffers = {**values, **{packed.name: packed.values for packed in kernel.pack(call)}}
    for prepared in kernel.prepare(call):
        given = {prepared.role: values[prepared.role], "scratch": np.full(prepared.scratch, GUARD, np.int8)}
        given["y"] = np.full(prepared.bytes // 4, -1, np.int32)
        buffers[prepared.role], instructions = call_with(caller, prepared.function, prepared.arguments, given)
        total += instructions
    kind = get_operator(op).infer(case.types, **case.attrs)
    buffers["y"] = np.full(kind.shape, GUARD, np.int8)
    buffers["scratch"] = np.full(kernel.scratch_bytes(call), GUARD, np.int8)
    y, instructions = call_with(caller, kernel.function, kernel.arguments(call), buffers)
    return y, total + instructions


def call_with(
    caller: Caller, function: str, names: tuple[str | int, ...], buffers: dict[str, np.ndarray]
) -> tuple[np.ndarray, int]:
    arrays = [np.asarray(buffers[a]) if isinstance(a, str) else np.array(a, np.int32) for a in names]
    after, instructions = caller(function, arrays)
    return after[names.index("y")], instructions


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The portable C, compiled for this machine."""
    sources = [Source(runtime_dir() / "kernels" / name, "kernels") for name in SOURCES]
    return ctypes.CDLL(str(build_host_library(sources, INCLUDES, tmp_path_factory.mktemp("host"))))


@pytest.fixture(scope="session")
def host(library: ctypes.CDLL) -> Caller:
    def call(function: str, arrays: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
        guarded = [None if a.ndim == 0 else guard(a) for a in arrays]
        pointers = [
            ctypes.c_int32(int(a)) if g is None else ctypes.c_void_p(g.ctypes.data + 64)
            for a, g in zip(arrays, guarded, strict=True)
        ]
        getattr(library, function).restype = None
        getattr(library, function)(*pointers)
        for a, g in zip(arrays, guarded, strict=True):
            if g is not None:
                assert (g[:64] == GUARD).all()
                assert (g[64 + a.nbytes :] == GUARD).all()
        return [
            a if g is None else g[64 : 64 + a.nbytes].view(a.dtype).reshape(a.shape)
            for a, g in zip(arrays, guarded, strict=True)
        ], 0

    return call


def guard(array: np.ndarray) -> np.ndarray:
    border = np.full(64, GUARD, np.uint8)
    return np.concatenate([border, np.ascontiguousarray(array).reshape(-1).view(np.uint8), border])


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Every function of the kernels alone, linked for each core."""
    made = {}
    includes = ("-isystem", str(zig_binary().parent / "lib/include"))
    sources = [Source(runtime_dir() / "kernels" / name, "kernels") for name in SOURCES]
    for core, target in CORE_TARGETS.items():
        flags = (*cpu_flags(load_target(target).cpu), "-O3", "-ffreestanding", "-ffunction-sections")
        flags += ("-std=gnu11", "-nostdlibinc", "-fstack-size-section", "-fno-jump-tables", *includes)
        objects = compile_objects(sources, INCLUDES, flags)
        for function in (*PACKERS, *(k.function for k in KERNELS.values())):
            made[core, function] = tmp_path_factory.mktemp(core) / f"{function}.elf"
            link = ["ld.lld", "-N", "--gc-sections", "-Ttext=0x08000000", "-e", function]
            subprocess.run([zig_binary(), *link, *objects, "-o", made[core, function]], check=True)
    return made


@pytest.fixture(params=CORE_TARGETS)
def core(request: pytest.FixtureRequest, images: dict[tuple[str, str], Path]) -> Caller:
    """A simulated core; arrays end where memory ends, and word accesses are checked."""

    def call(function: str, arrays: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
        data = io.BytesIO()
        named: dict[str, Any] = {f"a{i}": a for i, a in enumerate(arrays)}
        np.savez(data, **named)
        command = [sys.executable, SIMULATOR, request.param, function, images[request.param, function]]
        done = subprocess.run(command, input=data.getvalue(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        reply = np.load(io.BytesIO(done.stdout))
        after = [a if a.ndim == 0 else reply[f"a{i}"] for i, a in enumerate(arrays)]
        return after, int(reply["instructions"])

    return call


def check(op: str, case: Case, caller: Caller) -> None:
    y, _ = run_kernel(op, case, caller)
    np.testing.assert_array_equal(y, get_operator(op).run(case.inputs, case.attrs))


def accepted(op: str, seed: int) -> Case:
    """A case of the operator's own samples that its kernel takes."""
    samples = get_operator(op).samples(np.random.default_rng(seed))
    return next(case for case in samples if KERNELS[op].accepts(call_of(op, case)) is None)


@pytest.mark.parametrize("op", KERNELS)
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_portable_kernels_equal_the_operator(host: Caller, op: str, seed: int) -> None:
    check(op, accepted(op, seed), host)


@pytest.mark.parametrize("op", KERNELS)
@pytest.mark.parametrize("seed", range(3))
def test_cores_equal_the_operator(core: Caller, op: str, seed: int) -> None:
    check(op, accepted(op, seed), core)


@pytest.mark.parametrize("case", attention_edges.attention_edges()[:-1], ids=str)
def test_edges_of_attention_on_the_core(core: Caller, case: Case) -> None:
    check("attention_s8", case, core)


@pytest.mark.parametrize("case", attention_edges.matmul_edges()[3::4], ids=str)
def test_edges_of_products_on_the_core(core: Caller, case: Case) -> None:
    check("matmul_s8", case, core)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize(("zero_point", "last"), [(-128, 257), (127, 257), (0, 511), (1, 508)])
def test_the_bound_on_k_is_sharp(host: Caller, zero_point: int, last: int, transposed: int) -> None:
    """The last K is exact at both ends of the sums; the next one is declined."""
    reach = 127 if zero_point < 0 else -128
    for right in (-128, 127):
        b = np.full((1, 4, last), right, np.int8)
        a = np.full((1, 2, last), reach, np.int8)
        a[0, 1] = 127 if reach < 0 else -128
        # Results in the middle of the range: one step is 2^23 / 64.
        params = np.array([zero_point, 0, 2**14, 0, 0], np.int32)
        b = b if transposed else np.ascontiguousarray(b.transpose(0, 2, 1))
        check("matmul_s8", Case((a, b, params), {"wide": 0, "transpose_b": transposed}), host)
    longer = np.zeros((1, 1, last + 1), np.int8)
    call = call_of("matmul_s8", Case((longer, longer, params), {"wide": 0, "transpose_b": 1}))
    assert "could leave 24 bits" in str(KERNELS["matmul_s8"].accepts(call))


@pytest.mark.parametrize("case", attention_edges.MATMUL_DECLINED, ids=str)
def test_declines_with_a_reason(case: Case) -> None:
    assert KERNELS["matmul_s8"].accepts(call_of("matmul_s8", case)) is not None


def test_attention_declines_with_a_reason() -> None:
    case = attention_edges.attention_edges()[0]
    q, k, v, score, table, mix = case.inputs
    kernel = KERNELS["attention_s8"]

    def reason(score: np.ndarray = score, table: np.ndarray = table, mix: np.ndarray = mix) -> str:
        return str(kernel.accepts(call_of("attention_s8", Case((q, k, v, score, table, mix)))))

    assert "zero point -127" in reason(mix=mix + np.array([1, 0, 0, 0, 0], np.int32))
    assert reason(score=score + np.array([0, 1, 0, 0, 0], np.int32)).startswith("score_params")
    assert "exponential" in reason(table=table // np.uint16(2))
    assert "score_params" in str(kernel.accepts(call_of("attention_s8", attention_edges.attention_edges()[-1])))


@settings(deadline=None, max_examples=80)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(1, 9)),
    rows=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_packing_in_place_gives_the_same_bytes(
    library: ctypes.CDLL, sizes: tuple[int, int, int, int], rows: bool, seed: int
) -> None:
    """Where a kernel says that packed bytes may take the place of the operand."""
    from edgec.kernels.attention import pack_columns, pack_rows

    batches, first, heads, last = sizes
    prepared = (pack_rows if rows else pack_columns)("b", batches, first, heads, last)
    b = np.random.default_rng(seed).integers(-128, 128, (batches, first, heads, last)).astype(np.int8)
    packed = np.zeros(prepared.bytes // 4, np.uint32)
    numbers = [ctypes.c_int32(n) for n in sizes]
    function = getattr(library, prepared.function)
    function.restype = None
    scratch = np.zeros(prepared.scratch, np.int8)
    function(b.ctypes.data_as(ctypes.c_void_p), *numbers, packed.ctypes.data_as(ctypes.c_void_p),
             scratch.ctypes.data_as(ctypes.c_void_p))  # fmt: skip
    if not prepared.in_place:
        return
    place = np.zeros(max(prepared.bytes, b.nbytes) // 4 + 1, np.uint32)
    place.view(np.int8)[: b.size] = b.ravel()
    at = place.ctypes.data_as(ctypes.c_void_p)
    function(at, *numbers, at, scratch.ctypes.data_as(ctypes.c_void_p))
    np.testing.assert_array_equal(place[: packed.size], packed)


@pytest.mark.parametrize("rows", [1, 3, 4, 6])
def test_attention_takes_any_block_of_rows(host: Caller, rows: int) -> None:
    """With the same prepared keys and values a block of queries gives the block of results."""
    case = attention_edges.attention(11, 9, 2, 5, 3)
    whole = get_operator("attention_s8").run(case.inputs, {})
    for first in range(0, 11, rows):
        part = Case((case.inputs[0][first : first + rows], *case.inputs[1:]))
        y, _ = run_kernel("attention_s8", part, host)
        np.testing.assert_array_equal(y, whole[first : first + rows])


def test_factor_is_exact_for_sums_of_every_size(host: Caller) -> None:
    """Rows whose sums are about 65535, beside it, around 2^24 (where the division changes) and near 2^31."""
    tables = [exponentials(1e-7), exponentials(3.0), exponentials(0.03)]
    near = np.array([65535, *(128 - np.arange(130)).clip(0), *np.zeros(125)], np.uint16)
    for table in (*tables, near):
        for n in (1, 2, 5, 130, 255, 256, 257, 258, 1000, 32767):
            ramp = np.resize(np.arange(127, -129, -1), n).astype(np.int8)
            x = np.stack([ramp, np.full(n, 5, np.int8)])
            check("softmax_s8", Case((x, table)), host)
    for other in range(256):  # one exponential of 65535 and one of 0 to 255: on both sides of the largest factor
        table = np.array([65535, *[other] * 255], np.uint16)
        check("softmax_s8", Case((np.array([[1, 0], [0, 127]], np.int8), table)), host)


# Instructions per MAC or element, everything included. A change that needs more must say why.
def product_case(b: int, m: int, k: int, n: int, za: int, transposed: int) -> Case:
    rng = np.random.default_rng(k)
    a = rng.integers(-128, 128, (b, m, k)).astype(np.int8)
    right = rng.integers(-128, 128, (b, n, k) if transposed else (b, k, n)).astype(np.int8)
    params = np.array([za, 0, 2**22, 0, 3], np.int32)
    return Case((a, right, params), {"wide": 0, "transpose_b": transposed})


def softmax_case(rows: int, n: int) -> Case:
    x = np.random.default_rng(n).integers(-128, 128, (rows, n)).astype(np.int8)
    return Case((x, exponentials(0.02)))


def masked_case(n: int) -> Case:
    """A causal mask."""
    x, table = softmax_case(n, n).inputs
    return Case((x, np.tril(np.ones((n, n), np.int8)), table))


CEILINGS = [
    ("matmul_s8", product_case(1, 49, 64, 49, 0, 1), 49 * 64 * 49, 1.1),
    ("matmul_s8", product_case(1, 49, 49, 64, -128, 0), 49 * 49 * 64, 1.215),
    ("softmax_s8", softmax_case(49, 49), 49 * 49, 11.55),
    ("softmax_s8", softmax_case(64, 64), 64 * 64, 10.95),
    ("masked_softmax_s8", masked_case(49), 49 * 49, 20.1),
    ("attention_s8", attention_edges.attention(64, 64, 3, 32, 32), 64 * 3 * 64 * 64, 1.25),
]


@pytest.mark.parametrize(("op", "case", "work", "ceiling"), CEILINGS, ids=[f"{c[0]} {c[2]}" for c in CEILINGS])
def test_instructions(core: Caller, op: str, case: Case, work: int, ceiling: float) -> None:
    y, instructions = run_kernel(op, case, core)
    np.testing.assert_array_equal(y, get_operator(op).run(case.inputs, case.attrs))
    print(f"{op} {[t.shape for t in case.types[:3]]}: {instructions} instructions, {instructions / work:.4f} each")
    assert instructions <= ceiling * work


def test_packing_is_a_step_of_its_own_before_the_call() -> None:
    case = attention_edges.attention(5, 7, 2, 4, 4)
    batch = Batch([(get_operator("attention_s8"), case)])
    program = batch.program
    implementations = select_kernels(program, {"dsp"}, "auto")
    assert [c.op for c in program.calls] == [PREPARE, PREPARE, "attention_s8"]
    *packers, call = program.calls
    assert [c.inputs for c in packers] == [("0.k",), ("0.v",)]
    assert call.inputs[:3] == ("0.q", packers[0].outputs[0], packers[1].outputs[0])
    assert [program.tensors[c.outputs[0]].type.bytes for c in packers] == [8 * 2 * 4, 8 * 2 * 4]
    assert all(i.in_place for i in implementations[:2])
    reads = implementations[2].arguments[:3]
    assert reads == call.inputs[:3]
    with pytest.raises(ValueError, match="already"):
        select_kernels(program, {"dsp"}, "auto")


def test_nothing_is_packed_for_generated_kernels() -> None:
    program = Batch([(get_operator("attention_s8"), attention_edges.attention(5, 7, 2, 4, 4))]).program
    (implementation,) = select_kernels(program, {"dsp"}, "tvm")
    assert implementation.kind == "tvm"
    assert program.calls[0].inputs[:3] == ("0.q", "0.k", "0.v")
