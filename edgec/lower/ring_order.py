# SPDX-License-Identifier: Apache-2.0
"""Which operators need the rows of a window in the order of time, and which take them as they lie in the ring.

A value may have one axis whose rows lie rotated by the cursor. Sums, extremes and softmax along it do not care; what
works row by row hands the rotation on; of two operands that meet along the axis the other one is rotated too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from edgec.lower.ring_graph import Ids, RingGraph, attributes
from edgec.lower.ring_layout import rotated_axis
from edgec.operators import TensorType, get_operator
from edgec.operators.integer import product


@dataclass(frozen=True)
class Rotated:
    """A value that lies as [outer, rows, inner] with row `cursor` the newest and the next one the oldest."""

    outer: int
    inner: int
    rows: int
    cursor: str


Wish = Rotated | None
"""How an operand shall lie; None: in the order of time."""
Settled = tuple[list[Wish], Wish]
"""How each operand shall lie, and how the result lies then."""


def settle(graph: RingGraph, node: onnx.NodeProto, have: Sequence[Wish]) -> Settled:
    """What an operator, some of whose operands are rotated, wants of each of them: what moves the fewest bytes."""
    rule = _RULES.get(node.op_type)
    found = rule(_Site(graph, node, list(have))) if rule is not None else None
    plain: Settled = [None] * len(node.input), None

    def moved(settled: Settled) -> int:
        return sum(
            graph.types[name].bytes * ((was is not None) + (wish is not None))
            for name, was, wish in zip(node.input, have, settled[0], strict=True)
            if was != wish
        )

    return found if found is not None and moved(found) <= moved(plain) else plain


@dataclass(frozen=True)
class _Site:
    graph: RingGraph
    node: onnx.NodeProto
    have: list[Wish]

    def type(self, operand: int) -> TensorType:
        return self.graph.types[self.node.input[operand]]

    def shape(self, operand: int) -> tuple[int, ...]:
        return self.type(operand).shape

    @property
    def result(self) -> tuple[int, ...]:
        return self.graph.types[self.node.output[0]].shape

    def settled(self, wishes: dict[int, Wish], result: Wish) -> Settled:
        return [wishes.get(i) for i in range(len(self.node.input))], result


def _axis(lies: Rotated, shape: Sequence[int]) -> tuple[int, int] | None:
    """(axis of `shape` within which the rows run, their distance in it)."""
    for axis, size in enumerate(shape):
        stride = product(shape[axis + 1 :])
        if lies.inner % stride == 0 and (size * stride) % (lies.inner * lies.rows) == 0:
            return axis, lies.inner // stride
    return None


def _along(lies: Rotated, shape: Sequence[int], axis: int, distance: int) -> Rotated:
    """A value of this shape that is rotated along one axis as `lies` is."""
    inner = distance * product(shape[axis + 1 :])
    return replace(lies, outer=product(shape) // (inner * lies.rows), inner=inner)


def _unary(axes: Callable[[_Site], dict[int, int | None]]) -> Callable[[_Site], Settled | None]:
    """The rule of an operator of one activation: for each axis that may be rotated the result's, None for none."""

    def rule(site: _Site) -> Settled | None:
        lies = site.have[0]
        found = _axis(lies, site.shape(0)) if lies is not None else None
        goes = axes(site)
        if lies is None or found is None or found[0] not in goes:
            return None
        axis, distance = found
        to = goes[axis]
        return site.settled({0: lies}, None if to is None else _along(lies, site.result, to, distance))

    return rule


def _elementwise(site: _Site) -> Settled | None:
    return site.settled({0: site.have[0]}, site.have[0])


def _move(site: _Site) -> Settled | None:
    """A copy that leaves the rows of the window together is the same copy of them as they lie."""
    lies, node = site.have[0], site.node
    if lies is None or any(site.have[1:]):
        return None
    places = np.arange(product(site.shape(0)), dtype=np.int64)
    if node.op_type == "take_s8":
        index = site.graph.arrays[node.input[1]]
        if (index < 0).any():
            return None
        places = places.reshape(site.shape(0))[:, index].ravel()
    elif node.op_type != "Reshape":
        places = np.asarray(get_operator(node.op_type).reference(places, **attributes(node)), np.int64).ravel()
    rows, others = places // lies.inner % lies.rows, places // (lies.inner * lies.rows) * lies.inner
    axis = rotated_axis(rows, others + places % lies.inner, lies.rows)
    return None if axis is None else site.settled({0: lies}, replace(lies, outer=axis[0], inner=axis[1]))


def _pair(site: _Site) -> Settled | None:
    """Two operands that meet element by element, b [O or 1, N or 1] perhaps spread over a [O, N]."""
    shape = site.result
    spread = [np.broadcast_to(_numbers(site.shape(i)), shape).ravel() for i in (0, 1)]
    for first, second in ((0, 1), (1, 0)):
        lies = site.have[first]
        if lies is None:
            continue
        at = spread[first]
        result = rotated_axis(
            at // lies.inner % lies.rows, at // (lies.inner * lies.rows) * lies.inner + at % lies.inner, lies.rows
        )
        if result is None:
            continue
        whole = replace(lies, outer=result[0], inner=result[1])
        other = _partner(site, second, spread[second], whole)
        if not isinstance(other, bool):
            return site.settled({first: lies, second: other}, whole)
    return None


