"""Training pictures a second on one core, from JPEG files to a worker's batches, beside Pillow's decoding alone.

python -m benchmarks.training_pictures [ROUNDS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from perceiver_io.media.picture_files import Decoding, JpegDecoder
from perceiver_io.training import Draw
from perceiver_io.training.augmentation import EvaluationCrop, TrainingAugmentation
from perceiver_io.training.data.class_folders import LabelledFile
from perceiver_io.training.data.images import ImageFolder
from perceiver_io.training.data.training_pictures import TrainingPictures
from perceiver_io.training.device_augmentation import AugmentedOnDevice

SIZE = (224, 224)
NUM_FILES, BATCH = 16, 48

# Makes a batch of pictures, of which the draws are given.
Side = Callable[[Sequence[Draw]], object]


def make_files(directory: Path, size: tuple[int, int]) -> list[LabelledFile]:
    """Writes JPEGs of some (width, height): edges, gradients and a little noise."""
    random = np.random.default_rng(0)
    files = []
    for number in range(NUM_FILES):
        squares = np.kron(random.integers(0, 236, (12, 16, 3)), np.ones((32, 32, 1)))[:375, :500]
        picture = Image.fromarray((squares + random.integers(0, 20, squares.shape)).astype(np.uint8))
        path = directory / f"{size[0]}-{number}.jpg"
        picture.resize(size).save(path, quality=90)
        files.append(LabelledFile(path, 0))
    return files


def sides(files: Sequence[LabelledFile]) -> dict[str, Side]:
    """What is compared, by name."""

    def pillow(draws: Sequence[Draw]) -> None:
        for draw in draws:
            with Image.open(files[draw.index].path) as picture:
                np.asarray(picture.convert("RGB"))

    augmentation = TrainingAugmentation(size=SIZE)

    def worker(decoder: JpegDecoder, *, finished: bool, scaled: bool = False) -> Side:
        decoding = Decoding(decoder=decoder, scaled=scaled)
        dataset = TrainingPictures(files, augmentation, decoding, finished=finished)
        collate = default_collate if finished else AugmentedOnDevice(dataset, augmentation).collate
        return lambda draws: collate([dataset[draw] for draw in draws])

    on_device = AugmentedOnDevice(TrainingPictures(files, augmentation, finished=False), augmentation)
    batch = on_device.collate([on_device[Draw(number % NUM_FILES, number)] for number in range(BATCH)])
    evaluation = ImageFolder(files, EvaluationCrop(size=SIZE))
    return {
        "Pillow's decoding alone": pillow,
        "evaluation": lambda draws: default_collate([evaluation[draw] for draw in draws]),
        "training, Pillow": worker("pillow", finished=True),
        "training, simplejpeg": worker("simplejpeg", finished=True),
        "training, simplejpeg, scaled": worker("simplejpeg", finished=True, scaled=True),
        "left to the device, Pillow": worker("pillow", finished=False),
        "left to the device, simplejpeg": worker("simplejpeg", finished=False),
        "left to the device, Pillow, scaled": worker("pillow", finished=False, scaled=True),
        "left to the device, simplejpeg, scaled": worker("simplejpeg", finished=False, scaled=True),
        "the device's part, on this processor": lambda draws: on_device.finish(batch, torch.device("cpu")),
    }


def main() -> None:
    """Alternates what is compared, and prints the medians of the rounds."""
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as directory:
        for size in ((500, 375), (1000, 750)):
            compared = sides(make_files(Path(directory), size))
            seconds: dict[str, list[float]] = {name: [] for name in compared}
            for turn in range(rounds):
                numbers = range(turn * BATCH, (turn + 1) * BATCH)
                for name, side in compared.items():
                    begin = time.process_time()
                    side([Draw(number % NUM_FILES, number) for number in numbers])
                    seconds[name].append((time.process_time() - begin) / BATCH)
            print(f"JPEGs of {size[0]}×{size[1]}, pictures a second of processor time")
            for name, values in seconds.items():
                print(f"  {name:40} {1 / np.median(values):6.0f}")


if __name__ == "__main__":
    main()
