# SPDX-License-Identifier: Apache-2.0
"""GRU (Cho et al. 2014), LSTM (Hochreiter and Schmidhuber 1997) and RNN nodes as their steps, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import GraphEdit, array_of, attribute, input_of, is_float32, is_static, shape_of

MOST_STEPS = 256
"""Longest sequence that is unrolled; a longer one is better streamed, a step a run."""

_ACTIVATIONS = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "RNN": ["Tanh"]}
_GATES = {"GRU": "zrn", "LSTM": "iofc", "RNN": "h"}


@dataclass(frozen=True)
class _Cell:
    """A recurrent layer being unrolled: `inputs[gate]` is the input's part of a gate at every step.

    weights[gate] [H, H] and biases[gate] [H] are of the state's part, constants.
    """

    edit: GraphEdit
    name: str
    hidden: int
    batch: int
    inputs: dict[str, ir.Value]
    weights: dict[str, ir.Value]
    biases: dict[str, ir.Value]

    def emit(self, op_type: str, inputs: list[ir.Value], name: str) -> ir.Value:
        return self.edit.emit(op_type, inputs, (self.batch, self.hidden), f"{self.name}.{name}")

    def product(self, gate: str, h: ir.Value, name: str) -> ir.Value:
        """The state's part of a gate."""
        weights = [self.weights[gate], self.biases[gate]]
        return self.edit.emit("Gemm", [h, *weights], (self.batch, self.hidden), f"{self.name}.{name}", {"transB": 1})

    def gate(self, gate: str, step: int, h: ir.Value | None, function: str) -> ir.Value:
        """`function(input's part + state's part)`; without a state, of the input's part."""
        name = f"{step}.{gate}"
        part = self.part(gate, step)
        if h is not None:
            part = self.emit("Add", [part, self.product(gate, h, f"{name}.state")], f"{name}.sum")
        return self.emit(function, [part], name)

    def part(self, gate: str, step: int) -> ir.Value:
        """The rows of `inputs[gate]` of one step."""
        value = self.inputs[gate]
        if shape_of(value)[0] == self.batch:
            return value
        bounds = (step * self.batch, (step + 1) * self.batch)
        cut = [self.edit.constant(np.array([b], np.int64), f"{self.name}.rows") for b in (*bounds, 0)]
        return self.emit("Slice", [value, *cut], f"{step}.{gate}.input")


Step = Callable[[_Cell, int, ir.Value | None, ir.Value | None, bool], tuple[ir.Value, ir.Value | None]]


def unroll_recurrent_nodes(edit: GraphEdit) -> None:
    """Replace GRU, LSTM and RNN nodes by their steps.

    Requires: folded constants, static shapes.
    Ensures: what `unrolled_form` takes is gone: the input's part of each gate is one product over all steps, each
        step is products, sums and functions of the state; initial states and Y_h, Y_c are ordinary values. What it
        does not take stays and is noted.
    """
    for node in edit.nodes(*_GATES):
        values = [v for v in (*node.inputs, *node.outputs) if v is not None and v.name]
        if not all(is_static(v) for v in values) or not is_float32(node.inputs[0]):
            continue
        reason = _refusal(node)
        if reason is None:
            _unroll(edit, node)
        else:
            edit.decline(node, reason)


def refusal(op_type: str, attributes: dict[str, Any], peepholes: bool = False) -> str | None:
    """Why a recurrent node with these attributes is not unrolled; None when it is."""
    if attributes.get("direction", "forward") != "forward":
        return f"direction {attributes['direction']}"
    if attributes.get("clip"):
        return "it clips"
    if attributes.get("input_forget"):
        return "input and forget gate are coupled"
    if peepholes:
        return "it has peepholes"
    if list(attributes.get("activations") or _ACTIVATIONS[op_type]) != _ACTIVATIONS[op_type]:
        return f"activations {', '.join(attributes['activations'])}"
    return None


def _refusal(node: ir.Node) -> str | None:
    names = ("direction", "clip", "input_forget", "activations")
    attributes = {n: attribute(node, n, None) for n in names if attribute(node, n, None) is not None}
    given_peepholes = array_of(input_of(node, 7))
    peepholes = input_of(node, 7) is not None and (given_peepholes is None or bool(given_peepholes.any()))
    reason = refusal(node.op_type, attributes, peepholes)
    if reason is not None:
        return reason
    if any(array_of(input_of(node, i)) is None for i in (1, 2)) or (
        input_of(node, 3) is not None and array_of(input_of(node, 3)) is None
    ):
        return "its weights are computed"
    x = node.inputs[0]
    assert x is not None
    steps = shape_of(x)[_axes(node)[0]]
    lengths = input_of(node, 4)
    given = array_of(lengths)
    if lengths is not None and (given is None or (given != steps).any()):
        return "sequences of different lengths"
    if steps > MOST_STEPS:
        return f"{steps} steps; at most {MOST_STEPS} are unrolled"
    return None


def _axes(node: ir.Node) -> tuple[int, int]:
    """Axes of the steps and of the batch."""
    return (1, 0) if attribute(node, "layout", 0) else (0, 1)


