# SPDX-License-Identifier: Apache-2.0
"""The board's end of its serial line: a pseudo-terminal.

Waiting for a byte blocks here instead of spinning the core.
"""

from __future__ import annotations

import os
import pty
import select
import tty


class SerialLine:
    """`port` is what the tool opens like any serial port."""

    def __init__(self) -> None:
        # The slave stays open here, or the line would hang up between two openings by the tool.
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._in = bytearray()
        self._out = bytearray()

    def receive(self) -> int | None:
        """The next byte, or None."""
        if not self._in:
            self._poll(0.0)
        return self._in.pop(0) if self._in else None

    def transmit(self, byte: int) -> None:
        """Send a byte; bytes gather until the core listens again or a good number is there."""
        self._out.append(byte)
        if len(self._out) >= 512:
            self.flush()

    def flush(self) -> None:
        """Send what has gathered."""
        while self._out:
            del self._out[: os.write(self._master, self._out)]

    def wait(self) -> None:
        """Block until a byte may be there."""
        self.flush()
        self._poll(None)

    def _poll(self, timeout: float | None) -> None:
        if select.select([self._master], [], [], timeout)[0]:
            self._in += os.read(self._master, 4096)
