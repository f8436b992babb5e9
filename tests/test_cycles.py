# SPDX-License-Identifier: Apache-2.0
"""The cycle estimate against published figures and a second cache model; flash traffic against counts by hand."""

from __future__ import annotations

import ctypes
import subprocess
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.device.board_sim.timing import Cost, Machine, machine, native_library
from edgec.device.cycles import Cache, Pipeline, TimedRegion, TimingModel, timing_model
from edgec.device.profile import OperatorCount, Profile
from edgec.device.runner import open_runner
from edgec.device.toolchain import cpu_flags, zig_binary
from edgec.errors import UsageError
from edgec.target import list_targets, load_target
from tests.command_line import done
from tests.conftest import Compiled
from tests.toy_model import BYTES, build_toy

F746, F407 = load_target("stm32f746"), load_target("stm32f407")
SINGLE, DUAL = 0, 1
COPIES = 16

# A body that is repeated in a straight line, and cycles for one of its copies.
# Measured on Cortex-M7: [q] quinapalus.com/cm7cycles.html (STM32H730), [j] github.com/jnk0le/random, pipeline cycle
# test, doc/cortex_m7.md (STM32H743).
DUAL_FACTS = {
    "independent additions [q]": ("".join(f"add r{i}, r{i}, #1\n" for i in range(8)), 4),
    "dependent additions [q]": ("add r0, r0, #1\n" * 8, 8),
    "a chain of carries [q]": ("adcs r0, r0, r1\n adcs r2, r2, r3\n", 2),
    "loads from alternating banks [j]": ("".join(f"ldr r{i}, [r9, #{4 * i}]\n" for i in range(8)), 4),
    "loads from one bank [j]": ("".join(f"ldr r{i}, [r9, #{8 * i}]\n" for i in range(4)), 4),
    "a word that is used by the next addition [j]": (
        "".join(f"ldr r{2 * i}, [r9, #{8 * i}]\n add r{2 * i + 1}, r{2 * i}, #1\n" for i in range(4)),
        4,
    ),
    "a load beside an addition [q]": ("ldr r0, [r9]\n adc r1, r2, r3\n", 1),
    "a pointer that is followed [q]": ("ldr r0, [r0]\n", 3),
    "independent multiplications [q]": ("".join(f"smull r{2 * i}, r{2 * i + 1}, r10, r11\n" for i in range(4)), 4),
    "dependent multiplications [q]": ("mul r0, r0, r1\n", 2),
    "a sum of products [j]": ("smlad r0, r1, r2, r0\n", 1),
    "a long sum of products [q]": ("smlald r0, r1, r10, r11\n", 1),
    "a multiplication beside an addition [q]": ("mla r0, r1, r2, r0\n add r3, r4, r5\n", 1),
    "stores [j]": ("".join(f"str r{i}, [r9, #{4 * i}]\n" for i in range(4)), 4),
    "a load beside a store [j]": ("ldr r0, [r9]\n str r2, [r10]\n ldr r1, [r9, #8]\n str r3, [r10, #8]\n", 2),
    "a store of what was just loaded [j]": ("ldr r0, [r9]\n str r0, [r10]\n", 1),
    "a multiplication and a store [j]": ("mul r0, r1, r2\n str r3, [r9]\n", 2),
    "four registers at once [j]": ("ldm r9, {r0, r1, r2, r3}\n", 2),
    "two registers at once [j]": ("ldrd r0, r1, [r9]\n", 1),
    "extensions do not pair [j]": ("uxtb r0, r1\n uxtb r2, r3\n", 2),
    "an extension beside a product [j]": ("sxtb16 r0, r1\n smlad r2, r3, r4, r2\n", 1),
    "two shifted operands [j]": ("add r0, r1, r2, lsl #3\n add r3, r4, r5, lsl #3\n", 2),
    "a shifted operand beside a plain one [j]": ("add r0, r1, r2, lsl #3\n add r3, r4, r5\n", 1),
    "a constant of 32 bits [j]": ("movw r0, #1234\n movt r0, #4321\n", 1),
    "floats: independent additions [q]": ("vadd.f32 s0, s1, s2\n vadd.f32 s3, s4, s5\n vadd.f32 s6, s7, s8\n", 3),
    "floats: dependent additions [q]": ("vadd.f32 s0, s0, s1\n", 3),
    "floats: a sum of products [j]": ("vfma.f32 s0, s1, s2\n", 3),
    "floats: division [j]": ("vdiv.f32 s0, s1, s2\n", 16),
    "floats: square root [j]": ("vsqrt.f32 s0, s1\n", 14),
}

