# SPDX-License-Identifier: Apache-2.0
"""The model families against their equations, written a second time in NumPy (float64)."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from edgec.errors import UsageError
from edgec.models.registry import get_model, list_models
from tests.torch_modules import run, torch, weights_of

erf = np.vectorize(math.erf)


def layer_norm(x, gamma, beta, eps):
    centred = x - x.mean(-1, keepdims=True)
    return gamma * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) + beta


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def attention(qkv, heads):
    """Head by head, row by row: qkv [T, 3D] -> [T, D]."""
    tokens, width = qkv.shape
    d = width // 3 // heads
    out = np.zeros((tokens, width // 3))
    for head in range(heads):
        q, k, v = (qkv[:, (part * heads + head) * d :][:, :d] for part in range(3))
        for t in range(tokens):
            scores = k @ q[t] / np.sqrt(d)
            probabilities = np.exp(scores - scores.max())
            out[t, head * d : (head + 1) * d] = probabilities / probabilities.sum() @ v
    return out


def tokens_of(image, w, patch):
    """image [C, H, W] -> [T, D]: each patch by its own dot products."""
    _, height, width = image.shape
    kernel, bias = w["embedding.projection.weight"], w["embedding.projection.bias"]
    rows = [
        [np.sum(kernel[n] * image[:, y : y + patch, x : x + patch]) + bias[n] for n in range(len(bias))]
        for y in range(0, height, patch)
        for x in range(0, width, patch)
    ]
    return np.array(rows) + w["position"][0]


def low_rank(x, w, name):
    up, core, down = (w[f"{name}.{part}.weight"] for part in ("up", "core", "down"))
    return x @ (up @ core @ down).T + w[f"{name}.up.bias"]


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


@pytest.mark.parametrize(
    ("name", "patch", "heads", "depth", "eps", "layer"),
    [("mcuformer-fashion-mnist", 4, 4, 4, 1e-5, low_rank), ("vit-64", 8, 3, 4, 1e-6, linear)],
)
def test_transformer_equals_its_equations(name, patch, heads, depth, eps, layer):
    record = get_model(name)
    module = record.build()
    w = weights_of(module, seed=1)
    image = np.random.default_rng(2).random(record.inputs["image"]).astype(np.float32)

    x = tokens_of(image[0].astype(np.float64), w, patch)
    for i in range(depth):
        block = f"blocks.{i}"
        normed = layer_norm(x, w[f"{block}.norm1.weight"], w[f"{block}.norm1.bias"], eps)
        mixed = attention(layer(normed, w, f"{block}.attention.qkv"), heads)
        x = x + linear(mixed, w, f"{block}.attention.projection")
        normed = layer_norm(x, w[f"{block}.norm2.weight"], w[f"{block}.norm2.bias"], eps)
        x = x + layer(gelu(layer(normed, w, f"{block}.expand")), w, f"{block}.contract")
    x = layer_norm(x, w["norm.weight"], w["norm.bias"], eps)
    logits = w["head.weight"] @ x.mean(0) + w["head.bias"]

    assert f"blocks.{depth}.norm1.weight" not in w
    np.testing.assert_allclose(run(module, image)[0], logits, rtol=1e-4, atol=1e-4)


def test_recurrent_memory_equals_its_equations_over_20_steps():
    record = get_model("recurrent-16-64-32")
    module = record.build(seed=3)  # with its own, stable A: random weights would explode
    w = {name: value.double().numpy() for name, value in module.state_dict().items()}
    random = np.random.default_rng(4)
    h, m = np.zeros(64), np.zeros(32)
    got_h, got_m = np.zeros((1, 64)), np.zeros((1, 32))
    for _ in range(20):
        x = random.standard_normal(16)
        u = w["ex.weight"][0] @ x + w["eh.weight"][0] @ h
        m = m + w["A.weight"] @ m + w["B.weight"][:, 0] * u
        h = np.tanh(w["wx.weight"] @ x + w["wm.weight"] @ m + w["wh.weight"] @ h)
        y = w["out.weight"] @ h + w["out.bias"]
        got_y, got_h, got_m = run(module, x[None], got_h, got_m)
        np.testing.assert_allclose(got_y[0], y, atol=1e-5)
        np.testing.assert_allclose(got_h[0], h, atol=1e-5)
        np.testing.assert_allclose(got_m[0], m, atol=1e-5)


def test_memory_starts_stable():
    a = get_model("recurrent-16-64-32").build().A.weight.detach().double().numpy()
    assert np.abs(np.linalg.eigvals(np.eye(32) + a)).max() < 1


def test_memory_remembers_its_window():
    """The defining property: the coefficients, weighted by the Legendre polynomials, give back the input."""
    from edgec.models.layers.legendre import legendre_memory

    order, window = 12, 200
    a, b = (matrix.numpy() for matrix in legendre_memory(order, window))
    signal = np.sin(2 * np.pi * np.arange(3 * window) / 150) + 0.3 * np.cos(2 * np.pi * np.arange(3 * window) / 90)
    m = np.zeros(order)
    for u in signal:
        m = a @ m + b * u
    for delay in (20, 60, 100, 150):
        polynomial = np.polynomial.legendre.legval(2 * delay / window - 1, m)
        assert polynomial == pytest.approx(signal[-1 - delay], abs=0.05)


@pytest.mark.parametrize(("inputs", "outputs", "ratio", "rank"), [(64, 192, 0.5, 32), (96, 40, 0.45, 18)])
def test_low_rank_layer_is_the_product_of_its_factors(inputs, outputs, ratio, rank):
    from edgec.models.layers.low_rank import LowRankLinear, rank_of

    assert rank_of(inputs, outputs, ratio) == rank
    layer = LowRankLinear(inputs, outputs, rank)
    w = weights_of(layer, seed=5)
    dense = w["up.weight"] @ w["core.weight"] @ w["down.weight"]
    assert np.linalg.matrix_rank(dense) == rank
    np.testing.assert_allclose(layer.dense().detach().numpy(), dense, atol=1e-4)
    x = np.random.default_rng(6).standard_normal((3, 7, inputs))
    np.testing.assert_allclose(run(layer, x), x @ dense.T + w["up.bias"], rtol=1e-4, atol=1e-3)


def test_positions_of_neighbours_differ_least():
    from edgec.models.layers.patch_embedding import grid_position

    grid = grid_position(5, 6, 32)[0].numpy().reshape(5, 6, 32)
    distance = np.linalg.norm(grid[2, 2] - grid, axis=-1)
    assert distance[2, 2] == 0
    assert (distance[2, 2:] == np.sort(distance[2, 2:])).all()
    assert (distance[2:, 2] == np.sort(distance[2:, 2])).all()


@pytest.mark.parametrize("record", list_models(), ids=lambda record: record.name)
def test_record_tells_the_truth(record):
    """Declared shapes are what the module takes and gives; the parsed record is the registered one."""
    from edgec.models import registry

    module = record.build()
    assert not module.training
    results = run(module, *(np.zeros(shape) for shape in record.inputs.values()))
    results = results if isinstance(results, list) else [results]
    assert [r.shape for r in results] == list(record.outputs.values())
    for source, target, _ in record.states:
        assert record.inputs[source] == record.outputs[target]
    declared = registry._declared[record.name]
    assert {key: getattr(record, key) for key in declared} == declared
    assert record.stateful == bool(record.states)
    assert record.parameters == sum(p.numel() for p in module.parameters())
    assert record.state_bytes == sum(np.zeros(record.inputs[source], np.float32).nbytes for source, *_ in record.states)
    assert record.card == sys.modules[record.module].__doc__.strip()


def test_building_is_a_function_of_the_seed_and_leaves_the_global_state_alone():
    record = get_model("recurrent-16-64-32")
    before = torch.random.get_rng_state()
    one, again, other = (record.build(seed).wh.weight for seed in (7, 7, 8))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_listing_does_not_import_torch():
    code = (
        "import sys; from edgec.models.registry import list_models; print(*[r.name for r in list_models() if r.card]);"
        "assert not {'torch', 'onnx', 'tvm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert names == sorted(names)
    assert {"ds-cnn-cifar10", "gru-spoken-digits", "recurrent-16-64-32", "vit-64"} <= set(names)


def test_unknown_name_offers_the_closest():
    with pytest.raises(UsageError, match="no model named 'mcuformer'") as caught:
        get_model("mcuformer")
    assert "did you mean 'mcuformer-fashion-mnist'?" in caught.value.hints


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m.PatchEmbedding((1, 28, 28), 5, 8), "patch of 5 pixels does not divide"),
        (lambda m: m.grid_position(2, 2, 6), "multiple of 4"),
        (lambda m: m.rank_of(8, 8, 1.5), "rank ratio is out of range"),
        (lambda m: m.SelfAttention(8, 3, None, None), "number of heads does not divide"),
    ],
)
def test_impossible_sizes_are_refused(make, message):
    from types import SimpleNamespace

    from edgec.models.layers import attention, low_rank, patch_embedding

    layers = SimpleNamespace(**{**vars(attention), **vars(low_rank), **vars(patch_embedding)})
    with pytest.raises(UsageError, match=message):
        make(layers)
