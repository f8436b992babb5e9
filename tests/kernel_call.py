# SPDX-License-Identifier: Apache-2.0
"""One call of a hand-written kernel: compiled alone, run on this machine and on a simulated core."""

from __future__ import annotations

import ctypes
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgec.device.stack import static_stack_bound
from edgec.device.toolchain import Source, build_host_library, compile_objects, cpu_flags, zig_binary
from edgec.kernels import Call, HandKernel
from edgec.operators import Case, TensorType, get_operator
from edgec.resources import runtime_dir
from edgec.target import load_target

INCLUDES = [runtime_dir() / "include"]
CORE_TARGETS = {"cortex-m7": "stm32f746", "cortex-m4": "stm32f407"}
SIMULATOR = Path(__file__).parent / "fixtures" / "kernel_core.py"
GUARD = 0x5A
GUARD_BYTES = 16


def call_of(kernel: HandKernel, case: Case) -> Call:
    operator = get_operator(kernel.op)
    named = dict(zip(operator.inputs, case.inputs, strict=True))
    types = {name: TensorType.of(value) for name, value in named.items()}
    return Call(types, {name: named[name] for name in operator.constants}, case.attrs)


def wanted(kernel: HandKernel, case: Case) -> np.ndarray:
    return get_operator(kernel.op).run(case.inputs, case.attrs)


def c_arguments(kernel: HandKernel, case: Case) -> tuple[list[np.ndarray], int]:
    """The C call's arguments as arrays (0-d: a number), and which is y."""
    call = call_of(kernel, case)
    operator = get_operator(kernel.op)
    buffers = {packed.name: packed.values for packed in kernel.pack(call)}
    buffers |= {
        n: np.ascontiguousarray(a) for n, a in zip(operator.inputs, case.inputs, strict=True) if n not in buffers
    }
    result = operator.infer(case.types, **case.attrs)
    buffers["y"] = np.full(result.shape, GUARD, result.dtype)
    buffers["scratch"] = np.full(-(-kernel.scratch_bytes(call) // 4), 0x5A5A5A5A, np.uint32)
    numbers = {"first_row": 0, "rows": buffers["y"].shape[0]}
    names = kernel.arguments(call)
    values = [numbers.get(a, a) if isinstance(a, str) else a for a in names]
    return [buffers[a] if isinstance(a, str) else np.array(a, np.int32) for a in values], names.index("y")


def sources(kernel: HandKernel) -> list[Source]:
    return [Source(runtime_dir() / "kernels" / name, "kernels") for name in kernel.sources]


Runner = Callable[..., np.ndarray]


def host_runner(kernel: HandKernel, folder: Path) -> Runner:
    """Runs a case with the portable C; x and scratch end where guards begin, x `x_offset` elements late."""
    function = getattr(ctypes.CDLL(str(build_host_library(sources(kernel), INCLUDES, folder))), kernel.function)
    function.restype = None

    def run(case: Case, x_offset: int = 0, edit: Callable[[list[np.ndarray]], None] | None = None) -> np.ndarray:
        arrays, y = c_arguments(kernel, case)
        if edit is not None:
            edit(arrays)
        guarded = {}
        arguments: list[object] = []
        for i, a in enumerate(arrays):
            if a.ndim == 0:
                arguments.append(ctypes.c_int32(int(a)))
                continue
            late = x_offset * a.itemsize if i == 0 else 0
            held = np.full(a.nbytes + 2 * GUARD_BYTES + late, GUARD, np.uint8)
            held[GUARD_BYTES + late : GUARD_BYTES + late + a.nbytes] = np.frombuffer(a.tobytes(), np.uint8)
            guarded[i] = held, late
            arguments.append(ctypes.c_void_p(held.ctypes.data + GUARD_BYTES + late))
        function(*arguments)
        for i, (held, late) in guarded.items():
            assert (held[: GUARD_BYTES + late] == GUARD).all(), f"argument {i} is written before its beginning"
            assert (held[len(held) - GUARD_BYTES :] == GUARD).all(), f"argument {i} is written beyond its end"
        held, late = guarded[y]
        return held[GUARD_BYTES + late : -GUARD_BYTES].view(arrays[y].dtype).reshape(arrays[y].shape)

    return run


def core_image(kernel: HandKernel, core: str, folder: Path) -> Path:
    """The kernel alone, linked for a core."""
    includes = ("-isystem", str(zig_binary().parent / "lib/include"))
    flags = (*cpu_flags(load_target(CORE_TARGETS[core]).cpu), "-O3", "-ffreestanding", "-ffunction-sections")
    flags += ("-std=gnu11", "-nostdlibinc", "-fstack-size-section", "-fno-jump-tables", *includes)
    objects = compile_objects(sources(kernel), INCLUDES, flags)
    link = ["ld.lld", "-N", "--gc-sections", "-Ttext=0x08000000", "-e", kernel.function]
    subprocess.run([zig_binary(), *link, *objects, "-o", folder / f"{kernel.name}.{core}.elf"], check=True)
    return folder / f"{kernel.name}.{core}.elf"


def on_core(kernel: HandKernel, core: str, image: Path, case: Case) -> tuple[np.ndarray, int]:
    """y and instructions of one call on a simulated core."""
    arrays, y = c_arguments(kernel, case)
    request = io.BytesIO()
    np.savez(request, **{f"a{i}": a for i, a in enumerate(arrays)})
    command = [sys.executable, SIMULATOR, core, kernel.function, image]
    done = subprocess.run(command, input=request.getvalue(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    reply = np.load(io.BytesIO(done.stdout))
    return reply[f"a{y}"], int(reply["instructions"])


def stack_bound(kernel: HandKernel, image: Path) -> int:
    """Bytes of stack below a call, as the compiler and the assembly state them."""
    return static_stack_bound(image, kernel.function).bytes