# Cortex-M4 Technical Reference Manual (DDI 0439), tables 3-1 and 7-1 and section 3.3.2, no wait states.
SINGLE_FACTS = {
    "arithmetic": ("add r0, r1, r2; sub r3, r4, #5; and r0, r1, r2, lsl #3; lsls r0, r1, #2; cmp r1, r2", 5),
    "bit fields and extensions": ("ubfx r0, r1, #3, #4; uxtb r2, r3; sxtab16 r0, r1, r2; rev r4, r5; clz r0, r1", 5),
    "multiplication": ("mul r0, r1, r2; mla r3, r4, r5, r6; smull r0, r1, r2, r3; smlal r4, r5, r6, r7", 4),
    "the DSP set": ("smlad r0, r1, r2, r0; smmulr r3, r4, r5; qadd r0, r1, r2; uadd8 r3, r4, r5; ssat r0, #8, r1", 5),
    "a load": ("ldr r0, [r9]; add r1, r2, r3", 3),
    "loads in a row": ("ldr r0, [r9, r5]; ldr r1, [r9]; ldr r2, [r9, #4]; add r3, r4, r4", 5),
    "an address that was just loaded": ("ldr r0, [r9]; ldr r1, [r0]; add r3, r4, r4", 5),
    "a store": ("str r0, [r9, #4]; add r1, r2, r3", 2),
    "several registers": ("ldm r9, {r0, r1, r2}; stm r9, {r0, r1}; ldrd r2, r3, [r9]; push {r0, r1, r2, r3}", 15),
    "floats": ("vadd.f32 s0, s1, s2; vmul.f32 s3, s4, s5; vmla.f32 s6, s7, s8; vdiv.f32 s9, s10, s11", 19),
    "floats: a result at once": ("vadd.f32 s0, s1, s2; vadd.f32 s0, s0, s2; vmov s4, r0", 4),
    "floats: memory": ("vldr s0, [r9]; add r0, r1, r2; vldmia r9, {s2, s3, s4}; vsqrt.f32 s9, s10", 21),
}  # fmt: skip

# Cortex-M3 Technical Reference Manual (DDI 0337), table 3-1: as the M4 but for multiplication (here 4 of "3 to 5" and 6
# of "4 to 7" for 64 bits); Cortex-M0+ Technical Reference Manual (DDI 0484), table 3-1, with the fast multiplier.
SMALL_FACTS = {
    "a product": ("muls r0, r1, r0", 1, 1),
    "a sum of products": ("mla r3, r4, r5, r6", 2, None),
    "long products": ("smull r0, r1, r2, r3; umlal r4, r5, r6, r7", 4 + 6, None),
    "arithmetic": ("adds r0, r1, r2; lsls r3, r4, #5; cmp r0, r1; uxtb r2, r3; mov r8, r1", 5, 5),
    "loads": ("ldr r0, [r1]; ldrb r2, [r3, r4]; adds r5, r5, #1", 2 + 1 + 1, 2 + 2 + 1),
    "a store": ("str r0, [r1, #4]; adds r2, r2, #1", 2, 3),
    "several registers": ("ldm r1!, {r2, r3, r4}; push {r4, r5}", 4 + 3, 4 + 3),
}


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(native_library()))


