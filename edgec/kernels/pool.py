# SPDX-License-Identifier: Apache-2.0
"""Pools on cores with DSP instructions: four channels at a time.

The largest value needs no proof: SSUB8 sets a flag for each byte from the exact difference. A mean is summed in
16-bit lanes: 255 taps of an int8 stay within [-32640, 32385]; the zero point is taken off in 32 bits.
"""

from __future__ import annotations

import numpy as np

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators import get_operator
from edgec.operators.record import TensorType

_MOST_TAPS = 255


class _Pool(HandKernel):
    """Which output rows a call computes is an argument: all of them here."""

    needs = frozenset({"dsp"})

    def overlap_block_rows(self, call: Call) -> int | None:
        """Window by window, and of a mean's channel by channel."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """None."""
        return 0

    def _output(self, call: Call) -> TensorType:
        operator = get_operator(self.op)
        return operator.infer(tuple(call.types[name] for name in operator.inputs), **call.attrs)

    def _window(self, call: Call, zero_points: tuple[int, int] = (0, 0)) -> list[int]:
        """The words of an `edgec_conv2d_geometry`."""
        attrs = call.attrs
        shapes = *call.types["x"].shape, *self._output(call).shape
        return [*shapes, *attrs["kernel"], *attrs["strides"], *attrs["dilations"], *attrs["pads"][:2], *zero_points]


@hand_kernel
class MaxPoolS8Dsp(_Pool):
    """max_pool_s8, any window."""

    name = "max_pool_s8_dsp"
    op = "max_pool_s8"
    function = "edgec_max_pool_s8_dsp"
    sources = ("pool/max_pool_s8_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """Every call."""
        return None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The geometry."""
        return (Packed("geometry", np.array(self._window(call), np.int32), "edgec_conv2d_geometry"),)

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "geometry", "y", "first_row", "rows")


@hand_kernel
class AvgPoolS8Dsp(_Pool):
    """avg_pool_s8, narrow requantization."""

    name = "avg_pool_s8_dsp"
    op = "avg_pool_s8"
    function = "edgec_avg_pool_s8_dsp"
    sources = ("pool/avg_pool_s8_dsp.c",)

    def accepts(self, call: Call) -> str | None:
        """Windows whose sum fits 16 bits."""
        mult = call.constants["mult"]
        if call.attrs.get("wide", 0):
            return "wide requantization"
        if len(mult) > _MOST_TAPS:
            return f"{len(mult)} taps, at most {_MOST_TAPS}"
        return "a multiplier that is not in [0, 2^30)" if ((mult < 0) | (mult >= 2**30)).any() else None

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """A multiplier for each number of taps, and the geometry."""
        mult, shift, params = (call.constants[name] for name in ("mult", "shift", "params"))
        multipliers = np.stack([2 * mult.astype(np.int64), shift], axis=1).astype(np.int32)
        words = [*self._window(call, (int(params[0]), int(params[1]))), *call.attrs["counted"]]
        return (
            Packed("multipliers", multipliers, "[taps]: 2*mult, shift"),
            Packed("geometry", np.array(words, np.int32), "edgec_avg_pool_geometry"),
        )

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        return ("x", "multipliers", "geometry", "y", "first_row", "rows")
