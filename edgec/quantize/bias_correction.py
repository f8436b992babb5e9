# SPDX-License-Identifier: Apache-2.0
"""Fold the expected error of each layer into its bias (Nagel et al. 2019, section 4.2, on data)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from edgec.quantize.layers import layer_of
from edgec.quantize.plan import Plan
from edgec.quantize.shadow import ALL, shadow


def correct_biases(plan: Plan, samples: Mapping[str, np.ndarray]) -> Plan:
    """The plan with biases such that each layer's mean result, channel by channel, is the float model's.

    Requires: calibrated parameters. Ensures: on these samples the mean over samples and places of
    `layer(rounded x, rounded w) + bias` equals that of the float layer for every output channel (before the
    result itself is rounded).
    """
    shadows = shadow(plan, layers_only=True)
    units = shadows.units
    if not units:
        return plan
    sums = {u.value: 0.0 for u in units}
    names = [name for u in units for name in (u.value, u.shadows[ALL])]
    steps = 0
    for found in shadows.run(samples, names):
        for unit in units:
            error = found[unit.value].astype(np.float64) - found[unit.shadows[ALL]]
            channels = np.moveaxis(error, 1, 0).reshape(error.shape[1], -1)
            sums[unit.value] = sums[unit.value] + channels.mean(axis=1)
        steps += 1
    biases = {
        u.nodes[0].name: layer_of(u.nodes[0], plan.grouping.constants).bias + sums[u.value] / steps for u in units
    }
    return dataclasses.replace(plan, biases=biases)
