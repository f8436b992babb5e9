# SPDX-License-Identifier: Apache-2.0
"""Reading an ONNX file that nobody vouches for: bytes in, a checked `ModelProto` with its data inside out.

Nothing here trusts the file: its size, the paths in it, the sizes of its tensors and its names are all
checked before any other part of edgec sees the model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from edgec.errors import EdgecError, UnsupportedError, UsageError

MAX_MODEL_BYTES = 2**31 - 1
"""Largest model that is read, external data included: what one protobuf message can hold (2 GiB - 1 byte)."""

MIN_OPSET = 13
"""Oldest operator set that is read; older files need a new export or onnx.version_converter."""

_STANDARD_DOMAINS = ("", "ai.onnx")


def read_model_file(path: Path) -> tuple[ModelProto, str]:
    """Read `path`: the model with external data loaded, well formed; and the SHA-256 of the file.

    Raises:
        UsageError: no such file, not an ONNX model, truncated, too large, data outside its folder, bad names.
        UnsupportedError: an operator set or a kind of tensor that edgec does not read.
    """
    content = _read_bytes(path)
    proto = ModelProto()
    try:
        proto.ParseFromString(content)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{path} is not a readable ONNX model: {_first_line(error)}",
            hint="the file may be truncated; export or download it again",
        ) from error
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise UsageError(f"{path} is not an ONNX model: it has no graph", have=f"{len(content):,} B")
    _check_text(proto, str(path))
    _load_external_data(proto, path.resolve().parent, len(content))
    check_opsets(proto, str(path))
    _check_names(proto.graph, str(path))
    _check_tensors(proto, str(path))
    check_valid(_with_ranks(proto), str(path), full=False)
    return proto, hashlib.sha256(content).hexdigest()


def check_valid(proto: ModelProto, where: str, *, full: bool) -> None:
    """ONNX's own check; `full` infers all shapes and compares them with the declared ones."""
    try:
        onnx.checker.check_model(proto, full_check=full)
    except Exception as error:  # ONNX raises half a dozen types here; each one means that the file is wrong
        raise UsageError(f"{where} is not a valid ONNX model: {_first_line(error)}") from error


def _with_ranks(proto: ModelProto) -> ModelProto:
    """The model, or a copy for the checker, which wants a shape where a file may leave it to the caller."""
    shaped = [v.type.tensor_type.HasField("shape") for v in (*proto.graph.input, *proto.graph.output)]
    if all(shaped):
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
        elif value.type.HasField("sequence_type"):
            value.type.sequence_type.elem_type.tensor_type.shape.SetInParent()
    return copy


def check_opsets(proto: ModelProto, where: str) -> None:
    """Raise unless the standard operator set is known and every node is of it or a function of the model."""
    opset = next((o.version for o in proto.opset_import if o.domain in _STANDARD_DOMAINS), None)
    newest = onnx.defs.onnx_opset_version()
    if opset is None:
        raise UsageError(f"{where} names no version of the standard ONNX operators", need=f"opset >= {MIN_OPSET}")
    if opset < MIN_OPSET or opset > newest:
        raise UnsupportedError(
            f"{where} uses operator set {opset}",
            need=f"opset {MIN_OPSET} to {newest}",
            have=f"opset {opset}",
            hint="export again with opset 18 to 21",
        )
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    foreign = sorted(
        {
            f"{node.domain}:{node.op_type} (node {node.name or '<unnamed>'!r})"
            for nodes in (_nodes(proto.graph), *(_function_nodes(f) for f in proto.functions))
            for node in nodes
            if node.domain not in _STANDARD_DOMAINS and (node.domain, node.op_type, node.overload) not in functions
        }
    )
    if foreign:
        raise UnsupportedError(
            f"{where} uses operators outside the ONNX standard",
            need="operators of the domain ai.onnx, or functions that the file defines",
            have=", ".join(foreign),
            hint="export without custom or vendor operators",
        )
    _check_functions_end(functions, where)


def _check_functions_end(functions: dict[tuple[str, str, str], onnx.FunctionProto], where: str) -> None:
    """Raise when a function of the model calls itself: inlining it would never end."""
    done: set[tuple[str, str, str]] = set()

    def visit(key: tuple[str, str, str], open_: tuple[tuple[str, str, str], ...]) -> None:
        if key in open_ or len(open_) > 64:
            raise UsageError(f"{where}: the function {key[1]!r} of domain {key[0]!r} calls itself")
        if key in done:
            return
        for node in _function_nodes(functions[key]):
            callee = (node.domain, node.op_type, node.overload)
            if callee in functions:
                visit(callee, (*open_, key))
        done.add(key)

    for key in functions:
        visit(key, ())


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            what = "is a folder, not a file" if path.is_dir() else "does not exist"
            raise UsageError(f"{path} {what}", need="an ONNX file")
        size = path.stat().st_size
        if size > MAX_MODEL_BYTES:
            raise UsageError(
                f"{path} is too large for an ONNX file",
                need=f"at most {MAX_MODEL_BYTES:,} B, external data included",
                have=f"{size:,} B",
            )
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise UsageError(f"cannot read {str(path)!r}: {_first_line(error)}") from error
    if not content:
        raise UsageError(f"{path} is empty", need="an ONNX file")
    return content


