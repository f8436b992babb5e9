# SPDX-License-Identifier: Apache-2.0
"""The whole compile as one list: a model goes in, an artifact comes out. Each phase is a module of that name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgec.advice import Case, advised
from edgec.artifact import MODEL_COPY, Artifact, load_artifact, new_directory
from edgec.assemble import assemble
from edgec.build import build, package_files
from edgec.emit.model import Built
from edgec.emit.package import write_package
from edgec.errors import FitError, UnsupportedError, UsageError
from edgec.front_end import features_alone
from edgec.kernels.select import Choice
from edgec.kernels.share import share_equal
from edgec.lower import lower_to_integers
from edgec.lower.attention import fuse_attention
from edgec.lower.front_end import fed_by_samples, insert_front_end, require_integers
from edgec.lower.fuse import fuse_dense
from edgec.lower.rings import with_rings
from edgec.model import Model, float_node_names, save_model, with_float_nodes
from edgec.passes.canonicalize import canonicalize
from edgec.passes.float_form import float_form
from edgec.passes.layout import device_layout
from edgec.passes.support import require_supported
from edgec.program import Program
from edgec.quantize.options import Recipe
from edgec.quantize.quantize import is_quantized, quantize
from edgec.schedule.feed import Feeding
from edgec.schedule.memories import arena_room, place_in_memories
from edgec.schedule.problem import MemoryPlan
from edgec.schedule.schedule import LEVERS, Lever, Wishes, schedule_program
from edgec.schedule.tile import Goal
from edgec.target import Target

Precision = Literal["int8", "float32"]
Samples = Mapping[str, npt.NDArray[np.float32]]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    Attributes:
        precision: "int8" quantizes a float model; "float32" leaves it in float.
        kernels: "auto" lets hand-written kernels override; "tvm" builds without a single one.
        calibration: samples of the inputs; needed to quantize a float model.
        recipe: how to quantize; the defaults without it.
        dump: directory that receives what each phase hands on, numbered.
        optimize: what the scheduler goes for: least RAM, speed, or the least RAM that costs next to no speed.
        ram: most bytes of RAM that the program may take, all counted; None for what the target has.
        feed: whether the image comes in whole, into a buffer of its own, or by rows.
        levers: what the scheduler may do; all of it but to measure what each saves.
        allow_float: whether nodes of a quantized model that have no integer form may compute in float32.
        packages: build systems (of `edgec.emit.package.LAYOUTS`) to lay the files out for.
    """

    precision: Precision = "int8"
    kernels: Choice = "auto"
    calibration: Samples | None = None
    recipe: Recipe | None = None
    dump: Path | None = None
    packages: Sequence[str] = ()
    optimize: Goal = "balanced"
    ram: int | None = None
    feed: Feeding = "whole"
    levers: Sequence[Lever] = LEVERS
    allow_float: bool = False


def compile_model(
    model: Model, target: Target, out: Path, options: Options, progress: Progress = lambda _: None
) -> Artifact:
    """Compile `model` for `target` into the directory `out`.

    Raises:
        EdgecError: see the phases; `out` is then as it was before.
    """
    dump = Dump(options.dump)
    with new_directory(out) as part:
        progress("canonicalize, quantize")
        graph = prepare(model, options, dump)  # phases 1 and 2: one form for each operator; scales
        model.notes.extend(n for n in graph.notes if n not in model.notes)  # what the phases decided is told too
        program = lower_program(graph, model, options, progress, dump)  # phases 3 and 4: integers; through TVM
        with advised(Case(model, program, target, options, make_program, progress)):
            progress("select kernels, schedule, place in memory")
            wishes = Wishes(options.optimize, arena_room(program, target, options.ram), options.levers, options.feed)
            scheduled = schedule_program(program, target, options.kernels, wishes)  # phase 5: order, tile, overlap
            program, kernels = scheduled.program, share_equal(scheduled.implementations)
            plan, state, weights = place_in_memories(
                program, kernels, target, "place" in options.levers
            )  # offsets; checked
            dump.plan("5-plan.txt", plan)
            progress("emit C, compile, link")
            save_model(with_float_nodes(graph, program.float_nodes), part / MODEL_COPY)
            built = Built(program, kernels, plan, state, target, weights, scheduled)
            build(built, model, part)  # phase 6: C, binary, manifest
            _require_ram(part, options.ram)
        for kind in options.packages:
            write_package(part, kind, built.prefix, program.name, package_files(part, built.prefix))
    return load_artifact(out)


