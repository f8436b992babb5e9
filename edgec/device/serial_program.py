# SPDX-License-Identifier: Apache-2.0
"""The program on a board, real or simulated, as the bench protocol shows it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from edgec.device import transport
from edgec.device.runner import TensorBytes, check_inputs, check_state
from edgec.device.transport import Transport
from edgec.errors import DeviceError


@dataclass(frozen=True)
class _Result:
    """What the board says of a run, or of the feeding of some bytes."""

    stack_bytes: int
    cycles: int
    deepest: int

    @staticmethod
    def of(answer: bytes, failure: str) -> _Result:
        status, *figures = struct.unpack("<iIII", answer)
        if status:
            raise DeviceError(f"the model's {failure}: status {status}")
        return _Result(*figures)


class SerialProgram:
    """Hello, reset, inputs, run, outputs and state over a Transport."""

    def __init__(self, line: Transport) -> None:
        self._line = line
        answer = line.request(transport.HELLO)
        version, self._payload = struct.unpack_from("<2I", answer)
        if version != transport.PROTOCOL_VERSION:
            raise DeviceError(
                "the firmware speaks another protocol",
                need=f"version {transport.PROTOCOL_VERSION}",
                have=f"version {version}",
                hint="compile and flash again",
            )
        inputs, outputs, self.state_bytes = struct.unpack_from("<3I", answer, 8)
        self.model_id = answer[20:].decode()
        self.inputs = tuple(self._describe(0, i) for i in range(inputs))
        self.outputs = tuple(self._describe(1, i) for i in range(outputs))
        self.stack_bytes: int | None = None
        self.cycles: int | None = None
        self.deepest: int | None = None
        self.fed_deepest: int | None = None
        self.runs = 0

    def reset(self) -> None:
        """Put the state back to its reset values."""
        self._line.request(transport.RESET)

    def save_state(self) -> bytes:
        """The state as it is."""
        return self._pieces(self.state_bytes, transport.STATE_GET, "<IH")

    def restore_state(self, state: bytes) -> None:
        """Put back what `save_state` gave."""
        check_state(self.state_bytes, state)
        step = self._payload - 4
        for at in range(0, len(state), step):
            self._line.request(transport.STATE_PUT, struct.pack("<I", at) + state[at : at + step])

    def run(self, inputs: Sequence[bytes]) -> list[bytes]:
        """One inference; sets `cycles`, `deepest` (the lowest stack address that it wrote) and `stack_bytes`
        (from there up to the bench's own frame). `fed_deepest` is the lowest while an input was fed, if one is."""
        check_inputs(self.inputs, inputs)
        fed: list[_Result] = []
        for i, data in enumerate(inputs):
            step = self._payload - 5
            taken = b""  # an answer is empty, but for an input that is fed: a piece of it may set off work
            for at in range(0, len(data), step):
                piece = struct.pack("<BI", i, at) + data[at : at + step]
                taken = self._line.request(transport.WRITE, piece, runs=bool(taken))
                if taken:
                    fed.append(_Result.of(taken, "does not take its input by rows"))
        run = _Result.of(self._line.request(transport.RUN, runs=True), "run failed")
        self.stack_bytes, self.deepest = max(r.stack_bytes for r in (*fed, run)), run.deepest
        self.cycles = sum(r.cycles for r in (*fed, run))
        self.fed_deepest = min((r.deepest for r in fed), default=None)
        self.runs += 1
        return [self._pieces(t.bytes, transport.READ, "<BIH", i) for i, t in enumerate(self.outputs)]

    def _describe(self, output: int, index: int) -> TensorBytes:
        answer = self._line.request(transport.DESCRIBE, bytes([output, index]))
        return TensorBytes(answer[4:].decode(), struct.unpack_from("<I", answer)[0])

    def _pieces(self, size: int, kind: int, form: str, *which: int) -> bytes:
        """`size` bytes by requests of `kind` whose payload ends with offset and count."""
        parts = []
        for at in range(0, size, self._payload):
            count = min(self._payload, size - at)
            parts.append(self._line.request(kind, struct.pack(form, *which, at, count)))
            if len(parts[-1]) != count:
                raise DeviceError("the board answered a read with the wrong number of bytes")
        return b"".join(parts)
