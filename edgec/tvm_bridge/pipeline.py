# SPDX-License-Identifier: Apache-2.0
"""Phase 4 of the compile: ONNX -> Relax -> legalized and fused -> Program with a generated C function per call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tvm
from tvm import relax

from edgec.errors import EdgecError, UnsupportedError
from edgec.lower.islands import float_nodes
from edgec.operators import TensorType, get_operator
from edgec.program import Call, GeneratedFunction, Tensor
from edgec.tvm_bridge.codegen_c import generate
from edgec.tvm_bridge.fuse import Origin, legalize_and_fuse
from edgec.tvm_bridge.importer import bindings, import_onnx
from edgec.tvm_bridge.kernels import SCRIPTED, function_name, primfunc

_CONSTANT = type(relax.const(1.0))


@dataclass
class Lowered:
    """A graph as TVM leaves it: tensors by name, calls in order, functions by name, the module for `--dump`."""

    tensors: dict[str, Tensor]
    calls: list[Call]
    inputs: list[str]
    outputs: list[str]
    functions: dict[str, GeneratedFunction]
    relax_text: str


def through_tvm(model: onnx.ModelProto) -> Lowered:
    """Import, legalize, fuse and generate C for a graph of static shapes (operators of domain `edgec` or ONNX).

    Raises:
        UnsupportedError: TVM does not take the graph, or an output does not depend on any input.
    """
    try:
        return _through_tvm(model)
    except EdgecError:
        raise
    except Exception as error:  # TVM raises what it likes: each is a form of operator that it does not take
        if not float_nodes(model.graph.node):
            raise  # our own operators: a defect, and no property of the model
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnsupportedError(f"TVM generates no C for this model in float32: {reason}") from error


def _through_tvm(model: onnx.ModelProto) -> Lowered:
    module, origins = legalize_and_fuse(import_onnx(model))
    walk = _Walk(module, origins, [i.name for i in model.graph.input])
    walk.run()
    _require_computed(walk, [o.name for o in model.graph.output])
    used = {call.function for call in walk.calls}
    functions = generate({v.name_hint: module[v] for v in module.get_global_vars() if v.name_hint in used})
    return Lowered(walk.tensors, walk.calls, walk.inputs, walk.outputs, functions, module.script())


def _require_computed(walk: _Walk, names: Sequence[str]) -> None:
    """Raise when TVM found an output to be constant."""
    fixed = [n for n, tensor in zip(names, walk.outputs, strict=True) if walk.data(tensor) is not None]
    if fixed:
        raise UnsupportedError(
            f"{', '.join(map(repr, fixed))} does not depend on any input", hint="leave it out of the model"
        )


def generate_operator(op_name: str, types: Sequence[TensorType], attrs: dict[str, Any]) -> GeneratedFunction:
    """The generated C function of one operator for these input types; what tests and benchmarks call."""
    op = get_operator(op_name)
    name = function_name(op, types, attrs)
    return generate({name: primfunc(op, types, attrs)})[name]


@dataclass
class _Walk:
    """One pass over the bindings of `main`, in order, which is the order in which the calls run."""

    module: tvm.IRModule
    origins: dict[relax.Var, Origin]
    input_names: list[str]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    env: dict[relax.Var, list[str]] = field(default_factory=dict)
    constants: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def run(self) -> None:
        main = self.module["main"]
        for var, name in zip(main.params, self.input_names, strict=True):
            self.env[var] = [self._new(name, var.ty)]
            self.inputs += self.env[var]
        for binding in bindings(main):
            self.env[binding.var] = self._value(binding.var, binding.value)
        result = main.body.body
        self.outputs = [self._constant(result, "output")] if isinstance(result, _CONSTANT) else self.env[result]

    def data(self, name: str) -> npt.NDArray[Any] | None:
        """The values of a tensor that is a constant or renames one."""
        while (parent := self.tensors[name].view_of) is not None:
            name = parent
        return self.tensors[name].data

    def _value(self, var: relax.Var, value: relax.Expr) -> list[str]:
        if isinstance(value, relax.Var):
            return self.env[value]
        if isinstance(value, _CONSTANT):
            return [self._constant(value, str(var.name))]
        if isinstance(value, relax.TupleGetItem):
            return [self.env[value.tuple_value][value.index]]
        if isinstance(value, relax.Tuple):
            return [self._operand(e, str(var.name)) for e in value.fields]
        if isinstance(value, relax.Call) and value.op.name == "relax.call_tir":
            return self._call(var, value)
        origin = self.origins.get(var, Origin((), ()))
        told = ", ".join(f"{n.name} ({n.op})" for n in origin.nodes) or str(var.name)
        raise UnsupportedError(f"TVM generates no code for {told}")

    def _call(self, var: relax.Var, value: relax.Call) -> list[str]:
        function = value.args[0]
        primfunc_ = self.module[function]
        origin = self.origins[var]
        nodes = list({n.name: n for n in origin.nodes}.values())
        record = str(primfunc_.attrs["edgec.op"]) if "edgec.op" in primfunc_.attrs else None
        roles = get_operator(record).inputs if record else ()
        name = "+".join(n.name for n in nodes) or str(var.name)
        stem = nodes[0].name if nodes else name
        operands = tuple(
            self._operand(e, f"{stem}.{roles[i] if i < len(roles) else i}") for i, e in enumerate(value.args[1].fields)
        )
        fields = var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]
        values = origin.values if len(origin.values) == len(fields) else [""] * len(fields)
        outputs = [self._new(value or f"{name}.part", f) for value, f in zip(values, fields, strict=True)]
        renames = SCRIPTED not in primfunc_.attrs and len(operands) == len(outputs) == 1
        # TVM's analysis does not recognise a reshape to or from a scalar.
        if renames and (relax.analysis.has_reshape_pattern(primfunc_) or [n.op for n in nodes] == ["Reshape"]):
            self.tensors[outputs[0]].view_of = operands[0]
            return outputs
        types = [self.tensors[name].type for name in operands]
        self.calls.append(
            Call(
                name=name,
                op=record or str(function.name_hint),
                function=str(function.name_hint),
                inputs=operands,
                outputs=tuple(outputs),
                attrs=nodes[-1].attrs if record else {},
                macs=get_operator(record).macs(types, self.tensors[outputs[0]].type) if record else 0,
            )
        )
        return outputs

    def _operand(self, expr: relax.Expr, name: str) -> str:
        return self._constant(expr, name) if isinstance(expr, _CONSTANT) else self.env[expr][0]

    def _constant(self, expr: relax.Expr, name: str) -> str:
        array: npt.NDArray[Any] = np.ascontiguousarray(
            expr.data.numpy() if hasattr(expr, "data") else expr.value.numpy()
        )
        key = (str(array.dtype), tuple(array.shape), array.tobytes())
        if key not in self.constants:
            unique = self._unique(name)
            self.tensors[unique] = Tensor(unique, TensorType.of(array), data=array)
            self.constants[key] = unique
        return self.constants[key]

    def _new(self, name: str, ty: relax.Type) -> str:
        unique = self._unique(name)
        shape = tuple(int(d) for d in ty.shape)
        self.tensors[unique] = Tensor(unique, TensorType(shape, str(ty.dtype.dtype)))
        return unique

    def _unique(self, name: str) -> str:
        candidate, n = name, 1
        while candidate in self.tensors:
            candidate, n = f"{name}.{n}", n + 1
        return candidate
