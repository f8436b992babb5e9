# SPDX-License-Identifier: Apache-2.0
"""Names of a float program: each call bears the ONNX nodes that it computes, its result the ONNX value's name.

Said in two ways that do not ask the program: the generated C computes under a name what ONNX Runtime computes under
it, and the ONNX graph itself tells what a set of nodes reads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.build import build
from edgec.device.runner import open_runner
from edgec.emit.model import Built
from edgec.kernels.select import select_kernels
from edgec.model import Model
from edgec.operators import TensorType, get_operator
from edgec.program import Port, Program
from edgec.schedule.memories import place_in_memories
from edgec.target import load_target
from edgec.tvm_bridge.kernels import function_name
from edgec.tvm_bridge.pipeline import Lowered, through_tvm
from tests.small_models import Graph, Shapes, attention_block

Network = tuple[Graph, Shapes, Shapes]


def _mlp() -> Network:
    """Three layers of the same shape: their groups share one function, and only one of them is followed by none."""
    g = Graph(1)
    t = g.op("Gelu", g.dense("x", 8, 8))
    t = g.op("Gelu", g.dense(t, 8, 8), approximate="tanh")
    t = g.op("Gelu", g.dense(t, 8, 8))
    g.dense(t, 8, 8, out="y")
    return g, {"x": (3, 8)}, {"y": (3, 8)}


def _encoder() -> Network:
    """Two identical pre-norm layers with residual additions."""
    g, t = Graph(2), "x"
    for _ in range(2):
        t = g.op("Add", g.op("Softmax", g.dense(g.norm(t, 6), 6, 6), axis=-1), t)
        t = g.op("Add", t, g.dense(g.op("Relu", g.dense(g.norm(t, 6), 6, 6)), 6, 6))
    g.op("Identity", t, out="y")
    return g, {"x": (5, 6)}, {"y": (5, 6)}


def _pieces() -> Network:
    """Splits of several outputs, used in another order and more than once; a Softmax that is an output as well."""
    g = Graph(3)
    make = onnx.helper.make_node
    g.nodes.append(make("Split", [g.dense("x", 6, 12), g.integers(3, 5, 4)], ["a", "b", "c"], "cut", axis=1))
    g.nodes.append(make("Split", ["b"], ["d", "e"], "cut again", axis=0, num_outputs=2))
    g.op("Concat", g.op("Tanh", "c"), g.op("Exp", "a"), g.op("Sigmoid", "c"), axis=1, out="joined")
    g.op("Softmax", g.op("Mul", "d", g.op("Add", "e", "d")), axis=-1, out="soft")
    g.op("Sub", "soft", "e", out="y")
    return g, {"x": (4, 6)}, {"joined": (4, 11), "soft": (2, 5), "y": (2, 5)}


def _several_calls() -> Network:
    """Nodes that TVM takes apart, and two pairs of nodes that compute the same, crosswise."""
    g = Graph(4)
    w, b = g.random(5, 6), g.random(5)
    t = g.op("Gemm", "x", w, b, transB=1, alpha=0.5, beta=2.0)
    first, second = g.op("Tanh", t), g.op("Tanh", t)
    same = g.random(5, 5)
    late, early = (g.op("Relu", g.op("MatMul", t, same)) for t in (second, first))
    g.op("HardSwish", g.op("Add", early, g.op("Mul", late, first)), out="h")
    g.op("LayerNormalization", "h", g.random(5), axis=-1, out="n")
    g.op("ReduceMean", g.op("Elu", g.op("Mish", "n")), g.integers(0), keepdims=0, out="y")
    moments = (g.random(5), g.random(5), g.random(5), g.const(np.arange(1, 6, dtype=np.float32)))
    g.op("Sqrt", g.op("Abs", g.op("BatchNormalization", "n", *moments)), out="u")
    return g, {"x": (4, 6)}, {"h": (4, 5), "y": (5,), "u": (4, 5)}


def _random(seed: int) -> Network:
    """Thirty nodes over random earlier values, all [6, 6]; what no node reads is an output."""
    g, values = Graph(seed), ["x", "z"]
    for _ in range(30):
        kind = str(g.rng.choice(["Add", "Sub", "Tanh", "Relu", "Sigmoid", "Transpose", "dense", "MatMul", "Softmax"]))
        a, b = (values[-1 - min(int(i), len(values) - 1)] for i in g.rng.geometric(0.3, 2) - 1)
        if kind == "dense":
            values.append(g.dense(a, 6, 6))
        elif kind in ("Add", "Sub"):
            values.append(g.op(kind, a, b))
        elif kind == "MatMul":
            values.append(g.op(kind, a, g.op("Softmax", b, axis=-1)))
        else:
            values.append(g.op(kind, a, **({"perm": [1, 0]} if kind == "Transpose" else {})))
    read = {name for node in g.nodes for name in node.input}
    return g, {"x": (6, 6), "z": (6, 6)}, {v: (6, 6) for v in values[2:] if v not in read}


NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": _mlp,
    "encoder": _encoder,
    "pieces": _pieces,
    "several calls": _several_calls,
    **{f"random {seed}": lambda seed=seed: _random(seed) for seed in (11, 12, 13)},  # type: ignore[misc]
}


def _model(name: str, folder: Path) -> onnx.ModelProto:
    if name == "attention":
        path = attention_block(folder / "m.onnx")
    else:
        graph, inputs, outputs = NETWORKS[name]()
        path = graph.save(folder / "m.onnx", inputs, outputs)
    return onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)


def _feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _all_values(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ONNX Runtime's value of every name in the graph, without its own fusion."""
    import onnxruntime

    every = onnx.ModelProto()
    every.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del every.graph.output[:]
    every.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(every.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, feeds), strict=True))


