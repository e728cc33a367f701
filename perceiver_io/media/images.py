"""Picture files of the usual kinds, as pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import UInt8

from perceiver_io.media.arrays import eight_bits
from perceiver_io.media.border import UnreadableError, check_size, reading
from perceiver_io.optional import needs_extra

if TYPE_CHECKING:
    from PIL import Image

# Of the kinds that Pillow knows, those that are pixels and nothing else: EPS starts Ghostscript, ICO and others hold
# pictures of other sizes than they claim.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")
_ORIENTATION = 0x0112
# How EXIF says that a picture lies, apart from upright; and of these those with sides exchanged.
TURNED = (2, 3, 4, 5, 6, 7, 8)
QUARTER_TURNS = (5, 6, 7, 8)
# TIFF's tags for the bits of a value, and for what they are.
_BITS, _KIND, _UNSIGNED = 258, 339, 1
_PIXELS_AT_A_TIME = 2**20


def load_image(path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """Reads the RGB pixels of a picture file as one sees them: upright, transparency over white, 8 bits a channel.

    Of a file with several pictures the first is read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a picture of the kinds that we read (`FORMATS`), is damaged, or has more than
            `MAX_PIXELS` pixels.
        ImportError: Pillow is missing; it comes with the `examples` extra.
    """
    return _opened(Path(path), str(path))


def image_from_bytes(content: bytes, name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Reads the pixels of a picture file whose content is at hand, as `load_image` does; archives hold such.

    Args:
        name: of the file, for errors.

    Raises:
        ValueError, ImportError: as `load_image`.
    """
    return _opened(io.BytesIO(content), name)


def _opened(source: Path | io.BytesIO, name: str) -> UInt8[np.ndarray, "height width 3"]:
    with open_picture(source, name) as file:
        return picture_pixels_of(file, name)


@contextmanager
def open_picture(source: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """Opens a picture file, of which nothing is decoded yet.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `load_image`, also for what is raised within the block.
    """
    with needs_extra("reading pictures"):
        from PIL import Image
    if isinstance(source, Path) and not source.is_file():
        raise FileNotFoundError(f"no picture at {name}")
    with reading(name, "a picture that Pillow can read"):
        Image.init()
        with Image.open(source, formats=[kind for kind in FORMATS if kind in Image.OPEN]) as file:
            yield file


def image_pixels(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """Maps a PIL image to its RGB pixels as one sees them: upright, transparency over white, 8 bits a channel.

    Raises:
        ValueError: the image was opened lazily, and its file is damaged; or it has more than `MAX_PIXELS` pixels, or
            values that do not fit 8 bits.
    """
    name = str(getattr(image, "filename", "")) or "the picture"
    with reading(name, "a picture that Pillow can read"):
        return picture_pixels_of(image, name)


def picture_pixels_of(image: Image.Image, name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Decodes an image that was opened and maps it to its pixels, as `image_pixels` does; errors are Pillow's own."""
    check_size(name, image.height, image.width)
    image.load()
    # Files may have become larger than they claimed.
    check_size(name, image.height, image.width)
    if image.mode == "F":
        grey = _floating(np.asarray(image), name)
    elif image.mode.startswith("I"):
        grey = _deep(image, name)
    else:
        return upright(_rgb(image), orientation_of(image))
    return upright(grey[..., None].repeat(3, axis=-1), orientation_of(image))


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """Converts strip by strip: copies of a whole photograph take much memory."""
    from PIL import Image

    if image.mode == "RGB" and not image.has_transparency_data:
        return np.array(image)

    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _PIXELS_AT_A_TIME // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = image.crop((0, top, image.width, bottom))
        if strip.has_transparency_data:
            strip = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        pixels[top:bottom] = np.asarray(strip.convert("RGB"))
    return pixels


def _floating(values: np.ndarray, name: str) -> UInt8[np.ndarray, "height width"]:
    """Floating grey, 0…1, as microscopes and depth maps have it."""
    try:
        return eight_bits(values, name)
    except ValueError as error:
        raise UnreadableError(str(error)) from error


def _deep(image: Image.Image, name: str) -> UInt8[np.ndarray, "height width"]:
    """Grey of 16 or 32 bits, of which Pillow would clip everything above 255 to white.

    White is the largest number of the file's bits, as TIFF defines it; 65535 in files of other kinds.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    white = 65535
    if values.dtype.itemsize == 4 and tags.get(_BITS, (16,))[0] == 32:
        is_unsigned = tags.get(_KIND, (_UNSIGNED,))[0] == _UNSIGNED
        white = 2**32 - 1 if is_unsigned else 2**31 - 1
        values = values.view(np.uint32) if is_unsigned else values
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > white:
        raise UnreadableError(f"{name} has values {lowest} to {highest}; they must be 0…{white}: scale them")
    # 257 is 65535 / 255; 16 bits become 8 as ever.
    pixels = values // 257 if white == 65535 else values.astype(np.float64) * (255 / white)
    pixels = np.asarray(pixels).astype(np.uint8)
    if highest > 0 and not pixels.any():
        raise UnreadableError(
            f"{name} has values {lowest} to {highest} where white is {white}, so that all of it is black; scale them"
        )
    return cast(np.ndarray, pixels)


def orientation_of(image: Image.Image) -> object:
    """Reads how a camera was turned (EXIF); damaged notes say nothing."""
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # the border to Pillow, which parses what cameras and programs wrote
        return None


def upright(pixels: UInt8[np.ndarray, "height width 3"], orientation: object) -> UInt8[np.ndarray, "_ _ 3"]:
    """Turns pixels as EXIF says; anything but its numbers 2 to 8 leaves them."""
    if orientation not in TURNED:
        return pixels
    mirrored = pixels[:, ::-1] if orientation in (2, 4, 5, 7) else pixels
    quarters = {2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    return np.ascontiguousarray(np.rot90(mirrored, quarters))
