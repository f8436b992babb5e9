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

from edgec.operators import get_operator
from edgec.program import C_TYPES, GeneratedFunction
from edgec.tvm_bridge.in_place import replaceable
from edgec.tvm_bridge.inline import inlined
from edgec.tvm_bridge.kernels import SCRIPTED

LARGEST_LOCAL = 256
_C_TARGET = {"kind": "c"}
_LITERAL = "edgec_literal_"


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
    ready = {n: f if SCRIPTED in f.attrs else inlined(f) for n, f in functions.items()}
    lowered = _lower(tvm.IRModule({n: _neutral_starts(f) for n, f in ready.items()}), target)
    bare, signatures = {}, {}
    for var, function in lowered.functions.items():
        name = var.name_hint
        bare[name], signatures[name] = _bare_pointers(name, function)
    module = _exact_literals(tirx.transform.LowerIntrin()(tvm.IRModule(bare)))
    source = _printed(str(tvm.get_global_func("target.build.c")(module, target).inspect_source()))
    result = {}
    for name, (types, workspaces) in signatures.items():
        names, body = _definition(source, name)
        if foreign := re.search(r"\b(TVM\w+|tvm_\w+)\b", body):
            raise ValueError(f"{name}: generated C calls {foreign.group(1)}, which does not exist on a device")
        parameters = tuple((t, n, not _is_written(n, body)) for t, n in zip(types, names, strict=True))
        text = _used(names, _tidy(body, names))
        in_place: tuple[int, ...] = ()
        if SCRIPTED not in functions[name].attrs:
            text = _narrowed(text, parameters)
            sizes = [int(np.prod([int(d) for d in buffer.shape])) for buffer in functions[name].params]
            in_place = replaceable(parameters[: len(sizes)], sizes, text)
        op = functions[name].attrs.get("edgec.op")
        constants = get_operator(str(op)).constants if op else frozenset[str]()
        result[name] = GeneratedFunction(name, parameters, text, workspaces, in_place, constants)
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


def _neutral_starts(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """The maximum of nothing is minus infinity, as in ONNX; TVM starts from the least finite number."""
    largest = float(np.finfo(np.float32).max)

    def infinite(constant: tirx.FloatImm) -> tirx.FloatImm:
        if abs(float(constant.value)) != largest or str(constant.ty.dtype) != "float32":
            return constant
        return tirx.FloatImm("float32", float("inf") if constant.value > 0 else float("-inf"))

    def start(block: s_tir.SBlock) -> s_tir.SBlock:
        if block.init is None:
            return block
        init = structural_map(block.init, [(tirx.FloatImm, infinite)])
        return s_tir.SBlock(
            block.iter_vars, block.reads, block.writes, block.name_hint, block.body, init,
            block.alloc_buffers, block.match_buffers, block.annotations, block.span,
        )  # fmt: skip

    return function.with_body(structural_map(function.body, [(s_tir.SBlock, start)]))


def _exact_literals(module: tvm.IRModule) -> tvm.IRModule:
    """Float constants as calls that bear their bits: TVM prints seven digits, and no infinity that C knows."""

    def named(constant: tirx.FloatImm) -> tirx.PrimExpr:
        kind = str(constant.ty.dtype)
        bits = np.array(constant.value, kind).tobytes()[::-1].hex()
        return tirx.call_pure_extern(kind, f"{_LITERAL}{bits}")

    functions = {v: f.with_body(structural_map(f.body, [(tirx.FloatImm, named)])) for v, f in module.functions.items()}
    return tvm.IRModule({v.name_hint: f for v, f in functions.items()})


def _printed(source: str) -> str:
    """C text in which the calls of `_exact_literals` are the constants themselves."""

    def literal(match: re.Match[str]) -> str:
        bits = bytes.fromhex(match.group(1))[::-1]
        value = np.frombuffer(bits, np.float32 if len(bits) == 4 else np.float64)[0]
        if not np.isfinite(value):
            return "NAN" if np.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
        return f"{value}f" if len(bits) == 4 else str(value)  # NumPy prints the fewest digits that are exact

    return re.sub(rf"\b{_LITERAL}([0-9a-f]+)\(\)", literal, source)


def _narrowed(body: str, parameters: Sequence[tuple[str, str, bool]]) -> str:
    """The body with a cast where C computes in int what goes into an array of a smaller type."""
    for kind, name, constant in parameters:
        if kind in ("int8_t", "uint8_t", "int16_t", "uint16_t") and not constant:
            store = re.compile(rf"^(\s*{re.escape(name)}\[.*\] = )(?!\({kind}\))(.*[ ~].*);$", re.MULTILINE)
            body = store.sub(rf"\1({kind})(\2);", body)
    return body


def _used(parameters: Sequence[str], body: str) -> str:
    """The body with a `(void)` for each parameter that it does not read: TVM keeps operands of no effect."""
    unused = [name for name in parameters if not re.search(rf"\b{re.escape(name)}\b", body)]
    return body.replace("{\n", "{\n" + "".join(f"  (void){name};\n" for name in unused), 1) if unused else body


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
