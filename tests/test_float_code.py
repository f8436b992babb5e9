# SPDX-License-Identifier: Apache-2.0
"""C that TVM generates for float nodes: the same bits on host and board, in place only where that is safe, inlined."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgec.compile import Options, compile_model, make_program
from edgec.device.port import with_board_math
from edgec.device.toolchain import Source, build_host_library
from edgec.emit.constants import prototype
from edgec.model import Model, StatePair
from edgec.program import GeneratedFunction, Program
from edgec.run import run_artifact
from edgec.target import load_target
from edgec.tvm_bridge import codegen_c
from edgec.tvm_bridge.in_place import replaceable

WIDTH = 24
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 1e-40, -1e-40, 3e38, -3e38, 0.5], np.float32)


class Net:
    """Standard nodes on one input x [1, WIDTH]."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.rng = np.random.default_rng(0)

    def const(self, value: object, dtype: type = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def op(self, op: str, *inputs: str, **attrs: object) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attrs))
        return name

    def out(self, name: str, *shape: int) -> None:
        self.outputs[name] = shape or (1, WIDTH)

    def model(self, states: dict[str, tuple[int, ...]] | None = None) -> Model:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(n, 1, s) for n, s in {"x": (1, WIDTH), **(states or {})}.items()],
            [helper.make_tensor_value_info(n, 1, s) for n, s in self.outputs.items()],
            self.constants,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return Model(onnx.shape_inference.infer_shapes(proto), "net", "0" * 64)


def functions_of_the_library() -> Model:
    net = Net()
    wide = net.op("Mul", "x", net.const(3.0))
    positive = net.op("Add", net.op("Abs", wide), net.const(1e-3))
    for kind in "Exp Erf Tanh Sin Cos Sigmoid Gelu Elu Softplus Mish Floor Round Relu".split():
        net.out(net.op(kind, wide))
    for kind in "Log Sqrt Reciprocal".split():
        net.out(net.op(kind, positive))
    for exponent in (0.3, 2.0, 3.0, -1.0):
        net.out(net.op("Pow", positive, net.const(exponent)))
    net.out(net.op("Pow", net.const(2.0), wide))  # which a compiler likes to make exp2f of
    for kind in ("Softmax", "LogSoftmax"):
        net.out(net.op(kind, wide, axis=-1))
    scale, bias = (net.const(net.rng.normal(size=WIDTH)) for _ in range(2))
    net.out(net.op("LayerNormalization", wide, scale, bias, axis=-1))
    for kind in ("ReduceMean", "ReduceSum", "ReduceL2"):
        net.out(net.op(kind, wide, net.const([1], np.int64), keepdims=1), 1, 1)
    net.out(net.op("MatMul", wide, net.const(net.rng.normal(size=(WIDTH, WIDTH)))))
    for kind in ("Max", "Min", "Div"):
        net.out(net.op(kind, wide, positive))
    total = net.op("Add", net.op("Mul", "s", net.const(0.9)), net.op("Tanh", wide))
    net.out(total)
    model = net.model({"s": (1, WIDTH)})
    model.states = (StatePair("s", total),)  # a program with state runs as it is: no search for an order
    return model


def unlike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where bits differ; those of NaN are the processor's choice."""
    return (a.view(np.uint32) != b.view(np.uint32)) & ~(np.isnan(a) & np.isnan(b))


def test_host_and_board_compute_floats_in_the_same_bits(tmp_path: Path) -> None:
    """Exponentials, powers, divisions, sums in order, normalization: with libm the host would differ in most."""
    artifact = compile_model(functions_of_the_library(), load_target("stm32f746"), tmp_path / "a", Options("float32"))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, WIDTH)) * rng.choice([0.1, 1.0, 30.0], (40, 1))
    x = np.concatenate([x, np.resize(SPECIAL, (2, WIDTH))]).astype(np.float32)[:, None]
    host, board = (run_artifact(artifact, {"x": x}, runner, raw=True) for runner in ("host-c", "sim"))
    for name, values in host.items():
        assert np.isfinite(values[:40]).mean() > 0.9, name
        assert not unlike(values, board[name]).any(), name
    libm = np.exp(x[:40, 0] * np.float32(3)).astype(np.float32)
    first = next(n for n in host if n.startswith("Exp"))
    assert unlike(host[first][:40].reshape(libm.shape), libm).any()  # or the test could not fail


def test_a_computer_has_functions_that_boards_have_not(tmp_path: Path) -> None:
    net = Net()
    results = {net.op(kind, "x"): f for kind, f in (("Atan", np.arctan), ("Sinh", np.sinh), ("Exp", np.exp))}
    for name in results:
        net.out(name)
    artifact = compile_model(net.model(), load_target("host-c"), tmp_path / "a", Options("float32"))
    x = np.random.default_rng(2).normal(size=(3, 1, WIDTH)).astype(np.float32)
    for name, values in run_artifact(artifact, {"x": x}).items():
        np.testing.assert_allclose(values, results[name](x), rtol=1e-6)


def elementwise_chains() -> Model:
    net = Net()
    wide = net.op("Mul", "x", net.const(3.0))
    net.out(net.op("Add", net.op("Exp", net.op("Sub", wide, net.const(0.5))), "s"))
    net.out(net.op("Mul", net.op("Add", "s", wide), net.op("Sigmoid", "s")))
    column = net.op("Reshape", wide, net.const([WIDTH, 1], np.int64))
    net.out(net.op("Add", "m", net.op("MatMul", column, wide)), WIDTH, WIDTH)  # an outer product
    net.out(net.op("Sub", net.op("Mul", "m", column), net.op("Tanh", "m")), WIDTH, WIDTH)
    net.out(net.op("Softmax", net.op("Add", "s", wide), axis=-1))
    net.out(net.op("MatMul", net.op("Tanh", wide), net.op("Add", "m", net.const(1.0))))
    net.out(net.op("ReduceSum", net.op("Mul", "m", "m"), net.const([1], np.int64), keepdims=0), WIDTH)
    net.out(net.op("Concat", net.op("Neg", "s"), net.op("Exp", wide), axis=1), 1, 2 * WIDTH)
    net.out(net.op("Transpose", net.op("Mul", "m", net.const(2.0)), perm=[1, 0]), WIDTH, WIDTH)
    net.out(net.op("CumSum", "s", net.const(1, np.int64)))
    return net.model({"s": (1, WIDTH), "m": (WIDTH, WIDTH)})


