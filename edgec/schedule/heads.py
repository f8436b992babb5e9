# SPDX-License-Identifier: Apache-2.0
"""Heads as separate work: attention over many heads becomes one attention for each, with dense layers of its own.

Then no head's queries, keys and values need exist beside another's. The results are put side by side again before
whoever reads them, a block of rows at a time where tiling wants it. Bits do not change.
"""

from __future__ import annotations

from dataclasses import replace

from edgec.operators import TensorType, get_operator
from edgec.program import Call, Program, Tensor

_DENSE = "linear_s8"
_COLUMNS = ("w", "bias", "mult", "shift")
"""Constants of a dense layer whose leading axis are the output's columns."""


def split_heads(program: Program) -> Program:
    """The program with every attention split whose operands come from dense layers of their own; else itself."""
    new = replace(program, tensors=dict(program.tensors), calls=[])
    makers = {call.outputs[0]: call for call in program.calls}
    readers: dict[str, int] = {}
    for call in program.calls:
        for name in call.inputs:
            readers[program.root(name)] = readers.get(program.root(name), 0) + 1
    replaced: set[str] = set()
    found = []
    for call in program.calls:
        if call.op != "attention_s8" or program.tensors[call.inputs[0]].type.shape[1] < 2:
            continue
        operands = [makers.get(program.root(name)) for name in call.inputs[:3]]
        if all(o is not None and o.op == _DENSE and readers[o.outputs[0]] == 1 for o in operands):
            found.append(call.name)
            replaced |= {o.name for o in operands if o is not None}
    for call in program.calls:
        if call.name in found:
            _split(new, call, [makers[program.root(name)] for name in call.inputs[:3]])
        elif call.name not in replaced:
            new.calls.append(call)
    return new if found else program


def _split(program: Program, attention: Call, layers: list[Call]) -> None:
    (m, heads, _), width = program.tensors[attention.inputs[0]].type.shape, program.tensors[attention.outputs[0]].type
    results = []
    for h in range(heads):
        operands = [_head_of(program, layer, h, heads) for layer in layers]
        result = _tensor(program, f"{attention.outputs[0]} head {h}", TensorType((m, 1, width.shape[2]), "int8"))
        inputs = (*operands, *attention.inputs[3:])
        macs = attention.macs // heads
        program.calls.append(
            replace(
                attention, name=f"{attention.name} head {h}", inputs=inputs, outputs=(result,), macs=macs, function=""
            )
        )
        results.append(_view(program, result, TensorType((m, width.shape[2]), "int8")))
    joined = results[0]
    for h, result in enumerate(results[1:], 1):
        columns = (h + 1) * width.shape[2]
        both = _tensor(program, f"{attention.outputs[0]} heads 0..{h}", TensorType((m, columns), "int8"))
        program.calls.append(Call(f"{attention.name} heads 0..{h}", "concat_s8", "", (joined, result), (both,)))
        joined = both
    y = attention.outputs[0]
    program.tensors[y] = replace(program.tensors[y], view_of=joined)


def _head_of(program: Program, layer: Call, head: int, heads: int) -> str:
    """The dense layer's columns of one head, as [rows, 1, columns]."""
    inputs = list(layer.inputs)
    for i, role in enumerate(get_operator(_DENSE).inputs):
        if role in _COLUMNS:
            constant = program.tensors[program.root(inputs[i])]
            assert constant.data is not None
            columns = len(constant.data) // heads
            part = constant.data[head * columns : (head + 1) * columns]
            inputs[i] = f"{constant.name} head {head}"
            program.tensors[inputs[i]] = Tensor(inputs[i], TensorType.of(part), part)
    m, n = program.tensors[layer.outputs[0]].type.shape
    result = _tensor(program, f"{layer.outputs[0]} head {head}", TensorType((m, n // heads), "int8"))
    program.calls.append(
        replace(
            layer, name=f"{layer.name} head {head}", inputs=tuple(inputs), outputs=(result,), macs=layer.macs // heads,
            function="",
        )
    )  # fmt: skip
    return _view(program, result, TensorType((m, 1, n // heads), "int8"))


def _tensor(program: Program, name: str, kind: TensorType) -> str:
    program.tensors[name] = Tensor(name, kind)
    return name


def _view(program: Program, name: str, kind: TensorType) -> str:
    view = f"{name} as {'x'.join(map(str, kind.shape))}"
    program.tensors[view] = Tensor(view, kind, view_of=name)
    return view