@pytest.fixture(scope="module")
def snippets(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], tuple[bytes, bytes]]:
    """Code of every fact, once and COPIES times, assembled together."""
    folder = tmp_path_factory.mktemp("snippets")
    named = {
        (core, name): text
        for core, facts in ((DUAL, DUAL_FACTS), (SINGLE, SINGLE_FACTS), (Pipeline.M3, SMALL_FACTS))
        for name, (text, *_) in facts.items()
    }
    lines = [".syntax unified", ".thumb", ".text"]
    for i, text in enumerate(named.values()):
        body = text + "\n"
        lines += [f".global s{i}", f"s{i}:", body, f".global t{i}", f"t{i}:", body * COPIES, f".global e{i}", f"e{i}:"]
    (folder / "s.S").write_text("\n".join(lines) + "\n")
    command = [zig_binary(), "clang", *cpu_flags(F746.cpu), "-c", folder / "s.S", "-o", folder / "s.o"]
    subprocess.run(command, check=True)
    with (folder / "s.o").open("rb") as file:
        elf = ELFFile(file)
        code = elf.get_section_by_name(".text").data()
        at = {s.name: s["st_value"] & ~1 for s in elf.get_section_by_name(".symtab").iter_symbols()}
    return {key: (code[at[f"s{i}"] : at[f"t{i}"]], code[at[f"t{i}"] : at[f"e{i}"]]) for i, key in enumerate(named)}


def cycles(library: ctypes.CDLL, code: bytes, core: int) -> int:
    end = ctypes.c_uint8()
    return int(library.timing_block(code, len(code), core, ctypes.byref(end), None))


@pytest.mark.parametrize("fact", DUAL_FACTS)
def test_pairs_issue_as_measured_on_a_cortex_m7(
    library: ctypes.CDLL, snippets: dict[tuple[int, str], tuple[bytes, bytes]], fact: str
) -> None:
    once, often = snippets[DUAL, fact]
    steady = (cycles(library, often, DUAL) - cycles(library, once, DUAL)) / (COPIES - 1)
    assert steady == pytest.approx(DUAL_FACTS[fact][1], abs=0.1)


@pytest.mark.parametrize("fact", SINGLE_FACTS)
def test_straight_code_takes_what_the_manual_of_the_cortex_m4_says(
    library: ctypes.CDLL, snippets: dict[tuple[int, str], tuple[bytes, bytes]], fact: str
) -> None:
    code, expected = snippets[SINGLE, fact][0], SINGLE_FACTS[fact][1]
    assert cycles(library, code, SINGLE) == expected


@pytest.mark.parametrize("fact", SMALL_FACTS)
def test_straight_code_takes_what_the_manuals_of_the_smaller_cores_say(
    library: ctypes.CDLL, snippets: dict[tuple[int, str], tuple[bytes, bytes]], fact: str
) -> None:
    code = snippets[Pipeline.M3, fact][0]
    _, on_m3, on_m0plus = SMALL_FACTS[fact]
    assert cycles(library, code, Pipeline.M3) == on_m3
    assert on_m0plus is None or cycles(library, code, Pipeline.M0PLUS) == on_m0plus


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([n for n in SINGLE_FACTS if not n.startswith("floats: a result")]), max_size=12))
def test_straight_code_on_a_cortex_m4_takes_the_sum_of_its_parts(
    library: ctypes.CDLL, snippets: dict[tuple[int, str], tuple[bytes, bytes]], parts: list[str]
) -> None:
    """No part ends with a load or a result that the next one takes."""
    code = b"".join(snippets[SINGLE, name][0] for name in parts)
    assert cycles(library, code, SINGLE) == sum(SINGLE_FACTS[name][1] for name in parts)


def test_no_more_than_two_instructions_issue_in_a_cycle(
    library: ctypes.CDLL, snippets: dict[tuple[int, str], tuple[bytes, bytes]]
) -> None:
    for once, often in snippets.values():
        for code in (once, often):
            assert cycles(library, code, DUAL) * 8 >= len(code)  # an instruction is at most 4 bytes long


