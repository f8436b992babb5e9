# SPDX-License-Identifier: Apache-2.0
"""Runners: one way to put inputs in, run, and read outputs, whatever executes the program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from edgec.device.profile import Profile
from edgec.errors import DeviceError
from edgec.target import Target

FIRMWARE_ELF = "firmware.elf"
HOST_LIBRARY = "host.so"

RunnerKind = Literal["sim", "host-c"]


@dataclass(frozen=True)
class TensorBytes:
    """An input or output of the program: its name and size in bytes."""

    name: str
    bytes: int


class Runner(Protocol):
    """A loaded program. Use it as a context manager; `close` may be called twice."""

    @property
    def model_id(self) -> str:
        """The digest that the program carries."""

    @property
    def inputs(self) -> tuple[TensorBytes, ...]:
        """Inputs in the program's order."""

    @property
    def outputs(self) -> tuple[TensorBytes, ...]:
        """Outputs in the program's order."""

    @property
    def stack_bytes(self) -> int | None:
        """Stack of the last run as measured by painting, None where it is not measured."""

    def reset(self) -> None:
        """Put the state back to its reset values."""

    @property
    def state_bytes(self) -> int:
        """Size of the state, 0 without one."""

    def save_state(self) -> bytes:
        """The state as it is after the last run."""

    def restore_state(self, state: bytes) -> None:
        """Put back what `save_state` of the same program gave, here or elsewhere: its stream goes on."""

    def run(self, inputs: Sequence[bytes]) -> list[bytes]:
        """One inference: raw input bytes in, raw output bytes out."""

    def profile(self) -> Profile:
        """Figures of the last run."""

    def close(self) -> None:
        """Let go of the process, port or library."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_runner(
    artifact_dir: Path,
    kind: RunnerKind,
    target: Target,
    *,
    symbol: str | None = None,
    entries: int = 1,
    alignment: bool = True,
    timing: bool = False,
) -> Runner:
    """Load the program of an artifact directory.

    Args:
        artifact_dir: holds `firmware.elf` (sim) or `host.so` (host-c).
        kind: "sim" for the simulated board, "host-c" for this machine.
        target: the target that the firmware was built for.
        symbol: the run function whose calls are the operators; by default `run_symbol` of
            `manifest.json`.
        entries: how often one inference enters that function; its second argument counts them, from 0.
        alignment: sim only: trap multi-word accesses off a word boundary, as hardware does (half the speed).
        timing: sim only: count the bytes read from flash and estimate cycles; instruction counts stay the same.

    Raises:
        DeviceError: a file is missing, the simulator does not start, or the board does not answer.
    """
    if kind == "host-c":
        from edgec.device.host_runner import HostRunner

        return HostRunner(_existing(artifact_dir / HOST_LIBRARY))
    from edgec.device.sim_runner import SimRunner

    elf = _existing(artifact_dir / FIRMWARE_ELF)
    symbol = symbol or _run_symbol(artifact_dir)
    return SimRunner(elf, target, symbol, entries=entries, alignment=alignment, timing=timing)


def check_inputs(expected: Sequence[TensorBytes], inputs: Sequence[bytes]) -> None:
    """Raise DeviceError unless `inputs` are as many and as long as the program's."""
    if len(inputs) != len(expected):
        raise DeviceError("wrong number of inputs", need=str(len(expected)), have=str(len(inputs)))
    for tensor, data in zip(expected, inputs, strict=True):
        if len(data) != tensor.bytes:
            raise DeviceError(
                f"input {tensor.name} has the wrong size", need=f"{tensor.bytes} B", have=f"{len(data)} B"
            )


def check_state(expected: int, state: bytes) -> None:
    """Raise DeviceError unless `state` has the size of the program's."""
    if len(state) != expected:
        raise DeviceError("a state of the wrong size", need=f"{expected} B", have=f"{len(state)} B")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DeviceError(f"{path} does not exist", hint="edgec compile makes it")
    return path


def _run_symbol(artifact_dir: Path) -> str:
    try:
        symbol = json.loads((artifact_dir / "manifest.json").read_text())["run_symbol"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DeviceError(f"{artifact_dir / 'manifest.json'} does not name the run function") from None
    return str(symbol)
