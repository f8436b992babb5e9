# SPDX-License-Identifier: Apache-2.0
"""From a torch module to a float ONNX file: static shapes, readable names, the state contract attached.

torch is imported inside the functions only, so that this module can be imported without it.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.errors import UnsupportedError, UsageError
from edgec.models.registry import get_model

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

OPSET = 21  # the first that QDQ needs in full; from 20 on GELU, from 17 on LayerNormalization are one node
TOLERANCE = 1e-4  # of the largest absolute value of an output
FLOOR = 1e-6  # absolute, for outputs that are nearly zero everywhere

_log = logging.getLogger(__name__)


def export(
    model: str | nn.Module,
    out_path: str | os.PathLike[str],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    seed: int = 0,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    states: Sequence[tuple[str, str, float]] | None = None,
) -> Path:
    """Write a model as one float ONNX file (opset 21) and prove that it computes what torch computes.

    The file is a function of the arguments alone: same module, same bytes. It is written aside and renamed
    only after every check, so a failed export leaves nothing behind.

    Args:
        model: name of a registered model, or any torch module whose `forward` takes float32 tensors.
        out_path: the file to write; its folder is created.
        checkpoint: see `load_checkpoint`; it is loaded into the module.
        seed: of the fresh weights, when `model` is a name; a checkpoint replaces them.
        inputs: name and shape (batch of 1 included) of every argument of `forward`; needed for a module,
            known for a registered name.
        outputs: names of the results; for a module the default is `y` or `y0`, `y1`, ...
        states: (input, output, reset value) of every state pair of a module.

    Returns:
        `out_path`. The largest absolute difference to torch is logged.

    Raises:
        UsageError: torch is missing, the name is unknown, the checkpoint does not belong to the model, a name
            is missing or does not fit.
        UnsupportedError: torch cannot express the module in ONNX, or the file differs from the module.
    """
    _import_torch()
    module = get_model(model).build(seed) if isinstance(model, str) else model
    was_training = module.training
    module.eval()
    try:
        name, shapes, names, pairs = _interface(model, module, inputs, outputs, states)
        if checkpoint is not None:
            load_checkpoint(module, Path(checkpoint))
        proto = _readable(_to_onnx(module, shapes, names), name)
        _attach_states(proto, pairs)
        path = Path(out_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        try:
            _write(proto, aside)
            error = max_abs_error(module, aside, seed=seed)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    finally:
        module.train(was_training)
    _log.info("%s: largest difference to torch %.3g", path, error)
    return path


def load_checkpoint(module: nn.Module, path: Path) -> None:
    """Load weights into `module`, in place.

    Args:
        module: changed.
        path: a file of torch.save with the module's state dict, or with a dict that holds it under "model" (only
            tensors and plain containers are unpickled); or an ONNX file that `export` made of such a module, where
            every weight is there under its name in the module.

    Raises:
        UsageError: the file does not exist, is not a checkpoint, holds more than tensors, or is of another
            model.
    """
    torch = _import_torch()
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist")
    try:
        if path.suffix == ".onnx":
            loaded: Any = _initializers(path, module)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file fails in torch, zipfile or pickle with a type of its own
        raise UsageError(
            f"{path} cannot be read as a checkpoint",
            need="a file of torch.save with tensors and plain containers only, or an exported ONNX file",
            have=_first_line(error),
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded["model"]
    try:
        module.load_state_dict(loaded)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UsageError(
            f"checkpoint {path} does not belong to this model",
            need=f"a state dict of {type(module).__name__}",
            have="; ".join(line.strip() for line in str(error).splitlines()[1:3]) or _first_line(error),
        ) from error


def _initializers(path: Path, module: nn.Module) -> dict[str, torch.Tensor]:
    """The initializers of an ONNX file that have names of the module's weights."""
    import torch
    from onnx import numpy_helper

    from edgec.model import load_model

    known = module.state_dict()
    arrays = {t.name: numpy_helper.to_array(t) for t in load_model(path).proto.graph.initializer if t.name in known}
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def max_abs_error(module: nn.Module, path: Path, *, seed: int = 0, samples: int = 4) -> float:
    """Run the ONNX file and the module on the same uniform random inputs; the largest absolute difference.

    Raises:
        UnsupportedError: the difference exceeds 1e-4 of an output's largest absolute value.
    """
    torch = _import_torch()
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    worst = 0.0
    for _ in range(samples):
        feed = {i.name: random.random(i.shape, dtype=np.float32) for i in session.get_inputs()}
        with torch.no_grad():
            wanted = _as_tuple(module(*(torch.from_numpy(value) for value in feed.values())))
        for value, expected, output in zip(session.run(None, feed), wanted, session.get_outputs(), strict=True):
            truth = expected.numpy()
            error = float(np.max(np.abs(value - truth), initial=0.0))
            limit = max(TOLERANCE * float(np.max(np.abs(truth), initial=0.0)), FLOOR)
            if not error <= limit:  # a NaN fails as well
                raise UnsupportedError(
                    f"the exported file does not compute what the module computes, at output {output.name!r}",
                    need=f"an absolute difference of at most {limit:.3g}",
                    have=f"{error:.3g}",
                )
            worst = max(worst, error)
    return worst


def _import_torch() -> Any:
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it and says so late)
        import torch
    except ImportError as error:
        raise UsageError(
            f"exporting a model needs {error.name}, which is not installed",
            hint="pip install 'edgec[models]'",
        ) from error
    return torch


