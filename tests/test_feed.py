# SPDX-License-Identifier: Apache-2.0
"""An image fed by rows: the bits of the program that takes it whole, whatever comes at a time, in less memory."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest
from arena_model import run_in_arena
from transformer_program import Builder

from edgec.artifact import Artifact, load_artifact
from edgec.compile import Options, compile_model
from edgec.device.runner import HOST_LIBRARY
from edgec.device.transport import RUN, WRITE, Transport
from edgec.emit import bench
from edgec.errors import UsageError
from edgec.model import load_model
from edgec.operators import TensorType
from edgec.program import Port, Program, Tensor, evaluate
from edgec.run import open_artifact, profile_artifact, run_artifact, to_device
from edgec.schedule.memories import place_in_memories
from edgec.schedule.schedule import Scheduled, Wishes, schedule_program
from edgec.schedule.tile import Goal
from edgec.target import load_target
from tests.command_line import done, edgec
from tests.small_models import Graph

BOARD = load_target("stm32f746")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
OK, ARGUMENT, INPUT = 0, 1, 5  # edgec_status


def vision(rows: int, columns: int, patch: int, channels: int, width: int, heads: int, blocks: int) -> Program:
    """An image of `rows` x `columns` patches through a patch embedding and transformer blocks."""
    b = Builder(1, 1)
    height, line = rows * patch, columns * patch * channels
    shape = (1, height, columns * patch, channels)
    b.program.inputs[:] = [Port("image", "image", (1, channels, height, columns * patch), (0, 2, 3, 1))]
    b.program.tensors = {"image": Tensor("image", TensorType(shape, "int8"))}
    cut = {
        "offset": 0,
        "shape": [rows, columns, patch, patch * channels],
        "strides": [patch * line, patch * channels, line, 1],
    }
    patches = b.call("patches", "strided_copy_s8", (b.view("image", (height * line,)),), cut)
    x = b.linear("embedding", b.view(patches, (rows * columns, patch * patch * channels)), width)
    for i in range(blocks):
        x = b.block(f"b{i}", x, heads, width // heads, 2)
    b.output(x)
    return b.program


def scheduled(program: Program, goal: Goal) -> tuple[Scheduled, int]:
    """The program fed by rows, run in a modelled arena, and the arena's bytes."""
    found = schedule_program(program, BOARD, "auto", Wishes(goal, feed="rows"))
    plan, _, _ = place_in_memories(found.program, found.implementations, BOARD)
    image = np.random.default_rng(1).integers(-128, 128, program.tensors["image"].type.shape).astype(np.int8)
    want = evaluate(program, {"image": image})
    again = evaluate(found.program, {"image": image})
    got = run_in_arena(found.program, found.implementations, plan, {"image": image})
    for port in program.outputs:
        np.testing.assert_array_equal(again[port.tensor], want[port.tensor])
        np.testing.assert_array_equal(got[port.tensor], want[port.tensor])
    return found, plan.arena_bytes


@pytest.mark.parametrize("goal", ["ram", "balanced", "speed"])
@pytest.mark.parametrize(
    ("rows", "columns", "patch", "channels", "width", "heads"),
    [(8, 8, 8, 3, 24, 3), (15, 3, 4, 3, 20, 2), (7, 5, 6, 1, 16, 1), (4, 1, 5, 3, 12, 2), (6, 10, 16, 3, 32, 2)],
)
def test_an_image_by_rows_gives_the_same_bits_in_less_memory(
    goal: Goal, rows: int, columns: int, patch: int, channels: int, width: int, heads: int
) -> None:
    program = vision(rows, columns, patch, channels, width, heads, 2)
    found, arena = scheduled(program, goal)
    feed = found.program.feed
    assert feed is not None
    assert feed.rows == rows * patch
    assert feed.rows_per_turn % patch == 0
    assert feed.rows_per_turn < feed.rows
    image = program.tensors["image"].type.bytes
    assert all(found.program.tensors[b].type.bytes < image for b in found.program.tensors if b.startswith("patches b"))
    whole = schedule_program(program, BOARD, "auto", Wishes(goal))
    plan, _, _ = place_in_memories(whole.program, whole.implementations, BOARD)
    assert arena <= plan.arena_bytes
    if goal == "ram" and patch >= 8:  # of such patches an image is larger than all else
        assert arena < image <= plan.arena_bytes
    assert [lever for lever, _ in found.saved] == ["none", "order", "overlap", "tile", "rows"]


