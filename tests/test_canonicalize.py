# SPDX-License-Identifier: Apache-2.0
"""The canonical float form: ONNX Runtime says that the function stayed, the graph that the form is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from canonical_form import (
    FORM,
    MOVEMENT,
    attributes_of,
    canonical_form,
    check_form,
    f32,
    hand_model,
    node,
    run,
)
from canonical_models import ViT, export
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgec.errors import UnsupportedError, UsageError
from edgec.model import Model, load_model
from edgec.passes.canonicalize import PASSES, canonicalize
from edgec.passes.support import unsupported_nodes


@pytest.mark.parametrize(
    ("kind", "cls", "opset", "dynamo", "open_batch"),
    [
        ("unbind", False, 18, False, False),
        ("gather", True, 16, False, False),
        ("sdpa", True, 18, False, True),
        ("chunk", False, 14, False, True),
        ("split", False, 13, False, True),
        ("scaled_q", True, 17, False, False),
        ("sdpa", True, 18, True, False),
        ("unbind", False, 20, True, True),
        ("sdpa", False, 23, True, False),  # exported as ONNX's own Attention
    ],
)
def test_plain_vit(tmp_path: Path, kind: str, cls: bool, opset: int, dynamo: bool, open_batch: bool) -> None:
    torch.manual_seed(0)
    module = ViT(kind, cls=cls)
    image = torch.randn(1, 3, 64, 64)
    path = export(module, {"x": image}, tmp_path / "v.onnx", opset=opset, dynamo=dynamo, open_batch=open_batch)
    model = canonical_form(load_model(path))
    histogram = model.histogram()
    tail = {"Concat": 1, "Gather": 1} if cls else {"ReduceMean": 1}
    computing = {op: n for op, n in histogram.items() if op not in MOVEMENT}
    expected = {
        "Gemm": 2 + 4 * 6,
        "MatMul": 8,
        "Mul": 4,
        "Softmax": 4,
        "LayerNormalization": 9,
        "Gelu": 4,
        "Add": 9,
    }
    assert computing == expected | tail, histogram
    assert histogram["Transpose"] == 2 + 4 * 4, histogram  # image, patches; q, k, v in, heads out
    tokens = 64 + int(cls)
    dense = 64 * 192 * 96 + 4 * tokens * 96 * (3 * 96 + 96 + 2 * 192) + 96 * 10
    assert model.macs() == dense + 4 * 2 * tokens * tokens * 96
    assert unsupported_nodes(model) == []
    with torch.no_grad():
        want = module(image).numpy()
    got = run(model.proto, {"x": image.numpy()})[0]
    assert np.abs(want - got).max() <= 1e-5 * np.ptp(want)
    again = canonicalize(model)  # the form is a fixed point
    assert again.histogram() == histogram


def test_low_rank_layers(tmp_path: Path) -> None:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(32)
            self.a, self.b = nn.Linear(32, 8, bias=False), nn.Linear(8, 96)
            self.c, self.d = nn.Linear(32, 8, bias=False), nn.Linear(8, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(x)
            q, k, v = self.b(self.a(y)).reshape(1, 9, 3, 4, 8).permute(2, 0, 3, 1, 4)
            o = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return x + self.d(self.c(o.transpose(1, 2).reshape(1, 9, 32)))

    torch.manual_seed(1)
    path = export(LowRank(), {"x": torch.randn(1, 9, 32)}, tmp_path / "m.onnx")
    model = canonical_form(load_model(path))
    histogram = model.histogram()
    assert histogram["Gemm"] == 1 + 3 + 2, histogram
    assert set(histogram) <= FORM, histogram


@pytest.mark.parametrize("dynamo", [False, True])
def test_recurrent_step(tmp_path: Path, dynamo: bool) -> None:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.v, self.u = (nn.Parameter(torch.randn(64, n) * 0.1) for n in (16, 64, 32))
            self.b, self.a = nn.Parameter(torch.randn(64)), nn.Linear(64, 32, bias=False)
            self.out = nn.Linear(64, 10)

        def forward(
            self, x: torch.Tensor, h: torch.Tensor, m: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            h_next = torch.tanh(x @ self.w.T + h @ self.v.T + m @ self.u.T + self.b)
            m_next = 0.9 * m + self.a(h_next)
            return self.out(h_next), h_next, m_next

    torch.manual_seed(2)
    inputs = {"x": torch.randn(1, 16), "h": torch.randn(1, 64), "m": torch.randn(1, 32)}
    names = ["y", "h_next", "m_next"]
    path = export(Step(), inputs, tmp_path / "m.onnx", outputs=names, dynamo=dynamo)
    model = canonical_form(load_model(path, states=["h:h_next", "m:m_next"]))
    histogram = model.histogram()
    assert histogram["Gemm"] == 5, histogram
    assert set(histogram) <= {"Gemm", "Add", "Mul", "Tanh"}, histogram
    assert model.macs() == 64 * (16 + 64 + 32) + 64 * 32 + 64 * 10


def test_the_names_of_the_model_stay_readable(tmp_path: Path) -> None:
    module = ViT("unbind", cls=False, depth=1, dim=24, size=16)
    model = canonicalize(load_model(export(module, {"x": torch.randn(1, 3, 16, 16)}, tmp_path / "v.onnx")))
    gemms = [n.name for n in model.proto.graph.node if n.op_type == "Gemm"]
    assert gemms == [
        "/patches/Conv",
        "/blocks/blocks.0/attn/qkv/MatMul.q",
        "/blocks/blocks.0/attn/qkv/MatMul.k",
        "/blocks/blocks.0/attn/qkv/MatMul.v",
        "/blocks/blocks.0/attn/proj/MatMul",
        "/blocks/blocks.0/fc1/MatMul",
        "/blocks/blocks.0/fc2/MatMul",
        "/head/Gemm",
    ]
    first = model.proto.graph.node[0]
    assert (first.op_type, list(first.input), list(attributes_of(first)["perm"])) == (
        "Transpose",
        ["x"],
        [0, 2, 3, 1],
    )


def test_nothing_of_the_exporting_machine_stays(tmp_path: Path) -> None:
    module = ViT("unbind", cls=False, depth=1, dim=24, size=16)
    path = export(module, {"x": torch.randn(1, 3, 16, 16)}, tmp_path / "v.onnx", dynamo=True)
    here = str(Path(__file__).parent).encode()
    assert here in path.read_bytes()  # dynamo writes where the module's code lies
    assert here not in canonicalize(load_model(path)).proto.SerializeToString()


def test_every_pass_has_a_contract() -> None:
    for step in PASSES:
        assert len(step.contract) > 20, step.name
    assert len({p.name for p in PASSES}) == len(PASSES)


def test_constants_are_folded_and_quantized_ones_kept() -> None:
    nodes = [
        node("Constant", "", "c", value=numpy_helper.from_array(f32(4))),
        node("Mul", "c c", "c2"),
        node("DequantizeLinear", "wq s", "w"),
        node("Add", "x c2", "a"),
        node("Mul", "a w", "y"),
    ]
    weights = {"wq": np.arange(4, dtype=np.int8), "s": np.float32(0.5)}
    model = canonical_form(hand_model(nodes, {"x": [1, 4]}, ["y"], weights))
    assert model.histogram() == {"DequantizeLinear": 1, "Add": 1, "Mul": 1}


def test_a_bomb_of_constants_is_not_evaluated() -> None:
    nodes = [
        node("ConstantOfShape", "dims", "huge"),
        node("ReduceSum", "huge", "sum", keepdims=0),
        node("Add", "x sum", "y"),
    ]
    model = hand_model(nodes, {"x": [1, 4]}, ["y"], {"dims": np.array([1 << 16, 1 << 16, 8])})
    with pytest.raises(UnsupportedError, match="too large"):
        canonicalize(model)


def test_shapes_that_depend_on_values_are_named() -> None:
    nodes = [
        node("NonZero", "x", "z"),
        node("Cast", "z", "f", to=TensorProto.FLOAT),
        node("ReduceSum", "f", "y", keepdims=0),
    ]
    with pytest.raises(UnsupportedError, match="z_node"):
        canonicalize(hand_model(nodes, {"x": [1, 4]}, ["y"]))


def test_no_ops_vanish() -> None:
    nodes = [
        node("Dropout", "x", "a"),
        node("Cast", "a", "b", to=TensorProto.FLOAT),
        node("Add", "b zeros", "c"),
        node("Mul", "one c", "d"),
        node("Slice", "d z big z", "e"),
        node("Expand", "e dims", "f"),
        node("Identity", "f", "g"),
        node("Relu", "g", "y"),
    ]
    weights = {
        "zeros": np.zeros((3, 4), np.float32),
        "one": np.ones((1, 1), np.float32),
        "dims": np.array([3, 4]),
    }
    weights |= {"z": np.array([0]), "big": np.array([99])}
    assert canonical_form(hand_model(nodes, {"x": [3, 4]}, ["y"], weights)).histogram() == {"Relu": 1}


def test_names_are_given_and_made_unique() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Abs", ["a"], ["b"], name="n")]
    nodes += [helper.make_node("Neg", ["b"], ["c"], name="n"), helper.make_node("Relu", ["c"], ["y"])]
    model = canonicalize(hand_model(nodes, {"x": [3, 4]}, ["y"]))  # ONNX Runtime refuses the original
    check_form(model)
    assert [n.name for n in model.proto.graph.node] == ["Relu", "n", "n.2", "Relu.2"]


def test_input_shapes_reach_the_passes() -> None:
    proto = hand_model([node("Relu", "x", "y")], {"x": [1, 4]}, ["y"]).proto
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[1].dim_param = "n"
    model = Model(proto, "m", "0" * 64)
    assert canonicalize(model, {"x": (1, 9)}).outputs[0].shape == (1, 9)
    with pytest.raises(UsageError, match="'z'"):
        canonicalize(model, {"z": (1, 9)})
