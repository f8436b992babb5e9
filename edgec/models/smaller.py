# SPDX-License-Identifier: Apache-2.0
"""Smaller configurations of a model that edgec brings along, as ONNX models with fresh weights."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgec.export import export
from edgec.model import Model, load_model
from edgec.models.registry import get_model, list_models


def smaller_models(model: Model) -> Iterator[tuple[str, Model]]:
    """(what is smaller, the model) for each smaller configuration of the registered model that `model` is of.

    Which one that is tells the name that `edgec export` gives the graph; nothing for any other model. Needs torch.
    """
    names = {record.name for record in list_models()}
    if model.proto.graph.name not in names:
        return
    record = get_model(model.proto.graph.name)
    if {t.name: t.shape for t in model.inputs} != dict(record.inputs):
        return
    for sizes in record.smaller:
        module = record.build(0, **sizes)
        usual = inspect.signature(record.builder).parameters
        change = ", ".join(f"{key} {value} instead of {usual[key].default}" for key, value in sizes.items())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{record.name}.onnx"
            export(module, path, inputs=record.inputs, outputs=list(record.outputs))
            yield change, load_model(path)
