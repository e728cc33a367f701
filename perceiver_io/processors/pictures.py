"""Pictures in whatever form they come, as pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from perceiver_io.media import image_pixels, load_image, picture_pixels, video_pixels
from perceiver_io.media.arrays import as_array, is_array

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
    """Maps one picture or several to the 8-bit RGB pixels of each.

    Args:
        pictures: files or PIL images of any kind, or arrays, tensors or numbers in lists (see `picture_pixels`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: something that is not a picture, or values that are not a picture's.
        ImportError: Pillow is missing and files or PIL images are given; it comes with the `examples` extra.
    """
    several: Iterable[Picture]
    if is_array(pictures):
        # One picture has two or three axes, several have four.
        several = cast(Any, pictures) if as_array(pictures)[0].ndim == 4 else [cast(Any, pictures)]
    elif isinstance(pictures, list | tuple):
        several = pictures
    else:
        several = [cast(Any, pictures)]
    pixels = [to_picture(picture) for picture in several]
    if not pixels:
        raise ValueError("there are no pictures; give at least one")
    return pixels


def to_picture(picture: Picture) -> Pixels:
    """Maps one picture to its 8-bit RGB pixels.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `to_pixels`.
    """
    if isinstance(picture, str | Path):
        return load_image(picture)
    if is_array(picture):
        return picture_pixels(picture)
    if hasattr(picture, "getexif"):
        return image_pixels(cast(Any, picture))
    raise ValueError(f"a picture is a file, a PIL image, an array or a tensor, not a {type(picture).__name__}")


def to_video(video: Any) -> UInt8[np.ndarray, "frames height width 3"]:
    """Maps the frames of one video to their 8-bit RGB pixels.

    Args:
        video: an array, a tensor or numbers in lists with frames first (see `video_pixels`), or a list of pictures of
            one size.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `to_pixels`; or the frames differ in size.
    """
    if not isinstance(video, list | tuple) or is_array(video):
        return video_pixels(video)
    frames = to_pixels(video)
    sizes = dict.fromkeys(f"{frame.shape[0]}×{frame.shape[1]}" for frame in frames)
    if len(sizes) > 1:
        raise ValueError(f"the frames of a video have {' and '.join(sizes)} pixels; all must have the same size")
    return np.stack(frames)
