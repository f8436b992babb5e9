# SPDX-License-Identifier: Apache-2.0
"""The ONNX project's own node tests through the float32 road: each compiled, many linked into one host library.

Some of these tests hand in at run time what a model has as a constant (the target of a Reshape, the axes of a sum,
the weights of an LSTM). `baked` makes those inputs initializers, with the values of the test, before anything else:
`ATTRIBUTE_LIKE` says which. A compiled program has static shapes and could not take them otherwise.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgec.build import build
from edgec.compile import Options, make_program
from edgec.device.runner import open_runner
from edgec.emit.model import Built
from edgec.errors import DeviceError, UnsupportedError, UsageError
from edgec.kernels.select import select_kernels
from edgec.model import Model, load_model
from edgec.program import Call, Port, Program, Tensor
from edgec.schedule.memories import place_in_memories
from edgec.target import Target

_ALL = tuple(range(16))
ATTRIBUTE_LIKE: dict[str, Sequence[int]] = {
    # Shapes, axes, counts: integers that exporters write as constants and that decide the shape of the result.
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "Slice": (1, 2, 3, 4), "Pad": (1, 2, 3), "Squeeze": (1,),
    "Unsqueeze": (1,), "Split": (1,), "Resize": (1, 2, 3), "Upsample": (1,), "TopK": (1,), "ConstantOfShape": (0,),
    "Range": (0, 1, 2), "OneHot": (1, 2), "CumSum": (1,), "CumProd": (1,), "Trilu": (1,), "CenterCropPad": (1,),
    "Col2Im": (1, 2), "AffineGrid": (1,), "DFT": (1, 2), "Dropout": (1, 2), "SplitToSequence": (1,),
    "MaxUnpool": (2,), "EyeLike": (), "Clip": (1, 2), "NonMaxSuppression": (2, 3, 4),
    **dict.fromkeys(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                     "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"], (1,)),
    # Windows and spectra that depend on constants alone.
    **dict.fromkeys(["BlackmanWindow", "HannWindow", "HammingWindow", "MelWeightMatrix"], _ALL),
    # Scales and zero points of quantized values; weights of recurrent layers.
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7), "QLinearMatMul": (1, 2, 4, 5, 6, 7), "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3), "GRU": (1, 2, 3, 4), "LSTM": (1, 2, 3, 4, 7), "RNN": (1, 2, 3, 4),
}  # fmt: skip
"""Inputs of each operator that are made constants, by position."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test: "passed", "unsupported" (with the error's first sentence), "wrong" or "crashed"."""

    name: str
    kind: str
    told: str = ""


def node_tests() -> list[Any]:
    """The test cases of the onnx wheel: name, model, data sets, tolerances."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in load_model_tests(kind="node") if case.model is not None]


def baked(case: Any) -> onnx.ModelProto:
    """The model with its attribute-like inputs as initializers."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    values = {i.name: v for i, v in zip(case.model.graph.input, case.data_sets[0][0], strict=False)}
    chosen = {
        name
        for node in proto.graph.node
        for index, name in enumerate(node.input)
        if name in values and index in ATTRIBUTE_LIKE.get(node.op_type, ())
    }
    kept = [i for i in case.model.graph.input if i.name not in chosen]
    if not chosen or not all(isinstance(values[name], np.ndarray | np.generic) for name in chosen):
        return proto
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(values[n]), n) for n in sorted(chosen))
    return proto


def compiled(case: Any, folder: Path) -> Program | Outcome:
    """The float32 program of a test, or why there is none."""
    file = folder / "model.onnx"
    file.write_bytes(baked(case).SerializeToString())
    try:
        return make_program(load_model(file), Options(precision="float32"))
    except (UnsupportedError, UsageError) as error:
        return Outcome(case.name, "unsupported", str(error))
    except Exception as error:
        return Outcome(case.name, "crashed", f"{type(error).__name__}: {error}")


