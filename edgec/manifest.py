# SPDX-License-Identifier: Apache-2.0
"""What `manifest.json` says of a program: its figures, its plan byte by byte, its operators, constants and ports."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgec import __version__
from edgec.artifact import MODEL_COPY, SCHEMA
from edgec.device.toolchain import toolchain_version
from edgec.emit.feed import entries, row_bytes, steps_symbol
from edgec.emit.model import Built
from edgec.model import Model
from edgec.program import Port, Program
from edgec.schedule.from_program import scratch_name


def manifest(built: Built, model: Model, model_id: str, figures: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The manifest of an artifact.

    Args:
        built: the program with its plan.
        model: what it was compiled from.
        model_id: digest of its C text.
        figures: `ram` and `flash` of the linked program.
        folder: where the artifact's files lie.
    """
    program = built.program
    return {
        "schema": SCHEMA,
        "model": {
            "name": program.name,
            "sha256": model.sha256,
            "onnx_sha256": _sha256(folder / MODEL_COPY),
            "macs": program.macs,
        },
        "target": built.target.name,
        **figures,
        "plan": _plan(built),
        "kernels": {call.name: i.kind for call, i in zip(program.calls, built.implementations, strict=True)},
        "operators": list(_operators(built)),
        "float_nodes": list(program.float_nodes),
        "constants": list(_constants(built)),
        "inputs": [_port(built, p) for p in program.inputs],
        "outputs": [_port(built, p) for p in program.outputs],
        "states": [
            {
                "name": s.name,
                "output": s.output,
                "offset": built.state.offsets[s.source],
                "shape": list(program.tensors[s.source].type.shape),
                "dtype": program.tensors[s.source].type.dtype,
                "scale": s.quantization.scale if s.quantization else None,
                "zero_point": s.quantization.zero_point if s.quantization else None,
                "reset": s.reset,
                "in_place": s.in_place,
            }
            for s in program.states
        ],
        "prefix": built.prefix,
        "run_symbol": steps_symbol(built),
        "run_entries": entries(built),
        "model_id": model_id,
        "tools": {
            "edgec": __version__,
            "apache-tvm": importlib.metadata.version("apache-tvm"),
            "toolchain": toolchain_version(),
        },
    }


def _plan(built: Built) -> dict[str, Any]:
    """The three bounds, what each lever saved, and the place of every buffer."""
    plan, scheduled = built.plan, built.scheduled
    saved = dict(scheduled.saved) if scheduled else {}
    bound = scheduled.schedule_bound if scheduled else None
    if bound is not None:
        # Tilings are compared by estimates from above (scratch that shrinks with its rows): the built one may be lower.
        bound = min(bound, plan.placement_bound_bytes)
    return {
        "arena_bytes": plan.arena_bytes,
        "placement_bound_bytes": plan.placement_bound_bytes,
        "order_bound_bytes": scheduled.order_bound if scheduled else None,
        "schedule_bound_bytes": bound,
        "peak_at": plan.peak_at,
        "peak_step": plan.peak_step,
        "levers": saved and {**saved, "place": plan.arena_bytes},
        "spaces": {name: size for name, size in plan.arena_bytes_by_space.items() if size},
        "loops": [
            {"first": loop.first, "last": loop.last, "turns": loop.count, "note": loop.note}
            for loop in built.program.loops
        ],
        "buffers": list(_buffers(built)),
    }


def _buffers(built: Built) -> Iterator[dict[str, Any]]:
    """Every buffer of the arena; `first` and `last` are a half-open range of steps, offsets are within the space."""
    program = built.program
    scratch = {
        scratch_name(step, i): "scratch"
        for step, implementation in enumerate(built.implementations)
        for i in range(len(implementation.scratch))
    }
    ports = {program.storage(p.tensor): "output" for p in program.outputs}
    ports |= {program.storage(p.tensor): "input" for p in program.inputs}
    if program.feed is not None:
        ports[program.storage(program.feed.strip)] = "input"
    later = _written_in_place(program)
    for buffer in built.plan.problem.buffers:
        place = built.plan.placements[buffer.name]
        name, kind = buffer.name, ports.get(buffer.name, "tensor")
        if buffer.name in scratch:
            kind, name = "scratch", f"scratch of {program.calls[buffer.first].name}"
        yield {
            "name": name,
            "kind": kind,
            "space": place.space,
            "offset": place.offset,
            "bytes": buffer.size,
            "first": buffer.first,
            "last": buffer.last,
            "inside": buffer.anchor[0] if buffer.anchor else None,
            "then": later.get(buffer.name, []),
        }


def _written_in_place(program: Program) -> dict[str, list[dict[str, Any]]]:
    """Tensors that take over the bytes of a buffer, with the step that writes them, by the buffer's name."""
    found: dict[str, list[dict[str, Any]]] = {}
    seen: set[str] = set()
    for step, call in enumerate(program.calls):
        for name in map(program.root, call.outputs):
            if name in program.in_place and name not in seen:
                seen.add(name)
                found.setdefault(program.storage(name), []).append({"name": name, "step": step})
    return found


def _operators(built: Built) -> Iterator[dict[str, Any]]:
    for step, (call, i) in enumerate(zip(built.program.calls, built.implementations, strict=True)):
        loop = built.program.loop_at(step)
        yield {
            "name": call.name,
            "op": call.op,
            "macs": call.macs,
            "turns": loop.count if loop else 1,
            "kernel": i.kernel,
            "symbol": i.function if i.kind == "hand" else f"{built.prefix}_{i.function}",
            "declined": list(i.declined),
        }


def _constants(built: Built) -> Iterator[dict[str, Any]]:
    """What lies in flash beside code, in the order of first use, each with the first operator that reads it."""
    seen: set[str] = set()
    for call, implementation in zip(built.program.calls, built.implementations, strict=True):
        for name, packed in implementation.constants.items():
            if name not in seen:
                seen.add(name)
                region = built.weights_region.get(name)
                yield {
                    "name": name,
                    "bytes": packed.values.nbytes,
                    "region": region.name if region else None,
                    "operator": call.name,
                }


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _port(built: Built, port: Port) -> dict[str, Any]:
    q, feed = port.quantization, built.program.feed
    fed = {}
    if feed is not None and feed.tensor == port.tensor:
        fed = {"rows": feed.rows, "row_bytes": row_bytes(built, feed), "rows_per_turn": feed.rows_per_turn}
    return {
        "name": port.name,
        "shape": list(port.onnx_shape),
        "layout": list(port.layout),
        "dtype": built.program.tensors[port.tensor].type.dtype,
        "scale": q.scale if q else None,
        "zero_point": q.zero_point if q else None,
        **({"feed": fed} if fed else {}),
    }
