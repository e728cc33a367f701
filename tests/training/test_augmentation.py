"""Crops, bicubic resizing against Pillow's in floating point, and the whole preparation for training."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from perceiver_io.processors import prepare_image
from perceiver_io.training.augmentation import (
    EvaluationCrop,
    TrainingAugmentation,
    normalised,
    random_window,
    resize_bicubic,
)
from perceiver_io.training.rand_augment import RandAugment

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int, width: int) -> Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator())


@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 2**31))
def test_a_window_has_the_area_and_aspect_asked_for(height: int, width: int, seed: int) -> None:
    window = random_window(height, width, generator(seed))
    if window is None:
        assert not 3 / 5 < width / height < 5 / 3, "only an elongated picture may fail ten times"
        return
    top, left, window_height, window_width = window
    assert 0 <= top <= height - window_height
    assert 0 <= left <= width - window_width
    assert 0.08 <= window_height * window_width / (height * width) <= 1
    assert window_height * 3 / 4 - 0.5 <= window_width <= window_height * 4 / 3 + 0.5


def test_windows_cover_the_whole_range() -> None:
    windows = [random_window(120, 150, generator(seed)) for seed in range(2000)]
    found = np.array([window for window in windows if window])
    areas, aspects = found[:, 2] * found[:, 3] / (120 * 150), found[:, 3] / found[:, 2]
    assert len(found) == 2000
    assert areas.min() < 0.085
    assert areas.max() > 0.95
    assert aspects.min() < 0.76
    assert aspects.max() > 1.32
    assert 0.98 < np.median(aspects) < 1.1  # uniform in the ratio, so its middle is 25/24
    assert found[:, :2].min() == 0
    assert (found[:, 0] + found[:, 2]).max() == 120
    assert (found[:, 1] + found[:, 3]).max() == 150


def test_a_given_area_and_aspect() -> None:
    assert random_window(40, 30, generator(), area=(1.0, 1.0), aspect=(0.75, 0.75)) == (0, 0, 40, 30)


def test_no_window_fits_a_strip() -> None:
    assert random_window(3, 500, generator(), area=(0.5, 1.0)) is None


@pytest.mark.parametrize(("old", "new"), [((5, 7), (5, 7)), ((8, 8), (32, 29)), ((3, 2), (11, 13)), ((1, 9), (4, 10))])
def test_enlarging_is_pillows_bicubic(old: tuple[int, int], new: tuple[int, int]) -> None:
    # Pillow antialiases when it makes pictures smaller, so only enlarging can be compared.
    image = torch.rand(old) * 300 - 20
    expected = np.array(Image.fromarray(image.numpy()).resize(new[::-1], Image.Resampling.BICUBIC))
    torch.testing.assert_close(resize_bicubic(image[None], new)[0], torch.from_numpy(expected), rtol=1e-5, atol=1e-3)


def test_halving_takes_four_taps_without_antialiasing() -> None:
    row = torch.tensor([0.0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0]).expand(1, 1, 12)
    # New pixel n lies halfway between the old ones 2n and 2n + 1: weights -1/16, 9/16, 9/16, -1/16 of the four around.
    torch.testing.assert_close(resize_bicubic(row, (1, 6)), torch.tensor([[[0.0, 0, 9, -1, 0, 0]]]))


def test_taps_outside_are_dropped() -> None:
    row = torch.tensor([16.0, 0, 0, 0]).expand(1, 1, 4)
    # The first new pixel has the taps 9/16, 9/16, -1/16 inside, which are made to add up to 1.
    torch.testing.assert_close(resize_bicubic(row, (1, 2))[0, 0, 0], torch.tensor(16 * 9 / 17))


def test_overshoots_are_kept() -> None:
    edge = torch.tensor([0.0, 0, 0, 255, 255, 255]).expand(1, 4, 6)
    resized = resize_bicubic(edge, (9, 17))
    assert resized.min() < -10
    assert resized.max() > 265


def test_normalised() -> None:
    image = picture(4, 5).float()
    torch.testing.assert_close(normalised(image), (image / 255 - MEAN) / DEVIATION)


def test_evaluation_is_the_examples_preparation() -> None:
    image = picture(40, 61)
    prepared = EvaluationCrop(size=(16, 24))(image, generator())
    assert torch.equal(prepared, prepare_image(image.permute(1, 2, 0).numpy(), (16, 24)))


def test_the_defaults_are_the_references() -> None:
    augmentation = TrainingAugmentation(size=(224, 224))
    assert (augmentation.area, augmentation.aspect, augmentation.flip) == ((0.08, 1), (0.75, 4 / 3), True)
    assert augmentation.rand_augment == RandAugment(num_layers=4, magnitude=5.0)


def test_without_chance_only_resizing_is_left() -> None:
    image = picture(12, 12)
    augmentation = TrainingAugmentation(size=(7, 9), area=(1.0, 1.0), aspect=(1.0, 1.0), flip=False, rand_augment=None)
    assert torch.equal(augmentation(image, generator()), normalised(resize_bicubic(image.float(), (7, 9))))


def test_half_of_the_pictures_are_mirrored() -> None:
    image = picture(12, 12)
    augmentation = TrainingAugmentation(size=(12, 12), area=(1.0, 1.0), aspect=(1.0, 1.0), rand_augment=None)
    upright, mirrored = normalised(image.float()), normalised(image.flip(-1).float())
    results = [augmentation(image, generator(seed)) for seed in range(200)]
    number = sum(torch.equal(result, mirrored) for result in results)
    assert number + sum(torch.equal(result, upright) for result in results) == 200
    assert 70 <= number <= 130


def test_rand_augment_sees_the_crop_before_it_is_resized() -> None:
    image = picture(12, 12)
    augmentation = TrainingAugmentation(
        size=(24, 25),
        area=(1.0, 1.0),
        aspect=(1.0, 1.0),
        flip=False,
        rand_augment=RandAugment(num_layers=1, operations=("invert",)),
    )
    expected = normalised(resize_bicubic((255 - image).float(), (24, 25)))
    assert torch.equal(augmentation(image, generator()), expected)


def test_where_no_window_fits_the_evaluations_crop_is_taken() -> None:
    image = picture(4, 300)
    augmentation = TrainingAugmentation(size=(6, 6), area=(0.5, 1.0), flip=False, rand_augment=None)
    centre = image[:, 1:4, 149:152]  # 7/8 of 4 pixels, cut off to 3
    assert torch.equal(augmentation(image, generator()), normalised(resize_bicubic(centre.float(), (6, 6))))


def test_the_same_seed_gives_the_same_picture() -> None:
    augmentation = TrainingAugmentation(size=(16, 18))
    first, same, other = (augmentation(picture(40, 50), generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
