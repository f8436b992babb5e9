# SPDX-License-Identifier: Apache-2.0
"""JSON for people and programs: indented, keys in the order given, small records on a line of their own."""

from __future__ import annotations

import json

_WIDTH = 120


def json_text(value: object, indent: int = 0) -> str:
    """The text of `value`, without a newline at its end.

    An entry of a list (and a list of plain values) takes one line where it fits: a table of a thousand buffers is a
    thousand lines, not ten thousand.
    """
    pad = " " * (indent + 2)
    if isinstance(value, dict) and value:
        rows = [f"{pad}{json.dumps(str(key))}: {json_text(item, indent + 2)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
    if isinstance(value, list | tuple) and value:
        whole = json.dumps(value)
        if not any(isinstance(item, dict | list | tuple) for item in value) and len(whole) + indent < _WIDTH:
            return whole
        rows = [f"{pad}{_row(item, indent + 2)}" for item in value]
        return "[\n" + ",\n".join(rows) + "\n" + " " * indent + "]"
    return json.dumps(value)


def _row(item: object, indent: int) -> str:
    """An entry of a list: on one line, unless it holds records of its own or is too long."""
    line = json.dumps(item)
    nested = isinstance(item, dict) and any(isinstance(v, dict) and v for v in item.values())
    return line if not nested and len(line) <= 3 * _WIDTH else json_text(item, indent)
