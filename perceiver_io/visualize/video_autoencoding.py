"""Videos beside each other."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from perceiver_io.media.arrays import check_pixels
from perceiver_io.optional import needs_extra

_MIN_FRAME_SIDE, _MAX_FRAME_SIDE = 160, 1_920


def side_by_side(
    left: UInt8[np.ndarray, "frames height width 3"],
    right: UInt8[np.ndarray, "frames height width 3"],
    captions: tuple[str, str] = ("input", "reconstruction"),
) -> UInt8[np.ndarray, "frames new_height new_width 3"]:
    """Joins two videos to one that shows them beside each other under captions; small ones are enlarged.

    Raises:
        ValueError: videos that differ in shape, or are not of 8-bit pixels.
        ImportError: Pillow is missing; it comes with the `examples` extra.
    """
    with needs_extra("captions"):
        from PIL import Image, ImageDraw, ImageFont
    for video in (left, right):
        check_pixels(video, "the frames", axes=4)
    if left.shape != right.shape or not left.size:
        raise ValueError(
            f"videos of {left.shape} and {right.shape} do not fit beside each other; give two of one shape"
        )
    # Not beyond what a screen shows of a narrow one.
    scale = max(1, min(-(-_MIN_FRAME_SIDE // min(left.shape[1:3])), _MAX_FRAME_SIDE // max(left.shape[1:3])))
    left, right = (video.repeat(scale, axis=1).repeat(scale, axis=2) for video in (left, right))
    frames, height, width, _ = left.shape
    caption_height, gap = 26, 8
    canvas = np.full((frames, caption_height + height, 2 * width + gap, 3), 255, dtype=np.uint8)
    canvas[:, caption_height:, :width] = left
    canvas[:, caption_height:, width + gap :] = right
    strip = Image.fromarray(canvas[0, :caption_height])
    draw = ImageDraw.Draw(strip)
    for caption, start in zip(captions, (0, width + gap), strict=True):
        middle = (start + width / 2, caption_height / 2)
        draw.text(middle, caption, fill="black", anchor="mm", font=ImageFont.load_default(size=16))
    canvas[:, :caption_height] = np.asarray(strip)
    return canvas
