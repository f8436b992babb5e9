# SPDX-License-Identifier: Apache-2.0
"""`edgec models`: the list that scripts read, and the card of one model; without torch."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from edgec.models.registry import list_models
from tests.command_line import done, edgec

KEYS = {"name", "stateful", "parameters", "state_bytes", "row", "source", "inputs", "outputs", "description"}


def test_the_list_has_the_promised_keys_of_every_model() -> None:
    found = done("models", "--json").json["models"]
    assert [m["name"] for m in found] == [r.name for r in list_models()]
    for m in found:
        assert m.keys() >= KEYS
        assert m["stateful"] == (m["state_bytes"] > 0)
        assert m["parameters"] > 0
    by_name = {m["name"]: m for m in found}
    assert by_name["gru-spoken-digits"]["state_bytes"] == 4 * 64
    assert by_name["gtrxl-spoken-digits"]["row"] == 19
    assert by_name["gtrxl-spoken-digits"]["state_bytes"] == 4 * (4 * 40 * 32 + 4 * 40)
    assert by_name["vit-64"]["state_bytes"] == 0


def test_the_table_shows_state_and_parameters_and_no_state_as_input() -> None:
    lines = done("models").out.splitlines()
    (line,) = [line for line in lines if line.startswith("hmt-spoken-digits ")]
    assert {"32,330", "2,944"} <= set(line.split())
    assert "segment[1, 8, 40]" in line
    assert "memory[" not in line


@pytest.mark.parametrize("record", list_models(), ids=lambda record: record.name)
def test_a_model_is_described_by_its_card_and_its_contract(record) -> None:
    text = done("models", record.name).out
    assert record.card in text
    assert record.source in text
    assert len(record.card.splitlines()) > 3
    printed = done("models", record.name, "--json").json
    assert printed["card"] == record.card
    assert [s["input"] for s in printed["states"]] == [source for source, *_ in record.states]
    assert sum(4 * math.prod(s["shape"]) for s in printed["states"]) == printed["state_bytes"]
    for state in printed["states"]:
        assert printed["inputs"][state["input"]] == printed["outputs"][state["output"]] == state["shape"]
        assert f"{state['input']}{state['shape']} -> {state['output']}" in text


def test_an_unknown_name_is_the_registrys_error() -> None:
    answer = edgec("models", "gtrxl")
    assert (answer.code, answer.out) == (2, "")
    assert "there is no model named 'gtrxl'" in answer.err
    assert "did you mean 'gtrxl-spoken-digits'?" in answer.err
    assert edgec("models", "gtrxl", "--json").code == 2


def test_describing_imports_no_torch() -> None:
    code = (
        "import sys; from edgec import cli; sys.argv = ['edgec', 'models', 'hmt-spoken-digits', '--json']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'onnx', 'tvm'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_every_model_with_memory_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    assert [r.name for r in list_models() if r.stateful and f"`{r.name}`" not in text] == []
