# SPDX-License-Identifier: Apache-2.0
"""The order of execution: the exhaustive optimum on small graphs, proven bounds on large ones."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.schedule.order import Graph, Node, best_order, peak_of
from edgec.schedule.problem import Buffer, Problem, Space


def random_graph(rng: np.random.Generator, count: int, sharing: bool = True, reach: int = 10**6) -> Graph:
    """Nodes with inputs among the last `reach` tensors, now and then two outputs, scratch, pairs that may share."""
    sizes = {f"in{i}": int(rng.integers(1, 12)) for i in range(int(rng.integers(1, 4)))}
    nodes, made = [], list(sizes)
    for i in range(count):
        near = made[-reach:]
        picked = rng.choice(len(near), min(len(near), int(rng.integers(1, 4))), replace=False)
        inputs = [near[k] for k in sorted(picked)]
        if rng.random() < 0.1:
            inputs.append(inputs[0])  # read twice
        outputs = [f"{i}.{k}" for k in range(2 if rng.random() < 0.15 else 1)]
        sizes.update({t: int(rng.integers(0, 12)) for t in outputs})
        shares = [
            (a, b, int(rng.integers(0, min(sizes[a], sizes[b]) + 1)))
            for a in dict.fromkeys(inputs)
            for b in outputs
            if sharing and rng.random() < 0.4
        ]
        nodes.append(Node(str(i), tuple(inputs), tuple(outputs), int(rng.integers(0, 4)), tuple(shares)))
        made += outputs
    keep = frozenset(t for t in sizes if rng.random() < 0.15)
    return Graph(tuple(nodes), sizes, keep)


def judged(graph: Graph, order: tuple[int, ...]) -> int:
    """The peak of an order in which nothing is shared, by the placement problem that it makes."""
    end = len(order)
    made = {t: step for step, i in enumerate(order) for t in graph.nodes[i].outputs}
    read = {t: step for step, i in enumerate(order) for t in graph.nodes[i].inputs}
    buffers = []
    for name, size in graph.sizes.items():
        if not size or (name not in made and name not in read and name not in graph.keep):
            continue
        first = made.get(name, 0)
        last = end if name in graph.keep else max(read.get(name, 0), first) + 1
        buffers.append(Buffer(name, size, first, last))
    for step, i in enumerate(order):
        if graph.nodes[i].scratch:
            buffers.append(Buffer(f"scratch {i}", graph.nodes[i].scratch, step, step + 1))
    return Problem(tuple(buffers), (Space("ram", 2**40),)).peak.live_bytes


def shared_peak(graph: Graph, order: tuple[int, ...]) -> int:
    """The peak of an order, step by step as it is defined, with every choice of pairs tried."""
    readers: dict[str, set[int]] = {t: set() for t in graph.sizes}
    for i, node in enumerate(graph.nodes):
        for t in node.inputs:
            readers[t].add(i)
    made = {t for node in graph.nodes for t in node.outputs}
    done: set[int] = set()
    live = {t for t in graph.sizes if t not in made and (readers[t] or t in graph.keep)}
    peak = sum(graph.sizes[t] for t in live)
    for i in order:
        node = graph.nodes[i]
        dying = {t for t in node.inputs if t not in graph.keep and not readers[t] - done - {i}}
        usable = [s for s in node.shares if s[0] in dying]
        best = 0
        for count in range(len(usable) + 1):
            for chosen in itertools.combinations(usable, count):
                if len({a for a, _, _ in chosen}) == len({b for _, b, _ in chosen}) == count:
                    best = max(best, sum(s for _, _, s in chosen))
        live |= set(node.outputs)
        peak = max(peak, sum(graph.sizes[t] for t in live) + node.scratch - best)
        done.add(i)
        live -= dying | {t for t in node.outputs if t not in graph.keep and not readers[t]}
    return peak


def orders(graph: Graph) -> list[tuple[int, ...]]:
    """All orders."""
    maker = {t: i for i, node in enumerate(graph.nodes) for t in node.outputs}
    before = [{maker[t] for t in node.inputs if t in maker} for node in graph.nodes]
    found: list[tuple[int, ...]] = []

    def extend(order: tuple[int, ...]) -> None:
        if len(order) == len(before):
            found.append(order)
        for i in range(len(before)):
            if i not in order and before[i] <= set(order):
                extend((*order, i))

    extend(())
    return found


def exhaustive(graph: Graph) -> int:
    """The smallest peak, over sets of executed nodes, by `shared_peak` of one step at a time."""
    maker = {t: i for i, node in enumerate(graph.nodes) for t in node.outputs}
    before = [{maker[t] for t in node.inputs if t in maker} for node in graph.nodes]
    count = len(before)
    best = {frozenset[int](): 0}
    for _ in range(count):
        following: dict[frozenset[int], int] = {}
        for done, peak in best.items():
            for i in set(range(count)) - done:
                if before[i] <= done:
                    now = max(peak, step_bytes(graph, done, i))
                    after = done | {i}
                    following[after] = min(following.get(after, now), now)
        best = following
    return max(best[frozenset(range(count))], start_bytes(graph))


def start_bytes(graph: Graph) -> int:
    made = {t for node in graph.nodes for t in node.outputs}
    read = {t for node in graph.nodes for t in node.inputs}
    return sum(s for t, s in graph.sizes.items() if t not in made and (t in read or t in graph.keep))


def step_bytes(graph: Graph, done: frozenset[int], i: int) -> int:
    """Bytes live while node i runs after `done`: `shared_peak` of the last step."""
    maker = {t: j for j, node in enumerate(graph.nodes) for t in node.outputs}
    node, total = graph.nodes[i], graph.nodes[i].scratch
    dying = set()
    for t, size in graph.sizes.items():
        waiting = {j for j, other in enumerate(graph.nodes) if t in other.inputs} - done
        there = maker.get(t, -1) in done or t not in maker
        if t in node.outputs or (there and (waiting or t in graph.keep)):
            total += size
        if waiting == {i} and t not in graph.keep:
            dying.add(t)
    usable = [s for s in node.shares if s[0] in dying]
    choices = itertools.chain.from_iterable(itertools.combinations(usable, k) for k in range(len(node.outputs) + 1))
    return total - max(
        sum(s for _, _, s in c) for c in choices if len({a for a, _, _ in c}) == len({b for _, b, _ in c}) == len(c)
    )


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_the_peak_of_an_order_is_that_of_its_live_tensors(seed: int, count: int) -> None:
    graph = random_graph(np.random.default_rng(seed), count)
    bare = random_graph(np.random.default_rng(seed), count, sharing=False)
    for order in orders(graph)[:20]:
        assert peak_of(graph, order) == shared_peak(graph, order)
    for order in orders(bare)[:20]:
        assert max(judged(bare, order), start_bytes(bare)) == peak_of(bare, order)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 10), reach=st.sampled_from([3, 6, 100]))
@settings(max_examples=80, deadline=None)
def test_the_best_order_is_the_exhaustive_optimum(seed: int, count: int, reach: int) -> None:
    graph = random_graph(np.random.default_rng(seed), count, reach=reach)
    result = best_order(graph)
    assert result.exact
    assert result.peak == exhaustive(graph) == shared_peak(graph, result.order)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(8, 30), limit=st.sampled_from([1, 5, 50, 10**5]))
@settings(max_examples=40, deadline=None)
def test_bound_best_and_given_stand_in_order_whatever_the_limit(seed: int, count: int, limit: int) -> None:
    graph = random_graph(np.random.default_rng(seed), count)
    result, full = best_order(graph, limit), best_order(graph)
    given_peak = peak_of(graph, range(count))
    assert result.bound <= full.bound <= full.peak <= result.peak <= given_peak
    assert result.peak == peak_of(graph, result.order)
    assert result.bound <= peak_of(graph, greedy(graph))
    assert result.peak <= peak_of(graph, greedy(graph))
    assert result == best_order(graph, limit)


def greedy(graph: Graph) -> tuple[int, ...]:
    """Always the first node after which the fewest bytes are live."""
    maker = {t: i for i, node in enumerate(graph.nodes) for t in node.outputs}
    before = [{maker[t] for t in node.inputs if t in maker} for node in graph.nodes]
    order: list[int] = []

    def live(i: int) -> int:
        done = {*order, i}
        return sum(
            size
            for t, size in graph.sizes.items()
            if maker.get(t, i) in done
            and (t in graph.keep or any(t in n.inputs for j, n in enumerate(graph.nodes) if j not in done))
        )

    while len(order) < len(before):
        ready = [i for i in range(len(before)) if i not in order and before[i] <= set(order)]
        order.append(min(ready, key=lambda i: (live(i), i)))
    return tuple(order)


def vit(blocks: int, heads: int, in_place: bool, tokens: int = 64, width: int = 96, dim: int = 32) -> Graph:
    """Operators of a vision transformer, each head by itself."""
    sizes = {"x0": tokens * width}
    nodes: list[Node] = []

    def add(name: str, size: int, *inputs: str, over: tuple[str, ...] = ()) -> str:
        sizes[name] = size
        shares = tuple((t, name, min(size, sizes[t])) for t in over if in_place)
        nodes.append(Node(name, inputs, (name,), 0, shares))
        return name

    x = "x0"
    for b in range(blocks):
        y = add(f"{b}.norm", tokens * width, x)
        outs = []
        for h in range(heads):
            q, k, v = (add(f"{b}.{h}.{m}", tokens * dim, y, over=(y,)) for m in "qkv")
            scores = add(f"{b}.{h}.scores", tokens * tokens, q, k)
            weights = add(f"{b}.{h}.softmax", tokens * tokens, scores, over=(scores,))
            outs.append(add(f"{b}.{h}.mix", tokens * dim, weights, v, over=(weights,)))
        p = add(f"{b}.proj", tokens * width, *outs)
        x1 = add(f"{b}.add1", tokens * width, x, p, over=(x, p))
        z = add(f"{b}.norm2", tokens * width, x1)
        hidden = add(f"{b}.fc1", 2 * tokens * width, z, over=(z,))
        act = add(f"{b}.gelu", 2 * tokens * width, hidden, over=(hidden,))
        m = add(f"{b}.fc2", tokens * width, act, over=(act,))
        x = add(f"{b}.add2", tokens * width, x1, m, over=(x1, m))
    return Graph(tuple(nodes), sizes, frozenset({x}))


@pytest.mark.parametrize(("heads", "in_place", "peak"), [(3, False, 30720), (3, True, 22528), (6, True, 28672)])
def test_a_transformer_of_twelve_blocks_is_settled_as_one(heads: int, in_place: bool, peak: int) -> None:
    one, start = best_order(vit(1, heads, in_place)), time.process_time()
    twelve = best_order(vit(12, heads, in_place))
    first = time.process_time() - start
    start = time.process_time()
    again = best_order(vit(12, heads, in_place))
    assert time.process_time() - start < 0.5
    assert first < 5
    assert twelve.exact
    assert one.peak == twelve.peak == peak
    assert twelve == again
    assert peak_of(vit(12, heads, in_place), twelve.order) == peak


def test_long_chains_need_no_search_and_no_recursion() -> None:
    count = 3000
    sizes = {f"t{i}": 1 + i % 7 for i in range(count + 1)}
    nodes = tuple(Node(str(i), (f"t{i}",), (f"t{i + 1}",)) for i in range(count))
    result = best_order(Graph(nodes, sizes))
    assert result.exact
    assert result.order == tuple(range(count))
    assert result.peak == 13


def test_a_wide_fan_of_equal_branches_is_settled() -> None:
    """Ten branches of four nodes: exchanging them is not searched."""
    sizes, nodes, ends = {"x": 10}, [], []
    for b in range(10):
        last = "x"
        for k, size in enumerate((30, 20, 40, 5)):
            sizes[f"{b}.{k}"] = size
            nodes.append(Node(f"{b}.{k}", (last,), (f"{b}.{k}",)))
            last = f"{b}.{k}"
        ends.append(last)
    sizes["y"] = 1
    result = best_order(Graph((*nodes, Node("y", tuple(ends), ("y",))), sizes))
    assert result.exact
    assert result.peak == max(10 + 9 * 5 - 5 + 60, 9 * 5 + 60)


def test_an_irregular_graph_of_sixty_nodes_is_settled() -> None:
    result = best_order(random_graph(np.random.default_rng(60), 60, reach=7))
    assert result.exact


def test_what_is_wrong_is_refused() -> None:
    a = Node("a", ("x",), ("y",))
    with pytest.raises(ValueError, match="stands before"):
        Graph((Node("b", ("y",), ("z",)), a), {"x": 1, "y": 1, "z": 1})
    with pytest.raises(ValueError, match="made twice"):
        Graph((a, a), {"x": 1, "y": 1})
    with pytest.raises(ValueError, match="cannot share 2 bytes"):
        Graph((Node("a", ("x",), ("y",), 0, (("x", "y", 2),)),), {"x": 1, "y": 3})
    with pytest.raises(ValueError, match="not an order"):
        peak_of(Graph((a,), {"x": 1, "y": 1}), ())
