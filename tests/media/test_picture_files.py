"""Parts of picture files: the pixels of `load_image`, by either decoder, and JPEGs decoded smaller."""

import builtins
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perceiver_io.media import load_image
from perceiver_io.media import picture_files as module
from perceiver_io.media.picture_files import Decoding, PictureFile, Window, decoder_at_hand
from tests.unchecked import unchecked

WINDOW = Window(10, 33, 51, 46)
DECODERS = ("pillow", "simplejpeg")


def picture(mode: str = "RGB", size: tuple[int, int] = (133, 94)) -> Image.Image:
    """Smooth colours, so that decoders have to interpolate, with some noise."""
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (9, 13, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth).astype(int) + random.integers(-9, 10, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)


def turned(orientation: int) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


FILES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "baseline": ("RGB", "JPEG", {"quality": 90}),
    "no-subsampling": ("RGB", "JPEG", {"quality": 90, "subsampling": "4:4:4"}),
    "half-subsampling": ("RGB", "JPEG", {"quality": 70, "subsampling": "4:2:2"}),
    "rgb": ("RGB", "JPEG", {"keep_rgb": True}),
    "progressive": ("RGB", "JPEG", {"progressive": True}),
    "grey": ("L", "JPEG", {}),
    "cmyk": ("CMYK", "JPEG", {}),
    "png": ("RGB", "PNG", {}),
    "transparent": ("RGBA", "PNG", {}),
    "webp": ("RGB", "WEBP", {}),
    **{f"turned-{number}": ("RGB", "JPEG", turned(number)) for number in range(1, 9)},
}


def write(path: Path, kind: str, size: tuple[int, int] = (133, 94)) -> bytes:
    mode, file_format, options = FILES[kind]
    picture(mode, size).save(path, file_format, **options)
    return path.read_bytes()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", FILES)
def test_a_part_is_that_of_the_whole_bit_for_bit(tmp_path: Path, kind: str, decoder: Any) -> None:
    file = PictureFile(write(tmp_path / kind, kind), kind, Decoding(decoder=decoder))
    whole = load_image(tmp_path / kind)
    assert (file.height, file.width) == whole.shape[:2]
    top, left, height, width = WINDOW
    pixels, scale = file.part(WINDOW, (4, 4))
    assert scale == 1
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, whole[top : top + height, left : left + width])


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "cmyk", "turned-6", "turned-3"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_decoding_at_the_size_needed(tmp_path: Path, kind: str, scale: int) -> None:
    # Whole blocks, so that those of a turned picture begin at its border, too.
    content, whole = write(tmp_path / kind, kind, (136, 96)), load_image(tmp_path / kind)
    top, left, height, width = WINDOW
    parts = []
    for decoder in DECODERS:
        file = PictureFile(content, kind, Decoding(scaled=True, decoder=decoder))  # type: ignore[arg-type]
        pixels, found = file.part(WINDOW, (height // scale, width // scale))
        assert found == scale
        # Another pixel is asked for than there are at this scale.
        assert file.part(WINDOW, (height // scale + 1, 1)).scale < scale
        parts.append(pixels)
    assert parts[0].shape == (height // scale, width // scale, 3)
    assert np.array_equal(parts[0], parts[1])
    # A pixel is about the mean of those that it stands for; windows begin at the nearest pixel of the small picture.
    rows, columns = height // scale, width // scale
    first_row, first_column = ((place + scale // 2) // scale * scale for place in (top, left))
    expected = whole[first_row : first_row + rows * scale, first_column : first_column + columns * scale].astype(float)
    means = expected.reshape(rows, scale, columns, scale, 3).mean((1, 3))
    assert np.abs(parts[0] - means).mean() < 3


def test_a_small_window_at_the_end_stays_in_the_picture(tmp_path: Path) -> None:
    file = PictureFile(write(tmp_path / "file", "baseline"), "file", Decoding(scaled=True))
    for top in range(94 - 16 + 1):
        pixels, scale = file.part(Window(top, 133 - 18, 16, 18), (4, 4))
        assert (pixels.shape, scale) == ((4, 4, 3), 4)


def test_only_jpegs_are_decoded_smaller(tmp_path: Path) -> None:
    file = PictureFile(write(tmp_path / "file", "png"), "file", Decoding(scaled=True))
    assert file.part(WINDOW, (1, 1)).scale == 1


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("break_it", [lambda content: content[:900], lambda content: content[: len(content) // 2]])
def test_a_file_cut_short_is_refused_as_by_load_image(
    tmp_path: Path, decoder: Any, break_it: Callable[[bytes], bytes]
) -> None:
    content = break_it(write(tmp_path / "cut.jpg", "baseline"))
    with pytest.raises(ValueError, match=r"cut\.jpg is not a picture that Pillow can read"):
        PictureFile(content, "cut.jpg", Decoding(decoder=decoder)).part(WINDOW, (4, 4))


@pytest.mark.parametrize("decoder", DECODERS)
def test_bytes_that_pillow_passes_over_are_passed_over(tmp_path: Path, decoder: Any) -> None:
    content = bytearray(write(tmp_path / "file", "baseline"))
    start = content.index(b"\xff\xda") + 600
    content[start : start + 8] = bytes(8)
    (tmp_path / "file").write_bytes(content)
    top, left, height, width = WINDOW
    expected = load_image(tmp_path / "file")[top : top + height, left : left + width]
    assert np.array_equal(
        PictureFile(bytes(content), "file", Decoding(decoder=decoder)).part(WINDOW, (4, 4))[0], expected
    )


def test_content_that_is_no_picture() -> None:
    for content in (b"", b"text", b"\xff\xd8\xff"):
        with pytest.raises(ValueError, match="notes is not a picture that Pillow can read"):
            PictureFile(content, "notes")


def test_pictures_of_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("L", (9500, 9400)).save(buffer, "JPEG")
    with pytest.raises(ValueError, match="more than 89 million"):
        PictureFile(buffer.getvalue(), "huge.jpg")


def test_without_simplejpeg_pillow_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "simplejpeg":
            raise ImportError("No module named 'simplejpeg'", name=name)
        return usual(name, *args, **kwargs)

    assert decoder_at_hand("simplejpeg") == "simplejpeg"
    module._simplejpeg.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.warns(UserWarning, match=r"needs simplejpeg; install it with: .*fast-jpeg.*; Pillow takes its place"):
        assert decoder_at_hand("simplejpeg") == "pillow"
    assert decoder_at_hand("pillow") == "pillow"


def test_another_decoder_is_refused() -> None:
    with unchecked(), pytest.raises(ValueError, match=r"decoder \('turbo'\) must be one of pillow, simplejpeg"):
        Decoding(decoder="turbo")  # type: ignore[arg-type]
