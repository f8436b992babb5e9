# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning is judged by ONNX Runtime: the quantized model that edgec makes before and after it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgec.errors import UsageError
from edgec.export import export
from edgec.model import load_model
from edgec.passes.canonicalize import canonicalize
from edgec.quantize.options import Recipe
from edgec.quantize.quantize import quantize

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from edgec.models.finetune import fake_quantized, finetune  # noqa: E402

PLAIN = Recipe(equalize="off", bias_correction=False)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Residual(nn.Module):
    """One ReLU for both places, one sum in a function, batch normalization: what the zoo's CNNs do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.activation = nn.ReLU()
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x))
        x = self.activation(x + self.second(x))
        y: Tensor = self.head(x.mean(dim=(2, 3)))
        return y


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(16, 24), nn.GELU(), nn.LayerNorm(24), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10)
    )


def fresh(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make().eval()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_var.uniform_(0.2, 2.0)
                part.running_mean.normal_(0, 0.3)
                nn.init.uniform_(part.weight, -1.5, 1.5)
    return module


def samples(shape: tuple[int, ...], count: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def int8_outputs(module: nn.Module, calibration: Tensor, inputs: Tensor, folder: Path, recipe: Recipe) -> np.ndarray:
    """What ONNX Runtime computes with the QDQ model of the exported module."""
    path = export(module, folder / "float.onnx", inputs={"x": (1, *inputs.shape[1:])})
    model = quantize(canonicalize(load_model(path)), {"x": calibration.numpy()[:, None]}, recipe)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.proto.SerializeToString(), options)
    return np.concatenate([session.run(None, {"x": x[None]})[0] for x in inputs.numpy()])


def float_outputs(module: nn.Module, inputs: Tensor) -> np.ndarray:
    with torch.no_grad():
        result: np.ndarray = module(inputs).numpy()
    return result


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a - b) ** 2))


@pytest.mark.parametrize(("make", "shape"), [(mlp, (16,)), (Residual, (3, 8, 8))])
def test_fake_quantization_computes_what_the_quantized_model_computes(
    make: Callable[[], nn.Module], shape: tuple[int, ...], tmp_path: Path
) -> None:
    module, x = fresh(make), samples(shape)
    wanted = int8_outputs(module, x, x, tmp_path, PLAIN)
    got = float_outputs(fake_quantized(module, x.split(16)), x)
    cosine = np.sum(got * wanted) / (np.linalg.norm(got) * np.linalg.norm(wanted))
    assert cosine > 0.9999
    # Nearer to the integers than float is: it is their rounding that is imitated, not just their function.
    assert distance(got, wanted) < 0.25 * distance(float_outputs(module, x), wanted)


def outliers() -> nn.Module:
    """One input has weights 30 times the others', which leaves these a handful of levels."""
    module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    with torch.no_grad():
        module[0].weight[:, 3] *= 30
    return module


def correlated(z: Tensor) -> Tensor:
    """[B, 6] -> [B, 64] in [-1, 1], as pixels are: errors of weights can cancel. Input 3 is small."""
    mixing = torch.randn(6, 64, generator=torch.Generator().manual_seed(9))
    x = torch.tanh(0.5 * z @ mixing)
    x[:, 3] /= 30
    return x


def unlabelled() -> Iterator[tuple[Tensor, None]]:
    while True:  # from the global random state, which `finetune` seeds
        yield correlated(torch.randn(64, 6)), None


@pytest.mark.parametrize("recipe", [PLAIN, Recipe()], ids=["plain", "defaults"])
def test_distillation_brings_int8_nearer_to_the_model_that_it_was(recipe: Recipe, tmp_path: Path) -> None:
    module = fresh(outliers)
    calibration, unseen = correlated(samples((6,), 128, 1)), correlated(samples((6,), 256, 2))
    wanted = float_outputs(module, unseen)
    before = distance(int8_outputs(module, calibration, unseen, tmp_path, recipe), wanted)
    finetune(module, unlabelled(), steps=400, learning_rate=3e-3)
    after = distance(int8_outputs(module, calibration, unseen, tmp_path, recipe), wanted)
    assert after < before / 2.5  # of the mean squared error


def test_labels_are_learned_through_the_rounding(tmp_path: Path) -> None:
    module, x = fresh(mlp), samples((16,), 128)
    classes = x[:, :10].argmax(dim=1)
    losses: list[float] = []
    pairs = ((x, classes) for _ in range(60))
    finetune(module, pairs, steps=60, learning_rate=1e-2, progress=lambda done, steps, loss: losses.append(loss))
    assert len(losses) == 60
    assert np.mean(int8_outputs(module, x, x, tmp_path, PLAIN).argmax(axis=1) == classes.numpy()) > 0.9


@pytest.mark.parametrize(("make", "shape"), [(mlp, (16,)), (Residual, (3, 8, 8))])
def test_gradients_reach_every_parameter(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    module, x = fresh(make), samples(shape)
    student = fake_quantized(module, [x])
    student(x).square().sum().backward()
    assert len(list(student.parameters())) == len(list(module.parameters()))
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_the_module_stays_a_plain_one_with_its_mode() -> None:
    module = fresh(Residual).train()
    module.second.eval()
    plain = copy.deepcopy(module)
    x = samples((3, 8, 8), 16)
    assert finetune(module, ((x, None) for _ in range(3)), steps=3) is module
    assert list(module.state_dict()) == list(plain.state_dict())
    for part, old in zip(module.modules(), plain.modules(), strict=True):
        assert type(part) is type(old)
        assert part.training == old.training
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    for (name, value), old in zip(module.state_dict().items(), plain.state_dict().values(), strict=True):
        trained = not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(value, old) != trained, name


def test_the_seed_alone_decides() -> None:
    state = torch.random.get_rng_state()
    results = [finetune(fresh(outliers), unlabelled(), steps=5, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    first, again, other = (module[0].weight for module in results)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def interrupt(done: int, steps: int, loss: float) -> None:
    if done == 3:
        raise KeyboardInterrupt


def test_interruption_and_errors_leave_the_module_as_it_was() -> None:
    module = fresh(mlp).train()
    before = copy.deepcopy(module.state_dict())
    x = samples((16,))
    with pytest.raises(KeyboardInterrupt):
        finetune(module, ((x, None) for _ in range(9)), steps=9, progress=interrupt)
    with pytest.raises(UsageError, match="ended"):
        finetune(module, ((x, None) for _ in range(3)), steps=9)
    with pytest.raises(UsageError, match="none"):
        finetune(module, iter(()), steps=9)
    with pytest.raises(UsageError, match="loss is nan"):
        finetune(module, ((x * float("nan"), None) for _ in range(9)), steps=9)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
