# SPDX-License-Identifier: Apache-2.0
"""TIR PrimFunc -> a C function with bare pointers: no packed ABI, no TVM runtime, no allocation.

Buffers of more than `LARGEST_LOCAL` bytes that a PrimFunc allocates become workspace parameters, so that the
planner places them in the arena; smaller ones stay on the stack, where the static stack bound counts them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import tvm
from tvm import s_tir, tirx
from tvm.ir import Call, PointerType, PrimType, Var
from tvm_ffi.structural import structural_map

from edgec.program import C_TYPES, GeneratedFunction

LARGEST_LOCAL = 256
_C_TARGET = {"kind": "c"}


def generate(functions: Mapping[str, tirx.PrimFunc]) -> dict[str, GeneratedFunction]:
    """C text of every PrimFunc, by name.

    Args:
        functions: name -> PrimFunc whose parameters are buffers with static shapes, outputs last.

    Raises:
        ValueError: TVM emitted something outside freestanding C (a call into its runtime).
    """
    if not functions:
        return {}
    target = tvm.target.Target(_C_TARGET)
    lowered = _lower(tvm.IRModule(dict(functions)), target)
    bare, signatures = {}, {}
    for var, function in lowered.functions.items():
        name = var.name_hint
        bare[name], signatures[name] = _bare_pointers(name, function)
    module = tirx.transform.LowerIntrin()(tvm.IRModule(bare))
    source = str(tvm.get_global_func("target.build.c")(module, target).inspect_source())
    result = {}
    for name, (types, workspaces) in signatures.items():
        names, body = _definition(source, name)
        if foreign := re.search(r"\b(TVM\w+|tvm_\w+)\b", body):
            raise ValueError(f"{name}: generated C calls {foreign.group(1)}, which does not exist on a device")
        parameters = tuple((t, n, not _is_written(n, body)) for t, n in zip(types, names, strict=True))
        result[name] = GeneratedFunction(name, parameters, _tidy(body, names), workspaces)
    return result


def _lower(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    tir, stir = tirx.transform, s_tir.transform
    return tvm.transform.Sequential(
        [
            tir.BindTarget(target),
            stir.CanonicalizeLoop(),
            stir.LowerInitBlock(),
            stir.PlanAndUpdateBufferAllocationLocation(),
            stir.ConvertBlocksToOpaque(),
            stir.CompactBufferAllocation(),
            stir.LowerMatchBuffer(),
            stir.StmtSimplify(),
            stir.LowerOpaqueBlock(),
            tir.FlattenBuffer(),
            tir.NarrowDataType(32),
            stir.LoopPartition(),
            tir.VectorizeLoop(False),
            tir.StorageRewrite(),
            stir.HoistIfThenElse(),
            tir.UnrollLoop(),
            stir.RenormalizeSplitPattern(),
            tir.StmtSimplify(),
            tir.RemoveNoOp(),
            stir.RewriteUnsafeSelect(),
            tir.CommonSubexprElim(),
        ]
    )(module)


def _bare_pointers(name: str, function: tirx.PrimFunc) -> tuple[tirx.PrimFunc, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Bind each buffer parameter to a plain pointer and hoist large allocations into further pointers.

    Also the C type of every pointer and the bytes of the hoisted ones.
    """
    pointers, declarations, types = [], [], []
    # Operator records name their parameters. Elsewhere TVM does, after the model's values, whose names may be any text.
    named = function.attrs is not None and "edgec.op" in function.attrs
    for index, buffer in enumerate(function.params):
        pointer = Var(buffer.name if named else f"p{index}", PointerType(PrimType(str(buffer.dtype)), "global"))
        pointers.append(pointer)
        declarations.append(tirx.DeclBuffer(buffer, data=pointer))
        types.append(_c_type(buffer))
    workspaces: list[int] = []

    def hoist(statement: tirx.AllocBuffer) -> tirx.Stmt:
        buffer = statement.buffer
        size = int(np.prod([int(d) for d in buffer.shape])) * tvm.DataType(str(buffer.dtype)).itemsize
        if size <= LARGEST_LOCAL:
            return statement
        pointer = Var(f"workspace_{len(workspaces)}", PointerType(PrimType(str(buffer.dtype)), "global"))
        pointers.append(pointer)
        types.append(_c_type(buffer))
        workspaces.append(size)
        return tirx.DeclBuffer(buffer, data=pointer)

    body = structural_map(function.body, [(tirx.AllocBuffer, hoist), (Call, _absolute)])
    bare = tirx.PrimFunc(pointers, tirx.SeqStmt([*declarations, body]), attrs=function.attrs)
    return bare.with_attr("global_symbol", name), (tuple(types), tuple(workspaces))


def _c_type(buffer: tirx.Buffer) -> str:
    if str(buffer.dtype) not in C_TYPES:
        raise ValueError(f"{buffer.name} is {buffer.dtype}")
    return C_TYPES[str(buffer.dtype)]


def _absolute(call: Call) -> Call:
    """`fabsf` for the one intrinsic that TVM does not lower to C."""
    if getattr(call.op, "name", "") != "tirx.fabs":
        return call
    return tirx.call_pure_extern(str(call.args[0].ty.dtype), "fabsf", call.args[0])


def _definition(source: str, name: str) -> tuple[list[str], str]:
    """Parameter names, and the braces with what they hold, of the definition of `name` in TVM's C text."""
    match = re.search(rf"\b{re.escape(name)}\(([^;{{]*)\)\s*{{", source)
    if match is None:
        raise ValueError(f"{name}: not in the generated C")
    names = [parameter.split()[-1].lstrip("*") for parameter in match.group(1).split(",")]
    depth, start = 0, match.end() - 1
    for end in range(start, len(source)):
        depth += {"{": 1, "}": -1}.get(source[end], 0)
        if depth == 0:
            return names, source[start : end + 1]
    raise ValueError(f"{name}: unbalanced braces in the generated C")


def _is_written(name: str, body: str) -> bool:
    return re.search(rf"^\s*{re.escape(name)}\[.*\] = ", body, re.MULTILINE) is not None


def _tidy(body: str, parameters: Sequence[str]) -> str:
    """TVM's C text as a person would write it: one-element arrays and value names without their suffixes."""
    words = {*re.findall(r"\w+", body), *parameters}
    for word in sorted(w for w in words if w.endswith("_ptr") and w.removesuffix("_ptr") not in words):
        body = re.sub(rf"\b{word}\b", word.removesuffix("_ptr"), body)
    return re.sub(r"\bcse_v(\d+)\b", r"i\1_", body)