def _interface(
    model: str | nn.Module,
    module: nn.Module,
    inputs: Mapping[str, Sequence[int]] | None,
    outputs: Sequence[str] | None,
    states: Sequence[tuple[str, str, float]] | None,
) -> tuple[str, dict[str, tuple[int, ...]], list[str], list[tuple[str, str, float]]]:
    """(model name, input shapes, output names, state pairs): from the record or from the arguments."""
    if isinstance(model, str):
        record = get_model(model)
        if inputs is not None or outputs is not None or states is not None:
            raise UsageError(f"inputs, outputs and states of {model!r} are known; they are for other modules only")
        return model, dict(record.inputs), list(record.outputs), list(record.states)
    torch = _import_torch()
    if not inputs:
        raise UsageError(
            f"exporting a {type(module).__name__} needs the names and shapes of its inputs",
            hint='export(module, path, inputs={"image": (1, 3, 64, 64)})',
        )
    shapes = {name: tuple(int(size) for size in shape) for name, shape in inputs.items()}
    with torch.no_grad():
        try:
            results = _as_tuple(module(*(torch.zeros(shape) for shape in shapes.values())))
        except Exception as error:  # whatever the user's forward raises
            raise UsageError(
                f"{type(module).__name__} cannot be called with these inputs",
                have=f"{shapes}: {_first_line(error)}",
            ) from error
    if not all(isinstance(result, torch.Tensor) for result in results):
        raise UsageError(
            f"{type(module).__name__} returns something else than tensors",
            need="one tensor, or a tuple of tensors",
            have=", ".join(type(result).__name__ for result in results),
        )
    unnamed = ["y"] if len(results) == 1 else [f"y{i}" for i in range(len(results))]
    names = list(outputs) if outputs else unnamed
    if len(names) != len(results) or len({*names, *shapes}) != len(names) + len(shapes):
        raise UsageError(
            "the output names do not fit the module",
            need=f"{len(results)} names, all different and none the name of an input",
            have=", ".join(names),
        )
    pairs = list(states or ())
    for source, target, _ in pairs:
        if source not in shapes or target not in names:
            raise UsageError(
                f"state pair {source}:{target} names no input or no output",
                have=f"inputs {', '.join(shapes)}; outputs {', '.join(names)}",
            )
        if shapes[source] != (shape := tuple(results[names.index(target)].shape)):
            raise UsageError(
                f"state pair {source}:{target} changes its shape", need=str(shapes[source]), have=str(shape)
            )
    return type(module).__name__, shapes, names, pairs


def _to_onnx(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], names: Sequence[str]) -> onnx.ModelProto:
    torch = _import_torch()
    notices = logging.getLogger("torch.onnx")  # it reports every optional package that it does not find
    level = notices.level
    notices.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch calling parts of itself that it deprecates
            program = torch.onnx.export(
                module,
                tuple(torch.zeros(shape) for shape in shapes.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(shapes),
                output_names=list(names),
                verbose=False,
            )
    except Exception as error:  # the exporter has no common error type
        raise UnsupportedError(
            f"torch cannot export {type(module).__name__} to ONNX",
            have=_first_line(error.__cause__ or error),
            hint="static shapes and no control flow that depends on values",
        ) from error
    finally:
        notices.setLevel(level)
    proto: onnx.ModelProto = program.model_proto
    return proto


def _readable(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Name nodes and values after the module's submodules and drop what ties the file to one machine.

    The exporter leaves stack traces (paths) in the metadata and declares the types of initializers as if they
    were activations, which some readers refuse.
    """
    graph = proto.graph
    graph.name = name
    fixed = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    renamed: dict[str, str] = {}
    uses: Counter[str] = Counter()
    for node in graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
        stem = "/".join(["", *_scope_path(ast.literal_eval(scopes)[:-1]), node.op_type])
        uses[stem] += 1
        node.name = stem if uses[stem] == 1 else f"{stem}_{uses[stem]}"
        for i, output in enumerate(node.output):
            if output and output not in fixed:
                renamed[output] = f"{node.name}_output" + (f"_{i}" if len(node.output) > 1 else "")
        node.input[:] = [renamed.get(value, value) for value in node.input]
        node.output[:] = [renamed.get(value, value) for value in node.output]
        del node.metadata_props[:]
        node.doc_string = ""
    activations = [value for value in graph.value_info if value.name in renamed]
    del graph.value_info[:], graph.metadata_props[:], proto.metadata_props[:]
    for value in activations:
        value.name = renamed[value.name]
        graph.value_info.append(value)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    graph.doc_string = proto.doc_string = ""
    return proto


def _scope_path(scopes: Sequence[str]) -> list[str]:
    """['', 'blocks.0', 'blocks.0.norm1'] -> ['blocks.0', 'norm1']."""
    parts = []
    outer = ""
    for scope in scopes:
        if scope:
            parts.append(scope.removeprefix(f"{outer}.") if outer else scope)
            outer = scope
    return parts


def _attach_states(proto: onnx.ModelProto, pairs: Sequence[tuple[str, str, float]]) -> None:
    from edgec.model import STATE_KEY

    if pairs:
        contract = [{"input": source, "output": target, "reset": reset} for source, target, reset in pairs]
        proto.metadata_props.add(key=STATE_KEY, value=json.dumps(contract))


def _write(proto: onnx.ModelProto, path: Path) -> None:
    import onnx

    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _as_tuple(results: Any) -> tuple[torch.Tensor, ...]:
    return tuple(results) if isinstance(results, tuple | list) else (results,)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
