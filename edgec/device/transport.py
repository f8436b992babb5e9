# SPDX-License-Identifier: Apache-2.0
"""The host's end of the bench protocol (runtime/port/cortex_m/frame.c), for a real board as for a simulated
one.

A frame is ED 6C, type, sequence, payload length (2 bytes), payload, CRC-32 of type to payload; little-endian.
Every request is answered once; a request whose answer is damaged or lost is sent again with the same sequence
number, which the board recognises where it matters (a run advances the model's state).
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

from edgec.errors import DeviceError

HELLO, DESCRIBE, RESET, WRITE, RUN, READ, STATE_GET, STATE_PUT = 1, 2, 3, 4, 5, 6, 7, 8
ANSWER, FAULT, NAK = 0x80, 0x7E, 0x7F
PROTOCOL_VERSION = 2
START = b"\xed\x6c"
_DAMAGED = (1, 3)  # the board got a damaged frame (its own requests never have a wrong length): send it again
_REASONS = {
    1: "damaged frame",
    2: "unknown request",
    3: "wrong length",
    4: "no such tensor, or bytes outside it or the state",
    5: "the model's init failed",
}
_FAULT_NAMES = {2: "NMI", 3: "hard fault", 4: "memory fault", 5: "bus fault", 6: "usage fault"}
_SLICE_S = 0.05


def encode(kind: int, sequence: int, payload: bytes) -> bytes:
    """One frame as bytes."""
    body = struct.pack("<BBH", kind, sequence, len(payload)) + payload
    return START + body + struct.pack("<I", zlib.crc32(body))


class Transport:
    """Requests and answers over a serial port.

    Args:
        port: what pyserial opens.
        baud: bits per second.
        alive: called while waiting; it raises DeviceError when the board is known to be dead.
        timeout_s: how long an answer may take (a run: `run_timeout_s`).
        retries: how often a request is sent again.
    """

    def __init__(
        self,
        port: str,
        baud: int,
        *,
        alive: Callable[[], None] = lambda: None,
        timeout_s: float = 2.0,
        run_timeout_s: float = 120.0,
        retries: int = 3,
    ) -> None:
        import serial  # late: `edgec --help` does not need it

        self._error: type[Exception] = serial.SerialException
        try:
            self._line: Any = serial.Serial(port, baud, timeout=_SLICE_S, write_timeout=timeout_s)
        except (serial.SerialException, OSError) as error:
            raise DeviceError(f"cannot open the serial port {port}: {error}") from None
        self.port = port
        self._alive, self._timeout_s, self._run_timeout_s, self._retries = (
            alive,
            timeout_s,
            run_timeout_s,
            retries,
        )
        self._sequence = 0
        self._buffer = bytearray()

    def close(self) -> None:
        """Close the port."""
        self._line.close()

    def request(self, kind: int, payload: bytes = b"", *, runs: bool = False) -> bytes:
        """Send a request and return the answer's payload; one that `runs` may take as long as a run.

        Raises:
            DeviceError: no answer, a refusal, or a fault on the board.
        """
        self._sequence = (self._sequence + 1) & 0xFF
        timeout = self._run_timeout_s if runs else self._timeout_s
        frame = encode(kind, self._sequence, payload)
        for _ in range(1 + self._retries):
            answer = self._exchange(frame, kind, timeout)
            if answer is not None:
                return answer
        self._alive()
        raise DeviceError(
            f"no answer from the board on {self.port}",
            need=f"an answer within {timeout:g} s, asked {1 + self._retries} times",
            hint="check that the firmware is flashed, the port and the baud rate",
        )

    def _exchange(self, frame: bytes, kind: int, timeout: float) -> bytes | None:
        try:
            self._line.write(frame)
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                received = self._receive(deadline)
                if received is None:
                    return None
                got, sequence, payload = received
                if got == FAULT:
                    raise DeviceError("fault on the board: " + _fault_text(payload))
                if got == NAK:
                    reason = payload[0] if payload else 0
                    if reason in _DAMAGED:
                        return None
                    raise DeviceError(f"the board refuses request {kind}: {_REASONS.get(reason, 'unknown reason')}")
                if got == kind | ANSWER and sequence == self._sequence:
                    return payload
        except (self._error, OSError) as error:
            time.sleep(_SLICE_S)  # the board's last words may still be on their way
            self._alive()
            raise DeviceError(f"the serial port {self.port} failed: {error}") from None
        return None

    def _receive(self, deadline: float) -> tuple[int, int, bytes] | None:
        """The next intact frame, or None at the deadline."""
        while True:
            frame = self._take()
            if frame is not None:
                return frame
            if time.monotonic() >= deadline:
                return None
            data = self._line.read(max(1, self._line.in_waiting))
            if data:
                self._buffer += data
            else:
                self._alive()

    def _take(self) -> tuple[int, int, bytes] | None:
        """Cut the first intact frame off the buffer; noise and damaged frames are dropped."""
        while True:
            start = self._buffer.find(START)
            if start < 0:
                del self._buffer[: max(0, len(self._buffer) - 1)]
                return None
            del self._buffer[:start]
            if len(self._buffer) < 6:
                return None
            kind, sequence, size = struct.unpack_from("<BBH", self._buffer, 2)
            if len(self._buffer) < 10 + size:
                return None
            body = bytes(self._buffer[2 : 6 + size])
            if zlib.crc32(body) == struct.unpack_from("<I", self._buffer, 6 + size)[0]:
                del self._buffer[: 10 + size]
                return kind, sequence, body[4:]
            del self._buffer[:2]


def _fault_text(payload: bytes) -> str:
    exception, cfsr, hfsr, bfar, mmfar, pc, lr = struct.unpack("<7I", payload)
    name = _FAULT_NAMES.get(exception, f"exception {exception}")
    address = f" at address {bfar:#010x}" if cfsr & 0x8000 else f" at address {mmfar:#010x}" if cfsr & 0x80 else ""
    return f"{name}{address}, pc {pc:#010x}, lr {lr:#010x}, CFSR {cfsr:#010x}, HFSR {hfsr:#010x}"