def test_branches(library: ctypes.CDLL) -> None:
    direct, indirect = 1, 2
    branch = library.timing_branch
    # Cortex-M4: one cycle and the refill of the pipeline; a delay loop `subs, bne` of 3 cycles is the well-known case.
    assert branch(SINGLE, direct, 100, 100, 0) == 0
    assert branch(SINGLE, direct, 100, 96, 0) == 1
    assert branch(SINGLE, direct, 100, 98, 1) == 2  # a wide instruction across two words
    assert branch(SINGLE, indirect, 100, 200, 0) == 2
    assert branch(Pipeline.M0PLUS, direct, 100, 98, 1) == branch(Pipeline.M0PLUS, indirect, 100, 200, 0) == 1
    # Cortex-M7: a loop of many turns costs one wrong prediction at its end [j: 8 cycles].
    library.timing_forget_branches()
    assert sum(branch(DUAL, direct, 100, 40, 0) for _ in range(99)) == 0
    assert branch(DUAL, direct, 100, 100, 0) == 8
    assert branch(DUAL, direct, 100, 40, 0) == 0  # the next run of the loop is expected again
    assert [branch(DUAL, indirect, 200, to, 0) for to in (500, 500, 600)] == [8, 0, 8]


# --- caches


def model(first: int, next_: int, code: Cache | None, data: Cache | None, *, dual: bool, prefetch: bool) -> TimingModel:
    regions = (
        TimedRegion("ram", 0x2000_0000, 0x2000_1000, False, False, 0, 0),
        TimedRegion("flash", 0x0800_0000, 0x0800_1000, True, True, first, next_),
    )
    return TimingModel(Pipeline.DUAL if dual else Pipeline.SINGLE, prefetch, regions, code, data)


def trace_cost(library: ctypes.CDLL, made: Machine, trace: Sequence[tuple[bool, int, int]]) -> Cost:
    """Cost of (fetch, address, bytes) one after the other, from cold caches."""
    cost = Cost()
    library.timing_forget_memory()
    for fetch, address, size in trace:
        if fetch:
            library.timing_fetch(ctypes.byref(made), ctypes.byref(cost), address, size, 3)
        else:
            library.timing_data(ctypes.byref(made), ctypes.byref(cost), address, size, 0)
    return cost


addresses = st.integers(0x0800_0000, 0x0800_01FF)
traces = st.lists(st.tuples(st.booleans(), addresses, st.sampled_from([1, 2, 4, 8, 24])), max_size=200)
shapes = st.sampled_from([Cache(32, 4, 2), Cache(32, 1, 4), Cache(16, 1, 8), Cache(32, 2, 1)])


