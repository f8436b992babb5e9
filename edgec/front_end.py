# SPDX-License-Identifier: Apache-2.0
"""Front ends: a model whose input is features may be given the samples that they are computed from.

What a front end is and which input it feeds is metadata of the model (`edgec.front_end`): a file may bring it, and
`--front-end` writes it. The ONNX graph keeps its input of features, so that it runs anywhere; the compiler puts the
front end before it (`edgec/lower/front_end.py`), and the program takes samples, `pcm` int16 [1, hop], instead.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgec.errors import UsageError
from edgec.model import Model, TensorInfo
from edgec.operators.mel import LogMel

FRONT_END_KEY = "edgec.front_end"
"""metadata_props key: JSON of {input: {"kind": "log-mel", name: value, ...}}; what is not named has its default."""

KIND = "log-mel"
NONE = "none"
SAMPLES = "pcm"
_FORM = f"[INPUT=]{KIND}[:window=400,hop=160,...], or {NONE}"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FrontEnd:
    """A front end before a model.

    Attributes:
        input: the model's input that it feeds.
        samples: name of the program's input that takes its place.
        log_mel: what it computes.
    """

    input: str
    samples: str
    log_mel: LogMel

    @property
    def info(self) -> TensorInfo:
        """The program's input: the samples of a hop."""
        return TensorInfo(self.samples, (1, self.log_mel.hop), np.dtype(np.int16))

    def features(self, pcm: Array, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """What the model's input is at every step of a stream of samples [S, ...]: float32 [S, *shape]."""
        return self.log_mel.frames(np.asarray(pcm, np.int16).ravel()).reshape(-1, *shape)


def front_end_of(model: Model) -> FrontEnd | None:
    """The front end that a model declares, or None.

    Raises:
        UsageError: it is not described as it should be, or does not fit its input.
    """
    text = next((p.value for p in model.proto.metadata_props if p.key == FRONT_END_KEY), "{}")
    try:
        loaded = json.loads(text)
        if not isinstance(loaded, dict) or len(loaded) > 1:
            raise ValueError("not one input with its front end")
        for name, described in loaded.items():
            values = dict(described)
            if (kind := values.pop("kind", None)) != KIND:
                raise ValueError(f"a front end of kind {kind!r}")
            return _checked(model, name, LogMel.of(values))
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(
            f"the model's metadata {FRONT_END_KEY!r} describes no front end: {error}",
            need=f'JSON such as {{"frame": {{"kind": "{KIND}", "hop": 80}}}}',
            have=repr(text[:80]),
        ) from error
    return None


def with_front_end(model: Model, text: str) -> Model:
    """The model with the front end of the command line, in place of the one that it declares.

    Args:
        model: the model.
        text: `log-mel`, `INPUT=log-mel` or either with `:name=value,...` behind it; `none` for no front end.

    Raises:
        UsageError: not of that form, or no such input, or one of another shape.
    """
    if text == NONE:
        return _declared(model, {})
    head, colon, tail = text.rpartition(f"{KIND}:") if f"{KIND}:" in text else (text, "", "")
    name, equals, kind = head.rpartition("=") if not colon else (head.removesuffix("="), head[-1:], KIND)
    if kind != KIND or (name and equals != "=") or (colon and not tail):
        raise UsageError(f"--front-end {text!r} is not a front end", need=_FORM)
    if not name:
        if len(model.inputs) != 1:
            have = ", ".join(repr(i.name) for i in model.inputs)
            raise UsageError("--front-end: which input it feeds is not clear", need=f"INPUT={KIND}", have=have)
        name = model.inputs[0].name
    try:
        log_mel = LogMel.of(_values(tail))
    except ValueError as error:
        raise UsageError(f"--front-end: {error}", need=_FORM) from error
    _checked(model, name, log_mel)
    return _declared(model, {name: {"kind": KIND, **dataclasses.asdict(log_mel)}})


def given_inputs(model: Model) -> list[TensorInfo]:
    """What a caller of the program gives: the model's inputs, with samples in place of features."""
    front_end = front_end_of(model)
    return [front_end.info if front_end and i.name == front_end.input else i for i in model.inputs]


def with_features(model: Model, samples: Mapping[str, Array]) -> dict[str, Array]:
    """Samples of the program's inputs with what the front end makes of them, for the model's input."""
    front_end = front_end_of(model)
    if front_end is None or front_end.samples not in samples:
        return dict(samples)
    shape = next(i.shape for i in model.inputs if i.name == front_end.input)
    return {**samples, front_end.input: front_end.features(samples[front_end.samples], shape)}


def features_alone(model: Model, samples: Mapping[str, Array]) -> dict[str, Array]:
    """Samples for the model's own inputs, from those of the program's where a front end takes them."""
    both = with_features(model, samples)
    front_end = front_end_of(model)
    return {name: array for name, array in both.items() if front_end is None or name != front_end.samples}


def _checked(model: Model, name: str, log_mel: LogMel) -> FrontEnd:
    infos = {i.name: i for i in model.inputs}
    if name not in infos:
        have = ", ".join(map(repr, infos)) or "none"
        raise UsageError(f"the front end feeds input {name!r}, which the model has not", have=have)
    shape = infos[name].shape
    if shape not in ((1, log_mel.bins), (1, 1, log_mel.bins)):
        raise UsageError(
            f"the front end gives {log_mel.bins} bins a step; input {name!r} does not take them",
            need=f"[1, {log_mel.bins}] or [1, 1, {log_mel.bins}]",
            have=str(list(shape)),
        )
    graph, samples = model.proto.graph, SAMPLES
    taken = {v.name for v in (*graph.input, *graph.output)}
    while samples in taken:
        samples += "_"
    return FrontEnd(name, samples, log_mel)


def _declared(model: Model, described: Mapping[str, Mapping[str, Any]]) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    metadata = {p.key: p.value for p in proto.metadata_props if p.key != FRONT_END_KEY}
    onnx.helper.set_model_props(proto, {**metadata, **({FRONT_END_KEY: json.dumps(described)} if described else {})})
    return dataclasses.replace(model, proto=proto)


def _values(text: str) -> dict[str, int | float]:
    """`window=400,floor=1e-5`, whole numbers as such."""
    values: dict[str, int | float] = {}
    for part in text.split(",") if text else ():
        name, equals, value = part.partition("=")
        try:
            values[name] = int(value) if value.lstrip("+-").isdigit() else float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise ValueError(f"{part!r} is not name=value")
    return values
