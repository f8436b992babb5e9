# SPDX-License-Identifier: Apache-2.0
"""The program on a simulated board: its process, and the bench protocol over its pseudo-terminal."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgec.device.profile import Cost, FlashTraffic, OperatorCount, Profile
from edgec.device.serial_program import SerialProgram
from edgec.device.transport import Transport
from edgec.errors import DeviceError
from edgec.target import Target

_IMPORT_FROM = str(Path(__file__).resolve().parents[2])
_START_S = 60.0  # the first start builds the native hook


class SimRunner:
    """Starts `edgec.device.board_sim` on an ELF file.

    `alignment` traps multi-word accesses off a word boundary, as hardware does; the engine alone does not, and the
    check costs about half of its speed. `timing` adds flash traffic and the cycle estimate to profiles.

    Raises:
        DeviceError: it does not start, or the firmware faults; the message names access, address and C
        symbol.
    """

    def __init__(
        self,
        elf: Path,
        target: Target,
        symbol: str,
        *,
        entries: int = 1,
        alignment: bool = True,
        timing: bool = False,
    ) -> None:
        if target.console is None:
            raise DeviceError(f"{target.name} is not a board", hint="the runner host-c")
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._fault: str | None = None
        self._transport: Transport | None = None
        name = str(target.path)
        command = [sys.executable, "-m", "edgec.device.board_sim", "--elf", str(elf), "--target", name]
        command += ["--symbol", symbol, "--entries", str(entries)]
        self._process = subprocess.Popen(
            [*command, *(("--alignment",) if alignment else ()), *(("--timing",) if timing else ())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, (_IMPORT_FROM, os.environ.get("PYTHONPATH")))),
            },
            start_new_session=True,  # Ctrl-C reaches the tool, which ends the simulator
        )
        self._errors = bytearray()
        self._readers = [threading.Thread(target=f, daemon=True) for f in (self._read_output, self._read_errors)]
        for reader in self._readers:
            reader.start()
        try:
            port = self._message("port", _START_S)
            self._transport = Transport(port, target.console.baud, alive=self._check_alive)
            self._program = SerialProgram(self._transport)
        except BaseException:
            self.close()
            raise
        self.model_id = self._program.model_id
        self.inputs, self.outputs = self._program.inputs, self._program.outputs

    @property
    def stack_bytes(self) -> int | None:
        """Stack of the last run: from the run function's entry down to the deepest word that lost its
        paint.
        """
        return self._stack_bytes(self._counts())

    def reset(self) -> None:
        """Put the state back to its reset values."""
        self._program.reset()

    @property
    def state_bytes(self) -> int:
        """Size of the state, 0 without one."""
        return int(self._program.state_bytes)

    def save_state(self) -> bytes:
        """The state as it is after the last run."""
        return self._program.save_state()

    def restore_state(self, state: bytes) -> None:
        """Put back what `save_state` gave."""
        self._program.restore_state(state)

    def run(self, inputs: Sequence[bytes]) -> list[bytes]:
        """One inference."""
        return self._program.run(inputs)

    def profile(self) -> Profile:
        """Exact instruction counts of the last run."""
        counts = self._counts()
        operators = tuple(
            OperatorCount(o["index"], o["symbol"], o["instructions"], _cost(o["cost"])) for o in counts["operators"]
        )
        return Profile(
            "simulator",
            counts["runs"],
            instructions=counts["instructions"],
            overhead=counts["overhead"],
            operators=operators,
            stack_bytes=self._stack_bytes(counts),
            overhead_cost=_cost(counts["overhead_cost"]),
        )

    def _counts(self) -> Any:
        self._send({"cmd": "profile"})
        return self._message("profile", 10.0)

    def _stack_bytes(self, counts: Any) -> int | None:
        deepest, fed = self._program.deepest, self._program.fed_deepest
        if deepest is None:
            return None
        return max(0, int(counts["entry_sp"]) - deepest, int(counts["first_sp"]) - fed if fed is not None else 0)

    def close(self) -> None:
        """End the process, politely first."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for reader in self._readers:
            reader.join(2.0)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            if not stream.closed:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors += line.encode()

    def _send(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            self._check_alive()
            raise DeviceError("the simulator has ended") from None

    def _message(self, key: str, timeout: float) -> Any:
        """The next message with that key."""
        while True:
            try:
                message = self._lines.get(timeout=timeout)
            except queue.Empty:
                raise DeviceError(f"the simulator did not answer within {timeout:g} s") from None
            self._judge(message)
            if message is not None and key in message:
                return message[key]

    def _check_alive(self) -> None:
        """Raise what the simulator said last, if it has ended or faulted."""
        wait = 0.0 if self._process.poll() is None else 2.0
        while True:
            try:
                self._judge(self._lines.get(timeout=wait) if wait else self._lines.get_nowait())
            except queue.Empty:
                return

    def _judge(self, message: dict[str, Any] | None) -> None:
        if self._fault is not None:
            raise DeviceError(self._fault)
        if message is None:
            self._process.wait(2.0)
            self._fault = f"the simulator ended unexpectedly (exit code {self._process.returncode})"
            last = self._errors.decode(errors="replace").strip().splitlines()[-1:]
            raise DeviceError(self._fault, have=last[0] if last else None)
        if "fault" in message:
            self._fault = f"fault on the simulated board: {message['fault']['text']}"
            raise DeviceError(self._fault)
        if "error" in message:
            raise DeviceError(
                message["error"],
                need=message.get("need"),
                have=message.get("have"),
                hint=message.get("hints"),
            )


def _cost(counted: dict[str, Any] | None) -> Cost | None:
    if counted is None:
        return None
    flash = tuple(FlashTraffic(name, read, fetched) for name, (read, fetched) in counted["flash"].items())
    return Cost(counted["issue"], counted["branch"], counted["memory"], flash)
