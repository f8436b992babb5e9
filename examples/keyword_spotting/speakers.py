# SPDX-License-Identifier: Apache-2.0
"""Leave one speaker out: six trainings, each judged by the voice that it never heard.

    python examples/keyword_spotting/speakers.py [--epochs N] [--threads 1] [--spiking]

Writes speakers.log below --out, a line for each speaker; the options are those of train.py. It can be interrupted; the
same command goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


def main() -> None:
    """Train six times, collect the last line of each log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/speakers"))
    arguments, others = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines, scores = [], []
    for speaker in SPEAKERS:
        command = [sys.executable, str(HERE / "train.py"), "--held-out", speaker, "--name", speaker]
        subprocess.run([*command, "--out", str(arguments.out), *others], check=True)
        log = (arguments.out / f"{speaker}.train.log").read_text().splitlines()
        lines += [f"{speaker:<9} {log[-1].removeprefix('# ')}"]
        scores += [float(log[-1].split("accuracy ")[1].split(",")[0])]
        text = [log[0].rpartition(", held_out")[0], *lines, f"mean of {len(scores)}: {sum(scores) / len(scores):.4f}"]
        (arguments.out / "speakers.log").write_text("\n".join(text) + "\n")
    print(*text, sep="\n")


if __name__ == "__main__":
    main()
