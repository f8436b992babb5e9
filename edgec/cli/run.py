# SPDX-License-Identifier: Apache-2.0
"""`edgec run`: samples in, outputs out, on the simulated board or on this machine."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edgec.cli.arguments import Json
from edgec.cli.output import counter, print_json

NAME = "run"
HELP = "Run a compiled model on samples; arrays by name, ONNX layout, float in and out."
EXAMPLE = "edgec run build/model --input samples.npz --output results.npz"


class RunnerName(enum.StrEnum):
    """Where to run."""

    SIM = "sim"
    HOST_C = "host-c"


Runner = Annotated[
    RunnerName | None, typer.Option(help="The simulated board or this machine; the target's own by default.")
]
Artifact = Annotated[Path, typer.Argument(metavar="DIR", help="What `edgec compile` wrote.")]


def command(
    artifact: Artifact,
    input_: Annotated[Path, typer.Option("--input", help="npz by input name; leading axis = samples or steps.")],
    output: Annotated[Path, typer.Option("--output", help="npz to write, by output name.")],
    runner: Runner = None,
    raw: Annotated[bool, typer.Option("--raw", help="Write the device's integers.")] = False,
    restore_state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Go on with the stream whose state --save-state wrote.")
    ] = None,
    save_state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the state after the last step there.")
    ] = None,
    json_: Json = False,
) -> None:
    """Run a compiled model."""
    from edgec.artifact import load_artifact, new_file
    from edgec.errors import UsageError
    from edgec.quantize.dataset import load_samples
    from edgec.run import input_infos, run_artifact, save_outputs
    from edgec.state_file import read_state, write_state

    loaded = load_artifact(artifact)
    infos = input_infos(loaded)
    samples = load_samples(input_, infos)
    if not samples:
        raise UsageError(f"{loaded.manifest['model']['name']} has no input: nothing says how often to run it")
    total = len(next(iter(samples.values())))
    what = "steps" if loaded.stateful else "samples"
    tell = counter(json_, total, what)
    state = read_state(restore_state, loaded) if restore_state else None
    saved: list[bytes] = []
    save = saved.append if save_state else None
    with new_file(output) as part:
        results = run_artifact(
            loaded, samples, runner.value if runner else None, raw=raw, tell=tell, state=state, save=save
        )
        save_outputs(part, results)
        if save_state:
            write_state(save_state, loaded, saved[0])
    if json_:
        printed = {"output": str(output), what: total, "outputs": {k: list(v.shape) for k, v in results.items()}}
        print_json(printed | ({"state": str(save_state)} if save_state else {}))
    else:
        print(f"wrote {output}: " + ", ".join(f"{k} {list(v.shape)}" for k, v in results.items()))
