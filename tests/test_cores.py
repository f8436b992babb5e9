# SPDX-License-Identifier: Apache-2.0
"""Cores beside Cortex-M4 and M7: a M33 with the DSP set, and M3 and M0+ by the generated C alone; the same bits."""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import test_operators
from elftools.elf.elffile import ELFFile

from edgec.artifact import Artifact, load_artifact
from edgec.build import build
from edgec.compile import Options, make_program
from edgec.device.board_sim.timing import ARMV6M, ARMV7M, native_library
from edgec.device.runner import open_runner
from edgec.device.stack import static_stack_bound
from edgec.device.toolchain import cpu_flags, zig_binary
from edgec.emit.model import Built
from edgec.errors import DeviceError
from edgec.kernels.share import share_equal
from edgec.model import Model, load_model
from edgec.program import Program, evaluate
from edgec.quantize.options import Recipe
from edgec.run import open_artifact, to_device
from edgec.schedule.memories import arena_room, place_in_memories
from edgec.schedule.schedule import Wishes, schedule_program
from edgec.target import load_target
from tests.test_simulator import feed, sim, stream
from tests.toy_model import build_toy, toy_steps

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
M33, M3, M0PLUS = "stm32l552", "stm32f207", "stm32g0b1"
CORES = (M33, M3, M0PLUS)


def made(name: str, calibration: Mapping[str, np.ndarray]) -> tuple[Model, Program]:
    model = load_model(EXAMPLES / name)
    return model, make_program(model, Options(calibration=calibration, recipe=Recipe(layer_width="int8")))


def built_for(core: str, model: Model, program: Program, folder: Path) -> tuple[Artifact, int]:
    """The artifact of a program for a target, and how many of its calls run by hand."""
    target = load_target(core)
    scheduled = schedule_program(program, target, "auto", Wishes("balanced", arena_room(program, target, None)))
    kernels = share_equal(scheduled.implementations)
    plan, state, weights = place_in_memories(scheduled.program, kernels, target)
    folder.mkdir()
    build(Built(scheduled.program, kernels, plan, state, target, weights, scheduled), model, folder)
    return load_artifact(folder), sum(k.kind == "hand" for k in kernels)


def definitions(program: Program, artifact: Artifact, samples: Mapping[str, np.ndarray], steps: int) -> list[bytes]:
    """The first output of every step by NumPy, state fed back, from reset."""
    types = {name: tensor.type for name, tensor in program.tensors.items()}
    feeds = {port.name: to_device(port, samples[port.name]) for port in artifact.inputs}
    state = {s.source: np.full(types[s.source].shape, s.reset, types[s.source].dtype) for s in program.states}
    outputs = []
    for step in range(steps):
        given = {p.tensor: feeds[p.name][step].reshape(types[p.tensor].shape) for p in program.inputs}
        values = evaluate(program, given | state)
        outputs.append(values[program.outputs[0].tensor].tobytes())
        state = {s.source: values[s.result].reshape(types[s.source].shape) for s in program.states}
    return outputs


def on_board(artifact: Artifact, samples: Mapping[str, np.ndarray], steps: int) -> tuple[list[bytes], int]:
    """The first output of every step on the simulated board, and the instructions of the last step."""
    feeds = [to_device(port, samples[port.name]) for port in artifact.inputs]
    with open_artifact(artifact) as runner:
        outputs = [runner.run([f[step].tobytes() for f in feeds])[0] for step in range(steps)]
        instructions = runner.profile().instructions
        assert instructions is not None
        assert runner.stack_bytes is not None
        assert runner.stack_bytes <= artifact.manifest["ram"]["stack_bytes"]
    return outputs, instructions


@pytest.fixture(scope="module")
def recurrent() -> tuple[Model, Program, dict[str, np.ndarray]]:
    with np.load(EXAMPLES / "streaming" / "stream.npz") as file:
        samples = dict(file)
    return *made("streaming/recurrent_16_64_32.onnx", samples), samples


PLAIN = {"ring_write_s8", "ring_write_s16", "ring_read_s8", "ring_read_s16", "ring_rotate_s8", "ring_rotate_s16"}
"""Operators whose hand-written kernels need nothing of the core."""


