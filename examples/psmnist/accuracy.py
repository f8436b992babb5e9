# SPDX-License-Identifier: Apache-2.0
"""Test accuracy of the trained memory: float on all 10,000 images, the compiled program on some, pixel by pixel.

    python examples/psmnist/accuracy.py [--images N] [--checkpoint FILE.pt] [--data DIR]

Needs PyTorch and mnist/mnist.npz below --data, EDGEC_DATA or ../shared/data. An image is a stream of 784 steps from a
reset; the class after its last pixel counts. The memory's width is chosen by the drift test, on training images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_folder import DEFAULT
from train import MODEL, PUBLISHED, load, pixels

from edgec.compile import Options, compile_model
from edgec.export import export, load_checkpoint
from edgec.model import load_model
from edgec.models.lmu import LMUClassifier
from edgec.models.registry import get_model
from edgec.run import open_artifact, profile_artifact, to_device
from edgec.target import load_target

HERE = Path(__file__).resolve().parent
CALIBRATION = 8  # images


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT, help="folder of the data sets (EDGEC_DATA)")
    parser.add_argument("--checkpoint", type=Path, default=HERE / "lmu_psmnist_warp.pt")
    parser.add_argument("--images", type=int, default=1000, help="test images that the program classifies")
    parser.add_argument("--target", default="stm32f746")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, test = (load(arguments.data, part) for part in ("train", "test"))
    model = get_model(MODEL).build()
    assert isinstance(model, LMUClassifier)
    load_checkpoint(model, arguments.checkpoint)
    with torch.no_grad():
        scores = torch.cat([model.last(pixels(part.float() / 255)) for part in test.images.split(1000)]).numpy()
    labels = test.labels.numpy()
    print(f"float         {(scores.argmax(1) == labels).mean():.2%} of 10,000; published {PUBLISHED:.2%}")

    random = np.random.default_rng(0)
    seen = pixels(data.images[random.permutation(60_000)[:CALIBRATION]].float() / 255).numpy()
    with tempfile.TemporaryDirectory(prefix="psmnist-") as folder:
        file = export(MODEL, Path(folder) / "lmu.onnx", checkpoint=arguments.checkpoint)
        options = Options(calibration={"pixel": seen.reshape(-1, 1, 1)})
        whole = load_model(file)
        artifact = compile_model(whole, load_target(arguments.target), Path(folder) / "lmu", options)
        for note in whole.notes:
            print(f"note          {note}")
        chosen = random.permutation(10_000)[: arguments.images]
        found = []
        port, out = artifact.inputs[0], artifact.outputs[0]
        with open_artifact(artifact, "host-c") as program:
            for done, index in enumerate(chosen):
                program.reset()
                for pixel in to_device(port, pixels(test.images[index : index + 1].float() / 255).numpy()[0, :, None]):
                    (last,) = program.run([pixel.tobytes()])
                found.append(int(np.frombuffer(last, out.dtype).argmax()))
                if sys.stderr.isatty():
                    print(f"{done + 1}/{len(chosen)} images", end="\r", file=sys.stderr, flush=True)
        same = (np.array(found) == scores[chosen].argmax(1)).mean()
        right, beside = (np.array(found) == labels[chosen]).mean(), (scores[chosen].argmax(1) == labels[chosen]).mean()
        print(f"program       {right:.2%} of {len(chosen):,}, float {beside:.2%} of the same; same class {same:.2%}")
        ram, flash = (artifact.manifest[memory]["total_bytes"] for memory in ("ram", "flash"))
        instructions = profile_artifact(artifact)["instructions"]
        print(f"{arguments.target:<13} {ram:,} B of RAM, {flash:,} B of flash, {instructions:,} instructions a pixel")


if __name__ == "__main__":
    main()
