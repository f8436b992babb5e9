# SPDX-License-Identifier: Apache-2.0
"""Runs the PrimFunc of an operator record as the Python that it also is, and writes down what it reads and writes.

TVMScript's `T` is replaced by plain integers and by buffers that keep a log: the order of reads and writes of
the very text from which C is generated, without TVM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.operators import Case, Operator


class Log:
    """Reads and writes of parameters in order: (whether a write, parameter, flat element)."""

    def __init__(self) -> None:
        self.events: list[tuple[bool, int, int]] = []


class Cells:
    """A buffer: elements in row-major order, and where in the log they are, if at all."""

    def __init__(self, values: np.ndarray, shape: Sequence[int], log: Log | None = None, parameter: int = -1) -> None:
        self.values, self.shape, self._log, self._parameter = values, tuple(shape), log, parameter
        if math.prod(self.shape) != values.size:
            raise ValueError(f"{values.size} elements as {self.shape}")

    @property
    def data(self) -> Cells:
        return self

    def _index(self, index: Any) -> int:
        given = index if isinstance(index, tuple) else (index,)
        if len(given) != len(self.shape):
            raise IndexError(f"{given} into {self.shape}")
        flat = 0
        for i, size in zip(given, self.shape, strict=True):
            if not 0 <= i < size:
                raise IndexError(f"{given} into {self.shape}")
            flat = flat * size + int(i)
        return flat

    def alias(self, shape: Sequence[int]) -> Cells:
        return Cells(self.values, shape, self._log, self._parameter)

    def __getitem__(self, index: Any) -> Any:
        flat = self._index(index)
        if self._log is not None:
            self._log.events.append((False, self._parameter, flat))
        return self.values[flat] if self.values.dtype.kind == "f" else int(self.values[flat])

    def __setitem__(self, index: Any, value: int) -> None:
        flat = self._index(index)
        if self._log is not None:
            self._log.events.append((True, self._parameter, flat))
        self.values[flat] = value


class Script:
    """What the definitions use of TVMScript's `T`."""

    unroll = serial = staticmethod(range)
    min, max = staticmethod(min), staticmethod(max)
    bool = staticmethod(bool)
    int8 = int16 = int32 = int64 = staticmethod(int)

    @staticmethod
    def Select(condition: bool, a: Any, b: Any) -> Any:
        return a if condition else b

    @staticmethod
    def Cast(dtype: str, value: Any) -> Any:
        if dtype == "float32":
            return np.float32(value)
        info = np.iinfo(dtype)
        assert info.min <= value <= info.max, f"{value} as {dtype}"
        return int(value)

    @staticmethod
    def truncdiv(a: int, b: int) -> int:
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)

    @staticmethod
    def truncmod(a: int, b: int) -> int:
        return a - b * Script.truncdiv(a, b)

    @staticmethod
    def alloc_buffer(shape: Sequence[int], dtype: str) -> Cells:
        return Cells(np.full(math.prod(shape), np.iinfo(dtype).max // 3, dtype), shape)

    @staticmethod
    def decl_buffer(shape: Sequence[int], dtype: str, data: Cells) -> Cells:
        return data.alias(shape)

    @staticmethod
    def prim_func(**_: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
        return lambda function: function


@dataclass(frozen=True)
class Trace:
    """A run: its log and its output."""

    events: list[tuple[bool, int, int]]
    output: np.ndarray

    def of(self, parameter: int) -> list[tuple[bool, int]]:
        """(whether a write, element): reads of one input and writes of the output, in order."""
        return [(write, element) for write, p, element in self.events if write or p == parameter]


def trace(op: Operator, case: Case) -> Trace:
    """Run the PrimFunc's text on a case."""
    out = op.infer(case.types, **case.attrs)
    log = Log()
    inputs = [Cells(np.ascontiguousarray(a).ravel(), a.shape, log, i) for i, a in enumerate(case.inputs)]
    result = np.zeros(math.prod(out.shape), out.dtype)
    op.tir(Script(), case.types, out, **case.attrs)(*inputs, Cells(result, out.shape, log, len(inputs)))
    return Trace(log.events, result.reshape(out.shape))
