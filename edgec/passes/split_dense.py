# SPDX-License-Identifier: Apache-2.0
"""A dense layer whose output is only ever cut along its columns (fused q, k, v) is one layer a piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.passes.graph_edit import Array, GraphEdit, array_of, attribute, shape_of
from edgec.passes.movement_maps import SELECTION, emit_movement, factor, is_movement, moved, selected


@dataclass
class _Cut:
    """A value that takes all rows of some columns: where each of its elements lies in the dense output."""

    value: ir.Value
    elements: Array
    columns: tuple[int, ...]


def split_dense(edit: GraphEdit) -> None:
    """Split Gemm outputs along the cuts that their readers make.

    The cuts are found by the obvious method: number the elements of the output, follow the numbers through
    reshape, transpose, slice, gather and split, and see which columns arrive.

    Requires: Gemm in normal form, static shapes.
    Ensures: where every reader takes all rows of some columns, and the column sets of two readers are equal
        or disjoint, there is one Gemm for each set, followed by movement only.
    """
    for node in edit.nodes("Gemm"):
        weight, bias = array_of(node.inputs[1]), array_of(node.inputs[2]) if len(node.inputs) > 2 else None
        if weight is None or bias is None or not attribute(node, "transB", 0) or bias.shape != weight.shape[:1]:
            continue
        shape = shape_of(node.outputs[0])
        ends = _ends(node.outputs[0], np.arange(shape[0] * shape[1]).reshape(shape), cut=False)
        if ends is None or not any(was_cut for _, _, was_cut in ends):
            continue
        cuts = [_columns(value, elements, shape) for value, elements, _ in ends]
        why = (
            _why_not([c for c in cuts if c is not None], shape) if None not in cuts else "a reader takes some rows only"
        )
        if why:
            edit.decline(node, f"not split: {why}")
        else:
            _split(edit, node, weight, bias, [c for c in cuts if c is not None])


def _ends(value: ir.Value, elements: Array, cut: bool) -> list[tuple[ir.Value, Array, bool]] | None:
    """The values at which movement and selection end, with the elements that arrive there."""
    found: list[tuple[ir.Value, Array, bool]] = []
    ends_here, producer = value.is_graph_output(), value.producer()
    for use in list(value.uses()):
        node = use.node
        outputs: list[Array] | None = None
        if producer is None or node.graph is not producer.graph:
            pass  # the body of an If or a Loop reads it as it is
        elif use.idx == 0 and is_movement(node):
            outputs = [moved(node, elements)]
        elif use.idx == 0 and node.op_type in SELECTION:
            outputs = selected(node, elements)
        if outputs is None:
            ends_here = True
            continue
        for out, part in zip(node.outputs, outputs, strict=True):
            below = _ends(out, part, cut or node.op_type in SELECTION)
            found += below or []
    if ends_here:
        found.append((value, elements, cut))
    return found


def _columns(value: ir.Value, elements: Array, shape: tuple[int, ...]) -> _Cut | None:
    columns = np.unique(elements % shape[1])
    whole = elements.size == shape[0] * columns.size and np.unique(elements).size == elements.size
    return _Cut(value, elements, tuple(int(c) for c in columns)) if whole else None


def _why_not(cuts: list[_Cut], shape: tuple[int, ...]) -> str:
    sets = sorted({c.columns for c in cuts})
    taken = [c for s in sets for c in s]
    if len(taken) != len(set(taken)):
        return "two readers share some of their columns"
    if len(sets) == 1 and len(sets[0]) == shape[1]:
        return "every reader takes all columns"
    if any(factor(_in_piece(c, shape)) is None for c in cuts):
        return "a cut is not a reshape and transpose of its piece"
    return ""


def _in_piece(cut: _Cut, shape: tuple[int, ...]) -> Array:
    """The elements of a cut, numbered in its own piece [rows, columns of the cut]."""
    rows, columns = np.divmod(cut.elements, shape[1])
    return np.asarray(rows * len(cut.columns) + np.searchsorted(np.array(cut.columns), columns))


def _split(edit: GraphEdit, node: ir.Node, weight: Array, bias: Array, cuts: list[_Cut]) -> None:
    x, shape = node.inputs[0], shape_of(node.outputs[0])
    sets = sorted({c.columns for c in cuts})
    edit.at = node
    name = edit.take_name(node)
    pieces: dict[tuple[int, ...], ir.Value] = {}
    for suffix, columns in zip(_suffixes(name, sets), sets, strict=True):
        index = np.array(columns)
        inputs = [
            x,
            edit.constant(weight[index], f"{name}.{suffix}.weight"),
            edit.constant(bias[index], f"{name}.{suffix}.bias"),
        ]
        piece_shape = [shape[0], len(columns)]
        pieces[columns] = edit.emit("Gemm", inputs, piece_shape, f"{name}.{suffix}", {"transB": 1})
    for cut in cuts:
        producer = cut.value.producer()
        assert producer is not None
        edit.at = producer
        piece = pieces[cut.columns]
        new = emit_movement(edit, piece, _in_piece(cut, shape), shape_of(cut.value), f"{piece.name}.heads")
        assert new is not None  # _why_not looked
        edit.replace(cut.value, new)


def _suffixes(name: str, sets: list[tuple[int, ...]]) -> list[str]:
    """q, k, v for three equal pieces of a layer that its name says is attention's, else numbers."""
    attention = any(word in name.lower() for word in ("qkv", "attn", "attention", "in_proj"))
    if attention and len(sets) == 3 and len({len(s) for s in sets}) == 1:
        return ["q", "k", "v"]
    return [str(i) for i in range(len(sets))]
