"""Picture files of every kind, and their preparation against the colab's recipe done with OpenCV."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.inputs import centre_crop, imagenet_classes, kinetics700_classes, load_image, prepare_image


def gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5 % 256, columns * 3 % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (33, 33), (225, 301)])
def test_preparation_follows_the_colab(shape: tuple[int, int]) -> None:
    image = gradient(*shape)
    # The colab's steps in its own arithmetic: crop to 224/256 of the shorter side, OpenCV bicubic, normalise.
    side = int(np.int32((224 / (224 + 32)) * np.float32(min(shape))))
    top, left = ((shape[0] - side) + 1) // 2, ((shape[1] - side) + 1) // 2
    crop = image[top : top + side, left : left + side]
    assert (centre_crop(image, (224, 224)) == crop).all()
    resized = cv2.resize(np.ascontiguousarray(crop), (224, 224), interpolation=cv2.INTER_CUBIC)
    expected = (resized - np.array([0.485, 0.456, 0.406]) * 255) / (np.array([0.229, 0.224, 0.225]) * 255)

    prepared = prepare_image(image)
    assert prepared.shape == (3, 224, 224)
    assert prepared.dtype == torch.float32
    one_grey_level = 1 / (255 * 0.224)
    difference = np.abs(prepared.permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= one_grey_level + 1e-5
    assert (difference > 1e-5).mean() < 0.05


def test_values_are_normalised_by_imagenet_statistics() -> None:
    prepared = prepare_image(np.full((9, 9, 3), 255, np.uint8), (4, 4))
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(prepared, expected[:, None, None].expand(3, 4, 4))


def test_an_oblong_size_crops_an_oblong_window() -> None:
    assert centre_crop(gradient(80, 160), (32, 16)).shape == (70, 35, 3)
    assert centre_crop(gradient(80, 160), (16, 32)).shape == (70, 140, 3)


def test_a_tiny_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="a picture of 1×9 pixels is too small to crop for 224×224"):
        prepare_image(gradient(1, 9))


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


def test_class_names() -> None:
    assert len(imagenet_classes()) == 1000
    assert imagenet_classes()[0] == "tench, Tinca tinca"
    assert imagenet_classes()[417] == "balloon"
    assert imagenet_classes()[999] == "toilet tissue, toilet paper, bathroom tissue"
    assert len(set(kinetics700_classes())) == 700
    assert kinetics700_classes()[0] == "abseiling"
    assert kinetics700_classes()[699] == "zumba"
