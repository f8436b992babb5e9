# SPDX-License-Identifier: Apache-2.0
"""A tiling becomes a program: stages in their order, each a loop over blocks of rows and what is left after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgec.kernels.select import Implementation
from edgec.operators import TensorType, get_operator
from edgec.operators.integer import product
from edgec.program import Call, Loop, Program, RowRange, Tensor
from edgec.schedule.feed import feed_of
from edgec.schedule.row_graph import row_accesses
from edgec.schedule.rows import Work
from edgec.schedule.stages import Blocking, Stage
from edgec.schedule.tile import Tiling

Step = tuple[Call, Implementation]
Implement = Callable[[Program, Call, int, Mapping[str, str], str | None], Step]
"""The kernel of a call on a block of rows, that packs so many at a time; what it reads packed exists already, by the
input's role where other calls read it too. Then the name of the only hand-written kernel that will do, if it is one."""
Pack = Callable[[Program, Call, Implementation], Step]
"""The step that packs for a call on a block of rows what others can share; with the kernel of the whole call."""


@dataclass(frozen=True)
class _Part:
    """Blocks of a stage: `turns` of them, each `block` ticks, from tick `first` on."""

    stage: Stage
    first: int
    block: int
    turns: int


def apply(
    tiling: Tiling,
    program: Program,
    implementations: Sequence[Implementation],
    implement: Implement,
    pack: Pack,
) -> tuple[Program, list[Implementation]]:
    """The scheduled program and the kernel of every call.

    Args:
        tiling: stages over the `row_graph` of the two that follow.
        program: its kernels are selected.
        implementations: they.
        implement: chooses the kernel for a block.
        pack: makes the step that packs for several calls.
    """
    writer = _Writer(program, implementations, implement, pack)
    for stage, blocking in zip(tiling.stages, tiling.blocks, strict=True):
        writer.stage(stage, blocking)
    _overlap(tiling, writer.program)
    return writer.program, writer.implementations


