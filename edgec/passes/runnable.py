# SPDX-License-Identifier: Apache-2.0
"""Is a model that no pass can read a model at all? ONNX Runtime is the judge."""

from __future__ import annotations

import numpy as np

from edgec.errors import EdgecError, UsageError
from edgec.model import Model


def require_runnable(model: Model, step: str) -> None:
    """Raise UsageError when ONNX Runtime cannot run `model` on zeros either; return when it can.

    ONNX's checker lets some contradictions through (a Reshape to another number of elements, weights of another
    width). Asked only when `step` has failed: what runs and is not understood is a defect of edgec.
    """
    from edgec.quantize.calibrate import run_stream

    zeros = {info.name: np.zeros((1, *info.shape), info.dtype) for info in model.inputs}
    try:
        for _ in run_stream(model, zeros):
            pass
    except EdgecError as error:
        raise UsageError(
            f"{model.name} is not a model that can run: {error.what}",
            have=f"found in {step}",
            hint="check the model in ONNX Runtime",
        ) from error
