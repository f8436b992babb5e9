# SPDX-License-Identifier: Apache-2.0
"""Front ends on cores with DSP instructions."""

from __future__ import annotations

import numpy as np

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel
from edgec.operators.integer import INT32_MAX, Int32
from edgec.operators.mel import LOG_POINT, WEIGHT_POINT, WINDOW_POINT, twiddles


@hand_kernel
class LogMelS8Dsp(HandKernel):
    """log_mel_s8 with an even hop and window."""

    name = "log_mel_s8_dsp"
    op = "log_mel_s8"
    needs = frozenset({"dsp"})
    function = "edgec_log_mel_s8_dsp"
    sources = (
        "front_end/log_mel_s8_dsp.c",
        "front_end/window.c",
        "front_end/transform.c",
        "front_end/two_stages.S",
        "front_end/power.c",
        "front_end/mel.c",
    )

    def accepts(self, call: Call) -> str | None:
        """Whole pairs of samples, and constants with which nothing leaves its bits."""
        points, size, hop = int(call.attrs["fft"]) // 2, int(call.attrs["size"]), call.types["ring"].shape[2]
        if size % 2 or hop % 2:
            return f"a window of {size} samples, hops of {hop}"
        constants = call.constants
        if not np.array_equal(constants["twiddles"], twiddles(points)):
            return "other twiddles"
        if np.abs(constants["window"].astype(np.int32)).max() > 2**WINDOW_POINT:
            return "a window above 1"
        edges, logs = constants["edges"].astype(np.int64), np.diff(constants["logs"].astype(np.int64))
        if (np.diff(edges) < 0).any() or not 1 <= edges[0] <= edges[-1] <= points:
            return "edges that are none"
        if len(constants["weights"]) != edges[-1] - edges[0] or (constants["weights"] > 2**WEIGHT_POINT).any():
            return "weights above 1"
        if not 0 <= constants["logs"][0] <= constants["logs"][-1] <= 2**LOG_POINT or (logs < 0).any():
            return "logarithms that do not rise from 0 to 1"
        return _params_fit(constants["params"])

    def pack(self, call: Call) -> tuple[Packed, ...]:
        """The geometry; constants are read as they are."""
        stages = (int(call.attrs["fft"]) // 2).bit_length() - 1
        words = [*call.types["ring"].shape, int(call.attrs["size"]), int(call.attrs["bins"]), stages]
        return (Packed("geometry", np.array(words, np.int32), "edgec_log_mel_geometry"),)

    def overlap_block_rows(self, call: Call) -> int | None:
        """The ring of a stream is read before the first of its results is written."""
        return 0

    def scratch_bytes(self, call: Call) -> int:
        """Two words for each complex point."""
        return 4 * int(call.attrs["fft"])

    def arguments(self, call: Call) -> tuple[str | int, ...]:
        """In the order of the prototype."""
        constants = ("window", "twiddles", "weights", "edges", "logs", "params")
        return ("ring", "cursor", *constants, "y", "geometry", "scratch")


def _params_fit(params: Int32) -> str | None:
    floor_low, floor_high, most, mult, addend_low, addend_high, shift = (int(p) for p in params)
    floor, addend = floor_low + (floor_high << 31), addend_low + (addend_high << 31)
    if not 0 <= most <= WINDOW_POINT or min(floor_low, floor_high, addend_low) < 0 or not 0 < floor << 2 * most < 2**62:
        return f"a floor of {floor}, at most {most} doublings"
    largest = (64 << LOG_POINT) * abs(mult) + abs(addend)
    if not 32 <= shift < 64 or largest >= 2**63 or largest >> shift > INT32_MAX:
        return "a result could leave 32 bits"
    return None
