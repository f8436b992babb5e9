# SPDX-License-Identifier: Apache-2.0
"""LayerNorm and RMSNorm on cores with DSP instructions.

**The root.** `floor(2^30 / sqrt(V))` comes from Newton steps and is corrected to the exact integer: see
runtime/kernels/norm/reciprocal_root.h. V has less than 42 bits: `D^2 * 255^2 / 4 + 2^31` at most about the mean, for
RMSNorm `D^2 * 255^2 + 2^31`, D <= 8192.

**One multiplication for the centred value.** The definition multiplies `(D*x - S) * 2^lead` by the ratio. Doublings
may be done on either side: with `D * 2^before` in 16 bits, `x * step + base` is one SMLABB on lanes that two
SXTB16 took out of a word, and the ratio takes the other `later` doublings if it stays below 2^31. It does unless the
deviation is about one step of the input or less; such a row takes a plain loop, where all doublings are on the left.
"""

from __future__ import annotations

import math

import numpy as np

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators.integer import INT32_MAX
from edgec.operators.layer_norm import leading_bits


def _accepts(call: Call) -> str | None:
    """The definition's integers must fit 32 bits, as those of edgec/operators/layer_norm.py always do."""
    width = call.types["x"].shape[1]
    epsilon, lead, shift = (int(v) for v in call.constants["params"][:3])
    if width < 4:
        return f"rows of {width} elements"
    if lead != leading_bits(width):
        return f"lead {lead} is not that of {width} elements"
    if epsilon < 0 or not 0 < shift < 32:
        return f"epsilon {epsilon}, shift {shift}"
    gain, offset = (np.abs(call.constants[name].astype(np.int64)) for name in ("gain", "offset"))
    largest = math.isqrt(width << (2 * lead - 4)) + 2  # |n| <= sqrt(D) * 2^(lead - 2), and its rounding
    return "an output could leave 32 bits" if (gain * largest + offset).max() > INT32_MAX else None


def _pack(call: Call, zero_point: int, about_mean: int) -> tuple[Packed, ...]:
    width, (epsilon, lead, shift) = call.types["x"].shape[1], (int(v) for v in call.constants["params"][:3])
    later = lead - (15 - width.bit_length())
    affine = np.stack([call.constants["gain"], call.constants["offset"]], axis=1)
    factors = [width << (lead - later), -1 << (lead - later), later, 2 ** (31 - later)]
    params = [epsilon, shift, *factors, about_mean, zero_point]
    return (
        Packed("affine", affine.astype(np.int32), "[width]: gain, offset"),
        Packed(
            "constants",
            np.array(params, np.int32),
            "epsilon, shift, step, factor of base, later, limit, about mean, zero point",
        ),
    )


@hand_kernel
class LayerNormS8Dsp(HandKernel):
    """layer_norm_s8 of any rows."""

    name = "layer_norm_s8_dsp"
    op = "layer_norm_s8"
    needs = frozenset({"dsp"})
    function = "edgec_norm_s8_dsp"
    sources = ("norm/norm_s8_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """What the lowering makes."""
        return _accepts(call)

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Gain and offset side by side."""
        return _pack(call, 0, 1)

    def overlap_block_rows(self, call: Call) -> int | None:
        """Element by element, once a row is summed."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "affine", "constants", "y", *call.types["x"].shape)


@hand_kernel
class RmsNormS8Dsp(LayerNormS8Dsp):
    """rms_norm_s8 of any rows."""

    name = "rms_norm_s8_dsp"
    op = "rms_norm_s8"

    def accepts(self, call: Call) -> str | None:
        """What the lowering makes."""
        zero_point = int(call.constants["params"][3])
        return _accepts(call) if -128 <= zero_point <= 127 else f"zero point {zero_point}"

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """Gain and offset side by side."""
        return _pack(call, int(call.constants["params"][3]), 0)
