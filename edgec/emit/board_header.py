# SPDX-License-Identifier: Apache-2.0
"""`board.h`: what the Cortex-M bench must know of its target: a table of register accesses and a few
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgec.emit.names import comment
from edgec.target import BootStep, Enable, Pin, Target

_GPIO_MODER, _GPIO_OSPEEDR, _GPIO_AFRL = 0x00, 0x08, 0x20


def board_header(target: Target) -> str:
    """The text of `board.h` for a target with boot and console."""
    console, clock_hz = target.console, target.cpu.clock_hz
    assert console is not None
    assert clock_hz is not None
    numbers = {
        "EDGEC_CPU_CLOCK_HZ": f"{clock_hz}u",
        "EDGEC_HAS_FPU": str(int(target.cpu.has("fpu"))),
        "EDGEC_HAS_ICACHE": str(int(target.cpu.icache > 0)),
        "EDGEC_HAS_DCACHE": str(int(target.cpu.dcache > 0)),
        "EDGEC_USART_V2": str(int(console.usart.model == "usart-v2")),
        "EDGEC_USART_BASE": f"{console.usart.origin:#010x}u",
        "EDGEC_USART_DIVIDER": f"{round(console.clock_hz / console.baud)}u",
    }
    lines = [
        f"/* {comment(target.name)}: generated from its target file by edgec. */",
        "#ifndef EDGEC_BOARD_H",
        "#define EDGEC_BOARD_H",
        "",
    ]
    lines += [f"#define {name} {value}" for name, value in numbers.items()]
    lines += ["", "/* register, clear, set, wait, equals, delay in loops */", "#define EDGEC_BOOT_STEPS { \\"]
    lines += [f"  {_initializer(step, clock_hz)}, \\" for step in boot_steps(target)]
    return "\n".join([*lines, "}", "", "#endif", ""])


def boot_steps(target: Target) -> Iterator[BootStep]:
    """Every register access of boot, in order: clock enables, the target's steps, pins, the steps after
    them.
    """
    assert target.boot is not None
    assert target.console is not None
    enables = (*(p.enable for p in target.peripherals), *(r.enable for r in target.memory))
    yield from (_enable(enable) for enable in enables if enable is not None)
    yield from target.boot.steps
    for pin in (*target.boot.pins, target.console.tx, target.console.rx):
        yield from _pin(target, pin)
    yield from target.boot.after_pins


def _enable(enable: Enable) -> BootStep:
    mask = 1 << enable.bit
    return BootStep(enable.register, 0, mask, mask, mask)


def _pin(target: Target, pin: Pin) -> Iterator[BootStep]:
    port, n = target.peripheral(pin.port).origin, pin.number
    alternate = port + _GPIO_AFRL + 4 * (n // 8)
    yield BootStep(alternate, 0xF << 4 * (n % 8), pin.alternate << 4 * (n % 8), 0, 0)
    yield BootStep(port + _GPIO_OSPEEDR, 0, 3 << 2 * n, 0, 0)
    yield BootStep(port + _GPIO_MODER, 3 << 2 * n, 2 << 2 * n, 0, 0)  # last: the pin leaves its reset mode ready


def _initializer(step: BootStep, clock_hz: int) -> str:
    loops = step.delay_us * (clock_hz // 1_000_000)
    words = (step.register, step.clear, step.set, step.wait, step.equals)
    return "{" + ", ".join(f"{w:#010x}u" for w in words) + f", {loops}u}}"
