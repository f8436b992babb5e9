# SPDX-License-Identifier: Apache-2.0
"""Running an artifact on samples, and measuring one run: what `edgec run` and `edgec profile` do."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.artifact import Artifact, ArtifactPort
from edgec.build import host_sources, includes
from edgec.device.profile import Cost, Profile
from edgec.device.runner import HOST_LIBRARY, Runner, RunnerKind, open_runner
from edgec.device.toolchain import build_host_library
from edgec.errors import DeviceError, UsageError
from edgec.model import TensorInfo
from edgec.operators.integer import quantize_to

Array = npt.NDArray[Any]


def input_infos(artifact: Artifact) -> list[TensorInfo]:
    """The inputs as sample files are checked against: ONNX names and shapes; float32 for what is quantized."""
    return [TensorInfo(p.name, p.shape, real_type(p)) for p in artifact.inputs]


def open_artifact(artifact: Artifact, runner: RunnerKind | None = None, *, timing: bool = False) -> Runner:
    """A runner for the artifact: its target's own by default, or this machine (`host-c`).

    Any artifact runs on this machine: the library is made from its C files at the first use. `timing` makes a
    simulated board count flash traffic and estimate cycles.

    Raises:
        UsageError: a simulated board for a program without a board.
        DeviceError: it does not start, or carries another program.
    """
    target = artifact.target
    kind: RunnerKind = runner or ("sim" if target.ram_spans() else "host-c")
    if kind == "sim" and not target.ram_spans():
        raise UsageError(f"{target.name} is not a board", hint="--runner host-c")
    folder = artifact.path
    if kind == "host-c" and target.ram_spans():
        folder = artifact.path / "host"
        if not (folder / HOST_LIBRARY).exists():
            _build_host(artifact, folder)
    symbol, entries = artifact.manifest["run_symbol"], artifact.manifest.get("run_entries", 1)
    opened = open_runner(folder, kind, target, symbol=symbol, entries=entries, timing=timing)
    if opened.model_id != artifact.manifest["model_id"]:
        opened.close()
        raise DeviceError(
            f"the program is not the one of {artifact.path}",
            need=artifact.manifest["model_id"][:16],
            have=opened.model_id[:16],
            hint="edgec compile makes both anew",
        )
    return opened


def _build_host(artifact: Artifact, folder: Path) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=".host.", dir=artifact.path) as part:
            sources = host_sources(artifact.path, artifact.manifest["prefix"])
            library = build_host_library(sources, includes(artifact.path), Path(part))
            folder.mkdir(exist_ok=True)
            library.replace(folder / HOST_LIBRARY)
    except OSError as error:
        raise UsageError(
            f"cannot write {folder}: {error.strerror}", hint="copy the artifact to a place of yours"
        ) from None


def run_artifact(
    artifact: Artifact,
    samples: Mapping[str, Array],
    runner: RunnerKind | None = None,
    *,
    raw: bool = False,
    tell: Callable[[int], None] = lambda _: None,
    state: bytes | None = None,
    save: Callable[[bytes], None] | None = None,
) -> dict[str, Array]:
    """Run every sample in order (the steps of one stream, from its reset values, for a stateful model).

    Args:
        artifact: the compiled program.
        samples: [S, *ONNX shape] by input name: float32, or the input's own type when it is not quantized.
        runner: "sim" or "host-c"; the target's own by default.
        raw: return the device's integers instead of real values.
        tell: called with the number of samples done.
        state: of an earlier run of the same artifact, on any runner; its stream goes on.
        save: given the state after the last step.

    Raises:
        UsageError: `state` or `save` for a model without state.
        DeviceError: the program's state is not as large as the manifest's, or as `state`.

    Returns:
        [S, *ONNX shape] by output name: float32 (its own type when it is not quantized), or the device's with `raw`.
    """
    if (state is not None or save is not None) and not artifact.stateful:
        raise UsageError(f"{artifact.manifest['model']['name']} has no state to save or restore")
    feeds = [to_device(port, samples[port.name]) for port in artifact.inputs]
    steps = len(feeds[0]) if feeds else 0
    outputs: list[list[bytes]] = [[] for _ in artifact.outputs]
    with open_artifact(artifact, runner) as device:
        device.reset()
        if state is not None or save is not None:
            _check_state_size(artifact, device)
        if state is not None:
            device.restore_state(state)
        for step in range(steps):
            for collected, result in zip(outputs, device.run([f[step].tobytes() for f in feeds]), strict=True):
                collected.append(result)
            tell(step + 1)
        if save is not None:
            save(device.save_state())
    return {
        port.name: from_device(port, b"".join(results), steps, raw)
        for port, results in zip(artifact.outputs, outputs, strict=True)
    }


def _check_state_size(artifact: Artifact, device: Runner) -> None:
    wanted = artifact.manifest["ram"]["state_bytes"]
    if device.state_bytes != wanted:
        raise DeviceError(
            "the program's state has not the size that its manifest says",
            need=f"{wanted} B",
            have=f"{device.state_bytes} B",
            hint="compile it again",
        )


def profile_artifact(
    artifact: Artifact, samples: Mapping[str, Array] | None = None, runner: RunnerKind | None = None
) -> dict[str, Any]:
    """Measure one run: exact instructions and flash traffic by operator on a simulated board, with an estimate of
    cycles (docs/cycles.md); seconds on this machine.

    Args:
        artifact: the compiled program.
        samples: the first sample is run; zeros (real 0.0) without it.

    Raises:
        DeviceError: the measured stack exceeds the static bound, or the calls are not the manifest's.
    """
    with open_artifact(artifact, runner, timing=True) as device:
        device.reset()
        feeds = []
        for port in artifact.inputs:
            real = np.zeros((1, *port.shape), real_type(port)) if samples is None else samples[port.name][:1]
            feeds.append(to_device(port, real)[0].tobytes())
        device.run(feeds)
        measured = device.profile()
    return _report(artifact, measured)


def _report(artifact: Artifact, measured: Profile) -> dict[str, Any]:
    manifest = artifact.manifest
    bound = manifest["ram"]["stack_bytes"]
    if measured.stack_bytes is not None and bound is not None and measured.stack_bytes > bound:
        raise DeviceError(
            "a run took more stack than its static bound",
            need=f"at most {bound:,} B",
            have=f"{measured.stack_bytes:,} B",
            hint="please report this: the bound is wrong",
        )
    calls = [o["symbol"] for o in manifest["operators"]]
    counted = [o.symbol for o in measured.operators]
    if measured.operators and counted != calls:
        raise DeviceError("the firmware's calls are not those of the manifest", hint="compile it again")
    counts: list[int] | list[None] = [o.instructions for o in measured.operators] or [None] * len(calls)
    costs = [o.cost for o in measured.operators] or [None] * len(calls)
    clock = artifact.target.cpu.clock_hz
    total = measured.cost
    return {
        "model": manifest["model"],
        "target": manifest["target"],
        "model_id": manifest["model_id"],
        "measured_on": measured.measured_on,
        "instructions": measured.instructions,
        "overhead": measured.overhead,
        "cycles": measured.cycles,
        "seconds": measured.seconds,
        **_estimate(total),
        "milliseconds_estimate": 1000 * total.cycles / clock if total and clock else None,
        "stack_bytes": measured.stack_bytes,
        "operators": [
            {
                "name": o["name"],
                "op": o["op"],
                "instructions": n,
                "macs": o["macs"],
                "kernel": manifest["kernels"][o["name"]],
                **_estimate(cost),
            }
            for o, n, cost in zip(manifest["operators"], counts, costs, strict=True)
        ],
    }


def _estimate(cost: Cost | None) -> dict[str, Any]:
    """What a report says of flash traffic and cycles: None where it was not measured."""
    if cost is None:
        return {"flash_bytes_read": None, "flash_bytes_fetched": None, "cycles_estimate": None}
    return {
        "flash_bytes_read": sum(f.read for f in cost.flash),
        "flash_bytes_fetched": sum(f.fetched for f in cost.flash),
        "flash": {f.region: {"bytes_read": f.read, "bytes_fetched": f.fetched} for f in cost.flash},
        "cycles_estimate": cost.cycles,
        "cycles_estimate_parts": {"issue": cost.issue, "branch": cost.branch, "memory": cost.memory},
    }


def real_type(port: ArtifactPort) -> np.dtype[Any]:
    """What a caller gives and gets: float32 for what is quantized, else the port's own type."""
    return np.dtype(port.dtype if port.scale is None else np.float32)


def to_device(port: ArtifactPort, real: Array) -> Array:
    """[S, *ONNX shape] in real values -> [S, *device shape] as the program reads it."""
    shaped = np.asarray(real, real_type(port)).reshape(-1, *port.shape)
    if port.layout:
        shaped = shaped.transpose(0, *(axis + 1 for axis in port.layout))
    shaped = np.ascontiguousarray(shaped)
    return shaped if port.scale is None else quantize_to(port.dtype, shaped, port.scale, port.zero_point or 0)


def from_device(port: ArtifactPort, data: bytes, steps: int, raw: bool) -> Array:
    """The bytes of `steps` results -> [steps, *ONNX shape] in real values, or in the device's own with `raw`."""
    values: Array = np.frombuffer(data, port.dtype).reshape(steps, *port.shape)
    if raw or port.scale is None:
        return values.copy()
    real: Array = ((values.astype(np.float64) - (port.zero_point or 0)) * port.scale).astype(np.float32)
    return real


def save_outputs(path: Path, outputs: Mapping[str, Array]) -> None:
    """Write an npz file. (numpy.savez takes no array of the name `file`.)"""
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