def run_all(cases: Sequence[Any], target: Target, folder: Path, size: int = 40) -> list[Outcome]:
    """The outcome of every test, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    ready: list[tuple[Any, Program]] = []
    for case in cases:
        result = compiled(case, folder)
        if isinstance(result, Outcome):
            outcomes[case.name] = result
        else:
            ready.append((case, result))
    for start in range(0, len(ready), size):
        outcomes |= {o.name: o for o in _run(ready[start : start + size], target, folder / str(start))}
    return [outcomes[case.name] for case in cases]


def _run(work: Sequence[tuple[Any, Program]], target: Target, folder: Path) -> Iterable[Outcome]:
    try:
        results = _outputs(work, target, folder)
    except DeviceError as error:
        if len(work) == 1:
            return [Outcome(work[0][0].name, "crashed", f"C: {error}")]
        half = len(work) // 2  # whose C is it?
        return [*_run(work[:half], target, folder / "a"), *_run(work[half:], target, folder / "b")]
    return [_judge(case, outputs) for (case, _), outputs in zip(work, results, strict=True)]


def _judge(case: Any, outputs: Sequence[np.ndarray]) -> Outcome:
    for name, got, wanted in zip(case.model.graph.output, outputs, case.data_sets[0][1], strict=True):
        wanted = np.asarray(wanted)
        if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
            told = f"{name.name}: {got.dtype}{list(got.shape)} instead of {wanted.dtype}{list(wanted.shape)}"
            return Outcome(case.name, "wrong", told)
        try:
            np.testing.assert_allclose(got, wanted, rtol=case.rtol, atol=case.atol)
        except AssertionError as error:
            return Outcome(case.name, "wrong", f"{name.name}: {str(error).split(chr(10), 2)[-1]}")
    return Outcome(case.name, "passed")


def _outputs(work: Sequence[tuple[Any, Program]], target: Target, folder: Path) -> list[list[np.ndarray]]:
    """All programs as one, run once: the outputs of each."""
    merged = Program("cases", {}, [], [], [], [])
    feeds: list[bytes] = []
    for number, (case, program) in enumerate(work):
        _append(merged, program, f"{number}.")
        given = {i.name: v for i, v in zip(case.model.graph.input, case.data_sets[0][0], strict=False)}
        for port in program.inputs:
            array = np.asarray(given[port.name], program.tensors[port.tensor].type.dtype)
            feeds.append(np.ascontiguousarray(array.transpose(port.layout) if port.layout else array).tobytes())
    implementations = select_kernels(merged, target.cpu.features, "tvm")
    plan, state, weights = place_in_memories(merged, implementations, target)
    built = Built(merged, implementations, plan, state, target, weights)
    folder.mkdir(parents=True, exist_ok=True)
    build(built, Model(onnx.ModelProto(), merged.name, "0" * 64), folder)
    with open_runner(folder, "host-c", target, symbol=f"{built.prefix}_run") as runner:
        results = iter(runner.run(feeds))
    return [
        [
            np.frombuffer(next(results), program.tensors[p.tensor].type.dtype).reshape(p.onnx_shape)
            for p in program.outputs
        ]
        for _, program in work
    ]


def _append(merged: Program, program: Program, prefix: str) -> None:
    """Everything of `program` under names of its own."""

    def ports(given: Sequence[Port]) -> list[Port]:
        return [dataclasses.replace(p, name=prefix + p.name, tensor=prefix + p.tensor) for p in given]

    for t in program.tensors.values():
        view = None if t.view_of is None else prefix + t.view_of
        merged.tensors[prefix + t.name] = Tensor(prefix + t.name, t.type, t.data, view)
    for call in program.calls:
        operands = tuple(prefix + n for n in call.inputs), tuple(prefix + n for n in call.outputs)
        function = f"f{prefix}{call.function}".replace(".", "_")
        merged.calls.append(Call(prefix + call.name, call.op, function, *operands, call.attrs))
    for f in program.functions.values():
        name = f"f{prefix}{f.name}".replace(".", "_")
        merged.functions[name] = dataclasses.replace(f, name=name)
    merged.inputs += ports(program.inputs)
    merged.outputs += ports(program.outputs)
