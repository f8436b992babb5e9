# SPDX-License-Identifier: Apache-2.0
"""The command line inside this process: its entry point with arguments, its exit code and what it printed."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from edgec import cli


@dataclass(frozen=True)
class Answer:
    """Exit code, stdout and stderr of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object that stdout is."""
        return json.loads(self.out)


def edgec(*arguments: object) -> Answer:
    """Run `edgec` with these arguments, as the installed script does."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["edgec", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code
    assert isinstance(code, int)
    assert "Traceback" not in err.getvalue()
    return Answer(code, out.getvalue(), err.getvalue())


def done(*arguments: object) -> Answer:
    """`edgec`, which must succeed."""
    answer = edgec(*arguments)
    assert answer.code == 0, answer.err
    return answer


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder: contents of files, None for folders."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))
    }
