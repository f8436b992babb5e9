# SPDX-License-Identifier: Apache-2.0
"""A stateful model of the zoo over a stream in torch, in both of its forms: step by step, and in parallel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgec.models.registry import ModelRecord

CHUNK = 500
"""Steps that the parallel form takes at once; the state is carried from one chunk to the next."""

Array = npt.NDArray[Any]


def has_parallel(module: nn.Module) -> bool:
    """Whether the module has a parallel form: `parallel(x, *state) -> (y, *state after the last step)`."""
    return callable(getattr(module, "parallel", None))


def step_stream(module: nn.Module, record: ModelRecord, samples: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """One call of `forward` a step, the state fed back.

    Args:
        module: a model that `record` built, in evaluation mode.
        record: names of its inputs, outputs and states.
        samples: [S, *shape] for every input that is no state.

    Yields:
        The outputs that are no state, by name, in their own shape.
    """
    import torch

    state = _reset(record)
    pairs = {target: source for source, target, _ in record.states}
    with torch.no_grad():
        for step in range(len(next(iter(samples.values())))):
            given = [state[n] if n in state else torch.as_tensor(samples[n][step]) for n in record.inputs]
            found = module(*given)
            results = dict(zip(record.outputs, found if isinstance(found, tuple) else (found,), strict=True))
            yield {name: value.numpy() for name, value in results.items() if name not in pairs}
            state = {pairs[name]: value for name, value in results.items() if name in pairs}


def parallel_stream(
    module: nn.Module, record: ModelRecord, samples: Mapping[str, Array], chunk: int = CHUNK
) -> Iterator[dict[str, Array]]:
    """`parallel` on chunks of the stream, the state carried; see `step_stream`.

    The model has one input beside its states and one output.
    """
    import torch

    (name,) = [n for n in record.inputs if n not in {source for source, *_ in record.states}]
    (output,) = [n for n in record.outputs if n not in {target for _, target, _ in record.states}]
    state = list(_reset(record).values())
    parallel: Any = module.parallel
    with torch.no_grad():
        for start in range(0, len(samples[name]), chunk):
            x = torch.as_tensor(np.ascontiguousarray(samples[name][start : start + chunk].swapaxes(0, 1)))
            y, *state = parallel(x, *state)
            yield from ({output: row} for row in y.transpose(0, 1).numpy())


def _reset(record: ModelRecord) -> dict[str, torch.Tensor]:
    """What every state holds before the first step, in the order of the model's inputs."""
    import torch

    resets = {source: value for source, _, value in record.states}
    return {name: torch.full(shape, resets[name]) for name, shape in record.inputs.items() if name in resets}
