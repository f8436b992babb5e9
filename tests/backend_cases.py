# SPDX-License-Identifier: Apache-2.0
"""The ONNX project's own node tests through the float32 road: each compiled, many linked into one host library.

Some of these tests hand in at run time what a model has as a constant (the target of a Reshape, the axes of a sum,
the weights of an LSTM). `baked` makes those inputs initializers, with the values of the test, before anything else:
`ATTRIBUTE_LIKE` says which. A compiled program has static shapes and could not take them otherwise.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgec.compile import Options, make_program
from edgec.errors import UnsupportedError, UsageError
from edgec.model import load_model
from edgec.model_file import MIN_OPSET
from edgec.program import C_TYPES, Program
from tests.together import run_together

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


LISTED = frozenset(
    """Add ArgMax Attention AveragePool BatchNormalization Clip Concat Conv ConvTranspose CumSum Div Einsum Expand GRU
    Gather Gelu Gemm GlobalAveragePool GlobalMaxPool HardSwish LSTM LayerNormalization MatMul MaxPool Mul Pad
    RMSNormalization ReduceMax ReduceMean ReduceSum Relu Reshape Resize Sigmoid Slice Softmax Split Squeeze Sub Swish
    Tanh TopK Transpose Unsqueeze Where""".split()
)
"""Operators whose tests all pass, but for the stated variants."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test: "passed", "unsupported" (with the error's first sentence), "wrong" or "crashed"."""

    name: str
    kind: str
    told: str = ""


def node_tests() -> list[Any]:
    """The test cases of the onnx wheel: name, model, data sets, tolerances.

    Of some listed operators (Einsum, CumSum) ONNX tests float64 alone: those tests are there again in float32.
    """
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for case in load_model_tests(kind="node") if case.model is not None]
    double = [c for c in cases if foreign_types(c) == {"float64"} and operator_of(c) in LISTED]
    return cases + [_in_float32(case) for case in double]


def _in_float32(case: Any) -> Any:
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT

    def single(values: Sequence[Any]) -> list[Any]:
        return [np.asarray(v, np.float32) if np.asarray(v).dtype == np.float64 else v for v in values]

    data = [(single(given), single(wanted)) for given, wanted in case.data_sets]
    return dataclasses.replace(case, name=f"{case.name}_in_float32", model=proto, data_sets=data)


def operator_of(case: Any) -> str:
    """The operator that a test is about; of an expanded test, the one that was expanded."""
    nodes = case.model.graph.node
    if "_expanded" not in case.name:
        return str(nodes[0].op_type)
    name = next((n.output[0] for n in nodes if "_function_" in n.output[0]), "")
    return name.partition("_test_")[0] or str(nodes[0].op_type)


def foreign_types(case: Any) -> set[str]:
    """Types of inputs and outputs that no C program holds, strings, sequences and optional values among them."""
    found = set()
    for value in (*case.model.graph.input, *case.model.graph.output):
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            found.add(str(kind).removesuffix("_type"))
            continue
        number = value.type.tensor_type.elem_type
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(number)) if number != TensorProto.STRING else "string"
        if dtype not in C_TYPES:
            found.add(dtype)
    return found


def baked(case: Any) -> onnx.ModelProto:
    """The model with its attribute-like inputs as initializers."""
    proto = _relabelled(case.model)
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


def _relabelled(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy, of opset 13 where the test names an older one in which its operators are the same."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for opset in proto.opset_import:
        if (
            opset.domain == ""
            and opset.version < MIN_OPSET
            and all(_since(n.op_type, opset.version) == _since(n.op_type, MIN_OPSET) for n in proto.graph.node)
        ):
            opset.version = MIN_OPSET
    return proto


def _since(op_type: str, opset: int) -> int:
    return int(onnx.defs.get_schema(op_type, max_inclusive_version=opset).since_version)


def compiled(case: Any, folder: Path) -> Program | Outcome:
    """The float32 program of a test, or why there is none."""
    model = baked(case)
    values = dict(zip((i.name for i in case.model.graph.input), case.data_sets[0][0], strict=False))
    if any(isinstance(values.get(i.name), np.ndarray) and values[i.name].size == 0 for i in model.graph.input):
        # A dimension of 0 in a file means an open one to the front door, so this is no model of no elements.
        return Outcome(case.name, "unsupported", "an input has no elements")
    file = folder / "model.onnx"
    file.write_bytes(model.SerializeToString())
    try:
        return make_program(load_model(file), Options(precision="float32"))
    except (UnsupportedError, UsageError) as error:
        return Outcome(case.name, "unsupported", str(error))
    except Exception as error:
        return Outcome(case.name, "crashed", f"{type(error).__name__}: {error}")


def run_all(cases: Sequence[Any], folder: Path, size: int = 40) -> list[Outcome]:
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
        outcomes |= {o.name: o for o in _run(ready[start : start + size], folder / str(start))}
    return [outcomes[case.name] for case in cases]


def _run(work: Sequence[tuple[Any, Program]], folder: Path) -> list[Outcome]:
    """Compile, run and judge; where that fails for all together, halves tell whose fault it is."""
    feeds = [
        dict(zip((i.name for i in case.model.graph.input), case.data_sets[0][0], strict=False)) for case, _ in work
    ]
    try:
        results = run_together([(p, f) for (_, p), f in zip(work, feeds, strict=True)], folder)
    except Exception as error:
        if len(work) == 1:
            return [Outcome(work[0][0].name, "crashed", f"{type(error).__name__}: {error}")]
        half = len(work) // 2
        return [*_run(work[:half], folder.with_name(f"{folder.name}a")),
                *_run(work[half:], folder.with_name(f"{folder.name}b"))]  # fmt: skip
    return [_judge(case, outputs) for (case, _), outputs in zip(work, results, strict=True)]


def _judge(case: Any, outputs: Mapping[str, np.ndarray]) -> Outcome:
    for info, wanted in zip(case.model.graph.output, map(np.asarray, case.data_sets[0][1]), strict=True):
        got = outputs[info.name]
        if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
            told = f"{info.name}: {got.dtype}{list(got.shape)} instead of {wanted.dtype}{list(wanted.shape)}"
            return Outcome(case.name, "wrong", told)
        try:
            np.testing.assert_allclose(got, wanted, rtol=case.rtol, atol=case.atol)
        except AssertionError as error:
            return Outcome(case.name, "wrong", f"{info.name}: {str(error).split(chr(10), 2)[-1]}")
    return Outcome(case.name, "passed")
