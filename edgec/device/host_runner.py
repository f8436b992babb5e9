# SPDX-License-Identifier: Apache-2.0
"""The program as a shared library in this process."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from edgec.device.profile import Profile
from edgec.device.runner import TensorBytes, check_inputs, check_state
from edgec.errors import DeviceError


class _Tensor(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("bytes", ctypes.c_uint32))


class _Program(ctypes.Structure):  # edgec_bench_program in runtime/port/edgec_bench.h
    _fields_ = (
        ("model_id", ctypes.c_char_p),
        ("input_count", ctypes.c_uint32),
        ("output_count", ctypes.c_uint32),
        ("inputs", ctypes.POINTER(_Tensor)),
        ("outputs", ctypes.POINTER(_Tensor)),
        ("init", ctypes.CFUNCTYPE(ctypes.c_int)),
        ("reset", ctypes.CFUNCTYPE(None)),
        ("run", ctypes.CFUNCTYPE(ctypes.c_int)),
        ("input", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)),
        ("output", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)),
        ("feed", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint32)),
        ("state", ctypes.c_void_p),
        ("state_bytes", ctypes.c_uint32),
    )


class HostRunner:
    """Runs `host.so`. Each runner loads its own copy, so that two runners are two independent streams."""

    def __init__(self, library: Path) -> None:
        # The dynamic linker hands out one instance per file, static state included; hence the copy.
        with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
            copy = shutil.copy(library, folder)
            try:
                self._library: ctypes.CDLL | None = ctypes.CDLL(copy)
            except OSError as error:
                raise DeviceError(f"cannot load {library}: {error}") from None
        try:
            self._program = _Program.in_dll(self._library, "edgec_bench")
        except ValueError:
            self.close()
            raise DeviceError(f"{library} is not a bench library", need="the symbol edgec_bench") from None
        program = self._program
        self.model_id = program.model_id.decode()
        self.inputs = _tensors(program.inputs, program.input_count)
        self.outputs = _tensors(program.outputs, program.output_count)
        self.state_bytes = int(program.state_bytes)
        self.stack_bytes: int | None = None
        self._runs, self._seconds = 0, 0.0
        status = program.init()
        if status:
            self.close()
            raise DeviceError(f"the model's init failed with status {status}")

    def reset(self) -> None:
        """Put the state back to its reset values."""
        self._program.reset()

    def save_state(self) -> bytes:
        """The state as it is after the last run."""
        return ctypes.string_at(self._program.state, self.state_bytes) if self.state_bytes else b""

    def restore_state(self, state: bytes) -> None:
        """Put back what `save_state` gave."""
        check_state(self.state_bytes, state)
        if state:
            ctypes.memmove(self._program.state, state, len(state))

    def run(self, inputs: Sequence[bytes]) -> list[bytes]:
        """One inference."""
        check_inputs(self.inputs, inputs)
        start = time.perf_counter()
        for i, data in enumerate(inputs):
            place = self._program.input(i)
            if place is not None:
                ctypes.memmove(place, data, len(data))
                start = time.perf_counter()
            elif self._program.feed(i, 0, data, len(data)):
                raise DeviceError(f"the model does not take its input {self.inputs[i].name} by rows")
        status = self._program.run()
        self._seconds = time.perf_counter() - start
        self._runs += 1
        if status:
            raise DeviceError(f"the model's run failed with status {status}")
        return [ctypes.string_at(self._program.output(i), tensor.bytes) for i, tensor in enumerate(self.outputs)]

    def profile(self) -> Profile:
        """Wall time of the last run; nothing else is measured here."""
        return Profile("host", self._runs, seconds=self._seconds)

    def close(self) -> None:
        """Unload the library."""
        if self._library is not None:
            handle, self._library = self._library._handle, None
            with contextlib.suppress(OSError):
                _ctypes.dlclose(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tensors(array: ctypes._Pointer[_Tensor], count: int) -> tuple[TensorBytes, ...]:
    return tuple(TensorBytes(array[i].name.decode(), array[i].bytes) for i in range(count))
