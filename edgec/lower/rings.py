# SPDX-License-Identifier: Apache-2.0
"""Integer graph -> integer graph: windows over the past become rings with a cursor, so that nothing is shifted.

A state whose successor is itself without its oldest rows and with new ones (`ring_form`) keeps its rows where they
are; the new row replaces the oldest, and an int32 cursor, a state of its own, counts where that is. Rings of as many
rows share one. What reads the window becomes, in this order: a causal convolution over the ring; an operator on the
rows as they lie (`ring_order`); an operator on a copy of the rows it reads, in the order of time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgec.lower.attention import evenly_spaced, is_identity
from edgec.lower.internal import INTERNAL
from edgec.lower.lower import INTERFACE_KEY
from edgec.lower.ring_conv import Causal, causal
from edgec.lower.ring_form import RingForm, ring_form
from edgec.lower.ring_graph import Ids, RingGraph, attributes
from edgec.lower.ring_layout import Layout, element_of, layouts, rotated_axis
from edgec.lower.ring_order import Rotated, Wish, settle
from edgec.model import Model
from edgec.operators import TensorType
from edgec.operators.integer import product

_Border = dict[str, list[dict[str, Any]]]
_FIRST, _LAST = -1.0, 1e9


def with_rings(model: Model) -> Model:
    """The integer graph of `model` with every window over its past as a ring; the same bits.

    States that are nearly windows stay as they are, and a note says why.
    """
    if not model.states:
        return model
    text = next((p.value for p in model.proto.metadata_props if p.key == INTERFACE_KEY), None)
    if text is None:
        return model
    graph, border = RingGraph(model.proto), json.loads(text)
    tensors = {entry["name"]: entry["tensor"] for entry in border["outputs"]}
    notes, rings = list(model.notes), {}
    for state in model.states:
        form = ring_form(graph, state.input, tensors[state.output])
        if isinstance(form, str):
            notes.append(f"state {state.input!r} is shifted as a copy, it becomes no ring: {form}")
        elif form is not None:
            rings[state.output] = _Ring(form)
    proto = _Rewrite(graph, rings, border).run() if rings else model.proto
    return Model(proto, model.name, model.sha256, model.states, notes)


@dataclass(frozen=True)
class _Read:
    """A value that is a part of a ring's window: elements at `at` in the extended one.

    `past`: read before the new row replaces the oldest. `node`: the operator whose operand it is, if it is one.
    """

    ring: _Ring
    name: str
    at: Ids
    past: bool
    node: onnx.NodeProto | None = None
    operand: int = 0


@dataclass(eq=False)
class _Ring:
    """A form with how it lies: rows of the ring, layout, who reads the window, name of the ring after this step."""

    form: RingForm
    length: int = 0
    layout: Layout = field(default_factory=lambda: Layout(1))
    reads: list[_Read] = field(default_factory=list)
    written: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Streams, rows, channels."""
        return self.layout.streams, self.length, self.layout.channels(self.form)

    def first(self, past: bool) -> int:
        """Row of the extended window that is the oldest in the ring."""
        return self.form.rows + (0 if past else 1) - self.length


