# SPDX-License-Identifier: Apache-2.0
"""Float ONNX in, the one canonical float form out: the list of passes, to be read from top to bottom."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from edgec.errors import EdgecError, UnsupportedError
from edgec.model import Model, fixed_shapes, set_state_contract
from edgec.passes.attention import move_scales
from edgec.passes.batch_norm import fold_batch_norm
from edgec.passes.composites import expand_composites
from edgec.passes.dense import normalize_dense
from edgec.passes.einsum import lower_einsum
from edgec.passes.fold_constants import fold_constants, infer_shapes, ir_bytes, remove_dead
from edgec.passes.gather_nd import lower_gather_nd
from edgec.passes.gelu import fuse_gelu
from edgec.passes.graph_edit import GraphEdit
from edgec.passes.input_norm import float_images, fold_input_norm
from edgec.passes.layer_norm import fuse_layer_norm
from edgec.passes.low_rank import fold_low_rank
from edgec.passes.movement import normalize_movement
from edgec.passes.names import name_everything, tidy_names
from edgec.passes.no_ops import remove_no_ops
from edgec.passes.opset import to_opset_21
from edgec.passes.pads import fold_pads
from edgec.passes.patch_embedding import embed_patches
from edgec.passes.product_sums import gather_products
from edgec.passes.recurrent_nodes import unroll_recurrent_nodes
from edgec.passes.reductions import normalize_reductions
from edgec.passes.rms_norm import normalize_rms_norm
from edgec.passes.runnable import require_runnable
from edgec.passes.scatter import lower_scatter
from edgec.passes.softmax import normalize_softmax
from edgec.passes.split_dense import split_dense
from edgec.passes.weighted_sums import lower_weighted_sums

MAX_TENSOR_BYTES = 2**28
"""Largest activation that is accepted (256 MiB): passes number its elements."""


@dataclass(frozen=True)
class Pass:
    """One step: `run` edits the graph and keeps the function that it computes."""

    name: str
    run: Callable[[GraphEdit], None]

    @property
    def contract(self) -> str:
        """What the pass requires and ensures: the docstring of `run`."""
        return inspect.getdoc(self.run) or ""


def _fold(edit: GraphEdit) -> None:
    """See `fold_constants`."""
    fold_constants(edit.model)


PASSES: tuple[Pass, ...] = (
    Pass("names", name_everything),
    Pass("fold_constants", _fold),
    Pass("no_ops", remove_no_ops),
    Pass("composites", expand_composites),
    Pass("einsum", lower_einsum),
    Pass("gather_nd", lower_gather_nd),
    Pass("scatter", lower_scatter),
    Pass("recurrent_nodes", unroll_recurrent_nodes),
    Pass("reductions", normalize_reductions),
    Pass("weighted_sums", lower_weighted_sums),
    Pass("layer_norm", fuse_layer_norm),
    Pass("rms_norm", normalize_rms_norm),
    Pass("gelu", fuse_gelu),
    Pass("softmax", normalize_softmax),
    Pass("pads", fold_pads),
    Pass("batch_norm", fold_batch_norm),
    Pass("patch_embedding", embed_patches),
    Pass("dense", normalize_dense),
    Pass("input_norm", fold_input_norm),
    Pass("attention_scales", move_scales),
    Pass("low_rank", fold_low_rank),
    Pass("split_dense", split_dense),
    Pass("product_sums", gather_products),
    Pass("movement", normalize_movement),
    Pass("fold_again", _fold),
    Pass("no_ops_again", remove_no_ops),
    Pass("tidy_names", tidy_names),
)

Observer = Callable[[str, onnx.ModelProto], None]


def canonicalize(
    model: Model,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    observe: Observer | None = None,
) -> Model:
    """The canonical float form of `model`: opset 21, static shapes, one form for each operator.

    Args:
        model: as the front door gives it.
        input_shapes: shapes of inputs by name, batch included, where they differ from the model's open ones.
        observe: called with the name of each pass and the graph after it.

    Raises:
        UnsupportedError: the model cannot be brought to opset 21 or to static shapes.
    """
    model = float_images(fixed_shapes(model, input_shapes or {}))
    notes = list(model.notes)
    graph = ir.from_proto(to_opset_21(model.proto))
    ClearMetadataAndDocStringPass()(graph)  # exporters leave stack traces with the paths of their machine
    for value in [v for n in graph.graph for v in n.outputs if not v.is_graph_output()]:
        value.shape = None  # what the exporter claimed about shapes was for an open batch
    for step in PASSES:
        _run(step, graph, notes, model)
        _check_sizes(graph)
        if observe is not None:
            observe(step.name, to_proto(graph, model))
    proto = to_proto(graph, model)
    _require_static(graph)
    unique = list(dict.fromkeys(notes))
    return Model(proto, model.name, model.sha256, model.states, unique)


def _run(step: Pass, graph: ir.Model, notes: list[str], model: Model) -> None:
    try:
        step.run(GraphEdit(graph, notes))
        remove_dead(graph)
        infer_shapes(graph)
    except EdgecError:
        raise
    except Exception:
        require_runnable(model, f"pass {step.name}")
        raise


def to_proto(graph: ir.Model, model: Model) -> onnx.ModelProto:
    """The rewritten graph of `model` as ONNX, with the model's metadata and state contract."""
    proto = ir.to_proto(graph)
    proto.ir_version = 10
    del proto.metadata_props[:]
    proto.metadata_props.extend(model.proto.metadata_props)
    set_state_contract(proto, model.states)
    initializers = {t.name for t in proto.graph.initializer}
    kept = [v for v in proto.graph.value_info if v.name not in initializers]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    return proto


def _check_sizes(graph: ir.Model) -> None:
    for node in graph.graph:
        for out in node.outputs:
            if out.shape is not None and out.shape.is_static() and ir_bytes(out) > MAX_TENSOR_BYTES:
                raise UnsupportedError(
                    f"the output of {node.op_type} {node.name!r} is too large",
                    need=f"at most {MAX_TENSOR_BYTES:,} B",
                    have=f"{ir_bytes(out):,} B",
                )


def _require_static(graph: ir.Model) -> None:
    values = [(node, out) for node in graph.graph for out in node.outputs]
    open_ = [f"{n.op_type} {n.name!r}" for n, v in values if v.shape is None or not v.shape.is_static()]
    if open_:
        raise UnsupportedError(
            "shapes depend on the values of the inputs",
            need="shapes that follow from the input shapes alone",
            have=", ".join(open_[:8]) + (f" and {len(open_) - 8} more" if len(open_) > 8 else ""),
            hint="remove data-dependent operators before the export",
        )