def _load_external_data(proto: ModelProto, folder: Path, total: int) -> None:
    for tensor in _tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        where = f"external data of tensor {tensor.name!r}"
        entries = {e.key: e.value for e in tensor.external_data}
        file = _inside(folder, entries.get("location", ""), where)
        offset = _whole(entries.get("offset", "0"), f"{where}: offset")
        size = file.stat().st_size
        length = _whole(entries.get("length", str(max(0, size - offset))), f"{where}: length")
        if offset + length > size:
            raise UsageError(
                f"{where} ends after the end of {file.name}",
                need=f"bytes {offset:,} to {offset + length:,}",
                have=f"{size:,} B",
                hint="the file may be truncated; export or download it again",
            )
        total += length
        if total > MAX_MODEL_BYTES:
            raise UsageError(
                "the model with its external data is too large",
                need=f"at most {MAX_MODEL_BYTES:,} B",
                have=f"more than {total:,} B",
            )
        try:
            with file.open("rb") as stream:
                stream.seek(offset)
                tensor.raw_data = stream.read(length)
        except OSError as error:
            raise UsageError(f"{where}: cannot read {file}: {_first_line(error)}") from error
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _inside(folder: Path, location: str, where: str) -> Path:
    """The file `location` names, only if it lies (symbolic links followed) in the model's own folder."""
    relative = Path(location)
    outside = not location or relative.is_absolute() or ".." in relative.parts or "\0" in location
    file = folder if outside else (folder / relative).resolve()
    if outside or not file.is_relative_to(folder):
        raise UsageError(
            f"{where} lies outside the model's folder",
            need="a relative path to a file beside the model",
            have=repr(location),
            hint="put the data file beside the model, or save the model with its data inside",
        )
    if not file.is_file():
        raise UsageError(f"{where}: there is no file {location!r} beside the model")
    return file


def _whole(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise UsageError(f"{where} is not a whole number of bytes", have=repr(text[:40]))
    return int(text)


def _check_text(message: Message, where: str) -> None:
    """Every name is text: protobuf reads other bytes too, but can neither compare nor write them."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for item in value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]:
            if isinstance(item, Message):
                _check_text(item, where)
            elif not isinstance(item, str):
                raise UsageError(f"{where}: a {field.name} is not text in UTF-8", have=repr(item)[:80])


def _check_names(graph: GraphProto, where: str) -> None:
    initializers = {t.name for t in graph.initializer}
    inputs = [v.name for v in graph.input if v.name not in initializers]
    for kind, names in (
        ("input", inputs),
        ("output", [v.name for v in graph.output]),
        ("initializer", [t.name for t in graph.initializer]),
    ):
        if "" in names:
            raise UsageError(f"{where} has an {kind} without a name")
        twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise UsageError(f"{where} uses the {kind} name {twice[0]!r} twice")
    if graph.sparse_initializer:
        raise UnsupportedError(f"{where} has sparse initializers", need="dense tensors")


def _check_tensors(proto: ModelProto, where: str) -> None:
    """Every tensor holds as many bytes as its shape says (a shape alone can ask for terabytes)."""
    for tensor in _tensors(proto):
        if tensor.data_type == TensorProto.STRING:
            continue
        if any(d < 0 for d in tensor.dims) or math.prod(tensor.dims) > MAX_MODEL_BYTES:
            raise UsageError(f"{where}: tensor {tensor.name!r} has an impossible shape", have=str(list(tensor.dims)))
        try:
            onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # NumPy and ONNX raise what they like for data that does not fit its shape
            raise UsageError(
                f"{where}: the data of tensor {tensor.name!r} does not fit its shape: {_first_line(error)}",
                need=f"{list(tensor.dims)} elements of type {tensor.data_type}",
            ) from error


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        yield from _node_graphs(node)


def _node_graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from _graphs(attribute.g)
        for sub in attribute.graphs:
            yield from _graphs(sub)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for g in _graphs(graph):
        yield from g.node


def _function_nodes(function: onnx.FunctionProto) -> Iterator[NodeProto]:
    for node in function.node:
        yield node
        for graph in _node_graphs(node):
            yield from graph.node


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    for graph in _graphs(proto.graph):
        yield from graph.initializer
    nodes = [*_nodes(proto.graph), *(n for f in proto.functions for n in _function_nodes(f))]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
    for function in proto.functions:
        for node in function.node:
            for graph in _node_graphs(node):
                yield from graph.initializer


def _first_line(error: BaseException) -> str:
    if isinstance(error, EdgecError):
        return error.what
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
