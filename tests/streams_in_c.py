# SPDX-License-Identifier: Apache-2.0
"""A C program with two streams of a compiled model, and what a stream gives by itself; raw bytes in and out."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from edgec.artifact import Artifact
from edgec.build import host_sources, includes
from edgec.device.toolchain import Source, build_host_library
from edgec.run import open_artifact

DRIVER = """
#include <string.h>
#include "@p@.h"

static _Alignas(@P@_ALIGNMENT) unsigned char arena[@P@_ARENA_BYTES], state[2][(@P@_STATE_BYTES + 15) / 16 * 16];
static @p@_model model[2];

int driver_init(void);
int driver_step(int stream, const void *const *x, void *const *y);
void driver_save(int stream, void *to);
void driver_restore(int stream, const void *from);
void driver_reset(int stream);

int driver_init(void) {
    memset(state, 0x55, sizeof state);
    return (int)@p@_init(&model[0], arena, sizeof arena, state[0], @P@_STATE_BYTES)
        | (int)@p@_init(&model[1], arena, sizeof arena, state[1], @P@_STATE_BYTES);
}

int driver_step(int stream, const void *const *x, void *const *y) {
    memset(arena, 0x55, sizeof arena);
@copies@
    return status;
}

void driver_save(int stream, void *to) { @p@_save(&model[stream], to); }
void driver_restore(int stream, const void *from) { @p@_restore(&model[stream], from); }
void driver_reset(int stream) { @p@_reset(&model[stream]); }
"""


class Streams:
    """Two uses of one model in one library, with a state each and one arena between them.

    For artifacts with one arena whose ports have names that C can bear.
    """

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        p = artifact.manifest["prefix"]
        copies = [
            f"    memcpy({p}_{port.name}(&model[stream]), x[{i}], {p.upper()}_{port.name.upper()}_BYTES);"
            for i, port in enumerate(artifact.inputs)
        ]
        copies.append(f"    const int status = (int){p}_run(&model[stream]);")
        copies += [
            f"    memcpy(y[{i}], {p}_{port.name}(&model[stream]), {p.upper()}_{port.name.upper()}_BYTES);"
            for i, port in enumerate(artifact.outputs)
        ]
        text = DRIVER.replace("@copies@", "\n".join(copies)).replace("@p@", p).replace("@P@", p.upper())
        (folder / "driver.c").write_text(text)
        own = [s for s in host_sources(artifact.path, p) if s.group != "bench"]
        sources = [Source(folder / "driver.c", "bench"), *own]
        self._library = ctypes.CDLL(str(build_host_library(sources, includes(artifact.path), folder)))
        self._state_bytes = artifact.manifest["ram"]["state_bytes"]
        self._sizes = [int(np.prod(port.shape, dtype=int)) * np.dtype(port.dtype).itemsize for port in artifact.outputs]
        for name in ("driver_save", "driver_restore", "driver_reset"):
            getattr(self._library, name).restype = None
        assert self._library.driver_init() == 0

    def step(self, stream: int, inputs: list[bytes]) -> bytes:
        """One step; the outputs one behind the other."""
        results = [ctypes.create_string_buffer(size) for size in self._sizes]
        x = (ctypes.c_char_p * len(inputs))(*inputs)
        y = (ctypes.c_void_p * len(results))(*map(ctypes.addressof, results))
        assert self._library.driver_step(stream, x, y) == 0
        return b"".join(r.raw for r in results)

    def save(self, stream: int) -> bytes:
        """What `<model>_save` copies."""
        buffer = ctypes.create_string_buffer(self._state_bytes)
        self._library.driver_save(stream, buffer)
        return buffer.raw

    def restore(self, stream: int, state: bytes) -> None:
        """`<model>_restore`."""
        self._library.driver_restore(stream, ctypes.c_char_p(state))

    def reset(self, stream: int) -> None:
        """`<model>_reset`."""
        self._library.driver_reset(stream)


def inputs_of(artifact: Artifact, seed: int, steps: int) -> list[list[bytes]]:
    """Random inputs of every step in the device's own types: any integer, or normal numbers."""
    rng = np.random.default_rng(seed)

    def one(dtype: str, size: int) -> bytes:
        if np.issubdtype(np.dtype(dtype), np.floating):
            return rng.standard_normal(size).astype(dtype).tobytes()
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max + 1, size).astype(dtype).tobytes()

    return [[one(p.dtype, int(np.prod(p.shape, dtype=int))) for p in artifact.inputs] for _ in range(steps)]


def alone(artifact: Artifact, inputs: list[list[bytes]]) -> tuple[list[bytes], list[bytes]]:
    """An undisturbed stream on this machine: the outputs of every step, one behind the other; the states after it."""
    with open_artifact(artifact, "host-c") as device:
        device.reset()
        outputs = [b"".join(device.run(x)) for x in inputs]
        return outputs, states_in(artifact, device.save_state())


def states_in(artifact: Artifact, state: bytes) -> list[bytes]:
    """The states in a saved state, without the bytes between them, which mean nothing."""
    states = artifact.manifest["states"]
    ends = [s["offset"] + int(np.prod(s["shape"], dtype=int)) * np.dtype(s["dtype"]).itemsize for s in states]
    return [state[s["offset"] : end] for s, end in zip(states, ends, strict=True)]
