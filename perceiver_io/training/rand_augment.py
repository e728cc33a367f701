"""RandAugment (Cubuk et al., 2019) as the reference's ImageNet script has it: 16 operations on 8-bit pictures.

Each operation is a function of its own, with the arithmetic of the reference's `autoaugment.py`: what is computed in
float32 there is here, and fractions are cut off, not rounded, on the way back to 8 bits.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

Picture = UInt8[Tensor, "3 height width"]

# What fills places that a picture was moved away from, and what `cutout` leaves.
GREY = 128

# All that a channel may have.
_VALUES = np.arange(256, dtype=np.float32)


def blend(degenerate: Picture, image: Picture, factor: float) -> Picture:
    """Maps two pictures to one between them: the first for factor 0, the second for 1, beyond it above 1."""
    if factor == 0:
        return degenerate
    if factor == 1:
        return image
    mixed = degenerate.float() + factor * (image.float() - degenerate.float())
    return mixed.clamp(0, 255).byte()


def greyscale(image: Picture) -> Picture:
    """Maps a picture to its luminance, three times over, as `tf.image.rgb_to_grayscale` rounds it."""
    red, green, blue = image.float() / 255
    luminance = 0.2989 * red + 0.587 * green + 0.114 * blue
    return (luminance * 255.5).byte().expand(image.shape)


def color(image: Picture, factor: float) -> Picture:
    """Changes the saturation: 0 is grey, 1 the picture."""
    return image if factor == 1 else blend(greyscale(image), image, factor)


def contrast(image: Picture, factor: float, shade: int | None = None) -> Picture:
    """Changes the contrast: 0 is one shade of grey, 1 the picture.

    Args:
        shade: of the grey; that of the picture (see `grey_shade`) if None.
    """
    shade = grey_shade(image.shape[1], image.shape[2]) if shade is None else shade
    return blend(torch.full_like(image, shade), image, factor)


def grey_shade(height: int, width: int) -> int:
    """Maps a picture's size to the grey that stands for it without contrast.

    QUIRK: it is the number of pixels divided by 256, at most 255, which the reference takes for their mean.
    """
    return min(height * width // 256, 255)


def brightness(image: Picture, factor: float) -> Picture:
    """Changes the brightness: 0 is black, 1 the picture."""
    return blend(torch.zeros_like(image), image, factor)


def sharpness(image: Picture, factor: float) -> Picture:
    """Changes the sharpness: 0 is a blur that leaves the border alone, 1 the picture.

    The blur is a 3×3 average in which the centre counts five times.
    """
    if factor == 1 or min(image.shape[1:]) < 3:
        return image
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]])
    sums = F.conv2d(image[:, None].float(), kernel[None, None])[:, 0]
    blurred = image.clone()
    blurred[:, 1:-1, 1:-1] = (sums.int() // 13).byte()
    return blend(blurred, image, factor)


def autocontrast(image: Picture) -> Picture:
    """Stretches each channel from 0 to 255; one of a single value stays."""
    return look_up(image, [_stretched(histogram) for histogram in _histograms(image)])


def _stretched(histogram: np.ndarray) -> np.ndarray:
    low, high = histogram.nonzero()[0][[0, -1]].astype(np.float32)
    if low == high:
        return _VALUES
    scale = np.float32(255) / (high - low)
    return (_VALUES * scale - low * scale).clip(0, 255)


def equalize(image: Picture) -> Picture:
    """Maps each channel's values so that they become about equally frequent."""
    return look_up(image, [_equalized(histogram) for histogram in _histograms(image)])


