"""Parts of picture files: sizes are known before anything is decoded, and JPEGs may be decoded smaller.

A JPEG is made of blocks of 8×8 pixels, which a decoder can write as 4×4, 2×2 or 1×1 with less work.
"""

import dataclasses
import io
import warnings
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import UInt8

from perceiver_io.media.border import check_size
from perceiver_io.media.images import QUARTER_TURNS, TURNED, open_picture, orientation_of, picture_pixels_of, upright
from perceiver_io.optional import needs_extra

JpegDecoder = Literal["pillow", "simplejpeg"]

_SCALES = (8, 4, 2)


class Window(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """Ways to decode JPEG files; with the defaults, and with either decoder, pixels are those of `load_image`.

    Args:
        scaled: whether a picture is decoded at 1/2, 1/4 or 1/8 of its size where a window of it stays as large as
            asked for.
        decoder: Pillow, or simplejpeg (of the extra `fast-jpeg`) for what it decodes alike: whole JPEGs, coloured or
            grey.

    Raises:
        ValueError: for another decoder.
    """

    scaled: bool = False
    decoder: JpegDecoder = "pillow"

    def __post_init__(self) -> None:
        if self.decoder not in get_args(JpegDecoder):
            raise ValueError(f"decoder ({self.decoder!r}) must be one of {', '.join(get_args(JpegDecoder))}")


class Part(NamedTuple):
    """A part of a picture, at 1/scale of its size."""

    pixels: UInt8[np.ndarray, "height width 3"]
    scale: int


class PictureFile:
    """A picture file whose size is known, and of which a part may be decoded.

    Only JPEGs wait until they are decoded; files of other kinds are at once.

    Args:
        content: of the file.
        name: of the file, for errors.
        decoding: of JPEGs.

    Raises:
        ValueError, ImportError: as `load_image`.
    """

    def __init__(self, content: bytes, name: str, decoding: Decoding | None = None) -> None:
        self._content = content
        self._name = name
        self._decoding = decoding or Decoding()
        self._whole: UInt8[np.ndarray, "height width 3"] | None = None
        self._orientation: object = None
        with open_picture(io.BytesIO(content), name) as image:
            # What Pillow calls MPO is several JPEGs in one file.
            if image.format == "JPEG":
                check_size(name, image.height, image.width)
                self._orientation = orientation_of(image)
                size = image.height, image.width
                self.height, self.width = size[::-1] if self._orientation in QUARTER_TURNS else size
            else:
                self._whole = picture_pixels_of(image, name)
                self.height, self.width = self._whole.shape[:2]

    def part(self, window: Window, at_least: tuple[int, int]) -> Part:
        """Decodes a window of the picture.

        Args:
            window: in pixels of the whole, upright picture.
            at_least: height and width that decoding at a smaller size must leave of the window.

        Raises:
            ValueError: if the file is damaged.
        """
        scale = 1
        if self._whole is None and self._decoding.scaled:
            fitting = (s for s in _SCALES if window.height // s >= at_least[0] and window.width // s >= at_least[1])
            scale = next(fitting, 1)
        height, width = window.height // scale, window.width // scale
        # The nearest place, in a picture whose last row and column may stand for fewer than `scale`.
        top = min((window.top + scale // 2) // scale, -(-self.height // scale) - height)
        left = min((window.left + scale // 2) // scale, -(-self.width // scale) - width)
        part = Window(top, left, height, width)
        return Part(self._decoded(scale, part) if self._whole is None else _cut(self._whole, part), scale)

    def _decoded(self, scale: int, part: Window) -> UInt8[np.ndarray, "height width 3"]:
        pixels = self._by_simplejpeg(scale) if self._decoding.decoder == "simplejpeg" else None
        if pixels is not None:
            return _cut(upright(pixels, self._orientation), part)
        with open_picture(io.BytesIO(self._content), self._name) as image:
            if scale > 1:
                image.draft(image.mode, (image.width // scale, image.height // scale))
            if self._orientation in TURNED:
                return _cut(picture_pixels_of(image, self._name), part)
            # Before pixels are copied, which takes long.
            box = (part.left, part.top, part.left + part.width, part.top + part.height)
            return picture_pixels_of(image.crop(box), self._name)

    def _by_simplejpeg(self, scale: int) -> UInt8[np.ndarray, "height width 3"] | None:
        """The pixels as they lie in the file; None of what is left to Pillow: damaged files, and those for printing."""
        decoder = _simplejpeg()
        height, width = self.height, self.width
        if self._orientation in QUARTER_TURNS:
            height, width = width, height
        try:
            if decoder.decode_jpeg_header(self._content)[2] not in ("YCbCr", "Gray"):
                return None
            least = -(-height // scale), -(-width // scale)
            pixels: np.ndarray = decoder.decode_jpeg(
                self._content, min_height=least[0], min_width=least[1], min_factor=scale
            )
        except ValueError:
            return None
        return pixels if pixels.shape[:2] == least else None


def _cut(pixels: UInt8[np.ndarray, "_ _ 3"], part: Window) -> UInt8[np.ndarray, "height width 3"]:
    return pixels[part.top : part.top + part.height, part.left : part.left + part.width]


@lru_cache
def _simplejpeg() -> Any:
    with needs_extra("decoding JPEGs with simplejpeg", "fast-jpeg"):
        import simplejpeg
    return simplejpeg


def decoder_at_hand(decoder: JpegDecoder) -> JpegDecoder:
    """Maps a decoder to itself, or to Pillow with a warning if it is not installed: pixels are the same."""
    if decoder == "simplejpeg":
        try:
            _simplejpeg()
        except ImportError as error:
            warnings.warn(f"{error}; Pillow takes its place, whose pixels are the same", stacklevel=2)
            return "pillow"
    return decoder