class _Writer:
    """The program that grows, and what is known of the one that is cut up."""

    def __init__(
        self, program: Program, implementations: Sequence[Implementation], implement: Implement, pack: Pack
    ) -> None:
        self.calls = tuple(zip(program.calls, implementations, strict=True))
        self.implement = implement
        self.pack = pack
        self.program = replace(program, tensors=dict(program.tensors), calls=[], loops=[], in_place={}, anchors={})
        self.implementations: list[Implementation] = []
        self._names: dict[str, int] = {}

    def stage(self, stage: Stage, blocking: Blocking) -> None:
        """All calls of a stage."""
        if len(stage.works) == 1 and blocking.block == stage.ticks and not stage.members[0].by_rows:
            call, implementation = self.calls[stage.members[0].step]
            self._append(call, implementation)
            return
        turns, rest = divmod(stage.ticks, blocking.block)
        self._part(_Part(stage, 0, blocking.block, turns), blocking)
        if rest:
            self._part(_Part(stage, stage.ticks - rest, rest, 1), blocking)

    def _part(self, part: _Part, blocking: Blocking) -> None:
        """The calls of one stretch of blocks."""
        first = len(self.program.calls)
        local: dict[str, str] = {}
        last, sharing = part.stage.last_reads(blocking), part.stage.sharing(blocking)
        panels: dict[tuple[int, ...], dict[str, str]] = {}
        for i, work in enumerate(part.stage.members):
            if work.fed:
                continue
            call = self._block_call(part, work, local)
            group = sharing.get(i, ())
            if group and group not in panels:
                step, packing = self.pack(self.program, call, self.calls[work.step][1])
                self._append(step, packing)
                panels[group] = {get_operator(call.op).inputs[call.inputs.index(step.inputs[0])]: step.outputs[0]}
            whole, implementation = self.calls[work.step]
            # What is packed for one kernel is nothing to another, which may suit a block of one row better.
            only = implementation.kernel if self.program.packed.keys() & set(whole.inputs) else None
            self._append(*self.implement(self.program, call, blocking.panel, panels.get(group, {}), only))
            for value in work.rows:
                if value in local and last[value] == 2 * i + 1 and (value, 0) in work.over and work.writes in local:
                    self._take(local[value], local[work.writes])
        if part.turns > 1:
            rows = part.stage.rows(part.stage.members[-1], part.block)
            note = f"{part.turns} blocks of {rows} rows"
            self.program.loops.append(Loop(first, len(self.program.calls), part.turns, note))
        for work in part.stage.members:
            if work.fed:
                self.program.feed = feed_of(self.program, local[work.writes], self.program.loops[-1])

    def _take(self, old: str, new: str) -> None:
        """Let `new` take the bytes of `old`."""
        tensors = self.program.tensors
        if tensors[old].type.bytes == tensors[new].type.bytes:
            self.program.in_place[new] = old

    def _append(self, call: Call, implementation: Implementation) -> None:
        count = self._names[call.name] = self._names.get(call.name, 0) + 1
        self.program.calls.append(call if count == 1 else replace(call, name=f"{call.name} #{count}"))
        self.implementations.append(implementation)

    def _block_call(self, part: _Part, work: Work, local: dict[str, str]) -> Call:
        """A call on the rows of a block."""
        call = self.calls[work.step][0]
        accesses = row_accesses(self.program, call)
        inputs = tuple(
            name if access is None else self._operand(part, name, local)
            for name, access in zip(self.program.operands(call), accesses, strict=True)
        )
        rows = None
        cut = any(a is not None for a in accesses)
        if not cut and work.behind and part.block < part.stage.ticks:
            tick = self.program.tensors[call.outputs[0]].type.shape[0] // part.stage.ticks
            rows = RowRange(part.first * tick, part.block * tick if part.turns > 1 else 0)
            cut = True
        output = self._operand(part, call.outputs[0], local)
        attrs = dict(call.attrs)
        if "shape" in attrs and cut:
            attrs["shape"] = list(self.program.tensors[output].type.shape)
        macs = call.macs * part.block * part.turns // part.stage.ticks
        return replace(call, inputs=inputs, outputs=(output,), attrs=attrs, macs=macs, function="", rows=rows)

    def _operand(self, part: _Part, name: str, local: dict[str, str]) -> str:
        """The block of a tensor."""
        program, ticks = self.program, part.stage.ticks
        kind = program.tensors[name].type
        block = TensorType(_rows_of(kind, part.block, ticks), kind.dtype)
        root = program.storage(name)
        if root in part.stage.makes or root in part.stage.reads or program.tensors[program.root(name)].data is not None:
            if part.block == ticks:
                return name
            tick = kind.bytes // ticks
            step = part.block * tick if part.turns > 1 else 0
            return self._new(f"{name} rows", block, name, part.first * tick, step)
        if root not in local:
            whole = program.tensors[root].type
            elements = product(whole.shape) * part.block // ticks
            local[root] = self._new(f"{root} block", TensorType((elements,), whole.dtype))
        return self._new(f"{name} block", block, local[root])

    def _new(self, name: str, kind: TensorType, view_of: str | None = None, offset: int = 0, step: int = 0) -> str:
        unique, n = name, 2
        while unique in self.program.tensors:
            known = self.program.tensors[unique]
            if view_of is not None and known == Tensor(unique, kind, None, view_of, offset, step):
                return unique
            unique, n = f"{name}.{n}", n + 1
        self.program.tensors[unique] = Tensor(unique, kind, None, view_of, offset, step)
        return unique


def _rows_of(kind: TensorType, block: int, ticks: int) -> tuple[int, ...]:
    """The shape of a block: its leading axis that is longer than 1 cut."""
    axis = next((i for i, n in enumerate(kind.shape) if n > 1), 0)
    if kind.shape[axis] * block % ticks:
        raise ValueError(f"{kind.shape} cannot be cut into {block} of {ticks}")
    return (*kind.shape[:axis], kind.shape[axis] * block // ticks, *kind.shape[axis + 1 :])


def _overlap(tiling: Tiling, program: Program) -> None:
    """Let kept values take the bytes of values that die in the stage that makes them."""
    last = {v: i for i, stage in enumerate(tiling.stages) for v in stage.reads}
    outputs = {program.root(p.tensor) for p in program.outputs}
    for i, (stage, blocking) in enumerate(zip(tiling.stages, tiling.blocks, strict=True)):
        taken: set[str] = set()
        for old, new, _ in stage.shares:
            before = stage.begins_before(old, new, blocking)
            if last[old] == i and old not in outputs and before is not None and not {old, new} & taken:
                taken |= {old, new}
                if before == 0 and program.tensors[old].type.bytes == program.tensors[new].type.bytes:
                    program.in_place[new] = old
                else:
                    program.anchors[new] = (old, -before)
