"""Picture files of every kind."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from perceiver_io.media import image_pixels, load_image


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


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_every_orientation_is_turned_as_pillow_does(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(gradient(16, 24)).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert (load_image(path) == expected).all()


def exif_of(*entries: tuple[int, int, int, bytes], after: bytes = b"") -> bytes:
    body = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack("<HHI", tag, kind, count) + value
    return b"Exif\0\0" + body + struct.pack("<I", 0) + after


TURNED = (0x112, 3, 1, struct.pack("<HH", 6, 0))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    ("notes", "is_turned"),
    [
        # A resolution of -1/0, one in letters, and a unit of -1: nonsense beside what counts.
        (exif_of(TURNED, (0x11A, 10, 1, struct.pack("<I", 38)), after=struct.pack("<ii", -1, 0)), True),
        (exif_of(TURNED, (0x11A, 2, 4, b"72x\0")), True),
        (exif_of(TURNED, (0x128, 8, 1, struct.pack("<hh", -1, 0))), True),
        (exif_of((0x112, 2, 4, b"six\0")), False),
        (exif_of((0x112, 3, 1, struct.pack("<HH", 77, 0))), False),
        (b"Exif\0\0nothing of the kind", False),
        (b"Exif\0\0" + exif_of(TURNED), None),
        (exif_of(TURNED)[:20], None),
    ],
)
def test_damaged_notes_of_a_camera_do_not_matter(notes: bytes, is_turned: bool | None, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "navy").save(tmp_path / "photo.jpg", exif=notes)
    shape = load_image(tmp_path / "photo.jpg").shape
    assert shape in ((20, 30, 3), (30, 20, 3))
    assert is_turned is None or (shape == (30, 20, 3)) == is_turned


RAMP = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("float", RAMP),
        ("sixteen", (RAMP * 65535).astype(np.uint16)),
        ("big-endian", (RAMP * 65535).astype(">u2")),
        ("thirty-two", (RAMP.astype(np.float64) * (2**31 - 1)).astype(np.int32)),
    ],
)
def test_deep_grey_keeps_its_shades(name: str, values: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / f"{name}.tif")
    pixels = load_image(tmp_path / f"{name}.tif")
    assert np.abs(pixels[..., 1] - 255 * RAMP).max() <= 1
    with Image.open(tmp_path / f"{name}.tif") as image:
        assert (image_pixels(image) == pixels).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP * np.nan, "has values nan to nan; floating values must be 0…1"),
        (RAMP * 1000, "has values 0 to 1000; floating values must be 0…1"),
        (RAMP - 0.5, "has values -0.5 to 0.5"),
        ((RAMP * 9000).astype(np.int32), "has values 0 to 9000 where white is 2147483647, so that all of it is black"),
        ((RAMP * 200).astype(np.uint16), "has values 0 to 200 where white is 65535, so that all of it is black"),
        ((RAMP * 9).astype(np.int32) - 5, "has values -5 to 4; they must be 0…2147483647"),
    ],
)
def test_grey_that_would_be_wrong_is_refused(values: np.ndarray, message: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(ValueError, match=rf"odd\.tif {re.escape(message)}"):
        load_image(tmp_path / "odd.tif")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_images_of_every_mode_are_as_pillow_converts_them(mode: str) -> None:
    image = Image.fromarray(gradient(4, 5)).convert("RGBA").convert(mode)
    assert (image_pixels(image) == np.asarray(image.convert("RGB"))).all()


def test_strips_are_joined() -> None:
    # More pixels than are converted at a time.
    pixels = np.random.default_rng(0).integers(0, 256, (1100, 1300, 3), dtype=np.uint8)
    assert (image_pixels(Image.fromarray(pixels)) == pixels).all()