def _require_ram(folder: Path, ram: int | None) -> None:
    """Raise FitError when the program in `folder` takes more RAM than its user allows."""
    manifest = load_artifact(folder).manifest
    total, peak = manifest["ram"]["total_bytes"], manifest["plan"]["peak_at"]
    if ram is not None and total is not None and total > ram:
        raise FitError(
            f"--ram {ram:,}: the program needs {total:,} B of RAM: over by {total - ram:,} B at {peak}",
            need=f"{total:,} B (no schedule found takes less)",
            have=f"{ram:,} B",
        )


def make_program(
    model: Model, options: Options, progress: Progress = lambda _: None, dump: Dump | None = None
) -> Program:
    """Phases 1 to 4: the program of a model, the same for every target."""
    dump = dump or Dump(None)
    progress("canonicalize, quantize")
    return lower_program(prepare(model, options, dump), model, options, progress, dump)


def lower_program(graph: Model, original: Model, options: Options, progress: Progress, dump: Dump) -> Program:
    """Phases 3 and 4 on what `prepare` made of `original`."""
    progress("lower to integer operators")
    graph = device_layout(graph)  # phase 3: images channels-last; integer operators
    if options.precision == "int8":
        graph = with_rings(fuse_attention(_integers(graph, options)))
        original.notes.extend(n for n in graph.notes if n not in original.notes)
        graph = fuse_dense(graph)
        graph = dump.model("3-integer", insert_front_end(graph, original))
    else:
        graph = dump.model("3-float", float_form(graph))
    progress("import into TVM, generate C")
    from edgec.tvm_bridge.pipeline import through_tvm  # not before it is needed: importing TVM takes seconds

    lowered = through_tvm(graph.proto)  # phase 4: Relax: legalize, fuse, generate
    dump.text("4-relax.py", lowered.relax_text)
    # What TVM fused itself has no record that counts; the graph's own products do.
    macs = sum(call.macs for call in lowered.calls) + graph.macs()
    return assemble(graph, lowered, original=fed_by_samples(original), macs=macs)


def _integers(graph: Model, options: Options) -> Model:
    return lower_to_integers(graph, allow_float=options.allow_float)


def prepare(model: Model, options: Options, dump: Dump | None = None) -> Model:
    """Phases 1 and 2: the canonical float model, quantized unless float32 is wanted.

    A model that comes quantized stays as it is.
    """
    dump = dump or Dump(None)
    require_integers(model, options.precision)
    if is_quantized(model):
        if options.precision != "int8":
            raise UsageError(f"{model.name} is quantized already", hint="compile it with --precision int8")
        floats = None if options.allow_float else float_node_names(model.proto)
        require_supported(model, options.precision, floats)
        return dump.model("2-quantized", model)
    graph = dump.model("1-canonical", canonical(model, options.precision))
    if options.precision == "float32":
        return graph
    calibration = None if options.calibration is None else features_alone(model, options.calibration)
    return dump.model("2-quantized", quantize(graph, calibration, options.recipe))


def canonical(model: Model, precision: Precision = "int8") -> Model:
    """The canonical float form of a model; raises for what this precision does not take."""
    graph = canonicalize(model)
    require_supported(graph, precision)
    _require_computed(graph)
    return graph


def _require_computed(model: Model) -> None:
    """Raise when an output is a constant, or an input or output has no elements: nothing is left to run."""
    fixed = {t.name for t in model.proto.graph.initializer}
    constant = [o.name for o in model.proto.graph.output if o.name in fixed]
    empty = [t.name for t in (*model.inputs, *model.outputs) if 0 in t.shape]
    if constant or empty:
        names = ", ".join(repr(n) for n in constant or empty)
        raise UnsupportedError(
            f"{names} {'does not depend on any input' if constant else 'has no elements'}",
            hint="leave it out of the model",
        )


@dataclass(frozen=True)
class Dump:
    """Writes what each phase hands on, when the user asked for it."""

    folder: Path | None

    def text(self, name: str, text: str) -> None:
        """Write a text file."""
        if self.folder is not None:
            self._write(self.folder, name, text.encode())

    def model(self, name: str, model: Model) -> Model:
        """Write an ONNX file; returns the model."""
        if self.folder is not None:
            self._write(self.folder, f"{name}.onnx", model.proto.SerializeToString())
        return model

    @staticmethod
    def _write(folder: Path, name: str, content: bytes) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        except OSError as error:
            raise UsageError(f"--dump: cannot write {folder / name}: {error.strerror}") from None

    def plan(self, name: str, plan: MemoryPlan) -> None:
        """Write the plan as a table: space, offset, size, live range, name."""
        rows = [f"{'space':<24} {'offset':>8} {'bytes':>8} live range   buffer"]
        for b in plan.problem.buffers:
            place = plan.placements[b.name]
            rows.append(f"{place.space:<24} {place.offset:>8} {b.size:>8} [{b.first:>4},{b.last:>4})  {b.name}")
        self.text(name, "\n".join(rows) + "\n")
