# SPDX-License-Identifier: Apache-2.0
"""GRU, LSTM and RNN nodes as their steps: ONNX Runtime computes the same, and int8 takes what is left."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from canonical_form import canonical_form, f32, feeds_of, hand_model, run
from int8_model import check_int8, exported
from onnx import helper
from torch import Tensor, nn

from edgec.errors import UnsupportedError
from edgec.model import Model, StatePair
from edgec.passes.canonicalize import canonicalize
from edgec.passes.support import require_supported

GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}


def recurrent(
    kind: str,
    steps: int = 3,
    *,
    bias: bool = True,
    batch: int = 1,
    layout: int = 0,
    initial: str = "",
    outputs: str = "y h",
    extra: dict[str, np.ndarray] | None = None,
    **attributes: object,
) -> Model:
    """One node of 4 inputs and 5 hidden values; `initial` names which states are graph inputs."""
    n = GATES[kind]
    weights = {"w": f32(1, n * 5, 4, seed=1), "r": f32(1, n * 5, 5, seed=2) / 2}
    if bias:
        weights["b"] = f32(1, n * 10, seed=3)
    weights |= extra or {}
    state = [batch, 1, 5] if layout else [1, batch, 5]
    inputs = {"x": [batch, steps, 4] if layout else [steps, batch, 4]}
    operands = ["x", "w", "r", "b" if bias else "", "lengths" if "lengths" in weights else ""]
    for name in ("h0", "c0"):
        if name in initial.split():
            inputs[name] = state
        operands.append(name if name in (*inputs, *weights) else "")
    if "p" in weights:
        operands.append("p")
    while not operands[-1]:
        operands.pop()
    node = helper.make_node(
        kind, operands, ["" if o == "-" else o for o in outputs.split()], name="cell", hidden_size=5, layout=layout,
        **attributes,
    )  # fmt: skip
    return hand_model([node], inputs, [o for o in outputs.split() if o != "-"], weights)


# ONNX Runtime's own layout=1 is missing on the CPU; its result is that of layout=0 transposed.
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(("steps", "batch", "bias"), [(1, 1, True), (3, 1, True), (3, 2, False)])
@pytest.mark.parametrize("initial", ["", "h0", "h0 c0"])
def test_steps_compute_the_node(kind: str, steps: int, batch: int, bias: bool, initial: str) -> None:
    if "c0" in initial and kind != "LSTM":
        return
    outputs = "y h c" if kind == "LSTM" else "y h"
    before_reset = [{"linear_before_reset": 0}, {"linear_before_reset": 1}] if kind == "GRU" else [{}]
    for attributes in before_reset:
        model = recurrent(kind, steps, batch=batch, bias=bias, initial=initial, outputs=outputs, **attributes)
        canonical = canonical_form(model)
        assert kind not in canonical.histogram()
        require_supported(canonical)


@pytest.mark.parametrize("kind", GATES)
def test_the_other_layout(kind: str) -> None:
    outputs = "y h c" if kind == "LSTM" else "y h"
    one, other = (recurrent(kind, 3, batch=2, layout=layout, initial="h0", outputs=outputs) for layout in (0, 1))
    feeds = feeds_of(one)
    want = run(canonicalize(one).proto, feeds)
    got = run(canonicalize(other).proto, {n: a.transpose(1, 0, 2) for n, a in feeds.items()})
    for a, b, perm in zip(want, got, [(2, 0, 1, 3), (1, 0, 2), (1, 0, 2)], strict=False):
        assert np.allclose(a.transpose(perm), b, atol=1e-6)


def test_only_some_outputs_are_read() -> None:
    for kind, outputs in (("GRU", "- h"), ("GRU", "y"), ("LSTM", "- - c"), ("LSTM", "- h")):
        assert kind not in canonical_form(recurrent(kind, outputs=outputs)).histogram()


def test_states_of_a_streaming_step_stay_a_pair() -> None:
    model = recurrent("GRU", 1, initial="h0", outputs="y h", linear_before_reset=1)
    model = Model(model.proto, model.name, model.sha256, (StatePair("h0", "h"),))
    canonical = canonical_form(model)
    assert canonical.states == (StatePair("h0", "h"),)
    assert canonical.histogram()["Gemm"] == 6


REFUSED = [
    ("GRU", {"direction": "reverse"}, {}, "direction reverse"),
    ("LSTM", {"clip": 3.0}, {}, "clips"),
    ("LSTM", {"input_forget": 1}, {}, "coupled"),
    ("LSTM", {}, {"p": np.ones((1, 15), np.float32)}, "peepholes"),
    ("RNN", {"activations": ["Relu"]}, {}, "activations Relu"),
]


@pytest.mark.parametrize(("kind", "attributes", "extra", "why"), REFUSED)
def test_other_variants_are_refused(kind: str, attributes: dict, extra: dict, why: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        require_supported(canonicalize(recurrent(kind, extra=extra, **attributes)))
    assert why in str(caught.value)


def test_bidirectional_is_refused() -> None:
    weights = {"w": f32(2, 15, 4), "r": f32(2, 15, 5)}
    node = helper.make_node("GRU", ["x", "w", "r"], ["y"], name="cell", hidden_size=5, direction="bidirectional")
    with pytest.raises(UnsupportedError, match="direction bidirectional"):
        require_supported(canonicalize(hand_model([node], {"x": [3, 1, 4]}, ["y"], weights)))


class Keyword(nn.Module):
    """A recurrent classifier as it is usually written."""

    def __init__(self, kind: type[nn.RNNBase], layers: int) -> None:
        super().__init__()
        self.cell = kind(4, 5, num_layers=layers, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cell(x)
        return self.out(y[:, -1])


@pytest.mark.parametrize(("dynamo", "kind"), list(itertools.product([False, True], [nn.GRU, nn.LSTM])))
@pytest.mark.filterwarnings("ignore")
def test_recurrent_layers_of_torch(dynamo: bool, kind: type[nn.RNNBase]) -> None:
    """Errors of int8 feed back through 12 steps."""
    torch.manual_seed(0)
    canonical = check_int8(exported(Keyword(kind, 2), torch.randn(1, 6, 4), dynamo=dynamo), least=0.05, apart=6)
    assert not {"GRU", "LSTM"} & set(canonical.histogram())
