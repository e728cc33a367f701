"""Picture files of any kind, as pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from perceiver_io.optional import needs_extra

if TYPE_CHECKING:
    from PIL import Image


def load_image(path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """Picture file → RGB pixels as one sees them: upright, transparency over white, 8 bits a channel.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a picture that Pillow reads.
        ImportError: Pillow is missing; it comes with the `examples` extra.
    """
    with needs_extra("reading pictures"):
        from PIL import Image
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    try:
        with Image.open(path) as file:
            return image_pixels(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a picture that Pillow can read: {error}") from error


def image_pixels(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """PIL image → RGB pixels as one sees them: upright, transparency over white, 8 bits a channel.

    Raises:
        OSError: the image was opened lazily, and its file is damaged.
    """
    with needs_extra("reading pictures"):
        from PIL import Image, ImageOps
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit greyscale: Pillow's own conversion would clip everything above 255 to white.
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) // 257
        image = Image.fromarray(grey.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))
