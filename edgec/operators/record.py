# SPDX-License-Identifier: Apache-2.0
"""The operator record: all that the tool knows about one operator, in one place (docs/spec.md, Operators).

A record buys the shape rule, the oracle, the generated kernel on every CPU, the differential tests and a line
in every report. Kernels, generated or hand-written, must equal `reference` bit for bit.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.operators.access import Access as Access
from edgec.operators.access import Orders, Rows, default_orders, default_rows

Array = npt.NDArray[Any]
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class TensorType:
    """Static shape and dtype ("int8", "int32", "uint8", "uint16", "float32") of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Size in bytes, dense."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @staticmethod
    def of(array: Array) -> TensorType:
        """Type of a NumPy array."""
        return TensorType(tuple(array.shape), str(array.dtype))


@dataclass(frozen=True)
class Case:
    """One call of an operator with values: what samplers yield and tests and benchmarks run."""

    inputs: tuple[Array, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def types(self) -> tuple[TensorType, ...]:
        """Types of the inputs."""
        return tuple(TensorType.of(a) for a in self.inputs)


@dataclass(frozen=True)
class Operator:
    """One operator of the domain `edgec`.

    Attributes:
        name: family and width, e.g. `linear_s8`.
        inputs: names of the inputs in call order, activations first.
        constants: those of `inputs` that are constants of the model (weights, tables, parameters).
        parameters: names of the entries of the int32 vector input `params`, in order.
        access: see `Access`.
        infer: input types and attributes -> output type; raises ValueError for shapes that do not fit.
        reference: the definition, in NumPy: arrays and attributes -> array.
        tir: TVMScript module, input types, output type, attributes -> PrimFunc with buffers (inputs..., output).
        macs: input types and output type -> multiply-accumulates.
        samples: random generator, size hint -> cases of odd sizes and extreme values, without end.
        rows_read: input types and attributes -> for each input which of its rows an output row depends on, or None
            for one that may be needed whole (constants always). What `access` says, where a record has no own.
        read_order: input types and attributes -> for each input in which order the PrimFunc reads it while it writes
            the output, or None where nothing is promised.
    """

    name: str
    summary: str
    inputs: tuple[str, ...]
    constants: frozenset[str]
    parameters: tuple[str, ...]
    access: Access
    infer: Callable[..., TensorType]
    reference: Callable[..., Array]
    tir: Callable[..., Any]
    macs: Callable[[Sequence[TensorType], TensorType], int]
    samples: Callable[[np.random.Generator], Iterator[Case]]
    rows_read: Callable[..., Rows]
    read_order: Callable[..., Orders]

    def run(self, inputs: Sequence[Array], attrs: Attributes) -> Array:
        """Evaluate the reference and check it against the shape rule."""
        expected = self.infer(tuple(TensorType.of(a) for a in inputs), **attrs)
        result = self.reference(*inputs, **attrs)
        if TensorType.of(result) != expected:
            raise AssertionError(f"{self.name}: reference gave {TensorType.of(result)}, shape rule {expected}")
        return result


_REGISTRY: dict[str, Operator] = {}
# One module a family; importing one registers its operators.
FAMILIES = (
    "linear",
    "matmul",
    "softmax",
    "attention",
    "layer_norm",
    "elementwise",
    "reduce",
    "movement",
    "conv",
    "conv_transpose",
    "pool",
    "division",
    "selection",
    "search",
    "lookup",
    "int16",
    "layer_norm16",
    "linear16",
    "product16",
    "ring",
    "log_mel",
    "ring_move",
    "float_border",
)


def operator(
    name: str,
    *,
    inputs: Sequence[str],
    constants: Sequence[str] = (),
    parameters: Sequence[str] = (),
    access: Access,
) -> Callable[[type], Operator]:
    """Register the class below as an operator record; its functions become the record's."""

    def register(definition: type) -> Operator:
        if name in _REGISTRY:
            raise ValueError(f"operator {name} is registered twice")
        activations = len(inputs) - len(constants)
        record = Operator(
            name=name,
            summary=(definition.__doc__ or "").strip().splitlines()[0],
            inputs=tuple(inputs),
            constants=frozenset(constants),
            parameters=tuple(parameters),
            access=access,
            infer=definition.__dict__["infer"].__func__,
            reference=definition.__dict__["reference"].__func__,
            tir=definition.__dict__["tir"].__func__,
            macs=definition.__dict__["macs"].__func__ if "macs" in definition.__dict__ else _no_macs,
            samples=definition.__dict__["samples"].__func__,
            rows_read=_own_or(definition, "rows_read", default_rows, access, activations),
            read_order=_own_or(definition, "read_order", default_orders, access, activations),
        )
        _REGISTRY[name] = record
        return record

    return register


def _own_or(definition: type, name: str, default: Callable[..., Any], access: Access, activations: int) -> Any:
    """The definition's function `name`, or `default` of its shapes."""
    if name in definition.__dict__:
        return definition.__dict__[name].__func__
    infer = definition.__dict__["infer"].__func__

    def derived(types: Sequence[TensorType], **attrs: Any) -> Any:
        return default(access, [t.shape for t in types], infer(types, **attrs).shape, activations)

    return derived


def _no_macs(inputs: Sequence[TensorType], output: TensorType) -> int:
    return 0


def operators() -> dict[str, Operator]:
    """All operators by name, in the order of their families."""
    for family in FAMILIES:
        importlib.import_module(f"edgec.operators.{family}")
    # Whoever imported one family first must not change the order.
    ordered = sorted(_REGISTRY.values(), key=lambda op: FAMILIES.index(op.infer.__module__.rpartition(".")[2]))
    return {op.name: op for op in ordered}


def get_operator(name: str) -> Operator:
    """The operator called `name`.

    Raises:
        KeyError: no such operator.
    """
    return _REGISTRY[name] if name in _REGISTRY else operators()[name]