def test_feeding_needs_no_tiling() -> None:
    program = vision(8, 8, 8, 3, 24, 3, 1)
    for levers in ((), ("order",), ("order", "overlap")):
        found = schedule_program(program, BOARD, "auto", Wishes("ram", levers=levers, feed="rows"))  # type: ignore[arg-type]
        assert found.program.feed is not None
        image = np.random.default_rng(1).integers(-128, 128, (1, 64, 64, 3)).astype(np.int8)
        for port in program.outputs:
            want, got = (evaluate(p, {"image": image})[port.tensor] for p in (program, found.program))
            np.testing.assert_array_equal(got, want)


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    """Three smooth images."""
    coarse = np.random.default_rng(3).random((3, 3, 8, 8), np.float32)
    return {"image": coarse.repeat(8, 2).repeat(8, 3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's artifacts lie."""
    return tmp_path_factory.mktemp("feed")


def vit(folder: Path, images: dict[str, np.ndarray], feed: str, name: str) -> Artifact:
    """The 64x64 ViT for the board."""
    model = load_model(EXAMPLES / "image_classification" / "vit64.onnx")
    options = Options(calibration=images, optimize="ram", feed=feed)  # type: ignore[arg-type]
    return compile_model(model, BOARD, folder / name, options)


@pytest.fixture(scope="module")
def whole(folder: Path, images: dict[str, np.ndarray]) -> Artifact:
    """It takes its image whole."""
    return vit(folder, images, "whole", "whole")


@pytest.fixture(scope="module")
def fed(folder: Path, images: dict[str, np.ndarray]) -> Artifact:
    """It takes its image by rows."""
    return vit(folder, images, "rows", "fed")


@pytest.fixture(scope="module")
def logits(whole: Artifact, images: dict[str, np.ndarray]) -> np.ndarray:
    """What the images give: int8 [3, 1, 10]."""
    result = run_artifact(whole, images, "host-c", raw=True)["logits"]
    assert len(np.unique(result, axis=0)) == 3
    return result


def test_the_manifest_says_how_the_image_comes(whole: Artifact, fed: Artifact) -> None:
    feed = fed.manifest["inputs"][0]["feed"]
    assert (feed["rows"], feed["row_bytes"]) == (64, 192)
    assert feed["rows_per_turn"] in (8, 16, 32)
    assert fed.manifest["run_entries"] == 64 // feed["rows_per_turn"] + 1
    assert "feed" not in whole.manifest["inputs"][0]
    header = (fed.path / "vit64.h").read_text()
    assert "edgec_status vit64_feed_rows(vit64_model *m, const int8_t *rows, int32_t count);" in header
    assert "vit64_image(" not in header
    assert "#define VIT64_IMAGE_ROWS 64" in header
    assert "#define VIT64_IMAGE_ROW_BYTES 192" in header


@pytest.mark.parametrize("count", [1, 3, 8, 64])
def test_the_board_takes_any_number_of_rows_at_a_time(
    count: int, folder: Path, images: dict[str, np.ndarray], logits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "FEED_ROWS", count)
    artifact = vit(folder, images, "rows", f"fed{count}")
    np.testing.assert_array_equal(run_artifact(artifact, images, "sim", raw=True)["logits"], logits)
    np.testing.assert_array_equal(run_artifact(artifact, images, "host-c", raw=True)["logits"], logits)


def test_a_profile_counts_the_strips_too(whole: Artifact, fed: Artifact) -> None:
    """The same work, but for the turns; the stack of feeding is within the bound, which a profile checks."""
    a, b = (profile_artifact(artifact) for artifact in (whole, fed))
    assert b["stack_bytes"] > 0
    again = profile_artifact(fed)
    assert again == b
    embedding = [next(o for o in r["operators"] if o["op"] == "linear_add_s8") for r in (a, b)]
    assert embedding[1]["instructions"] == pytest.approx(embedding[0]["instructions"], rel=0.02)
    assert b["instructions"] == pytest.approx(a["instructions"], rel=0.02)


class Model(ctypes.Structure):
    """`vit64_model`."""

    _fields_ = (("arena", ctypes.c_void_p), ("state", ctypes.c_void_p), ("rows", ctypes.c_int32))


class Api:
    """The C API of the host library of the fed program."""

    def __init__(self, artifact: Artifact) -> None:
        open_artifact(artifact, "host-c").close()  # builds it
        self.library = ctypes.CDLL(str(artifact.path / "host" / HOST_LIBRARY))
        self.library.vit64_logits.restype = ctypes.POINTER(ctypes.c_int8)
        size = artifact.manifest["ram"]["arena_bytes"]
        self.memory = (ctypes.c_uint64 * (size // 8 + 1))()
        self.model = Model()
        self.size = size
        self.init()

    def init(self) -> None:
        """`vit64_init`."""
        args = ctypes.byref(self.model), self.memory, ctypes.c_size_t(self.size), None, ctypes.c_size_t(0)
        assert self.library.vit64_init(*args) == OK

    def feed(self, rows: np.ndarray | None, count: int) -> int:
        """`vit64_feed_rows`."""
        data = None if rows is None else np.ascontiguousarray(rows).tobytes()
        return int(self.library.vit64_feed_rows(ctypes.byref(self.model), data, count))

    def run(self) -> int:
        """`vit64_run`."""
        return int(self.library.vit64_run(ctypes.byref(self.model)))

    def logits(self) -> np.ndarray:
        """`vit64_logits`."""
        return np.array(self.library.vit64_logits(ctypes.byref(self.model))[:10], np.int8)


def test_rows_too_many_or_too_few_are_refused(fed: Artifact, images: dict[str, np.ndarray], logits: np.ndarray) -> None:
    api = Api(fed)
    first, second = to_device(fed.inputs[0], images["image"])[:2].reshape(2, 64, 192)
    assert api.run() == INPUT
    assert api.feed(None, 1) == ARGUMENT
    assert api.feed(first, -1) == ARGUMENT
    assert api.feed(first[:63], 63) == OK
    assert api.run() == INPUT  # a row is missing: nothing ran, nothing was lost
    assert api.feed(first[62:], 2) == INPUT  # one too many: none was taken
    assert api.feed(first[63:], 1) == OK
    assert api.feed(first[:1], 1) == INPUT
    assert api.feed(first[:1], 0) == OK
    assert api.run() == OK
    np.testing.assert_array_equal(api.logits(), logits[0].ravel())
    assert api.run() == INPUT  # the image has been consumed
    at = 0
    for count in (5, 1, 27, 0, 20, 11):  # another image in uneven pieces
        assert api.feed(second[at : at + count], count) == OK
        at += count
    assert api.run() == OK
    np.testing.assert_array_equal(api.logits(), logits[1].ravel())
    assert api.feed(second[:40], 40) == OK
    api.init()  # drops it
    assert api.feed(first, 64) == OK
    assert api.run() == OK
    np.testing.assert_array_equal(api.logits(), logits[0].ravel())


def test_the_serial_line_feeds_nothing_twice(
    fed: Artifact, images: dict[str, np.ndarray], logits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request is sent again, as when its answer was lost; half an image, left alone, is forgotten."""
    exchange = Transport._exchange

    def twice(self: Transport, frame: bytes, kind: int, timeout: float) -> bytes | None:
        answer = exchange(self, frame, kind, timeout)
        again = exchange(self, frame, kind, timeout)
        assert again == answer or kind not in (WRITE, RUN)
        return again

    data = [x.tobytes() for x in to_device(fed.inputs[0], images["image"])]
    with open_artifact(fed, "sim") as board:
        monkeypatch.setattr(Transport, "_exchange", twice)
        assert board.run([data[0]])[0] == logits[0].tobytes()
        line: Transport = board._transport  # type: ignore[attr-defined]
        assert line.request(WRITE, bytes(5) + data[2][:240])[:4] == bytes(4)
        assert line.request(WRITE, bytes((0, 100, 0, 0, 0)) + data[2][100:110])[:4] != bytes(4)  # 240 would be next
        assert line.request(RUN)[:4] == INPUT.to_bytes(4, "little")
        assert board.run([data[1]])[0] == logits[1].tobytes()


def test_what_cannot_come_by_rows_is_refused_with_the_reason(
    tmp_path: Path, patch_model: Path, step_model_files: Path
) -> None:
    def refused(model: Path, samples: Path, target: str = "stm32f746", *more: str) -> str:
        answer = edgec(
            "compile", model, "--target", target, "--calibration", samples, "--out", tmp_path / "out",
            "--feed", "rows", *more,
        )  # fmt: skip
        assert answer.code == UsageError.exit_code
        assert not (tmp_path / "out").exists()
        return answer.err

    g = Graph(4)
    g.op("Relu", g.op("Conv", "image", g.random(4, 3, 3, 3), pads=[1, 1, 1, 1]), out="y")
    cnn = g.save(tmp_path / "cnn.onnx", {"image": (1, 3, 8, 6)}, {"y": (1, 4, 8, 6)})
    np.savez(tmp_path / "cnn.npz", image=np.random.default_rng(0).normal(size=(4, 3, 8, 6)).astype(np.float32))
    g = Graph(5)
    g.op("Add", "a", "b", out="y")
    two = g.save(tmp_path / "two.onnx", {"a": (1, 8, 4), "b": (1, 8, 4)}, {"y": (1, 8, 4)})
    np.savez(tmp_path / "two.npz", a=np.ones((2, 8, 4), np.float32), b=np.ones((2, 8, 4), np.float32))
    patches = patch_model / "patches.onnx", patch_model / "samples.npz"
    assert "reads other rows than those at hand" in refused(cnn, tmp_path / "cnn.npz")
    assert "conv2d_s8" in refused(cnn, tmp_path / "cnn.npz")
    assert "has 2 inputs" in refused(two, tmp_path / "two.npz")
    assert "state" in refused(step_model_files / "step.onnx", step_model_files / "samples.npz")
    assert "not a board" in refused(*patches, "host-c")
    assert "cannot be fed by rows" in refused(*patches, "stm32f746", "--precision", "float32")


def test_the_command_line_runs_a_fed_program_as_any_other(patch_model: Path, tmp_path: Path) -> None:
    model, samples, out = patch_model / "patches.onnx", patch_model / "samples.npz", tmp_path / "out"
    common = ("compile", model, "--target", "stm32f746", "--calibration", samples)
    done(*common, "--out", out, "--feed", "rows")
    done(*common, "--out", tmp_path / "whole")
    results = []
    for artifact, runner in ((out, "sim"), (out, "host-c"), (tmp_path / "whole", "host-c")):
        done("run", artifact, "--input", samples, "--output", tmp_path / "y.npz", "--raw", "--runner", runner)
        results.append(np.load(tmp_path / "y.npz")["logits"])
    assert len(np.unique(results[0])) > 8
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[1], results[2])
    assert json.loads(done("profile", out, "--json").out)["instructions"] > 0
    done("verify", out, "--input", samples)
    assert load_artifact(out).manifest["inputs"][0]["feed"]["rows"] == 12


def test_the_search_space_of_mcuformer_is_as_published() -> None:
    """Heads are 64 wide whatever the token; an image of 240x240 becomes tokens of that width."""
    import torch

    from edgec.models.mcuformer import imagenet

    state = torch.get_rng_state()
    net = imagenet(20, 168, 3, 2)
    assert torch.equal(torch.get_rng_state(), state)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters() if name.endswith("weight")}
    assert shapes["embedding.projection.weight"] == (168, 3, 20, 20)
    assert shapes["blocks.1.attention.qkv.weight"] == (3 * 192, 168)
    assert shapes["blocks.1.attention.projection.weight"] == (168, 192)
    assert shapes["blocks.1.expand.weight"] == (672, 168)
    assert shapes["blocks.1.contract.weight"] == (168, 672)
    assert "blocks.2.expand.weight" not in shapes
    with torch.no_grad():
        a, b = (n(torch.full((1, 3, 240, 240), 0.5)) for n in (net, imagenet(20, 168, 3, 2)))
    assert a.shape == (1, 1000)
    assert torch.equal(a, b)