def _partner(site: _Site, operand: int, spread: Ids, whole: Rotated) -> Wish | bool:
    """How an operand has to lie that meets one that is rotated as `whole`; False when it cannot."""
    shaped = spread.reshape(whole.outer, whole.rows, whole.inner)
    if site.have[operand] is None and _alike(site.graph, site.node.input[operand], shaped):
        return None
    kept, first = np.unique(spread, return_index=True)
    if kept.size != product(site.shape(operand)):
        return False
    axis = rotated_axis(first // whole.inner % whole.rows, np.zeros_like(first), whole.rows)
    if axis is None:
        return False
    mine = replace(whole, outer=axis[0], inner=axis[1])
    # Each of its elements meets those of one row only, the one in its own place.
    rows = spread // mine.inner % mine.rows
    return mine if np.array_equal(rows.reshape(shaped.shape), _row_numbers(whole)) else False


def _row_numbers(whole: Rotated) -> Ids:
    numbers = np.arange(whole.rows, dtype=np.int64)[:, None]
    return np.broadcast_to(numbers, (whole.outer, whole.rows, whole.inner))


def _alike(graph: RingGraph, name: str, places: Ids) -> bool:
    """Whether all rows of the window meet the same elements of a value."""
    values = graph.arrays[name].ravel() if name in graph.arrays else graph.ids.get(name)
    if values is None:
        return bool((places == places[:, :1]).all())
    met = values[places]
    return bool((met == met[:, :1]).all())


def _numbers(shape: tuple[int, ...]) -> Ids:
    return np.arange(product(shape), dtype=np.int64).reshape(shape)


def _matmul(site: _Site) -> Settled | None:
    transposed = attributes(site.node).get("transpose_b", 0)
    terms, columns = (2, 1) if transposed else (1, 2)
    a, b = site.have[0], site.have[1]
    places = [_axis(lies, site.shape(i)) if lies is not None else None for i, lies in enumerate((a, b))]
    for lies, place in zip((a, b), places, strict=True):
        if lies is not None and place is None:
            return None
    if a is not None and places[0] is not None and places[0][0] == 2:  # the sum runs along the window
        wanted = _along(a, site.shape(1), terms, places[0][1])
        return site.settled({0: a, 1: wanted}, None)
    if b is not None and places[1] is not None and places[1][0] == terms:
        wanted = _along(b, site.shape(0), 2, places[1][1])
        return site.settled({0: wanted, 1: b}, None)
    if a is not None and b is not None:
        if places[0] == places[1] and places[0] is not None and places[0][0] == 0 and a.cursor == b.cursor:
            return site.settled({0: a, 1: b}, _along(a, site.result, 0, places[0][1]))
        return None
    if a is not None and places[0] is not None and places[0][0] == 1:
        return site.settled({0: a}, _along(a, site.result, 1, places[0][1]))
    if b is not None and places[1] is not None and places[1][0] == columns:
        return site.settled({1: b}, _along(b, site.result, 2, places[1][1]))
    return None


def _attention(site: _Site) -> Settled | None:
    """Keys and values together: the sums run along them."""
    q, k, v = site.have[:3]
    lies = next((w for w in (k, v) if w is not None), None)
    if q is not None or lies is None:
        return None
    operand = 1 if k is not None else 2
    found = _axis(lies, site.shape(operand))
    if found is None or found[0] != 0:
        return None
    wanted = {i: _along(lies, site.shape(i), 0, found[1]) for i in (1, 2)}
    return site.settled(dict(wanted), None)


def _reduced(site: _Site) -> dict[int, int | None]:
    return {0: 0, 1: None, 2: 1}


def _rows_alone(site: _Site) -> dict[int, int | None]:
    return {0: 0}


def _rows_or_along(site: _Site) -> dict[int, int | None]:
    return {0: 0, 1: 1}


def _where_mask_is_one_row(site: _Site) -> dict[int, int | None]:
    return {0: 0} if site.shape(1)[0] == 1 else {}


_RULES: dict[str, Callable[[_Site], Settled | None]] = {
    **dict.fromkeys(("table_s8", "requantize_s16"), _elementwise),
    **dict.fromkeys(("Reshape", "strided_copy_s8", "strided_copy_s16", "take_s8"), _move),
    **dict.fromkeys(("add_s8", "mul_s8", "div_s8", "extreme_s8", "add_s16", "mul_s16"), _pair),
    **dict.fromkeys(("mean_s8", "mean_s16", "reduce_extreme_s8"), _unary(_reduced)),
    **dict.fromkeys(("linear_s8", "linear_s16", "layer_norm_s8", "layer_norm_s16", "rms_norm_s8"), _unary(_rows_alone)),
    "softmax_s8": _unary(_rows_or_along),
    "masked_softmax_s8": _unary(_where_mask_is_one_row),
    "matmul_s8": _matmul,
    "attention_s8": _attention,
}