@settings(max_examples=200, deadline=None)
@given(traces, shapes, shapes)
def test_caches_hold_what_a_second_model_holds(
    library: ctypes.CDLL, trace: list[tuple[bool, int, int]], code: Cache, data: Cache
) -> None:
    sets: dict[tuple[bool, int], OrderedDict[int, None]] = {}
    misses = {True: 0, False: 0}
    split = 0
    for fetch, address, size in trace:
        shape = code if fetch else data
        for line in dict.fromkeys(a // shape.line for a in range(address, address + size)):
            held = sets.setdefault((fetch, line % shape.sets), OrderedDict())
            if line in held:
                held.move_to_end(line)
                continue
            misses[fetch] += 1
            held[line] = None
            if len(held) > shape.ways:
                held.popitem(last=False)
        split += not fetch and address % min(size & -size, 4) != 0
    cost = trace_cost(library, machine(model(10, 10, code, data, dual=True, prefetch=False)), trace)
    assert cost.memory == 10 * sum(misses.values()) + 3 * split
    assert cost.fetched[0] == data.line * misses[False]
    assert cost.read[0] == sum(size for fetch, _, size in trace if not fetch)


@settings(max_examples=200, deadline=None)
@given(traces, shapes, st.integers(0, 12), st.integers(0, 12), st.booleans())
def test_slower_memory_never_costs_less(
    library: ctypes.CDLL, trace: list[tuple[bool, int, int]], cache: Cache, wait: int, more: int, ahead: bool
) -> None:
    for shape in (cache, None):
        slow, fast = (
            trace_cost(library, machine(model(w, w, shape, shape, dual=False, prefetch=ahead)), trace)
            for w in (wait + more, wait)
        )
        assert slow.memory >= fast.memory
        assert list(slow.read) == list(fast.read)


def test_a_stream_pays_once_a_line_and_less_where_lines_follow(library: ctypes.CDLL) -> None:
    stream = [(False, 0x0800_0000 + 4 * i, 4) for i in range(64)]
    cost = trace_cost(library, machine(model(312, 192, None, Cache(32, 32, 4), dual=True, prefetch=False)), stream)
    assert (cost.memory, cost.fetched[0], cost.read[0]) == (312 + 7 * 192, 256, 256)
    uncached = trace_cost(library, machine(model(5, 5, None, None, dual=False, prefetch=False)), stream)
    assert (uncached.memory, uncached.fetched[0]) == (5 * 64, 256)


@pytest.mark.parametrize("name", [n for n in list_targets() if load_target(n).memory])
def test_every_board_has_a_model(name: str) -> None:
    made = timing_model(load_target(name))
    assert (made.core == Pipeline.DUAL) == (load_target(name).cpu.core == "cortex-m7")
    assert made.code is not None
    assert made.data is not None
    flash = [r for r in made.regions if r.flash]
    assert flash
    assert all(r.cached and r.first >= r.following > 0 for r in flash)
    fastest = min(load_target(name).memory, key=lambda r: r.wait_states)
    assert next(r for r in made.regions if r.name == fastest.name).first == 0
    assert machine(made).region_count == len(made.regions)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("accelerator = { line = 24, code_lines = 64, data_lines = 8, prefetch = 1 }", "24 is not a power of two"),
        ("accelerator = { line = 16, code_lines = 64, prefetch = 1 }", "data_lines: missing"),
        ("accelerator = { line = 16, code_lines = 0, data_lines = 8, prefetch = 1 }", "code_lines: 0 is out of range"),
        ("line_cycles = { first = 312 }", "next: missing"),
        ("line_cycles = { first = -1, next = 2 }", "first: -1 is out of range"),
        ("line_cycles = { first = 1, next = 2, last = 3 }", "last: unknown key"),
    ],
)
def test_a_target_file_with_wrong_timing_is_refused(written: str, told: str, tmp_path: Path) -> None:
    text = F746.path.read_text().replace("wait_states = 7 }", f"wait_states = 7, {written} }}")
    assert written in text
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(UsageError, match=told):
        load_target(tmp_path / "wrong.toml")


# --- on the board

# Loads of every form, from flash: 4 + 4 + 2 + 1 + 1 + 2 + 8 + 12 + 8 + 4 + 8 + 12 + 4 + 4 bytes.
LOADS = """
movw r0, #0x0000
movt r0, #{high:#x}
mov r1, #8
mov r4, r0
mov r5, r0
ldr r2, [r0]
ldr.w r2, [r0, #64]
ldrh r2, [r0, #2]
ldrb r2, [r0, #3]
ldrsb r2, [r0, r1]
ldrsh.w r2, [r0, r1, lsl #2]
ldrd r2, r3, [r0, #16]
ldm r0, {{r2, r3, r6}}
ldmia r4!, {{r2, r3}}
ldr r2, [r5], #4
vldr d0, [r0]
vldmia r0, {{s0, s1, s2}}
cmp r0, r0
it ne
ldrne r2, [r0]
it eq
ldreq r2, [r0]
add r5, r0, #64
ldr r2, [r5, #-4]
str r2, [sp, #-4]
ldr r2, [sp, #-4]
"""
BYTES_LOADED = 4 + 4 + 2 + 1 + 1 + 2 + 8 + 12 + 8 + 4 + 8 + 12 + 4 + 4


def profiled(folder: Path, name: str, *, timing: bool = True) -> tuple[Profile, bytes]:
    with open_runner(folder, "sim", load_target(name), symbol="toy_run", timing=timing) as runner:
        outputs = runner.run([bytes(range(BYTES % 256)) + bytes(BYTES - BYTES % 256)])
        return runner.profile(), outputs[0]