# Instructions of one step, its memory in int16, may not grow beyond these.
@pytest.mark.parametrize(("core", "ceiling"), [(M33, 12_800), (M3, 42_000), (M0PLUS, 72_500)])
def test_a_recurrent_step_has_the_same_bits_on_every_core(
    core: str, ceiling: int, recurrent: tuple[Model, Program, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    model, program, samples = recurrent
    artifact, by_hand = built_for(core, model, program, tmp_path / core)
    assert (by_hand > 0) == (core == M33)
    steps = len(samples["x"])
    assert steps == 256
    outputs, instructions = on_board(artifact, samples, steps)
    assert outputs == definitions(program, artifact, samples, steps)
    assert instructions <= ceiling


@pytest.mark.slow
def test_an_image_classifier_has_the_same_bits_on_a_cortex_m33(tmp_path: Path) -> None:
    folder = EXAMPLES / "image_classification"
    with np.load(folder / "samples.npz") as images, np.load(folder / "calibration.npz") as calibration:
        samples, few = {k: v[:3] for k, v in images.items()}, {k: v[:16] for k, v in calibration.items()}
    model, program = made("image_classification/mcuformer_fashion_mnist.onnx", few)
    artifact, by_hand = built_for(M33, model, program, tmp_path / M33)
    assert by_hand >= 20
    outputs, instructions = on_board(artifact, samples, 3)
    assert outputs == definitions(program, artifact, samples, 3)
    assert instructions < 9_000_000


@pytest.mark.slow
def test_a_float32_program_has_the_same_bits_with_an_fpu_and_without(tmp_path: Path) -> None:
    with np.load(EXAMPLES / "streaming" / "stream.npz") as file:
        samples = dict(file)
    model = load_model(EXAMPLES / "streaming" / "recurrent_16_64_32.onnx")
    program = make_program(model, Options(precision="float32"))
    outputs = {core: on_board(built_for(core, model, program, tmp_path / core)[0], samples, 20)[0] for core in CORES}
    assert len(set(outputs[M33])) == 20
    assert outputs[M3] == outputs[M33]
    assert outputs[M0PLUS] == outputs[M33]


@pytest.mark.parametrize("core", CORES)
def test_every_operator_computes_its_definition_on_every_core(core: str, tmp_path: Path) -> None:
    """Generated C on all; the hand-written kernels beside it: all on the core with the DSP set, else plain copies."""
    cases = test_operators.sampled(int.from_bytes(core.encode()[-3:], "big"), 2 if core == M33 else 1, 0)
    parts = list(test_operators.in_parts(cases, most=60_000))
    by_hand = sum((test_operators.check(part, core, tmp_path / str(i)) for i, part in enumerate(parts)), Counter[str]())
    assert by_hand.total() >= 20 if core == M33 else set(by_hand) <= PLAIN


# --- what a core does not have, the simulated board does not have either


INSTRUCTIONS = """
add r0, r1, r2; adds r0, r1, r2; adds r3, #9; adcs r0, r1; muls r0, r1, r0; mul r0, r1, r2; mla r0, r1, r2, r3
mls r0, r1, r2, r3; smull r0, r1, r2, r3; umull r0, r1, r2, r3; smlal r0, r1, r2, r3; umlal r0, r1, r2, r3
umaal r0, r1, r2, r3; smlalbb r0, r1, r2, r3; smlald r0, r1, r2, r3; smlsld r0, r1, r2, r3; smlad r0, r1, r2, r3
smuad r0, r1, r2; smlabb r0, r1, r2, r3; smultt r0, r1, r2; smlawb r0, r1, r2, r3; smlsd r0, r1, r2, r3
smmla r0, r1, r2, r3; smmulr r0, r1, r2; smmls r0, r1, r2, r3; usad8 r0, r1, r2; usada8 r0, r1, r2, r3
sdiv r0, r1, r2; udiv r0, r1, r2; sxtb r0, r1; uxth r0, r1; sxtb.w r0, r1, ror #8; uxth.w r8, r9; sxtab r0, r1, r2
uxtah r0, r1, r2; sxtb16 r0, r1; uxtb16 r0, r1; sxtab16 r0, r1, r2; uxtab16 r0, r1, r2; pkhbt r0, r1, r2
pkhtb r0, r1, r2, asr #3; ror.w r0, r1, r2
ssat r0, #8, r1; usat r0, #8, r1; ssat r0, #8, r1, asr #4; ssat16 r0, #8, r1; usat16 r0, #8, r1; qadd r0, r1, r2
qdsub r0, r1, r2; sadd16 r0, r1, r2; ssub8 r0, r1, r2; uqadd8 r0, r1, r2; shsax r0, r1, r2; uhadd16 r0, r1, r2
sel r0, r1, r2; rev r0, r1; rev.w r8, r9; rev16 r0, r1; revsh r0, r1; rbit r0, r1; clz r0, r1; bfi r0, r1, #3, #4
ubfx r0, r1, #3, #4; movw r0, #1234; movt r0, #1234; mov r8, r9; movs r0, #3; mvns r0, r1; lsl r0, r1, r2
ldr r0, [r1, #4]; ldr.w r0, [r1], #4; ldrb r0, [r1, r2]; ldrsh r0, [r1, r2]; ldrd r0, r1, [r2]; strd r0, r1, [r2]
ldm r0!, {r1, r2}; stm r0!, {r1, r2}; ldmdb r0!, {r1, r2}; push {r4, lr}; pop {r4, pc}; push {r4, r8}; str r0, [sp, #8]
b .; beq .; b.w .; bl .; bx lr; blx r3; nop; dsb; dmb; isb; mrs r0, ipsr; msr primask, r0; cpsid i
sub sp, #8; add r0, sp, #8; add r8, r9; cmp r8, r9; tst r0, r1; teq r0, r1; orn r0, r1, r2; rsbs r0, r1, #0; svc #3
"""
"""Of every group of encodings; which core has which is the assembler's word."""


def test_the_board_knows_which_instructions_a_core_has(tmp_path: Path) -> None:
    lines = [text.strip() for text in INSTRUCTIONS.replace("\n", ";").split(";") if text.strip()]
    head = ".syntax unified\n.thumb\n"

    def assembled(core: str, text: str) -> tuple[bool, Path]:
        """Whether a core's assembler takes every line, and which lines it complains about (in its messages)."""
        (tmp_path / "i.S").write_text(head + text + "\n")
        flags = cpu_flags(load_target(core).cpu)
        command = [zig_binary(), "clang", *flags, "-c", tmp_path / "i.S", "-o", tmp_path / f"{core}.o"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        (tmp_path / "told").write_text(done.stderr)
        return done.returncode == 0, tmp_path / f"{core}.o"

    body = "\n".join(f"l{i}: {text}" for i, text in enumerate(lines))
    ok, path = assembled(M33, body)
    assert ok, (tmp_path / "told").read_text()
    with path.open("rb") as file:
        elf = ELFFile(file)
        code = elf.get_section_by_name(".text").data()
        at = {s.name: s["st_value"] & ~1 for s in elf.get_section_by_name(".symtab").iter_symbols()}
    library = ctypes.CDLL(str(native_library()))
    for core, instruction_set in ((M3, ARMV7M), (M0PLUS, ARMV6M)):
        assembled(core, body)
        complaints = re.findall(r"i\.S:(\d+):\d+: error", (tmp_path / "told").read_text())
        refused = {int(line) - 1 - head.count("\n") for line in complaints}
        assert 10 < len(refused) < len(lines) - 10
        for i, text in enumerate(lines):
            first, second = struct.unpack_from("<HH", code + b"\0\0", at[f"l{i}"])
            assert bool(library.isa_lacks(instruction_set, first, second)) == (i in refused), (core, text)


@pytest.mark.parametrize(
    ("core", "instruction"),
    [
        (M3, ".inst.w 0xFB210203"),  # smlad r2, r1, r3, r0
        (M0PLUS, ".inst.w 0xFB91F2F3"),  # sdiv r2, r1, r3
        (M0PLUS, ".inst.n 0xB100"),  # cbz r0, the next but one
        (M0PLUS, ".inst.n 0xBF08"),  # it eq
        (M33, ".inst.n 0xDE00"),  # nobody has it
    ],
)
def test_an_instruction_that_the_core_does_not_have_is_a_fault(core: str, instruction: str, tmp_path: Path) -> None:
    target = load_target(core)
    peek = f'({{ __asm volatile("{instruction}\\n nop\\n nop" ::: "r2", "memory"); 1u; }})'
    build_toy(target, tmp_path, defines={"TOY_PEEK": peek})
    with sim(target, tmp_path) as runner, pytest.raises(DeviceError, match=r"fault on the simulated board.*pc 0x08"):
        feed(runner, stream(1))


def accessing(texts: Sequence[str], offset: int) -> dict[str, str]:
    """Accesses that the toy makes, `offset` bytes behind a word boundary."""
    lines = "".join(f"mov r0, %0\\n {text}\\n " for text in texts)
    peek = f'({{ uint32_t at = 0x20020000u + {offset}u; __asm volatile("movs r1, #4\\n {lines}" '
    return {"TOY_PEEK": peek + ':: "l"(at) : "r0", "r1", "r2", "r3", "memory"); 1u; })'}


WORDS = ("ldr r2, [r0]", "str r2, [r0, #4]", "ldm r0!, {r2, r3}")
HALVES = ("ldrh r2, [r0]", "strh r2, [r0, r1]", "ldrsh r2, [r0, r1]")
BYTES = ("ldrb r2, [r0]", "strb r2, [r0, r1]", "ldrsb r2, [r0, r1]")


def test_armv6m_traps_every_access_off_its_boundary(tmp_path: Path) -> None:
    target, xs = load_target(M0PLUS), stream(1)
    for offset, texts in ((0, (*WORDS, *HALVES, *BYTES)), (2, (*HALVES, *BYTES)), (1, BYTES)):
        build_toy(target, tmp_path / str(offset), defines=accessing(texts, offset))
        with sim(target, tmp_path / str(offset)) as runner:
            assert feed(runner, xs) == [z.tobytes() for z in toy_steps(xs)]
    for offset, text in ((2, WORDS[0]), (2, WORDS[1]), (1, WORDS[2]), (1, HALVES[0]), (1, HALVES[1])):
        folder = tmp_path / f"{offset} {text}"
        build_toy(target, folder, defines=accessing([text], offset))
        with (
            sim(target, folder) as runner,
            pytest.raises(DeviceError, match=r"not a multiple of its size; pc .* in toy_peek\+0x"),
        ):
            feed(runner, xs)


@pytest.mark.parametrize(
    ("core", "old", "new", "message"),
    [
        (M33, "0x0100_3732", "0x0100_3632", "boot leaves the core at 108,000,000 Hz"),
        (M33, "set = 0x100, wait = 0x400 }", "set = 0x100 }", ""),
        (M33, '{ reg = "rcc+0x00", set = 0x100, wait = 0x400 },', "", "the PLL is switched on before its source"),
        (M33, "set = 0x5, wait = 0xF, equals = 0x5", "set = 0x4", "boot leaves the flash at 4 wait states"),
        (M0PLUS, "0x3000_0802", "0x3000_0702", "boot leaves the core at 56,000,000 Hz"),
        (M0PLUS, "0x3000_0802", "0x2000_0802", "boot leaves the core at 0 Hz"),
        (M0PLUS, "clock_hz = 64_000_000\nbaud", "clock_hz = 32_000_000\nbaud", "the console runs at"),
        (M3, "0x2500_3C10", "0x2500_3A10", "boot leaves the core at 116,000,000 Hz"),
    ],
)  # fmt: skip
def test_a_wrong_clock_set_up_does_not_boot(core: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    text = load_target(core).path.read_text()
    assert old in text
    (tmp_path / "changed.toml").write_text(text.replace(old, new, 1))
    target = load_target(tmp_path / "changed.toml")
    build_toy(target, tmp_path)
    if message:
        with pytest.raises(DeviceError, match=re.escape(message)):
            sim(target, tmp_path).close()
    else:
        sim(target, tmp_path).close()


def test_64_bit_arithmetic_on_a_core_of_32_bit_products(tmp_path: Path) -> None:
    """Product, shifts, divisions and leading zeros of the support library, against Python's integers."""
    rng = np.random.default_rng(5)
    word, sign = (1 << 64) - 1, 1 << 63
    checks = []
    for i in range(24):
        a, b = (int(v) >> int(rng.integers(0, 60)) for v in rng.integers(0, word, 2, np.uint64, endpoint=True))
        b, n, low, other = b or 1, int(rng.integers(0, 64)), a & 0xFFFFFFFF, (b & 0xFFFFFFFF) or 7
        signed = a - (a & sign) * 2
        checks += [
            f"(v = {a}u, w = {b}u, v * w == {a * b & word}u)",
            f"(v = {a}u, n = {n}u, v << n == {a << n & word}u && v >> n == {a >> n}u)",
            f"(v = {a}u, n = {n}u, (uint64_t)((int64_t)v >> n) == {signed >> n & word}u)",
            f"(v = {a}u, w = {b}u, v / w == {a // b}u && v % w == {a % b}u)",
            f"(p = {low}u, q = {other}u, p / q == {low // other}u && p % q == {low % other}u)",
            f"(p = {low}u, (uint32_t)__builtin_clz(p | 1u) == {32 - (low | 1).bit_length()}u)",
        ]
        c, d = low - (low >> 31 << 32), -other if i % 2 and other < 1 << 31 else other & 0x7FFFFFFF or 7
        quotient = abs(c) // abs(d) * (1 if (c < 0) == (d < 0) else -1)
        checks.append(f"(s = {c}, t = {d}, s / t == {quotient} && s % t == {c - quotient * d})")
    variables = "volatile uint64_t v, w; volatile uint32_t n, p, q; volatile int32_t s, t;"
    peek = f"({{ {variables} {' && '.join(checks)} ? 1u : *(volatile uint32_t *)0x30000000; }})"
    target = load_target(M0PLUS)
    build_toy(target, tmp_path, defines={"TOY_PEEK": peek})
    with sim(target, tmp_path) as runner:
        feed(runner, stream(1))
    assert 8 <= static_stack_bound(tmp_path / "firmware.elf", "toy_peek").bytes < 400


def test_float_arithmetic_without_an_fpu(tmp_path: Path) -> None:
    """The toy adds floats; a core without an FPU does it by the support library: the same bits, and a stack bound."""
    target, xs = load_target(M3), stream(2)
    build_toy(target, tmp_path)
    with open_runner(tmp_path, "sim", target, symbol="toy_run") as runner:
        assert feed(runner, xs) == [z.tobytes() for z in toy_steps(xs)]
    assert static_stack_bound(tmp_path / "firmware.elf", "toy_run").bytes < 300
