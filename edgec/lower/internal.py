# SPDX-License-Identifier: Apache-2.0
"""States of the program that the model does not have: rings and cursors that the compiler put there.

They are inputs and outputs of the integer graph and stand in the metadata of the program's border; they are reset,
saved and restored with the model's own states and are in the manifest beside them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx
from onnx import helper

from edgec.lower.lower import INTERFACE_KEY

INTERNAL = "internal"
"""Entry of the border's metadata: a list of {"name": input, "tensor": output, "reset": value of every element}."""


def declare_internal(
    proto: onnx.ModelProto, name: str, tensor: str, elem_type: int, shape: Sequence[int], reset: int = 0
) -> None:
    """Make `name` an input and `tensor`, which some node computes, an output, and both an internal state."""
    proto.graph.input.append(helper.make_tensor_value_info(name, elem_type, shape))
    proto.graph.output.append(helper.make_tensor_value_info(tensor, elem_type, shape))
    metadata = {p.key: p.value for p in proto.metadata_props}
    border = json.loads(metadata[INTERFACE_KEY])
    border[INTERNAL] = [*border.get(INTERNAL, []), {"name": name, "tensor": tensor, "reset": reset}]
    helper.set_model_props(proto, {**metadata, INTERFACE_KEY: json.dumps(border)})
