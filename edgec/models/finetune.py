# SPDX-License-Identifier: Apache-2.0
"""Light quantization-aware fine-tuning: float weights that lose less when edgec rounds them to int8.

A copy of the module computes with fake quantization (rounded values in float; the straight-through estimator of
Bengio et al. 2013 in the backward pass) after the scheme of `edgec.quantize.scheme`, as in Jacob et al. 2018
(arXiv:1712.05877). What it does not imitate: rounding of biases (32 bits), and of what functions between modules
compute (scores and weights of an attention), unless a module reads it.

torch is imported inside the functions only, so that this module can be imported without it.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from edgec.errors import UsageError
from edgec.quantize.scheme import FIXED_OUTPUT, activation_params

if TYPE_CHECKING:
    from torch import Tensor, nn

    Inputs = Tensor | tuple[Tensor, ...]

OBSERVED = 8  # batches that the ranges of activations come from

# By the names of torch's classes, base classes included. Per output channel a batch normalization only scales
# the weights before it, and with them their scale: rounding before and after folding it is the same.
WEIGHTED = {"Linear", "Conv1d", "Conv2d"}
FUSED = {"BatchNorm1d", "BatchNorm2d", "ReLU", "Hardtanh"}  # one operator with what is before: nothing rounded between
MOVEMENT = {"Flatten", "Unflatten", "Identity", "Dropout", "MaxPool1d", "MaxPool2d"}  # its output inherits
READING = {*WEIGHTED, "LayerNorm", "GELU", "SiLU", "Sigmoid", "Tanh", "Softmax", "LeakyReLU", "AvgPool2d"}

Key = tuple[str, int, str]  # of a tensor: the module, which of its calls in one forward pass, "input" or "output"


def finetune(
    module: nn.Module,
    batches: Iterable[tuple[Inputs, Tensor | None]],
    *,
    steps: int = 200,
    learning_rate: float = 1e-5,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
) -> nn.Module:
    """Train the weights of a float module with int8's rounding in the loop; export and quantize it afterwards.

    The module is in evaluation mode meanwhile: no dropout, statistics of batch normalization stay. The learning
    rate of Adam falls linearly to zero. All work is done on copies: until the end the module is untouched, so an
    error or Ctrl-C leaves it as it was.

    Args:
        module: its parameters that require gradients are changed in place; nothing else is.
        batches: at least `steps` pairs of inputs (float32 [B, ...], or a tuple of all arguments of `forward`) and
            targets: classes int64 [B] for cross-entropy with the first output, or None to stay near the outputs
            that the module has now (mean squared difference). The ranges of all activations come from the first
            OBSERVED batches and stay.
        steps: one batch each.
        learning_rate: at the first step.
        seed: of torch's global random state while batches are drawn; it is afterwards what it was before.
        progress: is called with (steps done, steps, loss) after each.

    Returns:
        `module`, with the same parameters' names, hooks and mode as before.

    Raises:
        UsageError: torch is missing, no parameter to train, too few batches, a loss that is not finite.
    """
    if steps < 1 or not (math.isfinite(learning_rate) and learning_rate > 0):
        raise UsageError(
            "nothing to fine-tune with",
            need="at least one step and a learning rate above 0",
            have=f"{steps} steps, learning rate {learning_rate}",
        )
    torch = _import_torch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        source = iter(batches)
        first = list(islice(source, min(OBSERVED, steps)))
        student = copy.deepcopy(module)
        weights = list(student.parameters())  # the same objects after parametrization, in the module's order
        if not any(weight.requires_grad for weight in weights):
            raise UsageError(f"{type(module).__name__} has no parameter that requires gradients")
        _instrument(student, [inputs for inputs, _ in first])
        with torch.enable_grad():
            _train(student, weights, _teacher(module), chain(first, source), steps, learning_rate, progress)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    try:
        _assign(module, weights)
    except BaseException:
        _assign(module, before)
        raise
    return module


def fake_quantized(module: nn.Module, samples: Iterable[Inputs]) -> nn.Module:
    """A copy of the module, in evaluation mode, that computes as its int8 model will.

    Args:
        module: stays as it is.
        samples: inputs that the ranges of the activations come from, batch by batch.

    Raises:
        UsageError: torch is missing, no samples.
    """
    student = copy.deepcopy(module)
    _instrument(student, samples)
    return student


def _instrument(student: nn.Module, samples: Iterable[Inputs]) -> None:
    """Give the module hooks that round its activations and parametrizations that round its weights."""
    torch = _import_torch()
    from torch.nn.utils import parametrize

    class RoundedWeight(torch.nn.Module):  # type: ignore[name-defined, misc]
        """Per output channel (axis 0), symmetric in [-127, 127]."""

        def forward(self, weight: Tensor) -> Tensor:
            scale = weight.detach().abs().flatten(1).amax(dim=1) / 127
            scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
            zeros = torch.zeros_like(scale, dtype=torch.int32)
            rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -127, 127)
            return rounded

    student.eval()
    activations = _Activations(torch)
    for name, part in student.named_modules():
        activations.attach(name, part, root=part is student)
    with torch.no_grad():
        for inputs in samples:  # float, as calibration sees it
            student(*_arguments(inputs))
    if not activations.ranges:
        raise UsageError("fine-tuning needs batches to observe the ranges of activations on", have="none")
    activations.observing = False
    for part in student.modules():
        if _kinds(part) & WEIGHTED:
            parametrize.register_parametrization(part, "weight", RoundedWeight())


class _Activations:
    """Hooks that first observe the range of every module's input and output and then round to it.

    A tensor is recognized by the object it is. Values that are rounded already are not rounded again.
    """

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.observing = True
        self.ranges: dict[Key, tuple[float, float]] = {}
        self.fused: set[Key] = set()
        self.calls: Counter[str] = Counter()
        self.open: list[int] = []  # calls of the modules that are running, the innermost last
        # Of one forward pass, by id; the tensor is kept so that no other gets its id, the version tells of changes.
        self.made: dict[int, tuple[Tensor, list[Key]]] = {}
        self.rounded: dict[int, tuple[Tensor, int]] = {}

    def attach(self, name: str, part: nn.Module, *, root: bool) -> None:
        kinds = _kinds(part)
        fixed = next((FIXED_OUTPUT[kind] for kind in sorted(kinds & FIXED_OUTPUT.keys())), None)

        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if root:
                self.forget()  # again, in case that the last pass ended with an error
            call = self.calls[name]
            self.calls[name] += 1
            self.open.append(call)
            if not args or not self.is_real(args[0]):
                return None
            if self.observing and kinds & FUSED:
                self.fused.update(self.made.get(id(args[0]), (None, []))[1])
            if not kinds & READING:
                return None
            return (self.round((name, call, "input"), args[0]), *args[1:])

        def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            key = (name, self.open.pop(), "output")
            if not self.is_real(output):
                return output
            if kinds & MOVEMENT and args and self.is_rounded(args[0]):
                self.rounded[id(output)] = (output, output._version)
            result = self.round(key, output)
            if fixed is not None:
                self.ranges[key] = (fixed.low, fixed.high)
            if self.observing and not kinds & {"LayerNorm", *FIXED_OUTPUT}:
                self.made.setdefault(id(output), (output, []))[1].append(key)
            if root:
                self.forget()
            return result

        part.register_forward_pre_hook(before)
        part.register_forward_hook(after)

    def forget(self) -> None:
        self.calls.clear()
        self.open.clear()
        self.made.clear()
        self.rounded.clear()

    def is_real(self, value: Any) -> bool:
        return isinstance(value, self.torch.Tensor) and value.is_floating_point()

    def is_rounded(self, value: Any) -> bool:
        known = self.rounded.get(id(value))
        return known is not None and known[1] == value._version

    def round(self, key: Key, value: Tensor) -> Tensor:
        if self.observing:
            low, high = self.ranges.get(key, (0.0, 0.0))
            self.ranges[key] = (min(low, float(value.min())), max(high, float(value.max())))
            return value
        if key in self.fused or key not in self.ranges or self.is_rounded(value):
            return value
        params = activation_params(*self.ranges[key])
        result: Tensor = self.torch.fake_quantize_per_tensor_affine(value, params.scale, params.zero_point, -128, 127)
        self.rounded[id(result)] = (result, result._version)
        return result


def _train(
    student: nn.Module,
    weights: list[nn.Parameter],
    teacher: nn.Module,
    batches: Iterator[tuple[Inputs, Tensor | None]],
    steps: int,
    learning_rate: float,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    torch = _import_torch()
    optimizer = torch.optim.Adam([w for w in weights if w.requires_grad], lr=learning_rate)
    done = 0
    for done, (inputs, targets) in enumerate(islice(batches, steps), start=1):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - (done - 1) / steps)
        results = _outputs(student(*_arguments(inputs)))
        if targets is None:
            with torch.no_grad():
                wanted = _outputs(teacher(*_arguments(inputs)))
            loss = sum(torch.nn.functional.mse_loss(*pair) for pair in zip(results, wanted, strict=True))
        else:
            loss = torch.nn.functional.cross_entropy(results[0], targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UsageError(
                f"the loss is {value} at step {done} of fine-tuning", hint="a smaller learning rate; finite inputs"
            )
        if progress is not None:
            progress(done, steps, value)
    if done < steps:
        raise UsageError("the batches ended before the fine-tuning", need=f"{steps}", have=f"{done}")


def _teacher(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).eval()


def _assign(module: nn.Module, values: Iterable[Tensor]) -> None:
    with _import_torch().no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)


def _kinds(part: nn.Module) -> set[str]:
    return {base.__name__ for base in type(part).__mro__}


def _arguments(inputs: Inputs) -> tuple[Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _outputs(results: Any) -> tuple[Tensor, ...]:
    return tuple(results) if isinstance(results, tuple | list) else (results,)


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            "fine-tuning needs PyTorch, which is not installed", hint="pip install 'edgec[models]'"
        ) from error
    return torch
