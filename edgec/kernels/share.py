# SPDX-License-Identifier: Apache-2.0
"""Equal constants lie in flash once, whichever calls read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgec.kernels.select import Implementation


def share_equal(implementations: Sequence[Implementation]) -> list[Implementation]:
    """The same calls, in which constants of equal type and bytes have one name: that of the first."""
    first: dict[tuple[str, bytes], str] = {}
    shared = []
    for implementation in implementations:
        names = {
            name: first.setdefault((str(packed.values.dtype), packed.values.tobytes()), name)
            for name, packed in implementation.constants.items()
        }
        arguments = tuple(names.get(a, a) if isinstance(a, str) else a for a in implementation.arguments)
        constants = {names[name]: packed for name, packed in implementation.constants.items()}
        shared.append(replace(implementation, arguments=arguments, constants=constants))
    return shared
