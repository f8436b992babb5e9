# SPDX-License-Identifier: Apache-2.0
"""A linked Thumb image: its functions, their instructions, the bytes to load, names for addresses."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from edgec.device.thumb import Transfer, decode, is_wide
from edgec.errors import DeviceError

_LOCAL_JUMPS = "edgec_local_jumps."


@dataclass(frozen=True)
class Function:
    """A function of the image; aliases are folded into one (the first name in alphabetical order leads)."""

    name: str
    address: int
    size: int
    names: tuple[str, ...]

    @property
    def end(self) -> int:
        """First address after the function."""
        return self.address + self.size


class ElfImage:
    """Everything the tool asks of firmware.elf, read once.

    Raises:
        DeviceError: not a readable ELF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._read(ELFFile(file))
        except OSError as error:
            raise DeviceError(f"cannot read {path}: {error.strerror}") from None
        except ELFError as error:
            raise DeviceError(f"{path} is not an ELF file: {error}") from None

    def _read(self, elf: ELFFile) -> None:
        self.segments: list[tuple[int, bytes]] = [
            (s["p_paddr"], s.data()) for s in elf.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_filesz"]
        ]
        """(load address, bytes) of everything that a programmer writes."""
        self._code = [
            (s["sh_addr"], s.data())
            for s in elf.iter_sections()
            if s["sh_flags"] & 4 and s["sh_type"] == "SHT_PROGBITS"
        ]
        section = elf.get_section_by_name(".stack_sizes")
        self._stack_section: bytes = section.data() if section else b""
        named: dict[int, list[tuple[str, int]]] = {}
        objects: list[tuple[int, int, str]] = []
        marks: list[tuple[int, bool]] = []
        table = elf.get_section_by_name(".symtab")
        self.local_jumps: set[int] = set()
        """Functions whose indirect jumps stay inside them, as their assembly promises by a symbol."""
        for symbol in table.iter_symbols() if isinstance(table, SymbolTableSection) else ():
            kind, value = symbol["st_info"]["type"], symbol["st_value"]
            if symbol.name.startswith(_LOCAL_JUMPS):
                self.local_jumps.add(value & ~1)
            elif kind == "STT_FUNC":
                named.setdefault(value & ~1, []).append((symbol.name, symbol["st_size"]))
            elif kind == "STT_OBJECT" and symbol["st_size"]:
                objects.append((value, symbol["st_size"], symbol.name))
            elif symbol.name[:2] in ("$t", "$d"):
                marks.append((value, symbol.name.startswith("$t")))
        self.functions = [
            Function(
                min(n for n, _ in names),
                address,
                max(s for _, s in names),
                tuple(sorted(n for n, _ in names)),
            )
            for address, names in sorted(named.items())
        ]
        self._objects = sorted(objects)
        self._marks = sorted(marks)

    @cached_property
    def _starts(self) -> list[int]:
        return [f.address for f in self.functions]

    def function(self, name: str) -> Function:
        """The function of that name.

        Raises:
            DeviceError: there is none.
        """
        for function in self.functions:
            if name in function.names:
                return function
        raise DeviceError(f"{self.path} has no function {name}")

    def function_at(self, address: int) -> Function | None:
        """The function that holds the address."""
        i = bisect.bisect_right(self._starts, address) - 1
        if i >= 0 and address < max(self.functions[i].end, self.functions[i].address + 1):
            return self.functions[i]
        return None

    def name_at(self, address: int) -> str:
        """`function+0x12` or `object+0x12` for an address, or its hexadecimal digits when nothing is
        there.
        """
        function = self.function_at(address)
        if function is not None:
            return f"{function.name}+{address - function.address:#x}"
        i = bisect.bisect_right(self._objects, (address, 1 << 40, "")) - 1
        if i >= 0 and address < self._objects[i][0] + self._objects[i][1]:
            return f"{self._objects[i][2]}+{address - self._objects[i][0]:#x}"
        return f"{address:#010x}"

    def instructions(self, function: Function) -> Iterator[tuple[int, int, int]]:
        """(address, first halfword, second halfword) in address order; literal pools are skipped by mapping
        symbols.
        """
        base, data = next(((b, d) for b, d in self._code if b <= function.address < b + len(d)), (0, b""))
        at = function.address
        while at + 2 <= function.end:
            i = bisect.bisect_right(self._marks, (at, True)) - 1
            if i >= 0 and not self._marks[i][1]:
                at = self._marks[i + 1][0] if i + 1 < len(self._marks) else function.end
                continue
            offset = at - base
            first = int.from_bytes(data[offset : offset + 2], "little")
            yield at, first, int.from_bytes(data[offset + 2 : offset + 4], "little")
            at += 4 if is_wide(first) else 2

    def transfers(self, function: Function) -> Iterator[Transfer]:
        """Branches and calls of a function in address order."""
        for at, first, second in self.instructions(function):
            transfer = decode(at, first, second)
            if transfer is not None:
                yield transfer

    def calls(self, function: Function) -> list[Transfer]:
        """The transfers that enter another function (BL, or a branch out of this one), in address order.

        Where a plain branch does not reach far (Armv6-M), compilers take BL for a jump inside a function.
        """
        inside = range(function.address + 1, function.end)
        return [
            t
            for t in self.transfers(function)
            if t.kind == "indirect call"
            or (t.target is not None and t.target not in inside and (t.kind == "call" or t.target != function.address))
        ]

    @cached_property
    def stack_sizes(self) -> dict[int, int]:
        """Function address -> bytes of its own frame, from the section `.stack_sizes`."""
        sizes: dict[int, int] = {}
        data, i = self._stack_section, 0
        while i + 4 < len(data):
            address, size, shift = int.from_bytes(data[i : i + 4], "little") & ~1, 0, 0
            i += 4
            while True:
                byte = data[i]
                size |= (byte & 0x7F) << shift
                i, shift = i + 1, shift + 7
                if not byte & 0x80:
                    break
            sizes[address] = max(size, sizes.get(address, 0))
        return sizes