def _unroll(edit: GraphEdit, node: ir.Node) -> None:
    time, sample = _axes(node)
    x = node.inputs[0]
    assert x is not None
    shape: tuple[int, ...] = shape_of(x)
    recurrence = node.inputs[2]
    assert recurrence is not None
    steps, batch, hidden = shape[time], shape[sample], shape_of(recurrence)[-1]
    edit.at = node
    name = edit.take_name(node)
    before_reset = node.op_type == "GRU" and not attribute(node, "linear_before_reset", 0)
    if time:
        x = edit.transpose(x, (1, 0, 2), f"{name}.steps")
    rows = edit.reshape(x, (steps * batch, shape[2]), f"{name}.rows")
    cell = _cell(edit, node, name, rows, batch, hidden, apart="" if node.op_type != "GRU" or before_reset else "n")
    h, c = (_initial(edit, input_of(node, i), batch, hidden, f"{name}.{i}") for i in (5, 6))
    advance = {"GRU": _gru_step, "LSTM": _lstm_step, "RNN": _rnn_step}[node.op_type]
    states = []
    for step in range(steps):
        h, c = advance(cell, step, h, c, before_reset)
        states.append(h)
    every = _stacked(edit, states, (batch, hidden), f"{name}.states")
    results = {0: edit.reshape(every, (steps, 1, batch, hidden), f"{name}.Y")}
    if time:
        results[0] = edit.transpose(results[0], (2, 0, 1, 3), f"{name}.Y.batch")
    for index, state in ((1, h), (2, c)):
        if state is not None:
            shape = (batch, 1, hidden) if time else (1, batch, hidden)
            results[index] = edit.reshape(state, shape, f"{name}.Y_{'-hc'[index]}")
    for old, new in [(o, results[i]) for i, o in enumerate(node.outputs) if o.uses() or o.is_graph_output()]:
        edit.replace(old, new)


def _cell(edit: GraphEdit, node: ir.Node, name: str, rows: ir.Value, batch: int, hidden: int, apart: str) -> _Cell:
    """The layer with its input's parts computed; the gates in `apart` keep the state's bias for themselves."""
    w, r = (np.asarray(array_of(input_of(node, i)))[0] for i in (1, 2))
    gates = _GATES[node.op_type]
    given = array_of(input_of(node, 3))
    both = np.zeros(2 * len(w)) if given is None else given[0]
    inputs, weights, biases = {}, {}, {}
    for i, gate in enumerate(gates):
        part = slice(i * hidden, (i + 1) * hidden)
        of_input, of_state = both[: len(w)][part], both[len(w) :][part]
        apart_bias = of_state if gate in apart else np.zeros(hidden)
        biases[gate] = edit.constant(apart_bias, f"{name}.{gate}.state.bias")
        weights[gate] = edit.constant(r[part], f"{name}.{gate}.state.weights")
        matrix = edit.constant(w[part], f"{name}.{gate}.weights")
        total = edit.constant(of_input + (0 if gate in apart else of_state), f"{name}.{gate}.bias")
        shape = (shape_of(rows)[0], hidden)
        inputs[gate] = edit.emit("Gemm", [rows, matrix, total], shape, f"{name}.{gate}.inputs", {"transB": 1})
    return _Cell(edit, name, hidden, batch, inputs, weights, biases)


def _initial(edit: GraphEdit, value: ir.Value | None, batch: int, hidden: int, name: str) -> ir.Value | None:
    """An initial state as [batch, hidden]; None when it is 0."""
    array = array_of(value)
    if value is None or not value.name or (array is not None and not array.any()):
        return None
    if array is not None:
        return edit.constant(array.reshape(batch, hidden), name)
    return edit.reshape(value, (batch, hidden), name)


def _stacked(edit: GraphEdit, states: list[ir.Value], shape: tuple[int, int], name: str) -> ir.Value:
    if len(states) == 1:
        return states[0]
    return edit.emit("Concat", list(states), (len(states) * shape[0], shape[1]), name, {"axis": 0})


def _gru_step(
    cell: _Cell, step: int, h: ir.Value | None, _c: ir.Value | None, before_reset: bool
) -> tuple[ir.Value, None]:
    """n + z * (h - n), n = tanh(.. + r * (R h)) or tanh(.. + R (r * h)): one product less than (1 - z) * n + z * h."""
    update = cell.gate("z", step, h, "Sigmoid")
    new = cell.part("n", step)
    if before_reset:
        if h is not None:
            reset = cell.emit("Mul", [cell.gate("r", step, h, "Sigmoid"), h], f"{step}.reset")
            new = cell.emit("Add", [new, cell.product("n", reset, f"{step}.n.state")], f"{step}.n.sum")
    else:
        old = cell.biases["n"] if h is None else cell.product("n", h, f"{step}.n.state")
        kept = cell.emit("Mul", [cell.gate("r", step, h, "Sigmoid"), old], f"{step}.reset")
        new = cell.emit("Add", [new, kept], f"{step}.n.sum")
    new = cell.emit("Tanh", [new], f"{step}.n")
    if h is None:
        kept = cell.emit("Mul", [update, new], f"{step}.kept")
        return cell.emit("Sub", [new, kept], f"{step}.h"), None
    change = cell.emit("Sub", [h, new], f"{step}.change")
    kept = cell.emit("Mul", [update, change], f"{step}.kept")
    return cell.emit("Add", [new, kept], f"{step}.h"), None


def _lstm_step(
    cell: _Cell, step: int, h: ir.Value | None, c: ir.Value | None, _before_reset: bool
) -> tuple[ir.Value, ir.Value]:
    taken, shown, kept = (cell.gate(g, step, h, "Sigmoid") for g in "iof")
    new = cell.emit("Mul", [taken, cell.gate("c", step, h, "Tanh")], f"{step}.new")
    if c is not None:
        new = cell.emit("Add", [cell.emit("Mul", [kept, c], f"{step}.kept"), new], f"{step}.c")
    return cell.emit("Mul", [shown, cell.emit("Tanh", [new], f"{step}.tanh")], f"{step}.h"), new


def _rnn_step(
    cell: _Cell, step: int, h: ir.Value | None, _c: ir.Value | None, _before_reset: bool
) -> tuple[ir.Value, None]:
    return cell.gate("h", step, h, "Tanh"), None
