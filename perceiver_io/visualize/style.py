"""The things that all figures have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from perceiver_io.media.border import writing
from perceiver_io.optional import needs_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCENT = "#1f5fa8"
# Inches of a figure, and pixels of a picture in it.
_TALLEST = 200.0
_LARGEST = 1_200


def new_figure(width: int | float, height: int | float) -> Figure:
    """Makes an empty figure that belongs to no window.

    Args:
        width: in inches.
        height: in inches; that of a narrow picture would be without end, and is cut.

    Raises:
        ImportError: matplotlib is missing; it comes with the `examples` extra.
    """
    with needs_extra("drawing"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, min(height, _TALLEST)), layout="constrained")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure in the format of the path's ending.

    Raises:
        OSError: the file cannot be written, or nothing can draw the figure; it names the file.
    """
    with writing(path) as temporary:
        figure.savefig(temporary)


def drawable(text: str, family: str = "sans-serif") -> str:
    """Replaces characters that the font lacks by boxes; matplotlib would draw these too, with a warning each."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(family=[family])))
    return "".join(character if font.get_char_index(ord(character)) else "□" for character in text)


def shrunk(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Makes a photograph as small as a figure needs it, by means of blocks of pixels."""
    step = -(-max(image.shape[:2]) // _LARGEST)
    height, width = (max(side // step, 1) for side in image.shape[:2])
    if step == 1 or min(image.shape[:2]) < step:
        return image
    sums = np.zeros((height, width, 3), np.uint32)
    for row in range(step):
        for column in range(step):
            sums += image[row : height * step : step, column : width * step : step]
    return (sums // step**2).astype(np.uint8)
