# SPDX-License-Identifier: Apache-2.0
"""`edgec report`, and what `edgec compile` tells of a plan: the page is judged against the manifest and the profile."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.artifact import load_artifact
from edgec.json_text import json_text
from edgec.report import Facts, diff_page, page, read_facts
from edgec.report.facts import layer_of
from edgec.report.flash import Box, squarify
from tests.command_line import done, edgec
from tests.conftest import Compiled
from tests.small_models import attention_block, samples

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
VOID = {"meta", "br", "line", "rect", "path", "circle", "input"}
HOSTILE = "</script><img src=x onerror=\"alert('1')\">&amp;\u202e\x07"


@dataclass
class Tag:
    """One opening tag and the text directly in it."""

    name: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Parsed(HTMLParser):
    """Every tag of a page, in order; fails where tags do not close in the order in which they open."""

    tags: list[Tag] = field(default_factory=list)
    stack: list[Tag] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice"
        self.tags.append(Tag(tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(self.tags[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop().name == tag

    def handle_data(self, data: str) -> None:
        if self.stack:
            self.stack[-1].text += data

    def values(self, attribute: str) -> list[str]:
        """Every value of an attribute."""
        return [v for t in self.tags if (v := t.attributes.get(attribute)) is not None]


def parsed(text: str) -> Parsed:
    parser = Parsed()
    parser.feed(text)
    parser.close()
    assert parser.stack == []
    return parser


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An attention block for the stm32f746 with the least RAM, so that it has loops; with its profile."""
    folder = tmp_path_factory.mktemp("block")
    attention_block(folder / "block.onnx", tokens=16, width=16)
    samples(folder / "samples.npz", 2, x=(1, 16, 16))
    done("compile", folder / "block.onnx", "--calibration", folder / "samples.npz", "--target", "stm32f746",
         "--optimize", "ram", "--out", folder / "out")  # fmt: skip
    (folder / "out" / "profile.json").write_text(done("profile", folder / "out", "--json").out)
    return folder / "out"


@pytest.fixture(scope="module")
def facts(block: Path) -> Facts:
    return read_facts(load_artifact(block), json.loads((block / "profile.json").read_text()))


# ---- the manifest's plan, judged by itself ------------------------------------------------------------------------


def live_bytes(buffers: list[dict[str, Any]], step: int) -> int:
    """Distinct bytes in use at a step."""
    live = [b for b in buffers if b["first"] <= step < b["last"]]
    used = {(b["space"], at) for b in live for at in range(b["offset"], b["offset"] + b["bytes"])}
    return len(used)


def test_the_manifest_holds_the_plan(block: Path) -> None:
    manifest = load_artifact(block).manifest
    plan, steps = manifest["plan"], len(manifest["operators"])
    assert plan["loops"], "this program should be tiled"
    for loop in plan["loops"]:
        inside = manifest["operators"][loop["first"] : loop["last"]]
        assert {o["turns"] for o in inside} == {loop["turns"]}
    live = [live_bytes(plan["buffers"], s) for s in range(steps)]
    assert max(live) == live[plan["peak_step"]] == plan["placement_bound_bytes"]
    assert manifest["operators"][plan["peak_step"]]["name"] == plan["peak_at"]
    assert sum(plan["spaces"].values()) == plan["arena_bytes"] == plan["levers"]["place"]
    for space, size in plan["spaces"].items():
        assert max(b["offset"] + b["bytes"] for b in plan["buffers"] if b["space"] == space) == size
    for a, b in combinations(plan["buffers"], 2):
        together = a["space"] == b["space"] and max(a["first"], b["first"]) < min(a["last"], b["last"])
        if together and a["offset"] < b["offset"] + b["bytes"] and b["offset"] < a["offset"] + a["bytes"]:
            assert a["name"] == b["inside"] or b["name"] == a["inside"]
    assert {b["kind"] for b in plan["buffers"]} <= {"tensor", "scratch", "input", "output"}
    saved = list(plan["levers"].values())
    assert list(plan["levers"]) == ["none", "order", "overlap", "tile", "place"]
    assert saved[:4] == sorted(saved[:4], reverse=True)
    assert plan["schedule_bound_bytes"] <= plan["placement_bound_bytes"] <= plan["arena_bytes"]


