"""Pictures in whatever form they come, as pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from perceiver_io.media import image_pixels, load_image

if TYPE_CHECKING:
    from PIL import Image

    # A file, a PIL image, an array [height, width, 3] or a tensor [3, height, width].
    Picture: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor
    # One, or several: a list of them, or an array or tensor with one more axis in front.
    Pictures: TypeAlias = Picture | Sequence[Picture]
else:  # Pillow is an extra, so that these cannot be checked at run time
    Picture = Pictures = Any

Pixels: TypeAlias = UInt8[np.ndarray, "height width 3"]


def to_pixels(pictures: Pictures) -> list[Pixels]:
    """One picture or several → the 8-bit RGB pixels of each.

    Args:
        pictures: files or PIL images of any kind; arrays with channels last or tensors with channels first, of 3
            channels, or grey without that axis. 8-bit values are 0…255. Floating values are 0…1 and are rounded
            to 256 steps, since the reference prepares 8-bit pictures.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something that is not a picture, or values outside 0…1.
        ImportError: Pillow is missing and files or PIL images are given; it comes with the `examples` extra.
    """
    several: Iterable[Picture]
    if isinstance(pictures, list | tuple) or (isinstance(pictures, np.ndarray | Tensor) and pictures.ndim == 4):
        several = pictures
    else:
        several = [cast(Picture, pictures)]
    pixels = [_picture_pixels(picture) for picture in several]
    if not pixels:
        raise ValueError("there are no pictures; give at least one")
    return pixels


def _picture_pixels(picture: Picture) -> Pixels:
    if isinstance(picture, str | Path):
        return load_image(picture)
    if isinstance(picture, np.ndarray):
        return _array_pixels(picture, f"an array of shape {picture.shape}", "[height, width, 3]")
    if isinstance(picture, Tensor):
        values = picture.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        array = values.numpy() if values.ndim == 2 else np.moveaxis(values.numpy(), 0, -1)
        return _array_pixels(array, f"a tensor of shape {tuple(picture.shape)}", "[3, height, width]")
    if hasattr(picture, "getexif"):
        return image_pixels(picture)
    raise ValueError(f"a picture is a file, a PIL image, an array or a tensor, not a {type(picture).__name__}")


def _array_pixels(array: np.ndarray, given: str, wanted: str) -> Pixels:
    """Array with channels last → its pixels.

    Args:
        given: what the user gave, for errors.
        wanted: the shape that it must have.
    """
    if array.ndim == 2:
        array = array[..., None].repeat(3, axis=-1)
    if array.ndim != 3 or array.shape[-1] != 3 or array.size == 0:
        raise ValueError(f"{given} is not a picture; it must be {wanted}, or [height, width] if it is grey")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{given} has values of type {array.dtype}; give uint8 0…255 or floating 0…1")
    if not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"{given} has values {array.min():.4g} to {array.max():.4g}; floating values must be 0…1")
    pixels: Pixels = np.rint(array * 255).astype(np.uint8)
    return pixels
