"""The handwritten digits of scikit-learn, as pictures."""

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from perceiver_io.media.resizing import resize
from perceiver_io.optional import needs_extra
from perceiver_io.training.data.images import Preparation
from perceiver_io.training.sampling import Draw
from perceiver_io.training.trainer import Batch


class Digits:
    """Maps draws to "image" and "label": scikit-learn's 1,797 handwritten digits, enlarged to pictures of 32×32.

    Every fifth digit of a fixed random order is held out.

    Args:
        prepare: see `Preparation`.
        held_out: whether these are the 360 held-out digits or the other 1,437.

    Raises:
        ImportError: scikit-learn is missing; it comes with the `train` extra.
    """

    CLASSES = tuple(map(str, range(10)))

    def __init__(self, prepare: Preparation, *, held_out: bool = False) -> None:
        pictures, labels = digit_pictures()
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
        is_held_out = torch.arange(len(order)) % 5 == 0
        self.chosen = order[is_held_out == held_out]
        self.pictures, self.labels = pictures[self.chosen], labels[self.chosen]
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, draw: Draw) -> Batch:
        image = self.prepare(self.pictures[draw.index], torch.Generator().manual_seed(draw.seed))
        return {"image": image, "label": self.labels[draw.index]}


def digit_pictures() -> tuple[UInt8[Tensor, "digits 3 32 32"], Int64[Tensor, " digits"]]:
    """All of scikit-learn's digits, which have 8×8 pixels, as pictures with a margin, and their labels.

    Raises:
        ImportError: scikit-learn is missing; it comes with the `train` extra.
    """
    with needs_extra("the digits", "train"):
        from sklearn.datasets import load_digits
    digits = load_digits()
    # Digits fill their 8×8 pixels; with a margin the evaluation's crop leaves them whole.
    framed = np.pad(digits.images, ((0, 0), (1, 1), (1, 1)))
    shades = np.rint(framed * (255 / 16)).astype(np.uint8)
    enlarged = [resize(digit[..., None].repeat(3, axis=-1), (32, 32), "cubic") for digit in shades]
    return torch.from_numpy(np.stack(enlarged)).permute(0, 3, 1, 2), torch.from_numpy(digits.target)
