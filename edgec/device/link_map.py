# SPDX-License-Identifier: Apache-2.0
"""lld's map file: bytes per source group and per output section."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgec.errors import DeviceError

# VMA LMA Size Align, then one more column indented by its level: output section, input section, symbol.
_LINE = re.compile(r"\s*([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)\s+\d+ (.*)")
_INPUT = re.compile(r" {8}(.+):\((.+)\)")
_KINDS = {".vectors": "code", ".text": "code", ".rodata": "rodata", ".data": "data", ".bss": "bss"}


@dataclass(frozen=True)
class SectionSizes:
    """Bytes of one group: code, rodata and data lie in flash, data and bss in RAM; weights are counted
    apart.
    """

    code: int = 0
    rodata: int = 0
    data: int = 0
    bss: int = 0

    @property
    def flash(self) -> int:
        """Bytes in flash."""
        return self.code + self.rodata + self.data

    @property
    def ram(self) -> int:
        """Static bytes in RAM."""
        return self.data + self.bss


def read_link_map(
    path: Path, groups: Mapping[str, str], names: Sequence[str]
) -> tuple[dict[str, SectionSizes], dict[str, int]]:
    """Sizes by group, and the size of every allocated output section (padding included).

    Args:
        path: lld's map.
        groups: object file, as it was given to the linker -> group.
        names: every group, in the order of the answer.

    Raises:
        DeviceError: a byte of code or data has no owner.
    """
    sizes = {name: SectionSizes() for name in names}
    sections: dict[str, int] = {}
    output = ""
    for line in path.read_text().splitlines()[1:]:
        match = _LINE.fullmatch(line)
        if not match:
            continue
        size, what = int(match[2], 16), match[3]
        if re.fullmatch(r"[.\w]\S*", what):
            output = what
            if output not in (".symtab", ".strtab", ".shstrtab", ".stack_sizes"):
                sections[output] = size
            continue
        inside = _INPUT.fullmatch(what)
        kind = _KINDS.get(output)
        if inside is None or kind is None or size == 0:
            continue
        group = groups.get(inside[1])
        if group is None:
            raise DeviceError(f"the linker placed {size} B of {inside[1]}:({inside[2]}) that belong to no source")
        sizes[group] = replace(sizes[group], **{kind: getattr(sizes[group], kind) + size})
    return sizes, sections
