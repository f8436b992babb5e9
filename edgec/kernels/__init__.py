# SPDX-License-Identifier: Apache-2.0
"""Hand-written kernels: what each overrides and needs, when it declines, how its constants are packed."""

from edgec.kernels.registry import Call, HandKernel, Packed, hand_kernel, kernels_for

__all__ = ["Call", "HandKernel", "Packed", "hand_kernel", "kernels_for"]
