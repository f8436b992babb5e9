# SPDX-License-Identifier: Apache-2.0
"""PrimFuncs for operators that TVM itself has none for: it would call a function of its runtime."""

from __future__ import annotations

from typing import Any

from tvm import relax, tirx
from tvm.relax import BlockBuilder
from tvm.script import tirx as T

from edgec.tvm_bridge.kernels import scripted


def cumulative_sum(builder: BlockBuilder, call: relax.Call) -> relax.Expr:
    """`relax.cumsum` along axis 1 of three, which is what the float form makes of any."""
    x = call.args[0]
    (outer, length, inner), dtype = _dimensions(x), str(x.ty.dtype.dtype)
    _require(int(call.attrs.axis) == 1, "CumSum over an axis that is not the middle one of three")
    exclusive = bool(call.attrs.exclusive)

    def definition() -> tirx.PrimFunc:
        @T.prim_func(private=True, s_tir=True)
        def cumulative_sum(x: T.Buffer((outer, length, inner), dtype), y: T.Buffer((outer, length, inner), dtype)):
            for o in range(outer):
                for i in range(inner):
                    total = T.alloc_buffer((1,), dtype)
                    total[0] = T.cast(0, dtype)
                    for r in range(length):
                        if exclusive:
                            y[o, r, i] = total[0]
                            total[0] = total[0] + x[o, r, i]
                        else:
                            total[0] = total[0] + x[o, r, i]
                            y[o, r, i] = total[0]

        return cumulative_sum

    function = builder.add_func(scripted(definition), "cumulative_sum")
    return relax.call_tir(function, [x], relax.TensorType([outer, length, inner], dtype))


def top_k(builder: BlockBuilder, call: relax.Call) -> relax.Expr:
    """`relax.topk` along axis 1 of three: k scans, each for the best element that comes after the one before."""
    x = call.args[0]
    (outer, length, inner), dtype = _dimensions(x), str(x.ty.dtype.dtype)
    _require(int(call.attrs.axis) == 1, "TopK over an axis that is not the middle one of three")
    count, largest = int(call.attrs.k), bool(call.attrs.largest)

    def beats(a: Any, b: Any) -> Any:
        return a > b if largest else a < b

    def definition() -> tirx.PrimFunc:
        @T.prim_func(private=True, s_tir=True)
        def top_k(
            x: T.Buffer((outer, length, inner), dtype),
            values: T.Buffer((outer, count, inner), dtype),
            indices: T.Buffer((outer, count, inner), "int64"),
        ):
            for o in range(outer):
                for i in range(inner):
                    best = T.alloc_buffer((2,), dtype)  # the one before, the best so far
                    place = T.alloc_buffer((2,), "int32")
                    place[0] = -1
                    best[0] = x[o, 0, i]
                    for j in range(count):
                        place[1] = -1
                        for r in range(length):
                            if (
                                (place[0] < 0) | beats(best[0], x[o, r, i]) | ((best[0] == x[o, r, i]) & (place[0] < r))
                            ) & ((place[1] < 0) | beats(x[o, r, i], best[1])):
                                best[1] = x[o, r, i]
                                place[1] = r
                        best[0] = best[1]
                        place[0] = place[1]
                        values[o, j, i] = best[1]
                        indices[o, j, i] = T.cast(place[1], "int64")

        return top_k

    function = builder.add_func(scripted(definition), "top_k")
    types = [relax.TensorType([outer, count, inner], dtype), relax.TensorType([outer, count, inner], "int64")]
    return relax.call_tir(function, [x], types)


LEGALIZATIONS = {"relax.cumsum": cumulative_sum, "relax.topk": top_k}
"""What LegalizeOps is given beside TVM's own table."""


def _dimensions(x: relax.Expr) -> tuple[int, int, int]:
    shape = [int(d) for d in x.ty.shape]
    _require(len(shape) == 3, f"a tensor of rank {len(shape)}")
    return shape[0], shape[1], shape[2]


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"{what} was not brought to the float form")
