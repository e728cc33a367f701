"""The digits as pictures."""

import numpy as np
import torch
from torch import Tensor

from examples.tiny.digits import Digits, digit_pictures
from perceiver_io.training import Draw
from perceiver_io.training.augmentation import EvaluationCrop


def as_it_is(picture: Tensor, generator: torch.Generator) -> Tensor:
    return picture.float()


def test_digits_are_pictures_with_a_margin() -> None:
    pictures, labels = digit_pictures()
    assert pictures.shape == (1797, 3, 32, 32)
    assert pictures.dtype == torch.uint8
    assert labels.bincount().min() > 170
    assert torch.equal(pictures[:, 0], pictures[:, 2])
    assert pictures[:, :, [0, -1]].max() < 10  # overshoots of the resizing
    assert pictures.max() == 255


def test_held_out_digits_are_others() -> None:
    training, held_out = Digits(as_it_is), Digits(as_it_is, held_out=True)
    assert (len(training), len(held_out)) == (1437, 360)
    assert sorted([*training.chosen.tolist(), *held_out.chosen.tolist()]) == list(range(1797))
    assert held_out.labels.unique().tolist() == list(range(10))
    assert "".join(Digits.CLASSES) == "0123456789"
    # The split is fixed: recorded results are of these digits.
    assert held_out.chosen[:5].tolist() == [362, 1792, 1773, 593, 1486]


def test_a_digit_is_an_example() -> None:
    digits = Digits(EvaluationCrop(size=(24, 28)))
    example = digits[Draw(7, 0)]
    assert example["image"].shape == (3, 24, 28)
    pictures, labels = digit_pictures()
    assert example["label"] == labels[digits.chosen[7]]
    assert np.array_equal(digits.pictures[7], pictures[digits.chosen[7]])
