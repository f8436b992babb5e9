# SPDX-License-Identifier: Apache-2.0
"""RMSNorm, Einsum, Attention and activations in the forms of several exporters: same function, one form, int8."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from canonical_form import canonical_form, f32, hand_model, node, run
from int8_model import check_int8, exported
from onnx import TensorProto
from qdq_graph import program_of, run_program
from torch import Tensor, nn

from edgec.model import Model, value_shapes
from edgec.passes.canonicalize import canonicalize
from edgec.passes.rms_norm_form import find_rms_norms
from edgec.passes.support import require_supported
from edgec.quantize.quantize import quantize


def rms_forms(model: Model) -> int:
    return len(find_rms_norms(model.proto.graph, value_shapes(model.proto)))


# --- RMSNorm


def square_by_power() -> list[onnx.NodeProto]:
    return [node("Pow", "x two", "s")]


def square_by_product() -> list[onnx.NodeProto]:
    return [node("Mul", "x x", "s")]


TAILS: dict[str, list[onnx.NodeProto]] = {
    "quotient": [node("Sqrt", "e", "r"), node("Div", "x r", "n"), node("Mul", "n g", "y")],
    "reciprocal": [node("Sqrt", "e", "r"), node("Reciprocal", "r", "i"),
                   node("Mul", "x i", "n"), node("Mul", "n g", "y")],
    "one over": [node("Sqrt", "e", "r"), node("Div", "one r", "i"), node("Mul", "i x", "n"), node("Mul", "g n", "y")],
    "power": [node("Pow", "e minus_half", "i"), node("Mul", "x i", "n"), node("Mul", "n g", "y")],
    "root by power": [node("Pow", "e half", "r"), node("Div", "x r", "y")],
}  # fmt: skip


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("square", [square_by_power, square_by_product])
def test_rms_norm_is_found_however_it_is_written(tail: str, square: Callable[[], list[onnx.NodeProto]]) -> None:
    nodes = [*square(), node("ReduceMean", "s axes", "m", keepdims=1), node("Add", "m eps", "e"), *TAILS[tail]]
    constants = {
        "two": np.float32(2), "axes": np.array([-1]), "eps": np.float32(1e-5), "one": np.float32(1),
        "half": np.float32(0.5), "minus_half": np.float32(-0.5), "g": f32(8) + 1,
    }  # fmt: skip
    model = canonical_form(hand_model(nodes, {"x": [1, 5, 8]}, ["y"], constants))
    assert rms_forms(model) == 1
    assert len(model.proto.graph.node) == 6 - ("g" not in nodes[-1].input)


class RMSNorm(nn.Module):
    """As language models have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class UnitNorm(nn.Module):
    """F.normalize with a gain: cosine attention, and the RMSNorm of timm-style code."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("module", [RMSNorm(12), UnitNorm(), nn.RMSNorm(12, eps=1e-6)], ids=["own", "unit", "torch"])
@pytest.mark.filterwarnings("ignore")
def test_rms_norms_of_torch(module: nn.Module, dynamo: bool) -> None:
    if isinstance(module, nn.RMSNorm) and not dynamo:
        return  # the older exporter does not know it
    model = exported(nn.Sequential(nn.Linear(6, 12), module, nn.Linear(12, 5)), torch.randn(1, 7, 6), dynamo=dynamo)
    assert rms_forms(check_int8(model)) == 1


def test_rms_normalization_of_opset_23() -> None:
    nodes = [node("RMSNormalization", "x g", "n", axis=-1, epsilon=1e-5), node("MatMul", "n w", "y")]
    model = hand_model(nodes, {"x": [1, 5, 8]}, ["y"], {"g": f32(8) + 1, "w": f32(8, 6)}, opset=23)
    assert rms_forms(check_int8(model)) == 1


# --- Einsum


EQUATIONS = [
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
    ("bthd,bshd->bhts", [(1, 3, 2, 4), (1, 5, 2, 4)]),
    ("bhts,bshd->bthd", [(1, 2, 3, 5), (1, 5, 2, 4)]),
    ("ij,jk", [(3, 4), (4, 5)]),
    ("ij->ji", [(3, 4)]),
    ("ijk->k", [(3, 4, 5)]),
    ("i,j->ij", [(3,), (4,)]),
    ("bi,bi->b", [(3, 4), (3, 4)]),
    ("bi,bi->bi", [(3, 4), (3, 4)]),
    ("bi,b->bi", [(3, 4), (3,)]),
    ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
    ("...i,ij->...j", [(2, 3, 4), (4, 5)]),
    ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)]),
    ("bij,bkj->bk", [(2, 3, 4), (2, 5, 4)]),
    (" b i , i o -> b o ", [(2, 3), (3, 4)]),
]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
def test_einsum_is_lowered(equation: str, shapes: list[tuple[int, ...]]) -> None:
    names = [f"x{i}" for i in range(len(shapes))]
    nodes = [node("Einsum", " ".join(names), "y", equation=equation)]
    inputs = {n: list(s) for n, s in zip(names, shapes, strict=True)}
    assert "Einsum" not in canonical_form(hand_model(nodes, inputs, ["y"])).histogram()
    if len(shapes) == 2:  # weights on either side
        for fixed, free in ((0, 1), (1, 0)):
            weights = {names[fixed]: f32(*shapes[fixed], seed=3)}
            model = canonical_form(hand_model(nodes, {names[free]: inputs[names[free]]}, ["y"], weights))
            assert "Einsum" not in model.histogram()


def test_einsum_with_weights_is_a_dense_layer() -> None:
    nodes = [node("Einsum", "w x", "y", equation="oi,bti->bto")]
    model = check_int8(hand_model(nodes, {"x": [1, 7, 6]}, ["y"], {"w": f32(5, 6)}))
    assert model.histogram()["Gemm"] == 1


def test_a_diagonal_stays() -> None:
    model = canonicalize(hand_model([node("Einsum", "x", "y", equation="ii->i")], {"x": [4, 4]}, ["y"]))
    assert model.histogram() == {"Einsum": 1}
    assert any("diagonal" in n for n in model.notes)


# --- attention


class Attention(nn.Module):
    """Two heads by einsum, causal, as much code of transformers has it."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).unbind(2)
        scores = torch.einsum("bthd,bshd->bhts", q, k) * (c // self.heads) ** -0.5
        hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return self.out(torch.einsum("bhts,bshd->bthd", weights, v).reshape(b, t, c))


class FusedAttention(Attention):
    """The same by torch's own function."""

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, c))


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("kind", [Attention, FusedAttention])
@pytest.mark.filterwarnings("ignore")
def test_causal_attention_of_torch(kind: type[nn.Module], dynamo: bool) -> None:
    torch.manual_seed(1)
    model = check_int8(exported(kind(), torch.randn(1, 6, 8), dynamo=dynamo))
    assert model.histogram()["Softmax"] == 1


