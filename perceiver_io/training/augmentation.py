"""Pictures as the reference's ImageNet script trains on them: cropped, flipped, changed, resized and normalised."""

import dataclasses
import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from perceiver_io.processors.preparation import MEAN_RGB, STDDEV_RGB, centre_crop, prepare_image
from perceiver_io.training.rand_augment import RandAugment

Range = tuple[float, float]


class Window(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def random_window(
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    area: Range = (0.08, 1.0),
    aspect: Range = (3 / 4, 4 / 3),
    attempts: int = 10,
) -> Window | None:
    """Maps a picture's size to a random window in it; None if none fits in so many attempts.

    An attempt draws the window's shape, then its height among those whose area is allowed, then its place. Source:
    TensorFlow's `sample_distorted_bounding_box`. DEVIATION: the reference also refuses windows below a tenth of the
    picture, and those at the right and lower border.

    Args:
        area: least and largest share of the picture's area.
        aspect: least and largest width in terms of the height.
    """
    least, most = (share * height * width for share in area)
    for _ in range(attempts):
        shape = _between(*aspect, generator)
        shortest = max(1, round(math.sqrt(least / shape)))
        tallest = min(height, math.floor(width / shape), round(math.sqrt(most / shape)))
        if shortest > tallest:
            continue
        window_height = _integer(shortest, tallest, generator)
        window_width = max(1, round(window_height * shape))
        if least <= window_height * window_width <= most:
            top, left = _integer(0, height - window_height, generator), _integer(0, width - window_width, generator)
            return Window(top, left, window_height, window_width)
    return None


def resize_bicubic(
    image: Float[Tensor, "channels height width"], size: tuple[int, int]
) -> Float32[Tensor, "channels new_height new_width"]:
    """Maps a picture to one of another size by Keys' cubic convolution, without antialiasing.

    Results may lie beyond the values of the picture. Source: `tf.image.resize`, which training used; evaluation takes
    OpenCV's kernel (`perceiver_io.media.resize`), as the colab does.

    Args:
        size: height and width of the result.
    """
    rows, columns = (_cubic_weights(old, new) for old, new in zip(image.shape[1:], size, strict=True))
    return rows @ image.float() @ columns.T


def _cubic_weights(old: int, new: int) -> Float32[Tensor, "new old"]:
    """The share of each old pixel in each new one; the shares of pixels outside go to those inside."""
    position = (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5
    distance = (position[:, None] - torch.arange(old)).abs()
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance <= 1, near, torch.where(distance < 2, far, 0))
    return (weights / weights.sum(1, keepdim=True)).float()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingAugmentation:
    """Maps 8-bit pictures of any size to what a model trains on; the defaults are the reference's.

    Args:
        size: height and width of the model's input.
        area: see `random_window`.
        aspect: see `random_window`.
        flip: whether every other picture is mirrored.
        rand_augment: what happens to the crop before it is resized; None for nothing.
    """

    size: tuple[int, int]
    area: Range = (0.08, 1.0)
    aspect: Range = (3 / 4, 4 / 3)
    flip: bool = True
    rand_augment: RandAugment | None = dataclasses.field(default_factory=RandAugment)

    def __call__(
        self, image: UInt8[Tensor, "3 height width"], generator: torch.Generator
    ) -> Float32[Tensor, "3 new_height new_width"]:
        """Augments and normalises a picture; where no random window fits, it is the evaluation's.

        Raises:
            ValueError: the picture is too small to crop.
        """
        window = random_window(image.shape[1], image.shape[2], generator, area=self.area, aspect=self.aspect)
        if window is None:
            crop = torch.from_numpy(centre_crop(image.permute(1, 2, 0).numpy(), self.size)).permute(2, 0, 1)
        else:
            top, left, height, width = window
            crop = image[:, top : top + height, left : left + width]
        if self.flip and torch.rand((), generator=generator) < 0.5:
            crop = crop.flip(-1)
        if self.rand_augment is not None:
            crop = self.rand_augment(crop, generator)
        return normalised(resize_bicubic(crop.float(), self.size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationCrop:
    """Maps 8-bit pictures of any size to what the examples and the colab make of them: see `prepare_image`.

    Args:
        size: height and width of the model's input.
    """

    size: tuple[int, int]

    def __call__(
        self, image: UInt8[Tensor, "3 height width"], generator: torch.Generator
    ) -> Float32[Tensor, "3 new_height new_width"]:
        """Crops, resizes and normalises a picture; the generator is not used.

        Raises:
            ValueError: the picture is too small to crop.
        """
        return prepare_image(image.permute(1, 2, 0).numpy(), self.size)


def normalised(image: Float[Tensor, "3 height width"]) -> Float32[Tensor, "3 height width"]:
    """Maps values 0…255 to those of mean 0 and deviation 1, over ImageNet."""
    mean, deviation = (255 * torch.tensor(values)[:, None, None] for values in (MEAN_RGB, STDDEV_RGB))
    return (image - mean) / deviation


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """A number from `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
