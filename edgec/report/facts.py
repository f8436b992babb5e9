# SPDX-License-Identifier: Apache-2.0
"""What a report tells, read from an artifact's manifest and a profile of one run; pages only print it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgec.artifact import Artifact
from edgec.errors import UsageError

PROFILE = "profile.json"
"""A profile beside the manifest: what `edgec profile DIR --json` printed."""
DRIFT = "drift.json"
"""Drift beside the manifest, where `edgec verify DIR` leaves it for a stateful program."""


@dataclass(frozen=True)
class Buffer:
    """A buffer of the arena: bytes `[offset, offset + size)` of `space` at the steps `[first, last)`.

    `inside` is the buffer whose dying bytes it begins in; `then` are the tensors that take its bytes over, each with
    the step that writes them.
    """

    name: str
    kind: str
    space: str
    offset: int
    size: int
    first: int
    last: int
    inside: str | None
    then: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Operator:
    """One step of the program, all turns of its loop together; what was not measured is None."""

    step: int
    name: str
    op: str
    kernel: str
    kind: str
    turns: int
    macs: int
    instructions: int | None
    cycles: int | None
    flash_read: int | None
    flash_fetched: int | None

    @property
    def layer(self) -> str:
        """The part of the model that it belongs to, from its name."""
        return layer_of(self.name)


@dataclass(frozen=True)
class Constant:
    """An array in flash, with the first operator that reads it."""

    name: str
    size: int
    region: str | None
    operator: str

    @property
    def padded(self) -> int:
        """Bytes that it takes: arrays are 4-byte aligned."""
        return -(-self.size // 4) * 4


@dataclass(frozen=True)
class Loop:
    """Steps `[first, last)` that run `turns` times."""

    first: int
    last: int
    turns: int
    note: str


@dataclass(frozen=True)
class Facts:
    """An artifact as a report sees it.

    Attributes:
        folder: name of its directory.
        manifest: the artifact's.
        profile: of one run, as `edgec profile --json` has it, or None.
        ram_have, flash_have: bytes that the target has; 0 for one without memories.
        clock_hz: of the target's core.
        drift: how far a stream is from float step by step, as `edgec verify` found it, or None.
    """

    folder: str
    manifest: Mapping[str, Any]
    profile: Mapping[str, Any] | None
    ram_have: int
    flash_have: int
    clock_hz: int | None
    drift: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """The model on its target."""
        return f"{self.manifest['model']['name']} on {self.manifest['target']}"

    @cached_property
    def plan(self) -> Mapping[str, Any]:
        """The manifest's plan."""
        plan: Mapping[str, Any] = self.manifest["plan"]
        return plan

    @cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """Every buffer of the arena."""
        return tuple(
            Buffer(
                b["name"], b["kind"], b["space"], b["offset"], b["bytes"], b["first"], b["last"], b["inside"],
                tuple((t["name"], t["step"]) for t in b["then"]),
            )
            for b in self.plan["buffers"]
        )  # fmt: skip

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        """Stretches of steps that repeat."""
        return tuple(Loop(x["first"], x["last"], x["turns"], x["note"]) for x in self.plan["loops"])

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """Every step, in order."""
        listed = self.manifest["operators"]
        measured: Sequence[Mapping[str, Any]] = self.profile["operators"] if self.profile else [{}] * len(listed)
        return tuple(
            Operator(
                step,
                o["name"],
                o["op"],
                o["kernel"],
                self.manifest["kernels"][o["name"]],
                o["turns"],
                o["macs"],
                p.get("instructions"),
                p.get("cycles_estimate"),
                p.get("flash_bytes_read"),
                p.get("flash_bytes_fetched"),
            )
            for step, (o, p) in enumerate(zip(listed, measured, strict=True))
        )

    @cached_property
    def constants(self) -> tuple[Constant, ...]:
        """Every array in flash."""
        return tuple(Constant(c["name"], c["bytes"], c["region"], c["operator"]) for c in self.manifest["constants"])

    def measured(self, key: str) -> Any:
        """A figure of the whole run, None where it was not measured."""
        return self.profile.get(key) if self.profile else None

    def live(self, space: str) -> list[int]:
        """Bytes of `space` in use at each step; what buffers share counts once."""
        return [
            _covered(
                [(b.offset, b.offset + b.size) for b in self.buffers if b.space == space and b.first <= s < b.last]
            )
            for s in range(max(1, len(self.operators)))
        ]


def read_facts(artifact: Artifact, profile: Mapping[str, Any] | None = None) -> Facts:
    """The facts of an artifact.

    Args:
        artifact: the compiled program.
        profile: of a run of it (`edgec.run.profile_artifact`, `stored_profile`), or None.

    Raises:
        UsageError: the artifact is of a version that did not write its plan.
    """
    if not {"buffers", "loops", "levers"} <= artifact.manifest["plan"].keys() or "constants" not in artifact.manifest:
        raise UsageError(f"{artifact.path}: the manifest does not hold the plan", hint="compile it again")
    target = artifact.target
    return Facts(
        artifact.path.resolve().name,
        artifact.manifest,
        profile,
        sum(s.size for s in target.ram_spans()),
        sum(r.size for r in target.flash_regions()),
        target.cpu.clock_hz,
        _stored_drift(artifact),
    )


def _stored_drift(artifact: Artifact) -> Mapping[str, Any] | None:
    path = artifact.path / DRIFT
    if not path.exists():
        return None
    hint = f"edgec verify {artifact.path} --steps 10000"
    try:
        drift: Mapping[str, Any] = json.loads(path.read_text())
        same = drift["model_id"] == artifact.manifest["model_id"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path} is not what `edgec verify` writes", hint=hint) from None
    return drift if same else None


def stored_profile(artifact: Artifact) -> Mapping[str, Any] | None:
    """The profile that lies beside the manifest, None if there is none.

    Raises:
        UsageError: it is no profile, or one of another program.
    """
    path = artifact.path / PROFILE
    if not path.exists():
        return None
    hint = f"edgec profile {artifact.path} --json > {path}"
    try:
        profile: Mapping[str, Any] = json.loads(path.read_text())
        same = profile["model_id"] == artifact.manifest["model_id"]
        names = [o["name"] for o in profile["operators"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{path} is not what `edgec profile --json` prints", hint=hint) from None
    if not same or names != [o["name"] for o in artifact.manifest["operators"]]:
        raise UsageError(f"{path} is of another program", hint=hint)
    return profile


def layer_of(name: str) -> str:
    """The layer that a node's name tells: its path up to the first part with a number, or its first part.

    `/blocks.0/attention/qkv/MatMul` is of `blocks.0`, `/blocks/3/depthwise/Conv` of `blocks/3`, `/head/Gemm` of `head`.
    """
    parts = [p for p in name.split("+")[0].split("/") if p]
    for i, part in enumerate(parts[:-1][:3]):
        if re.search(r"\d", part):
            return "/".join(parts[: i + 1])
    return parts[0] if parts else name


def _covered(ranges: list[tuple[int, int]]) -> int:
    total, end = 0, 0
    for low, high in sorted(ranges):
        total += max(0, high - max(low, end))
        end = max(end, high)
    return total
