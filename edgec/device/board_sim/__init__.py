# SPDX-License-Identifier: Apache-2.0
"""A simulated STM32 board, in a process of its own.

    python -m edgec.device.board_sim --elf firmware.elf --target stm32f746 --symbol kws_run

Standard output carries JSON lines: first `{"port": ...}` (the serial line), later faults and answers.
Standard input takes JSON lines such as `{"cmd": "profile"}`; the process ends when it closes.
Only this package imports unicorn.
"""
