# SPDX-License-Identifier: Apache-2.0
"""The ONNX project's own node tests through `--precision float32` and host C: right, or refused with a reason."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.backend_cases import LISTED, Outcome, foreign_types, node_tests, operator_of, run_all

EXCLUDED: tuple[tuple[str, str], ...] = (
    (r"test_attention_local_window_gqa_rank4_mask(_expanded)?", "softmax in float64 (softmax_precision)"),
    (r"test_batchnorm_\w+_training_mode", "training mode"),
    (r"test_(gru|lstm)_(reverse|bidirectional)", "a sequence read backwards needs its end before its beginning"),
    (r"test_lstm_with_peepholes", "peepholes"),
    (r"test_maxpool_with_argmax_\w+", "the second output of MaxPool, the indices"),
    (r"test_(reduce_\w+_empty_set\w*|slice_start_out_of_bounds|split_zero_size_splits\w+|reshape_allowzero_reordered)",
     "tensors of no elements"),
)  # fmt: skip
"""Variants of listed operators that are refused: a pattern for the names of tests, and why."""

QUICK = frozenset(
    # One test of each listed operator, and each that TVM alone computes wrongly or not at all.
    """add argmax_default_axis_random attention_4d_gqa_with_past_and_present averagepool_2d_ceil batchnorm_example
    clip_inbounds concat_3d_axis_1 basic_conv_with_padding convtranspose_output_shape cumsum_2d_int32 div
    einsum_batch_matmul_in_float32 expand_dim_changed gru_defaults gather_2d_indices gelu_tanh_1 gemm_all_attributes
    globalaveragepool globalmaxpool hardswish lstm_with_initial_bias layer_normalization_3d_axis1_epsilon matmul_4d
    maxpool_2d_ceil_output_size_reduce_by_one mul reflect_pad rms_normalization_2d_axis1
    reduce_max_default_axes_keepdims_random reduce_mean_default_axes_keepdims_random reduce_sum_keepdims_random relu
    reshape_negative_dim resize_downsample_scales_cubic_antialias resize_tf_crop_and_resize
    resize_upsample_sizes_nearest_not_larger sigmoid slice_neg_steps softmax_axis_1 split_variable_parts_2d_opset18
    squeeze sub swish tanh top_k_negative_axis transpose_all_permutations_3 unsqueeze_two_axes where_example tile
    mod_float_edge_cases_fmod_0_float32 bitshift_left_uint8 triu_out_pos swiglu
    attention_4d_causal_nonpad_negative_offset_structural_empty_expanded""".split()
)


def _check(outcomes: list[Outcome]) -> None:
    print(dict(Counter(o.kind for o in outcomes)))
    assert [o for o in outcomes if o.kind not in ("passed", "unsupported")] == []


def test_one_of_each_operator(tmp_path: Path) -> None:
    cases = [case for case in node_tests() if case.name.removeprefix("test_") in QUICK]
    assert len(cases) == len(QUICK)
    assert {operator_of(case) for case in cases} >= LISTED
    outcomes = run_all(cases, tmp_path)
    _check(outcomes)
    assert [o for o in outcomes if o.kind != "passed"] == []


@pytest.mark.slow
def test_all(tmp_path: Path) -> None:
    """None is silently wrong, none fails with anything but a clear error, and listed operators fail nowhere else."""
    cases = node_tests()
    outcomes = run_all(cases, tmp_path)
    _check(outcomes)
    refused = {
        case.name: o.told
        for case, o in zip(cases, outcomes, strict=True)
        if o.kind == "unsupported" and operator_of(case) in LISTED and not foreign_types(case)
    }
    stated = {name for name in refused for pattern, _ in EXCLUDED if re.fullmatch(pattern, name)}
    assert {name: told for name, told in refused.items() if name not in stated} == {}
    stale = [pattern for pattern, _ in EXCLUDED if not any(re.fullmatch(pattern, name) for name in refused)]
    assert stale == [], "these pass"
