# SPDX-License-Identifier: Apache-2.0
"""Legalize and fuse a Relax module; tell of every call that is left which ONNX nodes it computes.

Variables keep their identity through all passes up to fusion; their names do not, TVM uses them twice. Fusion makes
new variables, and one function for all groups of the same structure. So it runs twice: on the module, and on a copy
whose calls are numbered, which nothing can make equal. Both fall into the same groups in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.relax import transform as passes

from edgec.errors import UnsupportedError
from edgec.tvm_bridge.importer import Imported, Node, bindings
from edgec.tvm_bridge.legalize import LEGALIZATIONS

# Relax evaluates constant subgraphs on the host that compiles.
_FOLDING_TARGET = "llvm"
_LEGALIZATION = (
    passes.DecomposeOpsForInference(),
    passes.CanonicalizeBindings(),
    passes.LegalizeOps(LEGALIZATIONS),
    passes.AnnotateTIROpPattern(),
    passes.FoldConstant(),
)
_NUMBER = "edgec.number"


@dataclass(frozen=True)
class Origin:
    """What a call computes: ONNX nodes in order; the ONNX name of each result, "" for what ONNX has no name for."""

    nodes: tuple[Node, ...]
    values: tuple[str, ...]


def legalize_and_fuse(imported: Imported) -> tuple[tvm.IRModule, dict[relax.Var, Origin]]:
    """PrimFuncs for all that TVM knows, fused; and the origin of every call in `main` by the variable it defines."""
    with tvm.target.Target(_FOLDING_TARGET):
        module, known = imported.module, dict(imported.nodes)
        for step in _LEGALIZATION:
            module = step(module)
            known |= _nodes(bindings(module["main"]), known)
        numbered, nodes = _number(module, known)
        numbered, module = passes.FuseOps()(numbered), passes.FuseOps()(module)
        pairs = zip(bindings(module["main"]), bindings(numbered["main"]), strict=True)
        origins = {
            binding.var: _origin(numbered, twin.value, nodes)
            for binding, twin in pairs
            if isinstance(binding.value, relax.Call)
        }
        module = tvm.transform.Sequential([passes.FuseTIR(), passes.DeadCodeElimination()])(module)
    return module, origins


def _require_legal(module: tvm.IRModule, nodes: Mapping[relax.Var, Node]) -> None:
    """Raise when a call is left that TVM has no PrimFunc for; all are listed."""
    left = [
        f"{nodes[b.var].name} ({nodes[b.var].op})" if b.var in nodes else str(b.var.name)
        for b in bindings(module["main"])
        if isinstance(b.value, relax.Call) and getattr(b.value.op, "name", "relax.call_tir") != "relax.call_tir"
    ]
    if left:
        raise UnsupportedError("TVM generates no code for " + ", ".join(dict.fromkeys(left)))


def _nodes(made: Sequence[Any], known: Mapping[relax.Var, Node]) -> dict[relax.Var, Node]:
    """The node of every variable: what a pass adds stands directly before the variable that it is added for."""
    nodes: dict[relax.Var, Node] = {}
    node: Node | None = None
    for binding in reversed(made):
        if binding.var in known:
            node = nodes[binding.var] = known[binding.var]
        elif node is not None:
            nodes[binding.var] = node.part()
    return nodes


def _number(module: tvm.IRModule, nodes: Mapping[relax.Var, Node]) -> tuple[tvm.IRModule, list[Node | None]]:
    """A copy of the module whose every call in `main` bears a number, and the node of each number."""
    main, blocks = module["main"], []
    numbers: list[Node | None] = []
    for block in main.body.blocks:
        copies = []
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call):
                attrs = tvm.ir.make_node("ir.DictAttrs", **{_NUMBER: len(numbers)})
                numbers.append(nodes.get(binding.var))
                binding = relax.VarBinding(binding.var, relax.Call(value.op, value.args, attrs, value.ty_args))
            copies.append(binding)
        blocks.append(relax.DataflowBlock(copies))
    body = relax.SeqExpr(blocks, main.body.body)
    copy = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    functions = {**dict(module.functions.items()), module.get_global_var("main"): copy}
    return passes.Normalize()(tvm.IRModule(functions)), numbers


def _origin(module: tvm.IRModule, call: relax.Call, nodes: Sequence[Node | None]) -> Origin:
    if not isinstance(call.op, tvm.ir.GlobalVar):
        node = nodes[_number_of(call)]
        return Origin((node,), node.values) if node else Origin((), ())
    group = module[call.op]
    inside = {b.var: b.value for b in bindings(group)}
    computed = [nodes[_number_of(value)] for value in inside.values() if isinstance(value, relax.Call)]
    return Origin(tuple(n for n in computed if n), _values(group.body.body, inside, nodes))


def _values(
    result: relax.Expr, inside: Mapping[relax.Var, relax.Expr], nodes: Sequence[Node | None]
) -> tuple[str, ...]:
    """ONNX names of what an expression of a group holds."""
    if isinstance(result, relax.Var):
        return _values(inside[result], inside, nodes) if result in inside else ("",)
    if isinstance(result, relax.Tuple):
        return tuple(name for f in result.fields for name in _values(f, inside, nodes))
    if isinstance(result, relax.TupleGetItem):
        names = _values(result.tuple_value, inside, nodes)
        return names[result.index : result.index + 1] or ("",)
    node = nodes[_number_of(result)] if isinstance(result, relax.Call) else None
    return node.values if node else ("",)


def _number_of(call: relax.Call) -> int:
    return int(call.attrs[_NUMBER])
