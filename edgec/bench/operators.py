# SPDX-License-Identifier: Apache-2.0
"""Single operators on the simulated board: one firmware calls every case once, packing and requantization included."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgec.bench.cases import POOLS, BenchCase, units
from edgec.build import build
from edgec.device.profile import Cost, OperatorCount, total_cost
from edgec.device.runner import open_runner
from edgec.emit.model import Built
from edgec.errors import UsageError
from edgec.kernels.select import Implementation, machine_of, select_kernels
from edgec.model import Model
from edgec.operators import Case, TensorType, get_operator
from edgec.operators.record import Array
from edgec.program import Call, GeneratedFunction, Port, Program, Tensor
from edgec.schedule.memories import place_in_memories
from edgec.target import Target

_NAME = "operators"
_CONSTANTS = 0.75
"""Share of the internal flash that constants of the cases may take in one firmware."""


@dataclass(frozen=True)
class Measured:
    """Instructions and bytes read from flash of one call with all that belongs to it, exact; estimated cycles.

    `flash_bytes_fetched` is what no cache held, in whole lines, with caches as the case before left them.
    """

    kernel: str
    instructions: int
    cycles_estimate: int
    flash_bytes_read: int
    flash_bytes_fetched: int
    declined: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """A case with its kernel and, beside a hand-written one, the generated kernel of the same call."""

    case: BenchCase
    unit: str
    units: int
    ours: Measured
    generated: Measured | None

    @property
    def per_unit(self) -> float:
        """Instructions per MAC or element."""
        return self.ours.instructions / self.units


class _Functions(dict[str, GeneratedFunction]):
    """Generated C functions by name, made when one is asked for: a hand-written kernel needs none."""

    def __init__(self, calls: Mapping[str, tuple[str, Case]]) -> None:
        super().__init__()
        self._calls = calls

    def __missing__(self, name: str) -> GeneratedFunction:
        from edgec.tvm_bridge.codegen_c import generate
        from edgec.tvm_bridge.kernels import primfunc

        op, case = self._calls[name]
        self.update(generate({name: primfunc(get_operator(op), case.types, case.attrs)}))
        return self[name]


class Bench:
    """The program of some cases: what they read lies in two shared pools, what they write in one place."""

    def __init__(self, cases: Sequence[BenchCase]) -> None:
        self.cases = [(bench, bench.make()) for bench in cases]
        self._calls: dict[str, tuple[str, Case]] = {}
        self.values: dict[str, Array] = {}
        self.program = Program(_NAME, {}, [], [], [], [], functions=_Functions(self._calls))
        for i, (bench, case) in enumerate(self.cases):
            self.program.calls.append(self._call(str(i), bench.op, case))

    def _call(self, name: str, op: str, case: Case) -> Call:
        record = get_operator(op)
        names = []
        for role, array in zip(record.inputs, case.inputs, strict=True):
            names.append(self._constant(array) if role in record.constants else self._activation(array))
        self._output(name, op, case)
        function = f"{op}_{len(self._calls)}"
        self._calls[function] = op, case
        return Call(name, op, function, tuple(names), (f"{name}.y",), case.attrs)

    def _output(self, name: str, op: str, case: Case) -> None:
        kind = get_operator(op).infer(case.types, **case.attrs)
        self.program.tensors[f"{name}.y"] = Tensor(f"{name}.y", kind)

    def _constant(self, array: Array) -> str:
        name = f"constant{len(self.program.tensors)}"
        self.program.tensors[name] = Tensor(name, TensorType.of(array), array)
        return name

    def _activation(self, array: Array) -> str:
        for i, pool in enumerate(POOLS):
            if _begins(pool, array):
                return self._view(i, array)
        name = f"input{len(self.program.tensors)}"
        self._input(name, array)
        return name

    def _input(self, name: str, array: Array) -> None:
        self.values[name] = array
        self.program.tensors[name] = Tensor(name, TensorType.of(array))
        self.program.inputs.append(Port(name, name, array.shape))

    def _view(self, pool: int, array: Array) -> str:
        owner = f"pool{pool}"
        if owner not in self.values:
            self._input(owner, np.ascontiguousarray(POOLS[pool][: self._most(pool)]))
        name = f"view{len(self.program.tensors)}"
        self.program.tensors[name] = Tensor(name, TensorType.of(array), view_of=owner)
        return name

    def _most(self, pool: int) -> int:
        """Bytes of the pool that some case reads."""
        return max(a.nbytes for _, case in self.cases for a in case.inputs if _begins(POOLS[pool], a))

    def implementations(self, target: Target, *, generated: bool) -> list[Implementation]:
        """Kernels as a compile chooses them; with `generated` each hand-written call once more by the generated one."""
        program = self.program
        calls = {call.name: call for call in program.calls}
        chosen = select_kernels(program, target.cpu.features, "auto", machine_of(target))
        if not generated:
            return chosen
        again = []
        for call, implementation in zip(program.calls, chosen, strict=True):
            if implementation.kind == "hand" and call.name in calls:
                bench, case = self.cases[int(call.name)]
                copy = f"{call.name}/tvm"
                self._output(copy, bench.op, case)
                original = calls[call.name]
                again.append(Call(copy, call.op, call.function, original.inputs, (f"{copy}.y",), call.attrs))
        second = Program(_NAME, program.tensors, again, [], [], [], program.functions)
        chosen += select_kernels(second, target.cpu.features, "tvm")
        program.calls += second.calls
        return chosen


def _begins(pool: Array, array: Array) -> bool:
    """Whether the pool begins with the bytes of an array of int8 or int16."""
    small = array.dtype in (np.int8, np.int16)
    return small and np.array_equal(array.ravel().view(np.int8), pool[: array.nbytes])


def measure(cases: Sequence[BenchCase], target: Target, *, generated: bool = False) -> list[Result]:
    """Run every case once on the simulated board.

    Raises:
        UsageError: the target is not a board.
        FitError: a case does not fit its memories.
    """
    if not target.ram_spans():
        raise UsageError(f"{target.name} is not a board", hint="a target of `edgec targets` with RAM and flash")
    parts = _parts(cases, int(target.internal_flash().size * _CONSTANTS / (2 if generated else 1)))
    return [result for part in parts for result in _measure(part, target, generated)]


def _parts(cases: Sequence[BenchCase], most: int) -> list[list[BenchCase]]:
    """The cases in parts whose constants take at most `most` bytes of flash (a case larger than that is alone)."""
    parts: list[list[BenchCase]] = []
    room = 0
    for bench in cases:
        record, case = get_operator(bench.op), bench.make()
        size = sum(a.nbytes for role, a in zip(record.inputs, case.inputs, strict=True) if role in record.constants)
        if not parts or size > room:
            parts.append([])
            room = most
        parts[-1].append(bench)
        room -= size
    return parts


def _measure(cases: Sequence[BenchCase], target: Target, generated: bool) -> list[Result]:
    bench = Bench(cases)
    implementations = bench.implementations(target, generated=generated)
    plan, state, regions = place_in_memories(bench.program, implementations, target)
    built = Built(bench.program, implementations, plan, state, target, regions)
    with tempfile.TemporaryDirectory(prefix="edgec-bench-") as name:
        folder = Path(name) / "artifact"
        folder.mkdir()
        build(built, Model(onnx.ModelProto(), _NAME, "0" * 64), folder)
        with open_runner(folder, "sim", target, symbol=f"{built.prefix}_run", timing=True) as runner:
            runner.run([bench.values[p.tensor].tobytes() for p in bench.program.inputs])
            counts = runner.profile().operators
    return list(_results(bench, implementations, counts))


def _results(
    bench: Bench, implementations: Sequence[Implementation], counts: Sequence[OperatorCount]
) -> Iterator[Result]:
    parts: dict[str, list[tuple[Implementation, OperatorCount]]] = {}
    for call, implementation, count in zip(bench.program.calls, implementations, counts, strict=True):
        whose = call.name.partition(".")[0]  # a prepare step is its consumer's
        parts.setdefault(whose, []).append((implementation, count))
    for i, (case, values) in enumerate(bench.cases):
        unit, number = units(case.op, values)
        generated = parts.get(f"{i}/tvm")
        yield Result(case, unit, number, _measured(parts[str(i)]), _measured(generated) if generated else None)


def _measured(parts: Sequence[tuple[Implementation, OperatorCount]]) -> Measured:
    implementation = parts[-1][0]
    costs = [count.cost for _, count in parts if count.cost is not None]
    total: Cost = total_cost(costs)
    kernel = implementation.kernel if implementation.kind == "hand" else "generated"
    return Measured(
        kernel,
        sum(c.instructions for _, c in parts),
        total.cycles,
        sum(f.read for f in total.flash),
        sum(f.fetched for f in total.flash),
        implementation.declined,
    )


def report(results: Sequence[Result], target: Target) -> dict[str, Any]:
    """The object of `edgec bench operators --json`."""
    return {
        "target": target.name,
        "core": target.cpu.core,
        "measured_on": "simulator",
        "operators": [
            {
                "op": r.case.op,
                "shape": r.case.label,
                "unit": r.unit,
                "units": r.units,
                "kernel": r.ours.kernel,
                "declined": list(r.ours.declined),
                "instructions": r.ours.instructions,
                "instructions_per_unit": r.per_unit,
                "flash_bytes_read": r.ours.flash_bytes_read,
                "flash_bytes_fetched": r.ours.flash_bytes_fetched,
                "cycles_estimate": r.ours.cycles_estimate,
                "cycles_estimate_per_unit": r.ours.cycles_estimate / r.units,
                "generated_instructions": r.generated.instructions if r.generated else None,
                "generated_instructions_per_unit": r.generated.instructions / r.units if r.generated else None,
                "limit": r.case.limit,
                "peer": r.case.peer or None,
            }
            for r in results
        ],
    }
