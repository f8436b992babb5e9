# SPDX-License-Identifier: Apache-2.0
"""Operator record -> TIR PrimFunc, under the name that the generated C function will bear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgec.operators import Operator, TensorType

# TOpPatternKind::kOpaque: FuseOps leaves the call alone.
_OPAQUE = 8
SCRIPTED = "edgec.scripted"
"""Attribute of the PrimFuncs that edgec defines itself."""


def function_name(op: Operator, types: Sequence[TensorType], attrs: Mapping[str, Any]) -> str:
    """`linear_s8_49x64x64x192`: the operator and the dimensions of its activations and weights.

    Calls of one name share a function, so the name tells all that the code depends on: vectors of constants are as long
    as the weights say.
    """
    named = max(len(op.inputs) - len(op.constants), 2)
    dims = "x".join(str(d) for i, t in enumerate(types) if i < named or len(t.shape) > 1 for d in t.shape)
    initials = Counter(key[0] for key in attrs)
    extra = "".join(
        f"_{key[0] if initials[key[0]] == 1 else key}"
        f"{'_'.join(str(v) for v in value) if isinstance(value, (list, tuple)) else value}"
        for key, value in sorted(attrs.items())
        if value != 0
    )
    return f"{op.name}_{dims}{extra}".replace("-", "m")


def primfunc(op: Operator, types: Sequence[TensorType], attrs: Mapping[str, Any]) -> tirx.PrimFunc:
    """The operator's one TIR definition for these shapes, marked opaque to fusion.

    Args:
        op: the record.
        types: types of all inputs in call order.
        attrs: structural attributes (shapes, strides, form of requantization).
    """
    out = op.infer(tuple(types), **attrs)
    return scripted(op.tir, T, tuple(types), out, **attrs).with_attr("edgec.op", op.name)


def scripted(definition: Callable[..., tirx.PrimFunc], *arguments: Any, **attrs: Any) -> tirx.PrimFunc:
    """The PrimFunc that a function with TVMScript in it returns, marked opaque to fusion."""
    # TVMScript reads the source of every frame on the stack, which takes longer than all else; a thread's is short.
    with ThreadPoolExecutor(1) as thread:
        function = thread.submit(definition, *arguments, **attrs).result()
    return function.with_attr("op_pattern", _OPAQUE).with_attr(SCRIPTED, True)
