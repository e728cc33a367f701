"""Augmentation of batches on the device, against that of single pictures: bit for bit."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from perceiver_io import create_model
from perceiver_io.media.picture_files import Decoding
from perceiver_io.training import METRICS_FILE, Batch, Draw, Trainer, TrainerConfig, read_metrics
from perceiver_io.training.augmentation import DrawnAugmentation, TrainingAugmentation
from perceiver_io.training.data.class_folders import LabelledFile
from perceiver_io.training.data.training_pictures import TrainingPictures
from perceiver_io.training.device_augmentation import AugmentedOnDevice, unfinished
from perceiver_io.training.image_classification import ClassificationObjective, Pairs
from perceiver_io.training.rand_augment import OPERATIONS, RandAugment
from perceiver_io.training.step_cost import first_examples
from tests.small_models import SMALL

CPU = torch.device("cpu")


class Noise:
    """Pictures of all sizes, augmented or left to the device."""

    def __init__(self, augmentation: TrainingAugmentation, finished: bool) -> None:
        self.augmentation = augmentation
        self.finished = finished

    def __len__(self) -> int:
        return 20

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(draw.index)
        height, width = (int(torch.randint(2, 90, (), generator=generator)) for _ in range(2))
        # In the middle of the values, so that there is something to stretch.
        picture = torch.randint(30, 200, (3, height, width), generator=generator).byte()
        generator = torch.Generator().manual_seed(draw.seed)
        if self.finished:
            return {"image": self.augmentation(picture, generator)}
        drawn = self.augmentation.draw(height, width, generator)
        top, left, height, width = drawn.window
        return unfinished(picture[:, top : top + height, left : left + width], drawn, self.augmentation)


def check_equal(augmentation: TrainingAugmentation, number: int = 20) -> None:
    alone, batched = (Noise(augmentation, finished) for finished in (True, False))
    dataset = AugmentedOnDevice(batched, augmentation)
    draws = [Draw(index % 20, seed) for seed, index in enumerate(range(number))]
    batch = dataset.finish(dataset.collate([dataset[draw] for draw in draws]), CPU)
    assert batch.keys() == {"image"}
    assert batch["image"].is_contiguous()
    for image, draw in zip(batch["image"], draws, strict=True):
        assert torch.equal(image, alone[draw]["image"])


@pytest.mark.parametrize("magnitude", [0.0, 3.3, 5.0, 10.0])
def test_batches_are_the_pictures_one_by_one_bit_for_bit(magnitude: float) -> None:
    check_equal(TrainingAugmentation(size=(13, 17), area=(0.3, 1.0), rand_augment=RandAugment(magnitude=magnitude)), 60)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_by_itself(name: str) -> None:
    # As large as the crop, and without a flip: nothing but the operation, on pictures that are as large as they are.
    for magnitude in (2.0, 5.0, 8.0):
        rand_augment = RandAugment(num_layers=1, magnitude=magnitude, operations=(name,), fill=77)
        check_equal(TrainingAugmentation(size=(11, 9), flip=False, rand_augment=rand_augment))


def test_without_rand_augment() -> None:
    check_equal(TrainingAugmentation(size=(8, 6), rand_augment=None))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pictures_on_a_graphics_card_differ_by_the_rounding_of_the_resizing_alone() -> None:
    for magnitude in (3.0, 5.0):
        augmentation = TrainingAugmentation(size=(13, 17), rand_augment=RandAugment(magnitude=magnitude))
        dataset = AugmentedOnDevice(Noise(augmentation, False), augmentation)
        batch = dataset.collate([dataset[Draw(index % 20, index)] for index in range(60)])
        here, there = (dataset.finish(batch, torch.device(device))["image"] for device in ("cpu", "cuda"))
        torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-5)


def test_a_large_picture_is_equalised_in_steps() -> None:
    augmentation = TrainingAugmentation(size=(150, 150), rand_augment=RandAugment(operations=("equalize",)))
    picture = torch.randint(30, 200, (3, 150, 150), generator=torch.Generator().manual_seed(0)).byte()
    drawn = DrawnAugmentation(
        augmentation.draw(150, 150, torch.Generator()).window._replace(top=0, left=0, height=150, width=150),
        True,
        augmentation.draw(150, 150, torch.Generator()).changes,
    )
    dataset = AugmentedOnDevice(Noise(augmentation, False), augmentation)
    batch = dataset.finish(dataset.collate([unfinished(picture, drawn, augmentation)]), CPU)
    assert torch.equal(batch["image"][0], augmentation.apply(picture, drawn))


@pytest.fixture
def files(tmp_path: Path) -> list[LabelledFile]:
    random = torch.Generator().manual_seed(0)
    for number in range(5):
        pixels = torch.randint(256, (30 + number, 50 - 3 * number, 3), dtype=torch.uint8, generator=random).numpy()
        Image.fromarray(pixels).resize((150, 120)).save(tmp_path / f"{number}.jpg")
    return [LabelledFile(tmp_path / f"{number}.jpg", number) for number in range(5)]


@pytest.mark.parametrize("scaled", [False, True])
def test_pairs_of_files(files: list[LabelledFile], scaled: bool) -> None:
    augmentation = TrainingAugmentation(size=(16, 18))
    here, there = (
        Pairs(TrainingPictures(files, augmentation, Decoding(scaled=scaled), finished=finished))
        for finished in (True, False)
    )
    dataset = AugmentedOnDevice(there, augmentation)
    assert dataset.fingerprint() == here.fingerprint()
    assert len(dataset) == 5
    expected, found = first_examples(here, 7), first_examples(dataset, 7)
    assert found.keys() == expected.keys() == {"image", "label", "partner_image", "partner_label"}
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    example = dataset[Draw(1, 2)]
    assert example["pixels"].dtype == torch.uint8


def losses(
    files: list[LabelledFile], directory: Path, *, on_device: bool, num_workers: int = 0, ends_before: int | None = None
) -> list[float]:
    """The losses that the log of a run of four steps has; it may end before one of them."""
    calls = iter(range(4))

    def objective(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        if next(calls) == ends_before:
            raise RuntimeError("ends here")
        return ClassificationObjective()(model, batch, generator)

    augmentation = TrainingAugmentation(size=(19, 25))
    pairs = Pairs(TrainingPictures(files, augmentation, finished=not on_device))
    torch.manual_seed(0)
    trainer = Trainer(
        create_model("imagenet-fourier", **SMALL["imagenet-fourier"]),
        objective,
        AugmentedOnDevice(pairs, augmentation) if on_device else pairs,
        TrainerConfig(num_steps=4, batch_size=3, log_every=1, checkpoint_every=2, num_workers=num_workers),
        directory,
        make_optimizer=lambda model: torch.optim.AdamW(model.parameters()),
        schedule=lambda step: 1.0,
    )
    if ends_before is None:
        trainer.fit()
    else:
        with pytest.raises(RuntimeError, match="ends here"):
            trainer.fit()
    return [record["loss"] for record in read_metrics(directory / METRICS_FILE)]


def test_a_run_has_the_losses_of_one_with_finished_pictures_and_goes_on_as_it(
    files: list[LabelledFile], tmp_path: Path
) -> None:
    expected = losses(files, tmp_path / "here", on_device=False)
    assert losses(files, tmp_path / "there", on_device=True, ends_before=3) == expected[:3]
    assert losses(files, tmp_path / "there", on_device=True, num_workers=1) == expected
