"""Training pairs a second on one core, from files of AutoFlow's size to what leaves a worker, by the phase of training.

python -m benchmarks.training_pairs [ROUNDS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from perceiver_io.media import write_flo
from perceiver_io.training import Draw
from perceiver_io.training.data.flow import FlowFolder, find_pairs
from perceiver_io.training.tasks.optical_flow import PHASES

# AutoFlow's pictures, and the released model's crops.
HEIGHT, WIDTH, SIZE = 448, 576, (368, 496)
NUM_PAIRS, PAIRS_A_ROUND = 4, 12


def make_pairs(directory: Path) -> None:
    """Writes pairs of edges, gradients and a little noise, with motion that differs from place to place."""
    random = np.random.default_rng(0)
    y, x = torch.meshgrid(torch.linspace(-3, 3, HEIGHT), torch.linspace(-3, 3, WIDTH), indexing="ij")
    for number in range(NUM_PAIRS):
        folder = directory / str(number)
        folder.mkdir()
        squares = np.kron(random.integers(0, 236, (14, 18, 3)), np.ones((32, 32, 1)))
        for name, shift in (("im0", 0), ("im1", number + 1)):
            moved = np.roll(squares, shift, axis=1) + random.integers(0, 20, squares.shape)
            Image.fromarray(moved.astype(np.uint8)).save(folder / f"{name}.png")
        write_flo(folder / "forward.flo", torch.stack([number + 1 + x, y]))


def main() -> None:
    """Alternates what is compared, and prints the medians of the rounds."""
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as directory:
        make_pairs(Path(directory))
        files = find_pairs(directory)
        sides = {"whole pairs": FlowFolder(files)} | {
            name: FlowFolder(files, phase(SIZE), both_ways=name == "both-ways") for name, phase in PHASES.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(rounds):
            for name, pairs in sides.items():
                begin = time.process_time()
                for number in range(turn * PAIRS_A_ROUND, (turn + 1) * PAIRS_A_ROUND):
                    pairs[Draw(number % len(pairs), number)]
                seconds[name].append((time.process_time() - begin) / PAIRS_A_ROUND)
    for name, values in seconds.items():
        print(f"{name:12} {1 / np.median(values):6.1f} pairs a second of processor time")


if __name__ == "__main__":
    main()
