"""Pictures with classes: folders as ImageNet comes in, and the handwritten digits of scikit-learn."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from perceiver_io.media.images import load_image
from perceiver_io.media.resizing import resize
from perceiver_io.optional import needs_extra
from perceiver_io.training.data.class_folders import LabelledFile
from perceiver_io.training.sampling import Draw
from perceiver_io.training.trainer import Batch

# Maps an 8-bit picture to what the model reads; all that is random comes from the generator.
Preparation = Callable[[UInt8[Tensor, "3 height width"], torch.Generator], Float32[Tensor, "3 new_height new_width"]]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")


class ImageFolder:
    """Maps draws to "image" and "label", from picture files.

    A file that cannot be read is an error that names it; `SkipUnusable` leaves such files out.

    Args:
        files: see `find_labelled_files`, with `PICTURE_SUFFIXES`.
        prepare: see `Preparation`.

    Raises:
        ValueError: if there are no files.
    """

    def __init__(self, files: Sequence[LabelledFile], prepare: Preparation) -> None:
        if not files:
            raise ValueError("a data set needs at least one picture file")
        self.files = list(files)
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, draw: Draw) -> Batch:
        """Reads and prepares a picture.

        Raises:
            FileNotFoundError: if it is no longer there.
            ValueError: if it is damaged, or too small to crop.
        """
        path, label = self.files[draw.index]
        picture = torch.from_numpy(load_image(path)).permute(2, 0, 1)
        try:
            image = self.prepare(picture, torch.Generator().manual_seed(draw.seed))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return {"image": image, "label": torch.tensor(label)}


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
