# SPDX-License-Identifier: Apache-2.0
"""The state of a stream as a file: one line that says whose it is, then the bytes that `<model>_save` copies."""

from __future__ import annotations

import zlib
from pathlib import Path

from edgec.artifact import Artifact, new_file
from edgec.errors import UsageError

_MAGIC = "edgec.state/1"
_LONGEST = 200  # bytes of the first line


def write_state(path: Path, artifact: Artifact, state: bytes) -> None:
    """Write `state` as one of the artifact's model, whole or not at all.

    Raises:
        UsageError: it cannot be written there.
    """
    line = f"{_MAGIC} {artifact.manifest['model_id']} {len(state)} {zlib.crc32(state):08x}\n"
    with new_file(path) as part:
        part.write_bytes(line.encode("ascii") + state)


def read_state(path: Path, artifact: Artifact) -> bytes:
    """The state in a file that `write_state` made of the same program.

    Raises:
        UsageError: it is no such file, damaged, or of another program, whose state may mean something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    line, _, state = data.partition(b"\n")
    try:
        magic, model_id, size, checksum = line[:_LONGEST].decode("ascii").split(" ")
        sound = (int(size), int(checksum, 16)) == (len(state), zlib.crc32(state))
    except ValueError:
        magic, sound = "", False
    if magic != _MAGIC:
        raise UsageError(f"{path} is not a saved state", hint="edgec run DIR --save-state makes one")
    if not sound:
        raise UsageError(f"{path} is damaged", need=f"{size} B with checksum {checksum}", have=f"{len(state)} B")
    own = artifact.manifest["model_id"]
    if model_id != own:
        raise UsageError(
            f"{path} is the state of another program than {artifact.path}",
            need=own[:16],
            have=model_id[:16],
            hint="a state goes on in the very artifact that it was saved from, on any runner",
        )
    return state
