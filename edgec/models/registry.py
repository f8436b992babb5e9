# SPDX-License-Identifier: Apache-2.0
"""The models that edgec brings along, by name.

A family is one file in this folder; each variant in it is a builder function under `@register_model`. Listing
must not import torch, so `list_models` reads the decorators' arguments from the source text (they have to be
literals); only `ModelRecord.build` imports the family's file.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

Builder = Callable[..., "nn.Module"]

_FOLDER = Path(__file__).resolve().parent
_builders: dict[str, Builder] = {}
_declared: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class ModelRecord:
    """What is known of a model without building it.

    Attributes:
        name: how the command line and `get_model` call it.
        module: dotted path of the family's file.
        description: one line.
        source: the publication that defines it.
        row: its number in the project's list of systems, or None.
        inputs: every input (state included) with its shape, batch dimension of 1 first, in the order of
            `forward`.
        outputs: every output likewise.
        states: (input, output, reset value) for every input that the output of the step before feeds.
        smaller: arguments of its builder that make a smaller model with the same inputs and outputs, the nearest
            first.
        parameters: how many trained numbers it has; 0 where its declaration does not say.
    """

    name: str
    module: str
    description: str
    source: str
    row: int | None
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    states: tuple[tuple[str, str, float], ...] = ()
    smaller: tuple[Mapping[str, int], ...] = ()
    parameters: int = 0

    @property
    def builder(self) -> Builder:
        """The function that makes it, once its family's file is imported."""
        return _builders[self.name]

    @property
    def stateful(self) -> bool:
        """Whether the model is a step function that carries state from call to call."""
        return bool(self.states)

    @property
    def state_bytes(self) -> int:
        """Bytes of all states as float32; a compiled model may hold them narrower."""
        return sum(4 * math.prod(self.inputs[source]) for source, *_ in self.states)

    @property
    def card(self) -> str:
        """The model card: what the family's file says of itself. Imports nothing."""
        path = _FOLDER / f"{self.module.rpartition('.')[2]}.py"
        return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

    def build(self, seed: int = 0, **sizes: int) -> nn.Module:
        """The model as a torch module in evaluation mode, freshly initialised from `seed`.

        `sizes` are arguments of its builder, as `smaller` has them.

        The global random state of torch is left as it was.

        Raises:
            UsageError: torch is not installed.
        """
        try:
            import torch
        except ImportError as error:
            raise UsageError(
                f"model {self.name!r} needs PyTorch, which is not installed",
                hint="pip install 'edgec[models]'",
            ) from error
        importlib.import_module(self.module)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _builders[self.name](**sizes).eval()


def register_model(
    name: str,
    *,
    description: str,
    source: str,
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, tuple[int, ...]],
    states: tuple[tuple[str, str, float], ...] = (),
    row: int | None = None,
    smaller: tuple[Mapping[str, int], ...] = (),
    parameters: int = 0,
) -> Callable[[Builder], Builder]:
    """Decorator of a builder: the function that makes one variant of a family, without arguments or with sizes that
    have defaults.

    Every argument must be a literal; see `ModelRecord` for their meaning.
    """

    def register(builder: Builder) -> Builder:
        if name in _builders:
            raise ValueError(f"model {name!r} is registered twice")
        _builders[name] = builder
        _declared[name] = {
            "description": description,
            "source": source,
            "row": row,
            "inputs": inputs,
            "outputs": outputs,
            "states": states,
            "smaller": smaller,
            "parameters": parameters,
        }
        return builder

    return register


def _records_in(path: Path) -> list[ModelRecord]:
    records = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for call in getattr(node, "decorator_list", ()):
            if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "register_model":
                fields = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
                fields.setdefault("row", None)
                name = ast.literal_eval(call.args[0])
                records.append(ModelRecord(name=name, module=f"{__package__}.{path.stem}", **fields))
    return records


@cache
def _records() -> dict[str, ModelRecord]:
    found = [record for path in sorted(_FOLDER.glob("*.py")) for record in _records_in(path)]
    records = {record.name: record for record in sorted(found, key=lambda record: record.name)}
    if len(records) != len(found):
        raise ValueError("two models share a name: " + ", ".join(record.name for record in found))
    return records


def list_models() -> list[ModelRecord]:
    """Every model, sorted by name; imports neither torch nor the family files."""
    return list(_records().values())


def get_model(name: str) -> ModelRecord:
    """The record of one model.

    Raises:
        UsageError: there is no model of that name; the closest names are offered.
    """
    records = _records()
    if name not in records:
        near = difflib.get_close_matches(name, records, n=3, cutoff=0.4)
        raise UsageError(
            f"there is no model named {name!r}",
            have=", ".join(records),
            hint=[f"did you mean {other!r}?" for other in near] or "edgec models",
        )
    return records[name]
