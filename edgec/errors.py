# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can act on: what happened, what was needed, what there is, what to do next.

Every failing path of the tool raises one of these; the command line renders it in one place (`render`) and
exits with its code. Anything else that escapes is a defect of edgec.
"""

from __future__ import annotations

from collections.abc import Sequence


class EdgecError(Exception):
    """One clear error.

    Args:
        what: the sentence that a person reads first; names the file, node or symbol at fault.
        need: what the operation requires (a number with its unit, a form, a name).
        have: what was found instead.
        hint: the next step: one line, or several alternatives.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        need: str | None = None,
        have: str | None = None,
        hint: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.need = need
        self.have = have
        self.hints: tuple[str, ...] = (hint,) if isinstance(hint, str) else tuple(hint or ())

    def __str__(self) -> str:
        return render(self)


class UsageError(EdgecError):
    """The command, a file or an argument is wrong (exit code 2)."""

    exit_code = 2


class UnsupportedError(EdgecError):
    """The model uses something that edgec does not compile (exit code 3)."""

    exit_code = 3


class FitError(EdgecError):
    """The program does not fit the target's memory (exit code 4)."""

    exit_code = 4


class DeviceError(EdgecError):
    """A board, real or simulated, or a toolchain failed (exit code 5)."""

    exit_code = 5


def render(error: EdgecError) -> str:
    """The error as aligned text, without colour: `what`, then need/have/try lines where they are known."""
    lines = [error.what]
    if error.need is not None:
        lines.append(f"  need   {error.need}")
    if error.have is not None:
        lines.append(f"  have   {error.have}")
    for i, hint in enumerate(error.hints):
        lines.append(f"  {'try' if i == 0 else '   '}    {hint}")
    return "\n".join(lines)
