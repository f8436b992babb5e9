# SPDX-License-Identifier: Apache-2.0
"""ONNX -> Relax: integer operators become calls of their opaque PrimFuncs, the rest is TVM's own import."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass, replace
from typing import Any

import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from edgec.errors import UnsupportedError
from edgec.model import value_shapes
from edgec.operators import TensorType, get_operator
from edgec.program import C_TYPES
from edgec.tvm_bridge.kernels import function_name, primfunc

DOMAIN = "edgec"


@dataclass(frozen=True)
class Node:
    """The ONNX node that a Relax variable belongs to.

    Attributes:
        name, op: of the node.
        values: ONNX names of what the variable holds, more than one for a tuple, "" where ONNX has none.
        attrs: structural attributes of an integer operator.
    """

    name: str
    op: str
    values: tuple[str, ...]
    attrs: dict[str, Any]

    def part(self) -> Node:
        """The same node for a variable on the way to its result."""
        return replace(self, values=("",))


@dataclass(frozen=True)
class Imported:
    """A Relax module, and the node of each variable of `main` that a node made (names may occur twice)."""

    module: tvm.IRModule
    nodes: dict[relax.Var, Node]


def import_onnx(model: onnx.ModelProto) -> Imported:
    """Import an ONNX graph (static shapes) whose integer operators are of the domain `edgec`.

    Raises:
        UnsupportedError: an operator that TVM does not import, or that it takes for another one than ONNX does.
    """
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    _check_types(model.graph)
    importer = _Importer(model)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it prints what it raises
        warnings.simplefilter("ignore")  # it warns of every renamed input; the program keeps ONNX's names
        module = importer.from_onnx(model.graph, opset)
    if importer.faults:
        raise UnsupportedError("TVM gives nodes another result than ONNX does: " + ", ".join(importer.faults))
    nodes = importer.nodes
    for binding in bindings(module["main"]):
        value = binding.value
        if isinstance(value, relax.Var) and value in nodes:
            nodes[binding.var] = nodes[value]  # the output is bound once more; canonicalization keeps that variable
        elif isinstance(value, relax.TupleGetItem) and (whole := nodes.get(value.tuple_value)):
            nodes[binding.var] = replace(whole, values=whole.values[value.index : value.index + 1] or ("",))
    return Imported(module, nodes)


def bindings(function: relax.Function) -> list[Any]:
    """All bindings of a function, in order."""
    return [binding for block in function.body.blocks for binding in block.bindings]


class _Importer(onnx_frontend.ONNXGraphImporter):  # type: ignore[misc]
    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        super().__init__({}, {i.name: _dtype(i) for i in graph.input})
        self.nodes: dict[relax.Var, Node] = {}
        self._functions: dict[str, tvm.ir.GlobalVar] = {}  # by `function_name`: layers of one shape share theirs
        self.faults: list[str] = []
        read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
        self._shapes = {name: shape for name, shape in value_shapes(model).items() if name in read}
        self._dtypes = {v.name: _dtype(v) for v in (*graph.output, *graph.value_info)}
        self._queue = [n for n in graph.node]
        self._count = len(self._queue)

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        known = set(onnx_frontend._get_convert_map())
        missing = [n for n in graph.node if n.domain != DOMAIN and n.op_type not in known]
        if missing:
            raise UnsupportedError(
                "operators that TVM does not import: " + ", ".join(f"{n.name} ({n.op_type})" for n in missing)
            )

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> relax.Expr:
        node = self._queue.pop(0)
        key = f"node_{self._count - len(self._queue)}"
        if node.domain != DOMAIN:
            result = self._convert_standard(node, op_name, inputs, attrs, opset)
            if isinstance(result, relax.Call):
                result = self.bb.emit(result, name_hint=key)
            self._check_results(node, result)
            if isinstance(result, relax.Tuple):
                for value, name in zip(result.fields, node.output, strict=False):
                    self._own(value, Node(node.name, node.op_type, (name,), {}))
            else:
                self._own(result, Node(node.name, node.op_type, _values(node, result), {}))
            return result
        record = get_operator(op_name)
        structure = {k: list(v) if isinstance(v, tuple) else int(v) for k, v in attrs.items() if k != "tvm_custom"}
        types = [_type(i) for i in inputs]
        name = function_name(record, types, structure)
        if name not in self._functions:
            self._functions[name] = self.bb.add_func(primfunc(record, types, structure), name)
        out = record.infer(types, **structure)
        call = relax.call_tir(self._functions[name], list(inputs), relax.TensorType(list(out.shape), out.dtype))
        result = self.bb.emit(call, name_hint=key)
        self._own(result, Node(node.name, node.op_type, (node.output[0],), structure))
        return result

    def _own(self, result: relax.Expr, node: Node) -> None:
        """Note that a conversion made this result, and all that it is computed from and that nobody owns yet."""
        queue = [(result, node)]
        while queue:
            value, owner = queue.pop()
            if not isinstance(value, relax.Var) or value in self.nodes:
                continue
            made_by = self.bb.lookup_binding(value)
            if made_by is not None:  # None: an input of the graph
                self.nodes[value] = owner
                queue += [(operand, node.part()) for operand in relax.analysis.free_vars(made_by)]

    def _convert_standard(self, node: onnx.NodeProto, *arguments: Any) -> relax.Expr:
        try:
            return super()._convert_operator(*arguments)
        except Exception as error:  # TVM raises what it likes; each one means that it does not take the node
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UnsupportedError(f"TVM does not import {node.name} ({node.op_type}): {reason}") from error

    def _check_results(self, node: onnx.NodeProto, result: relax.Expr) -> None:
        """Compare shape and type of every result that is read with ONNX's; TVM puts constants where it has none."""
        types = result.ty.fields if isinstance(result.ty, relax.TupleType) else [result.ty]
        for name, made in zip(node.output, types, strict=False):
            wanted, shape = self._shapes.get(name), getattr(made, "shape", None)
            if wanted is None or shape is None:
                continue
            got, dtype = tuple(int(d) for d in shape), str(made.dtype.dtype)
            known = self._dtypes.get(name, dtype)
            if (got, dtype) != (wanted, known):
                self.faults.append(f"{node.name} ({node.op_type}): {dtype}{list(got)} instead of {known}{list(wanted)}")


def _values(node: onnx.NodeProto, result: relax.Expr) -> tuple[str, ...]:
    return tuple(node.output) if isinstance(result.ty, relax.TupleType) else (node.output[0],)


def _check_types(graph: onnx.GraphProto) -> None:
    """Raise unless every value is of a type that C and the devices have; all nodes with others are listed."""
    types = {v.name: v for v in (*graph.input, *graph.output, *graph.value_info)}
    foreign = [
        f"{n.name} ({n.op_type}): {_dtype(types[name])}"
        for n in graph.node
        for name in n.output
        if name in types and _dtype(types[name]) not in C_TYPES
    ]
    foreign += [f"{i.name} (input): {_dtype(i)}" for i in graph.input if _dtype(i) not in C_TYPES]
    if foreign:
        raise UnsupportedError(
            "values of types that are not compiled",
            need=", ".join(C_TYPES),
            have="".join(f"\n    {line}" for line in foreign),
            hint="export the model in float32",
        )


def _type(value: relax.Expr) -> TensorType:
    return TensorType(tuple(int(d) for d in value.ty.shape), str(value.ty.dtype.dtype))


def _dtype(info: onnx.ValueInfoProto) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
