# SPDX-License-Identifier: Apache-2.0
"""What every family with memory owes: its forms agree, its state keeps its size, its exported step is its step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from edgec.export import export
from edgec.models.registry import ModelRecord, get_model
from tests.torch_modules import torch


def frames_of(record: ModelRecord, steps: int, seed: int = 0) -> np.ndarray:
    """float32 [steps, *shape of the first input without batch], roughly as loud as log-mel frames."""
    shape = next(iter(record.inputs.values()))[1:]
    return (1 + np.random.default_rng(seed).standard_normal((steps, *shape))).astype(np.float32)


def reset_of(record: ModelRecord, batch: int = 1) -> list[torch.Tensor]:
    """The states before the first step."""
    return [torch.full((batch, *record.inputs[source][1:]), value) for source, _, value in record.states]


def step_loop(module: torch.nn.Module, frames: np.ndarray, state: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """[y [T, ...], *state after the last step] of one call of `forward` for each frame."""
    seen = []
    with torch.no_grad():
        for frame in frames:
            y, *state = module(torch.from_numpy(frame[None]), *state)
            seen.append(y[0])
    return [torch.stack(seen), *state]


def parallel_in_pieces(
    module: torch.nn.Module, frames: np.ndarray, state: Sequence[torch.Tensor], pieces: Sequence[int]
) -> list[torch.Tensor]:
    """As `step_loop`, by `parallel` on pieces of these lengths, the state carried."""
    seen = []
    with torch.no_grad():
        for piece in np.split(frames, np.cumsum(pieces)[:-1]):
            y, *state = module.parallel(torch.from_numpy(piece[None]), *state)
            seen.append(y[0])
    return [torch.cat(seen), *state]


def assert_forms_agree(name: str, steps: int = 70, atol: float = 2e-5) -> None:
    """Step after step, all steps at once, pieces of uneven length: the same outputs, the same last state."""
    record = get_model(name)
    module, frames = record.build(seed=1), frames_of(record, steps)
    wanted = step_loop(module, frames, reset_of(record))
    for pieces in ([steps], [1, 33, steps - 34]):
        for got, truth in zip(parallel_in_pieces(module, frames, reset_of(record), pieces), wanted, strict=True):
            assert got.shape == truth.shape
            np.testing.assert_allclose(got, truth, rtol=1e-4, atol=atol)


def assert_state_keeps_its_size(name: str, steps: int = 10_000) -> None:
    """After one step and after many, and no larger than it can be."""
    record = get_model(name)
    module, frames = record.build(seed=1), frames_of(record, steps)
    sizes = []
    for count in (1, steps):
        _, *state = parallel_in_pieces(module, frames[:count], reset_of(record), [count])
        assert all(torch.isfinite(value).all() for value in state)
        sizes.append([value.nbytes for value in state])
    assert sizes[0] == sizes[1] == [4 * int(np.prod(record.inputs[source])) for source, *_ in record.states]


def assert_export_computes_the_stream(name: str, folder: Path, steps: int = 40, atol: float = 2e-5) -> None:
    """The exported step in ONNX Runtime, its states fed back, against the parallel form."""
    record = get_model(name)
    module, frames = record.build(seed=1), frames_of(record, steps)
    session = onnxruntime.InferenceSession(
        str(export(name, folder / "step.onnx", seed=1)), providers=["CPUExecutionProvider"]
    )
    wanted, *_ = parallel_in_pieces(module, frames, reset_of(record), [steps])
    first = next(iter(record.inputs))
    state = {s: v.numpy() for (s, *_), v in zip(record.states, reset_of(record), strict=True)}
    for frame, truth in zip(frames, wanted, strict=True):
        results = dict(
            zip(record.outputs, session.run(list(record.outputs), {first: frame[None], **state}), strict=True)
        )
        state = {source: results[target] for source, target, _ in record.states}
        (y,) = (v for n, v in results.items() if n not in {target for _, target, _ in record.states})
        np.testing.assert_allclose(y[0], truth, rtol=1e-4, atol=atol)
