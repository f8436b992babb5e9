# SPDX-License-Identifier: Apache-2.0
"""Equal constants are written once; what each call reads stays the same."""

from __future__ import annotations

import numpy as np

from edgec.kernels.registry import Packed
from edgec.kernels.select import Implementation
from edgec.kernels.share import share_equal


def call(**constants: np.ndarray) -> Implementation:
    packed = {name: Packed(name, values, name) for name, values in constants.items()}
    return Implementation("hand", "k", "f", ("x", *packed, 3, "y"), packed, ())


def test_equal_bytes_of_one_type_are_one_array() -> None:
    table, other = np.arange(8, dtype=np.int8), np.arange(1, 9, dtype=np.int8)
    before = [call(a=table, b=other), call(c=table.copy(), d=table.view(np.int32)), call(e=other, f=table)]
    after = share_equal(before)
    assert [i.arguments for i in after] == [("x", "a", "b", 3, "y"), ("x", "a", "d", 3, "y"), ("x", "b", "a", 3, "y")]
    for old, new in zip(before, after, strict=True):
        for was, now in zip(old.arguments, new.arguments, strict=True):
            if was in old.constants:
                kept = new.constants[now].values
                assert kept.dtype == old.constants[was].values.dtype
                assert np.array_equal(kept, old.constants[was].values)
            else:
                assert was == now
    assert len({name for i in after for name in i.constants}) == 3
