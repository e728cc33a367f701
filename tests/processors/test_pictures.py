"""Pictures mean the same in whatever form they come."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.processors.pictures import to_pixels
from tests.unchecked import unchecked


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_every_form_gives_the_same_pixels(tmp_path: Path) -> None:
    pixels = noise(7, 11, 3)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [
        tmp_path / "picture.png",
        str(tmp_path / "picture.png"),
        Image.fromarray(pixels),
        pixels,
        pixels / 255,
        (pixels / 255).astype(np.float32),
        tensor,
        tensor.float() / 255,
        np.asfortranarray(pixels),
    ]
    for form in forms:
        (found,) = to_pixels(form)
        assert found.dtype == np.uint8
        assert (found == pixels).all(), form
    assert all((found == pixels).all() for found in to_pixels(forms))


def test_low_precisions_are_rounded() -> None:
    assert to_pixels(torch.full((3, 2, 4), 0.5, dtype=torch.bfloat16))[0][0, 0, 0] == 128


def test_several_have_an_axis_more_or_are_a_list() -> None:
    pixels = noise(4, 7, 11, 3)
    for several in (pixels, list(pixels), tuple(pixels), torch.from_numpy(pixels).permute(0, 3, 1, 2)):
        assert (np.stack(to_pixels(several)) == pixels).all()


def test_pictures_of_a_list_may_differ_in_size() -> None:
    assert [one.shape for one in to_pixels([noise(7, 11, 3), noise(5, 2, 3)])] == [(7, 11, 3), (5, 2, 3)]


def test_grey_becomes_rgb() -> None:
    grey = noise(7, 11)
    for form in (grey, torch.from_numpy(grey)):
        assert (to_pixels(form)[0] == grey[..., None]).all()


def test_transparency_of_a_pil_image_lies_over_white() -> None:
    assert to_pixels(Image.new("RGBA", (2, 3), (0, 0, 0, 0)))[0].min() == 255


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "there are no pictures"),
        (7, "a picture is a file, a PIL image, an array or a tensor, not a int"),
        (None, "not a NoneType"),
        (noise(5, 7, 11), r"an array of shape \(5, 7, 11\) is not a picture; it must be \[height, width, 3\]"),
        (torch.zeros(7, 11, 2), r"a tensor of shape \(7, 11, 2\) is not a picture; it must be \[3, height, width\]"),
        (torch.zeros(1, 7, 3), r"shape \(1, 7, 3\) can be read with channels first or last; say which"),
        (torch.zeros(3), r"a tensor of shape \(3,\) is not a picture"),
        (noise(7, 11, 4), r"an array of shape \(7, 11, 4\)"),
        (noise(0, 11, 3), r"an array of shape \(0, 11, 3\)"),
        (
            noise(7, 11, 3).astype(np.int64) * 2,
            r"values 0 to 510 of type int64; whole numbers must be 0…255: scale them",
        ),
        (noise(7, 11, 3).astype(np.int64) % 2, "type int64, which may mean 0…1 or 0…255; give bool"),
        (noise(7, 11, 3).astype(complex), "has values of type complex128; give numbers"),
        ([[1, 2], [3]], "a list cannot be read as an array"),
        (torch.zeros(3, 7, 11, device="meta"), "has no plain values; give a dense tensor"),
        (np.full((7, 11, 3), 200.0), "has values 200 to 200; floating values must be 0…1: divide by 255"),
        (torch.full((3, 7, 11), -0.5), "has values -0.5 to -0.5"),
        (np.full((7, 11, 3), np.nan), "has values nan to nan"),
        ([[noise(7, 11, 3)]], "a picture is a file, a PIL image, an array or a tensor, not a list"),
    ],
)
def test_what_is_no_picture_is_refused(wrong: object, message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        to_pixels(wrong)
