# SPDX-License-Identifier: Apache-2.0
"""A stream that is saved, cut off and restored goes on bit for bit; streams of one program do not touch each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.artifact import Artifact, load_artifact
from edgec.device.sim_runner import SimRunner
from edgec.errors import DeviceError
from edgec.run import open_artifact
from tests.command_line import done, edgec, tree
from tests.conftest import Compiled
from tests.small_models import samples, windowed_step_model
from tests.streams_in_c import Streams, alone, inputs_of, states_in

CUT, STEPS = 17, 40  # of 40 steps; a state is changed by every one of them


def split(compiled: Compiled, folder: Path) -> tuple[Path, Path]:
    """The samples before and after the cut."""
    x = np.load(compiled.samples)["x"]
    np.savez(folder / "head.npz", x=x[:CUT])
    np.savez(folder / "tail.npz", x=x[CUT:])
    return folder / "head.npz", folder / "tail.npz"


def raw(compiled: Compiled, given: Path, folder: Path, *options: object) -> np.ndarray[Any, Any]:
    done("run", compiled.path, "--input", given, "--output", folder / "y.npz", "--raw", *options)
    y: np.ndarray[Any, Any] = np.load(folder / "y.npz")["y"]
    return y


@pytest.mark.parametrize(("before", "after"), [("sim", "sim"), ("host-c", "host-c"), ("sim", "host-c")])
def test_a_stream_goes_on_from_the_file_of_its_state(
    before: str, after: str, step_f746: Compiled, tmp_path: Path
) -> None:
    whole = raw(step_f746, step_f746.samples, tmp_path, "--runner", "host-c")
    head, tail = split(step_f746, tmp_path)
    file = tmp_path / "deep" / "stream.state"
    first = raw(step_f746, head, tmp_path, "--runner", before, "--save-state", file)
    second = raw(step_f746, tail, tmp_path, "--runner", after, "--restore-state", file)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    fresh = raw(step_f746, tail, tmp_path, "--runner", after)
    assert not np.array_equal(fresh, second)  # without the state it is another stream


def test_a_state_survives_the_death_of_its_board(step_f746: Compiled) -> None:
    artifact = load_artifact(step_f746.path)
    xs = inputs_of(artifact, seed=1, steps=30)
    wanted, _ = alone(artifact, xs)
    board = open_artifact(artifact, "sim")
    assert isinstance(board, SimRunner)
    board.reset()
    assert [board.run(x)[0] for x in xs[:CUT]] == wanted[:CUT]
    state = board.save_state()
    board._process.kill()  # no farewell, as when the power goes
    with pytest.raises(DeviceError):
        board.run(xs[CUT])
    board.close()
    with open_artifact(artifact, "sim") as again:
        assert again.state_bytes == len(state) == artifact.manifest["ram"]["state_bytes"]
        assert again.save_state() != state
        again.restore_state(state)
        assert again.save_state() == state
        assert [again.run(x)[0] for x in xs[CUT:]] == wanted[CUT:]


def test_saving_disturbs_nothing_and_states_of_two_runners_are_equal(step_f746: Compiled) -> None:
    artifact = load_artifact(step_f746.path)
    xs = inputs_of(artifact, seed=2, steps=12)
    wanted, _ = alone(artifact, xs)
    with open_artifact(artifact, "sim") as board, open_artifact(artifact, "host-c") as host:
        seen = set()
        for x, y in zip(xs, wanted, strict=True):
            assert board.run(x)[0] == host.run(x)[0] == y
            assert states_in(artifact, board.save_state()) == states_in(artifact, host.save_state())
            seen.add(host.save_state())
    assert len(seen) == len(xs)


def test_states_of_every_width_and_a_ring_go_on(tmp_path: Path) -> None:
    """int16, float32, and an int8 ring whose cursor stands in the middle when the power goes."""
    widths = ("--state-width", "h=int16", "--state-width", "m=float32")
    model, given = windowed_step_model(tmp_path / "net.onnx"), samples(tmp_path / "x.npz", 30, x=(1, 6))
    options = ("--target", "stm32f746", "--calibration", given, "--out", tmp_path / "out", *widths)
    done("compile", model, *options)
    artifact = load_artifact(tmp_path / "out")
    assert {s["dtype"] for s in artifact.manifest["states"]} == {"int8", "int16", "float32", "int32"}
    steps, cut = 25, 10
    xs = inputs_of(artifact, seed=6, steps=steps)
    wanted, last = alone(artifact, xs)
    assert len(set(wanted)) > 20
    with open_artifact(artifact, "sim") as board:
        assert [board.run(x)[0] for x in xs[:cut]] == wanted[:cut]
        state = board.save_state()
    for runner in ("sim", "host-c"):
        with open_artifact(artifact, runner) as device:
            device.restore_state(state)
            assert [device.run(x)[0] for x in xs[cut:]] == wanted[cut:]
            assert states_in(artifact, device.save_state()) == last
    check_two_streams(artifact, tmp_path, steps)


def test_two_streams_of_one_program_share_an_arena(step_f746: Compiled, tmp_path: Path) -> None:
    check_two_streams(load_artifact(step_f746.path), tmp_path, steps=20)


def check_two_streams(artifact: Artifact, folder: Path, steps: int) -> None:
    """In C: two states and one arena, spoilt before every step; saved, restored in either stream, reset."""
    a, b = (inputs_of(artifact, seed, steps) for seed in (3, 4))
    (wanted_a, last_a), (wanted_b, last_b) = alone(artifact, a), alone(artifact, b)
    assert last_a != last_b
    streams, half = Streams(artifact, folder), steps // 2
    for t in range(half):
        assert streams.step(0, a[t]) == wanted_a[t], t
        assert streams.step(1, b[t]) == wanted_b[t], t
    saved = streams.save(0)
    for t in range(half, steps):
        assert streams.step(1, b[t]) == wanted_b[t], t
        assert streams.step(0, a[t]) == wanted_a[t], t
    assert states_in(artifact, streams.save(0)) == last_a
    assert states_in(artifact, streams.save(1)) == last_b
    for stream in (1, 0):  # the same bytes in the other state buffer: nothing in them depends on where they lie
        streams.restore(stream, saved)
        assert [streams.step(stream, x) for x in a[half:]] == wanted_a[half:]
        assert states_in(artifact, streams.save(stream)) == last_a
    streams.reset(1)
    assert [streams.step(1, x) for x in b] == wanted_b
    assert states_in(artifact, streams.save(0)) == last_a
    assert states_in(artifact, streams.save(1)) == last_b


def test_a_state_of_another_program_is_refused(step_f746: Compiled, step_host: Compiled, tmp_path: Path) -> None:
    file, out = tmp_path / "a.state", tmp_path / "y.npz"
    raw(step_host, step_host.samples, tmp_path, "--save-state", file)
    out.unlink()
    before = tree(tmp_path)
    answer = edgec("run", step_f746.path, "--input", step_f746.samples, "--output", out, "--restore-state", file)
    assert answer.code == 2
    assert "is the state of another program" in answer.err
    assert step_f746.answer.json["model_id"][:16] in answer.err
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "is damaged"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "is damaged"),
        (lambda data: data.replace(b" ", b"  ", 1), "is not a saved state"),
        (lambda data: b"\x7fELF" + bytes(300), "is not a saved state"),
        (lambda data: b"", "is not a saved state"),
    ],
)
def test_what_is_no_whole_state_is_refused(change: Any, message: str, step_host: Compiled, tmp_path: Path) -> None:
    file, out = tmp_path / "a.state", tmp_path / "y.npz"
    raw(step_host, step_host.samples, tmp_path, "--save-state", file)
    file.write_bytes(change(file.read_bytes()))
    out.unlink()
    answer = edgec("run", step_host.path, "--input", step_host.samples, "--output", out, "--restore-state", file)
    assert (answer.code, message in answer.err) == (2, True), answer.err
    assert not out.exists()


def test_a_model_without_state_has_none_to_save(patches_f746: Compiled, tmp_path: Path) -> None:
    options: Sequence[object] = ("--input", patches_f746.samples, "--output", tmp_path / "y.npz")
    answer = edgec("run", patches_f746.path, *options, "--save-state", tmp_path / "a.state")
    assert (answer.code, "patches has no state" in answer.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_state_of_the_wrong_size_does_not_reach_the_program(step_f746: Compiled) -> None:
    for runner in ("host-c", "sim"):
        with open_artifact(load_artifact(step_f746.path), runner) as device:
            before = device.save_state()
            with pytest.raises(DeviceError, match="state of the wrong size"):
                device.restore_state(before + b"\0")
            assert device.save_state() == before