def _equalized(histogram: np.ndarray) -> np.ndarray:
    step = int(histogram.sum() - histogram[histogram.nonzero()[0][-1]]) // 255
    if step == 0:
        return _VALUES
    darker = histogram.cumsum() - histogram
    return ((darker + step // 2) // step).clip(max=255)


def _histograms(image: Picture) -> list[np.ndarray]:
    return [np.bincount(channel.numpy().reshape(-1), minlength=256) for channel in image]


def look_up(image: Picture, tables: Sequence[np.ndarray]) -> Picture:
    """Maps the values of each channel by a table of 256, whose fractions are cut off."""
    result = np.empty((*image.shape[1:], 3), np.uint8)
    for number, (channel, table) in enumerate(zip(image, tables, strict=True)):
        result[..., number] = table.astype(np.uint8).take(channel.numpy())
    return torch.from_numpy(result).permute(2, 0, 1)


def invert(image: Picture) -> Picture:
    """Maps a picture to its negative."""
    return 255 - image


def posterize(image: Picture, bits: int) -> Picture:
    """Keeps the highest bits of each value.

    Args:
        bits: how many, 0 to 8.
    """
    return image & (0xFF << (8 - bits) & 0xFF)


def solarize(image: Picture, threshold: int = 128) -> Picture:
    """Inverts the values from a threshold on."""
    return look_up(image, 3 * [np.where(threshold > _VALUES, _VALUES, 255 - _VALUES)])


def solarize_add(image: Picture, addition: int, threshold: int = 128) -> Picture:
    """Brightens the values below a threshold, to no more than 255."""
    return look_up(image, 3 * [np.where(threshold > _VALUES, (_VALUES + addition).clip(0, 255), _VALUES)])


Row = tuple[float, float, float]


def affine_rows(name: str, size: Sequence[int], number: float) -> tuple[Row, Row]:
    """Maps an operation that moves pixels to what `transform` moves them by.

    Args:
        name: rotate, shear_x, shear_y, translate_x or translate_y.
        size: height and width of the picture.
        number: degrees, level or pixels.
    """
    if name == "rotate":
        cos, sin = math.cos(math.radians(number)), math.sin(math.radians(number))
        middle_y, middle_x = ((side - 1) / 2 for side in size)
        return (
            (cos, -sin, middle_x - cos * middle_x + sin * middle_y),
            (sin, cos, middle_y - sin * middle_x - cos * middle_y),
        )
    x = {"shear_x": (1.0, number, 0.0), "translate_x": (1.0, 0.0, number)}
    y = {"shear_y": (number, 1.0, 0.0), "translate_y": (0.0, 1.0, number)}
    return x.get(name, (1.0, 0.0, 0.0)), y.get(name, (0.0, 1.0, 0.0))


def rotate(image: Picture, degrees: float, fill: int = GREY) -> Picture:
    """Turns a picture about its centre, counterclockwise for positive degrees."""
    return transform(image, affine_rows("rotate", image.shape[1:], degrees), fill)


def shear_x(image: Picture, level: float, fill: int = GREY) -> Picture:
    """Shifts each row to the left by `level` times its distance from the top."""
    return transform(image, affine_rows("shear_x", image.shape[1:], level), fill)


def shear_y(image: Picture, level: float, fill: int = GREY) -> Picture:
    """Shifts each column up by `level` times its distance from the left."""
    return transform(image, affine_rows("shear_y", image.shape[1:], level), fill)


def translate_x(image: Picture, pixels: float, fill: int = GREY) -> Picture:
    """Shifts a picture to the left."""
    return transform(image, affine_rows("translate_x", image.shape[1:], pixels), fill)


def translate_y(image: Picture, pixels: float, fill: int = GREY) -> Picture:
    """Shifts a picture up."""
    return transform(image, affine_rows("translate_y", image.shape[1:], pixels), fill)


def transform(image: Picture, rows: tuple[Row, Row], fill: int = GREY) -> Picture:
    """Maps a picture to its image under an affine map, nearest neighbour.

    Args:
        rows: the pixel (x, y) of the result, as (x, y, 1), times these is the place in the picture that it shows; pixel
            (0, 0) is the upper left one's centre.
        fill: value of pixels that show a place outside.

    Source: TensorFlow's `ImageProjectiveTransformV2`.
    """
    height, width = image.shape[1:]
    (column, is_left), (row, is_above) = (_places(image.shape[1:], *parts) for parts in rows)
    outside = is_left | (column >= width) | is_above | (row >= height)
    # One more pixel, of the fill's value, is what all places outside show.
    place = np.where(outside, height * width, row * np.int32(width) + column)
    # The bytes of a pixel are moved as one number; channel by channel they are put together and taken apart fastest.
    pixels = np.full((height * width + 1, 4), fill, np.uint8)
    for number in range(3):
        pixels[:-1, number] = image[number].numpy().reshape(-1)
    moved = pixels.view(np.uint32).reshape(-1).take(place).view(np.uint8).reshape(height, width, 4)
    result = np.empty((height, width, 3), np.uint8)
    for number in range(3):
        result[..., number] = moved[..., number]
    return torch.from_numpy(result).permute(2, 0, 1)


def _places(size: Sequence[int], a: float, b: float, c: float) -> tuple[np.ndarray, np.ndarray]:
    """The nearest whole numbers to ax + by + c, and which of the sums lie before the first pixel.

    Halves go away from zero, as in C, so that -0.5 is outside. Along an axis on which nothing depends there is one.
    """
    x = np.arange(size[1] if a else 1, dtype=np.float32)
    y = np.arange(size[0] if b else 1, dtype=np.float32)[:, None]
    place = np.float32(a) * x + np.float32(b) * y + np.float32(c)
    whole = np.trunc(place)
    return (whole + (place - whole >= np.float32(0.5))).astype(np.int32), place <= np.float32(-0.5)


def cutout(image: Picture, centre: tuple[int, int], half_side: int, fill: int = GREY) -> Picture:
    """Fills a square, so far as it lies in the picture.

    Args:
        centre: row and column; the square begins `half_side` pixels before it and ends before as many after it.
    """
    top, left = (max(0, place - half_side) for place in centre)
    bottom, right = (place + half_side for place in centre)
    filled = image.clone()
    filled[:, top:bottom, left:right] = fill
    return filled


@dataclasses.dataclass(frozen=True)
class _Strength:
    """Draws the strength of an operation: magnitude 10 is 1; what is left open comes from the generator."""

    level: float
    size: tuple[int, int]
    generator: torch.Generator

    def signed(self, most: float) -> float:
        """The level's share of `most`, with a random sign."""
        return self.level * most * (1 if self._below(2) else -1)

    def part(self, most: int) -> int:
        """The level's share of `most`."""
        return int(self.level * most)

    @property
    def factor(self) -> float:
        """Of `blend`: 0.1 to 1.9; 1, the identity, at magnitude 5."""
        return self.level * 1.8 + 0.1

    def square(self) -> tuple[int, int, int]:
        """A random pixel, and half of the side of a square around it."""
        return self._below(self.size[0]), self._below(self.size[1]), self.part(40)

    def _below(self, number: int) -> int:
        return int(torch.randint(number, (), generator=self.generator))


class Change(NamedTuple):
    """One of the operations as it was drawn.

    Attributes:
        name: of the operation.
        numbers: how strong it is, in its own units.
    """

    name: str
    numbers: tuple[float, ...] = ()

    def at_scale(self, scale: int) -> "Change":
        """The same change of the same picture at 1/scale of its size."""
        if self.name in ("translate_x", "translate_y"):
            return Change(self.name, tuple(number / scale for number in self.numbers))
        if self.name == "cutout":
            return Change(self.name, tuple(number // scale for number in self.numbers))
        return self


class _Operation(NamedTuple):
    """An operation: how its numbers are drawn, and what it makes of a picture, these and the fill."""

    draw: Callable[[_Strength], tuple[float, ...]]
    apply: Callable[..., Picture]


_OPERATIONS: dict[str, _Operation] = {
    "autocontrast": _Operation(lambda strength: (), lambda image, fill: autocontrast(image)),
    "equalize": _Operation(lambda strength: (), lambda image, fill: equalize(image)),
    "invert": _Operation(lambda strength: (), lambda image, fill: invert(image)),
    "rotate": _Operation(
        lambda strength: (strength.signed(30.0),), lambda image, fill, degrees: rotate(image, degrees, fill)
    ),
    "posterize": _Operation(lambda strength: (strength.part(4),), lambda image, fill, bits: posterize(image, bits)),
    "solarize": _Operation(
        lambda strength: (strength.part(256),), lambda image, fill, threshold: solarize(image, threshold)
    ),
    "color": _Operation(lambda strength: (strength.factor,), lambda image, fill, factor: color(image, factor)),
    "contrast": _Operation(
        lambda strength: (strength.factor, grey_shade(*strength.size)),
        lambda image, fill, factor, shade: contrast(image, factor, shade),
    ),
    "brightness": _Operation(
        lambda strength: (strength.factor,), lambda image, fill, factor: brightness(image, factor)
    ),
    "sharpness": _Operation(lambda strength: (strength.factor,), lambda image, fill, factor: sharpness(image, factor)),
    "shear_x": _Operation(
        lambda strength: (strength.signed(0.3),), lambda image, fill, level: shear_x(image, level, fill)
    ),
    "shear_y": _Operation(
        lambda strength: (strength.signed(0.3),), lambda image, fill, level: shear_y(image, level, fill)
    ),
    "translate_x": _Operation(
        lambda strength: (strength.signed(100.0),), lambda image, fill, pixels: translate_x(image, pixels, fill)
    ),
    "translate_y": _Operation(
        lambda strength: (strength.signed(100.0),), lambda image, fill, pixels: translate_y(image, pixels, fill)
    ),
    "cutout": _Operation(
        lambda strength: strength.square(),
        lambda image, fill, row, column, half: cutout(image, (row, column), half, fill),
    ),
    "solarize_add": _Operation(
        lambda strength: (strength.part(110),), lambda image, fill, addition: solarize_add(image, addition)
    ),
}
OPERATIONS = tuple(_OPERATIONS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Maps pictures to changed ones: so many times, one of the operations, drawn anew, at one magnitude.

    Args:
        num_layers: how many operations follow one another.
        magnitude: of all of them, 0 to 10. At 5, the default, the four that `blend` change nothing.
        operations: names of those to draw from.
        fill: value of places that a picture was moved away from.

    Raises:
        ValueError: for a magnitude outside 0…10, or an operation that does not exist.
    """

    num_layers: int = 4
    magnitude: float = 5.0
    operations: tuple[str, ...] = OPERATIONS
    fill: int = GREY

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude <= 10:
            raise ValueError(f"magnitude ({self.magnitude}) must be 0 to 10")
        unknown = sorted(set(self.operations) - set(OPERATIONS))
        if unknown or not self.operations:
            raise ValueError(
                f"operations {', '.join(unknown) or '()'} are not known; choose some of {', '.join(OPERATIONS)}"
            )

    def __call__(self, image: Picture, generator: torch.Generator) -> Picture:
        """Changes a picture; which way is drawn from the generator."""
        return self.apply(image, self.draw((image.shape[1], image.shape[2]), generator))

    def draw(self, size: tuple[int, int], generator: torch.Generator) -> list[Change]:
        """Draws how a picture is changed.

        Args:
            size: its height and width.
            generator: of all that is random.
        """
        strength = _Strength(self.magnitude / 10, size, generator)
        changes = []
        for _ in range(self.num_layers):
            name = self.operations[int(torch.randint(len(self.operations), (), generator=generator))]
            changes.append(Change(name, _OPERATIONS[name].draw(strength)))
        return changes

    def apply(self, image: Picture, changes: Iterable[Change]) -> Picture:
        """Changes a picture as was drawn."""
        for name, numbers in changes:
            image = _OPERATIONS[name].apply(image, self.fill, *numbers)
        return image