class _Rewrite:
    def __init__(self, graph: RingGraph, rings: dict[str, _Ring], border: _Border) -> None:
        self.graph, self.border, self.by_output = graph, border, rings
        self.rings = list(rings.values())
        self.original = list(graph.nodes)
        self.lies: dict[str, Rotated] = {}  # values that are not in the order of time
        self.cursors: dict[tuple[int, int], str] = {}  # (rows, back): the row so many before the newest
        self.states: dict[int, str] = {}  # rows: name of the cursor's state
        self.copies: dict[tuple[object, ...], str] = {}  # what serves several readers
        self.inside = {
            name: (ring, at)
            for name, ids in graph.ids.items()
            for ring in self.rings
            if (at := ring.form.located(ids)) is not None
        }

    def run(self) -> onnx.ModelProto:
        """Write the rings."""
        for ring in self.rings:
            self._collect(ring)
            self._lay_out(ring)
        for node in self.original:
            if node.output[0] not in self.inside:
                self._node(node)
        for ring in self.rings:
            self._write(ring)
        self._leave()
        return self.graph.finish([(r.form.state, self.graph.makers[r.written]) for r in self.rings])

    # ---- who reads them, and how they lie ----

    def _collect(self, ring: _Ring) -> None:
        """Find the readers, and from them how many rows the ring has."""
        form, early = ring.form, self.graph.ancestors(ring.form.x)
        found: list[tuple[str, bool, onnx.NodeProto | None, int]] = [
            (name, id(node) in early, node, i)
            for node in self.original
            if node.output[0] not in self.inside
            for i, name in enumerate(node.input)
        ]
        leaving = [(str(e["tensor"]), False) for e in self.border["outputs"] if e["name"] not in self.by_output]
        found += [(name, soon, None, 0) for name, soon in (*leaving, *((r.form.x, True) for r in self.rings))]
        found = [f for f in found if f[0] in self.inside and self.inside[f[0]][0] is ring]
        rows = [form.row_of(self.inside[f[0]][1]) for f in found]
        oldest, newest = min((int(r.min()) for r in rows), default=1), max((int(r.max()) for r in rows), default=0)
        past = oldest == 0 and newest < form.rows  # nobody needs the new row: all read before it is there
        ring.length = form.rows + (oldest == 0 and not past)
        ring.written = self.graph.name(f"{form.state}.ring")
        self.graph.types[ring.written] = TensorType((), form.dtype)
        for (name, soon, node, operand), at_rows in zip(found, rows, strict=True):
            before = past or (soon and int(at_rows.max()) < form.rows)
            ring.reads.append(_Read(ring, name, self.inside[name][1], before, node, operand))

    def _lay_out(self, ring: _Ring) -> None:
        """Choose the order of the elements in which the fewest bytes are copied, and declare the state so."""

        def cost(layout: Layout) -> int:
            ring.layout = layout
            return sum(map(self._cost, ring.reads)) + layout.streams

        ring.layout = min(layouts(ring.form), key=cost)
        form, graph = ring.form, self.graph.proto.graph
        info = next(i for i in graph.input if i.name == form.state)
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(form.dtype))
        info.CopyFrom(helper.make_tensor_value_info(form.state, dtype, ring.shape))
        own = self.graph.types[form.state]
        self.graph.types[form.state] = self.graph.types[ring.written] = TensorType(ring.shape, form.dtype)
        self._unfold(ring, own)

    def _cost(self, read: _Read) -> int:
        """Bytes that are copied for one reader."""
        return 0 if self._causal(read) is not None else self._copied(read, *self._form(read)[:2])

    def _form(self, read: _Read) -> tuple[Ids, tuple[int, ...], bool]:
        """(places in the window, shape, whether transposed) of what a reader is given; a product takes b either way."""
        shape = self.graph.types[read.name].shape
        forms = [(read.at, shape, False)]
        if read.node is not None and read.node.op_type == "matmul_s8" and read.operand == 1:
            turned = read.at.reshape(shape).transpose(0, 2, 1)
            forms.append((turned.ravel(), turned.shape, True))
        return min(forms, key=lambda form: self._copied(read, form[0], form[1]))

    def _copied(self, read: _Read, at: Ids, shape: tuple[int, ...]) -> int:
        ring = read.ring
        if self._axis(read, at) is None:
            return 2 * at.size
        places = ring.layout.places(ring.form, at, ring.first(read.past), ring.length).reshape(shape)
        if is_identity(places, product(ring.shape)):
            return 0
        return at.size if evenly_spaced(places) is not None else 4 * at.size

    def _unfold(self, ring: _Ring, own: TensorType) -> None:
        """Give the nodes that moved the state's elements its rows in their old order, for whom nothing else helps."""
        form, state = ring.form, ring.form.state
        users = [n for n in self.original if state in n.input and n.output[0] in self.inside]
        if not users:
            return
        rows = self._rows(ring, True, 0, form.rows - 1, _FIRST)
        unfolded = self._moved(rows, ring.layout.unfolded(form), f"{state}.unfolded", _FIRST)
        unfolded = self.graph.view(unfolded, own.shape, _FIRST)
        for node in users:
            for i, name in enumerate(node.input):
                if name == state:
                    node.input[i] = unfolded

    # ---- readers ----

    def _node(self, node: onnx.NodeProto) -> None:
        """Let a node read the rings, and follow the order in which its operands lie."""
        at = self.graph.rank[id(node)]
        have: list[Wish] = []
        for i, name in enumerate(node.input):
            if name not in self.inside:
                have.append(self.lies.get(name))
                continue
            read = next(r for r in self.inside[name][0].reads if r.node is node and r.operand == i)
            if (convolution := self._causal(read)) is not None:
                self._convolve(node, read, convolution)
                return
            node.input[i], lies = self._serve(read, at - 0.3)
            have.append(lies)
        if any(have):
            wishes, result = settle(self.graph, node, have)
            for i, (lies, wish) in enumerate(zip(have, wishes, strict=True)):
                node.input[i] = self._turned(node.input[i], lies, wish, at - 0.2)
            if result is not None:
                self.lies[node.output[0]] = result

    def _causal(self, read: _Read) -> Causal | None:
        if read.node is None or read.operand or read.ring.form.dtype != "int8":
            return None
        return causal(self.graph, read.node, read.ring.form, read.at, read.ring.layout)

    def _convolve(self, node: onnx.NodeProto, read: _Read, found: Causal) -> None:
        """Write the convolution over the ring in the place of `node`."""
        graph, at, name = self.graph, self.graph.rank[id(node)], node.name
        bias, mult, shift, params = node.input[2:6]
        inputs = [
            self._source(read.ring, read.past),
            self._cursor(read.ring.length, read.ring.form.rows - found.last),
            graph.constant(f"{name}.taps", found.weights),
            bias,
            mult,
            shift,
            graph.constant(f"{name}.points", graph.arrays[params][-1:]),
        ]
        output, shape = node.output[0], graph.types[node.output[0]].shape
        graph.remove(node)
        wide = attributes(node).get("wide", 0)
        result = graph.add(
            found.op, inputs, name, graph.name(f"{output}.streams"), at, dilation=found.dilation, wide=wide
        )
        graph.rename(result, shape, output, at)

    def _serve(self, read: _Read, at: float) -> tuple[str, Wish]:
        """A tensor for a reader, and how it lies."""
        ring, form = read.ring, read.ring.form
        at_window, shape, turned = self._form(read)
        axis = self._axis(read, at_window)
        if axis is not None:
            places = ring.layout.places(form, at_window, ring.first(read.past), ring.length).reshape(shape)
            if _possible(places, product(ring.shape)):
                if turned:
                    _turn(read.node)
                lies = Rotated(*axis, ring.length, self._cursor(ring.length, int(read.past)))
                return self._moved(self._source(ring, read.past), places, f"{read.name}.in ring", at), lies
        rows = form.row_of(read.at)
        first, last = int(rows.min()), int(rows.max())
        places = ring.layout.places(form, read.at, first, last - first + 1)
        places = places.reshape(self.graph.types[read.name].shape)
        size = ring.shape[0] * (last - first + 1) * ring.shape[2]
        if not _possible(places, size):
            return read.name, None  # by the nodes that moved it, from the unfolded state
        return self._moved(self._rows(ring, read.past, first, last, at), places, f"{read.name}.in order", at), None

    def _axis(self, read: _Read, at: Ids) -> tuple[int, int] | None:
        """(outer, inner) when a reader takes all rows of the ring, in their order along one axis."""
        form, ring = read.ring.form, read.ring
        return rotated_axis(form.row_of(at) - ring.first(read.past), element_of(form, at), ring.length)

    def _source(self, ring: _Ring, past: bool) -> str:
        return ring.form.state if past else ring.written

    def _rows(self, ring: _Ring, past: bool, first: int, last: int, at: float) -> str:
        """Rows of the extended window in the order of time, as [streams, rows, channels]."""
        source, cursor = self._source(ring, past), self._cursor(ring.length, ring.form.rows - last)
        key = source, first, last
        if key not in self.copies:
            name = self.graph.name(f"{ring.form.state}.rows")
            op = f"ring_read_{_bits(ring.form.dtype)}"
            self.copies[key] = self.graph.add(op, [source, cursor], name, name, at, rows=last - first + 1)
        return self.copies[key]

    def _moved(self, name: str, places: Ids, stem: str, at: float) -> str:
        """The elements of `name` at `places`, in their shape: as they lie, or copied."""
        graph, size = self.graph, product(self.graph.types[name].shape)
        if is_identity(places, size):
            return graph.view(name, places.shape, at)
        key = name, places.shape, places.tobytes()
        if key not in self.copies:
            spaced = evenly_spaced(places)
            assert spaced is not None
            flat, result = graph.view(name, (size,), at), graph.name(stem)
            op = f"strided_copy_{_bits(graph.types[name].dtype)}"
            self.copies[key] = graph.add(
                op, [flat], result, result, at, offset=spaced[0], shape=list(places.shape), strides=list(spaced[1])
            )
        return self.copies[key]

    def _turned(self, name: str, have: Wish, wish: Wish, at: float) -> str:
        """`name`, which lies as `have`, as `wish`; None: in the order of time."""
        if have == wish:
            return name
        if have is not None and wish is not None:
            return self._turned(self._turned(name, have, None, at), None, wish, at)
        lies = have or wish
        assert lies is not None
        key = name, have, wish
        if key not in self.copies:
            graph, shape = self.graph, self.graph.types[name].shape
            bits = _bits(graph.types[name].dtype)
            source = graph.view(name, (lies.outer, lies.rows, lies.inner), at)
            result = graph.name(f"{name}.in {'order' if have else 'ring'}")
            if have is not None:
                graph.add(f"ring_read_{bits}", [source, lies.cursor], result, result, at, rows=lies.rows)
            else:
                graph.add(f"ring_rotate_{bits}", [source, lies.cursor], result, result, at)
            self.copies[key] = graph.view(result, shape, at)
        return self.copies[key]

    # ---- cursors, writing, the border ----

    def _cursor(self, rows: int, back: int = 0) -> str:
        """The row of rings of so many that is `back` steps before the newest."""
        graph, back = self.graph, back % rows
        if rows not in self.states:
            state = self.states[rows] = graph.name(f"ring_cursor_{rows}")
            graph.types[state] = TensorType((1,), "int32")
            graph.proto.graph.input.append(helper.make_tensor_value_info(state, TensorProto.INT32, [1]))
            moved = graph.name(f"{state}.next")
            self.cursors[rows, 0] = graph.add("ring_cursor_s32", [state], moved, moved, _FIRST, rows=rows, step=1)
        if (rows, back) not in self.cursors:
            newest, name = self.cursors[rows, 0], graph.name(f"{self.states[rows]}.back_{back}")
            graph.add("ring_cursor_s32", [newest], name, name, _FIRST, rows=rows, step=rows - back)
            self.cursors[rows, back] = name
        return self.cursors[rows, back]

    def _write(self, ring: _Ring) -> None:
        """The call that replaces the oldest row by what is new."""
        form, graph = ring.form, self.graph
        at = graph.rank[id(graph.makers[form.x])] if form.x in graph.makers else _FIRST
        x, lies = form.x, self.lies.get(form.x)
        if x in self.inside:
            reads = [r for r in self.inside[x][0].reads if r.name == x and r.node is None]
            x, lies = self._serve(max(reads, key=lambda r: r.past), at + 0.1)
        x = self._moved(self._turned(x, lies, None, at + 0.1), ring.layout.new(form), f"{form.state}.new", at + 0.1)
        op = f"ring_write_{_bits(form.dtype)}"
        graph.add(op, [form.state, x, self._cursor(ring.length)], f"{form.state}.push", ring.written, at + 0.2)

    def _leave(self) -> None:
        """Bring what leaves the model in order, and declare the rings and their cursors."""
        graph = self.graph
        for entry in self.border["outputs"]:
            name = str(entry["tensor"])
            if entry["name"] in self.by_output:
                entry["tensor"] = self.by_output[entry["name"]].written
            elif name in self.inside:
                read = next(r for r in self.inside[name][0].reads if r.name == name and r.node is None)
                entry["tensor"] = self._turned(*self._serve(read, _LAST), None, _LAST)
            else:
                entry["tensor"] = self._turned(name, self.lies.get(name), None, _LAST)
        self.border[INTERNAL] = [
            {"name": state, "tensor": self.cursors[rows, 0], "reset": 0} for rows, state in self.states.items()
        ]
        names = [str(e["tensor"]) for e in (*self.border["outputs"], *self.border[INTERNAL])]
        outputs = graph.proto.graph.output
        del outputs[:]
        for name in dict.fromkeys(names):
            kind = graph.types[name]
            outputs.append(
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype)), kind.shape)
            )
        metadata = {p.key: p.value for p in graph.proto.metadata_props}
        helper.set_model_props(graph.proto, {**metadata, INTERFACE_KEY: json.dumps(self.border)})


def _turn(node: onnx.NodeProto | None) -> None:
    """Let a product take its right operand the other way round."""
    assert node is not None
    other = 1 - attributes(node).get("transpose_b", 0)
    kept = [a for a in node.attribute if a.name != "transpose_b"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("transpose_b", other)])


def _possible(places: Ids, size: int) -> bool:
    """Whether one copy, or none, brings the elements there."""
    return is_identity(places, size) or evenly_spaced(places) is not None


def _bits(dtype: str) -> str:
    return {"int8": "s8", "int16": "s16"}[dtype]
