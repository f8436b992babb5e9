# SPDX-License-Identifier: Apache-2.0
"""Random convolutional, attention and recurrent graphs in int8, operator by operator against ONNX Runtime.

The integer program is evaluated with its definitions; wherever ONNX Runtime has a quantized value for a call's result,
the two are compared and the runtime's value is what the next calls read, so that every operator is judged alone.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.compile import Options, make_program, prepare
from edgec.errors import UnsupportedError
from edgec.model import Model, load_model
from edgec.operators import get_operator
from edgec.operators.integer import quantize_real
from edgec.program import Program, evaluate
from edgec.quantize.calibrate import run_stream
from tests.random_graphs import RandomGraph
from tests.together import run_together

AT_ONCE = 10
LARGEST = 1  # steps
SHARE = 0.01  # of all compared elements may differ


def _quantized_names(proto: onnx.ModelProto, made: Collection[str]) -> dict[str, str]:
    """Float value -> its quantized form, also through followers that the program (with tensors `made`) has fused."""
    quantized = {n.input[0]: n.output[0] for n in proto.graph.node if n.op_type == "QuantizeLinear"}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = {}
    for node in proto.graph.node:
        name = node.output[0]
        fused = {"Relu", "Clip", "Mul"} if node.op_type in ("Gemm", "Conv", "ConvTranspose", "MatMul", "Add") else set()
        while name not in quantized and len(users.get(name, [])) == 1 and users[name][0].op_type in fused:
            name = users[name][0].output[0]
        if name in quantized and name not in made:  # else a table of its own does what follows
            found[node.output[0]] = quantized[name]
    return found | quantized


def _as_stored(array: np.ndarray, like: np.ndarray) -> np.ndarray | None:
    """ONNX Runtime's value in the order in which the program stores it, or None.

    That is its own, channels-last, or heads behind tokens.
    """
    if array.size != like.size:
        return None
    orders = [array, np.moveaxis(array, 1, -1), np.swapaxes(array, -3, -2)] if array.ndim > 2 else [array]
    flat = [np.ascontiguousarray(a).reshape(like.shape) for a in orders]
    return min(flat, key=lambda a: int(np.abs(a.astype(np.int64) - like).sum()))


def _judge(program: Program, model: Model, feeds: dict[str, np.ndarray], seed: int) -> tuple[int, int]:
    """(elements that differ, elements compared) over all calls that ONNX Runtime can judge."""
    names = _quantized_names(model.proto, program.tensors)
    (runtime,) = run_stream(model, feeds, sorted(set(names.values())))
    env = {n: t.data for n, t in program.tensors.items() if t.data is not None}
    for port in program.inputs:
        env[port.tensor] = _device(program, port.name, feeds[port.name][0])

    def value(name: str) -> np.ndarray:
        tensor = program.tensors[name]
        return env[name] if name in env else value(str(tensor.view_of)).reshape(tensor.type.shape)

    makers: dict[str, str] = {}
    apart = compared = 0
    for call in program.calls:
        name = call.outputs[0]
        result = env[name] = get_operator(call.op).run([value(n) for n in call.inputs], call.attrs)
        makers[name] = call.op
        requantized = name.endswith(".requantized")
        if requantized and "softmax" not in makers.get(call.inputs[0].removesuffix(".view"), ""):
            continue  # an operand brought to the scale of a Concat: the runtime has no value for it
        wanted = names.get(name.removesuffix(".requantized").removesuffix(".rows"))  # in the rows of a fused call
        if wanted is None or result.dtype != np.int8:
            continue
        if not requantized and f"{name}.requantized" in program.tensors and "softmax" in call.op:
            continue  # not yet in the scale that was asked for
        exact = _as_stored(runtime[wanted], result)
        if exact is None or exact.dtype != np.int8:
            continue
        difference = np.abs(result.astype(np.int64) - exact)
        assert difference.max(initial=0) <= LARGEST, (seed, call.name, call.op, int(difference.max()))
        apart, compared = apart + int((difference > 0).sum()), compared + difference.size
        env[name] = exact
    assert compared > 0, seed
    return apart, compared


def _device(program: Program, name: str, real: np.ndarray) -> np.ndarray:
    port = next(p for p in program.inputs if p.name == name)
    moved = np.ascontiguousarray(real.transpose(port.layout) if port.layout else real)
    assert port.quantization is not None
    return quantize_real(moved, port.quantization.scale, port.quantization.zero_point)


def _check(seeds: range, folder: Path) -> None:
    work, wanted = [], []
    apart = compared = 0
    for seed in seeds:
        path = folder / f"{seed}.onnx"
        inputs = RandomGraph(seed).build(path)
        rng = np.random.default_rng(seed)
        samples = {n: rng.normal(size=(8, *s)).astype(np.float32) for n, s in inputs.items()}
        try:
            model = prepare(load_model(path), Options(calibration=samples))
        except UnsupportedError as error:
            if "Resize" not in str(error):  # linear and cubic ones have no integer form
                raise
            continue
        program = make_program(model, Options())
        first = {n: a[:1] for n, a in samples.items()}
        found = _judge(program, model, first, seed)
        apart, compared = apart + found[0], compared + found[1]
        given = {n: _device(program, n, a[0]) for n, a in first.items()}
        values = evaluate(program, {p.tensor: given[p.name] for p in program.inputs})
        wanted.append((seed, {p.name: values[p.tensor] for p in program.outputs}))
        # `run_together` moves the axes of an input itself.
        work.append((program, {p.name: _onnx_order(given[p.name], p.layout) for p in program.inputs}))
    for results, (seed, exact) in zip(run_together(work, folder / "run"), wanted, strict=True):
        for name, array in exact.items():
            np.testing.assert_array_equal(results[name].ravel(), array.ravel(), err_msg=f"{seed} {name}")
    print(f"\n{compared:,} elements compared, {apart:,} differ by one step")
    assert apart <= SHARE * compared


def _onnx_order(array: np.ndarray, layout: tuple[int, ...]) -> np.ndarray:
    return array.transpose(np.argsort(layout)) if layout else array


def test_every_operator_of_some_random_graphs(tmp_path: Path) -> None:
    _check(range(5), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 150, AT_ONCE))
def test_every_operator_of_random_graphs(tmp_path: Path, first: int) -> None:
    _check(range(first, first + AT_ONCE), tmp_path)