class Library:
    """The generated functions of a program as a host library."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        text = "".join(f"{prototype('t', f)} {f.body}\n" for f in program.functions.values())
        folder.mkdir()
        (folder / "t.c").write_text(f"#include <math.h>\n#include <stdbool.h>\n#include <stdint.h>\n{text}")
        sources = with_board_math([Source(folder / "t.c", "model", warnings=False)])
        self._library = ctypes.CDLL(str(build_host_library(sources, [], folder)))

    def call(self, function: GeneratedFunction, arrays: list[np.ndarray]) -> None:
        scratch = [np.zeros(size, np.uint8) for size in function.workspaces]
        getattr(self._library, f"t_{function.name}")(*(ctypes.c_void_p(a.ctypes.data) for a in (*arrays, *scratch)))


def calls_with_values(program: Program) -> list[tuple[GeneratedFunction, list[np.ndarray]]]:
    rng, found = np.random.default_rng(3), []
    for call in program.calls:
        arrays = []
        for name in (*call.inputs, *call.outputs):
            tensor = program.tensors[program.root(name)]
            kind = program.tensors[name].type
            values = rng.normal(size=kind.shape).astype(kind.dtype) if tensor.data is None else tensor.data.copy()
            arrays.append(np.ascontiguousarray(values))
        found.append((program.functions[call.function], arrays))
    return found


def test_a_result_replaces_what_the_code_says_it_may(tmp_path: Path) -> None:
    program = make_program(elementwise_chains(), Options("float32"))
    library = Library(program, tmp_path / "lib")
    tried = 0
    for function, arrays in calls_with_values(program):
        library.call(function, arrays)
        wanted = arrays[-1].copy()
        for index in function.in_place:
            again = [a.copy() for a in arrays]
            again[-1] = again[index]
            library.call(function, again)
            assert not unlike(again[-1].ravel(), wanted.ravel()).any(), (function.name, index)
            tried += 1
    assert tried >= 4
    whole = [f for f in program.functions.values() if not f.in_place]
    assert whole  # softmax, products, transposes


def test_inlining_changes_no_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inlined = make_program(elementwise_chains(), Options("float32"))
    monkeypatch.setattr(codegen_c, "inlined", lambda function: function)
    apart = make_program(elementwise_chains(), Options("float32"))
    assert [c.function for c in inlined.calls] == [c.function for c in apart.calls]
    libraries = [Library(p, tmp_path / str(i)) for i, p in enumerate((inlined, apart))]
    fewer = 0
    for (function, arrays), (other, same) in zip(calls_with_values(inlined), calls_with_values(apart), strict=True):
        libraries[0].call(function, arrays)
        libraries[1].call(other, same)
        assert not unlike(arrays[-1].ravel(), same[-1].ravel()).any(), function.name
        fewer += sum(function.workspaces) < sum(other.workspaces)
    assert fewer >= 2


LOOP = "{{\n  for (int32_t i = 0; i < 8; ++i) {{\n{}  }}\n}}"
PAIR = (("float", "a", True), ("float", "b", True), ("float", "y", False))


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ("    y[i] = (a[i] + b[0]);\n", (0,)),
        ("    int32_t i1_ = (i * 1);\n    y[i1_] = (a[i1_] * b[i1_]);\n", (0, 1)),
        ("    y[i] = (a[i] + a[(7 - i)] + b[0]);\n", ()),  # reads what is written already
        ("    y[i] = (a[((i + 1) & 7)] + b[i]);\n", (1,)),
        ("    y[i] = y[i];\n", ()),  # a sum
        ("    y[i] = a[i];\n    y[i] = b[i];\n", ()),
        ("    if (i == 0) {\n      y[i] = a[i];\n    }\n", ()),
        ("    for (int32_t j = 0; j < 2; ++j) {\n      y[i] = a[i];\n    }\n", ()),  # written twice
        ("    int32_t k = 1;\n  }\n  for (int32_t j = 0; j < 8; ++j) {\n    int32_t k = 2;\n    y[k] = a[k];\n", ()),
        ("    y[i] = a[i];\n  }\n  for (int32_t j = 0; j < 8; ++j) {\n    f(a[j], b);\n", ()),  # read afterwards
        ("    y[i] = f(a, b);\n", ()),
    ],
)
def test_what_may_be_replaced_is_read_off_the_code(lines: str, wanted: tuple[int, ...]) -> None:
    assert replaceable(PAIR, (8, 8, 8), LOOP.format(lines)) == wanted


def test_only_an_array_of_the_same_kind_and_size_is_replaced() -> None:
    body = LOOP.format("    y[i] = (a[i] + b[i]);\n")
    assert replaceable(PAIR, (8, 4, 8), body) == (0,)
    assert replaceable((("int32_t", "a", True), *PAIR[1:]), (8, 8, 8), body) == (1,)
    assert replaceable(PAIR, (16, 16, 16), body) == ()  # not all of it is written
    assert replaceable((*PAIR, ("float", "workspace_0", False)), (8, 8, 8, 8), body) == ()
