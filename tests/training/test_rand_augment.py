"""RandAugment's operations one by one: against their definitions, pixel by pixel, and Pillow's where it agrees.

Magnitude 5, the reference's, is pinned operation by operation.
"""

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps
from torch import Tensor

from perceiver_io.training import rand_augment as ops
from perceiver_io.training.rand_augment import OPERATIONS, Change, RandAugment

HEIGHT, WIDTH = 7, 11
PICTURES = arrays(np.uint8, (3, HEIGHT, WIDTH))


def noise(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pil(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def pixelwise(picture: Tensor, function: Callable[[int], int]) -> Tensor:
    """Applies a function of one value to every value, by itself."""
    return torch.tensor([function(value) for value in picture.flatten().tolist()], dtype=torch.uint8).view_as(picture)


def moved(picture: Tensor, place: Callable[[int, int], tuple[float, float]], fill: int) -> Tensor:
    """Shows at each (row, column) what lies nearest to a place (row, column) of the picture, or the fill value."""
    result = torch.full_like(picture, fill)
    height, width = picture.shape[1:]
    for row in range(height):
        for column in range(width):
            y, x = (math.copysign(math.floor(abs(p) + 0.5), p) for p in place(row, column))
            if 0 <= y < height and 0 <= x < width:
                result[:, row, column] = picture[:, int(y), int(x)]
    return result


@given(PICTURES)
def test_invert(array: np.ndarray) -> None:
    picture = torch.from_numpy(array)
    assert torch.equal(ops.invert(picture), pixelwise(picture, lambda value: 255 - value))
    assert torch.equal(ops.invert(picture), from_pil(ImageOps.invert(pil(picture))))


@given(PICTURES, st.integers(0, 8))
def test_posterize(array: np.ndarray, bits: int) -> None:
    picture, step = torch.from_numpy(array), 2 ** (8 - bits)
    assert torch.equal(ops.posterize(picture, bits), pixelwise(picture, lambda value: value // step * step))
    if bits:
        assert torch.equal(ops.posterize(picture, bits), from_pil(ImageOps.posterize(pil(picture), bits)))


@given(PICTURES, st.integers(0, 256))
def test_solarize(array: np.ndarray, threshold: int) -> None:
    picture = torch.from_numpy(array)
    expected = pixelwise(picture, lambda value: value if value < threshold else 255 - value)
    assert torch.equal(ops.solarize(picture, threshold), expected)
    assert torch.equal(expected, from_pil(ImageOps.solarize(pil(picture), threshold)))


@given(PICTURES, st.integers(-128, 128), st.integers(0, 256))
def test_solarize_add(array: np.ndarray, addition: int, threshold: int) -> None:
    picture = torch.from_numpy(array)
    expected = pixelwise(picture, lambda v: max(0, min(255, v + addition)) if v < threshold else v)
    assert torch.equal(ops.solarize_add(picture, addition, threshold), expected)


@given(PICTURES)
def test_autocontrast(array: np.ndarray) -> None:
    picture = torch.from_numpy(array)
    stretched = ops.autocontrast(picture)
    for channel, result in zip(picture, stretched, strict=True):
        low, high = int(channel.min()), int(channel.max())
        if low == high:
            assert torch.equal(result, channel)
            continue
        exact = (channel.double() - low) * 255 / (high - low)
        # Cut off after arithmetic in float32, which may end just below an integer.
        assert ((result >= (exact - 1e-3).floor()) & (result <= exact + 1e-3)).all()
    difference = stretched.int() - from_pil(ImageOps.autocontrast(pil(picture))).int()
    assert difference.abs().max() <= 1


@given(PICTURES)
def test_equalize(array: np.ndarray) -> None:
    picture = torch.from_numpy(array)
    assert torch.equal(ops.equalize(picture), from_pil(ImageOps.equalize(pil(picture))))


@pytest.mark.parametrize("shade", [1, 28, 128, 255])
def test_equalize_a_large_picture(shade: int) -> None:
    # Large enough for steps above 0, with which the histogram counts.
    picture = noise(61, 83) // shade * shade
    equalized = ops.equalize(picture)
    assert torch.equal(equalized, from_pil(ImageOps.equalize(pil(picture))))
    for channel, result in zip(picture.flatten(1).tolist(), equalized.flatten(1).tolist(), strict=True):
        step = (len(channel) - channel.count(max(channel))) // 255
        for value in set(channel):
            darker = sum(other < value for other in channel)
            expected = min(255, (darker + step // 2) // step) if step else value
            assert result[channel.index(value)] == expected


@given(PICTURES, PICTURES, st.floats(0, 2))
def test_blend(first: np.ndarray, second: np.ndarray, factor: float) -> None:
    mixed = ops.blend(torch.from_numpy(first), torch.from_numpy(second), factor)
    exact = (first + factor * (second.astype(float) - first)).clip(0, 255)
    assert ((mixed.numpy() >= np.floor(exact - 1e-3)) & (mixed.numpy() <= exact + 1e-3)).all()


def test_blend_cuts_fractions_off() -> None:
    dark, light = (torch.full((3, 2, 5), value, dtype=torch.uint8) for value in (10, 13))
    assert (ops.blend(dark, light, 0.5) == 11).all()
    assert (ops.blend(dark, light, 1.9) == 15).all()
    assert (ops.blend(light, dark, 9.0) == 0).all()
    assert torch.equal(ops.blend(dark, light, 0.0), dark)
    assert torch.equal(ops.blend(dark, light, 1.0), light)


@given(PICTURES)
def test_color_without_saturation_is_the_luminance(array: np.ndarray) -> None:
    red, green, blue = array.astype(float)
    exact = (0.2989 * red + 0.587 * green + 0.114 * blue) * 255.5 / 255
    grey = ops.color(torch.from_numpy(array), 0.0).numpy()
    assert ((grey >= np.floor(exact - 1e-3)) & (grey <= exact + 1e-3)).all()


def test_color_extrapolates() -> None:
    picture = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1)
    grey = int((0.2989 * 200 + 0.587 * 100 + 0.114 * 50) * 255.5 / 255)
    expected = [int(grey + 1.5 * (value - grey)) for value in (200, 100, 50)]
    assert ops.color(picture, 1.5).flatten().tolist() == [min(255, max(0, value)) for value in expected]


@pytest.mark.parametrize(("size", "shade"), [((7, 11), 0), ((32, 40), 5), ((300, 301), 255)])
def test_contrast_takes_the_number_of_pixels_for_their_mean(size: tuple[int, int], shade: int) -> None:
    assert (ops.contrast(noise(*size), 0.0) == shade).all()


def test_contrast() -> None:
    picture = noise(32, 40)
    expected = pixelwise(picture, lambda value: int(5 + 0.4 * (value - 5)))
    assert (ops.contrast(picture, 0.4).int() - expected.int()).abs().max() <= 1
    assert torch.equal(ops.contrast(picture, 0.5), pixelwise(picture, lambda value: int(5 + 0.5 * (value - 5))))


def test_brightness() -> None:
    picture = noise()
    assert torch.equal(ops.brightness(picture, 0.5), picture // 2)
    assert torch.equal(ops.brightness(picture, 1.5), pixelwise(picture, lambda value: min(255, value * 3 // 2)))
    assert (ops.brightness(picture, 0.0) == 0).all()


@given(PICTURES)
def test_sharpness_without_sharpness_is_a_blur_inside(array: np.ndarray) -> None:
    picture = torch.from_numpy(array)
    blurred = ops.sharpness(picture, 0.0)
    expected = picture.clone()
    for channel in range(3):
        for row in range(1, HEIGHT - 1):
            for column in range(1, WIDTH - 1):
                around = array[channel, row - 1 : row + 2, column - 1 : column + 2].astype(int)
                expected[channel, row, column] = math.floor(Fraction(int(around.sum() + 4 * around[1, 1]), 13))
    assert torch.equal(blurred, expected)


def test_sharpness_extrapolates() -> None:
    picture = torch.zeros(3, 3, 4, dtype=torch.uint8)
    picture[:, 1, 1] = 130
    sharper = ops.sharpness(picture, 1.5)
    assert sharper[0, 1].tolist() == [0, 170, 0, 0]  # from 50 to 130 and half as far again; from 10 to 0 and below
    assert torch.equal(ops.sharpness(picture[:, :2], 1.5), picture[:, :2])


@pytest.mark.parametrize("degrees", [-15.0, 15.0, 0.0, 33.3])
def test_rotate(degrees: float) -> None:
    picture = noise()
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def place(row: int, column: int) -> tuple[float, float]:
        y, x = row - (HEIGHT - 1) / 2, column - (WIDTH - 1) / 2
        return sin * x + cos * y + (HEIGHT - 1) / 2, cos * x - sin * y + (WIDTH - 1) / 2

    assert torch.equal(ops.rotate(picture, degrees, fill=5), moved(picture, place, fill=5))


def test_rotate_by_a_right_angle_is_counterclockwise() -> None:
    picture = noise(9, 9)
    assert torch.equal(ops.rotate(picture, 90.0), picture.rot90(1, (1, 2)))
    assert torch.equal(ops.rotate(picture, 90.0), from_pil(pil(picture).rotate(90)))


@pytest.mark.parametrize("level", [-0.15, 0.15, 0.3, 0.5])
def test_shear(level: float) -> None:
    picture, slope = noise(), np.float32(level)
    along_x = moved(picture, lambda row, column: (row, column + float(slope * np.float32(row))), fill=128)
    along_y = moved(picture, lambda row, column: (row + float(slope * np.float32(column)), column), fill=128)
    assert torch.equal(ops.shear_x(picture, level), along_x)
    assert torch.equal(ops.shear_y(picture, level), along_y)
    # About the upper left corner: its row and column stay.
    assert torch.equal(along_x[:, 0], picture[:, 0])
    assert torch.equal(along_y[:, :, 0], picture[:, :, 0])


@pytest.mark.parametrize("level", [-0.15, 0.15, 0.3])
def test_shear_is_pillows_about_the_first_pixels_centre(level: float) -> None:
    # Pillow counts from the corner of the first pixel, half a pixel before TensorFlow: unless it is told to move back
    # by half of the level, half of the level's share of the pixels differ (7.5 % at magnitude 5). What is then left
    # are ties, which Pillow takes up and TensorFlow away from zero.
    picture = noise(61, 83)
    for axis, shear in enumerate((ops.shear_x, ops.shear_y)):
        slopes = ((1, level, -level / 2, 0, 1, 0), (1, 0, 0, level, 1, -level / 2))[axis]
        theirs = from_pil(pil(picture).transform((83, 61), Image.Transform.AFFINE, slopes, fillcolor=(128,) * 3))
        moving = np.arange((61, 83)[axis], dtype=np.float32) * np.float32(level)
        is_tie = torch.from_numpy(np.abs(moving % 1 - 0.5) < 1e-4)
        differs = (shear(picture, level) != theirs).any(0)
        assert not (differs.T if axis else differs)[~is_tie].any()


@pytest.mark.parametrize("pixels", [-3.0, 0.0, 2.0, 50.0])
def test_translate(pixels: float) -> None:
    picture = noise()
    along_x = moved(picture, lambda row, column: (row, column + pixels), fill=128)
    along_y = moved(picture, lambda row, column: (row + pixels, column), fill=128)
    assert torch.equal(ops.translate_x(picture, pixels), along_x)
    assert torch.equal(ops.translate_y(picture, pixels), along_y)


def test_translate_to_the_left() -> None:
    shifted = ops.translate_x(noise(), 2.0, fill=9)
    assert torch.equal(shifted[..., :-2], noise()[..., 2:])
    assert (shifted[..., -2:] == 9).all()


def test_halves_round_away_from_zero() -> None:
    picture = noise()
    # Half a pixel to the left of the first column is outside; half a pixel beyond the second is the third.
    shifted = ops.translate_x(picture, -0.5, fill=9)
    assert (shifted[..., 0] == 9).all()
    assert torch.equal(shifted[..., 1:], picture[..., 1:])


@pytest.mark.parametrize("centre", [(0, 0), (3, 5), (6, 10)])
@pytest.mark.parametrize("half_side", [0, 2, 20])
def test_cutout(centre: tuple[int, int], half_side: int) -> None:
    expected = noise()
    for row in range(HEIGHT):
        for column in range(WIDTH):
            if -half_side <= row - centre[0] < half_side and -half_side <= column - centre[1] < half_side:
                expected[:, row, column] = 128
    assert torch.equal(ops.cutout(noise(), centre, half_side), expected)


# What each operation may give at magnitude 5, on a picture of 60×90 pixels.
AT_MAGNITUDE_5: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "autocontrast": lambda picture: [ops.autocontrast(picture)],
    "equalize": lambda picture: [ops.equalize(picture)],
    "invert": lambda picture: [ops.invert(picture)],
    "rotate": lambda picture: [ops.rotate(picture, 15.0), ops.rotate(picture, -15.0)],
    "posterize": lambda picture: [ops.posterize(picture, 2)],
    "solarize": lambda picture: [ops.solarize(picture, 128)],
    "color": lambda picture: [picture],
    "contrast": lambda picture: [picture],
    "brightness": lambda picture: [picture],
    "sharpness": lambda picture: [picture],
    "shear_x": lambda picture: [ops.shear_x(picture, 0.15), ops.shear_x(picture, -0.15)],
    "shear_y": lambda picture: [ops.shear_y(picture, 0.15), ops.shear_y(picture, -0.15)],
    "translate_x": lambda picture: [ops.translate_x(picture, 50.0), ops.translate_x(picture, -50.0)],
    "translate_y": lambda picture: [ops.translate_y(picture, 50.0), ops.translate_y(picture, -50.0)],
    "cutout": lambda picture: [ops.cutout(picture, (r, c), 20) for r in range(60) for c in range(90)],
    "solarize_add": lambda picture: [ops.solarize_add(picture, 55, 128)],
}


def test_the_reference_has_sixteen_operations() -> None:
    assert len(OPERATIONS) == 16
    assert AT_MAGNITUDE_5.keys() == set(OPERATIONS)
    assert RandAugment() == RandAugment(num_layers=4, magnitude=5.0, operations=OPERATIONS, fill=128)


@pytest.mark.parametrize("name", OPERATIONS)
def test_strength_at_magnitude_5(name: str) -> None:
    picture = noise(60, 90)
    possible = AT_MAGNITUDE_5[name](picture)
    augment, seen = RandAugment(num_layers=1, operations=(name,)), set()
    for seed in range(12):
        result = augment(picture, torch.Generator().manual_seed(seed))
        seen |= {number for number, expected in enumerate(possible) if torch.equal(result, expected)}
    assert len(seen) == (12 if name == "cutout" else len(possible))


def test_layers_follow_one_another() -> None:
    augment = RandAugment(num_layers=3, operations=("invert",))
    assert torch.equal(augment(noise(), torch.Generator()), 255 - noise())


def test_every_operation_is_drawn_about_as_often() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(change.name for _ in range(400) for change in RandAugment().draw((HEIGHT, WIDTH), generator))
    assert drawn.total() == 1600
    assert all(60 <= drawn[name] <= 140 for name in OPERATIONS)  # 100 ± 4 deviations


def test_a_change_of_a_picture_decoded_at_half_its_size() -> None:
    # What is told in pixels is halved: the same part of the picture is moved or hidden.
    assert Change("translate_x", (-50.0,)).at_scale(2) == ("translate_x", (-25.0,))
    assert Change("cutout", (31, 8, 20)).at_scale(2) == ("cutout", (15, 4, 10))
    large = noise(30, 40).repeat_interleave(2, 1).repeat_interleave(2, 2)
    for name in ("translate_x", "translate_y", "cutout", "contrast"):
        augment = RandAugment(num_layers=1, magnitude=4.0, operations=(name,))
        (change,) = augment.draw((60, 80), torch.Generator().manual_seed(3))
        small = augment.apply(large[:, ::2, ::2], [change.at_scale(2)])
        same = small == augment.apply(large, [change])[:, ::2, ::2]
        assert same.float().mean() > 0.95, name  # a square may begin at an odd pixel


@pytest.mark.parametrize("magnitude", [0.0, 10.0])
def test_the_ends_of_the_scale(magnitude: float) -> None:
    for name in OPERATIONS:
        changed = RandAugment(num_layers=1, magnitude=magnitude, operations=(name,))(noise(), torch.Generator())
        assert changed.shape == (3, HEIGHT, WIDTH)
        assert changed.dtype == torch.uint8


@given(st.integers(0, 2**31))
def test_the_same_seed_gives_the_same_picture(seed: int) -> None:
    first, second = (RandAugment()(noise(), torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(noise(), noise())  # the source is left alone


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"magnitude \(11\.0\) must be 0 to 10"):
        RandAugment(magnitude=11.0)
    with pytest.raises(ValueError, match="operations zoom are not known; choose some of autocontrast, equalize"):
        RandAugment(operations=("zoom", "invert"))
    with pytest.raises(ValueError, match=r"operations \(\) are not known"):
        RandAugment(operations=())
