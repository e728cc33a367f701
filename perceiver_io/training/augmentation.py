"""Pictures as the reference's ImageNet script trains on them: cropped, flipped, changed, resized and normalised."""

import dataclasses
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from perceiver_io.media.picture_files import Window
from perceiver_io.processors.preparation import MEAN_RGB, STDDEV_RGB, centre_window, prepare_image
from perceiver_io.training.rand_augment import Change, RandAugment

Range = tuple[float, float]


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
    channels, height, width = image.shape
    rows, columns = (cubic_taps(old, new) for old, new in zip((height, width), size, strict=True))
    # A line of numbers per row, of which each new one is a weighted sum of a few; then likewise per column.
    lines = image.permute(1, 2, 0).float().reshape(height, width * channels)
    lines = F.embedding_bag(rows.places, lines, per_sample_weights=rows.weights, mode="sum")
    lines = lines.view(size[0], width, channels).transpose(0, 1).reshape(width, size[0] * channels)
    lines = F.embedding_bag(columns.places, lines, per_sample_weights=columns.weights, mode="sum")
    return lines.view(size[1], size[0], channels).permute(2, 1, 0)


class Taps(NamedTuple):
    """The old pixels that a new one is made of, along an axis, and their shares."""

    places: Int[Tensor, "new 4"]
    weights: Float32[Tensor, "new 4"]


@lru_cache(maxsize=1024)
def cubic_taps(old: int, new: int) -> Taps:
    """Keys' kernel around each of `new` pixels, made from `old`; the shares of pixels outside go to those inside."""
    position = (np.arange(new) + 0.5) * (old / new) - 0.5
    places = np.floor(position).astype(np.int64)[:, None] + np.arange(-1, 3)
    distance = np.abs(position[:, None] - places)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0)) * ((places >= 0) & (places < old))
    weights /= weights.sum(1, keepdims=True)
    return Taps(torch.from_numpy(places.clip(0, old - 1)), torch.from_numpy(weights.astype(np.float32)))


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
        drawn = self.draw(image.shape[1], image.shape[2], generator)
        top, left, height, width = drawn.window
        return self.apply(image[:, top : top + height, left : left + width], drawn)

    def draw(self, height: int, width: int, generator: torch.Generator) -> "DrawnAugmentation":
        """Maps a picture's size to what is done with it.

        Raises:
            ValueError: it is too small to crop.
        """
        window = random_window(height, width, generator, area=self.area, aspect=self.aspect)
        if window is None:
            window = Window(*centre_window(height, width, self.size))
        is_flipped = self.flip and bool(torch.rand((), generator=generator) < 0.5)
        changes = [] if self.rand_augment is None else self.rand_augment.draw(window[2:], generator)
        return DrawnAugmentation(window, is_flipped, changes)

    def apply(
        self, crop: UInt8[Tensor, "3 height width"], drawn: "DrawnAugmentation"
    ) -> Float32[Tensor, "3 new_height new_width"]:
        """Augments and normalises what the window shows."""
        # Densely, pixel by pixel, as decoders leave pictures: so all that follows is fastest.
        crop = crop.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        if drawn.is_flipped:
            crop = crop.flip(-1)
        if self.rand_augment is not None:
            crop = self.rand_augment.apply(crop, drawn.changes)
        return normalised(resize_bicubic(crop.float(), self.size))


class DrawnAugmentation(NamedTuple):
    """All that was drawn for a picture.

    Attributes:
        window: what is cut out.
        is_flipped: whether that is then mirrored.
        changes: of RandAugment, which follow.
    """

    window: Window
    is_flipped: bool
    changes: list[Change]

    def at_scale(self, scale: int) -> "DrawnAugmentation":
        """The same for what the window shows at 1/scale of its size."""
        return self._replace(changes=[change.at_scale(scale) for change in self.changes])


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
    # Lines of whole columns, as `resize_bicubic` leaves them: three numbers at a time would be slow.
    lines = image.permute(2, 1, 0).flatten(1)
    mean, deviation = _lines_of_statistics(image.shape[1])
    return ((lines - mean) / deviation).view(image.shape[2], image.shape[1], 3).permute(2, 1, 0)


@lru_cache
def _lines_of_statistics(height: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each number of a column."""
    mean, deviation = (255 * torch.tensor(values).repeat(height) for values in (MEAN_RGB, STDDEV_RGB))
    return mean, deviation


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """A number from `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
