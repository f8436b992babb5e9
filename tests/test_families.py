# SPDX-License-Identifier: Apache-2.0
"""What every model with memory owes, by the registry: a new family is tested here by registering it."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgec.artifact import load_artifact
from edgec.model import load_model
from edgec.models.registry import ModelRecord, list_models
from edgec.run import open_artifact
from tests.command_line import done
from tests.exported import exported
from tests.family_forms import assert_forms_agree, assert_state_keeps_its_size, frames_of, parallel_in_pieces, reset_of
from tests.streams_in_c import alone, inputs_of, states_in
from tests.test_saved_state import check_two_streams

STATEFUL = [record for record in list_models() if record.stateful]


def named(record: ModelRecord) -> str:
    return record.name


@pytest.mark.parametrize("record", STATEFUL, ids=named)
def test_the_parallel_form_takes_and_gives_what_a_step_does(record: ModelRecord) -> None:
    module = record.build()
    frames = frames_of(record, 3)
    inspect.signature(module.parallel).bind(frames, *record.states)
    y, *state = parallel_in_pieces(module, frames, reset_of(record), [3])
    assert len(record.inputs) == len(record.states) + 1
    assert [tuple(s.shape) for s in state] == [record.outputs[target] for _, target, _ in record.states]
    assert (1, *y.shape[1:]) == next(iter(record.outputs.values()))


@pytest.mark.parametrize("record", STATEFUL, ids=named)
def test_step_loop_parallel_and_chunks_are_the_same_stream(record: ModelRecord) -> None:
    assert_forms_agree(record.name)


@pytest.mark.parametrize("record", STATEFUL, ids=named)
def test_the_state_after_500_steps_is_as_large_as_after_one(record: ModelRecord) -> None:
    assert_state_keeps_its_size(record.name, steps=500)


@pytest.mark.parametrize("record", STATEFUL, ids=named)
def test_the_exported_file_carries_the_contract_and_computes_the_step(record: ModelRecord, tmp_path: Path) -> None:
    path = tmp_path / "step.onnx"
    path.write_bytes(exported(record.name))
    model = load_model(path)
    pairs = tuple((pair.input, pair.output, pair.reset) for pair in model.states)
    assert pairs == record.states
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {i.name: tuple(i.shape) for i in session.get_inputs()} == record.inputs
    assert {o.name: tuple(o.shape) for o in session.get_outputs()} == record.outputs
    frames = frames_of(record, 40)
    wanted, *_ = parallel_in_pieces(record.build(seed=1), frames, reset_of(record), [40])
    first, *names = record.outputs
    state = {s: v.numpy() for (s, *_), v in zip(record.states, reset_of(record), strict=True)}
    given = next(iter(record.inputs))
    for frame, truth in zip(frames, wanted, strict=True):
        y, *after = session.run([first, *names], {given: frame[None], **state})
        after = dict(zip(names, after, strict=True))
        state = {source: after[target] for source, target, _ in record.states}
        np.testing.assert_allclose(y[0], truth, rtol=1e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("record", STATEFUL, ids=named)
def test_a_power_cut_and_a_second_stream_change_nothing(record: ModelRecord, tmp_path: Path) -> None:
    """Compiled to integers with calibration by noise: board = host C, and both go on from a saved state."""
    (name,) = [n for n in record.inputs if n not in {source for source, *_ in record.states}]
    np.savez(tmp_path / "x.npz", **{name: frames_of(record, 60)[:, None]})
    (tmp_path / "step.onnx").write_bytes(exported(record.name))
    options = ("--target", "stm32f746", "--calibration", tmp_path / "x.npz", "--out", tmp_path / "out")
    if (
        record.name == "lmu-psmnist"
    ):  # untrained and on noise its matrix would be float32, which the flash does not hold
        options += ("--state-width", "int16")
    done("compile", tmp_path / "step.onnx", *options)
    artifact = load_artifact(tmp_path / "out")
    steps, cut = 24, 13
    xs = inputs_of(artifact, seed=5, steps=steps)
    wanted, last = alone(artifact, xs)
    with open_artifact(artifact, "sim") as board:
        board.reset()
        assert [b"".join(board.run(x)) for x in xs[:cut]] == wanted[:cut]
        state = board.save_state()
    with open_artifact(artifact, "sim") as board:
        board.restore_state(state)
        assert [b"".join(board.run(x)) for x in xs[cut:]] == wanted[cut:]
        assert states_in(artifact, board.save_state()) == last
    check_two_streams(artifact, tmp_path, steps)