@pytest.mark.parametrize("masked", ["causal", "mask", "none"])
def test_attention_of_opset_23(masked: str) -> None:
    inputs = {n: [1, 2, 6, 4] for n in "qkv"}
    mask = np.where(np.tri(6) > 0, 0, -np.inf).astype(np.float32)
    operands = "q k v mask" if masked == "mask" else "q k v"
    nodes = [node("Attention", operands, "y", is_causal=int(masked == "causal"))]
    model = hand_model(nodes, inputs, ["y"], {"mask": mask} if masked == "mask" else {}, opset=23)
    assert check_int8(model).histogram()["Softmax"] == 1


# --- activations and the forms of other exporters


class Activations(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        swish = x * torch.sigmoid(x)
        hard = x * F.relu6(x + 3) / 6
        return swish + hard + F.silu(x) + F.hardswish(x) + F.gelu(x) + F.softplus(x) + F.leaky_relu(x, 0.1)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_activations_of_torch(dynamo: bool) -> None:
    check_int8(exported(Activations(), torch.randn(1, 9, 11), dynamo=dynamo))


class Choices(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        top, _ = x.topk(3, dim=-1)
        kept = torch.where(x > 0.1, x, 0.2 * x)
        low = torch.minimum(kept, x.cumsum(1)) + torch.maximum(x, -x)
        return low * top[..., :1] + x[:, [2, 0, 1, 1, 3]].amax(1, keepdim=True) + F.pad(x[..., 1:], (1, 0))


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_choices_of_torch(dynamo: bool) -> None:
    check_int8(exported(Choices(), torch.randn(1, 5, 7), dynamo=dynamo))


class Classifier(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.mean(1)
        return y, y.argmax(-1)


@pytest.mark.filterwarnings("ignore")
def test_a_class_may_be_an_output() -> None:
    check_int8(exported(nn.Sequential(nn.Linear(6, 9), Classifier()), torch.randn(1, 5, 6), dynamo=False))


class Words(nn.Module):
    """Embedded words and their positions, pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 8), nn.Embedding(6, 8)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return self.out(self.norm(x).mean(1))


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_words_are_looked_up(dynamo: bool) -> None:
    torch.manual_seed(2)
    model = exported(Words(), torch.randint(0, 50, (1, 6)), dynamo=dynamo)
    canonical = canonicalize(model)
    require_supported(canonical)
    ids = np.random.default_rng(0).integers(0, 50, (40, 1, 6))
    quantized = quantize(canonical, {"x0": ids})
    program = program_of(quantized.proto)
    assert [program.tensors[p.tensor].type.dtype for p in program.inputs] == ["int32"]
    (port,) = program.outputs
    assert port.quantization is not None
    for one in ids[:5]:
        computed = run_program(program, {"x0": one})[port.name]
        steps = run(quantized.proto, {"x0": one})[0] / port.quantization.scale + port.quantization.zero_point
        assert np.abs(computed - np.rint(steps)).max() <= 2


def test_forms_of_a_converted_keras_model() -> None:
    """Channels-last code between transposes, squeezes and unsqueezes, means that keep their axes, relu6 by Min."""
    nodes = [
        node("Transpose", "x", "nchw", perm=[0, 3, 1, 2]),
        node("Unsqueeze", "nchw one", "wide"),
        node("Squeeze", "wide one", "narrow"),
        node("Transpose", "narrow", "nhwc", perm=[0, 2, 3, 1]),
        node("MatMul", "nhwc w", "product"),
        node("Add", "product b", "biased"),
        node("Relu", "biased", "positive"),
        node("Min", "positive six", "relu6"),
        node("ReduceMean", "relu6 spatial", "pooled", keepdims=1),
        node("Squeeze", "pooled spatial", "vector"),
        node("MatMul", "vector w2", "logits"),
        node("Cast", "logits", "y", to=TensorProto.FLOAT),
    ]
    constants = {
        "one": np.array([1]), "w": f32(3, 8), "b": f32(8), "six": np.float32(6), "spatial": np.array([1, 2]),
        "w2": f32(8, 4),
    }  # fmt: skip
    model = check_int8(hand_model(nodes, {"x": [1, 5, 6, 3]}, ["y"], constants))
    assert model.histogram()["Gemm"] == 2
    assert "Transpose" not in model.histogram()


def test_weights_may_be_a_stack_of_matrices() -> None:
    check_int8(hand_model([node("MatMul", "x w", "y")], {"x": [2, 4, 7]}, ["y"], {"w": f32(2, 7, 3)}))


def test_samples_may_be_divided_by_their_sum() -> None:
    """A quotient of two activations, of which one is positive."""
    nodes = [
        node("Sigmoid", "x", "s"),
        node("ReduceSum", "s axes", "total", keepdims=1),
        node("Div", "s total", "y"),
    ]
    check_int8(hand_model(nodes, {"x": [1, 5, 8]}, ["y"], {"axes": np.array([-1])}))


# --- operators that are others put together


COMPOSITES = [
    ("LogSoftmax", {"axis": -1}, {}),
    ("LogSoftmax", {"axis": 1}, {}),
    ("InstanceNormalization", {}, {"a": f32(4) + 1, "b": f32(4, seed=1)}),
    ("ReduceL1", {"keepdims": 1}, {"a": np.array([2])}),
    ("ReduceSumSquare", {"keepdims": 0}, {"a": np.array([1, 2])}),
    ("PRelu", {}, {"a": np.abs(f32(4, 1, 1))}),
    ("PRelu", {}, {"a": np.full((4, 1, 1), 0.2, np.float32)}),
    ("Tile", {}, {"a": np.array([1, 2, 1, 3])}),
    ("Sum", {}, {"a": f32(4, 1, 1), "b": f32(6)}),
    ("Mean", {}, {"a": f32(4, 5, 1)}),
]


@pytest.mark.parametrize(("op_type", "attributes", "constants"), COMPOSITES)
def test_operators_that_are_others_put_together(op_type: str, attributes: dict, constants: dict) -> None:
    nodes = [node(op_type, " ".join(["x", *constants]), "y", **attributes)]
    model = check_int8(hand_model(nodes, {"x": [1, 4, 5, 6]}, ["y"], constants))
    assert op_type not in model.histogram()


@pytest.mark.parametrize("function", [F.silu, F.hardswish, F.mish, lambda x: x * torch.sigmoid(1.702 * x)])
@pytest.mark.filterwarnings("ignore")
def test_a_function_of_one_tensor_is_one_table(function: Callable[[Tensor], Tensor]) -> None:
    """However many nodes it has: one rounding, and nothing in between."""

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    model = exported(Layer(), torch.randn(1, 40, 30), dynamo=False)
    check_int8(model, least=1e-3, apart=1)
    data = {"x0": np.random.default_rng(0).normal(size=(4, 1, 40, 30)).astype(np.float32)}
    assert [c.op for c in program_of(quantize(canonicalize(model), data).proto).calls] == ["table_s8"]


def test_a_chain_ends_where_its_result_is_read_otherwise() -> None:
    """The sum is quantized for the product; the minimum of it and x is then no function of one tensor."""
    nodes = [node("Add", "x x", "a"), node("Min", "a x", "b"), node("MatMul", "a w", "c"), node("Add", "b c", "y")]
    check_int8(hand_model(nodes, {"x": [5, 8]}, ["y"], {"w": f32(8, 8)}))
