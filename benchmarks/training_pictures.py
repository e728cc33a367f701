"""Training pictures a second on one core, from JPEG files to what leaves a worker, beside Pillow's decoding alone.

python -m benchmarks.training_pictures [ROUNDS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from perceiver_io.training import Draw
from perceiver_io.training.augmentation import EvaluationCrop, TrainingAugmentation
from perceiver_io.training.data.class_folders import LabelledFile
from perceiver_io.training.data.images import ImageFolder

SIZE = (224, 224)
NUM_FILES, PICTURES_A_ROUND = 16, 48


def make_files(directory: Path) -> list[LabelledFile]:
    """Writes JPEGs of ImageNet's usual size: edges, gradients and a little noise."""
    random = np.random.default_rng(0)
    files = []
    for number in range(NUM_FILES):
        squares = np.kron(random.integers(0, 236, (12, 16, 3)), np.ones((32, 32, 1)))[:375, :500]
        path = directory / f"{number}.jpg"
        Image.fromarray((squares + random.integers(0, 20, squares.shape)).astype(np.uint8)).save(path, quality=90)
        files.append(LabelledFile(path, 0))
    return files


def main() -> None:
    """Alternates what is compared, and prints the medians of the rounds."""
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as directory:
        files = make_files(Path(directory))
        training = ImageFolder(files, TrainingAugmentation(size=SIZE))
        evaluation = ImageFolder(files, EvaluationCrop(size=SIZE))

        def pillow(number: int) -> None:
            with Image.open(files[number % NUM_FILES].path) as picture:
                np.asarray(picture.convert("RGB"))

        sides: dict[str, Callable[[int], object]] = {
            "Pillow's decoding alone": pillow,
            "training, the paper's augmentation": lambda number: training[Draw(number % NUM_FILES, number)],
            "evaluation": lambda number: evaluation[Draw(number % NUM_FILES, number)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(rounds):
            for name, side in sides.items():
                begin = time.process_time()
                for number in range(turn * PICTURES_A_ROUND, (turn + 1) * PICTURES_A_ROUND):
                    side(number)
                seconds[name].append((time.process_time() - begin) / PICTURES_A_ROUND)
    for name, values in seconds.items():
        print(f"{name:36} {1 / np.median(values):6.0f} pictures a second of processor time")


if __name__ == "__main__":
    main()