def peek(profile: Profile) -> OperatorCount:
    return next(o for o in profile.operators if o.symbol == "toy_peek")


@pytest.mark.parametrize(
    ("name", "region", "origin"),
    [("stm32f746", "flash", 0x0800), ("stm32f407", "flash", 0x0800), ("stm32f746g-disco", "qspi", 0x9000)],
)
def test_bytes_read_from_flash_are_counted_by_region(name: str, region: str, origin: int, tmp_path: Path) -> None:
    text = LOADS.strip().format(high=origin).replace("\n", "\\n")
    clobbers = ", ".join(f'"{r}"' for r in ("r0", "r1", "r2", "r3", "r4", "r5", "r6", "d0", "d1", "cc", "memory"))
    build_toy(
        load_target(name), tmp_path, defines={"TOY_PEEK": f'({{ __asm volatile("{text}" ::: {clobbers}); 1u; }})'}
    )
    profile, outputs = profiled(tmp_path, name)
    plain, same = profiled(tmp_path, name, timing=False)
    cost = peek(profile).cost
    assert cost is not None
    traffic = {f.region: f for f in cost.flash}
    assert traffic[region].read == BYTES_LOADED
    line = 16 if name == "stm32f407" else 32
    assert traffic[region].fetched == line * len({a // line for a in (*range(24), *range(32, 34), *range(60, 68))})
    assert all(f.read == 0 for f in cost.flash if f.region != region)
    assert plain.cost is None
    assert outputs == same
    assert (profile.instructions, profile.overhead) == (plain.instructions, plain.overhead)
    assert [o.instructions for o in profile.operators] == [o.instructions for o in plain.operators]
    total = profile.cost
    assert total is not None
    assert total.cycles == total.issue + total.branch + total.memory
    assert total.issue >= (profile.instructions or 0) / 2


def test_an_estimate_is_repeatable_and_grows_with_wait_states(tmp_path: Path) -> None:
    build_toy(F746, tmp_path / "toy")
    seen = []
    for wait in (7, 7, 9):
        text = F746.path.read_text()
        if wait != 7:
            text = text.replace(
                "wait_states = 7 }", f"wait_states = 7, line_cycles = {{ first = {wait + 4}, next = {wait + 4} }} }}"
            )
        (tmp_path / "target.toml").write_text(text)
        cost = profiled(tmp_path / "toy", str(tmp_path / "target.toml"))[0].cost
        assert cost is not None
        seen.append(cost)
    assert seen[0] == seen[1]
    assert seen[2].memory > seen[0].memory
    assert (seen[2].issue, seen[2].branch, seen[2].flash) == (seen[0].issue, seen[0].branch, seen[0].flash)


def test_a_report_states_traffic_and_an_estimate_for_every_operator(patches_f746: Compiled) -> None:
    report = done("profile", patches_f746.path, "--json").json
    operators = report["operators"]
    assert sum(report["cycles_estimate_parts"].values()) == report["cycles_estimate"]
    assert report["milliseconds_estimate"] == pytest.approx(report["cycles_estimate"] / 216_000)
    for key in ("flash_bytes_read", "flash_bytes_fetched"):
        of_regions = sum(region[key.removeprefix("flash_")] for region in report["flash"].values())
        assert of_regions == report[key]
        assert 0 < sum(o[key] for o in operators) <= report[key]  # the rest is the run function's own
    for o in operators:
        assert o["cycles_estimate"] >= o["instructions"] / 2
    dense = [o for o in operators if o["op"] == "linear_s8"]
    assert dense
    assert all(o["flash_bytes_read"] >= 32 for o in dense)  # weights and requantization lie in flash
    text = done("profile", patches_f746.path).out
    assert "an estimate of" in text
    assert "cycles, estimate" in text
    host = done("profile", patches_f746.path, "--runner", "host-c", "--json").json
    assert [host[k] for k in ("flash_bytes_read", "cycles_estimate", "milliseconds_estimate")] == [None] * 3
