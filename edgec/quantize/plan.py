# SPDX-License-Identifier: Apache-2.0
"""A float model with the quantization of each of its groups: what the writer writes and the methods improve."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.errors import UnsupportedError
from edgec.model import FLOAT_KEY, Model, set_state_contract
from edgec.quantize.calibrate import Ranges, calibrate
from edgec.quantize.groups import Group, Grouping
from edgec.quantize.ranges import Method
from edgec.quantize.scheme import FIXED_OUTPUT, REACH, ActivationParams, activation_params
from edgec.quantize.state_regions import Regions
from edgec.quantize.sums import pays
from edgec.quantize.writer import Params, Writer, summed_layers

HEADROOM = 2.0
"""Range of an int16 state beside what calibration saw: a longer stream may bring more, and 15 bits are enough."""


@dataclass(frozen=True)
class Plan:
    """How a model will be quantized.

    Attributes:
        model: canonical float model.
        grouping: its quantized values.
        ranges: what calibration saw of them.
        params: quantization of each group, by the group's name.
        biases: corrected biases [N] of layers, by the node's name; the model itself stays what it was.
        method, percentile: how int8 ranges follow from what calibration saw.
        apart: see `Grouping`.
    """

    model: Model
    grouping: Grouping
    ranges: Ranges
    params: Mapping[str, Params]
    biases: Mapping[str, np.ndarray] = field(default_factory=dict)
    method: Method = "minmax"
    percentile: float = 99.99
    apart: frozenset[str] = frozenset()

    def write(self) -> Model:
        """The QDQ model: same inputs, outputs, states and name."""
        return self.written()[0]

    def written(self) -> tuple[Model, dict[str, str]]:
        """The QDQ model, and under which name it has each quantized value of the float model."""
        writer = Writer(self.model, self.grouping, self.params, self.biases)
        proto = writer.write()
        floating = self.grouping.regions.floating
        metadata = {p.key: p.value for p in self.model.proto.metadata_props}
        if floating:
            metadata[FLOAT_KEY] = json.dumps([n.name for n in self.grouping.nodes if n.name in floating])
        helper.set_model_props(proto, metadata)
        set_state_contract(proto, self.model.states)
        return dataclasses.replace(self.model, proto=proto), writer.names()

    def widened(self, names: Iterable[str]) -> Plan:
        """The same with the groups of these names as int16, over all that calibration saw."""
        params = dict(self.params)
        for group in self.grouping.groups:
            if group.name in names:
                low, high = _bounds(group, self.grouping, self.ranges, "minmax", 100.0)
                wide = activation_params(low, high, dtype="int16")
                params[group.name] = Params(params[group.name].narrow, wide)
        return dataclasses.replace(self, params=params)

    def with_regions(self, regions: Regions, samples: Mapping[str, np.ndarray]) -> Plan:
        """The same with these nodes in int16 or float, and states as wide as `regions` says; `samples` as ever."""
        grouping = Grouping(self.model, self.apart, regions)
        seen = self.ranges.statistics
        new = {r for g in grouping.groups for r in g.observed if r not in grouping.constants and r not in seen}
        more = calibrate(self.model, samples, new).statistics if new else {}
        ranges = Ranges({**seen, **more}, self.ranges.samples)
        params = {}
        for group in grouping.groups:
            narrow = _group_params(group, grouping, ranges, self.method, self.percentile)
            params[group.name] = Params(narrow, _wide_params(group, grouping, ranges))
        biases = {name: bias for name, bias in self.biases.items() if name not in regions.nodes}
        return dataclasses.replace(self, grouping=grouping, ranges=ranges, params=params, biases=biases)


def make_plan(model: Model, samples: Mapping[str, np.ndarray], method: Method, percentile: float) -> Plan:
    """Calibrate a canonical float model.

    Args:
        model: canonical, without constant divisors.
        samples: `[S, *onnx_shape]` per input.
        method, percentile: see `ValueStatistics.range`.
    """

    def planned(apart: Collection[str]) -> Plan:
        grouping = Grouping(model, apart)
        observed = [root for group in grouping.groups for root in group.observed if root not in grouping.constants]
        ranges = calibrate(model, samples, observed)
        params = {g.name: Params(_group_params(g, grouping, ranges, method, percentile)) for g in grouping.groups}
        return Plan(model, grouping, ranges, params, {}, method, percentile, frozenset(apart))

    plan = planned(())
    apart = {
        one.root.name
        for one in plan.grouping.sums
        if not pays(*summed_layers(one.products, plan.grouping, plan.params, {}))
    }
    return planned(apart) if apart else plan


def _wide_params(group: Group, grouping: Grouping, ranges: Ranges) -> ActivationParams | None:
    """int16 for what int16 nodes make, for their constants, and for states that are int16; else None."""
    if not grouping.is_int16(group):
        return None
    low, high = _bounds(group, grouping, ranges, "minmax", 100.0)
    room = 1.0 if all(root in grouping.constants for root in group.roots) else HEADROOM
    return activation_params(room * low, room * high, dtype="int16")


def with_initializers(model: Model, arrays: Mapping[str, np.ndarray]) -> Model:
    """A copy of the model in which the named initializers have other values."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name].astype(np.float32), tensor.name))
    return dataclasses.replace(model, proto=proto)


def _bounds(group: Group, grouping: Grouping, ranges: Ranges, method: Method, percentile: float) -> tuple[float, float]:
    declared = grouping.declared
    bounds = [(value, value) for value in group.resets]
    for root in group.observed:
        if root in declared:
            bounds.append(declared[root])
        elif root in grouping.constants:
            array = numpy_helper.to_array(grouping.constants[root])
            if not np.isfinite(array).all():
                raise UnsupportedError(f"constant {root} is not finite")
            bounds.append((float(array.min(initial=0.0)), float(array.max(initial=0.0))))
        else:
            bounds.append(ranges[root].range(method, percentile, symmetric=group.symmetric))
    return min(b[0] for b in bounds), max(b[1] for b in bounds)


def _group_params(
    group: Group, grouping: Grouping, ranges: Ranges, method: Method, percentile: float
) -> ActivationParams:
    low, high = _bounds(group, grouping, ranges, method, percentile)
    readers = grouping.read_as_int8(group)
    if readers and all(node.op_type in REACH for node in readers):
        reach = max(REACH[node.op_type] for node in readers)
        low, high = max(low, -reach), min(high, reach)
    if not group.symmetric and len(group.fixed_ops) == 1:
        fixed = FIXED_OUTPUT[next(iter(group.fixed_ops))]
        if low >= fixed.low and high <= fixed.high + fixed.scale:  # 1.0 itself is one step above the top
            return fixed
    return activation_params(low, high, symmetric=group.symmetric)
