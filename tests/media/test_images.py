"""Picture files of every kind."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceiver_io.media import load_image


def gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5 % 256, columns * 3 % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_pixels_are_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(gradient(6, 9)).save(tmp_path / f"picture.{suffix}")
    assert (load_image(tmp_path / f"picture.{suffix}") == gradient(6, 9)).all()


def test_a_rotated_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned by 90° clockwise
    Image.fromarray(gradient(6, 9)).save(tmp_path / "turned.png", exif=exif)
    assert (load_image(tmp_path / "turned.png") == np.rot90(gradient(6, 9), k=-1)).all()


def test_greyscale_becomes_rgb(tmp_path: Path) -> None:
    grey = gradient(6, 9)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert (load_image(tmp_path / "grey.png") == grey[..., None].repeat(3, axis=-1)).all()


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert load_image(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_over_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new(mode, (2, 1), (0,) * len(mode))
    picture.putpixel((1, 0), (*(10,) * (len(mode) - 1), 255))
    picture.save(tmp_path / "glass.png")
    assert load_image(tmp_path / "glass.png").tolist() == [[[255] * 3, [10] * 3]]


def test_a_palette_with_transparency_lies_over_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "palette.gif", transparency=0)
    assert load_image(tmp_path / "palette.gif").tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"no picture at {tmp_path / 'none.png'}")):
        load_image(tmp_path / "none.png")


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_a_damaged_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "damaged.png"
    Image.fromarray(gradient(30, 30)).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"damaged\.png is not a picture that Pillow can read"):
        load_image(path)
