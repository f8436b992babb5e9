# SPDX-License-Identifier: Apache-2.0
"""The simulated board: bits, exact counts, faults by name, stack, protocol; a hand-written toy is the
model.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import serial

from edgec.device.elf_image import ElfImage
from edgec.device.runner import Runner, open_runner
from edgec.device.stack import static_stack_bound
from edgec.device.transport import Transport
from edgec.emit.board_header import board_header
from edgec.errors import DeviceError
from edgec.resources import runtime_dir
from edgec.target import Target, list_targets, load_target
from tests.toy_model import BYTES, build_toy, build_toy_library, toy_steps

F746 = load_target("stm32f746")
BOARDS = [name for name in list_targets() if load_target(name).memory]


def stream(steps: int) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.integers(-128, 128, BYTES).astype(np.int8) for _ in range(steps)]


def feed(runner: Runner, xs: Sequence[np.ndarray]) -> list[bytes]:
    return [runner.run([x.tobytes()])[0] for x in xs]


def sim(target: Target, folder: Path) -> Runner:
    return open_runner(folder, "sim", target, symbol="toy_run")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    build_toy(F746, folder)
    return folder


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_boots_and_streams_the_right_bits(name: str, tmp_path: Path) -> None:
    target = load_target(name)
    build_toy(target, tmp_path)
    xs = stream(3)
    with sim(target, tmp_path) as runner:
        assert runner.model_id == "0123abcd"
        assert [(t.name, t.bytes) for t in (*runner.inputs, *runner.outputs)] == [("x", BYTES), ("z", BYTES)]
        want = [z.tobytes() for z in toy_steps(xs)]
        assert feed(runner, xs) == want
        runner.reset()
        assert feed(runner, xs) == want


def test_the_host_library_gives_the_same_bits_and_streams_are_independent(tmp_path: Path) -> None:
    build_toy_library(tmp_path)
    target = load_target("host-c")
    a, b = stream(6)[:3], stream(6)[3:]
    with open_runner(tmp_path, "host-c", target) as one, open_runner(tmp_path, "host-c", target) as two:
        got = [(one.run([x.tobytes()])[0], two.run([y.tobytes()])[0]) for x, y in zip(a, b, strict=True)]
        want = zip(toy_steps(a), toy_steps(b), strict=True)
        assert got == [(x.tobytes(), y.tobytes()) for x, y in want]
        assert one.profile().measured_on == "host"
        with pytest.raises(DeviceError, match="input x has the wrong size"):
            one.run([b"short"])


def test_counts_are_exact_and_repeatable(toy: Path) -> None:
    profiles = []
    for _ in range(2):
        with sim(F746, toy) as runner:
            for x in stream(2):
                runner.run([x.tobytes()])
                profiles.append(runner.profile())
    first = profiles[0]
    assert [p.runs for p in profiles] == [1, 2, 1, 2]
    assert {(p.instructions, p.overhead, p.operators) for p in profiles} == {
        (first.instructions, first.overhead, first.operators)
    }
    assert [o.symbol for o in first.operators] == ["toy_negate", "toy_accumulate"]
    assert first.operators[0].instructions == 2 + 6 * BYTES + 1  # the lines of negate.c, counted by hand
    assert first.instructions == first.overhead + sum(o.instructions for o in first.operators)


def test_measured_stack_is_within_the_static_bound(toy: Path) -> None:
    with sim(F746, toy) as runner:
        feed(runner, stream(1))
        measured = runner.stack_bytes
    bound = static_stack_bound(toy / "firmware.elf", "toy_run").bytes
    assert measured is not None
    assert 64 < measured <= bound  # accumulate.c keeps 64 B of floats on the stack


@pytest.mark.parametrize(
    ("peek", "words"),
    [
        ("*(volatile uint8_t *)0x20050000", ["read of 1 B at 0x20050000", "0 B past the end of sram2"]),
        ("*(volatile uint8_t *)0x1FFFFFFF", ["read of 1 B at 0x1fffffff", "1 B before dtcm"]),
        ("(*(volatile uint32_t *)0x20050004 = 1)", ["write of 4 B at 0x20050004", "4 B past the end"]),
        ("(*(volatile uint32_t *)0x08000100 = 1)", ["write of 4 B to flash at 0x08000100"]),
        ("*(volatile uint32_t *)0x40020400", ["no peripheral of the target is there", "0x40020400"]),
        ("(((void (*)(void))0x20000101u)(), 1u)", ["code is fetched from RAM at 0x20000100"]),
    ],
)  # fmt: skip
def test_an_access_outside_memory_is_named(peek: str, words: list[str], tmp_path: Path) -> None:
    build_toy(F746, tmp_path, defines={"TOY_PEEK": peek})
    with sim(F746, tmp_path) as runner, pytest.raises(DeviceError) as caught:
        feed(runner, stream(1))
    if "fetched" not in words[0]:  # there the pc is where it jumped to
        words = [*words, "in toy_peek+0x"]
    assert [w for w in words if w not in str(caught.value)] == []


def test_an_undefined_instruction_is_a_fault(tmp_path: Path) -> None:
    build_toy(F746, tmp_path, defines={"TOY_PEEK": '({ __asm volatile(".short 0xDE00"); 1u; })'})
    with sim(F746, tmp_path) as runner, pytest.raises(DeviceError, match="pc 0x08"):
        feed(runner, stream(1))


def test_64_bit_division_on_the_core(tmp_path: Path) -> None:
    a, b, c, d = -9000000000000000007, 12345678901, (1 << 64) - 1, 97
    quotient, rest = -(-a // b), -(-a % b)
    peek = (
        f"({{ volatile int64_t a = {a}, b = {b}; volatile uint64_t c = {c}u, d = {d};"
        f" a / b == {quotient} && a % b == {rest} && c / d == {c // d}u && c % d == {c % d}u"
        " ? 1u : *(volatile uint32_t *)0x20050000; })"
    )
    build_toy(F746, tmp_path, defines={"TOY_PEEK": peek})
    with sim(F746, tmp_path) as runner:
        feed(runner, stream(1))
        assert [o.symbol for o in runner.profile().operators] == ["toy_peek", "toy_negate", "toy_accumulate"]
    image = ElfImage(tmp_path / "firmware.elf")
    called = [image.function_at(t.target) for t in image.calls(image.function("toy_peek")) if t.target]
    assert {f.name for f in called if f} == {"__aeabi_ldivmod", "__aeabi_uldivmod"}
    assert static_stack_bound(image.path, "toy_peek").bytes >= 24


UNALIGNED = (
    "ldrd r2, r3, [r0]", "strd r2, r3, [r0, #-8]", "ldm r0, {r2, r3}", "stm r0!, {r2, r3}", "ldmdb.w r0, {r2, r3}",
    "vldr s0, [r0]", "vstr s0, [r0, #8]", "vldmia r0, {s0, s1}",
)  # fmt: skip


@pytest.mark.parametrize("text", UNALIGNED)
def test_multi_word_accesses_off_a_word_boundary_are_trapped(text: str, tmp_path: Path) -> None:
    asm = '({ __asm volatile("movw r0, #0x%x\\n movt r0, #0x2004\\n ' + text
    asm += '" ::: "r0", "r2", "r3", "s0", "s1", "memory"); 1u; })'
    xs = stream(1)
    for address in (0x8000, 0x8002):
        build_toy(F746, tmp_path, defines={"TOY_PEEK": asm % address})
        with sim(F746, tmp_path) as runner:
            if address == 0x8000:
                assert feed(runner, xs) == [z.tobytes() for z in toy_steps(xs)]
            else:
                with pytest.raises(DeviceError, match=r"not a multiple of 4; pc .* in toy_peek\+0x"):
                    feed(runner, xs)


def test_the_last_byte_of_a_region_is_still_memory(tmp_path: Path) -> None:
    build_toy(F746, tmp_path, defines={"TOY_PEEK": "*(volatile uint8_t *)0x2004FFFF"})
    xs = stream(1)
    with sim(F746, tmp_path) as runner:
        assert feed(runner, xs) == [z.tobytes() for z in toy_steps(xs)]


def test_a_stack_overflow_leaves_ram_and_faults(tmp_path: Path) -> None:
    build_toy(F746, tmp_path, stack_bytes=128)
    with pytest.raises(DeviceError, match="before dtcm"), sim(F746, tmp_path) as runner:
        feed(runner, stream(1))


def changed_boot(folder: Path, old: str, new: str) -> dict[str, Path]:
    text = (runtime_dir() / "port" / "cortex_m" / "boot.c").read_text()
    assert old in text
    (folder / "boot.c").write_text(text.replace(old, new))
    return {"boot.c": folder / "boot.c"}


def test_the_fpu_must_have_been_enabled(tmp_path: Path) -> None:
    build_toy(F746, tmp_path, replace=changed_boot(tmp_path, "EDGEC_REG(SCB_CPACR) |= 0xFu << 20;", ""))
    with pytest.raises(DeviceError, match=r"CPACR.* in toy_accumulate\+0x"), sim(F746, tmp_path) as runner:
        feed(runner, stream(1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("stm32f746", "0x2900_6C10", "0x2900_6410", "boot leaves the core at 200,000,000 Hz"),
        (
            "stm32f746",
            "set = 0x7, wait = 0xF, equals = 0x7",
            "set = 0x5",
            "boot leaves the flash at 5 wait states",
        ),
        (
            "stm32f746",
            "set = 0x0100_0000, wait = 0x0200_0000",
            "set = 0x1000",
            "switched to a source that is not ready",
        ),
        ("stm32f746", "clock_hz = 108_000_000", "clock_hz = 54_000_000", "the console runs at"),
        ("stm32f746g-disco", "0x0017_0100", "0x0016_0100", "FSIZE is not the size of the memory"),
        ("stm32h743", "0x0231", "0x022F", "boot leaves the core at 384,000,000 Hz"),
    ],
)
def test_a_wrong_clock_set_up_does_not_boot(name: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    text = load_target(name).path.read_text()
    assert old in text
    (tmp_path / "wrong.toml").write_text(text.replace(old, new, 1))
    target = load_target(tmp_path / "wrong.toml")
    build_toy(target, tmp_path)
    with pytest.raises(DeviceError, match=message):
        sim(target, tmp_path).close()


def test_memory_that_boot_does_not_wake_is_not_there(tmp_path: Path) -> None:
    target = load_target("stm32h743")
    header = board_header(target)
    wake = next(line for line in header.splitlines() if "0x580244dcu" in line and "0x40000000u" in line)
    text = (runtime_dir() / "port" / "cortex_m" / "boot.c").read_text()
    (tmp_path / "bad.h").write_text(header.replace(wake + "\n", ""))
    (tmp_path / "boot.c").write_text(text.replace('"board.h"', '"bad.h"'))
    build_toy(
        target,
        tmp_path,
        defines={"TOY_PEEK": "*(volatile uint32_t *)0x30020000"},
        replace={"boot.c": tmp_path / "boot.c"},
    )
    with (
        pytest.raises(DeviceError, match="in sram2, which boot has not enabled"),
        sim(target, tmp_path) as runner,
    ):
        feed(runner, stream(1))


def test_firmware_of_another_board_is_refused(toy: Path, tmp_path: Path) -> None:
    text = F746.path.read_text().replace('origin = 0x0800_0000, size = "1M"', 'origin = 0x0800_0000, size = "4K"')
    (tmp_path / "small.toml").write_text(text)
    with pytest.raises(DeviceError, match="which is not in the flash"):
        sim(load_target(tmp_path / "small.toml"), toy)


def test_a_run_function_that_is_not_there(toy: Path) -> None:
    with pytest.raises(DeviceError, match="has no function other_run"):
        open_runner(toy, "sim", F746, symbol="other_run")


# --- the protocol, spoken by hand


def frame(kind: int, sequence: int, payload: bytes = b"") -> bytes:
    body = bytes([kind, sequence]) + struct.pack("<H", len(payload)) + payload
    return b"\xed\x6c" + body + struct.pack("<I", zlib.crc32(body))


class RawBoard:
    """A simulator and its line, without the tool's own transport."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "edgec.device.board_sim", "--elf", str(folder / "firmware.elf")]
        self.process = subprocess.Popen(
            [*command, "--target", "stm32f746", "--symbol", "toy_run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port: str = json.loads(self.output.readline())["port"]
        self.line = serial.Serial(self.port, 115200, timeout=5)

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def answer(self) -> tuple[int, int, bytes]:
        head = self.line.read(6)
        payload = self.line.read(int.from_bytes(head[4:], "little"))
        assert head[:2] == b"\xed\x6c"
        assert self.line.read(4) == struct.pack("<I", zlib.crc32(head[2:] + payload))
        return head[2], head[3], payload

    def ask(self, data: bytes) -> tuple[int, int, bytes]:
        self.line.write(data)
        return self.answer()


@pytest.fixture
def raw(toy: Path) -> Iterator[RawBoard]:
    board = RawBoard(toy)
    yield board
    board.line.close()
    assert board.process.stdin is not None
    board.process.stdin.close()
    assert board.process.wait(5) == 0  # it ends when its input closes
    board.output.close()


def test_damage_and_nonsense_are_refused_with_a_reason(raw: RawBoard) -> None:
    good = frame(1, 1)
    assert raw.ask(good[:-1] + bytes([good[-1] ^ 1])) == (0x7F, 1, b"\x01")  # CRC
    assert raw.ask(frame(99, 2)) == (0x7F, 2, b"\x02")  # type
    assert raw.ask(frame(4, 3, b"\0")) == (0x7F, 3, b"\x03")  # length
    assert raw.ask(frame(4, 4, struct.pack("<BI", 0, BYTES) + b"x")) == (
        0x7F,
        4,
        b"\x04",
    )  # one byte past the input
    assert raw.ask(frame(4, 5, struct.pack("<BI", 0, 0xFFFFFFFF) + b"x")) == (0x7F, 5, b"\x04")
    assert raw.ask(frame(6, 6, struct.pack("<BIH", 1, 0, 1))) == (0x7F, 6, b"\x04")  # no such output
    assert raw.ask(frame(2, 7, b"\0\x01")) == (0x7F, 7, b"\x04")
    assert raw.ask(b"noise \xed\xed" + good)[:2] == (0x81, 1)  # found again behind noise


def test_a_run_asked_for_twice_advances_the_state_once(raw: RawBoard) -> None:
    # x = -1, so that the sum rises by one a run. x and z share their bytes: where nothing runs, x itself is
    # read.
    # Sequence numbers come round: a run is the one before again only if no other request came in between.
    first_bytes = []
    for runs in ((10, 10), (11, 11, 11), (10,), (10,)):
        raw.ask(frame(4, 1, struct.pack("<BI", 0, 0) + b"\xff" * 200))
        for sequence in runs:
            kind, _, answer = raw.ask(frame(5, sequence))
            assert (kind, answer[:4]) == (0x85, bytes(4))
        first_bytes.append(raw.ask(frame(6, 2, struct.pack("<BIH", 0, 0, 1)))[2][0])
    assert first_bytes == [1, 2, 3, 4]


def test_the_state_is_read_and_written_in_pieces_and_never_beyond(raw: RawBoard) -> None:
    raw.ask(frame(4, 1, struct.pack("<BI", 0, 0) + b"\xff" * 200))  # -x = 1 is added to the state
    raw.ask(frame(4, 2, struct.pack("<BI", 0, 200) + bytes(BYTES - 200)))
    raw.ask(frame(5, 2))
    assert raw.ask(frame(7, 3, struct.pack("<IH", 190, 20))) == (0x87, 3, b"\x01" * 10 + bytes(10))
    assert raw.ask(frame(8, 4, struct.pack("<I", BYTES - 3) + b"\x05\x06\x07")) == (0x88, 4, b"")
    assert raw.ask(frame(7, 5, struct.pack("<IH", BYTES - 4, 4))) == (0x87, 5, b"\x00\x05\x06\x07")
    assert raw.ask(frame(7, 6, struct.pack("<IH", BYTES, 0))) == (0x87, 6, b"")
    beyond = [(BYTES - 3, 4), (BYTES + 1, 0), (0xFFFFFFFF, 2), (0, 257)]
    for offset, count in beyond:
        assert raw.ask(frame(7, 7, struct.pack("<IH", offset, count))) == (0x7F, 7, b"\x04"), offset
    for offset, count in beyond[:3]:
        assert raw.ask(frame(8, 8, struct.pack("<I", offset) + bytes(count))) == (0x7F, 8, b"\x04"), offset
    for kind, length in ((7, 5), (7, 7), (8, 3)):
        assert raw.ask(frame(kind, 9, bytes(length))) == (0x7F, 9, b"\x03")
    raw.ask(frame(3, 10))
    assert raw.ask(frame(7, 11, struct.pack("<IH", BYTES - 4, 4))) == (0x87, 11, bytes(4))


def test_a_state_longer_than_a_frame_goes_on_in_another_board_and_on_this_machine(toy: Path, tmp_path: Path) -> None:
    build_toy_library(tmp_path)
    xs = stream(6)
    want = [z.tobytes() for z in toy_steps(xs)]
    with sim(F746, toy) as board:
        assert feed(board, xs[:2]) == want[:2]
        state = board.save_state()
        assert len(state) == board.state_bytes == BYTES > 256  # the longest payload
    with open_runner(tmp_path, "host-c", load_target("host-c")) as host:
        host.restore_state(state)
        assert feed(host, xs[2:4]) == want[2:4]
        state = host.save_state()
    with sim(F746, toy) as board:
        feed(board, xs[:1])
        board.restore_state(state)
        assert feed(board, xs[4:]) == want[4:]
        with pytest.raises(DeviceError, match="state of the wrong size"):
            board.restore_state(state[1:])


class Flaky:
    """A serial line that damages some of what it carries."""

    def __init__(self, line: serial.Serial, damaged: set[int]) -> None:
        self._line, self._damaged, self._writes = line, damaged, 0

    def write(self, data: bytes) -> None:
        self._writes += 1
        broken = bytearray(data)
        if self._writes in self._damaged:
            broken[-1] ^= 0x40
        self._line.write(bytes(broken))

    def __getattr__(self, name: str) -> object:
        return getattr(self._line, name)


def test_the_transport_recovers_from_damage(raw: RawBoard) -> None:
    transport = Transport(raw.port, 115200, timeout_s=1.0)
    transport._line = Flaky(transport._line, {1, 3, 4})
    assert transport.request(1)[20:] == b"0123abcd"
    assert transport.request(2, b"\0\0")[4:] == b"x"
    transport._line = Flaky(transport._line, {1, 2, 3, 4})
    with pytest.raises(DeviceError, match="no answer from the board"):
        transport.request(1)
    transport.close()


def test_a_dead_line_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot open the serial port"):
        Transport(str(tmp_path / "absent"), 115200)


def test_a_killed_simulator_is_told(toy: Path) -> None:
    with sim(F746, toy) as runner:
        runner._process.kill()  # type: ignore[attr-defined]
        start = time.monotonic()
        with pytest.raises(DeviceError, match="the simulator ended unexpectedly"):
            feed(runner, stream(1))
        assert time.monotonic() - start < 10


def test_without_unicorn_the_error_says_what_to_install(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unicorn.py").write_text("raise ModuleNotFoundError(\"No module named 'unicorn'\", name='unicorn')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeviceError) as caught:
        sim(F746, toy)
    assert "pip install 'edgec[sim]'" in str(caught.value)
