# SPDX-License-Identifier: Apache-2.0
"""Index assignment as concatenation: ONNX Runtime computes the same, and what cannot be one stays and says why."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from canonical_form import feeds_of, run
from onnx import TensorProto, helper, numpy_helper

from edgec.model import Model
from edgec.passes.canonicalize import canonicalize


def scatter(op: str, shape: tuple[int, ...], indices: np.ndarray, updates: tuple[int, ...], **attrs: object) -> Model:
    """y = 2 * data with updates at indices."""
    nodes = [
        helper.make_node("Add", ["data", "data"], ["twice"]),
        helper.make_node(op, ["twice", "indices", "updates"], ["y"], **attrs),
    ]
    ends = {"data": shape, "updates": updates, "y": shape}
    infos = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ends.items()}
    graph = helper.make_graph(
        nodes,
        "scatter",
        [infos["data"], infos["updates"]],
        [infos["y"]],
        [numpy_helper.from_array(indices.astype(np.int64), "indices")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    return Model(proto, "scatter", "0" * 64)


def elements(shape: tuple[int, ...], axis: int, rows: list[int]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Indices of ScatterElements for whole rows, and the shape of the updates."""
    updates = tuple(len(rows) if a == axis else d for a, d in enumerate(shape))
    place = [1] * len(shape)
    place[axis] = len(rows)
    return np.broadcast_to(np.array(rows).reshape(place), updates), updates


def same(model: Model, left: set[str]) -> Model:
    canonical = canonicalize(model)
    feeds = feeds_of(model)
    np.testing.assert_array_equal(run(canonical.proto, feeds)[0], run(model.proto, feeds)[0])
    scatters = {n.op_type for n in canonical.proto.graph.node if n.op_type.startswith("Scatter")}
    assert scatters == left
    return canonical


@pytest.mark.parametrize("rows", [[-1], [0], [2], [1, 2], [0, 1, 2, 3, 4], [-2, -1]], ids=str)
@pytest.mark.parametrize(("shape", "axis"), [((5, 3), 0), ((1, 5, 3), 1), ((2, 1, 5), 2)], ids=str)
def test_whole_rows_in_their_order(shape: tuple[int, ...], axis: int, rows: list[int]) -> None:
    indices, updates = elements(shape, axis, rows)
    same(scatter("ScatterElements", shape, indices, updates, axis=axis), set())
    # The same rows as tuples of indices: all axes up to this one are named.
    grid = np.meshgrid(*(np.arange(d) for d in shape[:axis]), np.array(rows), indexing="ij")
    tuples = np.stack(grid, axis=-1)
    same(scatter("ScatterND", shape, tuples, (*tuples.shape[:-1], *shape[axis + 1 :])), set())


@pytest.mark.parametrize(
    ("rows", "attrs"), [([0, 2], {}), ([2, 1], {}), ([1], {"reduction": "add"})], ids=["apart", "turned", "added"]
)
def test_what_stays(rows: list[int], attrs: dict[str, str]) -> None:
    indices, updates = elements((1, 5, 3), 1, rows)
    model = same(scatter("ScatterElements", (1, 5, 3), indices, updates, axis=1, **attrs), {"ScatterElements"})
    assert any("Scatter" in n for n in model.notes)


def test_a_part_of_a_row_stays() -> None:
    same(scatter("ScatterElements", (1, 5, 3), np.ones((1, 1, 2)), (1, 1, 2), axis=1), {"ScatterElements"})
