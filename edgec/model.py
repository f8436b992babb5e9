# SPDX-License-Identifier: Apache-2.0
"""The Model: an ONNX graph with static shapes and a state contract, and the safe way to and from a file."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgec.errors import UnsupportedError, UsageError
from edgec.model_file import MAX_MODEL_BYTES, check_valid, read_model_file

PRIVATE_KEYS = ("edgec.interface", "edgec.layout")
"""Keys of metadata that phases of the compiler hand to each other; what a file says there is not believed."""

FLOAT_KEY = "edgec.float"
"""Key of the list of nodes of a quantized model that compute in float32; the value is a JSON list of node names."""

STATE_KEY = "edgec.state"
"""Key of the state contract in an ONNX file's metadata_props; the value is a JSON list of pairs."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: its ONNX name, its static shape (batch included) and its NumPy dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class StatePair:
    """A model input that is state, the output that replaces it after a run, and the real value of a reset."""

    input: str
    output: str
    reset: float = 0.0


@dataclass
class Model:
    """An ONNX model with its state contract.

    Attributes:
        proto: the graph; inputs have static shapes.
        name: a short name for people (file stem); may hold any character.
        sha256: hash of the file the model came from, in hexadecimal.
        states: the state contract, empty for a model without memory.
        notes: what was decided on the way (a batch fixed, a rule that declined and why), for people.
    """

    proto: onnx.ModelProto
    name: str
    sha256: str
    states: tuple[StatePair, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> list[TensorInfo]:
        """The inputs that a caller gives: without the state ones."""
        states = {s.input for s in self.states}
        return [t for t in _infos(self.proto.graph.input) if t.name not in states]

    @property
    def outputs(self) -> list[TensorInfo]:
        """The outputs that a caller reads: without the state ones."""
        states = {s.output for s in self.states}
        return [t for t in _infos(self.proto.graph.output) if t.name not in states]

    @property
    def state_inputs(self) -> list[TensorInfo]:
        """The state inputs, in the order of `states`."""
        infos = {t.name: t for t in _infos(self.proto.graph.input)}
        return [infos[s.input] for s in self.states]

    @property
    def state_outputs(self) -> list[TensorInfo]:
        """The state outputs, in the order of `states`."""
        infos = {t.name: t for t in _infos(self.proto.graph.output)}
        return [infos[s.output] for s in self.states]

    def histogram(self) -> dict[str, int]:
        """How many nodes of each operator the graph has, most frequent first."""
        return dict(Counter(node.op_type for node in self.proto.graph.node).most_common())

    def macs(self) -> int:
        """Multiply-accumulates of one run: Gemm, MatMul and Conv of the canonical graph (static shapes)."""
        return sum(node_macs(node, shapes) for shapes in [value_shapes(self.proto)] for node in self.proto.graph.node)


def value_shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Static shape of every value that has one: initializers, inputs, outputs and value_info."""
    graph = proto.graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shape = _static_shape(value)
        if shape is not None:
            shapes.setdefault(value.name, shape)
    return shapes


def load_model(
    path: Path, *, states: Sequence[str] = (), input_shapes: Mapping[str, Sequence[int]] | None = None
) -> Model:
    """Read an ONNX file safely and fix its shapes.

    Args:
        path: the file; external data must lie in its folder.
        states: pairs "input:output" beside those that the file's metadata declares.
        input_shapes: shapes of inputs by name, batch included, for dimensions that the file leaves open.

    Raises:
        UsageError: the file or an argument is wrong.
        UnsupportedError: a valid model that edgec does not compile.
    """
    path = Path(path)
    proto, sha256 = read_model_file(path)
    notes: list[str] = []
    _drop_default_inputs(proto)
    _drop_private_metadata(proto)
    _fix_input_shapes(proto, input_shapes or {}, notes)
    proto = _infer_outputs(proto)
    check_valid(proto, str(path), full=True)
    return Model(proto, path.stem, sha256, _states(proto, states), notes)


def save_model(model: Model, path: Path) -> None:
    """Write the model and its state contract to `path`, aside first and then renamed: whole or not at all."""
    path = Path(path)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    set_state_contract(proto, model.states)
    if proto.ByteSize() > MAX_MODEL_BYTES:
        raise UsageError(f"{path}: the model is too large for one ONNX file", need=f"at most {MAX_MODEL_BYTES:,} B")
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(proto.SerializeToString())
        aside.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


def set_state_contract(proto: onnx.ModelProto, states: Iterable[StatePair]) -> None:
    """Write the pairs into metadata_props, in place of any that are there; other metadata stays."""
    kept = [(p.key, p.value) for p in proto.metadata_props if p.key != STATE_KEY]
    pairs = [{"input": s.input, "output": s.output, "reset": s.reset} for s in states]
    del proto.metadata_props[:]
    for key, value in [*kept, *([(STATE_KEY, json.dumps(pairs))] if pairs else [])]:
        proto.metadata_props.add(key=key, value=value)


def float_node_names(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the nodes (of its first result, where a node has none) that the metadata say compute in float32.

    Raises:
        UsageError: the metadata is no list of names.
    """
    text = next((p.value for p in proto.metadata_props if p.key == FLOAT_KEY), "[]")
    try:
        names = json.loads(text)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("not a list of names")
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(
            f"the model's metadata {FLOAT_KEY!r} is not a list of nodes: {error}",
            need='JSON such as ["/exp", "/divide"]',
            have=repr(text[:80]),
        ) from error
    return tuple(names)


def with_float_nodes(model: Model, names: Iterable[str]) -> Model:
    """A copy of the model whose metadata say that these nodes, and no other, compute in float32."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    kept = {p.key: p.value for p in proto.metadata_props if p.key != FLOAT_KEY}
    listed = list(names)
    onnx.helper.set_model_props(proto, {**kept, **({FLOAT_KEY: json.dumps(listed)} if listed else {})})
    return Model(proto, model.name, model.sha256, model.states, model.notes)


def fixed_shapes(model: Model, input_shapes: Mapping[str, Sequence[int]]) -> Model:
    """The model with the shapes of the named inputs set; the same checks as `load_model`."""
    if not input_shapes:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    notes = list(model.notes)
    _fix_input_shapes(proto, input_shapes, notes)
    return Model(_infer_outputs(proto), model.name, model.sha256, model.states, notes)


def _drop_default_inputs(proto: onnx.ModelProto) -> None:
    """Inputs with an initializer are constants with a default in old files: nobody gives them here."""
    initializers = {t.name for t in proto.graph.initializer}
    kept = [v for v in proto.graph.input if v.name not in initializers]
    if len(kept) < len(proto.graph.input):
        kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in kept]
        del proto.graph.input[:]
        proto.graph.input.extend(kept)


def _drop_private_metadata(proto: onnx.ModelProto) -> None:
    kept = {p.key: p.value for p in proto.metadata_props if p.key not in PRIVATE_KEYS}
    onnx.helper.set_model_props(proto, kept)


def _fix_input_shapes(proto: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]], notes: list[str]) -> None:
    known = [v.name for v in proto.graph.input]
    for name in input_shapes:
        if name not in known:
            raise UsageError(f"--input-shape: the model has no input {name!r}", have=_listed(known))
    for value in proto.graph.input:
        _check_tensor_type(value, "input")
        _fix_shape(value, input_shapes.get(value.name), notes)


def _fix_shape(value: onnx.ValueInfoProto, given: Sequence[int] | None, notes: list[str]) -> None:
    tensor = value.type.tensor_type
    declared = [_dim(d) for d in tensor.shape.dim] if tensor.HasField("shape") else None
    example = f"--input-shape {value.name}={','.join(str(d or 64) for d in declared or [1, 3, 64, 64])}"
    if given is not None:
        shape = [int(d) for d in given]
        if any(d <= 0 for d in shape):
            raise UsageError(f"--input-shape {value.name}: dimensions are positive numbers", have=str(shape))
        fits = declared is None or (
            len(declared) == len(shape) and all(d in (None, s) for d, s in zip(declared, shape, strict=True))
        )
        if not fits:
            raise UsageError(
                f"--input-shape {value.name}: the model has another shape",
                need=str([d or "any" for d in declared or []]),
                have=str(shape),
            )
    elif declared is None:
        raise UsageError(f"input {value.name!r} has no shape", need="a static shape", hint=f"e.g. {example}")
    else:
        if declared and declared[0] is None:
            notes.append(f"input {value.name}: the open batch dimension is fixed to 1")
            declared[0] = 1
        open_ = [i for i, d in enumerate(declared) if d is None]
        if open_:
            raise UsageError(
                f"input {value.name!r} has an open dimension: axis {', '.join(map(str, open_))}",
                need="static shapes",
                have=str([d or tensor.shape.dim[i].dim_param or "?" for i, d in enumerate(declared)]),
                hint=f"give it, e.g. {example.replace('None', '64')}",
            )
        shape = [d or 1 for d in declared]
    if math.prod(shape) > MAX_MODEL_BYTES:
        raise UsageError(f"input {value.name!r} is too large", need=f"at most {MAX_MODEL_BYTES:,} elements")
    del tensor.shape.dim[:]
    tensor.shape.SetInParent()
    for d in shape:
        tensor.shape.dim.add(dim_value=d)


def _infer_outputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Shapes everywhere from the inputs' alone; what the file claimed about other values is not believed."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        _check_tensor_type(value, "output")
        value.type.tensor_type.ClearField("shape")
    inferred = _try_infer(proto)
    if any(_static_shape(v) is None for v in inferred.graph.output):
        from edgec.passes.fold_constants import with_folded_shapes  # only shapes computed by nodes need it

        inferred = _try_infer(with_folded_shapes(inferred))
    for value in inferred.graph.output:
        if _static_shape(value) is None:
            raise UnsupportedError(
                f"the shape of output {value.name!r} depends on the input's values",
                need="shapes that follow from the input shapes alone",
                hint="remove data-dependent operators (NonZero, Loop, dynamic Slice) before the export",
            )
    by_name = {v.name: v for v in inferred.graph.output}
    for value in proto.graph.output:
        value.CopyFrom(by_name[value.name])
    return proto


def _try_infer(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # ONNX raises several types; each means shapes that contradict each other
        line = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the model's shapes contradict each other: {line}",
            hint="give the shapes of the inputs, e.g. --input-shape x=1,3,64,64",
        ) from error


def _states(proto: onnx.ModelProto, arguments: Sequence[str]) -> tuple[StatePair, ...]:
    inputs = {t.name: t for t in _infos(proto.graph.input)}
    outputs = {t.name: t for t in _infos(proto.graph.output)}
    pairs = _declared_states(proto)
    for text in arguments:
        pair = _parse_state(text, inputs, outputs)
        if pair not in pairs and (pair.input, pair.output) not in [(p.input, p.output) for p in pairs]:
            pairs.append(pair)
    for pair in pairs:
        for kind, name, known in (("input", pair.input, inputs), ("output", pair.output, outputs)):
            if name not in known:
                raise UsageError(f"state: the model has no {kind} {name!r}", have=_listed(known))
        a, b = inputs[pair.input], outputs[pair.output]
        if a.shape != b.shape or a.dtype != b.dtype:
            raise UsageError(
                f"state {pair.input}:{pair.output}: input and output differ",
                need=f"{a.name} {a.dtype}{list(a.shape)}",
                have=f"{b.name} {b.dtype}{list(b.shape)}",
            )
    for kind, names in (("input", [p.input for p in pairs]), ("output", [p.output for p in pairs])):
        twice = [n for n, count in Counter(names).items() if count > 1]
        if twice:
            raise UsageError(f"state: the {kind} {twice[0]!r} is in two pairs", need="each name at most once")
    return tuple(pairs)


def _declared_states(proto: onnx.ModelProto) -> list[StatePair]:
    text = next((p.value for p in proto.metadata_props if p.key == STATE_KEY), "[]")
    try:
        pairs = []
        for entry in json.loads(text):
            reset = float(entry.get("reset", 0.0))
            if not (isinstance(entry["input"], str) and isinstance(entry["output"], str) and math.isfinite(reset)):
                raise TypeError("input and output are names, reset is a finite number")
            pairs.append(StatePair(entry["input"], entry["output"], reset))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"the model's metadata {STATE_KEY!r} is not a state contract: {error}",
            need='JSON such as [{"input": "h", "output": "h_next", "reset": 0.0}]',
            have=repr(text[:80]),
        ) from error
    return pairs


def _parse_state(text: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> StatePair:
    """Names may hold colons: the split whose both sides are names of the model is the meant one."""
    splits = [(text[:i], text[i + 1 :]) for i, c in enumerate(text) if c == ":"]
    if not splits:
        raise UsageError(f"--state {text!r} is not a pair", need="--state input:output")
    exact = [s for s in splits if s[0] in inputs and s[1] in outputs]
    if exact or len(splits) == 1:
        a, b = (exact or splits)[0]
        return StatePair(a, b)
    raise UsageError(
        f"--state {text!r} names no pair of the model",
        have=f"inputs {_listed(inputs)}; outputs {_listed(outputs)}",
    )


def _check_tensor_type(value: onnx.ValueInfoProto, kind: str) -> None:
    if value.type.WhichOneof("value") != "tensor_type":
        raise UnsupportedError(f"{kind} {value.name!r} is not a tensor")
    if value.type.tensor_type.elem_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        raise UnsupportedError(f"{kind} {value.name!r} does not hold numbers")


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    return int(dim.dim_value) if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0 else None


def _static_shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    dims = [d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim]
    return None if None in dims else tuple(int(d) for d in dims if d is not None)


def _infos(values: Iterable[onnx.ValueInfoProto]) -> list[TensorInfo]:
    return [
        TensorInfo(
            v.name,
            _static_shape(v) or (),
            np.dtype(onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)),
        )
        for v in values
    ]


def node_macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of one node; 0 for other operators than Gemm, MatMul and Conv."""
    if node.op_type not in ("Gemm", "MatMul", "Conv"):
        return 0
    out, a, w = shapes[node.output[0]], shapes[node.input[0]], shapes[node.input[1]]
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(w[1:])
    trans_a = any(t.name == "transA" and t.i for t in node.attribute)
    return math.prod(out) * (a[0] if trans_a else a[-1])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(n) for n in names) or "none"
