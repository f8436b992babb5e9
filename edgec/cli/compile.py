# SPDX-License-Identifier: Apache-2.0
"""`edgec compile`: ONNX -> C, firmware or host library, manifest."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgec.cli.arguments import (
    BiasCorrection,
    Calibration,
    CalibrationMethod,
    Equalization,
    Equalize,
    FrontEnd,
    InputNorm,
    InputShape,
    Json,
    Labels,
    LayerWidth,
    LayerWidths,
    MaxLoss,
    Method,
    Precision,
    State,
    StateWidths,
    read_model,
    read_recipe,
    read_samples,
)
from edgec.cli.output import count, print_json, progress

if TYPE_CHECKING:
    from edgec.artifact import Artifact

NAME = "compile"
HELP = "Compile an ONNX model (float or QDQ) into a program that is proven to fit its target."
EXAMPLE = "edgec compile model.onnx --target stm32f746 --calibration samples.npz --out build/model"


class Package(enum.StrEnum):
    """Build systems of `edgec.emit.package`."""

    PLATFORMIO = "platformio"
    ZEPHYR = "zephyr"
    ARDUINO = "arduino"
    CUBE = "cube"


class Optimize(enum.StrEnum):
    """Goals of the scheduler."""

    BALANCED = "balanced"
    RAM = "ram"
    SPEED = "speed"


class Feed(enum.StrEnum):
    """How an image comes in."""

    WHOLE = "whole"
    ROWS = "rows"


class Kernels(enum.StrEnum):
    """Which kernels may run."""

    AUTO = "auto"
    TVM = "tvm"


def command(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    target: Annotated[str, typer.Option(help="A name from `edgec targets`, or a target file.")],
    out: Annotated[Path, typer.Option("--out", help="Directory of the artifact.")],
    calibration: Calibration = None,
    precision: Annotated[Precision, typer.Option(help="int8 quantizes a float model.")] = Precision.INT8,
    state: State = None,
    input_shape: InputShape = None,
    input_norm: InputNorm = None,
    front_end: FrontEnd = None,
    method: CalibrationMethod = Method.MINMAX,
    equalize: Equalization = Equalize.AUTO,
    bias_correction: BiasCorrection = True,
    max_loss: MaxLoss = None,
    labels: Labels = None,
    state_width: StateWidths = None,
    layer_width: LayerWidths = LayerWidth.AUTO,
    kernels: Annotated[Kernels, typer.Option(help="tvm builds without hand-written kernels.")] = Kernels.AUTO,
    optimize: Annotated[
        Optimize,
        typer.Option(help="ram: the least; speed: fewest instructions; balanced: the least RAM at nearly that speed."),
    ] = Optimize.BALANCED,
    ram: Annotated[
        int | None, typer.Option(metavar="BYTES", min=0, help="Most RAM that the program may take, all counted.")
    ] = None,
    feed: Annotated[
        Feed, typer.Option(help="rows: the image comes by rows and is never held whole, where the model allows it.")
    ] = Feed.WHOLE,
    allow_float: Annotated[
        bool,
        typer.Option("--allow-float", help="Nodes of a quantized model that have no integer form compute in float32."),
    ] = False,
    package: Annotated[
        list[Package] | None,
        typer.Option(help="Lay the files out for this build system, in DIR/package-NAME (repeatable)."),
    ] = None,
    dump: Annotated[
        Path | None,
        typer.Option(help="Write what each phase hands on, numbered, here; also when a later one fails."),
    ] = None,
    json_: Json = False,
) -> None:
    """Compile a model."""
    start = time.monotonic()
    from edgec.target import load_target

    tell = progress(json_)
    chosen = load_target(target)
    tell("read the model")
    loaded = read_model(model, state, input_shape, input_norm, front_end)
    samples = read_samples(calibration, loaded)
    recipe = read_recipe(method, equalize, bias_correction, max_loss, labels, loaded, samples, state_width, layer_width)
    from edgec.compile import Options, compile_model

    packages = [p.value for p in package or ()]
    options = Options(
        precision.value, kernels.value, samples, recipe, dump=dump, packages=packages, optimize=optimize.value, ram=ram,
        feed=feed.value, allow_float=allow_float,
    )  # fmt: skip
    artifact = compile_model(loaded, chosen, out, options, tell)
    if json_:
        print_json(artifact.manifest)
    else:
        print(summary(artifact, time.monotonic() - start))
        for note in loaded.notes:
            print(f"  note   {note}")


def summary(artifact: Artifact, seconds: float | None = None) -> str:
    """One screen: RAM, flash, work, peak, what was written."""
    m = artifact.manifest
    ram, flash, plan = m["ram"], m["flash"], m["plan"]
    head = f"{m['model']['name']}  ->  {m['target']}"
    if seconds is not None:
        head = f"{head:<64} {seconds:6.1f} s"
    parts = [("arena", ram["arena_bytes"]), ("state", ram["state_bytes"]), ("stack <=", ram["stack_bytes"]),
             ("static", ram["static_bytes"])]  # fmt: skip
    spans = sum(s.size for s in artifact.target.ram_spans())
    flashes = sum(r.size for r in artifact.target.flash_regions())
    hand = sum(1 for kind in m["kernels"].values() if kind == "hand")
    declined = sorted({reason for o in m["operators"] for reason in o["declined"]})
    lines = [
        head,
        f"  RAM    {_of(ram['total_bytes'], spans)}   "
        + " · ".join(f"{n} {count(v)}" for n, v in parts if v is not None),
        f"  flash  {_of(flash['total_bytes'], flashes)}   "
        + " · ".join(
            f"{n} {count(flash[k])}"
            for n, k in (("weights", "weights_bytes"), ("code", "code_bytes"))
            if flash[k] is not None
        ),
        f"  work   {m['model']['macs']:,} MAC in {len(m['operators'])} steps, "
        f"{hand} by hand-written kernels, {len(m['operators']) - hand} generated by TVM",
        *_floats(m),
        *explain(plan, len(m["operators"])),
        *(f"  note   declined {reason}" for reason in declined),
        f"  wrote  {artifact.path}/   " + " ".join(sorted(p.name for p in artifact.path.iterdir() if p.is_file())),
    ]
    return "\n".join(lines)


def _floats(manifest: Mapping[str, Any]) -> list[str]:
    """What computes in float32 in a program of integers."""
    names = manifest.get("float_nodes", [])
    if not names:
        return []
    path = " on the state path" if any(s["dtype"] == "float32" for s in manifest["states"]) else ""
    told = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return [f"  float  {len(names)} node{'s' if len(names) != 1 else ''} in float32{path}: {told}"]


def explain(plan: Mapping[str, Any], steps: int) -> list[str]:
    """Where the peak is, how far the plan is from its bounds, and what each lever of the scheduler saved."""
    arena = plan["arena_bytes"]
    bounds = [(name, plan[f"{name}_bound_bytes"]) for name in ("placement", "schedule", "order")]
    known = " · ".join(f"{name} bound {size:,} B" for name, size in bounds if size is not None)
    lines = [
        f"  peak   {plan['placement_bound_bytes']:,} B at {plan['peak_at']} (step {plan['peak_step']} of {steps})",
        f"  bounds arena {arena:,} B · {known}",
    ]
    if plan["levers"]:
        levers = list(plan["levers"].items())
        changes = [f"{name} {b - a:+,}" for (_, a), (name, b) in pairwise(levers)]
        lines.append(f"  levers {levers[0][1]:,} B without any · {' · '.join(changes)}")
    return lines


def _of(need: int | None, have: int) -> str:
    if need is None:
        return "-"
    return f"{need:,} B of {have // 1024:,} K" if have else f"{need:,} B"
