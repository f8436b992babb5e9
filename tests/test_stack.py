# SPDX-License-Identifier: Apache-2.0
"""Static stack bound: equals frames counted by hand, and refuses what has no bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.device.stack import static_stack_bound
from edgec.device.toolchain import Firmware, Source, build_firmware
from edgec.emit.linker import linker_script
from edgec.errors import DeviceError
from edgec.target import load_target

F746 = load_target("stm32f746")
# Frames by hand: push {r4-r7, lr, r8} is 24 B; the assembly leaf takes 40 B and says so.
LEAF = """
void leaf(void); __attribute__((naked, noinline)) void leaf(void) {
  __asm volatile("sub sp, #40\\n add sp, #40\\n bx lr\\n"
  ".pushsection .stack_sizes,\\"o\\",%progbits,.text.leaf\\n .long leaf\\n .uleb128 40\\n .popsection\\n");
}
"""
MIDDLE = """
void middle(void); __attribute__((naked, noinline)) void middle(void) {
  __asm volatile("push {r4-r8, lr}\\n bl leaf\\n bl leaf\\n pop {r4-r8, pc}\\n"
  ".pushsection .stack_sizes,\\"o\\",%progbits,.text.middle\\n"
  " .long middle\\n .uleb128 24\\n .popsection\\n");
}
"""
RESET = "void Reset_Handler(void); void Reset_Handler(void) { top(); }\n"


def link(text: str, folder: Path) -> Firmware:
    path = folder / "s.c"
    path.write_text(text)
    return build_firmware(F746, [Source(path, "model")], [], linker_script(F746), folder / "out")


def test_the_bound_is_the_deepest_path(tmp_path: Path) -> None:
    top = "void top(void); __attribute__((noinline)) void top(void) { middle(); leaf(); }\n"
    bound = static_stack_bound(link(LEAF + MIDDLE + top + RESET, tmp_path).elf, "top")
    assert [name for name, _ in bound.path] == ["top", "middle", "leaf"]
    assert bound.path[1:] == (("middle", 24), ("leaf", 40))
    # top: push {r7, lr} and a tail branch, which the bound counts as a call.
    assert bound.bytes == 8 + 24 + 40


def test_data_between_instructions_is_no_call(tmp_path: Path) -> None:
    # F000 F800 decodes as BL; as data behind $d it must not.
    top = """void top(void); __attribute__((naked, noinline)) void top(void) {
      __asm volatile("b 1f\\n .p2align 2\\n .long 0xF800F000\\n .long 0x47804780\\n 1: bx lr\\n"
      ".pushsection .stack_sizes,\\"o\\",%progbits,.text.top\\n .long top\\n .uleb128 0\\n .popsection\\n"); }
    """
    assert static_stack_bound(link(top + RESET, tmp_path).elf, "top").bytes == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "int top(int);\n"
            "__attribute__((noinline)) int deeper(int n) { return n ? top(n - 1) * 3 + n : 1; }\n"
            "__attribute__((noinline)) int top(int n) { return n ? deeper(n - 1) * 5 + n : 2; }\n"
            "void Reset_Handler(void); void Reset_Handler(void) { top(9); }\n",
            r"recursion",
        ),
        (
            "extern void (*volatile pointer)(void); void (*volatile pointer)(void);\n"
            "void top(void); __attribute__((noinline)) void top(void) { pointer(); pointer(); }\n" + RESET,
            r"indirect call in top\+0x",
        ),
        (
            "void top(void); __attribute__((naked, noinline)) void top(void) {"
            ' __asm volatile("push {r4, lr}\\n pop {r4, pc}"); }\n' + RESET,
            r"top moves the stack pointer but states 0 B",
        ),
        (
            '__asm(".section .text.top,\\"ax\\",%progbits\\n.type top,%function\\n.thumb_func\\n"\n'
            '      ".global top\\n"\n'
            '      "top: bx lr\\n.size top, .-top\\n.text\\n");\nvoid top(void);\n' + RESET,
            r"the stack of top is unknown",
        ),
    ],
)
def test_what_has_no_bound_is_refused(text: str, message: str, tmp_path: Path) -> None:
    source = "int deeper(int);\n" + text if "deeper" in text else text
    with pytest.raises(DeviceError, match=message):
        static_stack_bound(link(source, tmp_path).elf, "top")


def test_an_absent_function_is_named(tmp_path: Path) -> None:
    top = "void top(void); __attribute__((noinline)) void top(void) { leaf(); }\n"
    with pytest.raises(DeviceError, match="no function absent_run"):
        static_stack_bound(link(LEAF + top + RESET, tmp_path).elf, "absent_run")