def test_the_manifest_lists_every_constant(block: Path) -> None:
    manifest = load_artifact(block).manifest
    assert sum(-(-c["bytes"] // 4) * 4 for c in manifest["constants"]) == manifest["flash"]["weights_bytes"]
    assert {c["operator"] for c in manifest["constants"]} <= {o["name"] for o in manifest["operators"]}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_text_is_json(value: object) -> None:
    assert json.loads(json_text(value)) == value


# ---- the page -----------------------------------------------------------------------------------------------------


def test_the_page_is_one_well_formed_file_that_loads_nothing(facts: Facts) -> None:
    text = page(facts)
    found = parsed(text)
    names = Counter(t.name for t in found.tags)
    assert names["script"] == names["style"] == names["body"] == 1
    assert not {"img", "link", "iframe", "object", "a"} & names.keys()
    assert not found.values("src")
    assert not found.values("href")
    assert not re.search(r"(?:https?:)?//[a-z]|@import|fetch\(|url\((?!#)", re.sub(r"data-[a-z]+=\"[^\"]*\"", "", text))
    ids = found.values("id")
    assert len(ids) == len(set(ids))


def test_the_page_has_every_buffer_operator_and_constant_once(facts: Facts) -> None:
    found, manifest = parsed(page(facts)), facts.manifest
    assert Counter(found.values("data-buffer")) == Counter(b["name"] for b in manifest["plan"]["buffers"])
    assert found.values("data-operator") == [o["name"] for o in manifest["operators"]]
    assert Counter(found.values("data-constant")) == Counter(c["name"] for c in manifest["constants"])


def test_rectangles_lie_where_the_plan_puts_the_buffers(facts: Facts) -> None:
    """One scale for all: corners are linear in step and offset, up to the half pixel that a border leaves."""
    drawn = {
        t.attributes["data-buffer"]: t.attributes for t in parsed(page(facts)).tags if "data-buffer" in t.attributes
    }
    placed = {b["name"]: b for b in facts.manifest["plan"]["buffers"]}
    assert len(placed) == len(facts.manifest["plan"]["buffers"])

    def corners(name: str) -> tuple[float, float, float, float]:
        x, y, width, height = (float(drawn[name][key] or 0) for key in ("x", "y", "width", "height"))
        return x, x + width, y, y + height

    def where(b: dict[str, Any]) -> tuple[int, int, int, int]:
        return b["first"], b["last"], b["offset"] + b["bytes"], b["offset"]

    big = [n for n, b in placed.items() if b["bytes"] >= 128]
    a = max(big, key=lambda n: placed[n]["offset"] + placed[n]["bytes"])
    b = min(big, key=lambda n: placed[n]["offset"])
    per_byte = (corners(b)[3] - corners(a)[2]) / (where(placed[a])[2] - where(placed[b])[3])
    early, late = min(big, key=lambda n: placed[n]["first"]), max(big, key=lambda n: placed[n]["last"])
    per_step = (corners(late)[1] - corners(early)[0]) / (placed[late]["last"] - placed[early]["first"])
    for name in big:
        left, right, top, bottom = corners(name)
        first, last, end, start = where(placed[name])
        assert right - left == pytest.approx(per_step * (last - first), abs=1.6)
        assert bottom - top == pytest.approx(per_byte * (end - start), abs=1.6)
        assert left - corners(early)[0] == pytest.approx(per_step * (first - placed[early]["first"]), abs=1.6)
        assert top - corners(a)[2] == pytest.approx(per_byte * (where(placed[a])[2] - end), abs=1.6)


def test_figures_of_the_page_are_those_of_manifest_and_profile(facts: Facts) -> None:
    profile = facts.profile
    assert profile is not None
    found = parsed(page(facts))
    shown = [t.text.strip() for t in found.tags if t.attributes.get("class") == "figure"]
    ram, flash = facts.manifest["ram"], facts.manifest["flash"]
    wanted = (ram["total_bytes"], flash["total_bytes"], profile["instructions"], profile["cycles_estimate"])
    assert shown == [f"{value:,}" for value in wanted]
    assert "Cycles, estimate" in [t.text for t in found.tags if t.name == "h2"]
    rows = [i for i, t in enumerate(found.tags) if "data-operator" in t.attributes]
    cells = [[t for t in found.tags[i + 1 : i + 13] if "data-v" in t.attributes] for i in rows]
    columns = list(zip(*([float(t.attributes["data-v"] or 0) for t in row[:8]] for row in cells), strict=True))
    _, turns, macs, instructions, share, cycles, read, fetched = columns
    assert list(turns) == [o["turns"] for o in facts.manifest["operators"]]
    assert sum(macs) == facts.manifest["model"]["macs"]
    assert sum(instructions) + profile["overhead"] == profile["instructions"]
    assert sum(share) == pytest.approx(100 * sum(instructions) / profile["instructions"], abs=0.01)
    assert list(cycles) == [o["cycles_estimate"] for o in profile["operators"]]
    assert list(read) == [o["flash_bytes_read"] for o in profile["operators"]]
    assert list(fetched) == [o["flash_bytes_fetched"] for o in profile["operators"]]


def hostile(facts: Facts) -> Facts:
    """The same program with names that try to be markup."""
    text = json.dumps([facts.manifest, facts.profile])
    for name in {o["name"] for o in facts.manifest["operators"]} | {
        b["name"] for b in facts.manifest["plan"]["buffers"]
    }:
        text = text.replace(json.dumps(name), json.dumps(HOSTILE + name))
    manifest, profile = json.loads(text)
    manifest["model"]["name"] = manifest["target"] = HOSTILE
    for port in (*manifest["inputs"], *manifest["outputs"], *manifest["constants"]):
        port["name"] = HOSTILE + port["name"]
    return Facts(HOSTILE, manifest, profile, facts.ram_have, facts.flash_have, facts.clock_hz)


def test_drift_is_drawn_on_logarithmic_axes(facts: Facts) -> None:
    """Ten times the steps are as far to the right each time, ten times the error as far up; equal curves are one."""

    def stretch(first: int, last: int, error: float) -> dict[str, Any]:
        return {"first": first, "last": last, "relative_error": error, "top1": 0.995}

    curve = [stretch(0, 1, 0.1), stretch(9, 10, 0.01), stretch(99, 100, 0.001)]
    outputs = {HOSTILE: {"host C": curve, "board": list(curve), "QDQ": [stretch(0, 100, 0.01)]}}
    drift = {"steps": 100, "reference": "float", "outputs": outputs}
    text = page(replace(facts, drift=drift))
    assert "<img" not in text
    dots = [t for t in parsed(text).tags if t.name == "circle"]
    assert [str(t.attributes["data-tip"]).split(",")[0] for t in dots] == ["host C = board"] * 3 + ["QDQ"]
    x, y = ([float(t.attributes[a] or 0) for t in dots[:3]] for a in ("cx", "cy"))
    assert x[2] - x[1] == pytest.approx(x[1] - x[0], abs=0.1)
    assert y[2] - y[1] == pytest.approx(y[1] - y[0], abs=0.1)
    assert x[0] < x[1]
    assert y[0] < y[1]
    assert "Drift" not in [t.text for t in parsed(page(facts)).tags if t.name == "h2"]


@pytest.mark.parametrize("two", [False, True])
def test_names_cannot_become_markup(facts: Facts, two: bool) -> None:
    bad = hostile(facts)
    plain, text = (diff_page(f, f) if two else page(f) for f in (facts, bad))
    assert {t.name for t in parsed(text).tags} <= {t.name for t in parsed(plain).tags}
    assert text.count("<script") == text.count("</script") == 1
    assert "<img" not in text
    assert "\u202e" not in text
    assert "\x07" not in text
    assert not [a for t in parsed(text).tags for a in t.attributes if a.startswith("on")]


def test_without_a_profile_nothing_measured_is_told(block: Path) -> None:
    text = page(read_facts(load_artifact(block)))
    found = parsed(text)
    assert "not profiled" in text
    assert [t.text for t in found.tags if t.name == "h2"][:3] == ["RAM", "Flash", "Work"]
    assert "milliseconds" not in text
    assert found.values("data-operator")


def test_the_page_of_a_program_for_a_computer(step_host: Compiled) -> None:
    facts = read_facts(load_artifact(step_host.path))
    found = parsed(page(facts))
    assert found.values("data-operator") == [o["name"] for o in facts.manifest["operators"]]
    assert facts.plan["order_bound_bytes"] is facts.plan["schedule_bound_bytes"] is None
    assert facts.plan["levers"] == {}


# ---- two builds ---------------------------------------------------------------------------------------------------


def test_an_artifact_differs_from_itself_by_nothing(facts: Facts) -> None:
    found = parsed(diff_page(facts, facts))
    differences = [t.attributes["data-v"] for t in found.tags if "data-difference" in t.attributes]
    assert len(differences) > 20
    assert {float(v or "nan") for v in differences} == {0.0}
    assert len(found.values("data-buffer")) == 2 * len(facts.manifest["plan"]["buffers"])


def test_a_diff_tells_second_minus_first(block: Path, patches_f746: Compiled) -> None:
    a, b = load_artifact(block).manifest, load_artifact(patches_f746.path).manifest
    printed = done(
        "report", "--diff", block, patches_f746.path, "--no-profile", "--out", block / "d.html", "--json"
    ).json
    by_name = {row["name"]: row for row in printed["figures"]}
    for name, part in (("RAM: total, B", "ram"), ("flash: total, B", "flash")):
        before, after = a[part]["total_bytes"], b[part]["total_bytes"]
        assert by_name[name] == {"name": name, "a": before, "b": after, "difference": after - before}
    assert by_name["instructions"]["a"] is None
    only = {row["name"] for row in printed["operators"] if row["b"] is None}
    assert {re.sub(r" #\d+$", "", o["name"]) for o in a["operators"]} == only


# ---- the command --------------------------------------------------------------------------------------------------


def test_report_explains_itself_and_says_what_it_wants(block: Path) -> None:
    assert "Example: edgec report build/model" in " ".join(done("report", "--help").out.split())
    for arguments in (("report", block, block), ("report", "--diff", block)):
        answer = edgec(*arguments)
        assert answer.code == 2
        assert "need" in answer.err


def test_report_measures_a_run_unless_it_finds_a_profile(block: Path, patches_f746: Compiled, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(patches_f746.path, copy)
    count = done("profile", copy, "--json").json["instructions"]
    assert str(copy / "report.html") in done("report", copy).out
    assert f">{count:,}<" in (copy / "report.html").read_text()
    stored = json.loads((block / "profile.json").read_text())
    (copy / "profile.json").write_text(json.dumps(stored))
    answer = edgec("report", copy)
    assert answer.code == 2
    assert "another program" in answer.err
    (copy / "profile.json").write_text("[]")
    assert "not what `edgec profile --json` prints" in edgec("report", copy).err
    done("report", copy, "--no-profile")


def test_an_artifact_without_its_plan_is_refused(patches_f746: Compiled, tmp_path: Path) -> None:
    copy = tmp_path / "old"
    shutil.copytree(patches_f746.path, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["plan"]["buffers"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    answer = edgec("report", copy)
    assert answer.code == 2
    assert "compile it again" in answer.err


# ---- parts --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=60), st.floats(0.2, 5))
def test_areas_of_the_flash_map_are_the_bytes(sizes: list[int], width: float) -> None:
    boxes = squarify(sorted(sizes, reverse=True), Box(0.5, 0.25, width, 1.0))
    scale = width / sum(sizes)
    for size, box in zip(sorted(sizes, reverse=True), boxes, strict=True):
        assert box.width * box.height == pytest.approx(size * scale, rel=1e-6)
        assert box.x >= 0.5 - 1e-9
        assert box.y >= 0.25 - 1e-9
        assert box.x + box.width <= 0.5 + width + 1e-6
        assert box.y + box.height <= 1.25 + 1e-6
    for a, b in combinations(boxes, 2):
        wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
        high = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
        assert min(wide, high) <= 1e-6


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("/blocks.0/attention/qkv/MatMul.k head 0", "blocks.0"),
        ("/blocks/3/depthwise/1/Conv", "blocks/3"),
        ("/head/Gemm", "head"),
        ("/a/MatMul+/b/Add", "a"),
        ("matmul1", "matmul1"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_the_layer_is_in_the_name(name: str, layer: str) -> None:
    assert layer_of(name) == layer


# ---- what `edgec compile` tells -----------------------------------------------------------------------------------


def test_compile_tells_peak_bounds_and_levers(block: Path) -> None:
    from edgec.cli.compile import summary

    artifact = load_artifact(block)
    plan = artifact.manifest["plan"]
    lines = {line.split()[0]: line for line in summary(artifact).splitlines()}
    peak = f"{plan['placement_bound_bytes']:,} B at {plan['peak_at']} (step {plan['peak_step']} of"
    assert peak in lines["peak"]
    for name in ("placement", "schedule", "order"):
        assert f"{name} bound {plan[f'{name}_bound_bytes']:,} B" in lines["bounds"]
    told = [int(n.replace(",", "")) for n in re.findall(r"[-+]?\d[\d,]*", lines["levers"])]
    saved = list(plan["levers"].values())
    assert told == [saved[0], *(b - a for a, b in pairwise(saved))]


def test_what_is_said_to_fit_fits(tmp_path: Path) -> None:
    """A float32 program over its limit of RAM: int8 is offered with its bytes, and takes just those."""
    attention_block(tmp_path / "block.onnx", tokens=32, width=16)
    samples(tmp_path / "samples.npz", 2, x=(1, 32, 16))
    asked = ("compile", tmp_path / "block.onnx", "--calibration", tmp_path / "samples.npz", "--target", "stm32f746",
             "--out", tmp_path / "out", "--ram", 8000)  # fmt: skip
    refused = edgec(*asked, "--precision", "float32")
    assert refused.code == 4
    assert "over by" in refused.err
    told = re.search(r"try +--precision int8 +fits: ([\d,]+) B of RAM", refused.err)
    assert told, refused.err
    manifest = done(*asked, "--json").json
    assert manifest["ram"]["total_bytes"] == int(told[1].replace(",", "")) <= 8000


def test_smaller_configurations_take_and_give_the_same() -> None:
    torch = pytest.importorskip("torch")
    from edgec.models.registry import list_models

    offered = [(record, sizes) for record in list_models() for sizes in record.smaller]
    assert offered
    for record, sizes in offered:
        module = record.build(0, **sizes)
        result = module(*(torch.zeros(shape) for shape in record.inputs.values()))
        assert [tuple(result.shape)] == list(record.outputs.values())


def test_a_smaller_configuration_does_less_work_and_says_what_is_smaller() -> None:
    pytest.importorskip("torch")
    from edgec.model import load_model
    from edgec.models.smaller import smaller_models
    from edgec.passes.canonicalize import canonicalize

    shipped = load_model(EXAMPLES / "image_classification" / "mcuformer_fashion_mnist.onnx")
    change, model = next(smaller_models(shipped))
    assert change == "width 48 instead of 64, heads 3 instead of 4, hidden 96 instead of 128"
    assert canonicalize(model).macs() < canonicalize(shipped).macs()
    assert [t.shape for t in (*model.inputs, *model.outputs)] == [t.shape for t in (*shipped.inputs, *shipped.outputs)]