def _computed(lowered: Lowered, feeds: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Every tensor that the calls of the generated C leave, by its name in the program."""
    names = [n for n, t in lowered.tensors.items() if t.data is None and n not in lowered.inputs]
    ports = {n: Port(n, n, lowered.tensors[n].type.shape) for n in (*lowered.inputs, *names)}
    program = Program(
        "names",
        lowered.tensors,
        lowered.calls,
        [ports[n] for n in lowered.inputs],
        [ports[n] for n in names],
        [],
        lowered.functions,
    )
    target = load_target("host-c")
    implementations = select_kernels(program, target.cpu.features, "auto")
    plan, state, weights = place_in_memories(program, implementations, target)
    built = Built(program, implementations, plan, state, target, weights)
    folder.mkdir()
    build(built, Model(onnx.ModelProto(), program.name, "0" * 64), folder)
    with open_runner(folder, "host-c", target, symbol=f"{built.prefix}_run") as runner:
        results = runner.run([feeds[n].tobytes() for n in lowered.inputs])
    return {
        n: np.frombuffer(result, np.float32).reshape(ports[n].onnx_shape)
        for n, result in zip(names, results, strict=True)
    }


CASES = ["attention", *NETWORKS]


@pytest.mark.parametrize("case", CASES)
def test_a_tensor_holds_the_onnx_value_of_its_name(case: str, tmp_path: Path) -> None:
    model = _model(case, tmp_path)
    feeds = _feeds(model)
    lowered, wanted = through_tvm(model), _all_values(model, feeds)
    found = _computed(lowered, feeds, tmp_path / "out")
    for name in wanted.keys() & found.keys():
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-5, atol=2e-5, err_msg=name)
    # Only what a node makes on its way to its result has no name in the graph.
    assert all(".part" in name for name in found.keys() - wanted.keys())
    assert {name for call in lowered.calls for name in call.outputs} <= found.keys()


@pytest.mark.parametrize("case", CASES)
def test_a_call_reads_what_its_nodes_read(case: str, tmp_path: Path) -> None:
    """The nodes of a call read, apart from constants and each other's results, exactly the call's operands."""
    model = _model(case, tmp_path)
    lowered = through_tvm(model)
    order = {node.name: i for i, node in enumerate(model.graph.node)}
    maker = {name: node for node in model.graph.node for name in node.output}
    parts = {c.name for c in lowered.calls if any(".part" in n for n in (*c.inputs, *c.outputs))}
    computed: list[str] = []
    for call in lowered.calls:
        names = call.name.split("+")
        assert len(set(names)) == len(names)
        if call.name in parts:
            assert set(names) <= set(order)
            continue
        computed += names
        nodes = [model.graph.node[order[name]] for name in names]
        assert set(call.outputs) == set(nodes[-1].output)
        inside: set[str] = set()
        operands: set[str] = set()
        for node in nodes:
            operands |= {name for name in node.input if name not in inside}
            inside |= set(node.output)
        assert operands.isdisjoint(inside), f"{call.name}: not in order"
        activations = {n for n in operands if n in maker or n in lowered.inputs}
        assert {n for n in call.inputs if lowered.tensors[n].data is None} == activations, call.name
    assert len(set(computed)) == len(computed), "a node is computed twice"
    apart = {name for call in parts for name in call.split("+")}
    views = {maker[n].name for n, t in lowered.tensors.items() if t.view_of is not None and n in maker}
    none = {n.name for n in model.graph.node if n.op_type == "Identity"}
    assert set(computed) | apart | views | none == set(order)


def test_layers_of_one_structure_share_a_function_and_keep_their_names(tmp_path: Path) -> None:
    calls = through_tvm(_model("mlp", tmp_path)).calls
    assert [call.name for call in calls] == [
        "matmul0+add1+gelu2", "matmul3+add4+gelu5", "matmul6+add7+gelu8", "matmul9+add10",
    ]  # fmt: skip
    assert [call.outputs for call in calls] == [("t2",), ("t5",), ("t8",), ("y",)]
    assert calls[0].function == calls[2].function


def test_functions_of_different_weights_have_different_names() -> None:
    """Two convolutions over rings of one shape: calls of one name would share the code of the first."""
    ring, cursor, vector = TensorType((1, 6, 2), "int8"), TensorType((1,), "int32"), TensorType((5,), "int32")
    names = set()
    for taps in (1, 2, 3):
        weights = TensorType((5, taps, 2), "int8")
        types = [ring, cursor, weights, vector, vector, TensorType((5,), "uint8"), TensorType((1,), "int32")]
        names.add(function_name(get_operator("causal_conv1d_s8"), types, {"dilation": 1, "wide": 0}))
    assert len(names) == 3
    assert all("1x6x2" in name for name in names)
