# SPDX-License-Identifier: Apache-2.0
"""A simulated STM32 board, in its own process: `python -m edgec.device.board_sim --elf firmware.elf --target T --symbol S`.

Standard output carries JSON lines: first `{"port": ...}` (the serial line), later faults and answers. Standard input
takes JSON lines such as `{"cmd": "profile"}`; the process ends when it closes. Only this package imports unicorn.
"""
