# SPDX-License-Identifier: Apache-2.0
"""Control transfers of Thumb-2 code (ARMv7-M Architecture Reference Manual, section A5 and A7.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["call", "jump", "indirect call", "indirect jump"]


@dataclass(frozen=True)
class Transfer:
    """An instruction that leaves the straight line; `target` is None for indirect ones. Returns are not
    listed.
    """

    address: int
    size: int
    kind: Kind
    target: int | None


def is_wide(halfword: int) -> bool:
    """Whether an instruction that starts with this halfword is 4 bytes long."""
    return halfword >> 11 >= 0b11101


def decode(address: int, first: int, second: int) -> Transfer | None:
    """The transfer at `address` given its halfwords (`second` is ignored for 2-byte instructions)."""
    return _wide(address, first, second) if is_wide(first) else _narrow(address, first)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _narrow(address: int, word: int) -> Transfer | None:
    if word >> 12 == 0b1101 and (word >> 8) & 0xF < 0xE:  # B<cond>
        return Transfer(address, 2, "jump", address + 4 + 2 * _signed(word & 0xFF, 8))
    if word >> 11 == 0b11100:  # B
        return Transfer(address, 2, "jump", address + 4 + 2 * _signed(word & 0x7FF, 11))
    source = (word >> 3) & 0xF
    if word & 0xFF87 == 0x4780:  # BLX register
        return Transfer(address, 2, "indirect call", None)
    if word & 0xFF87 in (0x4700, 0x4687) and source != 14:  # BX register, MOV pc, register
        return Transfer(address, 2, "indirect jump", None)
    if word & 0xFF87 == 0x4487:  # ADD pc, register
        return Transfer(address, 2, "indirect jump", None)
    return None


def _wide(address: int, first: int, second: int) -> Transfer | None:
    if first & 0xF800 == 0xF000 and second & 0x8000:
        sign, j1, j2 = (first >> 10) & 1, (second >> 13) & 1, (second >> 11) & 1
        if second & 0x1000:  # BL (bit 14) or B.W
            i1, i2 = 1 - (j1 ^ sign), 1 - (j2 ^ sign)
            raw = sign << 24 | i1 << 23 | i2 << 22 | (first & 0x3FF) << 12 | (second & 0x7FF) << 1
            kind: Kind = "call" if second & 0x4000 else "jump"
            return Transfer(address, 4, kind, address + 4 + _signed(raw, 25))
        if not second & 0x4000 and (first >> 6) & 0xF < 0xE:  # B<cond>.W
            raw = sign << 20 | j2 << 19 | j1 << 18 | (first & 0x3F) << 12 | (second & 0x7FF) << 1
            return Transfer(address, 4, "jump", address + 4 + _signed(raw, 21))
        return None
    base = first & 0xF
    if first & 0xFF70 == 0xF850 and second >> 12 == 15 and base != 13:  # LDR pc, not a return from the stack
        return Transfer(address, 4, "indirect jump", None)
    if (first & 0xFFD0 == 0xE890 or first & 0xFFD0 == 0xE910) and second >> 15 and base != 13:  # LDM with pc
        return Transfer(address, 4, "indirect jump", None)
    return None


def lowers_stack(first: int, second: int) -> bool:
    """Whether an instruction takes stack: PUSH, SUB sp, or a store that decrements sp."""
    if not is_wide(first):
        return first & 0xFE00 == 0xB400 or first & 0xFF80 == 0xB080
    if first & 0xFBEF == 0xF1AD or first & 0xFBFF == 0xF2AD or first & 0xFFEF == 0xEBAD:  # SUB.W sp, sp, ...
        return second & 0x0F00 == 0x0D00
    # STMDB sp!, VPUSH, STR and STRD with pre-decrement
    return (
        first == 0xE92D
        or first & 0xFFBF == 0xED2D
        or (first == 0xF84D and second & 0x0F00 == 0x0D00)
        or first == 0xE96D
    )
