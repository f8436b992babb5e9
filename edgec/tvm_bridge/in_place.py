# SPDX-License-Identifier: Apache-2.0
"""Which of its inputs the result of a generated function may replace, read off the function's C text.

Needed for states that float nodes update: without it a successor takes as many bytes of the arena again, and a copy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

Parameter = tuple[str, str, bool]
_LOOP = re.compile(r"for \(int32_t \w+ = 0; \w+ < (\d+); \+\+\w+\) {$")


def replaceable(parameters: Sequence[Parameter], sizes: Sequence[int], body: str) -> tuple[int, ...]:
    """Indices of the inputs that may lie where the result lies.

    That is so of an input whose every element is read by nothing but the one statement that writes the result's same
    element, or by what comes before it in the same turn of the same loops. What cannot be seen so is left out.

    Args:
        parameters: C type, name and whether only read, of the inputs and, last of all, the one result.
        sizes: elements of each.
        body: C text as `edgec.tvm_bridge.codegen_c` makes it.
    """
    *inputs, (kind, result, constant) = parameters
    if constant or not all(only_read for _, _, only_read in inputs):
        return ()
    store = re.search(rf"^( *){result}\[(.*?)\] = (?!.*\b{result}\b).*;$", body, re.MULTILINE)
    if store is None or len(re.findall(rf"\b{result}\b", body)) != 1:
        return ()
    place = store.group(2)
    turns = _turns(body[: store.start()].splitlines(), len(store.group(1)))
    words = set(re.findall(r"[A-Za-z_]\w*", place))
    if turns != sizes[-1] or any(len(re.findall(rf"\bint32_t {word} =", body)) != 1 for word in words):
        return ()
    before, after = body[: store.end()], body[store.end() :]
    found = []
    for index, (name_kind, name, _) in enumerate(inputs):
        uses, alike = re.findall(rf"\b{name}\b", before), before.count(f"{name}[{place}]")
        fits = name_kind == kind and sizes[index] == sizes[-1]
        if fits and len(uses) == alike and not re.search(rf"\b{name}\b", after):
            found.append(index)
    return tuple(found)


def _turns(above: Sequence[str], indent: int) -> int:
    """How often a statement with so many spaces before it runs: the loops around it; 0 where it is conditional."""
    extents = []
    for line in reversed(above):
        spaces = len(line) - len(line.lstrip())
        if not line.strip() or spaces >= indent:
            continue
        indent = spaces
        if loop := _LOOP.search(line):
            extents.append(int(loop.group(1)))
        elif line.strip() != "{":
            return 0
    return math.prod(extents)
