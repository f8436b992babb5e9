# SPDX-License-Identifier: Apache-2.0
"""The process around a simulated board: arguments, control lines, fault report."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.device.elf_image import ElfImage
from edgec.errors import DeviceError, EdgecError
from edgec.target import load_target

if TYPE_CHECKING:
    from edgec.device.board_sim.board import Board

_OUTPUT = threading.Lock()


def _say(message: dict[str, Any]) -> None:
    with _OUTPUT:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def _serve(board: Board) -> None:
    """Answer control lines until the tool closes them; then nobody wants this board any more."""
    for line in sys.stdin:
        try:
            command = json.loads(line).get("cmd")
        except (json.JSONDecodeError, AttributeError):
            command = None
        if command == "profile":
            _say({"profile": board.profile()})
        else:
            _say({"error": f"unknown command {line.strip()!r}"})
    os._exit(0)


def main() -> int:
    """Run a board; returns the exit code."""
    parser = argparse.ArgumentParser(prog="edgec.device.board_sim", description="Simulated STM32 board.")
    parser.add_argument("--elf", type=Path, required=True, help="firmware to run")
    parser.add_argument("--target", required=True, help="target name or TOML file")
    parser.add_argument("--symbol", required=True, help="function whose calls are counted as operators")
    parser.add_argument("--entries", type=int, default=1, help="how often a run enters it; its argument 1 counts them")
    parser.add_argument("--alignment", action="store_true", help="check the alignment of multi-word accesses")
    parser.add_argument("--timing", action="store_true", help="count flash traffic and estimate cycles")
    arguments = parser.parse_args()
    try:
        try:
            from edgec.device.board_sim.board import Board
            from edgec.device.board_sim.serial_line import SerialLine
        except ModuleNotFoundError as error:
            if error.name != "unicorn":
                raise
            raise DeviceError(
                "the simulated board needs the Python package unicorn", hint="pip install 'edgec[sim]'"
            ) from None
        line = SerialLine()
        target, image = load_target(arguments.target), ElfImage(arguments.elf)
        checks = {"alignment": arguments.alignment, "timing": arguments.timing}
        board = Board(target, image, arguments.symbol, line, entries=arguments.entries, **checks)
    except EdgecError as error:
        _say({"error": error.what, "need": error.need, "have": error.have, "hints": list(error.hints)})
        return error.exit_code
    _say({"port": line.port})
    threading.Thread(target=_serve, args=(board,), daemon=True).start()
    fault = board.run()
    line.flush()
    _say({"fault": fault})
    return DeviceError.exit_code


if __name__ == "__main__":
    sys.exit(main())
