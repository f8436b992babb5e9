# SPDX-License-Identifier: Apache-2.0
"""LMUFormer, real-valued and spiking, and its layers against their equations in NumPy (float64), and in both forms."""

from __future__ import annotations

import copy
import math

import numpy as np
import onnx
import pytest

from edgec.models.registry import get_model
from tests.torch_modules import torch, weights_of

REAL, SPIKING = "lmuformer-spoken-digits", "lmuformer-spiking-spoken-digits"
SMALL = {"inputs": 5, "dim": 6, "expanded": 9, "window": 7, "blocks": 2, "averaged": 4, "classes": 3}

erf = np.vectorize(math.erf)


def relu(x):
    return np.maximum(x, 0)


def sequence(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stepped(module, x, state):
    """`forward` step after step: the outputs [B, T, ...] and the last states."""
    outputs = []
    for now in x.unbind(1):
        y, *state = module(now, *state)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def assert_forms_agree(module, x, state, tolerance=1e-12):
    """parallel = the loop of steps = parallel piece by piece; every state keeps its shape."""
    with torch.no_grad():
        wanted, last = stepped(module, x, state)
        assert [s.shape for s in last] == [s.shape for s in state]
        for cuts in ([], [1], [3, 4], [x.shape[1] // 2]):
            found, carried = [], state
            for piece in x.tensor_split(cuts, dim=1):
                y, *carried = module.parallel(piece, *carried)
                found.append(y)
            np.testing.assert_allclose(torch.cat(found, dim=1), wanted, atol=tolerance)
            for one, other in zip(carried, last, strict=True):
                np.testing.assert_allclose(one, other, atol=tolerance)


def memories(order: int, window: int, u: np.ndarray) -> np.ndarray:
    """float64 [T, order]: the memory after each u, by its differential equation's exact solution between two steps.

    m(t + 1) = V exp(D) V^-1 m + (integral of exp(A s) over one step) b u with A = V D V^-1; with many small Euler steps
    in between it would be the same.
    """
    a = np.zeros((order, order))
    b = np.zeros(order)
    for i in range(order):
        b[i] = (2 * i + 1) * (-1) ** i / window
        for j in range(order):
            a[i, j] = (2 * i + 1) / window * (-1 if i < j else (-1) ** (i - j + 1))
    step = np.zeros((order + 1, order + 1))
    step[:order, :order], step[:order, order] = a, b
    power, whole = np.eye(order + 1), np.eye(order + 1)
    for k in range(1, 60):  # the series of the exponential; its terms fall fast for these sizes
        power = power @ step / k
        whole = whole + power
    m, found = np.zeros(order), []
    for value in u:
        m = whole[:order, :order] @ m + whole[:order, order] * value
        found.append(m)
    return np.array(found)


@pytest.mark.parametrize("outputs", [3, None])
@pytest.mark.parametrize("form", ["LegendreRecurrence", "LegendreTaps"])
def test_reading_of_the_memory_equals_its_equations_up_to_the_window(form, outputs):
    from edgec.models.layers import legendre_reading

    order, window = 5, 12
    module = getattr(legendre_reading, form)(order, window, outputs).double()
    u = sequence((1, window, 1), seed=1)
    m = memories(order, window, u.numpy().ravel())
    wanted = m if outputs is None else m @ weights_of(module, seed=2)["read.weight"].T
    with torch.no_grad():
        found, *_ = module.parallel(u, torch.zeros(1, *module.size, dtype=torch.float64))
    np.testing.assert_allclose(found[0], wanted, atol=1e-6)  # the matrices are rounded to float32


def test_taps_forget_what_is_older_than_the_window_and_nothing_else():
    from edgec.models.layers.legendre_reading import LegendreTaps

    order, window, steps = 4, 9, 30
    module = LegendreTaps(order, window, None).double()
    u = sequence((1, steps, 1), seed=3)
    with torch.no_grad():
        found, _ = module.parallel(u, torch.zeros(1, *module.size, dtype=torch.float64))
    for t in range(steps):
        recent = u.numpy().ravel()[max(0, t - window + 1) : t + 1]
        np.testing.assert_allclose(found[0, t], memories(order, window, recent)[-1], atol=1e-6)


@pytest.mark.parametrize("outputs", [3, None])
@pytest.mark.parametrize("form", ["LegendreRecurrence", "LegendreTaps"])
def test_forms_of_the_reading_agree(form, outputs):
    from edgec.models.layers import legendre_reading

    module = getattr(legendre_reading, form)(5, 12, outputs).double()
    state = [sequence((2, *module.size), seed=4)]
    assert_forms_agree(module, sequence((2, 40, 1), seed=5), state, tolerance=1e-6)


@pytest.mark.parametrize(
    ("order", "window", "outputs", "form"),
    [(64, 100, 64, "LegendreTaps"), (8, 100, 64, "LegendreRecurrence"), (256, 128, 256, "LegendreTaps"),
     (64, 100, None, "LegendreRecurrence"), (128, 100, None, "LegendreTaps")],
)  # fmt: skip
def test_the_form_is_that_with_fewer_macs(order, window, outputs, form):
    from edgec.models.layers.legendre_reading import legendre_reading, step_macs

    module = legendre_reading(order, window, outputs)
    assert type(module).__name__ == form
    # Counted: every multiplication by a constant that is not known to be 0 or 1.
    read = 0 if module.read is None else module.read.weight.numel()
    counted = {
        "recurrent": order * order + order + read,
        "taps": (order if outputs is None else outputs) * window,
    }
    assert step_macs(order, window, outputs) == counted


def neurons(x: np.ndarray, threshold: float, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Charge, fire, reset in whole steps of 2 / 127 of the threshold: x [T, C] -> spikes [T, C] and the last membranes.

    h = v + (x - v) / 2 of the paper is half the sum, which fires at the threshold: at 127 steps of the sum.
    """
    step = 2 * threshold / 127
    spikes = np.zeros_like(x)
    membranes = [round(value / step) for value in v]
    for t in range(len(x)):
        for c in range(x.shape[1]):
            charged = max(-128, min(127, round(membranes[c] + max(-128.0, min(127.0, x[t, c] / step)))))
            spikes[t, c] = 1.0 if charged == 127 else 0.0
            membranes[c] = 0 if charged == 127 else charged // 2
    return spikes, np.array(membranes) * step


@pytest.mark.parametrize("threshold", [1.0, 0.5])
def test_neurons_equal_their_equations(threshold):
    from edgec.models.layers.lif import LIF

    step = 2 * threshold / 127
    x, v = 3 * sequence((1, 50, 4), seed=6) + 0.7, step * (30 * sequence((1, 4), seed=7)).round().clamp(-64, 63)
    spikes, last = neurons(x.numpy()[0], threshold, v.numpy()[0])
    found, after = stepped(LIF(threshold), x, [v])
    assert 0.05 < spikes.mean() < 0.95
    assert (x.numpy()[0] < -4 * threshold).any()  # far enough down to be held
    np.testing.assert_array_equal(found[0], spikes)
    np.testing.assert_allclose(after[0][0], last, atol=1e-12)
    assert_forms_agree(LIF(threshold), x, [v])


def test_neurons_do_not_see_less_than_half_a_step():
    """So rounding to such steps before them, as a program of int8 does, changes nothing."""
    from edgec.models.layers.lif import LIF

    neuron = LIF()
    steps = torch.randint(-200, 200, (1, 60, 8), generator=torch.Generator().manual_seed(30)).double()
    v = torch.zeros(1, 8, dtype=torch.float64)
    wanted, last = neuron.parallel(steps * neuron.step, v)
    found, other = neuron.parallel((steps + 0.98 * (torch.rand(steps.shape).double() - 0.5)) * neuron.step, v)
    assert 0.05 < wanted.mean() < 0.95
    assert torch.equal(found, wanted)
    assert torch.equal(other, last)


def test_gradient_of_a_neuron_is_that_of_the_soft_step_and_none_goes_through_the_reset():
    from edgec.models.layers.lif import LIF

    x = torch.tensor([[[1.0], [2.5], [0.3]]], dtype=torch.float64, requires_grad=True)
    spikes, _ = LIF().parallel(x, torch.zeros(1, 1, dtype=torch.float64))
    assert spikes.flatten().tolist() == [0, 1, 0]
    spikes[0, 2].backward()
    # Membranes before firing: 0.5, 1.5 (fires), 0.15: the third sees neither of the first two, whose rest is 0.
    soft = 1 / (1 + np.exp(-4 * (0.15 - 1)))
    np.testing.assert_allclose(x.grad.flatten(), [0, 0, 0.5 * 4 * soft * (1 - soft)], atol=1e-12)


def test_gradient_over_a_sequence_is_that_of_its_equations():
    """The same neuron step by step, torch following every operation: the soft step in place of the hard one, of the sum
    that is not cut, and rounding and cutting without a gradient of their own."""
    from edgec.models.layers.lif import LIF

    step = 2 / 127
    x, v = (2 * sequence((2, 9, 4), seed=19)).requires_grad_(), (step * (20 * sequence((2, 4), seed=20)).round())
    v.requires_grad_()
    weights, last_weights = sequence((2, 9, 4), seed=21), sequence((2, 4), seed=22)
    spikes, now = [], v
    for t in range(9):
        charged = (now + x[:, t]) / 2
        cut = ((now + x[:, t].clamp(-128 * step, 2)) / step).clamp(-128, 127).round().detach()
        soft, fired = torch.sigmoid(4 * (charged - 1)), (cut == 127).double()
        spikes.append(fired + soft - soft.detach())
        below = (charged.detach() <= -128 / 127).double()
        now = (torch.floor(cut / 2) * step + (1 - below) * (charged - charged.detach())) * (1 - fired)
    wanted = torch.autograd.grad((torch.stack(spikes, 1) * weights).sum() + (now * last_weights).sum(), (x, v))
    found_spikes, last = LIF().parallel(x, v)
    assert torch.equal(found_spikes, torch.stack(spikes, 1).detach().round())
    found = torch.autograd.grad((found_spikes * weights).sum() + (last * last_weights).sum(), (x, v))
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 0.1
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_running_mean_is_that_of_the_last_entries():
    from edgec.models.layers.running_mean import RunningMean

    x, past = sequence((2, 11, 3), seed=8), sequence((2, 4, 3), seed=9)
    whole = np.concatenate([past.numpy(), x.numpy()], axis=1)
    wanted = np.stack([whole[:, t + 1 : t + 5].mean(1) for t in range(11)], axis=1)
    np.testing.assert_allclose(stepped(RunningMean(4), x, [past])[0], wanted, atol=1e-12)
    assert_forms_agree(RunningMean(4), x, [past])


def normalized(x, w, name):
    mean, variance = w[f"{name}.norm.running_mean"], w[f"{name}.norm.running_var"]
    return (x - mean) / np.sqrt(variance + 1e-5) * w[f"{name}.norm.weight"] + w[f"{name}.norm.bias"]


def convolved(x, weight):
    """x [T, C] -> [T, N]: output t sees t - 2, t - 1 and t; zeros before the first."""
    padded = np.concatenate([np.zeros((2, x.shape[1])), x])
    return np.array([sum(weight[:, :, j] @ padded[t + j] for j in range(3)) for t in range(len(x))])


def head(x, w, averaged):
    scores = x @ w["head.weight"].T + w["head.bias"]
    return np.array([scores[max(0, t - averaged + 1) : t + 1].sum(0) / averaged for t in range(len(x))])


def last_window(order, window, u):
    """The memory of the last `window` of u at every step."""
    return np.array([memories(order, window, u[max(0, t - window + 1) : t + 1])[-1] for t in range(len(u))])


def real_equations(x, w, order, sizes):
    for i in range(4):
        x = relu(normalized(convolved(x, w[f"embedding.{i}.layer.conv.weight"]), w, f"embedding.{i}"))
    x = x + convolved(x, w["position.conv.weight"])
    for b in (f"blocks.{i}" for i in range(sizes["blocks"])):
        u = relu(x @ w[f"{b}.encode.weight"][0] + w[f"{b}.encode.bias"][0])
        m = last_window(order, sizes["window"], u)
        h = relu(m @ w[f"{b}.memory.read.weight"].T + x @ w[f"{b}.direct.weight"].T + w[f"{b}.direct.bias"])
        x = x + normalized(h @ w[f"{b}.project.layer.weight"].T, w, f"{b}.project")
        inner = normalized(x @ w[f"{b}.expand.layer.weight"].T, w, f"{b}.expand")
        inner = 0.5 * inner * (1 + erf(inner / np.sqrt(2)))
        x = x + relu(normalized(inner @ w[f"{b}.contract.layer.weight"].T, w, f"{b}.contract"))
    return head(x, w, sizes["averaged"])


def spiking_equations(x, w, order, sizes):
    def fire(value):
        return neurons(value, 1.0, np.zeros(value.shape[1]))[0]

    x = np.rint(np.clip(x, -1.28, 3.82) / 0.34) * 0.34  # 16 levels
    for i in range(4):
        x = fire(normalized(convolved(x, w[f"embedding.{i}.layer.conv.weight"]), w, f"embedding.{i}"))
    x = x + 2 * fire(normalized(convolved(x, w["embedding.4.layer.conv.weight"]), w, "embedding.4"))
    for b in (f"blocks.{i}" for i in range(sizes["blocks"])):
        encoded = x @ w[f"{b}.encode.layer.weight"].T + w[f"{b}.encode.layer.bias"]
        u = fire(normalized(encoded, w, f"{b}.encode"))[:, 0]
        m = fire(normalized(last_window(order, sizes["window"], u), w, f"{b}.memory"))
        h = fire(normalized(np.concatenate([m, x], 1) @ w[f"{b}.mix.layer.weight"].T, w, f"{b}.mix"))
        x = x + 2 * fire(normalized(h @ w[f"{b}.project.layer.weight"].T, w, f"{b}.project"))
        inner = fire(normalized(x @ w[f"{b}.expand.layer.weight"].T, w, f"{b}.expand"))
        x = x + fire(normalized(inner @ w[f"{b}.contract.layer.weight"].T, w, f"{b}.contract"))
    return head(x, w, sizes["averaged"])


def small_model(form: str, order: int, seed: int):
    """A model of SMALL sizes in float64 with random weights and statistics, and these weights."""
    from edgec.models import lmuformer

    module = getattr(lmuformer, form)(**SMALL, order=order).eval()
    weights = weights_of(module, seed)
    if form == "SpikingLMUFormer":  # louder, so that neurons fire
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name.endswith("norm.bias"):
                    parameter.add_(0.8)
                    weights[name] = parameter.double().numpy()
    return module.double(), weights


@pytest.mark.parametrize(
    ("form", "order", "equations"),
    [("LMUFormer", 6, real_equations), ("SpikingLMUFormer", 8, spiking_equations)],
)
def test_model_equals_its_equations(form, order, equations):
    module, weights = small_model(form, order, seed=10)
    x = sequence((1, 25, SMALL["inputs"]), seed=11)
    with torch.no_grad():
        found, *_ = module.parallel(x, *(s.double() for s in module.reset(1)))
    wanted = equations(x.numpy()[0], weights, order, SMALL)
    assert wanted.std() > 0.01
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)


@pytest.mark.parametrize(("form", "order"), [("LMUFormer", 6), ("SpikingLMUFormer", 8)])
def test_forms_of_the_model_agree_and_folding_changes_nothing(form, order):
    from edgec.models.layers.norm import Normed, folded

    module, _ = small_model(form, order, seed=12)
    plain = folded(module).double()
    assert not any(isinstance(part, Normed | torch.nn.BatchNorm1d) for part in plain.modules())
    x = sequence((2, 25, SMALL["inputs"]), seed=13)
    state = [s.double() for s in module.reset(2)]
    assert_forms_agree(module, x, state)
    assert_forms_agree(plain, x, state)
    with torch.no_grad():
        np.testing.assert_allclose(plain.parallel(x, *state)[0], module.parallel(x, *state)[0], atol=1e-5)


def test_what_the_real_form_hears_is_forgotten_after_its_windows():
    """Streams of other beginnings are bit for bit the same afterwards: no rounding adds up, however long they are."""
    module, _ = small_model("LMUFormer", 6, seed=23)
    span = 10 + 2 * (SMALL["window"] - 1) + SMALL["averaged"]
    start = [sequence((1, 3 * span, SMALL["inputs"]), seed) for seed in (24, 25)]
    start[1][:, -span:] = start[0][:, -span:]
    with torch.no_grad():
        (one, *_), (other, *_) = (stepped(module, x, [s.double() for s in module.reset(1)]) for x in start)
    assert torch.equal(one[:, -1], other[:, -1])
    assert not torch.allclose(one[:, -1 - SMALL["averaged"] - 10], other[:, -1 - SMALL["averaged"] - 10])


def test_folding_is_exact_and_leaves_the_module_alone():
    """In float64, where the weights are rounded to float32 once and that is all: dense layer, convolution, taps."""
    from edgec.models.layers.causal_conv import CausalConv1d
    from edgec.models.layers.legendre_reading import LegendreTaps
    from edgec.models.layers.norm import Normed, folded

    parts = [(torch.nn.Linear(4, 6), ()), (CausalConv1d(4, 6, 3, groups=2), (2, 4)), (LegendreTaps(6, 5, None), (4, 1))]
    for layer, size in parts:
        module = Normed(layer, 6).eval()
        weights_of(module, seed=14)
        before = copy.deepcopy(module.state_dict())
        plain = folded(module)
        assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
        x = sequence((3, size[1] if size else 4), seed=15)
        state = [sequence((3, *size), seed=16)] if size else []
        with torch.no_grad():
            wanted, found = module.double()(x, *state), plain.double()(x, *state)
        for one, other in zip(*((r if isinstance(r, tuple) else (r,)) for r in (found, wanted)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_what_cannot_be_folded_is_refused():
    from edgec.models.layers.legendre_reading import LegendreRecurrence
    from edgec.models.layers.norm import Normed, folded

    with pytest.raises(TypeError, match="folded into LegendreRecurrence"):
        folded(Normed(LegendreRecurrence(4, 9, None), 4))


@pytest.mark.parametrize("name", [REAL, SPIKING])
def test_registered_step_is_plain_and_its_forms_agree(name):
    record = get_model(name)
    module = record.build(seed=17)
    assert record.row == 24
    resets = {source: value for source, _, value in record.states}
    state = [torch.full(record.inputs[source], resets[source]).double() for source in record.inputs if source in resets]
    assert [tuple(s.shape) for s in state] == [(1, *size) for size in module.sizes]
    frames = sequence((1, 120, 40), seed=18)
    assert_forms_agree(module.double(), frames, state)


def test_exported_step_holds_plain_layers_only(tmp_path):
    from edgec.export import export

    graph = onnx.load(export(SPIKING, tmp_path / "step.onnx")).graph
    kinds = {node.op_type for node in graph.node}
    assert {"Conv", "Gemm"} <= kinds
    assert not kinds & {"BatchNormalization", "MatMul", "Sqrt", "Div", "Pow"}
